/* The hole-filled non-zero mask of a volume: where nnU-Net's masked z-score is taken. */
#ifndef VX_VOLUME_FOREGROUND_H
#define VX_VOLUME_FOREGROUND_H

#include "volume/volume.h"

/* *out: one byte a voxel [z][y][x], 1 where any channel is non-zero or where zeros are enclosed (no
 * path of face neighbours leads out of the grid: scipy's binary_fill_holes), else 0. Free with
 * vx_free. VX_ERR_RESOURCE only. */
vx_status vx_filled_foreground(const vx_volume *volume, unsigned char **out, vx_error *err);

#endif
