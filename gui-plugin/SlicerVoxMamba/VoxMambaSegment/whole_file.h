/* Small text files that appear whole or not at all (base/out_file.h), with the errors of
 * voxmamba.h. */
#ifndef VX_SLICER_WHOLE_FILE_H
#define VX_SLICER_WHOLE_FILE_H

#include "api/voxmamba.h"

/* VXM_ERR_OUTPUT unless a file of that name can be made; nothing is left. */
vxm_status whole_file_check(const char *path, vxm_error *error);
/* Replaces path by text. */
vxm_status whole_file_write(const char *path, const char *text, vxm_error *error);

#endif
