#include "cuda/check.h"
#include "cuda/grid.cuh"
#include "cuda/value.cuh"

using namespace vx_cuda;

struct factors {
    size_t d, h, w;
};

/* One output number a thread. */
template <typename T>
static __global__ void upsample_kernel(const T *__restrict__ x, factors f, T *__restrict__ y,
                                       vx_shape out, size_t n) {
    const size_t step = (size_t)gridDim.x * blockDim.x;
    const size_t d = out.d / f.d, h = out.h / f.h, w = out.w / f.w;
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step) {
        const place p = place_of(i, out);
        const size_t row = (p.n * d + p.z / f.d) * h + p.y / f.h;
        y[i] = x[(row * w + p.x / f.w) * out.c + p.c];
    }
}

vx_status vx_cuda_upsample_nearest(const void *x, const size_t factor[3], void *y, vx_shape out,
                                   vx_dtype dtype, cudaStream_t stream, vx_error *err) {
    const size_t n = vx_shape_elements(out);
    const factors f = {factor[0], factor[1], factor[2]};
    for_type(dtype, [&](auto t) {
        using T = decltype(t);
        upsample_kernel<T><<<blocks_for(n, 256), 256, 0, stream>>>((const T *)x, f, (T *)y, out, n);
    });
    return vx_cuda_launched("upsampling", err);
}
