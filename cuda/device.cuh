/* What the kernels need of the machine, each as one function: storage types, the special function
 * unit, copies into shared memory, matrix fragments, barriers. All inline assembly is here.
 */
#ifndef VX_CUDA_DEVICE_CUH
#define VX_CUDA_DEVICE_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdint.h>

namespace vx_cuda {

constexpr uint32_t ALL_LANES = 0xffffffffu;

/* The block's dynamic shared memory. */
__device__ inline char *shared_memory() {
    extern __shared__ __align__(16) char vx_shared[];
    return vx_shared;
}

/* ---- storage types ----------------------------------------------------------------------------
 */

__device__ inline float to_float(float v) { return v; }
__device__ inline float to_float(__half v) { return __half2float(v); }
__device__ inline float to_float(__nv_bfloat16 v) { return __bfloat162float(v); }
__device__ inline void from_float(float v, float *out) { *out = v; }
__device__ inline void from_float(float v, __half *out) { *out = __float2half_rn(v); }
__device__ inline void from_float(float v, __nv_bfloat16 *out) { *out = __float2bfloat16_rn(v); }

/* Four elements at 4 * sizeof(T) alignment. */
__device__ inline float4 load4(const float *at) { return *(const float4 *)at; }
__device__ inline float4 load4(const __half *at) {
    const uint2 v = *(const uint2 *)at;
    const float2 a = __half22float2(*(const __half2 *)&v.x),
                 b = __half22float2(*(const __half2 *)&v.y);
    return make_float4(a.x, a.y, b.x, b.y);
}
__device__ inline float4 load4(const __nv_bfloat16 *at) {
    const uint2 v = *(const uint2 *)at;
    return make_float4(__uint_as_float(v.x << 16), __uint_as_float(v.x & 0xffff0000u),
                       __uint_as_float(v.y << 16), __uint_as_float(v.y & 0xffff0000u));
}

/* Two elements in one register: lo is the one at the lower address. A value beyond the type's range
 * becomes infinite, never its largest: the check of the logits finds that, where a clamped value
 * would be a wrong one without a word (docs/decisions/0004). */
template <typename T> struct pair;
template <> struct pair<__half> {
    __device__ static inline float2 wide(uint32_t v) { return __half22float2(*(__half2 *)&v); }
    __device__ static inline uint32_t pack(float lo, float hi) {
        const __half2 v = __floats2half2_rn(lo, hi);
        return *(const uint32_t *)&v;
    }
};
template <> struct pair<__nv_bfloat16> {
    __device__ static inline float2 wide(uint32_t v) {
        return make_float2(__uint_as_float(v << 16), __uint_as_float(v & 0xffff0000u));
    }
    __device__ static inline uint32_t pack(float lo, float hi) {
        const __nv_bfloat162 v = __floats2bfloat162_rn(lo, hi);
        return *(const uint32_t *)&v;
    }
};

/* ---- special functions ------------------------------------------------------------------------
 */

/* 2^x; below 2^-126 it is 0. */
__device__ inline float exp2_unit(float x) {
    float r;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
    return r;
}
__device__ inline float reciprocal_unit(float x) {
    float r;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
    return r;
}

/* softplus(x) = max(x, 0) + log1p(exp(-|x|)); log1p(e) = e p(e) with a minimax fit on [0, 1]
 * (relative error 3e-8, for half types 6e-5, a quarter
 * of what rounding to fp16 can make). Above 20 this is x to the last bit. SCALE: the result
 * is SCALE * softplus(x / SCALE), a power of two, for no more work. */
template <bool EXACT, int SCALE = 1> __device__ inline float softplus(float x) {
    constexpr float S = (float)SCALE;
    const float e = exp2_unit(-1.4426950408889634f / S * fabsf(x));
    float p;
    if (EXACT) {
        p = fmaf(S * 0.005232629366219044f, e, S * -0.029504986479878426f);
        p = fmaf(p, e, S * 0.07822556048631668f);
        p = fmaf(p, e, S * -0.13663214445114136f);
        p = fmaf(p, e, S * 0.1910599321126938f);
        p = fmaf(p, e, S * -0.2484297901391983f);
        p = fmaf(p, e, S * 0.3331909775733948f);
        p = fmaf(p, e, S * -0.4999949336051941f);
        p = fmaf(p, e, S * 0.9999999403953552f);
    } else {
        p = fmaf(S * 0.041347306044611336f, e, S * -0.15742721083592515f);
        p = fmaf(p, e, S * 0.30630093018458354f);
        p = fmaf(p, e, S * -0.49697780617234383f);
        p = fmaf(p, e, S * 0.9999432783309135f);
    }
    return fmaf(p, e, fmaxf(x, 0.0f));
}

__device__ inline float silu(float z) {
    return z * reciprocal_unit(1.0f + exp2_unit(-1.4426950408889634f * z));
}

/* ---- copies into shared memory ----------------------------------------------------------------
 */

template <int BYTES> __device__ inline void copy_async(void *shared, const void *global) {
#if __CUDA_ARCH__ >= 800
    uint32_t at = (uint32_t)__cvta_generic_to_shared(shared);
    if (BYTES == 16)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(at), "l"(global) : "memory");
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(at), "l"(global), "n"(BYTES)
                     : "memory");
