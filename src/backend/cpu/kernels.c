/* Which kernels this processor runs, and the packed form of their matrices. */
#include "backend/cpu/kernels.h"

#include <stdint.h>
#include <string.h>

#include "base/size.h"

extern const vx_kernels vx_kernels_baseline, vx_kernels_avx2, vx_kernels_avx512;
extern const vx_kernels vx_kernels_avx512_bf16;

#ifdef VX_X86_KERNELS
static bool has_avx2(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

static bool has_avx512(void) {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

static bool has_avx512_bf16(void) { return has_avx512() && __builtin_cpu_supports("avx512bf16"); }
#endif

static const vx_kernels *float_kernels(vx_isa isa) {
#ifdef VX_X86_KERNELS
    if ((isa == VX_ISA_AVX512 || isa == VX_ISA_BEST) && has_avx512()) return &vx_kernels_avx512;
    if ((isa == VX_ISA_AVX2 || isa == VX_ISA_BEST) && has_avx2()) return &vx_kernels_avx2;
#endif
    return isa == VX_ISA_BASELINE || isa == VX_ISA_BEST ? &vx_kernels_baseline : NULL;
}

static const vx_kernels *bf16_kernels(vx_isa isa) {
#ifdef VX_X86_KERNELS
    if ((isa == VX_ISA_AVX512 || isa == VX_ISA_BEST) && has_avx512_bf16())
        return &vx_kernels_avx512_bf16;
#endif
    (void)isa;
    return NULL;
}

const vx_kernels *vx_kernels_for(vx_isa isa, vx_dtype stored) {
    switch (stored) {
    case VX_F32:
        return float_kernels(isa);
    case VX_BF16:
        return bf16_kernels(isa);
    case VX_F16:
        break;
    }
    return NULL;
}

/* Steps of a matrix product along its depth. */
static size_t steps_of(const vx_kernels *k, size_t depth) {
    return k->stored == VX_BF16 ? depth / 2 + depth % 2 : depth;
}

bool vx_gemm_packed(const vx_kernels *k, size_t columns, size_t depth, size_t taps,
                    size_t *floats) {
    size_t padded;
    return vx_align_size(columns, k->gemm_lanes, &padded) &&
           vx_mul_size(padded, steps_of(k, depth), floats) && vx_mul_size(*floats, taps, floats);
}

/* To nearest, ties to even, as the kernels' narrow. */
static uint32_t to_bf16(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if (value != value) return bits >> 16 | 0x40; /* a NaN stays one */
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

/* One lane's 32 bits: a float, or a pair of bfloat16 whose second is `next`. */
static void pack_lane(const vx_kernels *k, float value, float next, unsigned char *out) {
    const uint32_t pair = to_bf16(value) | to_bf16(next) << 16;
    if (k->stored == VX_BF16)
        memcpy(out, &pair, sizeof pair);
    else
        memcpy(out, &value, sizeof value);
}

void vx_pack_gemm(const vx_kernels *k, const float *w, size_t columns, size_t depth, size_t taps,
                  size_t column_step, size_t depth_step, size_t tap_step, void *out) {
    const size_t step = k->stored == VX_BF16 ? 2 : 1;
    unsigned char *lane = out;
    for (size_t first = 0; first < columns; first += k->gemm_width) {
        const size_t left = columns - first;
        const size_t width = left > k->gemm_lanes ? k->gemm_width : k->gemm_lanes;
        for (size_t tap = 0; tap < taps; tap++)
            for (size_t d = 0; d < depth; d += step) {
                const float *row = w + tap * tap_step + d * depth_step + first * column_step;
                const size_t next = d + 1 < depth ? depth_step : 0;
                for (size_t i = 0; i < width; i++, lane += sizeof(float)) {
                    const float *at = i < left ? row + i * column_step : NULL;
                    pack_lane(k, at ? *at : 0.0f, at && next ? at[next] : 0.0f, lane);
                }
            }
    }
}
