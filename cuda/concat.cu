#include "cuda/check.h"
#include "cuda/grid.cuh"

using namespace vx_cuda;

static constexpr size_t TOKENS = 64; /* of a block */

/* V divides both channel counts. */
template <typename T, int V>
static __global__ void concat_kernel(const T *__restrict__ a, size_t c_a, const T *__restrict__ b,
                                     size_t c_b, T *__restrict__ y, size_t tokens) {
    const size_t first = blockIdx.x * TOKENS, c = c_a + c_b;
    for_each_piece<V>(min(TOKENS, tokens - first), c, [&](size_t i, size_t k) {
        const size_t t = first + i;
        const T *from = k < c_a ? a + t * c_a + k : b + t * c_b + k - c_a;
        *(numbers<T, V> *)(y + t * c + k) = *(const numbers<T, V> *)from;
    });
}

vx_status vx_cuda_concat(const void *a, size_t c_a, const void *b, size_t c_b, void *y,
                         size_t tokens, vx_dtype dtype, cudaStream_t stream, vx_error *err) {
    const size_t blocks = (tokens + TOKENS - 1) / TOKENS;
    if (blocks > 0x7fffffffu) return vx_cuda_too_large("concatenation", err);
    for_type_and_width(dtype, c_a, c_b, [&](auto t, auto v) {
        using T = decltype(t);
        concat_kernel<T, decltype(v)::value><<<(unsigned)blocks, 256, 0, stream>>>(
            (const T *)a, c_a, (const T *)b, c_b, (T *)y, tokens);
    });
    return vx_cuda_launched("concatenation", err);
}
