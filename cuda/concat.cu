#include "cuda/check.h"
#include "cuda/value.cuh"

using namespace vx_cuda;

/* One output number a thread. */
template <typename T>
static __global__ void concat_kernel(const T *__restrict__ a, size_t c_a, const T *__restrict__ b,
                                     size_t c_b, T *__restrict__ y, size_t n) {
    const size_t step = (size_t)gridDim.x * blockDim.x, c = c_a + c_b;
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step) {
        const size_t token = i / c, k = i % c;
        y[i] = k < c_a ? a[token * c_a + k] : b[token * c_b + k - c_a];
    }
}

vx_status vx_cuda_concat(const void *a, size_t c_a, const void *b, size_t c_b, void *y,
                         size_t tokens, vx_dtype dtype, cudaStream_t stream, vx_error *err) {
    const size_t n = tokens * (c_a + c_b);
    for_type(dtype, [&](auto t) {
        using T = decltype(t);
        concat_kernel<T><<<blocks_for(n, 256), 256, 0, stream>>>((const T *)a, c_a, (const T *)b,
                                                                 c_b, (T *)y, n);
    });
    return vx_cuda_launched("concatenation", err);
}
