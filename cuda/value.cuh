/* Device code that the ops share: numbers of any storage type as float, and activations. */
#ifndef VX_CUDA_VALUE_CUH
#define VX_CUDA_VALUE_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <type_traits>

#include "cuda/ops.h"
#include "cuda/wide.cuh"

namespace vx_cuda {

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(__half x) { return __half2float(x); }
__device__ __forceinline__ float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }

template <typename T> __device__ __forceinline__ T from_float(float x);
template <> __device__ __forceinline__ float from_float<float>(float x) { return x; }
template <> __device__ __forceinline__ __half from_float<__half>(float x) {
    return __float2half_rn(x);
}
template <> __device__ __forceinline__ __nv_bfloat16 from_float<__nv_bfloat16>(float x) {
    return __float2bfloat16_rn(x);
}

/* V numbers that are read and written in one access; the address is a multiple of their bytes. */
template <typename T, int V> struct alignas(sizeof(T) * V) numbers { T x[V]; };

template <typename T, int V>
__device__ __forceinline__ void load_numbers(const T *from, float (&to)[V]) {
    const numbers<T, V> n = *reinterpret_cast<const numbers<T, V> *>(from);
#pragma unroll
    for (int i = 0; i < V; i++) to[i] = to_float(n.x[i]);
}

template <typename T, int V>
__device__ __forceinline__ void store_piece(T *to, const numbers<T, V> &n) {
    if constexpr (sizeof n == 16) {
        uint4 bits;
        memcpy(&bits, &n, sizeof bits);
        store_16(to, bits);
    } else {
        *reinterpret_cast<numbers<T, V> *>(to) = n;
    }
}

/* Two numbers at a time where the machine has an instruction for it. */
__device__ __forceinline__ void from_floats(const float *from, float *to) {
    to[0] = from[0];
    to[1] = from[1];
}
__device__ __forceinline__ void from_floats(const float *from, __half *to) {
    const __half2 h = __floats2half2_rn(from[0], from[1]);
    to[0] = __low2half(h);
    to[1] = __high2half(h);
}
__device__ __forceinline__ void from_floats(const float *from, __nv_bfloat16 *to) {
    const __nv_bfloat162 h = __floats2bfloat162_rn(from[0], from[1]);
    to[0] = __low2bfloat16(h);
    to[1] = __high2bfloat16(h);
}
template <typename T, int V>
__device__ __forceinline__ numbers<T, V> narrow_numbers(const float (&from)[V]) {
    numbers<T, V> n;
#pragma unroll
    for (int i = 0; i + 1 < V; i += 2) from_floats(from + i, n.x + i);
    if (V % 2) n.x[V - 1] = from_float<T>(from[V - 1]);
    return n;
}
template <typename T, int V> __device__ __forceinline__ void round_numbers(float (&v)[V]) {
    const numbers<T, V> n = narrow_numbers<T, V>(v);
#pragma unroll
    for (int i = 0; i < V; i++) v[i] = to_float(n.x[i]);
}

template <typename T, int V>
__device__ __forceinline__ void store_numbers(T *to, const float (&from)[V]) {
    store_piece<T, V>(to, narrow_numbers<T, V>(from));
}

/* expf, not __expf: fp32 has to be exact to its rounding. */
__device__ __forceinline__ float silu(float x) { return x / (1.0f + expf(-x)); }

/* As vx_ref_activate: GELU is the exact one. */
__device__ __forceinline__ float activate(float x, vx_activation act, float slope) {
    switch (act) {
    case VX_ACT_NONE:
        return x;
    case VX_ACT_RELU:
        return x > 0.0f || isnan(x) ? x : 0.0f;
    case VX_ACT_LEAKY_RELU:
        return x > 0.0f ? x : x * slope;
    case VX_ACT_GELU:
        return 0.5f * x * erfcf(-x * 0.70710678118654752440f);
    case VX_ACT_SILU:
        return silu(x);
    }
    return x;
}

/* Blocks of `threads` for n pieces of work in a grid-stride loop. */
inline unsigned blocks_for(size_t n, unsigned threads) {
    const size_t blocks = (n + threads - 1) / threads, most = 1u << 20;
    return (unsigned)(blocks < 1 ? 1 : blocks > most ? most : blocks);
}

/* Numbers of one 16-byte access. */
template <typename T> constexpr int WIDE = 16 / (int)sizeof(T);

/* y[i] = f(a[i], b[i]) by 16-byte accesses; b may be NULL (then f gets 0). y may be a or b. */
template <typename T, typename F>
__device__ __forceinline__ void for_each_number(const T *a, const T *b, T *y, size_t n, F f) {
    constexpr int V = WIDE<T>;
    const size_t step = (size_t)gridDim.x * blockDim.x;
    const size_t first = (size_t)blockIdx.x * blockDim.x + threadIdx.x, pieces = n / V;
    for (size_t i = first; i < pieces; i += step) {
        float u[V], v[V] = {};
        load_numbers<T, V>(a + i * V, u);
        if (b) load_numbers<T, V>(b + i * V, v);
#pragma unroll
        for (int k = 0; k < V; k++) u[k] = f(u[k], v[k]);
        store_numbers<T, V>(y + i * V, u);
    }
    for (size_t i = pieces * V + first; i < n; i += step)
        y[i] = from_float<T>(f(to_float(a[i]), b ? to_float(b[i]) : 0.0f));
}

/* Blocks for for_each_number. */
template <typename T> unsigned blocks_for_numbers(size_t n, unsigned threads) {
    return blocks_for(n / WIDE<T> + 1, threads);
}

/* Calls launch(zero of the storage type), which gives the types of a template their names. */
template <typename F> void for_type(vx_dtype dtype, F &&launch) {
    if (dtype == VX_F32)
        launch(float());
    else if (dtype == VX_F16)
        launch(__half());
    else
        launch(__nv_bfloat16());
}

} // namespace vx_cuda

#endif
