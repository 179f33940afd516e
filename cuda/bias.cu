#include "cuda/check.h"
#include "cuda/value.cuh"

using namespace vx_cuda;

/* x and y may be the same memory. */
template <typename T>
static __global__ void bias_kernel(const T *x, const float *__restrict__ bias, T *y, size_t n,
                                   size_t c) {
    const size_t step = (size_t)gridDim.x * blockDim.x;
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step)
        y[i] = from_float<T>(to_float(x[i]) + bias[i % c]);
}

vx_status vx_cuda_bias(const void *x, const float *bias, void *y, size_t tokens, size_t c,
                       vx_dtype dtype, cudaStream_t stream, vx_error *err) {
    const size_t n = tokens * c;
    for_type(dtype, [&](auto t) {
        using T = decltype(t);
        bias_kernel<T><<<blocks_for(n, 256), 256, 0, stream>>>((const T *)x, bias, (T *)y, n, c);
    });
    return vx_cuda_launched("bias", err);
}
