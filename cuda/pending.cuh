/* A norm and an activation that are applied where a value is read (ops.h, vx_cuda_pending). */
#ifndef VX_CUDA_PENDING_CUH
#define VX_CUDA_PENDING_CUH

#include "cuda/ops.h"

namespace vx_cuda {

/* The norm of one number of type T. */
template <typename T>
__device__ __forceinline__ float apply_affine(float v, const vx_cuda_affine &a) {
    return sizeof(T) == 4 ? fmaf(v - a.mean, a.scale, a.shift) : fmaf(v, a.scale, a.shift);
}

/* What a pending number stands for, before it is rounded. */
template <typename T>
__device__ __forceinline__ float apply_pending(float v, const vx_cuda_affine &a, float slope) {
    const float u = apply_affine<T>(v, a);
    return fmaxf(u, u * slope);
}

} // namespace vx_cuda

#endif
