/* What programs that launch kernels by themselves share, tests and benchmarks: ending at an error,
 * storage types on the host, random numbers, device memory. For one translation unit. */
#ifndef VX_CUDA_TESTS_DEVICE_HOST_H
#define VX_CUDA_TESTS_DEVICE_HOST_H

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <vector>

#include "cuda/scan.h" /* vx_dtype */

namespace {

#define CHECK_CUDA(call)                                                                           \
    do {                                                                                           \
        cudaError_t e_ = (call);                                                                   \
        if (e_ != cudaSuccess) {                                                                   \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, cudaGetErrorString(e_));            \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

struct random_state {
    uint64_t s;
    double uniform() { /* splitmix64, in [0, 1) */
        s += 0x9e3779b97f4a7c15ull;
        uint64_t z = s;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
        return (double)((z ^ (z >> 31)) >> 11) * 0x1p-53;
    }
    double normal() { return sqrt(-2 * log(1 - uniform())) * cos(6.283185307179586 * uniform()); }
};

inline size_t size_of(vx_dtype t) { return t == VX_F32 ? 4 : 2; }

/* Rounds to the storage type, so that the reference starts from the same numbers. */
inline double store(void *at, vx_dtype t, size_t i, double v) {
    if (t == VX_F32) return ((float *)at)[i] = (float)v;
    if (t == VX_F16) return __half2float(((__half *)at)[i] = __float2half_rn((float)v));
    return __bfloat162float(((__nv_bfloat16 *)at)[i] = __float2bfloat16_rn((float)v));
}
inline double load(const void *at, vx_dtype t, size_t i) {
    if (t == VX_F32) return ((const float *)at)[i];
    if (t == VX_F16) return __half2float(((const __half *)at)[i]);
    return __bfloat162float(((const __nv_bfloat16 *)at)[i]);
}

/* Device memory, freed together. */
struct memory {
    std::vector<void *> owned;
    void *bytes(size_t n) { /* hold NaN in every type */
        void *p;
        CHECK_CUDA(cudaMalloc(&p, n ? n : 1));
        CHECK_CUDA(cudaMemset(p, 0xFF, n));
        owned.push_back(p);
        return p;
    }
    template <typename V> V *upload(const std::vector<V> &v) {
        V *p = (V *)bytes(v.size() * sizeof(V));
        CHECK_CUDA(cudaMemcpy(p, v.data(), v.size() * sizeof(V), cudaMemcpyHostToDevice));
        return p;
    }
    memory() = default;
    memory(const memory &) = delete;
    ~memory() {
        for (void *p : owned) cudaFree(p);
    }
};

/* n normal numbers of deviation `scale` in device memory, by the device: for tensors that are
 * large.
 */
template <typename T> __device__ T narrow_to(float v);
template <> __device__ inline float narrow_to(float v) { return v; }
template <> __device__ inline __half narrow_to(float v) { return __float2half_rn(v); }
template <> __device__ inline __nv_bfloat16 narrow_to(float v) { return __float2bfloat16_rn(v); }

template <typename T> __global__ void normal_kernel(T *at, size_t n, float scale, uint64_t seed) {
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < n;
         i += (size_t)gridDim.x * blockDim.x) {
        uint64_t z = seed + (i + 1) * 0x9e3779b97f4a7c15ull; /* splitmix64 */
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
        z ^= z >> 31;
        const float u = ((float)(uint32_t)z + 1.0f) * 0x1p-32f;
        const float v = (float)(uint32_t)(z >> 32) * 0x1p-32f;
        at[i] = narrow_to<T>(scale * sqrtf(-2 * logf(u)) * cospif(2 * v));
    }
}

inline void fill_normal(void *at, vx_dtype t, size_t n, float scale, uint64_t seed) {
    if (t == VX_F32) normal_kernel<<<2048, 256>>>((float *)at, n, scale, seed);
    if (t == VX_F16) normal_kernel<<<2048, 256>>>((__half *)at, n, scale, seed);
    if (t == VX_BF16) normal_kernel<<<2048, 256>>>((__nv_bfloat16 *)at, n, scale, seed);
    CHECK_CUDA(cudaGetLastError());
}

} // namespace

#endif
