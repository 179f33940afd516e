/* What the passes of the selective scan share: their arguments. See scan.cu. */
#ifndef VX_CUDA_SCAN_PARTS_CUH
#define VX_CUDA_SCAN_PARTS_CUH

#include "cuda/device.cuh"
#include "cuda/walk.cuh"

namespace vx_cuda {

struct item_args {
    const void *u, *delta, *dt, *z, *b, *c;
    void *y;
    size_t u_row, delta_row, dt_row, z_row, b_row, c_row, y_row;
    const float *a, *skip, *delta_bias, *dt_w;
    const float *rates, *weights; /* of the sums of exponentials, or NULL: see scan_ends.cuh */
    walk_args walk;
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
    uint32_t dt_bytes;       /* of one copy of dt */
    uint32_t rank;           /* R, or 0: delta is given */
    uint32_t dt_width;       /* R, rounded up to quads: a row of dt in scan_pass's shared memory */
    uint32_t whole;          /* every row of every warp is full and copied in the largest pieces */
    uint32_t rates;          /* of a fit, or 0: the exact first pass */
    uint32_t octets;         /* of channels in a block of scan_ends, 2^octet_shift */
    uint32_t octet_shift;
    uint32_t shares;       /* warps that share an octet there */
    uint32_t octet_blocks; /* blocks side by side in D there */
};

/* With a rank, a token that does not exist has a delta like any other: its u is 0, and tokens are
 * missing in the last chunk only, whose end state and sum of deltas nobody reads. */

constexpr float LOG2_E = 1.4426950408889634f;

/* What stands for a token or a channel that does not exist: it leaves every state as it is. */
constexpr float NO_DELTA = -60000.0f; /* softplus gives 0 */
template <typename T> __device__ inline void fill_row(T *row, uint32_t from, uint32_t to, float v) {
#pragma unroll 1
    for (uint32_t i = from; i < to; i++) from_float(v, row + i);
}

} // namespace vx_cuda

#endif
