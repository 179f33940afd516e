#include "cuda/check.h"
#include "cuda/value.cuh"

using namespace vx_cuda;

/* The voxel that is token t of the walk; t < length. */
static __device__ __forceinline__ size_t voxel_at(const vx_scan_walk &walk, uint32_t length,
                                                  uint32_t t) {
    if (walk.reverse) t = length - 1 - t;
    const uint32_t fast = t % walk.dims[2], rest = t / walk.dims[2];
    const uint32_t middle = rest % walk.dims[1], slow = rest / walk.dims[1];
    return (size_t)slow * walk.step[0] + (size_t)middle * walk.step[1] +
           (size_t)fast * walk.step[2];
}

/* One channel of one token a thread; the K - 1 tokens before it come from the cache. */
template <typename T>
static __global__ void causal_conv_kernel(const vx_cuda_causal_conv conv, uint32_t length,
                                          const T *__restrict__ x, const float *__restrict__ taps,
                                          const float *__restrict__ bias, T *__restrict__ y) {
    const size_t channels = conv.channels, total = channels * length * conv.n;
    const size_t step = (size_t)gridDim.x * blockDim.x;
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < total; i += step) {
        const size_t d = i % channels, position = i / channels;
        const uint32_t t = (uint32_t)(position % length);
        const size_t first = position / length * length; /* voxel 0 of this sequence */
        float sum = bias[d];
        for (unsigned k = 0; k < conv.taps; k++) {
            const unsigned back = conv.taps - 1 - k;
            if (back > t) continue;
            const size_t voxel = first + voxel_at(conv.walk, length, t - back);
            sum = fmaf(taps[k * channels + d], to_float(x[voxel * conv.x_row + d]), sum);
        }
        y[(first + voxel_at(conv.walk, length, t)) * channels + d] = from_float<T>(silu(sum));
    }
}

vx_status vx_cuda_causal_conv_silu(const vx_cuda_causal_conv *conv, const void *x,
                                   const float *taps, const float *bias, void *y,
                                   cudaStream_t stream, vx_error *err) {
    const uint32_t *dims = conv->walk.dims;
    const uint32_t length = dims[0] * dims[1] * dims[2]; /* below 2^31: the scan's limit */
    const size_t total = conv->channels * length * conv->n;
    for_type(conv->dtype, [&](auto t) {
        using T = decltype(t);
        causal_conv_kernel<T><<<blocks_for(total, 256), 256, 0, stream>>>(
            *conv, length, (const T *)x, taps, bias, (T *)y);
    });
    return vx_cuda_launched("causal convolution", err);
}
