/* From finished logits to labels on the cropped original grid, a few rows at a time: resampling and
 * arg-max in one pass, so that class probabilities exist for one slice at most, and only when
 * somebody wants them.
 *
 * All triples are in tensor order z, y, x.
 */
#ifndef VX_INFER_FINALISE_H
#define VX_INFER_FINALISE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "base/threads.h"
#include "infer/logits_axis.h"
#include "infer/slab.h"
#include "volume/volume.h"

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

/* Class probabilities of one slice of the output grid, z or y fixed: class c of voxel (z, y, x) is
 * float (c * rows + row) * x of the output + x, where row is y or z. */
typedef struct vx_probability_slice {
    float *data; /* [class][row][x] */
    size_t rows;
    int across; /* the fixed axis: 0 z, 1 y */
} vx_probability_slice;

/* Writes the labels of rows of the output grid, everything around which is finished and still in
 * the slab. probabilities: NULL, or what gets the softmax over classes (regions: each sigmoid);
 * then rows are one slice. */
void vx_finaliser_make(vx_finaliser *finaliser, const vx_slab *slab, const vx_rows *rows,
                       const vx_probability_slice *probabilities, vx_pool *pool);

#endif
