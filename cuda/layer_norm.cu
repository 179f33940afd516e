#include "cuda/check.h"
#include "cuda/value.cuh"

using namespace vx_cuda;

static constexpr unsigned WARPS = 8; /* of a block; one token each */

/* Mean first, then the variance about it: a token's numbers are read three times, from the cache
 * after the first. Sums of 32 lanes join by a butterfly: every lane gets the same bits. x and y may
 * be the same memory. */
template <typename T>
static __global__ void layer_norm_kernel(const T *x, T *y, size_t tokens, size_t c,
                                         const float *__restrict__ gamma,
                                         const float *__restrict__ beta, float eps) {
    const unsigned lane = threadIdx.x % 32;
    const size_t step = (size_t)gridDim.x * WARPS;
    for (size_t t = (size_t)blockIdx.x * WARPS + threadIdx.x / 32; t < tokens; t += step) {
        const T *from = x + t * c;
        T *to = y + t * c;
        float sum = 0, squares = 0;
        for (size_t k = lane; k < c; k += 32) sum += to_float(from[k]);
        for (int o = 16; o; o /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, o);
        const float mean = sum / (float)c;
        for (size_t k = lane; k < c; k += 32) {
            const float e = to_float(from[k]) - mean;
            squares = fmaf(e, e, squares);
        }
        for (int o = 16; o; o /= 2) squares += __shfl_xor_sync(0xffffffffu, squares, o);
        const float inv = 1.0f / sqrtf(squares / (float)c + eps);
        for (size_t k = lane; k < c; k += 32)
            to[k] = from_float<T>(fmaf((to_float(from[k]) - mean) * inv, gamma[k], beta[k]));
    }
}

vx_status vx_cuda_layer_norm(const void *x, void *y, size_t tokens, size_t c, const float *gamma,
                             const float *beta, float eps, vx_dtype dtype, cudaStream_t stream,
                             vx_error *err) {
    for_type(dtype, [&](auto t) {
        using T = decltype(t);
        layer_norm_kernel<T><<<blocks_for(tokens, WARPS), 32 * WARPS, 0, stream>>>(
            (const T *)x, (T *)y, tokens, c, gamma, beta, eps);
    });
    return vx_cuda_launched("layer norm", err);
}
