#include "cuda/check.h"
#include "cuda/grid.cuh"
#include "cuda/value.cuh"

using namespace vx_cuda;

struct strides {
    size_t d, h, w;
};

/* One output number a thread: every output voxel is one tap of one input voxel, c channels; the
 * other channels are the skip's. */
template <typename T>
static __global__ void scatter_kernel(const T *__restrict__ x, strides s, size_t c,
                                      const T *__restrict__ skip, T *__restrict__ y, vx_shape out,
                                      size_t n) {
    const size_t step = (size_t)gridDim.x * blockDim.x;
    const size_t d = out.d / s.d, h = out.h / s.h, w = out.w / s.w, taps = s.d * s.h * s.w;
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step) {
        const place p = place_of(i, out);
        const size_t voxel = ((p.n * d + p.z / s.d) * h + p.y / s.h) * w + p.x / s.w;
        const size_t tap = (p.z % s.d * s.h + p.y % s.h) * s.w + p.x % s.w;
        y[i] =
            p.c < c ? x[(voxel * taps + tap) * c + p.c] : skip[i / out.c * (out.c - c) + p.c - c];
    }
}

vx_status vx_cuda_scatter(const void *x, const size_t stride[3], size_t c, const void *skip,
                          void *y, vx_shape out, vx_dtype dtype, cudaStream_t stream,
                          vx_error *err) {
    const size_t n = vx_shape_elements(out);
    const strides s = {stride[0], stride[1], stride[2]};
    for_type(dtype, [&](auto t) {
        using T = decltype(t);
        scatter_kernel<T><<<blocks_for(n, 256), 256, 0, stream>>>((const T *)x, s, c,
                                                                  (const T *)skip, (T *)y, out, n);
    });
    return vx_cuda_launched("transposed convolution", err);
}
