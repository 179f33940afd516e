/* The second half of a Mamba layer on a CUDA device, after its scans, in one kernel (MambaTrans and
 * PanMambaTrans: Lumetti et al., TamingMambas, nets/). Of each token, with one or two branches k:
 *
 *   a   = LayerNorm(x), or x                                                C features
 *   h_k = out_proj_k y_k + a
 *   f_k = head_k LayerNorm(h_k) + head_bias_k + h_k
 *   n   = LayerNorm(sum over k of f_k), or the sum
 *   out = scale * (n + added), n rounded to the storage type, or scale * n
 *
 * Tensors are dense rows of tokens in memory order; storage is fp16 or bf16, the normalised h_k and
 * the weights of the products too; everything else is fp32 and stays in registers.
 */
#ifndef VX_CUDA_MAMBA_OUT_H
#define VX_CUDA_MAMBA_OUT_H

#include <cuda_runtime_api.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#include "base/status.h"
#include "graph/graph.h"

typedef struct vx_mamba_out_shape {
    size_t tokens;     /* 1 .. 2^31 - 1 */
    uint32_t features; /* C: a multiple of 32 up to 320 */
    uint32_t channels; /* D: a multiple of 32 up to 1024 */
    vx_dtype dtype;    /* of x, y and out: fp16 or bf16 */
    float eps;         /* of all norms */
} vx_mamba_out_shape;

/* Whether the current device has what the kernel needs (compute capability 8.0 and above), and the
 * shape is inside the limits above. */
bool vx_cuda_mamba_out_takes(const vx_mamba_out_shape *shape);

/* Device pointers. y and the packed weights are 16-byte aligned. */
typedef struct vx_mamba_out_branch {
    const void *y;               /* [token][D], gated */
    const void *out_proj, *head; /* as of vx_cuda_pack_blocks (mamba_pack.h): [C][D] and [C][C] */
    const float *gamma, *beta;   /* [C], of the norm before the head; 16-byte aligned */
    const float *head_bias;      /* [C], 16-byte aligned */
} vx_mamba_out_branch;

typedef struct vx_mamba_out {
    const void *x;     /* [token][C], 16-byte aligned; out may be x, if no other job reads it */
    const void *added; /* [token][C], 16-byte aligned; out may be it. NULL: none */
    void *out;         /* [token][C] */
    float scale;
    const float *before_gamma, *before_beta; /* [C], of the norm that makes a; NULL: none */
    const float *after_gamma, *after_beta; /* [C], of the last norm; NULL: none. 16-byte aligned */
    size_t branches;                       /* 1 or 2 */
    vx_mamba_out_branch branch[VX_MAMBA_BRANCHES];
} vx_mamba_out;

/* Queues the kernel for all jobs, 1 .. VX_MAMBA_PARTS of as many branches, on the stream:
 * asynchronous, no allocation, no scratch, graph-capturable; the same bits every time. VX_ERR_USAGE
 * for a shape that it does not take; VX_ERR_RESOURCE when the launch fails. */
vx_status vx_cuda_mamba_out(const vx_mamba_out_shape *shape, const vx_mamba_out *jobs, size_t count,
                            cudaStream_t stream, vx_error *err);

#ifdef __cplusplus
}
#endif

#endif
