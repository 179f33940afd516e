/* mamba_in for C of 32 and 64 and D = 2 C. A warp is a row group and keeps v and u in registers;
 * its block stays, has the weights in shared memory and takes one tile after the other, the next
 * one's x on its way. Reads from shared memory and the L1 cache would limit it
 * (docs/performance.md): hence none but weights, and those in pieces that four lanes share without
 * conflicts.
 */
#ifndef VX_CUDA_MAMBA_IN_FEW_CUH
#define VX_CUDA_MAMBA_IN_FEW_CUH

#include "cuda/mamba_in_parts.cuh"

namespace vx_cuda {
namespace {

/* Threads of a block that stays, and such blocks of a multiprocessor, by C / 32. */
template <int BLOCKS> constexpr uint32_t FEW_THREADS = BLOCKS == 1 ? 256 : 384;
template <int BLOCKS> constexpr uint32_t FEW_RESIDENT = BLOCKS == 1 ? 2 : 1;

/* Beside the shared memory that the launch says. */
constexpr uint32_t FEW_STATIC_BYTES = 64;

/* The tile that a warp takes next: its x on the way into the warp's place in shared memory, in
 * which each lane has the pieces of its own rows. */
struct next_tile {
    uint4 *x;     /* [BLOCKS][4][lane] */
    uint32_t own; /* voxel of row `lane` */
};

/* end: no tile of the warp, nor what is behind it. */
template <typename T, int BLOCKS>
__device__ inline void fetch(const in_args &args, const vx_mamba_in_item &it, uint32_t lane,
                             uint32_t tile, uint32_t end, next_tile &next) {
    const int32_t token = first_token(tile) + (int32_t)lane;
    in_place at;
    at.lane = lane;
    next.own = tile < end ? voxel_at(args, args.walk[blockIdx.y], token) : NONE;
    spread_voxels(at, next.own);
#pragma unroll
    for (int r = 0; r < 4; r++) {
        const uint4 *x = (const uint4 *)((const T *)it.x + (size_t)at.voxel[r] * it.x_row);
#pragma unroll
        for (int k = 0; k < BLOCKS; k++) {
            uint4 *to = next.x + (4 * k + r) * 32 + lane;
            if (at.voxel[r] != NONE)
                copy_async<16>(to, x + 4 * k + lane % 4);
            else
                *to = make_uint4(0, 0, 0, 0);
        }
    }
    copy_commit();
}

/* What a block of mamba_in_few has in shared memory. */
struct few_shared {
    const uint4 *weights;       /* as packed */
    const float4 *taps;         /* [D] */
    const float *bias;          /* [D] */
    const float *before, *norm; /* gamma and beta, [2][C] */
    __device__ static char *copy(char *to, const void *from, uint32_t bytes) {
        for (uint32_t i = 16 * threadIdx.x; from && i < bytes; i += 16 * blockDim.x)
            copy_async<16>(to + i, (const char *)from + i);
        return to + bytes;
    }
    /* Copies it all, by all threads; returns where it ends. */
    __device__ char *fill(const in_args &args, const vx_mamba_in_item &it) {
        const uint32_t C4 = 4 * args.features, D4 = 4 * args.channels;
        char *at = shared_memory();
        weights = (const uint4 *)at, at = copy(at, it.weights, args.weight_bytes);
        taps = (const float4 *)at, at = copy(at, it.conv, 4 * D4);
        bias = (const float *)at, at = copy(at, it.conv_bias, D4);
        before = (const float *)at, at = copy(copy(at, it.before_gamma, C4), it.before_beta, C4);
        norm = (const float *)at, at = copy(copy(at, it.gamma, C4), it.beta, C4);
        copy_commit();
        return at;
    }
    __host__ __device__ static uint32_t bytes(const in_args &args) {
        return args.weight_bytes + 20 * args.channels + 16 * args.features;
    }
};

/* v as operands from the tile's x. */
template <typename T, int BLOCKS>
__device__ inline void normalise_alone(const in_args &args, const in_place &at, const uint4 *x,
                                       bool before, const few_shared &s, uint4 (&to)[BLOCKS][4]) {
    const uint32_t feature = 8 * (at.lane % 4);
    float v[BLOCKS][4][8];
#pragma unroll
    for (int k = 0; k < BLOCKS; k++)
#pragma unroll
        for (int r = 0; r < 4; r++) widen8<T>(x[(4 * k + r) * 32 + at.lane], v[k][r]);
    if (before)
        normalise_rows(v, s.before + feature, s.before + 32 * BLOCKS + feature, args.inverse,
                       args.eps, sum_lanes);
    normalise_rows(v, s.norm + feature, s.norm + 32 * BLOCKS + feature, args.inverse, args.eps,
                   sum_lanes);
#pragma unroll
    for (int k = 0; k < BLOCKS; k++) {
        uint4 rows[4];
#pragma unroll
        for (int r = 0; r < 4; r++)
            rows[r] = at.voxel[r] != NONE ? narrow8<T>(v[k][r]) : make_uint4(0, 0, 0, 0);
        operands(rows, to[k]);
    }
}

/* One block of outputs from operands in registers and weights in shared memory, narrowed; change()
 * may alter the sums before. */
template <typename T, int INPUTS, typename CHANGE>
__device__ inline void outputs(const uint4 (&in)[INPUTS][4], const uint4 *weights, uint4 (&to)[4],
                               const CHANGE &change) {
    float sum[4][8];
#pragma unroll
    for (int r = 0; r < 4; r++)
#pragma unroll
        for (int i = 0; i < 8; i++) sum[r][i] = 0;
#pragma unroll
    for (int k = 0; k < INPUTS; k++) multiply_block<T, true>(in[k], weights + 128 * k, sum);
    change(sum);
    narrow<T>(sum, to);
}
template <typename T, int INPUTS>
__device__ inline void outputs(const uint4 (&in)[INPUTS][4], const uint4 *weights, uint4 (&to)[4]) {
    outputs<T, INPUTS>(in, weights, to, [](float(&)[4][8]) {});
}

/* All outputs of a tile from v. weights of a block of outputs: 128 pieces for each 32 inputs. */
template <typename T, int BLOCKS>
__device__ inline void outputs_alone(const in_args &args, const vx_mamba_in_item &it,
                                     const in_place &at, const few_shared &s,
                                     const uint4 (&v)[BLOCKS][4]) {
    constexpr int U = 2 * BLOCKS; /* blocks of channels */
    const uint32_t q8 = 8 * (at.lane % 4), last = args.blocks_out - 1;
    const uint4 *weights = s.weights + at.lane;
    uint4 u[U][4], narrowed[4], dt[1][4];
#pragma unroll 1
    for (uint32_t k = 0; k < U; k++) {
        outputs<T, BLOCKS>(v, weights + (U + k) * BLOCKS * 128, narrowed);
        store<T>(at, narrowed, it.z, it.z_row, 32 * k + q8);
    }
#pragma unroll
    for (int k = 0; k < U; k++) {
        outputs<T, BLOCKS>(v, weights + k * BLOCKS * 128, narrowed, [&](float(&p)[4][8]) {
            convolve(s.taps + 32 * k, s.bias + 32 * k, at.lane, p);
        });
        store<T>(at, narrowed, it.u, it.u_row, 32 * (uint32_t)k + q8);
        operands(narrowed, u[k]);
    }
    weights += 2 * U * BLOCKS * 128;
#pragma unroll 1
    for (uint32_t k = 0; k <= last; k++, weights += U * 128) {
        outputs<T, U>(u, weights, narrowed);
        if (args.delta && k == last)
            operands(narrowed, dt[0]);
        else
            store_projections<T>(args, it, at, narrowed, 32 * k + q8);
    }
    if (!args.delta) return;
#pragma unroll 1
    for (uint32_t k = 0; k < U; k++) {
        outputs<T, 1>(dt, weights + k * 128, narrowed);
        store<T>(at, narrowed, it.delta, it.delta_row, 32 * k + q8);
    }
}

/* Grid: blocks that stay, items. BLOCKS: C / 32. */
template <typename T, int BLOCKS>
__global__ void __launch_bounds__(FEW_THREADS<BLOCKS>, FEW_RESIDENT<BLOCKS>)
    mamba_in_few(const __grid_constant__ in_args args) {
    const vx_mamba_in_item &it = args.item[blockIdx.y];
    const tile_order &order = args.order[blockIdx.y];
    const uint32_t warp = threadIdx.x / 32, number = blockIdx.x * args.row_groups + warp;
    const uint32_t place = divide(number, order.by_planes);
    const uint32_t first = (number - place * order.by_planes.divisor) * order.apart;
    __shared__ uint32_t ends[FEW_THREADS<BLOCKS> / 32]; /* registers are short */
    const uint32_t &end = ends[warp];
    if (threadIdx.x % 32 == 0)
        ends[warp] = place < order.step ? min(first + order.apart, args.tiles) : 0;
    __syncwarp();
    uint32_t tile = first + place;
    few_shared s;
    next_tile next;
    in_place at;
    at.lane = threadIdx.x % 32;
    next.x = (uint4 *)s.fill(args, it) + warp * BLOCKS * 128;
    fetch<T, BLOCKS>(args, it, at.lane, tile, end, next);
    copy_wait_all();
    __syncthreads();
    while (tile < end) {
        uint4 v[BLOCKS][4];
        spread_voxels(at, next.own);
        copy_wait_all(); /* of what the lane itself will read */
        normalise_alone<T, BLOCKS>(args, at, next.x, it.before_gamma != NULL, s, v);
        drop_before(at);
        tile += order.step;
        fetch<T, BLOCKS>(args, it, at.lane, tile, end, next);
        outputs_alone<T, BLOCKS>(args, it, at, s, v);
    }
}

} // namespace
} // namespace vx_cuda

#endif
