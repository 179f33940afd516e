/* Resampling between grids that share their outer edges, equal to nnU-Net v2's resample_data_or_seg
 * with scikit-image's resize (anti_aliasing False, mode "edge", clip True): see ARCHITECTURE.md,
 * "Easy to get wrong". Dims here are x, y, z as everywhere in src/volume. */
#ifndef VX_VOLUME_RESAMPLE_H
#define VX_VOLUME_RESAMPLE_H

#include <stdbool.h>

#include "base/threads.h"
#include "volume/volume.h"

/* nnU-Net's new shape: round half to even of dims * old spacing / new spacing, at least 1. */
void vx_resampled_dims(const size_t dims[3], const double old_spacing[3],
                       const double new_spacing[3], size_t out[3]);
/* nnU-Net's rule for a separate axis: 0..2 (x, y, z), or -1 for none. Anisotropic when max/min
 * spacing > 3 (threshold) for either spacing; the coarse axis must be unique. Two equal coarse
 * axes: -1. */
int vx_separate_axis(const double old_spacing[3], const double new_spacing[3]);
/* Geometry on new_dims with the same outer edges (voxel-edge alignment, half-voxel rule). */
vx_geometry vx_resampled_geometry(const vx_geometry *geo, const size_t new_dims[3]);

/* image: order 0, 1 or 3 (cubic B-spline with clipping to the input's range); separate_axis -1 or
 * 0..2 (then order 0 along it unless axis_order says 1 or 3). pool may be NULL. */
vx_status vx_resample_volume(const vx_volume *in, const size_t new_dims[3], int order,
                             int separate_axis, int axis_order, vx_pool *pool, vx_volume **out,
                             vx_error *err);
/* How the labels around a new voxel are settled; each label's indicator is interpolated on its own.
 */
typedef enum vx_mask_rule {
    VX_MASK_RULE_HALF,  /* the last label in ascending order that reaches 0.5, else 0:
                           batchgenerators  up to 0.25.1, with which most published nnU-Net models
                           were trained */
    VX_MASK_RULE_ARGMAX /* the largest share, the nearest voxel's label among equals:
                           batchgenerators 0.25.5 */
} vx_mask_rule;
/* Labels: one channel a label, order 1 (or 0), as nnU-Net resamples masks; order 0 along a separate
 * axis. The first function takes VX_MASK_RULE_HALF. */
vx_status vx_resample_mask(const vx_mask *in, const size_t new_dims[3], int order,
                           int separate_axis, vx_mask **out, vx_error *err);
vx_status vx_resample_mask_by(const vx_mask *in, const size_t new_dims[3], int order,
                              int separate_axis, vx_mask_rule rule, vx_mask **out, vx_error *err);

#endif
