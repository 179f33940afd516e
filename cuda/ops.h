/* Launchers of our own kernels: one op a .cu file. Each queues its kernels on the stream: no
 * allocation, no synchronisation, capturable in a CUDA graph. VX_ERR_RESOURCE when a launch fails.
 *
 * All pointers are device memory. x, y: values, channels last [n][d][h][w][c], of the type `dtype`,
 * VX_CUDA_ALIGN aligned unless a row step says otherwise. y never overlaps an input unless a
 * comment says so. Parameters (gamma, beta, convolution taps) are float.
 */
#ifndef VX_CUDA_OPS_H
#define VX_CUDA_OPS_H

#include <cuda_runtime_api.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#include "cuda/scan.h"
#include "graph/graph.h"

/* cast.cu: n numbers from one type to another, rounded to the nearest, ties to even. */
vx_status vx_cuda_cast(const void *x, vx_dtype from, void *y, vx_dtype to, size_t n,
                       cudaStream_t stream, vx_error *err);

/* count.cu: adds to *count (device memory) how many of n halves have these bits. */
vx_status vx_cuda_count_halves(const void *x, size_t n, uint16_t bits, unsigned long long *count,
                               cudaStream_t stream, vx_error *err);

/* widen.cu: y [tokens][wide] from x [tokens][c], rows of `w` voxels: at each voxel the numbers of
 * `taps` neighbours along x (odd: from taps / 2 before it to as many behind), zeros beyond the
 * row's ends, and zeros up to `wide` >= taps * c. One tap: x with zeros behind it. */
vx_status vx_cuda_widen(const void *x, size_t c, size_t taps, size_t w, void *y, size_t wide,
                        size_t tokens, vx_dtype dtype, cudaStream_t stream, vx_error *err);

/* A value may be stored before its instance norm and activation, which its readers then apply as
 * they read: number v stands for act((v - mean) * scale + shift), act(u) = slope * u below 0, in
 * fp32, rounded to the storage type: the same bits as if it had been stored so. slope 1: no
 * activation. Of half types mean is 0 and part of shift: v has been rounded far more coarsely than
 * that costs. */
typedef struct vx_cuda_affine {
    float mean, scale, shift;
} vx_cuda_affine;
typedef struct vx_cuda_pending {
    const vx_cuda_affine *affine; /* [n][c]; NULL: nothing is to be applied */
    float slope;                  /* 0 to 1 */
} vx_cuda_pending;

/* The slope below 0 of an activation that readers can apply; negative where they cannot. */
static inline float vx_cuda_slope_of(vx_activation act, float slope) {
    if (act == VX_ACT_NONE) return 1;
    if (act == VX_ACT_RELU) return 0;
    return act == VX_ACT_LEAKY_RELU && slope <= 1 ? slope : -1;
}

/* narrow.cu: a linear layer to few channels, y[t] = w x[t] + bias, w [c_out][c], bias [c_out] or
 * NULL; sums in fp32, y of the type dtype or float. pending: of x, whose n is 1 then. */
enum { VX_CUDA_NARROW = 8 }; /* channels at most */
bool vx_cuda_narrow_fits(size_t c, size_t c_out);
vx_status vx_cuda_narrow(const void *x, vx_cuda_pending pending, size_t c, const float *w,
                         const float *bias, size_t c_out, void *y, size_t tokens, vx_dtype dtype,
                         bool out_float, cudaStream_t stream, vx_error *err);

/* activation.cu: y may be x. */
vx_status vx_cuda_activation(const void *x, void *y, size_t n, vx_dtype dtype, vx_activation act,
                             float slope, cudaStream_t stream, vx_error *err);

/* add.cu: y = scale * (a + b). y may be a or b. */
vx_status vx_cuda_add(const void *a, const void *b, void *y, size_t n, vx_dtype dtype, float scale,
                      cudaStream_t stream, vx_error *err);

/* add.cu: y = scale * (the sum of `count` terms, one after the other, at least two), rounded after
 * each as by additions of two. terms: [count][n], n in multiples of 16 bytes; y is none of them. */
vx_status vx_cuda_sum(const void *terms, size_t count, void *y, size_t n, vx_dtype dtype,
                      float scale, cudaStream_t stream, vx_error *err);

/* avg_pool.cu: torch.nn.AvgPool3d(stride, stride). */
vx_status vx_cuda_avg_pool(const void *x, vx_shape in, const size_t stride[3], void *y,
                           vx_shape out, vx_dtype dtype, cudaStream_t stream, vx_error *err);

/* upsample.cu: torch.nn.Upsample(mode="nearest") by whole factors. */
vx_status vx_cuda_upsample_nearest(const void *x, const size_t factor[3], void *y, vx_shape out,
                                   vx_dtype dtype, cudaStream_t stream, vx_error *err);

/* concat.cu: y[t] = a[t] followed by b[t]. */
vx_status vx_cuda_concat(const void *a, size_t c_a, const void *b, size_t c_b, void *y,
                         size_t tokens, vx_dtype dtype, cudaStream_t stream, vx_error *err);

/* transposed.cu: a transposed convolution with kernel = stride, bias [c_out] or NULL, in one
 * launch: x [n][d][h][w][c], y [n][d*sd][h*sh][w*sw][c_out + c_skip], whose last c_skip channels
 * are skip [n][d*sd][h*sh][w*sw][c_skip] (0: none). fp16 and bf16, compute capability 8.0 and
 * above. */
