/* What both kernels of mamba_in.cu share. A row group of warps takes 32 tokens of the order, of
 * which the first three belong to the tile before and are only looked back at, through everything;
 * nothing but x and the outputs touches memory.
 *
 * A lane holds four tokens in sequence (mamba_rows.cuh), so that three of four values that the
 * convolution looks back at are its own, and the others its neighbour's. A token before the first
 * one has v = 0, hence p = 0: the convolution's padding.
 */
#ifndef VX_CUDA_MAMBA_IN_PARTS_CUH
#define VX_CUDA_MAMBA_IN_PARTS_CUH

#include "cuda/mamba_in.h"
#include "cuda/mamba_rows.cuh"
#include "cuda/walk.cuh"

namespace vx_cuda {
namespace {

constexpr uint32_t BEFORE = 3;         /* tokens that the convolution looks back */
constexpr uint32_t TOKENS = 32;        /* of a row group, those included */
constexpr uint32_t DT_INPUTS = 32;     /* of dt_proj, as packed */
constexpr uint32_t NONE = 0xffffffffu; /* the voxel of a token that does not exist */

/* Which tiles a warp of mamba_in_few takes: of one plane of the slowest axis, and warps of one
 * place of all planes at about the same time, so that neighbours along x, of which a piece of
 * memory holds several, are written together. One plane: all tiles in their order. */
struct tile_order {
    divider by_planes;
    uint32_t apart; /* tiles of a plane */
    uint32_t step;  /* warps of a plane, and from a warp's tile to its next; others have none */
};

struct in_args {
    vx_mamba_in_item item[VX_SCAN_MAX_ITEMS];
    walk_args walk[VX_SCAN_MAX_ITEMS];
    tile_order order[VX_SCAN_MAX_ITEMS];
    uint32_t length, features, channels, columns, dt_columns;
    uint32_t blocks_out;          /* of 32 columns of x_proj; with delta the last is dt */
    uint32_t row_groups, sharers; /* of a block; warps of a row group */
    uint32_t tiles;               /* of 29 tokens */
    uint32_t weight_bytes;
    bool delta;
    float inverse, eps; /* 1 / C */
};

/* Where a warp is. */
struct in_place {
    uint32_t lane, sharer;
    /* The row group's, in shared memory: [block][4][lane], operands of products; in mamba_in_few
     * nothing. */
    uint4 *v, *u;
    uint32_t voxel[4]; /* of the lane's rows 4 (lane / 4) + r */
    __device__ uint32_t row(int r) const { return 4 * (lane / 4) + (uint32_t)r; }
};

__device__ inline uint32_t voxel_at(const in_args &args, const walk_args &walk, int32_t token) {
    return token >= 0 && token < (int32_t)args.length ? voxel_of(walk, args.length, (uint32_t)token)
                                                      : NONE;
}

/* u from p, in its place, of this lane's 8 channels of a block. taps and bias: the block's. */
__device__ inline void convolve(const float4 *taps, const float *bias_of, uint32_t lane,
                                float (&p)[4][8]) {
    float biases[8];
    load8(bias_of + 8 * (lane % 4), biases);
#pragma unroll
    for (int i = 0; i < 8; i++) {
        const float4 k = taps[4 * i + (int)(lane % 4)]; /* as packed: 64 bytes a warp */
        const float bias = biases[i];
        /* The three tokens before the lane's: the first lanes get their own, and no use is made of
         * what follows from that. */
        const float a = __shfl_up_sync(ALL_LANES, p[1][i], 4);
        const float b = __shfl_up_sync(ALL_LANES, p[2][i], 4);
        const float c = __shfl_up_sync(ALL_LANES, p[3][i], 4);
        const float d = p[0][i], e = p[1][i], f = p[2][i], g = p[3][i];
        p[0][i] = silu(fmaf(k.x, a, fmaf(k.y, b, fmaf(k.z, c, fmaf(k.w, d, bias)))));
        p[1][i] = silu(fmaf(k.x, b, fmaf(k.y, c, fmaf(k.z, d, fmaf(k.w, e, bias)))));
        p[2][i] = silu(fmaf(k.x, c, fmaf(k.y, d, fmaf(k.z, e, fmaf(k.w, f, bias)))));
        p[3][i] = silu(fmaf(k.x, d, fmaf(k.y, e, fmaf(k.z, f, fmaf(k.w, g, bias)))));
    }
}

/* The lane's 8 numbers from `column` of each of its tokens to memory. */
template <typename T>
__device__ inline void store(const in_place &at, const uint4 (&v)[4], void *tensor, size_t row,
                             uint32_t column) {
#pragma unroll
    for (int r = 0; r < 4; r++)
        if (at.voxel[r] != NONE)
            *(uint4 *)((T *)tensor + (size_t)at.voxel[r] * row + column) = v[r];
}

/* The lane's 8 numbers from `column` of x_proj's outputs: of the projections or of dt. */
template <typename T>
__device__ inline void store_projections(const in_args &args, const vx_mamba_in_item &it,
                                         const in_place &at, const uint4 (&v)[4], uint32_t column) {
    if (column < args.columns) {
        store<T>(at, v, it.projections, it.projections_row, column);
        return;
    }
    column -= args.columns;
    if (column >= args.dt_columns) return;
#pragma unroll
    for (int r = 0; r < 4; r++) {
        const uint32_t pairs[4] = {v[r].x, v[r].y, v[r].z, v[r].w};
        if (at.voxel[r] == NONE) continue;
        uint32_t *to = (uint32_t *)((T *)it.dt + (size_t)at.voxel[r] * it.dt_row + column);
#pragma unroll
        for (uint32_t i = 0; i < 4; i++)
            if (column + 2 * i < args.dt_columns) to[i] = pairs[i];
    }
}

template <typename T> __device__ inline void narrow(const float (&from)[4][8], uint4 (&to)[4]) {
#pragma unroll
    for (int r = 0; r < 4; r++) to[r] = narrow8<T>(from[r]);
}

/* From now on voxel says where results go: not those of the tokens looked back at. */
__device__ inline void drop_before(in_place &at) {
#pragma unroll
    for (int r = 0; r < 4; r++)
        if (at.row(r) < BEFORE) at.voxel[r] = NONE;
}

__device__ inline int32_t first_token(uint32_t tile) {
    return (int32_t)(tile * (TOKENS - BEFORE)) - (int32_t)BEFORE;
}

/* The voxels of the lane's rows; own: of row `lane`. */
__device__ inline void spread_voxels(in_place &at, uint32_t own) {
#pragma unroll
    for (int r = 0; r < 4; r++) at.voxel[r] = __shfl_sync(ALL_LANES, own, (int)at.row(r));
}

} // namespace
} // namespace vx_cuda

#endif
