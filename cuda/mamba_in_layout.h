/* The packed weights of mamba_in.h.
 *
 * Exact: in_proj [C][D], then x_proj [D][columns], fp32: threads side by side read neighbours.
 *
 * For the matrix units: fragments of 8 outputs by 16 inputs, each as the 32 lanes hold it (the b of
 * device.cuh, 8 bytes a lane), all input tiles of one output tile in a row; in_proj with D padded
 * to slabs, then x_proj. Zeros stand for outputs and inputs that do not exist.
 */
#ifndef VX_CUDA_MAMBA_IN_LAYOUT_H
#define VX_CUDA_MAMBA_IN_LAYOUT_H

#include "cuda/mamba_in.h"

namespace vx_cuda {

constexpr uint32_t IN_SLAB = 64; /* channels of D that are between the products at once */
constexpr uint32_t FRAGMENT_ELEMENTS = 128; /* 8 x 16 */

struct in_layout {
    uint32_t slabs;         /* of D */
    uint32_t feature_tiles; /* of 16: inputs of in_proj */
    uint32_t channel_tiles; /* of 16: inputs of x_proj; its outputs are in tiles of 8 */
    uint32_t columns, column_tiles;
    size_t in_proj, x_proj; /* elements */
};

inline in_layout make_in_layout(const vx_mamba_in_shape *s) {
    in_layout l;
    l.slabs = (s->channels + IN_SLAB - 1) / IN_SLAB;
    l.feature_tiles = (s->features + 15) / 16;
    l.channel_tiles = l.slabs * (IN_SLAB / 16);
    l.columns = vx_mamba_in_columns(s);
    l.column_tiles = l.columns / 8;
    if (s->exact) {
        l.in_proj = (size_t)s->features * s->channels;
        l.x_proj = (size_t)s->channels * l.columns;
    } else {
        l.in_proj = (size_t)l.slabs * (IN_SLAB / 8) * l.feature_tiles * FRAGMENT_ELEMENTS;
        l.x_proj = (size_t)l.column_tiles * l.channel_tiles * FRAGMENT_ELEMENTS;
    }
    return l;
}

} // namespace vx_cuda

#endif
