/* How the tokens of one n are cut, by shapes alone: into planes of equal length, each into cells of
 * equal length but the last. Moments are taken cell by cell. */
#ifndef VX_BACKEND_CPU_CUT_H
#define VX_BACKEND_CPU_CUT_H

#include <stddef.h>

typedef struct vx_cut {
    size_t planes, plane_tokens; /* planes of the grid, or one "plane" of all its tokens */
    size_t cells, cell_tokens;   /* of each plane */
} vx_cut;

static inline size_t vx_cut_tokens(const vx_cut *cut) { return cut->planes * cut->plane_tokens; }

/* Tokens of a cell, and the first of them. */
static inline size_t vx_cut_cell(const vx_cut *cut, size_t plane, size_t cell, size_t *first) {
    const size_t before = cell * cut->cell_tokens, left = cut->plane_tokens - before;
    *first = plane * cut->plane_tokens + before;
    return left < cut->cell_tokens ? left : cut->cell_tokens;
}

#endif