#else
    if (BYTES == 16) *(uint4 *)shared = *(const uint4 *)global;
    if (BYTES == 8) *(uint2 *)shared = *(const uint2 *)global;
    if (BYTES == 4) *(uint32_t *)shared = *(const uint32_t *)global;
#endif
}
__device__ inline void copy_commit() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
/* Waits until all of this thread's copies have landed. */
__device__ inline void copy_wait_all() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}
/* Waits until all but the latest group of this thread's copies have landed. */
__device__ inline void copy_wait() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group 1;" ::: "memory");
#endif
}

/* Stores to shared memory that the compiler may move past loads of other addresses: without this
 * the loads of the next token wait for the store of this one. A barrier must come before a load of
 * the same address. */
__device__ inline void store_shared(float *shared, float v) {
    asm volatile("st.shared.f32 [%0], %1;" ::"r"((uint32_t)__cvta_generic_to_shared(shared)),
                 "f"(v));
}
__device__ inline void store_shared(__half *shared, float v) {
    asm volatile("st.shared.b16 [%0], %1;" ::"r"((uint32_t)__cvta_generic_to_shared(shared)),
                 "h"(__half_as_ushort(__float2half_rn(v))));
}
__device__ inline void store_shared(__nv_bfloat16 *shared, float v) {
    asm volatile("st.shared.b16 [%0], %1;" ::"r"((uint32_t)__cvta_generic_to_shared(shared)),
                 "h"(__bfloat16_as_ushort(__float2bfloat16_rn(v))));
}

/* Copies `count` elements of a row into shared memory, by `workers` threads of which this is number
 * `worker`, `bytes` at a time (0: one by one). */
template <typename T, int BYTES>
__device__ inline void copy_pieces(T *shared, const T *row, uint32_t count, uint32_t worker,
                                   uint32_t workers) {
    const uint32_t size = count * (uint32_t)sizeof(T);
#pragma unroll 1
    for (uint32_t i = worker * BYTES; i < size; i += workers * BYTES)
        copy_async<BYTES>((char *)shared + i, (const char *)row + i);
}
template <typename T>
__device__ inline void copy_row(T *shared, const T *row, uint32_t count, uint32_t bytes,
                                uint32_t worker, uint32_t workers) {
    if (bytes == 16) {
        copy_pieces<T, 16>(shared, row, count, worker, workers);
    } else if (bytes == 8) {
        copy_pieces<T, 8>(shared, row, count, worker, workers);
    } else if (bytes == 4) {
        copy_pieces<T, 4>(shared, row, count, worker, workers);
    } else {
#pragma unroll 1
        for (uint32_t i = worker; i < count; i += workers) shared[i] = row[i];
    }
}

