#include "cuda/check.h"
#include "cuda/grid.cuh"
#include "cuda/value.cuh"

using namespace vx_cuda;

struct pool_window {
    unsigned d, h, w;
};

/* One output number a thread. */
template <typename T>
static __global__ void pool_kernel(const T *__restrict__ x, vx_shape in, pool_window k,
                                   T *__restrict__ y, vx_shape out, size_t n) {
    const size_t step = (size_t)gridDim.x * blockDim.x;
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step) {
        const place p = place_of(i, out);
        float sum = 0;
        for (unsigned z = 0; z < k.d; z++)
            for (unsigned r = 0; r < k.h; r++) {
                const size_t row = (p.n * in.d + p.z * k.d + z) * in.h + p.y * k.h + r;
                const T *from = x + (row * in.w + p.x * k.w) * in.c + p.c;
                for (unsigned s = 0; s < k.w; s++) sum += to_float(from[s * in.c]);
            }
        y[i] = from_float<T>(sum / (float)(k.d * k.h * k.w));
    }
}

vx_status vx_cuda_avg_pool(const void *x, vx_shape in, const size_t stride[3], void *y,
                           vx_shape out, vx_dtype dtype, cudaStream_t stream, vx_error *err) {
    const size_t n = vx_shape_elements(out);
    const pool_window k = {(unsigned)stride[0], (unsigned)stride[1], (unsigned)stride[2]};
    for_type(dtype, [&](auto t) {
        using T = decltype(t);
        pool_kernel<T><<<blocks_for(n, 256), 256, 0, stream>>>((const T *)x, in, k, (T *)y, out, n);
    });
    return vx_cuda_launched("average pooling", err);
}
