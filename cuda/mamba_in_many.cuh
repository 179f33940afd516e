/* mamba_in for any C and D. The warps of a row group share out z's and u's blocks of 32 channels,
 * then the projections' blocks of 32 columns, then delta's; v and u pass through shared memory in
 * the storage type. A block takes a tile of each of its row groups, which use the same weights at
 * about the same time: from the caches.
 */
#ifndef VX_CUDA_MAMBA_IN_MANY_CUH
#define VX_CUDA_MAMBA_IN_MANY_CUH

#include "cuda/mamba_in_parts.cuh"

namespace vx_cuda {
namespace {

constexpr uint32_t MANY_THREADS = 256;
constexpr int AHEAD = 4; /* steps of 32 inputs whose weights are on their way */

/* Bytes of shared memory of a row group. */
__host__ __device__ inline uint32_t group_bytes(uint32_t features, uint32_t channels) {
    return TOKENS * (features + channels) * 2;
}

__device__ inline float sum_of_four(float v) {
    v += __shfl_xor_sync(ALL_LANES, v, 1);
    return v + __shfl_xor_sync(ALL_LANES, v, 2);
}

/* LayerNorm of a row in shared memory, by four lanes: `row` is the first piece of this one, the
 * next is four further; put(k, piece) takes the result. */
template <typename T, typename PUT>
__device__ inline void normalise_row(const in_args &args, const float *gamma, const float *beta,
                                     const uint4 *row, uint32_t q, const PUT &put) {
    const uint32_t blocks = args.features / 32;
    float v[8], g[8], b[8], sum = 0, squares = 0;
    for (uint32_t k = 0; k < blocks; k++) {
        widen8<T>(row[4 * k], v);
#pragma unroll
        for (int i = 0; i < 8; i++) sum += v[i];
    }
    const float mean = sum_of_four(sum) * args.inverse;
    for (uint32_t k = 0; k < blocks; k++) {
        widen8<T>(row[4 * k], v);
#pragma unroll
        for (int i = 0; i < 8; i++) squares = fmaf(v[i] - mean, v[i] - mean, squares);
    }
    const float scale = rsqrtf(fmaf(sum_of_four(squares), args.inverse, args.eps));
    for (uint32_t k = 0; k < blocks; k++) {
        widen8<T>(row[4 * k], v);
        load8(gamma + 32 * k + 8 * q, g), load8(beta + 32 * k + 8 * q, b);
#pragma unroll
        for (int i = 0; i < 8; i++) v[i] = fmaf((v[i] - mean) * scale, g[i], b[i]);
        put(k, narrow8<T>(v));
    }
}

/* Puts a piece of row r, of block k and lane q of four, where the operands of its lane are. */
__device__ inline void put_operand(uint4 *v, uint32_t r, uint32_t k, uint32_t q, uint4 piece) {
    uint32_t *to = (uint32_t *)(v + (4 * k + 2 * (r % 4 / 2)) * 32 + 4 * (r / 4) + q) + r % 2;
    to[0] = piece.x, to[2] = piece.y;
    to[128] = piece.z, to[130] = piece.w; /* the next step */
}

/* v of the row group's tokens in shared memory; zeros for tokens that do not exist. own: the voxel
 * of row `lane`. The warps of the group share out its rows, eight at a time; four lanes have a row,
 * which first lies in u's place: D is more than C. */
template <typename T>
__device__ inline void normalise_shared(const in_args &args, const vx_mamba_in_item &it,
                                        const in_place &at, uint32_t own) {
    const uint32_t q = at.lane % 4, first = 8 * at.sharer + at.lane / 4, step = 8 * args.sharers;
    const uint32_t blocks = args.features / 32, row_step = args.features / 8 + 1;
    for (uint32_t r = first; r < TOKENS; r += step) { /* as often for all lanes */
        const uint32_t voxel = __shfl_sync(ALL_LANES, own, (int)r);
        uint4 *row = at.u + r * row_step + q;
        const uint4 *x = (const uint4 *)((const T *)it.x + (size_t)voxel * it.x_row) + q;
        for (uint32_t k = 0; k < blocks; k++)
            if (voxel != NONE)
                copy_async<16>(row + 4 * k, x + 4 * k);
            else
                row[4 * k] = make_uint4(0, 0, 0, 0);
    }
    copy_commit();
    copy_wait_all(); /* each lane's own pieces: nobody else reads them before the barrier */
    for (uint32_t r = first; r < TOKENS; r += step) {
        uint4 *row = at.u + r * row_step + q;
        const bool live = __shfl_sync(ALL_LANES, own, (int)r) != NONE;
        if (it.before_gamma)
            normalise_row<T>(args, it.before_gamma, it.before_beta, row, q,
                             [&](uint32_t k, uint4 piece) { row[4 * k] = piece; });
        normalise_row<T>(args, it.gamma, it.beta, row, q, [&](uint32_t k, uint4 piece) {
            put_operand(at.v, r, k, q, live ? piece : make_uint4(0, 0, 0, 0));
        });
    }
}

/* The lane's numbers of block k as operands. */
__device__ inline void put_operands(const in_place &at, uint4 *to, uint32_t k,
                                    const uint4 (&rows)[4]) {
    uint4 a[4];
    operands(rows, a);
#pragma unroll
    for (uint32_t i = 0; i < 4; i++) to[(4 * k + i) * 32 + at.lane] = a[i];
}

/* sum = one block of outputs of the row group's tokens, whose operands `from` has. */
template <typename T>
__device__ inline void product(const in_place &at, const uint4 *from, uint32_t inputs,
                               const uint4 *weights, float (&sum)[4][8]) {
#pragma unroll
    for (int r = 0; r < 4; r++)
#pragma unroll
        for (int i = 0; i < 8; i++) sum[r][i] = 0;
#pragma unroll AHEAD
    for (uint32_t k = 0; k < inputs / 32; k++) {
        uint4 in[4];
#pragma unroll
        for (uint32_t i = 0; i < 4; i++) in[i] = from[(4 * k + i) * 32 + at.lane];
        multiply_block<T>(in, weights + 128 * k, sum);
    }
}

/* u and z, u's blocks as operands too. */
template <typename T>
__device__ inline void make_u_and_z(const in_args &args, const vx_mamba_in_item &it,
                                    const in_place &at) {
    const uint32_t blocks = args.channels / 32, C = args.features;
    for (uint32_t k = at.sharer; k < 2 * blocks; k += args.sharers) {
        float sum[4][8];
        uint4 narrowed[4];
        product<T>(at, at.v, C, weights_of(it.weights, C, k, at.lane), sum);
        const uint32_t channel = 32 * (k < blocks ? k : k - blocks);
        if (k < blocks)
            convolve((const float4 *)it.conv + channel, it.conv_bias + channel, at.lane, sum);
        narrow<T>(sum, narrowed);
        store<T>(at, narrowed, k < blocks ? it.u : it.z, k < blocks ? it.u_row : it.z_row,
                 channel + 8 * (at.lane % 4));
        if (k < blocks) put_operands(at, at.u, k, narrowed);
    }
}

/* The projections; with delta dt as operands in v's place. */
template <typename T>
__device__ inline void make_projections(const in_args &args, const vx_mamba_in_item &it,
                                        const in_place &at) {
    const uint32_t D = args.channels, last = args.blocks_out - 1;
    const T *x_proj = (const T *)it.weights + (size_t)2 * D * args.features;
    for (uint32_t k = at.sharer; k <= last; k += args.sharers) {
        float sum[4][8];
        uint4 narrowed[4];
        product<T>(at, at.u, D, weights_of(x_proj, D, k, at.lane), sum);
        narrow<T>(sum, narrowed);
        if (args.delta && k == last)
            put_operands(at, at.v, 0, narrowed);
        else
            store_projections<T>(args, it, at, narrowed, 32 * k + 8 * (at.lane % 4));
    }
}

template <typename T>
__device__ inline void make_delta(const in_args &args, const vx_mamba_in_item &it,
                                  const in_place &at) {
    const uint32_t D = args.channels;
    const T *dt_proj =
        (const T *)it.weights + (size_t)D * (2 * args.features + 32 * args.blocks_out);
    for (uint32_t k = at.sharer; k < D / 32; k += args.sharers) {
        float sum[4][8];
        uint4 narrowed[4];
        product<T>(at, at.v, DT_INPUTS, weights_of(dt_proj, DT_INPUTS, k, at.lane), sum);
        narrow<T>(sum, narrowed);
        store<T>(at, narrowed, it.delta, it.delta_row, 32 * k + 8 * (at.lane % 4));
    }
}

/* Grid: tiles of the row groups of a block, items. */
template <typename T>
__global__ void __launch_bounds__(MANY_THREADS, 2)
    mamba_in_many(const __grid_constant__ in_args args) {
    const vx_mamba_in_item &it = args.item[blockIdx.y];
    const uint32_t warp = threadIdx.x / 32, group = warp / args.sharers;
    in_place at;
    at.lane = threadIdx.x % 32, at.sharer = warp - group * args.sharers;
    at.v = (uint4 *)(shared_memory() + group * group_bytes(args.features, args.channels));
    at.u = at.v + TOKENS * args.features / 8;
    const int32_t first = first_token(blockIdx.x * args.row_groups + group);
    const uint32_t own = voxel_at(args, args.walk[blockIdx.y], first + (int32_t)at.lane);
    spread_voxels(at, own);
    normalise_shared<T>(args, it, at, own);
    __syncthreads();
    drop_before(at);
    make_u_and_z<T>(args, it, at);
    __syncthreads();
    make_projections<T>(args, it, at);
    if (!args.delta) return;
    __syncthreads();
    make_delta<T>(args, it, at);
}

} // namespace
} // namespace vx_cuda

#endif
