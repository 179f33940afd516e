/* An RGB picture as a PNG file (libpng). */
#ifndef VX_REPORT_PNG_FILE_H
#define VX_REPORT_PNG_FILE_H

#include <stddef.h>
#include <stdint.h>

#include "base/out_file.h"

/* rgb: rows top to bottom, 3 bytes a pixel. replace, keep: as vx_out_finish has them.
 * VX_ERR_OUTPUT, VX_ERR_RESOURCE. */
vx_status vx_png_write(const char *path, const uint8_t *rgb, size_t width, size_t height,
                       bool replace, vx_out_file **keep, vx_error *err);

#endif
