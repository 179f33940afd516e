/* Vectors for kernels_impl.c through GCC's vector extensions: VX_LANES floats, whatever the
 * instruction set of this compilation has. Multiply-adds are contracted where it has FMA (the file
 * is compiled with -ffp-contract=fast). */
#ifndef VX_BACKEND_CPU_KERNELS_VECTOR_H
#define VX_BACKEND_CPU_KERNELS_VECTOR_H

#include <stdint.h>
#include <string.h>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#if defined(VX_LANES)
/* set from outside: the tests emulate 16 lanes on processors that have fewer */
#elif defined(__AVX512F__)
#define VX_LANES 16
#elif defined(__AVX2__)
#define VX_LANES 8
#else
#define VX_LANES 4
#endif

typedef float vf __attribute__((vector_size(4 * VX_LANES)));
typedef int32_t vi __attribute__((vector_size(4 * VX_LANES)));

#define VX_INLINE static inline __attribute__((always_inline))

VX_INLINE vf v_load(const float *p) {
    vf v;
    memcpy(&v, p, sizeof v);
    return v;
}

VX_INLINE void v_store(float *p, vf v) { memcpy(p, &v, sizeof v); }

/* The first n (< VX_LANES) numbers; zeros behind them. */
VX_INLINE vf v_load_part(const float *p, size_t n) {
    vf v = {0};
    memcpy(&v, p, n * sizeof *p);
    return v;
}

VX_INLINE void v_store_part(float *p, vf v, size_t n) { memcpy(p, &v, n * sizeof *p); }

VX_INLINE vf v_splat(float x) { return x - (vf){0}; }

/* Lane-wise mask ? a : b; masks are what comparisons give: all bits or none. */
VX_INLINE vf v_select(vi mask, vf a, vf b) { return (vf)((mask & (vi)a) | (~mask & (vi)b)); }

/* Lane-wise; a NaN in a gives b. */
#if defined(__AVX512F__) && VX_LANES == 16
VX_INLINE vf v_max(vf a, vf b) { return (vf)_mm512_max_ps((__m512)a, (__m512)b); }
VX_INLINE vf v_min(vf a, vf b) { return (vf)_mm512_min_ps((__m512)a, (__m512)b); }
#elif defined(__AVX2__) && VX_LANES == 8
VX_INLINE vf v_max(vf a, vf b) { return (vf)_mm256_max_ps((__m256)a, (__m256)b); }
VX_INLINE vf v_min(vf a, vf b) { return (vf)_mm256_min_ps((__m256)a, (__m256)b); }
#else
VX_INLINE vf v_max(vf a, vf b) { return v_select(a > b, a, b); }
VX_INLINE vf v_min(vf a, vf b) { return v_select(a < b, a, b); }
#endif

/* Halves added up until one number is left. */
#if defined(__AVX512F__) && VX_LANES == 16
VX_INLINE float v_sum(vf v) { return _mm512_reduce_add_ps((__m512)v); }
#else
VX_INLINE float v_sum(vf v) {
    float part[VX_LANES];
    memcpy(part, &v, sizeof v);
    for (int half = VX_LANES / 2; half; half /= 2)
        for (int i = 0; i < half; i++) part[i] += part[i + half];
    return part[0];
}
#endif

/* 2^23 * 1.5: adding it rounds a float to the nearest integer (in its low bits), for |x| < 2^22. */
#define VX_ROUND 12582912.0f

VX_INLINE vf v_scale(vf x, vf rounded) {
    /* Adds the integer in rounded's low bits to x's exponent. */
    return (vf)((vi)x + (vi)((vi)rounded << 23));
}

/* 2^x of `count` vectors in place. Not below 2^-127; x must be at most 127 and not infinite; a NaN
 * whose payload is 0 stays one.
 *
 * Written stage by stage over all vectors: one vector's chain of dependent operations is 45 cycles
 * long, more than a processor's scheduler overlaps if the chains come one after the other. */
