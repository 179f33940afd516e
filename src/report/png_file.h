/* An RGB picture as a PNG file (libpng), written atomically. */
#ifndef VX_REPORT_PNG_FILE_H
#define VX_REPORT_PNG_FILE_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

/* rgb: rows top to bottom, 3 bytes a pixel. VX_ERR_OUTPUT, VX_ERR_RESOURCE. */
vx_status vx_png_write(const char *path, const uint8_t *rgb, size_t width, size_t height,
                       int replace, vx_error *err);

#endif
