#include "cuda/check.h"
#include "cuda/pending.cuh"
#include "cuda/value.cuh"

using namespace vx_cuda;

static constexpr unsigned THREADS = 256;

/* A token a thread: its numbers once from memory, the weights from shared memory, [c][OUT], the
 * same for all lanes; behind them what is pending of x. V divides c. */
template <typename T, typename O, int V, int OUT>
static __global__ void narrow_kernel(const T *__restrict__ x, vx_cuda_pending pending, size_t c,
                                     const float *__restrict__ w, const float *__restrict__ bias,
                                     unsigned c_out, O *__restrict__ y, size_t tokens) {
    extern __shared__ float4 shared[];
    float(*weights)[OUT] = (float(*)[OUT])shared;
    vx_cuda_affine *affine = (vx_cuda_affine *)(weights + c);
    for (size_t i = threadIdx.x; pending.affine && i < c; i += THREADS)
        affine[i] = pending.affine[i];
    for (size_t i = threadIdx.x; i < c * OUT; i += THREADS) {
        const size_t o = i % OUT;
        weights[i / OUT][o] = o < c_out ? w[o * c + i / OUT] : 0.0f;
    }
    __syncthreads();
    const size_t step = (size_t)gridDim.x * THREADS;
    for (size_t t = (size_t)blockIdx.x * THREADS + threadIdx.x; t < tokens; t += step) {
        float sum[OUT];
#pragma unroll
        for (unsigned o = 0; o < OUT; o++) sum[o] = bias && o < c_out ? bias[o] : 0.0f;
#pragma unroll 4
        for (size_t k = 0; k < c; k += V) {
            float v[V];
            load_numbers<T, V>(x + t * c + k, v);
            if (pending.affine) {
#pragma unroll
                for (int j = 0; j < V; j++)
                    v[j] = to_float(
                        from_float<T>(apply_pending<T>(v[j], affine[k + j], pending.slope)));
            }
#pragma unroll
            for (int j = 0; j < V; j++)
#pragma unroll
                for (int o = 0; o < OUT; o++) sum[o] = fmaf(v[j], weights[k + j][o], sum[o]);
        }
        if (c_out == OUT) {
            constexpr int PIECE = OUT * sizeof(O) > 16 ? 16 / (int)sizeof(O) : OUT;
#pragma unroll
            for (int o = 0; o < OUT; o += PIECE) {
                float part[PIECE];
#pragma unroll
                for (int j = 0; j < PIECE; j++) part[j] = sum[o + j];
                store_numbers<O, PIECE>(y + t * OUT + o, part);
            }
        } else {
#pragma unroll
            for (unsigned o = 0; o < OUT; o++)
                if (o < c_out) y[t * c_out + o] = from_float<O>(sum[o]);
        }
    }
}

bool vx_cuda_narrow_fits(size_t c, size_t c_out) { return c_out <= VX_CUDA_NARROW && c <= 512; }

template <typename T, typename O, int V>
static void launch(const void *x, vx_cuda_pending pending, size_t c, const float *w,
                   const float *bias, size_t c_out, void *y, size_t tokens, cudaStream_t stream) {
    const auto kernel = c_out <= 2   ? narrow_kernel<T, O, V, 2>
                        : c_out <= 4 ? narrow_kernel<T, O, V, 4>
                                     : narrow_kernel<T, O, V, VX_CUDA_NARROW>;
    const size_t columns = c_out <= 2 ? 2 : c_out <= 4 ? 4 : VX_CUDA_NARROW;
    const size_t numbers =
        c * columns * sizeof(float) + (pending.affine ? c * sizeof(vx_cuda_affine) : 0);
    /* Whole float4, as the kernel declares it: what is read may be more than what is used. */
    const size_t bytes = (numbers + sizeof(float4) - 1) / sizeof(float4) * sizeof(float4);
    kernel<<<blocks_for(tokens, THREADS), THREADS, bytes, stream>>>(
        (const T *)x, pending, c, w, bias, (unsigned)c_out, (O *)y, tokens);
}

vx_status vx_cuda_narrow(const void *x, vx_cuda_pending pending, size_t c, const float *w,
                         const float *bias, size_t c_out, void *y, size_t tokens, vx_dtype dtype,
                         bool out_float, cudaStream_t stream, vx_error *err) {
    for_type(dtype, [&](auto t) {
        using T = decltype(t);
        constexpr int V = WIDE<T>;
        const auto run = c % V ? (out_float ? launch<T, float, 1> : launch<T, T, 1>)
                               : (out_float ? launch<T, float, V> : launch<T, T, V>);
        run(x, pending, c, w, bias, c_out, y, tokens, stream);
    });
    return vx_cuda_launched("linear layer", err);
}
