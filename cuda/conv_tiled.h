/* 3x3x3, 3x3x1 and 1x1x1 convolutions of few channels on the matrix units: stride 1, zero padding
 * to the same grid, no bias; fp16 and bf16 storage, fp32 sums; compute capability 8.0 and above.
 * For grids of many voxels, where cuDNN leaves most of the matrix units' time: a block holds its
 * tile of voxels with a border in shared memory once for all taps, and takes the moments for an
 * instance norm from its sums.
 *
 *   x [n][d][h][w][Cin], y [n][d][h][w][Cout]; weights packed by vx_cuda_tiled_pack.
 *
 * How the grid is cut depends on shape and variant alone; the same bits on every run.
 */
#ifndef VX_CUDA_CONV_TILED_H
#define VX_CUDA_CONV_TILED_H

#include "cuda/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Ways to cut the work, 1 to VX_CUDA_TILED_VARIANTS; which is quickest depends on the shape. */
enum { VX_CUDA_TILED_VARIANTS = 4 };

typedef struct vx_cuda_tiled {
    vx_shape in; /* the output's grid is the same */
    size_t c_out;
    vx_dtype dtype;
    size_t taps; /* 27, 9: one along x, or 1 */
    unsigned variant;
} vx_cuda_tiled;

/* Whether this variant does this shape. in.c: a multiple of 16 (one tap: of 32), c_out: of 32
 * or 64. */
bool vx_cuda_tiled_fits(const vx_cuda_tiled *conv);
/* Tiles of one n: the parts that moments are taken of. */
size_t vx_cuda_tiled_parts(const vx_cuda_tiled *conv);
/* w (Cout, Cin, taps) as float to the order in which the lanes read it, as float: to holds
 * as many. */
void vx_cuda_tiled_pack(const vx_cuda_tiled *conv, const float *w, float *to);
/* Whether it takes an x with something pending. */
bool vx_cuda_tiled_applies(const vx_cuda_tiled *conv);
/* w: packed, in the storage type. pending: of x. moments: [n][parts][Cout] of what y is rounded
 * from, or NULL. Pointers VX_CUDA_ALIGN aligned. */
vx_status vx_cuda_tiled_launch(const vx_cuda_tiled *conv, const void *x, vx_cuda_pending pending,
                               const void *w, void *y, vx_cuda_moments *moments,
                               cudaStream_t stream, vx_error *err);

#ifdef __cplusplus
}
#endif

#endif
