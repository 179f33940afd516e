#include "cuda/check.h"
#include "cuda/value.cuh"

using namespace vx_cuda;

/* A voxel a thread; V divides `wide`. The numbers of its neighbours follow one another in x: only
 * near the ends of a row is each one looked at. */
template <typename T, int V>
static __global__ void widen_kernel(const T *__restrict__ x, unsigned c, unsigned taps, size_t w,
                                    T *__restrict__ y, unsigned wide, size_t tokens) {
    const size_t step = (size_t)gridDim.x * blockDim.x;
    const unsigned before = taps / 2, count = taps * c;
    for (size_t t = (size_t)blockIdx.x * blockDim.x + threadIdx.x; t < tokens; t += step) {
        const size_t px = tokens >> 32 ? t % w : (unsigned)t % (unsigned)w;
        const T *from = x + (t - before) * c;
        /* Numbers that lie in the row. */
        const unsigned first = px < before ? (unsigned)(before - px) * c : 0;
        const unsigned last = px + before >= w ? (unsigned)(w - px + before) * c : count;
        for (unsigned k = 0; k < wide; k += V) {
            float v[V];
#pragma unroll
            for (unsigned j = 0; j < V; j++)
                v[j] = k + j >= first && k + j < last ? to_float(from[k + j]) : 0.0f;
            store_numbers<T, V>(y + t * wide + k, v);
        }
    }
}

vx_status vx_cuda_widen(const void *x, size_t c, size_t taps, size_t w, void *y, size_t wide,
                        size_t tokens, vx_dtype dtype, cudaStream_t stream, vx_error *err) {
    for_type(dtype, [&](auto t) {
        using T = decltype(t);
        const auto kernel = wide % WIDE<T> == 0 ? widen_kernel<T, WIDE<T>> : widen_kernel<T, 1>;
        kernel<<<blocks_for(tokens, 256), 256, 0, stream>>>(
            (const T *)x, (unsigned)c, (unsigned)taps, w, (T *)y, (unsigned)wide, tokens);
    });
    return vx_cuda_launched("widening", err);
}
