#include "cuda/check.h"
#include "cuda/value.cuh"

using namespace vx_cuda;

static constexpr unsigned WARPS = 8; /* of a block */

/* The sum over `lanes` neighbouring lanes, by a butterfly: every lane gets the same bits. */
static __device__ __forceinline__ float sum_of(float v, unsigned lanes) {
    for (unsigned o = lanes / 2; o; o /= 2) v += __shfl_xor_sync(0xffffffffu, v, o);
    return v;
}

/* Mean first, then the variance about it. `lanes` lanes a token, each with up to P pieces of V
 * channels in registers; V divides c. x and y may be the same memory. */
template <typename T, int V, int P>
static __global__ void pieces_kernel(const T *x, T *y, size_t tokens, unsigned c, unsigned lanes,
                                     const float *__restrict__ gamma,
                                     const float *__restrict__ beta, float eps) {
    const unsigned lane = threadIdx.x % lanes;
    const size_t t = ((size_t)blockIdx.x * blockDim.x + threadIdx.x) / lanes;
    const bool there = t < tokens; /* all lanes stay for the sums */
    float v[P][V] = {}, sum = 0, squares = 0;
#pragma unroll
    for (int p = 0; p < P; p++) {
        const unsigned k = (p * lanes + lane) * V;
        if (!there || k >= c) continue;
        load_numbers<T, V>(x + t * c + k, v[p]);
#pragma unroll
        for (int j = 0; j < V; j++) sum += v[p][j];
    }
    const float mean = sum_of(sum, lanes) / (float)c;
#pragma unroll
    for (int p = 0; p < P; p++) {
        if ((p * lanes + lane) * V >= c) continue;
#pragma unroll
        for (int j = 0; j < V; j++) {
            v[p][j] -= mean;
            squares = fmaf(v[p][j], v[p][j], squares);
        }
    }
    const float inv = 1.0f / sqrtf(sum_of(squares, lanes) / (float)c + eps);
#pragma unroll
    for (int p = 0; p < P; p++) {
        const unsigned k = (p * lanes + lane) * V;
        if (!there || k >= c) continue;
#pragma unroll
        for (int j = 0; j < V; j++)
            v[p][j] = fmaf(v[p][j] * inv, __ldg(gamma + k + j), __ldg(beta + k + j));
        store_numbers<T, V>(y + t * c + k, v[p]);
    }
}

/* Any c: a warp a token, whose numbers are read three times, from the cache after the first. */
template <typename T>
static __global__ void any_kernel(const T *x, T *y, size_t tokens, size_t c,
                                  const float *__restrict__ gamma, const float *__restrict__ beta,
                                  float eps) {
    const unsigned lane = threadIdx.x % 32;
    const size_t step = (size_t)gridDim.x * WARPS;
    for (size_t t = (size_t)blockIdx.x * WARPS + threadIdx.x / 32; t < tokens; t += step) {
        const T *from = x + t * c;
        T *to = y + t * c;
        float sum = 0, squares = 0;
        for (size_t k = lane; k < c; k += 32) sum += to_float(from[k]);
        const float mean = sum_of(sum, 32) / (float)c;
        for (size_t k = lane; k < c; k += 32) {
            const float e = to_float(from[k]) - mean;
            squares = fmaf(e, e, squares);
        }
        const float inv = 1.0f / sqrtf(sum_of(squares, 32) / (float)c + eps);
        for (size_t k = lane; k < c; k += 32)
            to[k] = from_float<T>(fmaf((to_float(from[k]) - mean) * inv, gamma[k], beta[k]));
    }
}

template <typename T>
static void launch(const T *x, T *y, size_t tokens, size_t c, const float *gamma, const float *beta,
                   float eps, cudaStream_t stream) {
    constexpr int V = WIDE<T>;
    const size_t pieces = c / V;
    unsigned lanes = 1;
    while (lanes < 32 && lanes < pieces) lanes *= 2;
    const size_t per_block = 32 * WARPS / lanes, blocks = (tokens + per_block - 1) / per_block;
    if (c % V || pieces > 4 * 32 || blocks > 0x7fffffffu) {
        any_kernel<T><<<blocks_for(tokens, WARPS), 32 * WARPS, 0, stream>>>(x, y, tokens, c, gamma,
                                                                            beta, eps);
        return;
    }
    const auto kernel = pieces <= lanes       ? pieces_kernel<T, V, 1>
                        : pieces <= 2 * lanes ? pieces_kernel<T, V, 2>
                                              : pieces_kernel<T, V, 4>;
    kernel<<<(unsigned)blocks, 32 * WARPS, 0, stream>>>(x, y, tokens, (unsigned)c, lanes, gamma,
                                                        beta, eps);
}

vx_status vx_cuda_layer_norm(const void *x, void *y, size_t tokens, size_t c, const float *gamma,
                             const float *beta, float eps, vx_dtype dtype, cudaStream_t stream,
                             vx_error *err) {
    for_type(dtype, [&](auto t) {
        using T = decltype(t);
        launch<T>((const T *)x, (T *)y, tokens, c, gamma, beta, eps, stream);
    });
    return vx_cuda_launched("layer norm", err);
}