#if defined(__AVX512F__) && VX_LANES == 16
/* x = n + k/16 + f, |f| <= 1/32: 2^(k/16) from a table in a register, 2^f - 1 by Taylor's
 * polynomial (relative error 8e-9; exact where states live longest, around f = 0), n into the
 * exponent. Two multiply-adds fewer than the polynomial below, on processors whose shuffles and
 * integer operations do not share the multipliers' ports. */
VX_INLINE void v_exp2_all(vf *x, const size_t count) {
    /* 2^(k/16), less k/16 in the exponent's place: n + k/16 is added there. */
    static const int32_t table[16] = {0x3f800000, 0x3f7daac3, 0x3f7b95c2, 0x3f79c3d3,
                                      0x3f7837f0, 0x3f76f532, 0x3f75fed7, 0x3f75583f,
                                      0x3f7504f3, 0x3f7508a4, 0x3f75672a, 0x3f76248c,
                                      0x3f7744fd, 0x3f78ccdf, 0x3f7ac0c7, 0x3f7d257d};
    const vf round = v_splat(VX_ROUND / 16); /* adding it leaves 16 n + k in the low bits */
    const __m512i powers = _mm512_loadu_si512(table);
    const __m512i low = _mm512_set1_epi32(0x49400000 - 126 * 16); /* of 2^-126 */
    vf t[8], p[8], scale[8];
#pragma GCC unroll 8
    for (size_t i = 0; i < count; i++) t[i] = x[i] + round;
#pragma GCC unroll 8
    for (size_t i = 0; i < count; i++) x[i] = x[i] - (t[i] - round);
#pragma GCC unroll 8
    for (size_t i = 0; i < count; i++) {
        /* As integers floats are ordered by size, the negative ones before all others. */
        const __m512i n = _mm512_max_epi32((__m512i)t[i], low);
        scale[i] =
            (vf)_mm512_add_epi32(_mm512_permutexvar_epi32(n, powers), _mm512_slli_epi32(n, 19));
    }
#pragma GCC unroll 8
    for (size_t i = 0; i < count; i++) p[i] = x[i] * v_splat(0.055504109f) + v_splat(0.24022651f);
#pragma GCC unroll 8
    for (size_t i = 0; i < count; i++) p[i] = p[i] * x[i] + v_splat(0.6931472f);
#pragma GCC unroll 8
    for (size_t i = 0; i < count; i++) x[i] = scale[i] * x[i] * p[i] + scale[i];
}
#else
/* x = n + f, |f| <= 1/2; 2^f by a polynomial (minimax of relative error, constant term 1 so that
 * 2^0 = 1, error 2e-9 before rounding), n into the exponent. */
VX_INLINE void v_exp2_all(vf *x, const size_t count) {
    static const float factor[] = {0.0013398875f, 0.009618437f, 0.055503324f,
                                   0.24022648f,   0.6931472f,   1.0f};
    vf t[8], p[8];
#pragma GCC unroll 8
    for (size_t i = 0; i < count; i++) x[i] = v_max(v_splat(-125.0f), x[i]); /* keeps a NaN */
#pragma GCC unroll 8
    for (size_t i = 0; i < count; i++) t[i] = x[i] + v_splat(VX_ROUND);
#pragma GCC unroll 8
    for (size_t i = 0; i < count; i++) x[i] = x[i] - (t[i] - v_splat(VX_ROUND));
#pragma GCC unroll 8
    for (size_t i = 0; i < count; i++) p[i] = x[i] * v_splat(0.0001535336f) + v_splat(factor[0]);
#pragma GCC unroll 8
    for (size_t k = 1; k < 6; k++)
#pragma GCC unroll 8
        for (size_t i = 0; i < count; i++) p[i] = p[i] * x[i] + v_splat(factor[k]);
#pragma GCC unroll 8
    for (size_t i = 0; i < count; i++) x[i] = v_scale(p[i], t[i]);
}
#endif

VX_INLINE vf v_exp2(vf x) {
    v_exp2_all(&x, 1);
    return x;
}