typedef struct vx_cuda_transposed {
    vx_shape in;
    size_t stride[3], c_out, c_skip;
    vx_dtype dtype;
} vx_cuda_transposed;
/* Whether it does this shape: in.c a multiple of 16, c_out of 32, c_skip of 8. */
bool vx_cuda_transposed_fits(const vx_cuda_transposed *t);
/* w (Cin, Cout, sd, sh, sw) to the order in which the lanes read it, both as float. */
void vx_cuda_transposed_pack(const vx_cuda_transposed *t, const float *w, float *to);
/* w: packed, in the storage type. */
vx_status vx_cuda_transposed_launch(const vx_cuda_transposed *t, const void *x, const void *w,
                                    const float *bias, const void *skip, void *y,
                                    cudaStream_t stream, vx_error *err);

/* scatter.cu: the second half of a transposed convolution with kernel = stride, where the first is
 * a matrix product. x [n][d][h][w] of the input's grid, each voxel [sd][sh][sw][c]; y
 * [n][d*sd][h*sh][w*sw][c] = out. With out.c > c, y's other channels are skip
 * [n][d*sd][h*sh][w*sw][out.c - c]; else skip is not read. */
vx_status vx_cuda_scatter(const void *x, const size_t stride[3], size_t c, const void *skip,
                          void *y, vx_shape out, vx_dtype dtype, cudaStream_t stream,
                          vx_error *err);

/* layer_norm.cu: torch.nn.LayerNorm over the c channels of each token. y may be x. */
vx_status vx_cuda_layer_norm(const void *x, void *y, size_t tokens, size_t c, const float *gamma,
                             const float *beta, float eps, vx_dtype dtype, cudaStream_t stream,
                             vx_error *err);

/* instance_norm.cu: y = act((x - mean) / sqrt(variance + eps) * gamma + beta + residual), mean and
 * biased variance over the voxels of one n and channel (Ulyanov et al. 2016, arXiv:1607.08022).
 * residual: as y, or NULL. y may be x or residual. How voxels are cut into parts depends on the
 * shape alone, and the parts are joined in a fixed order: runs repeat to the bit. */
typedef struct vx_cuda_norm {
    vx_shape shape;
    vx_dtype dtype;
    const float *gamma, *beta; /* [c] */
    float eps;
    vx_activation act;
    float slope;
} vx_cuda_norm;
/* Of `count` numbers: their mean and the sum of squared deviations from it. */
typedef struct vx_cuda_moments {
    float mean, squares, count;
} vx_cuda_moments;
/* Parts that vx_cuda_instance_norm cuts a tensor into. */
size_t vx_cuda_instance_norm_parts(vx_shape shape);
/* Bytes of scratch for so many parts, VX_CUDA_ALIGN aligned. False on overflow. */
bool vx_cuda_instance_norm_scratch(vx_shape shape, size_t parts, size_t *bytes);
vx_status vx_cuda_instance_norm(const vx_cuda_norm *norm, const void *x, const void *residual,
                                void *y, void *scratch, cudaStream_t stream, vx_error *err);
/* Its three launches, each alone. `small` shapes take one launch instead: none of these then, and
 * no residual that is pending. */
bool vx_cuda_instance_norm_small(vx_shape shape);
/* moments: vx_cuda_moments [n][parts][c], parts as vx_cuda_instance_norm_parts says. */
vx_status vx_cuda_instance_norm_moments(const vx_cuda_norm *norm, const void *x,
                                        vx_cuda_moments *moments, cudaStream_t stream,
                                        vx_error *err);
/* affine [n][c], of moments [n][parts][c] of any parts. */
vx_status vx_cuda_instance_norm_join(const vx_cuda_norm *norm, size_t parts,
                                     const vx_cuda_moments *moments, vx_cuda_affine *affine,
                                     cudaStream_t stream, vx_error *err);
/* pending: of the residual. */
vx_status vx_cuda_instance_norm_apply(const vx_cuda_norm *norm, const vx_cuda_affine *affine,
                                      const void *x, const void *residual, vx_cuda_pending pending,
                                      void *y, cudaStream_t stream, vx_error *err);

/* bias.cu: y[t] = x[t] + bias, bias [c]. y may be x. */
vx_status vx_cuda_bias(const void *x, const float *bias, void *y, size_t tokens, size_t c,
                       vx_dtype dtype, cudaStream_t stream, vx_error *err);

/* causal_conv.cu: the mixer's depthwise convolution along the scan (Gu & Dao 2023,
 * arXiv:2312.00752): y_t = SiLU(bias + sum_k taps[k] * x_{t-K+1+k}), zeros before the first token.
 * Tokens lie at their voxel's place; the walk says which voxel is token t. Each of n sequences has
 * walk.dims' product of tokens. x: rows of x_row elements, of which the first `channels` are read;
 * y: rows of `channels`. taps [K][channels], bias [channels]. */
typedef struct vx_cuda_causal_conv {
    size_t n, channels, x_row;
    unsigned taps;     /* K >= 1 */
    vx_scan_walk walk; /* without a table */
    vx_dtype dtype;
} vx_cuda_causal_conv;
vx_status vx_cuda_causal_conv_silu(const vx_cuda_causal_conv *conv, const void *x,
                                   const float *taps, const float *bias, void *y,
                                   cudaStream_t stream, vx_error *err);

#ifdef __cplusplus
}
#endif

#endif
