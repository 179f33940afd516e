#include "cuda/check.h"
#include "cuda/value.cuh"

using namespace vx_cuda;

/* Eight halves a thread; one addition a warp. */
static __global__ void count_kernel(const uint16_t *__restrict__ x, size_t n, uint16_t bits,
                                    unsigned long long *count) {
    constexpr int V = 8;
    const size_t step = (size_t)gridDim.x * blockDim.x;
    const size_t first = (size_t)blockIdx.x * blockDim.x + threadIdx.x, pieces = n / V;
    unsigned found = 0;
    for (size_t i = first; i < pieces; i += step) {
        const numbers<uint16_t, V> piece =
            *reinterpret_cast<const numbers<uint16_t, V> *>(x + i * V);
        for (int v = 0; v < V; v++) found += piece.x[v] == bits;
    }
    for (size_t i = pieces * V + first; i < n; i += step) found += x[i] == bits;
    for (unsigned o = 16; o; o /= 2) found += __shfl_xor_sync(0xffffffffu, found, o);
    if (threadIdx.x % 32 == 0) atomicAdd(count, (unsigned long long)found);
}

vx_status vx_cuda_count_halves(const void *x, size_t n, uint16_t bits, unsigned long long *count,
                               cudaStream_t stream, vx_error *err) {
    count_kernel<<<blocks_for(n / 8 + 1, 256), 256, 0, stream>>>((const uint16_t *)x, n, bits,
                                                                 count);
    return vx_cuda_launched("counting", err);
}