/* ---- matrix fragments (compute capability 8.0 and above) --------------------------------------
 * A matrix product of 16 x 16 by 16 x 8. With g = lane / 4 and q = lane % 4, a lane holds, two
 * elements a register:
 *   a[0], a[1]: rows g and g + 8, columns 2q, 2q + 1;  a[2], a[3]: the same rows, columns 2q + 8, 9
 *   b[0], b[1]: column g, rows 2q, 2q + 1 and 2q + 8, 2q + 9
 *   c[0..1], c[2..3]: rows g and g + 8, columns 2q, 2q + 1 */

/* Four 8 x 8 matrices whose rows are 16 bytes each: lane 8m + r gives the address of row r of
 * matrix m, and receives in v[m] elements [2q][g] and [2q + 1][g]. */
__device__ inline void load_transposed(uint32_t (&v)[4], const void *row) {
#if __CUDA_ARCH__ >= 750
    uint32_t at = (uint32_t)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(v[0]), "=r"(v[1]), "=r"(v[2]), "=r"(v[3])
                 : "r"(at)
                 : "memory");
#endif
}

/* The same, but each lane receives elements [g][2q] and [g][2q + 1]. */
__device__ inline void load_matrices(uint32_t (&v)[4], const void *row) {
#if __CUDA_ARCH__ >= 750
    uint32_t at = (uint32_t)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(v[0]), "=r"(v[1]), "=r"(v[2]), "=r"(v[3])
                 : "r"(at)
                 : "memory");
#endif
}

template <typename T>
__device__ inline void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                    uint32_t b1);
template <>
__device__ inline void multiply_add<__half>(float (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                            uint32_t b1) {
#if __CUDA_ARCH__ >= 800
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#endif
}
template <>
__device__ inline void multiply_add<__nv_bfloat16>(float (&c)[4], const uint32_t (&a)[4],
                                                   uint32_t b0, uint32_t b1) {
#if __CUDA_ARCH__ >= 800
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
        "{%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#endif
}

/* v[j] of lane q of four to v[q] of lane j. */
__device__ inline void transpose_four(uint32_t (&v)[4]) {
    const bool odd = threadIdx.x & 1, high = threadIdx.x & 2;
#pragma unroll
    for (int i = 0; i < 4; i += 2) {
        const uint32_t got = __shfl_xor_sync(ALL_LANES, odd ? v[i] : v[i + 1], 1);
        if (odd)
            v[i] = got;
        else
            v[i + 1] = got;
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const uint32_t got = __shfl_xor_sync(ALL_LANES, high ? v[i] : v[i + 2], 2);
        if (high)
            v[i] = got;
        else
            v[i + 2] = got;
    }
}

/* ---- barriers ---------------------------------------------------------------------------------
 */

/* Barrier of `warps` warps of a block that has at most 4 such groups, and `all` warps in one group.
 * Barrier numbers are constants: with numbers in registers the compiler reserves all 16 for each
 * block. */
__device__ inline void group_barrier(uint32_t warps, uint32_t all, uint32_t group) {
    if (warps == 1) {
        __syncwarp();
    } else if (warps == all) {
        __syncthreads();
    } else {
        const uint32_t threads = warps * 32;
        switch (group) {
        case 0:
            asm volatile("bar.sync 1, %0;" ::"r"(threads) : "memory");
            break;
        case 1:
            asm volatile("bar.sync 2, %0;" ::"r"(threads) : "memory");
            break;
        case 2:
            asm volatile("bar.sync 3, %0;" ::"r"(threads) : "memory");
            break;
        default:
            asm volatile("bar.sync 4, %0;" ::"r"(threads) : "memory");
            break;
        }
    }
}

} // namespace vx_cuda

#endif
