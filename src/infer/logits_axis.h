/* Interpolation of logits along one axis, as nnU-Net v2's resample_data_or_seg does it with
 * scikit-image's resize (mode "edge", no anti-aliasing): both grids share their outer edges, output
 * voxel i lies at (i + 0.5) * in / out - 0.5 of the input, clamped to its ends; order 1 is linear,
 * order 0 takes the nearest voxel. (Its clipping to the input's range changes nothing at these
 * orders.)
 */
#ifndef VX_INFER_LOGITS_AXIS_H
#define VX_INFER_LOGITS_AXIS_H

#include <stddef.h>

#include "base/status.h"

/* out[i] = (1 - weight[i]) * in[low[i]] + weight[i] * in[high(i)]. */
typedef struct vx_logits_axis {
    size_t in, out;
    size_t *low;   /* out entries, ascending */
    float *weight; /* out entries, 0 <= weight < 1 */
} vx_logits_axis;

/* order 0 or 1. Freed with vx_logits_axis_free. */
vx_status vx_logits_axis_create(size_t in, size_t out, int order, vx_logits_axis *map,
                                vx_error *err);
void vx_logits_axis_free(vx_logits_axis *map);
/* Bytes that vx_logits_axis_create allocates. */
static inline size_t vx_logits_axis_bytes(size_t out) {
    return out * (sizeof(size_t) + sizeof(float));
}
static inline size_t vx_logits_axis_high(const vx_logits_axis *map, size_t i) {
    return map->weight[i] > 0 ? map->low[i] + 1 : map->low[i];
}

#endif