/* e^x of `count` vectors in place, with ln 2 in two parts (Cody & Waite 1980), so that the reduced
 * argument is exact enough for large |x|. Clamped to the normal numbers; a NaN gives the lower end
 * (callers keep it alive). */
VX_INLINE void v_exp_all(vf *x, const size_t count) {
    static const float factor[] = {0.008374164f, 0.041668f, 0.16666432f, 0.49999994f, 1.0f, 1.0f};
    vf t[8], p[8];
#pragma GCC unroll 8
    for (size_t i = 0; i < count; i++) x[i] = v_min(v_max(x[i], v_splat(-86.6f)), v_splat(88.3f));
#pragma GCC unroll 8
    for (size_t i = 0; i < count; i++) t[i] = x[i] * v_splat(1.44269504f) + v_splat(VX_ROUND);
#pragma GCC unroll 8
    for (size_t i = 0; i < count; i++) {
        const vf n = t[i] - v_splat(VX_ROUND);
        x[i] = (x[i] - n * v_splat(0.693359375f)) - n * v_splat(-0.00021219444f);
    }
#pragma GCC unroll 8
    for (size_t i = 0; i < count; i++) p[i] = x[i] * v_splat(0.0013843643f) + v_splat(factor[0]);
#pragma GCC unroll 8
    for (size_t k = 1; k < 6; k++)
#pragma GCC unroll 8
        for (size_t i = 0; i < count; i++) p[i] = p[i] * x[i] + v_splat(factor[k]);
#pragma GCC unroll 8
    for (size_t i = 0; i < count; i++) x[i] = v_scale(p[i], t[i]);
}

VX_INLINE vf v_exp(vf x) {
    v_exp_all(&x, 1);
    return x;
}

VX_INLINE void v_silu_all(vf *x, const size_t count) {
    vf e[8];
#pragma GCC unroll 8
    for (size_t i = 0; i < count; i++) e[i] = -x[i];
    v_exp_all(e, count);
#pragma GCC unroll 8
    for (size_t i = 0; i < count; i++) x[i] = x[i] / (v_splat(1.0f) + e[i]);
}

VX_INLINE vf v_silu(vf x) {
    v_silu_all(&x, 1);
    return x;
}

/* log(1 + e^x) = max(x, 0) + log1p(e), e = e^-|x| <= 1; log1p(e) = 2 atanh(s), s = e / (2 + e) <=
 * 1/3, atanh(s) / s by a polynomial in s^2 (error 1e-10). The identity above 20, as in
 * torch.nn.functional.softplus. */
VX_INLINE void v_softplus_all(vf *x, const size_t count) {
    static const float factor[] = {0.106966265f, 0.14310361f, 0.19999346f, 0.3333334f, 1.0f};
    vf e[8], p[8], q[8];
#pragma GCC unroll 8
    for (size_t i = 0; i < count; i++) e[i] = v_select(x[i] > 0, -x[i], x[i]);
    v_exp_all(e, count);
#pragma GCC unroll 8
    for (size_t i = 0; i < count; i++) e[i] = e[i] / (v_splat(2.0f) + e[i]);
#pragma GCC unroll 8
    for (size_t i = 0; i < count; i++) q[i] = e[i] * e[i];
#pragma GCC unroll 8
    for (size_t i = 0; i < count; i++) p[i] = q[i] * v_splat(0.1220653f) + v_splat(factor[0]);
#pragma GCC unroll 8
    for (size_t k = 1; k < 5; k++)
#pragma GCC unroll 8
        for (size_t i = 0; i < count; i++) p[i] = p[i] * q[i] + v_splat(factor[k]);
#pragma GCC unroll 8
    for (size_t i = 0; i < count; i++) {
        const vf y = v_max(x[i], v_splat(0.0f)) + v_splat(2.0f) * e[i] * p[i];
        x[i] = v_select(x[i] <= 20.0f, y, x[i]); /* a NaN stays one */
    }
}

VX_INLINE vf v_softplus(vf x) {
    v_softplus_all(&x, 1);
    return x;
}

#endif
