/* Float32 accumulation of weighted logits, in the rows that the frontier (infer/frontier.h) needs
 * at a time. A row is all x and all classes of one (z, y) of the volume; padding has no rows.
 *
 * Every voxel gets its tiles in the order in which they are added, on whichever thread: the bits do
 * not depend on the number of workers.
 */
#ifndef VX_INFER_SLAB_H
#define VX_INFER_SLAB_H

#include "infer/slots.h"

typedef struct vx_slab {
    const vx_tiles *tiles; /* borrowed */
    size_t classes;
    size_t row_floats; /* x * classes */
    vx_slots slots;
    float *data; /* [slot][x][class] */
} vx_slab;

/* Bytes of a slab of so many rows; false on overflow. */
bool vx_slab_bytes(const vx_tiles *tiles, size_t classes, size_t rows, size_t *bytes);
/* rows: vx_frontier_rows. VX_ERR_RESOURCE with the bytes when memory is short. */
vx_status vx_slab_create(const vx_tiles *tiles, size_t classes, size_t rows, vx_slab *out,
                         vx_error *err);
void vx_slab_free(vx_slab *slab);

/* Gives the rows slots and sets them to zero. */
void vx_slab_start(vx_slab *slab, const vx_rows *rows, vx_pool *pool);
/* Adds logits [z][y][x][class] of one tile, all of whose rows are started, times its Gaussian,
 * times scale (1 / number of mirrored passes; the passes are added one by one, each flipped back by
 * flips). */
void vx_slab_add(vx_slab *slab, const size_t tile[3], const float *logits, unsigned flips,
                 float scale, vx_pool *pool);
/* Divides the rows, which no later tile touches, by their weights. False when a logit is NaN or
 * infinite. */
bool vx_slab_finish(vx_slab *slab, const vx_rows *rows, vx_pool *pool);
/* Frees the rows' slots. */
void vx_slab_drop(vx_slab *slab, const vx_rows *rows);

/* [x][class] of a row that was started and not dropped. */
static inline float *vx_slab_row(const vx_slab *slab, size_t z, size_t y) {
    return slab->data + slab->slots.slot[z * slab->slots.width + y] * slab->row_floats;
}

#endif
