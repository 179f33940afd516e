/* The first half of a Mamba block on a CUDA device, up to its scan (Gu & Dao 2023,
 * arXiv:2312.00752, figure 3), in one kernel:
 *
 *   a        = LayerNorm(x) over the C features of a token, or x
 *   v        = LayerNorm(a)
 *   [p|z]    = in_proj v, D features each
 *   u_t      = SiLU(conv_bias + sum_{k=0..3} conv[:][k] p_{t-3+k}), p_t = 0 before the first token
 *   [B|C|dt] = x_proj u
 *   delta    = dt_proj dt, D features, without its bias, where it is asked for
 *
 * t counts in the scan order: the convolution runs along it. Tensors are channels last, one row a
 * voxel; storage is fp16 or bf16, a, v, u, dt and the weights of the products too; statistics and
 * sums are fp32. Rows of the projections are [B: N | C: N | zeros up to a multiple of 8]; dt, which
 * is a few bytes, is a tensor of its own, so that those rows are whole pieces of memory. With delta
 * there is none.
 */
#ifndef VX_CUDA_MAMBA_IN_H
#define VX_CUDA_MAMBA_IN_H

#include "cuda/scan.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct vx_mamba_in_shape {
    uint32_t length;   /* tokens, 1 .. 2^31 - 257 */
    uint32_t features; /* C: a multiple of 32 up to 512 */
    uint32_t channels; /* D: a multiple of 32 above C, up to 1024 */
    uint32_t states;   /* N, 1 .. 256 */
    uint32_t rank;     /* R, 1 .. 64; with delta up to 32 */
    bool delta;        /* whether delta is made; N is then a multiple of 16 */
    vx_dtype dtype;    /* of all tensors: fp16 or bf16 */
    float eps;         /* of both norms */
} vx_mamba_in_shape;

/* Whether the current device has what the kernel needs (compute capability 8.0 and above), and the
 * shape is inside the limits above. */
bool vx_cuda_mamba_in_takes(const vx_mamba_in_shape *shape);

/* Columns of the projections, 2 N rounded up to a multiple of 8, and of dt, R rounded up to an even
 * number; with delta 0. */
uint32_t vx_mamba_in_columns(const vx_mamba_in_shape *shape);
uint32_t vx_mamba_in_dt_columns(const vx_mamba_in_shape *shape);

/* One direction (or one sample) of a launch. Device pointers, 16-byte aligned; row steps in
 * elements, multiples of 8; dt 4-byte aligned, its row step a multiple of 2. The outputs overlap
 * nothing. */
typedef struct vx_mamba_in_item {
    const void *x;     /* [voxel][C] */
    void *u, *z;       /* [voxel][D] */
    void *projections; /* [voxel][columns] */
    void *dt;          /* [voxel][dt columns]; NULL if the shape has delta */
    void *delta;       /* [voxel][D], if the shape has delta */
    size_t x_row, u_row, z_row, projections_row, dt_row, delta_row;
    const float *before_gamma, *before_beta; /* [C], of the norm that makes a; NULL: none */
    const float *gamma, *beta;               /* [C], of the norm that makes v */
    const float *conv, *conv_bias;           /* as of vx_mamba_in_pack_conv, and [D] */
    const void *weights;                     /* as of vx_mamba_in_pack */
    vx_scan_walk walk;
} vx_mamba_in_item;

/* Bytes of an item's packed weights, and the packing (host memory) from PyTorch's in_proj.weight
 * ([2 D][C]), x_proj.weight ([R + 2 N][D], rows [dt | B | C]) and, with delta, dt_proj.weight
 * ([D][R]; else not read), which it rounds. */
size_t vx_mamba_in_packed_bytes(const vx_mamba_in_shape *shape);
void vx_mamba_in_pack(const vx_mamba_in_shape *shape, const float *in_proj, const float *x_proj,
                      const float *dt_proj, void *packed);

/* From conv1d.weight ([D][1][4]) the same numbers in the order of a warp's reads. */
void vx_mamba_in_pack_conv(const vx_mamba_in_shape *shape, const float *conv, float *packed);

/* Queues the kernel for all items on the stream: asynchronous, no allocation, no scratch,
 * graph-capturable; the same bits every time. VX_ERR_USAGE for a shape that it does not take and
 * for a wrong walk; VX_ERR_RESOURCE when the launch fails. */
vx_status vx_cuda_mamba_in(const vx_mamba_in_shape *shape, const vx_mamba_in_item *items,
                           size_t count, cudaStream_t stream, vx_error *err);

#ifdef __cplusplus
}
#endif

#endif
