/* Float32 accumulation of weighted logits in a slab that slides along z.
 *
 * Tiles come in rows of equal z start. Once the row at z start s is added, no later tile touches a
 * slice before the next row's start: those slices are finished, and the slab's memory moves on. It
 * holds patch z + 1 slices of the volume (never its padding): the patch, and the last finished
 * slice, because linear resampling reads two neighbours.
 *
 * Every voxel gets its tiles in the order in which they are added, on whichever thread: the bits do
 * not depend on the number of workers.
 */
#ifndef VX_INFER_SLAB_H
#define VX_INFER_SLAB_H

#include "infer/tiles.h"

typedef struct vx_slab {
    const vx_tiles *tiles; /* borrowed */
    size_t classes;
    size_t depth;    /* slices in memory; slice z lies in slot z % depth */
    size_t covered;  /* slices below were started (set to zero, being added to) */
    size_t finished; /* slices below are divided by their weights */
    float *data;     /* [slot][y][x][class] */
} vx_slab;

/* Bytes of the slab; false on overflow. */
bool vx_slab_bytes(const vx_tiles *tiles, size_t classes, size_t *bytes);
/* VX_ERR_RESOURCE with the bytes when memory is short. */
vx_status vx_slab_create(const vx_tiles *tiles, size_t classes, vx_slab *out, vx_error *err);
void vx_slab_free(vx_slab *slab);

/* Starts the z row (0 .. count[0] - 1, ascending). Slices that this needs the memory of - all but
 * the last finished one - must have been read. */
void vx_slab_begin_row(vx_slab *slab, size_t row, vx_pool *pool);
/* Adds logits [z][y][x][class] of one tile of that row, times its Gaussian, times scale (1 / number
 * of mirrored passes; the passes are added one by one, each flipped back by flips). */
void vx_slab_add(vx_slab *slab, const size_t tile[3], const float *logits, unsigned flips,
                 float scale, vx_pool *pool);
/* Divides the slices that no later row touches by their weights: slab->finished moves on.
 * VX_ERR_MODEL when a logit is NaN or infinite. */
vx_status vx_slab_end_row(vx_slab *slab, size_t row, vx_pool *pool, vx_error *err);

/* [y][x][class] of a finished slice that is still in memory. */
static inline const float *vx_slab_slice(const vx_slab *slab, size_t z) {
    return slab->data +
           z % slab->depth * slab->tiles->dims[1] * slab->tiles->dims[2] * slab->classes;
}

#endif
