/* Intensity normalisation of one channel, as nnU-Net v2 does it (preprocessing/normalization). */
#ifndef VX_VOLUME_INTENSITY_H
#define VX_VOLUME_INTENSITY_H

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

/* In place; norms has one entry a channel. Sums are taken in double over fixed blocks (same bits
 * for any machine load). VX_ERR_INPUT when a voxel is NaN or infinite. A constant image normalises
 * to zeros. */
vx_status vx_normalise(vx_volume *volume, const vx_normalisation *norms, vx_error *err);

#endif
