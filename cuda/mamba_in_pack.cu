/* Packs the weights of mamba_in.h on the host: see mamba_in_layout.h. */
#include "cuda/mamba_in_layout.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <string.h>

namespace vx_cuda {
namespace {

uint16_t bits(float v, vx_dtype type) {
    uint16_t r;
    if (type == VX_F16) {
        const __half h = __float2half_rn(v);
        memcpy(&r, &h, 2);
    } else {
        const __nv_bfloat16 h = __float2bfloat16_rn(v);
        memcpy(&r, &h, 2);
    }
    return r;
}

/* A matrix [outputs][inputs] of which some rows and columns may not exist. */
template <typename F>
void pack_fragments(uint32_t output_tiles, uint32_t input_tiles, vx_dtype type, uint16_t *to,
                    const F &element) {
    for (uint32_t n = 0; n < output_tiles; n++)
        for (uint32_t k = 0; k < input_tiles; k++)
            for (uint32_t lane = 0; lane < 32; lane++)
                for (uint32_t i = 0; i < 4; i++) {
                    const uint32_t output = 8 * n + lane / 4;
                    const uint32_t input = 16 * k + 2 * (lane % 4) + i % 2 + 8 * (i / 2);
                    *to++ = bits(element(output, input), type);
                }
}

/* Row of x_proj ([dt | B | C]) that gives column j ([B | C | dt | zeros]); R + 2 N: none. */
uint32_t source_row(const vx_mamba_in_shape *s, uint32_t j) {
    if (j < 2 * s->states) return s->rank + j;
    return j - 2 * s->states < s->rank ? j - 2 * s->states : s->rank + 2 * s->states;
}

} // namespace
} // namespace vx_cuda

using namespace vx_cuda;

extern "C" uint32_t vx_mamba_in_columns(const vx_mamba_in_shape *shape) {
    return (2 * shape->states + shape->rank + 7) / 8 * 8;
}

extern "C" size_t vx_mamba_in_packed_bytes(const vx_mamba_in_shape *shape) {
    const in_layout l = make_in_layout(shape);
    return (l.in_proj + l.x_proj) * (shape->exact ? sizeof(float) : sizeof(uint16_t));
}

extern "C" void vx_mamba_in_pack(const vx_mamba_in_shape *shape, const float *in_proj,
                                 const float *x_proj, void *packed) {
    const in_layout l = make_in_layout(shape);
    const uint32_t features = shape->features, channels = shape->channels;
    const uint32_t rows = shape->rank + 2 * shape->states;
    auto first = [&](uint32_t d, uint32_t c) {
        return d < channels && c < features ? in_proj[(size_t)d * features + c] : 0.0f;
    };
    auto second = [&](uint32_t j, uint32_t d) {
        const uint32_t row = source_row(shape, j);
        return row < rows && d < channels ? x_proj[(size_t)row * channels + d] : 0.0f;
    };
    if (shape->exact) {
        float *to = (float *)packed;
        for (uint32_t c = 0; c < features; c++)
            for (uint32_t d = 0; d < channels; d++) *to++ = first(d, c);
        for (uint32_t d = 0; d < channels; d++)
            for (uint32_t j = 0; j < l.columns; j++) *to++ = second(j, d);
        return;
    }
    uint16_t *to = (uint16_t *)packed;
    pack_fragments(l.slabs * (IN_SLAB / 8), l.feature_tiles, shape->dtype, to, first);
    pack_fragments(l.column_tiles, l.channel_tiles, shape->dtype, to + l.in_proj, second);
}
