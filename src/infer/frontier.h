/* The order of the tiles, and what each step of it begins, completes and lets go.
 *
 * A row is all x and all classes of one (z, y). Logits live in memory row by row, from the first
 * tile that touches a row to the last output row that is interpolated from it. Tiles are visited
 * in lines of x; one axis of the tile grid, z or y, is the outer loop, the other the inner one:
 *
 *   - behind the frontier (below the next start along both axes) no tile comes any more: rows are
 *     finished, resampled and dropped;
 *   - what the next outer step touches again - patch less step along the outer axis - must be kept
 *     along the whole inner axis; all the rest needs a window of one patch along the inner axis.
 *
 * So about (patch - step) x inner + step x patch rows are in memory at a time, instead of (patch +
 * 1) x inner. z is the outer axis unless y needs fewer than seven eighths of its rows, which
 * happens where the volume is longer along y, or hardly longer than a patch along z. The choice
 * depends on the shapes alone: a voxel gets its tiles in one order on every machine, whatever is
 * asked for besides the mask, and floating-point sums depend on that order.
 *
 * Pairs are in tensor order z, y.
 */
#ifndef VX_INFER_FRONTIER_H
#define VX_INFER_FRONTIER_H

#include "backend/sweep.h"
#include "infer/logits_axis.h"
#include "infer/tiles.h"

/* Along one axis, entry k is about the k-th start of a tile: below which voxel ... */
typedef struct vx_frontier_axis {
    size_t count;
    size_t *covered;  /* ... it or an earlier tile reaches */
    size_t *finished; /* ... no later tile reaches */
    size_t *made;     /* ... of the output all can be interpolated from finished ones */
    size_t *dropped;  /* ... no later output voxel reads; at most finished */
} vx_frontier_axis;

typedef struct vx_frontier {
    vx_frontier_axis axis[2];
    int outer; /* 0: z, 1: y */
} vx_frontier;

/* One line of tiles along x: rows of the network's grid, and of the output's (made). */
typedef struct vx_step {
    size_t tile[3]; /* z, y of the line; x 0 */
    vx_rows started;
    vx_rows finished;
    vx_rows made;
    vx_rows dropped;
} vx_step;

/* map: how the logits are resampled along z and y; not kept. Freed with vx_frontier_free, also
 * after a failure. */
vx_status vx_frontier_create(const vx_tiles *tiles, const vx_logits_axis map[2], vx_frontier *out,
                             vx_error *err);
void vx_frontier_free(vx_frontier *frontier);
/* Bytes that vx_frontier_create allocates. */
size_t vx_frontier_bytes(const vx_tiles *tiles);

/* Lines of tiles: steps 0 .. vx_frontier_steps() - 1 in this order. */
size_t vx_frontier_steps(const vx_frontier *frontier);
/* whole: outputs are made and rows dropped at the end of each inner loop only, so that an output
 * slice across the outer axis becomes complete in one step. The tiles' order is the same. */
void vx_frontier_step(const vx_frontier *frontier, size_t step, bool whole, vx_step *out);
/* The most rows that are in memory at a time. */
size_t vx_frontier_rows(const vx_frontier *frontier, bool whole);
/* The most rows of the output that one step makes, when not whole. */
size_t vx_frontier_made(const vx_frontier *frontier);

#endif
