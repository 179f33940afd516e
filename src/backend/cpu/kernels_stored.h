/* How kernels_impl.c reads and writes activations: as float, or, with VX_STORED_BF16, as bfloat16
 * (the upper half of a float; rounded to nearest, ties to even) with float arithmetic in between.
 */
#ifndef VX_BACKEND_CPU_KERNELS_STORED_H
#define VX_BACKEND_CPU_KERNELS_STORED_H

#include "backend/cpu/kernels_vector.h"

#if defined(VX_STORED_BF16)

#define VX_STORED VX_BF16
typedef uint16_t stored;

typedef uint16_t vh __attribute__((vector_size(2 * VX_LANES)));
typedef uint32_t vu __attribute__((vector_size(4 * VX_LANES)));

VX_INLINE vf s_widen(vh h) { return (vf)(__builtin_convertvector(h, vu) << 16); }

#if defined(__AVX512BF16__) && VX_LANES == 16
VX_INLINE vh s_round(vf v) { return (vh)_mm512_cvtneps_pbh((__m512)v); }
#else
VX_INLINE vh s_round(vf v) {
    const vu bits = (vu)v, rounded = bits + 0x7fff + (bits >> 16 & 1), quiet = bits | 0x400000;
    const vu nan = (vu)(v != v);
    return __builtin_convertvector(((nan & quiet) | (~nan & rounded)) >> 16, vh);
}
#endif

VX_INLINE vf s_load(const stored *p) {
    vh h;
    memcpy(&h, p, sizeof h);
    return s_widen(h);
}

VX_INLINE void s_store(stored *p, vf v) {
    const vh h = s_round(v);
    memcpy(p, &h, sizeof h);
}

/* The first n (< VX_LANES) numbers; zeros behind them. */
VX_INLINE vf s_load_part(const stored *p, size_t n) {
    vh h = {0};
    memcpy(&h, p, n * sizeof *p);
    return s_widen(h);
}

VX_INLINE void s_store_part(stored *p, vf v, size_t n) {
    const vh h = s_round(v);
    memcpy(p, &h, n * sizeof *p);
}

VX_INLINE float s_value(stored s) {
    const uint32_t bits = (uint32_t)s << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Numbers that one step of a matrix product takes along its depth: a pair, in the 32 bits of a
 * lane. */
enum { VX_STEP = 2 };
typedef vi vw;

VX_INLINE vw w_load(const void *w) {
    vw v;
    memcpy(&v, w, sizeof v);
    return v;
}

VX_INLINE vw x_splat(const stored *x) {
    int32_t pair;
    memcpy(&pair, x, sizeof pair);
    return pair - (vw){0};
}

/* The last number of an odd depth, beside a zero. */
VX_INLINE vw x_splat_last(const stored *x) { return (int32_t)*x - (vw){0}; }

#if defined(__AVX512BF16__) && VX_LANES == 16
VX_INLINE vf v_dot(vf sum, vw x, vw w) {
    return (vf)_mm512_dpbf16_ps((__m512)sum, (__m512bh)x, (__m512bh)w);
}
#else
VX_INLINE vf v_dot(vf sum, vw x, vw w) {
    const vi high = (vi){0} + (int32_t)0xffff0000;
    sum += (vf)(x & high) * (vf)(w & high);
    return sum + (vf)(x << 16) * (vf)(w << 16);
}
#endif

#else

#define VX_STORED VX_F32
typedef float stored;

VX_INLINE vf s_load(const stored *p) { return v_load(p); }
VX_INLINE void s_store(stored *p, vf v) { v_store(p, v); }
VX_INLINE vf s_load_part(const stored *p, size_t n) { return v_load_part(p, n); }
VX_INLINE void s_store_part(stored *p, vf v, size_t n) { v_store_part(p, v, n); }
VX_INLINE float s_value(stored s) { return s; }

enum { VX_STEP = 1 };
typedef vf vw;

VX_INLINE vw w_load(const void *w) { return v_load(w); }
VX_INLINE vw x_splat(const stored *x) { return v_splat(*x); }
VX_INLINE vw x_splat_last(const stored *x) { return v_splat(*x); } /* never needed */
VX_INLINE vf v_dot(vf sum, vw x, vw w) { return sum + x * w; }

#endif

#endif
