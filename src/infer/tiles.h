/* Sliding windows over a volume and their Gaussian weights, as nnU-Net v2 places them.
 *
 * All triples are in tensor order z, y, x. A volume smaller than the patch is thought of as padded
 * with zeros up to it, centred, the odd voxel behind it; padding exists only while a tile is read:
 * results are kept for the volume's own voxels alone.
 *
 * Source: Isensee et al., nnU-Net v2, inference/sliding_window_prediction.py
 * (compute_steps_for_sliding_window, compute_gaussian) and acvl_utils' pad_nd_image.
 */
#ifndef VX_INFER_TILES_H
#define VX_INFER_TILES_H

#include <stdbool.h>
#include <stddef.h>

#include "base/status.h"
#include "base/threads.h"

typedef struct vx_tiles {
    size_t dims[3];   /* the volume */
    size_t patch[3];  /* one tile */
    size_t pad[3];    /* zeros before the volume's first voxel */
    size_t count[3];  /* tiles along each axis; all their combinations are visited, z outermost */
    size_t *start[3]; /* count entries, ascending, in the padded volume */
    /* The Gaussian of one tile is the product of three profiles: its peak is 1 at patch / 2, sigma
     * is patch / 8. nnU-Net scales the peak to 10 for the sake of half precision and replaces
     * weights that became 0 in that type; the factor cancels, and in float32 no weight is 0 (the
     * corner's is exp(-24)). */
    float *profile[3]; /* patch entries */
    /* Because the tiles are all combinations of the starts, the weights of all tiles at a voxel add
     * up to total[0][z] * total[1][y] * total[2][x]: no slab of weights is needed. */
    float *total[3]; /* dims entries */
} vx_tiles;

/* Mirrored axes of one pass over a tile (test-time augmentation). */
typedef enum vx_flip { VX_FLIP_Z = 1, VX_FLIP_Y = 2, VX_FLIP_X = 4 } vx_flip;

/* step in (0, 1]: largest distance of neighbouring tiles as a share of the patch. VX_ERR_USAGE for
 * another step; dims and patch must be >= 1. Freed with vx_tiles_free, also after a failure. */
vx_status vx_tiles_create(const size_t dims[3], const size_t patch[3], double step, vx_tiles *out,
                          vx_error *err);
void vx_tiles_free(vx_tiles *tiles);
size_t vx_tiles_total(const vx_tiles *tiles);
/* The voxel of the volume at position 0 of the tile-th tile along an axis; negative in the padding.
 */
static inline ptrdiff_t vx_tile_start(const vx_tiles *tiles, int axis, size_t tile) {
    return (ptrdiff_t)tiles->start[axis][tile] - (ptrdiff_t)tiles->pad[axis];
}
/* Bytes that vx_tiles_create allocates. */
size_t vx_tiles_bytes(const vx_tiles *tiles);

/* volume [channel][z][y][x] of dims -> out [z][y][x][channel] of patch: tile (tz, ty, tx), zero
 * outside the volume, mirrored along the axes of flips (a sum of vx_flip). */
void vx_tile_read(const vx_tiles *tiles, const size_t tile[3], const float *volume, size_t channels,
                  unsigned flips, float *out, vx_pool *pool);

/* The passes of test-time augmentation over the axes that mirror allows: writes their flips (first
 * none) in nnU-Net's order, the single axes before the pairs, and returns how many: 1, 2, 4 or 8.
 */
size_t vx_mirror_passes(const bool mirror[3], unsigned passes[8]);

#endif
