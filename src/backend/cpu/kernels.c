/* Which kernels this processor runs, and the packed form of their matrices. */
#include "backend/cpu/kernels.h"

#include "base/size.h"

extern const vx_kernels vx_kernels_baseline, vx_kernels_avx2, vx_kernels_avx512;

#ifdef VX_X86_KERNELS
static bool has_avx2(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

static bool has_avx512(void) {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#endif

const vx_kernels *vx_kernels_for(vx_isa isa) {
#ifdef VX_X86_KERNELS
    if ((isa == VX_ISA_AVX512 || isa == VX_ISA_BEST) && has_avx512()) return &vx_kernels_avx512;
    if ((isa == VX_ISA_AVX2 || isa == VX_ISA_BEST) && has_avx2()) return &vx_kernels_avx2;
#endif
    return isa == VX_ISA_BASELINE || isa == VX_ISA_BEST ? &vx_kernels_baseline : NULL;
}

bool vx_gemm_packed(const vx_kernels *k, size_t columns, size_t depth, size_t taps,
                    size_t *floats) {
    size_t padded;
    return vx_align_size(columns, k->gemm_lanes, &padded) && vx_mul_size(padded, depth, floats) &&
           vx_mul_size(*floats, taps, floats);
}

void vx_pack_gemm(const vx_kernels *k, const float *w, size_t columns, size_t depth, size_t taps,
                  size_t column_step, size_t depth_step, size_t tap_step, float *out) {
    for (size_t first = 0; first < columns; first += k->gemm_width) {
        const size_t left = columns - first;
        const size_t width = left > k->gemm_lanes ? k->gemm_width : k->gemm_lanes;
        for (size_t tap = 0; tap < taps; tap++)
            for (size_t d = 0; d < depth; d++)
                for (size_t i = 0; i < width; i++)
                    *out++ = i < left
                                 ? w[tap * tap_step + d * depth_step + (first + i) * column_step]
                                 : 0.0f;
    }
}
