#include "cuda/check.h"
#include "cuda/value.cuh"

using namespace vx_cuda;

/* x and y may be the same memory. */
template <typename T>
static __global__ void activation_kernel(const T *x, T *y, size_t n, vx_activation act,
                                         float slope) {
    for_each_number<T>(x, nullptr, y, n, [=](float v, float) { return activate(v, act, slope); });
}

vx_status vx_cuda_activation(const void *x, void *y, size_t n, vx_dtype dtype, vx_activation act,
                             float slope, cudaStream_t stream, vx_error *err) {
    for_type(dtype, [&](auto t) {
        using T = decltype(t);
        activation_kernel<T><<<blocks_for_numbers<T>(n, 256), 256, 0, stream>>>(
            (const T *)x, (T *)y, n, act, slope);
    });
    return vx_cuda_launched("activation", err);
}
