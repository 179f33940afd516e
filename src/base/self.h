/* Where this code was loaded from, to find what is installed beside it. */
#ifndef VX_BASE_SELF_H
#define VX_BASE_SELF_H

#include <limits.h>
#include <stdbool.h>

/* The folder, with its last slash, of the shared library that holds this code or, when it is linked
 * in, of the program. False (folder is then undefined) when the system does not tell. */
bool vx_self_folder(char folder[PATH_MAX]);

#endif
