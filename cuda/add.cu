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

/* A thread adds a 16-byte piece of every term. */
template <typename T>
static __global__ void sum_kernel(const T *terms, size_t count, T *y, size_t n, float scale) {
    constexpr int V = WIDE<T>;
    const size_t step = (size_t)gridDim.x * blockDim.x;
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < n / V; i += step) {
        float sum[V], term[V];
        load_numbers<T, V>(terms + i * V, sum);
        for (size_t k = 1; k < count; k++) {
            const float factor = k + 1 < count ? 1.0f : scale;
            load_numbers<T, V>(terms + k * n + i * V, term);
#pragma unroll
            for (int j = 0; j < V; j++) sum[j] = factor * (sum[j] + term[j]);
            round_numbers<T, V>(sum);
        }
        store_numbers<T, V>(y + i * V, sum);
    }
}

vx_status vx_cuda_sum(const void *terms, size_t count, void *y, size_t n, vx_dtype dtype,
                      float scale, cudaStream_t stream, vx_error *err) {
    for_type(dtype, [&](auto t) {
        using T = decltype(t);
        sum_kernel<T><<<blocks_for_numbers<T>(n, 256), 256, 0, stream>>>((const T *)terms, count,
                                                                         (T *)y, n, scale);
    });
    return vx_cuda_launched("sum", err);
}
