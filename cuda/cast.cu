#include "cuda/check.h"
#include "cuda/value.cuh"

using namespace vx_cuda;

template <typename F, typename T>
static __global__ void cast_kernel(const F *__restrict__ x, T *__restrict__ y, size_t n) {
    const size_t step = (size_t)gridDim.x * blockDim.x;
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step)
        y[i] = from_float<T>(to_float(x[i]));
}

vx_status vx_cuda_cast(const void *x, vx_dtype from, void *y, vx_dtype to, size_t n,
                       cudaStream_t stream, vx_error *err) {
    for_type(from, [&](auto f) {
        for_type(to, [&](auto t) {
            using F = decltype(f);
            using T = decltype(t);
            cast_kernel<F, T><<<blocks_for(n, 256), 256, 0, stream>>>((const F *)x, (T *)y, n);
        });
    });
    return vx_cuda_launched("conversion", err);
}
