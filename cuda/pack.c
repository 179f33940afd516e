/* Weights on their way to the device: read from the model's file, rounded to the storage type. */
#include <stdint.h>
#include <string.h>

#include "backend/weights.h"
#include "base/memory.h"
#include "base/size.h"
#include "cuda/step.h"

bool vx_cuda_reserve(size_t *end, size_t rows, size_t columns, vx_dtype dtype, size_t *at) {
    size_t bytes;
    *at = *end;
    return vx_mul_size(rows, columns, &bytes) && vx_mul_size(bytes, vx_dtype_size(dtype), &bytes) &&
           vx_add_size(*end, bytes, end) && vx_align_size(*end, VX_CUDA_ALIGN, end);
}

float *vx_cuda_read_weight(const vx_weight *w) {
    float *out = vx_alloc_zero(w->elements ? w->elements : 1, sizeof *out);
    if (out) vx_read_weight(w, out);
    return out;
}

static uint16_t to_bf16(uint32_t bits) {
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(bits >> 16 | 0x40u); /* NaN */
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

/* IEEE 754 binary16 with subnormals; beyond the largest number: infinity. */
static uint16_t to_half(uint32_t bits) {
    const uint32_t sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return (uint16_t)(sign | 0x7e00u);
    if (magnitude >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u); /* 65520 rounds up */
    if (magnitude >= 0x38800000u) {                                  /* 2^-14: a normal half */
        const uint32_t rounded = magnitude + 0xfffu + (magnitude >> 13 & 1u);
        return (uint16_t)(sign | (rounded - 0x38000000u) >> 13);
    }
    if (magnitude < 0x33000000u) return (uint16_t)sign; /* below 2^-25 */
    /* Subnormal: the fraction with its leading one, in units of 2^-24. */
    const uint32_t shift = 126u - (magnitude >> 23), full = (magnitude & 0x7fffffu) | 0x800000u;
    const uint32_t whole = full >> shift, rest = full & ((1u << shift) - 1u);
    const uint32_t half = 1u << (shift - 1u);
    return (uint16_t)(sign | (whole + (rest > half || (rest == half && (whole & 1u)))));
}

void vx_cuda_narrow_host(const float *from, size_t n, vx_dtype dtype, void *to) {
    if (dtype == VX_F32) {
        memcpy(to, from, n * sizeof *from);
        return;
    }
    uint16_t *out = to;
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, from + i, sizeof bits);
        out[i] = dtype == VX_F16 ? to_half(bits) : to_bf16(bits);
    }
}
