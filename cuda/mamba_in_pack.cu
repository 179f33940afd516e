/* Packs the weights of mamba_in.h on the host. */
#include "cuda/mamba_in.h"
#include "cuda/mamba_pack.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <string.h>

#include <vector>

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

constexpr size_t DT_INPUTS = 32; /* of dt_proj: the rank, filled up to a block */

/* Columns of x_proj, with those that fill its last block. */
size_t padded_columns(const vx_mamba_in_shape *s) {
    return ((size_t)vx_mamba_in_columns(s) + s->rank + 31) / 32 * 32;
}

/* Row of x_proj ([dt | B | C]) that gives column j ([B | C | zeros | dt | zeros]); R + 2 N: none.
 */
uint32_t source_row(const vx_mamba_in_shape *s, uint32_t j) {
    const uint32_t columns = vx_mamba_in_columns(s), none = s->rank + 2 * s->states;
    if (j < columns) return j < 2 * s->states ? s->rank + j : none;
    return j - columns < s->rank ? j - columns : none;
}

} // namespace
} // namespace vx_cuda

using namespace vx_cuda;

extern "C" uint32_t vx_mamba_in_columns(const vx_mamba_in_shape *shape) {
    return (2 * shape->states + 7) / 8 * 8;
}

extern "C" uint32_t vx_mamba_in_dt_columns(const vx_mamba_in_shape *shape) {
    return shape->delta ? 0 : (shape->rank + 1) / 2 * 2;
}

extern "C" size_t vx_mamba_in_packed_bytes(const vx_mamba_in_shape *shape) {
    return ((size_t)2 * shape->channels * shape->features +
            padded_columns(shape) * shape->channels +
            (shape->delta ? DT_INPUTS * shape->channels : 0)) *
           sizeof(uint16_t);
}

/* Of each block of 32 channels, channel 8 q + i comes at 4 i + q: four lanes read 64 bytes. */
extern "C" void vx_mamba_in_pack_conv(const vx_mamba_in_shape *shape, const float *conv,
                                      float *packed) {
    for (size_t d = 0; d < shape->channels; d++) {
        const size_t i = d % 8, q = d / 8 % 4;
        memcpy(packed + 4 * (d / 32 * 32 + 4 * i + q), conv + 4 * d, 4 * sizeof(float));
    }
}

extern "C" void vx_mamba_in_pack(const vx_mamba_in_shape *shape, const float *in_proj,
                                 const float *x_proj, const float *dt_proj, void *packed) {
    const size_t features = shape->features, channels = shape->channels;
    const size_t columns = padded_columns(shape), rows = shape->rank + 2 * (size_t)shape->states;
    std::vector<uint16_t> first(2 * channels * features), second(columns * channels, 0);
    for (size_t i = 0; i < first.size(); i++) first[i] = bits(in_proj[i], shape->dtype);
    for (size_t j = 0; j < columns; j++) {
        const size_t row = source_row(shape, (uint32_t)j);
        for (size_t d = 0; d < channels && row < rows; d++)
            second[j * channels + d] = bits(x_proj[row * channels + d], shape->dtype);
    }
    vx_cuda_pack_blocks(first.data(), 2 * channels, features, packed);
    uint16_t *to = (uint16_t *)packed + first.size();
    vx_cuda_pack_blocks(second.data(), columns, channels, to);
    if (!shape->delta) return;
    std::vector<uint16_t> third(channels * DT_INPUTS, 0);
    for (size_t d = 0; d < channels; d++)
        for (size_t r = 0; r < shape->rank; r++)
            third[d * DT_INPUTS + r] = bits(dt_proj[d * shape->rank + r], shape->dtype);
    vx_cuda_pack_blocks(third.data(), channels, DT_INPUTS, to + second.size());
}
