#include "cuda/check.h"
#include "cuda/grid.cuh"

using namespace vx_cuda;

struct factors {
    unsigned d, h, w;
};

/* A block an output row. V divides the channels. */
template <typename T, int V>
static __global__ void upsample_kernel(const T *__restrict__ x, factors f, T *__restrict__ y,
                                       vx_shape out) {
    const place p = place_of(blockIdx.x, out);
    const size_t d = out.d / f.d, h = out.h / f.h, w = out.w / f.w;
    const T *from = x + ((p.n * d + p.z / f.d) * h + p.y / f.h) * w * out.c;
    T *to = y + (size_t)blockIdx.x * out.w * out.c;
    for_each_piece<V>(out.w, out.c, [&](size_t i, size_t k) {
        *(numbers<T, V> *)(to + i * out.c + k) =
            *(const numbers<T, V> *)(from + (unsigned)i / f.w * out.c + k);
    });
}

vx_status vx_cuda_upsample_nearest(const void *x, const size_t factor[3], void *y, vx_shape out,
                                   vx_dtype dtype, cudaStream_t stream, vx_error *err) {
    const factors f = {(unsigned)factor[0], (unsigned)factor[1], (unsigned)factor[2]};
    if (!rows_fit(out)) return vx_cuda_too_large("upsampling", err);
    for_type_and_width(dtype, out.c, out.c, [&](auto t, auto v) {
        using T = decltype(t);
        constexpr int V = decltype(v)::value;
        upsample_kernel<T, V>
            <<<(unsigned)(out.n * out.d * out.h), threads_for_row(out, V), 0, stream>>>(
                (const T *)x, f, (T *)y, out);
    });
    return vx_cuda_launched("upsampling", err);
}
