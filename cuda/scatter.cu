#include "cuda/check.h"
#include "cuda/grid.cuh"

using namespace vx_cuda;

struct strides {
    unsigned d, h, w;
};

/* A block an output row: every output voxel is one tap of one input voxel, c channels; the other
 * channels are the skip's. V divides both. */
template <typename T, int V>
static __global__ void scatter_kernel(const T *__restrict__ x, strides s, size_t c,
                                      const T *__restrict__ skip, T *__restrict__ y, vx_shape out) {
    const place p = place_of(blockIdx.x, out);
    const size_t d = out.d / s.d, h = out.h / s.h, w = out.w / s.w;
    const size_t taps = (size_t)s.d * s.h * s.w;
    const T *from = x + ((p.n * d + p.z / s.d) * h + p.y / s.h) * w * taps * c;
    const size_t tap = ((size_t)(p.z % s.d) * s.h + p.y % s.h) * s.w;
    const size_t first = (size_t)blockIdx.x * out.w; /* voxel of the row */
    for_each_piece<V>(out.w, out.c, [&](size_t at, size_t k) {
        const unsigned i = (unsigned)at;
        const T *source = k < c ? from + ((i / s.w) * taps + tap + i % s.w) * c + k
                                : skip + (first + i) * (out.c - c) + k - c;
        *(numbers<T, V> *)(y + (first + i) * out.c + k) = *(const numbers<T, V> *)source;
    });
}

vx_status vx_cuda_scatter(const void *x, const size_t stride[3], size_t c, const void *skip,
                          void *y, vx_shape out, vx_dtype dtype, cudaStream_t stream,
                          vx_error *err) {
    const strides s = {(unsigned)stride[0], (unsigned)stride[1], (unsigned)stride[2]};
    if (!rows_fit(out)) return vx_cuda_too_large("transposed convolution", err);
    for_type_and_width(dtype, c, out.c, [&](auto t, auto v) {
        using T = decltype(t);
        constexpr int V = decltype(v)::value;
        scatter_kernel<T, V>
            <<<(unsigned)(out.n * out.d * out.h), threads_for_row(out, V), 0, stream>>>(
                (const T *)x, s, c, (const T *)skip, (T *)y, out);
    });
    return vx_cuda_launched("transposed convolution", err);
}
