/* What the device can do, in the units that floors of docs/performance.md are counted in: copy
 * bandwidth, exponentials, multiply-adds, broadcasts from shared memory. One line of JSON.
 *
 *   nvcc -O3 -std=c++17 -arch=sm_90 bench/cuda_probe.cu -o cuda_probe && ./cuda_probe
 */
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <algorithm>
#include <vector>

#define CHECK_CUDA(call)                                                                           \
    do {                                                                                           \
        cudaError_t e_ = (call);                                                                   \
        if (e_ != cudaSuccess) {                                                                   \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, cudaGetErrorString(e_));            \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

namespace {

constexpr int LOOPS = 2000, WIDE = 16;

enum probe { EXP2, EXP2_HALF2, FMA, EXP2_AND_4FMA, EXP2_AND_6FMA, SHARED_128, SHARED_32, WIDEN };

__device__ float exp2_unit(float x) {
    float r;
    asm volatile("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
    return r;
}

template <probe P> __global__ void __launch_bounds__(256) work(float *out, float seed) {
    __shared__ float4 s[64];
    if (threadIdx.x < 64) s[threadIdx.x] = make_float4(seed, seed, seed, seed);
    __syncthreads();
    float x[WIDE];
    uint32_t hx[WIDE];
    for (int i = 0; i < WIDE; i++) x[i] = seed * (float)(threadIdx.x + i), hx[i] = threadIdx.x + i;
    float k = seed * 0.5f;
#pragma unroll 1
    for (int l = 0; l < LOOPS; l++) {
#pragma unroll
        for (int i = 0; i < WIDE; i++) {
            if (P == EXP2) x[i] = exp2_unit(x[i]);
            if (P == EXP2_HALF2) asm volatile("ex2.approx.f16x2 %0, %0;" : "+r"(hx[i]));
            if (P == FMA) asm volatile("fma.rn.f32 %0, %0, %1, %1;" : "+f"(x[i]) : "f"(k));
            if (P == EXP2_AND_4FMA || P == EXP2_AND_6FMA) {
                float e = exp2_unit(x[i]);
#pragma unroll
                for (int j = 0; j < (P == EXP2_AND_4FMA ? 4 : 6); j++)
                    asm volatile("fma.rn.f32 %0, %0, %1, %2;" : "+f"(x[i]) : "f"(k), "f"(e));
            }
            if (P == SHARED_128) {
                float4 v;
                uint32_t at = (uint32_t)__cvta_generic_to_shared(&s[(l + i) & 63]);
                asm volatile("ld.shared.v4.f32 {%0,%1,%2,%3}, [%4];"
                             : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
                             : "r"(at));
                x[i] = v.x;
                if (l == LOOPS) x[i] += v.y + v.z + v.w;
            }
            if (P == SHARED_32) {
                uint32_t at = (uint32_t)__cvta_generic_to_shared(&s[(l + i) & 63]);
                asm volatile("ld.shared.f32 %0, [%1];" : "=f"(x[i]) : "r"(at));
            }
            if (P == WIDEN) {
                unsigned short h = (unsigned short)hx[i];
                asm volatile("cvt.f32.f16 %0, %1;" : "=f"(x[i]) : "h"(h));
                hx[i] += __float_as_uint(x[i]);
            }
        }
    }
    float sum = 0;
    for (int i = 0; i < WIDE; i++) sum += x[i] + __uint_as_float(hx[i]);
    out[blockIdx.x * blockDim.x + threadIdx.x] = sum;
}

float median_ms(void (*run)(void *), void *arg) {
    cudaEvent_t a, b;
    CHECK_CUDA(cudaEventCreate(&a));
    CHECK_CUDA(cudaEventCreate(&b));
    std::vector<float> ms;
    for (int i = 0; i < 8; i++) {
        CHECK_CUDA(cudaEventRecord(a));
        run(arg);
        CHECK_CUDA(cudaEventRecord(b));
        CHECK_CUDA(cudaEventSynchronize(b));
        float t;
        CHECK_CUDA(cudaEventElapsedTime(&t, a, b));
        if (i >= 2) ms.push_back(t);
    }
    CHECK_CUDA(cudaGetLastError());
    std::sort(ms.begin(), ms.end());
    return ms[ms.size() / 2];
}

struct buffers {
    char *from, *to;
    float *out;
    int blocks;
} g_probe;
constexpr size_t COPY = (size_t)2 << 30;

template <probe P> void print_rate(const char *name) {
    float ms =
        median_ms([](void *) { work<P><<<g_probe.blocks, 256>>>(g_probe.out, 1e-4f); }, nullptr);
    double n = (double)g_probe.blocks * 256 * LOOPS * WIDE;
    printf(", \"%s\": %.4g", name, n / ms * 1e3);
}

} // namespace

int main(void) {
    cudaDeviceProp prop;
    if (cudaGetDeviceProperties(&prop, 0) != cudaSuccess) return 77;
    int clock = 0;
    CHECK_CUDA(cudaDeviceGetAttribute(&clock, cudaDevAttrClockRate, 0));
    g_probe.blocks = prop.multiProcessorCount * 8;
    CHECK_CUDA(cudaMalloc(&g_probe.from, COPY));
    CHECK_CUDA(cudaMalloc(&g_probe.to, COPY));
    CHECK_CUDA(cudaMalloc(&g_probe.out, (size_t)g_probe.blocks * 256 * 4));
    CHECK_CUDA(cudaMemset(g_probe.from, 0x5a, COPY));
    float ms = median_ms(
        [](void *) { cudaMemcpyAsync(g_probe.to, g_probe.from, COPY, cudaMemcpyDeviceToDevice); },
        nullptr);
    printf("{\"device\": \"%s\", \"multiprocessors\": %d, \"clock_khz\": %d, \"l2\": %d, "
           "\"copy_gb_s\": %.0f",
           prop.name, prop.multiProcessorCount, clock, prop.l2CacheSize, 2.0 * COPY / ms * 1e-6);
    print_rate<EXP2>("exp2");
    print_rate<EXP2_HALF2>("exp2_half2_pairs");
    print_rate<FMA>("fma");
    print_rate<EXP2_AND_4FMA>("exp2_with_4_fma");
    print_rate<EXP2_AND_6FMA>("exp2_with_6_fma");
    print_rate<SHARED_128>("shared_broadcast_128");
    print_rate<SHARED_32>("shared_broadcast_32");
    print_rate<WIDEN>("half_to_float_and_add");
    printf("}\n");
    return 0;
}
