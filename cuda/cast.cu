#include "cuda/check.h"
#include "cuda/value.cuh"

using namespace vx_cuda;

/* Eight numbers a thread. */
template <typename F, typename T>
static __global__ void cast_kernel(const F *__restrict__ x, T *__restrict__ y, size_t n) {
    constexpr int V = 8;
    const size_t step = (size_t)gridDim.x * blockDim.x;
    const size_t first = (size_t)blockIdx.x * blockDim.x + threadIdx.x, pieces = n / V;
    for (size_t i = first; i < pieces; i += step) {
        float v[V];
        load_numbers<F, V>(x + i * V, v);
        store_numbers<T, V>(y + i * V, v);
    }
    for (size_t i = pieces * V + first; i < n; i += step) y[i] = from_float<T>(to_float(x[i]));
}

vx_status vx_cuda_cast(const void *x, vx_dtype from, void *y, vx_dtype to, size_t n,
                       cudaStream_t stream, vx_error *err) {
    for_type(from, [&](auto f) {
        for_type(to, [&](auto t) {
            using F = decltype(f);
            using T = decltype(t);
            cast_kernel<F, T>
                <<<blocks_for(n / 8 + 1, 256), 256, 0, stream>>>((const F *)x, (T *)y, n);
        });
    });
    return vx_cuda_launched("conversion", err);
}
