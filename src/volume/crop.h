/* Cropping to a box, and nnU-Net's box of non-zero voxels. */
#ifndef VX_VOLUME_CROP_H
#define VX_VOLUME_CROP_H

#include "base/threads.h"
#include "volume/volume.h"

typedef struct vx_box {
    size_t from[3], size[3]; /* x, y, z */
} vx_box;

/* Bounding box of the voxels that are non-zero in any channel, holes filled (scipy's
 * binary_fill_holes with its 6-neighbourhood does not change a box, so no filling is needed for
 * it). All zero: the whole grid. Source: nnU-Net v2, preprocessing/cropping (crop_to_nonzero). */
vx_status vx_nonzero_box(const vx_volume *volume, vx_pool *pool, vx_box *out, vx_error *err);
/* New volume whose affine keeps every voxel's world position. */
vx_status vx_crop_volume(const vx_volume *in, vx_box box, vx_pool *pool, vx_volume **out,
                         vx_error *err);
vx_geometry vx_crop_geometry(const vx_geometry *geo, vx_box box);

#endif
