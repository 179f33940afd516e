/* Weights as stored (float32, IEEE half, bfloat16; any byte alignment) to float32. */
#include "backend/weights.h"

#include <stdint.h>
#include <string.h>

static float from_bits(uint32_t bits) {
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* IEEE 754 binary16: 1 sign, 5 exponent (bias 15), 10 fraction bits. */
static float from_half(uint16_t h) {
    const uint32_t sign = (uint32_t)(h & 0x8000u) << 16, exponent = h >> 10 & 31u;
    const uint32_t fraction = h & 0x3ffu;
    if (exponent == 31) return from_bits(sign | 0x7f800000u | fraction << 13);
    if (exponent) return from_bits(sign | (exponent + 112) << 23 | fraction << 13);
    const float tiny = (float)fraction * 0x1p-24f; /* zero and subnormals */
    return sign ? -tiny : tiny;
}

void vx_read_weight(const vx_weight *w, float *out) {
    const unsigned char *p = w->data;
    if (w->dtype == VX_F32) {
        memcpy(out, p, w->elements * sizeof *out);
        return;
    }
    for (size_t i = 0; i < w->elements; i++) {
        uint16_t bits;
        memcpy(&bits, p + 2 * i, sizeof bits);
        out[i] = w->dtype == VX_F16 ? from_half(bits) : from_bits((uint32_t)bits << 16);
    }
}
