/* What the passes of the selective scan share: their arguments and the scan order. See scan.cu. */
#ifndef VX_CUDA_SCAN_PARTS_CUH
#define VX_CUDA_SCAN_PARTS_CUH

#include "cuda/device.cuh"
#include "cuda/scan.h"

namespace vx_cuda {

/* n / d for n < 2^31 by multiplication (Granlund and Montgomery 1994). */
struct divider {
    uint32_t divisor, multiplier, shift;
};

struct item_args {
    const void *u, *delta, *z, *b, *c;
    void *y;
    size_t u_row, delta_row, z_row, b_row, c_row, y_row;
    const float *a, *skip, *delta_bias;
    const float *rates, *weights; /* of the sums of exponentials, or NULL: see scan_ends.cuh */
    const int32_t *table;
    divider by_last, by_middle;
    uint32_t step[3];
    uint32_t reverse;
};

struct scan_args {
    item_args item[VX_SCAN_MAX_ITEMS];
    float *state;     /* [item][chunk][D][N] */
    float *delta_sum; /* [item][chunk][D] */
    uint32_t length, channels, states;
    uint32_t chunk, chunks;
    uint32_t lane_states;    /* 16 or 32: states of a channel in one lane */
    uint32_t split;          /* lanes that share a channel */
    uint32_t group_warps;    /* warps of a block on the same chunk, side by side in D */
    uint32_t groups;         /* chunks of a block */
    uint32_t channel_blocks; /* blocks side by side in D */
    uint32_t widest_row;     /* bytes of the widest copy that rows of D allow: 16, 8, 4 or 0 */
    uint32_t row_bytes;      /* of one copy of u, delta, z; 0: one by one */
    uint32_t bc_bytes;       /* of one copy of B, C */
    uint32_t whole;          /* every row of every warp is full and copied in the largest pieces */
    uint32_t rates;          /* of a fit, or 0: the exact first pass */
    uint32_t octets;         /* of channels in a block of scan_ends, 2^octet_shift */
    uint32_t octet_shift;
    uint32_t shares;       /* warps that share an octet there */
    uint32_t octet_blocks; /* blocks side by side in D there */
};

constexpr float LOG2_E = 1.4426950408889634f;

/* What stands for a token or a channel that does not exist: it leaves every state as it is. */
constexpr float NO_DELTA = -60000.0f; /* softplus gives 0 */
template <typename T> __device__ inline void fill_row(T *row, uint32_t from, uint32_t to, float v) {
#pragma unroll 1
    for (uint32_t i = from; i < to; i++) from_float(v, row + i);
}

__device__ inline uint32_t divide(uint32_t n, divider d) {
    return (uint32_t)(((uint64_t)__umulhi(n, d.multiplier) + n) >> d.shift);
}

/* The voxel that the order visits as token t. */
__device__ inline uint32_t voxel_of(const item_args &it, uint32_t length, uint32_t t) {
    if (it.table) return (uint32_t)__ldg(it.table + (it.reverse ? length - 1 - t : t));
    if (it.reverse) t = length - 1 - t;
    uint32_t rows = divide(t, it.by_last), i2 = t - rows * it.by_last.divisor;
    uint32_t i0 = divide(rows, it.by_middle), i1 = rows - i0 * it.by_middle.divisor;
    return i0 * it.step[0] + i1 * it.step[1] + i2 * it.step[2];
}

} // namespace vx_cuda

#endif
