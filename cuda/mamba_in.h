/* The first half of a Mamba block on a CUDA device, up to its scan (Gu & Dao 2023,
 * arXiv:2312.00752, figure 3), in one kernel:
 *
 *   v        = LayerNorm(x), eps 1e-5, over the C features of a token
 *   p        = in_proj v, its first half: D features
 *   u_t      = SiLU(conv_bias + sum_{k=0..3} conv[:][k] p_{t-3+k}), p_t = 0 before the first token
 *   [B|C|dt] = x_proj u
 *
 * t counts in the scan order: the convolution runs along it. Tensors are channels last, one row a
 * voxel; storage is fp16, bf16 or fp32, statistics and sums are fp32. Rows of the second output are
 * [B: N | C: N | dt: R | zeros up to a multiple of 8]: B and C come first so that the scan can copy
 * them in 16-byte pieces.
 */
#ifndef VX_CUDA_MAMBA_IN_H
#define VX_CUDA_MAMBA_IN_H

#include "cuda/scan.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct vx_mamba_in_shape {
    uint32_t length;   /* tokens, 1 .. 2^31 - 1 */
    uint32_t features; /* C, 1 .. 512 */
    uint32_t channels; /* D, 1 .. 1024 */
    uint32_t states;   /* N, 1 .. 256 */
    uint32_t rank;     /* R, 1 .. 64 */
    vx_dtype dtype;    /* of x, u and the projections */
    /* Products in fp32 on the ordinary units, with fp32 weights. Otherwise on the matrix units, for
     * fp16 and bf16 and compute capability 8.0 and above, with v, u and weights in the storage
     * type. */
    bool exact;
} vx_mamba_in_shape;

/* Columns of the second output: 2 N + R, rounded up to a multiple of 8. */
uint32_t vx_mamba_in_columns(const vx_mamba_in_shape *shape);

/* One direction (or one sample) of a launch. Device pointers; row steps in elements. u and
 * projections must not overlap x. */
typedef struct vx_mamba_in_item {
    const void *x;     /* [voxel][C] */
    void *u;           /* [voxel][D] */
    void *projections; /* [voxel][columns] */
    size_t x_row, u_row, projections_row;
    const float *gamma, *beta;     /* [C], of the LayerNorm */
    const float *conv, *conv_bias; /* [D][4], 16-byte aligned, and [D] */
    const void *weights;           /* as of vx_mamba_in_pack, 16-byte aligned */
    vx_scan_walk walk;
} vx_mamba_in_item;

/* Bytes of an item's packed weights, and the packing (host memory) from PyTorch's in_proj.weight
 * (its first D rows, [D][C]) and x_proj.weight ([R + 2 N][D], rows [dt | B | C]). */
size_t vx_mamba_in_packed_bytes(const vx_mamba_in_shape *shape);
void vx_mamba_in_pack(const vx_mamba_in_shape *shape, const float *in_proj, const float *x_proj,
                      void *packed);

/* Queues the kernel for all items on the stream: asynchronous, no allocation, no scratch,
 * graph-capturable; the same bits every time. VX_ERR_USAGE for a shape outside the limits, for
 * exact = false with fp32 or an older device, and for a wrong walk; VX_ERR_RESOURCE when the launch
 * fails. */
vx_status vx_cuda_mamba_in(const vx_mamba_in_shape *shape, const vx_mamba_in_item *items,
                           size_t count, cudaStream_t stream, vx_error *err);

#ifdef __cplusplus
}
#endif

#endif
