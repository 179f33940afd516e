/* From finished logits to labels on the cropped original grid, one z slice at a time: resampling
 * and arg-max in one pass, so that no more than one slice of class probabilities ever exists, and
 * that only when somebody wants them.
 *
 * All triples are in tensor order z, y, x. Resampling equals nnU-Net v2's resample_data_or_seg on
 * logits with scikit-image's resize (mode "edge", no anti-aliasing): both grids share their outer
 * edges, output voxel i lies at (i + 0.5) * in / out - 0.5 of the input, clamped to its ends; order
 * 1 is linear along each axis, order 0 takes the nearest voxel. (Its clipping to the input's range
 * changes nothing at these orders.)
 */
#ifndef VX_INFER_FINALISE_H
#define VX_INFER_FINALISE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "base/threads.h"
#include "infer/slab.h"
#include "volume/volume.h"

/* One axis of a resampling: out[i] = (1 - weight[i]) * in[low[i]] + weight[i] * in[high(i)]. */
typedef struct vx_logits_axis {
    size_t in, out;
    size_t *low;   /* out entries, ascending */
    float *weight; /* out entries, 0 <= weight < 1 */
} vx_logits_axis;

/* order 0 or 1. Freed with vx_logits_axis_free. */
vx_status vx_logits_axis_create(size_t in, size_t out, int order, vx_logits_axis *map,
                                vx_error *err);
void vx_logits_axis_free(vx_logits_axis *map);
static inline size_t vx_logits_axis_high(const vx_logits_axis *map, size_t i) {
    return map->weight[i] > 0 ? map->low[i] + 1 : map->low[i];
}

/* Where labels go: voxel (z, y, x) of the output grid is element origin + z * stride[0] + y *
 * stride[1] + x * stride[2] of the mask. Strides may be negative: a mask is written straight onto
 * the stored grid, whatever axis order the model wants. */
typedef struct vx_label_target {
    vx_mask *mask;
    ptrdiff_t origin, stride[3];
} vx_label_target;

typedef struct vx_finaliser {
    vx_logits_axis axis[3];
    size_t classes;
    bool regions;           /* sigmoid > 0.5 of each class in order, later ones overwrite */
    const unsigned *values; /* label value of each class (borrowed); of class 0 too */
    vx_label_target target;
    size_t next; /* output slice that comes next */
    size_t row_floats;
    unsigned workers;
    float *rows; /* [worker][x of the input][class], then [class] */
} vx_finaliser;

/* in: the slab's grid; out: the cropped original grid; order: one for each axis. pool gives the
 * number of scratch rows. */
vx_status vx_finaliser_create(const size_t in[3], const size_t out[3], const int order[3],
                              size_t classes, bool regions, const unsigned *values,
                              const vx_label_target *target, const vx_pool *pool,
                              vx_finaliser *finaliser, vx_error *err);
void vx_finaliser_free(vx_finaliser *finaliser);
/* Bytes that vx_finaliser_create allocates. */
size_t vx_finaliser_bytes(const size_t in[3], const size_t out[3], size_t classes,
                          unsigned workers);

/* True when slice finaliser->next exists and all that it reads is among the first `finished` slices
 * of the slab. */
bool vx_finaliser_ready(const vx_finaliser *finaliser, size_t finished);
/* Writes the labels of slice finaliser->next into the target and moves on. probabilities: NULL, or
 * [class][y][x] of the output grid, which gets the softmax over classes (regions: each sigmoid). */
void vx_finaliser_slice(vx_finaliser *finaliser, const vx_slab *slab, float *probabilities,
                        vx_pool *pool);

#endif
