#include "cuda/check.h"
#include "cuda/grid.cuh"

using namespace vx_cuda;

struct pool_window {
    unsigned d, h, w;
};

/* A block an output row. V divides the channels. */
template <typename T, int V>
static __global__ void pool_kernel(const T *__restrict__ x, vx_shape in, pool_window k,
                                   T *__restrict__ y, vx_shape out) {
    const place p = place_of(blockIdx.x, out);
    const float count = (float)(k.d * k.h * k.w);
    T *to = y + (size_t)blockIdx.x * out.w * out.c;
    for_each_piece<V>(out.w, out.c, [&](size_t i, size_t c) {
        float sum[V] = {};
        for (unsigned z = 0; z < k.d; z++)
            for (unsigned r = 0; r < k.h; r++) {
                const size_t row =
                    (p.n * in.d + (size_t)p.z * k.d + z) * in.h + (size_t)p.y * k.h + r;
                const T *from = x + (row * in.w + i * k.w) * in.c + c;
                for (unsigned s = 0; s < k.w; s++) {
                    float v[V];
                    load_numbers<T, V>(from + s * in.c, v);
#pragma unroll
                    for (int j = 0; j < V; j++) sum[j] += v[j];
                }
            }
#pragma unroll
        for (int j = 0; j < V; j++) sum[j] /= count;
        store_numbers<T, V>(to + i * out.c + c, sum);
    });
}

vx_status vx_cuda_avg_pool(const void *x, vx_shape in, const size_t stride[3], void *y,
                           vx_shape out, vx_dtype dtype, cudaStream_t stream, vx_error *err) {
    const pool_window k = {(unsigned)stride[0], (unsigned)stride[1], (unsigned)stride[2]};
    if (!rows_fit(out)) return vx_cuda_too_large("average pooling", err);
    for_type_and_width(dtype, out.c, out.c, [&](auto t, auto v) {
        using T = decltype(t);
        constexpr int V = decltype(v)::value;
        pool_kernel<T, V>
            <<<(unsigned)(out.n * out.d * out.h), threads_for_row(out, V), 0, stream>>>(
                (const T *)x, in, k, (T *)y, out);
    });
    return vx_cuda_launched("average pooling", err);
}
