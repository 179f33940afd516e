#include "cuda/check.h"
#include "cuda/value.cuh"

using namespace vx_cuda;

/* A voxel a thread; V divides `wide`. */
template <typename T, int V>
static __global__ void widen_kernel(const T *__restrict__ x, size_t c, T *__restrict__ y,
                                    size_t wide, size_t tokens) {
    const size_t step = (size_t)gridDim.x * blockDim.x;
    for (size_t t = (size_t)blockIdx.x * blockDim.x + threadIdx.x; t < tokens; t += step)
        for (size_t k = 0; k < wide; k += V) {
            float v[V];
#pragma unroll
            for (int j = 0; j < V; j++) v[j] = k + j < c ? to_float(x[t * c + k + j]) : 0.0f;
            store_numbers<T, V>(y + t * wide + k, v);
        }
}

vx_status vx_cuda_widen(const void *x, size_t c, void *y, size_t wide, size_t tokens,
                        vx_dtype dtype, cudaStream_t stream, vx_error *err) {
    for_type(dtype, [&](auto t) {
        using T = decltype(t);
        const auto kernel = wide % WIDE<T> == 0 ? widen_kernel<T, WIDE<T>> : widen_kernel<T, 1>;
        kernel<<<blocks_for(tokens, 256), 256, 0, stream>>>((const T *)x, c, (T *)y, wide, tokens);
    });
    return vx_cuda_launched("widening", err);
}
