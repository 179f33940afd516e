/* Intensity normalisation of one channel, as nnU-Net v2 does it (preprocessing/normalization). */
#ifndef VX_VOLUME_INTENSITY_H
#define VX_VOLUME_INTENSITY_H

#include "base/threads.h"
#include "volume/volume.h"

typedef enum vx_norm_kind {
    VX_NORM_NONE,
    VX_NORM_ZSCORE,         /* (v - mean) / max(sd, 1e-8) over the (cropped) channel */
    VX_NORM_ZSCORE_NONZERO, /* over the hole-filled non-zero mask of all channels; outside becomes 0
                             */
    VX_NORM_CT,             /* clip to [low, high], then (v - mean) / max(sd, 1e-8) */
    VX_NORM_RESCALE01       /* (v - min) / max(max - min, 1e-8) */
} vx_norm_kind;

typedef struct vx_normalisation {
    vx_norm_kind kind;
    double low, high, mean, sd; /* VX_NORM_CT only */
} vx_normalisation;

/* In place; norms has one entry a channel. Sums are taken in double over fixed blocks (the same
 * bits for any pool, which may be NULL). VX_ERR_INPUT when a voxel is NaN or infinite. A constant
 * image normalises to zeros. */
vx_status vx_normalise(vx_volume *volume, const vx_normalisation *norms, vx_pool *pool,
                       vx_error *err);

/* The smallest and largest of n >= 1 values. NaN among them: no particular result, unless it is the
 * first, which both then are. */
vx_status vx_value_range(const float *v, size_t n, vx_pool *pool, float *low, float *high,
                         vx_error *err);

#endif
