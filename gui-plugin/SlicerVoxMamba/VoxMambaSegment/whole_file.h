/* Small text files that appear whole or not at all. */
#ifndef VX_SLICER_WHOLE_FILE_H
#define VX_SLICER_WHOLE_FILE_H

#include <stdbool.h>
#include <stddef.h>

/* Whether a file of that name could be made: nothing is left. False with errno. */
bool whole_file_possible(const char *path);
/* Replaces path by these bytes. Until they are all on the disk they have no name (a temporary one,
 * where the file system knows no nameless files). False with errno. */
bool whole_file_write(const char *path, const char *text, size_t bytes);

#endif
