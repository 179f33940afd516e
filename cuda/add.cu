#include "cuda/check.h"
#include "cuda/value.cuh"

using namespace vx_cuda;

/* y may be the memory of a or b. */
template <typename T>
static __global__ void add_kernel(const T *a, const T *b, T *y, size_t n, float scale) {
    for_each_number<T>(a, b, y, n, [=](float u, float v) { return scale * (u + v); });
}

vx_status vx_cuda_add(const void *a, const void *b, void *y, size_t n, vx_dtype dtype, float scale,
                      cudaStream_t stream, vx_error *err) {
    for_type(dtype, [&](auto t) {
        using T = decltype(t);
        add_kernel<T><<<blocks_for_numbers<T>(n, 256), 256, 0, stream>>>((const T *)a, (const T *)b,
                                                                         (T *)y, n, scale);
    });
    return vx_cuda_launched("addition", err);
}
