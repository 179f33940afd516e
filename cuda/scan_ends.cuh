/* The end state of every chunk from a zero state, without the recurrence, on the matrix units
 * (fp16 and bf16 storage, compute capability 8.0 and above).
 *
 * With R_t the sum of deltas of the chunk's tokens after t, and x_t = delta_t u_t,
 *
 *   H[d][n] = sum_t exp(a[d][n] R_t) x_t[d] B_t[n]
 *
 * and exp(a R), for all a of a channel, is a sum of K exponentials with fixed rates r (scan_fit.h):
 * exp(a[d][n] R) = sum_k w[d][n][k] exp(r[d][k] R). So
 *
 *   G[d][k][n] = sum_t (exp(r[d][k] R_t) x_t[d]) B_t[n]       a matrix product over tokens
 *   H[d][n]    = sum_k w[d][n][k] G[d][k][n]                  once a chunk
 *
 * N exponentials a token and channel become two, because the rates r[k + 2] = 2 r[k] make the
 * others squares. The order is walked from the end of the chunk, so that R starts at 0 and grows.
 *
 * A warp takes an octet of channels and PAIRS pairs of rates: the 16 rows of its products are 8
 * channels by 2 rates, their 16 columns tokens. Where an octet needs more pairs than one warp's
 * registers hold, several warps share it. With ends_exchange each of them makes x and the sums of
 * deltas of some of the tokens, which the others read from shared memory. Lane 4g + q owns channel
 * g and tokens 4q .. 4q + 3.
 *
 * With a rank, delta comes from the matrix units too: dt_proj's rows are the 8 channels, inputs are
 * R <= 16, and the columns of two products are each lane's four tokens.
 */
#ifndef VX_CUDA_SCAN_ENDS_CUH
#define VX_CUDA_SCAN_ENDS_CUH

#include "cuda/scan_parts.cuh"

namespace vx_cuda {

constexpr uint32_t ENDS_TOKENS = 64; /* of a stage */
/* Warps of a block, at most: where a warp needs the fewest registers, more of the smaller blocks
 * fit a multiprocessor. */
__host__ __device__ constexpr uint32_t ends_warps(int tiles) { return tiles <= 2 ? 4 : 8; }
/* Of delta and x: keeps x among fp16's normal numbers. Above 2047 delta u becomes infinite, and so
 * do the end states: an overflow like any other of fp16. */
constexpr float ENDS_SCALE = 32;

/* Elements of a row in shared memory: 16 bytes more than its content, so that eight rows in
 * sequence lie in different banks. */
__host__ __device__ constexpr uint32_t ends_row(uint32_t content) { return content + 8; }
constexpr uint32_t ENDS_RANK = 16;                    /* the largest */
constexpr uint32_t ENDS_DT_ROW = ends_row(ENDS_RANK); /* of dt, which takes delta's place */
__host__ __device__ constexpr uint32_t ends_delta_row(uint32_t octets, bool rank) {
    return rank ? ENDS_DT_ROW : ends_row(8 * octets);
}
/* Whether warps that share an octet exchange x and sums: for N 32. For N 16 one warp holds what
 * most fits need, and for N 64, with few warps a multiprocessor, one more barrier costs more. */
__host__ __device__ constexpr bool ends_exchange(int tiles) { return tiles == 4; }
constexpr uint32_t ENDS_OCTETS = 4; /* of a block, at most: group_barrier has as many */
template <int NT> __host__ __device__ constexpr uint32_t ends_stage(uint32_t octets, bool rank) {
    return ENDS_TOKENS *
           (ends_row(8 * octets) + ends_delta_row(octets, rank) + ends_row(8 * NT)); /* elements */
}

/* Row of token i: what load_transposed gives to lane 4g + q are then tokens 4q .. 4q + 3. */
__device__ inline uint32_t ends_place(uint32_t i) {
    return (i & ~15u) + ((i & 2) << 2) + ((i >> 2) & 3) * 2 + (i & 1);
}

template <typename T> struct ends_rows {
    T *u, *delta, *b; /* delta: or dt, whose token i lies in row i */
    uint32_t row, b_row;
};
template <typename T, int NT, bool RANK>
__device__ inline ends_rows<T> ends_shared(const scan_args &args, uint32_t stage) {
    ends_rows<T> r;
    r.row = ends_row(8 * args.octets), r.b_row = ends_row(8 * NT);
    r.u = (T *)shared_memory() + stage * ends_stage<NT>(args.octets, RANK);
    r.delta = r.u + ENDS_TOKENS * r.row;
    r.b = r.delta + ENDS_TOKENS * ends_delta_row(args.octets, RANK);
    return r;
}

/* voxels[i]: where token end - 1 - from - i lies, looked up once for all copies of its rows. */
__device__ inline void ends_locate(const scan_args &args, const item_args &it, uint32_t begin,
                                   uint32_t end, uint32_t from, uint32_t *voxels) {
    for (uint32_t i = threadIdx.x; i < ENDS_TOKENS; i += blockDim.x)
        if (from + i < end - begin) voxels[i] = voxel_of(it.walk, args.length, end - 1 - from - i);
}

/* Starts the copies of the tokens end - 1 - from, end - 2 - from ... down to begin, by the block.
 */
template <typename T, int NT, bool RANK>
__device__ inline void ends_fetch(const scan_args &args, const item_args &it, uint32_t channel,
                                  uint32_t width, uint32_t begin, uint32_t end, uint32_t from,
                                  uint32_t stage, const uint32_t *voxels) {
    const ends_rows<T> r = ends_shared<T, NT, RANK>(args, stage);
    const uint32_t octets = args.octets, length = end - begin;
    if (from < length) {
        for (uint32_t k = threadIdx.x; k < ENDS_TOKENS * octets; k += blockDim.x) {
            const uint32_t i = k >> args.octet_shift, piece = k & (octets - 1),
                           row = ends_place(i) * r.row;
            if (from + i < length) {
                const size_t voxel = voxels[i];
                const T *u = (const T *)it.u + voxel * it.u_row + channel;
                const T *delta =
                    RANK ? nullptr : (const T *)it.delta + voxel * it.delta_row + channel;
                if (args.whole) {
                    copy_async<16>(r.u + row + 8 * piece, u + 8 * piece);
                    if (!RANK) copy_async<16>(r.delta + row + 8 * piece, delta + 8 * piece);
                } else {
                    copy_row(r.u + row, u, width, args.row_bytes, piece, octets);
                    if (!RANK) copy_row(r.delta + row, delta, width, args.row_bytes, piece, octets);
                }
            } else {
                fill_row(r.u + row, 8 * piece, 8 * piece + 8, 0.0f);
                if (!RANK) fill_row(r.delta + row, 8 * piece, 8 * piece + 8, NO_DELTA);
            }
        }
        for (uint32_t i = threadIdx.x; RANK && i < ENDS_TOKENS; i += blockDim.x) {
            T *row = r.delta + i * ENDS_DT_ROW;
            if (from + i < length) {
                const size_t voxel = voxels[i];
                copy_row(row, (const T *)it.dt + voxel * it.dt_row, args.rank, args.dt_bytes, 0, 1);
            } else {
                fill_row(row, 0, args.rank, 0.0f);
            }
        }
        for (uint32_t k = threadIdx.x; k < ENDS_TOKENS * NT; k += blockDim.x) {
            const uint32_t i = k / NT, piece = k % NT, row = ends_place(i) * r.b_row;
            if (from + i < length) {
                const size_t voxel = voxels[i];
                const T *b = (const T *)it.b + voxel * it.b_row;
                if (args.whole)
                    copy_async<16>(r.b + row + 8 * piece, b + 8 * piece);
                else
                    copy_row(r.b + row, b, args.states, args.bc_bytes, piece, NT);
            } else {
                fill_row(r.b + row, 8 * piece, 8 * piece + 8, 0.0f);
            }
        }
    }
    copy_commit();
}

/* The columns that no copy writes, in both stages. */
template <typename T, int NT, bool RANK>
__device__ inline void ends_fill(const scan_args &args, uint32_t width) {
    for (uint32_t k = threadIdx.x; k < 2 * ENDS_TOKENS; k += blockDim.x) {
        const ends_rows<T> r = ends_shared<T, NT, RANK>(args, k / ENDS_TOKENS);
        const uint32_t i = k % ENDS_TOKENS;
        fill_row(r.u + i * r.row, width, 8 * args.octets, 0.0f);
        if (RANK)
            fill_row(r.delta + i * ENDS_DT_ROW, args.rank, ENDS_RANK, 0.0f);
        else
            fill_row(r.delta + i * r.row, width, 8 * args.octets, NO_DELTA);
        fill_row(r.b + i * r.b_row, args.states, 8 * NT, 0.0f);
    }
}

/* dt_proj's weights of a lane: channel `own`, inputs 2q, 2q + 1 and 2q + 8, 2q + 9. */
template <typename T>
__device__ inline void ends_dt_weights(const scan_args &args, const float *dt_w, uint32_t own,
                                       uint32_t lane, uint32_t (&w)[4]) {
    float v[4];
#pragma unroll
    for (uint32_t i = 0; i < 4; i++) {
        const uint32_t r = 2 * (lane % 4) + i % 2 + 8 * (i / 2);
        v[i] = own < args.channels && r < args.rank ? dt_w[(size_t)r * args.channels + own] : 0;
    }
    w[0] = pair<T>::pack(v[0], v[1]), w[2] = pair<T>::pack(v[2], v[3]);
    w[1] = w[3] = 0; /* rows 8 .. 15 do not exist */
}

/* raw[i]: delta before bias and softplus of the lane's channel and token 4q + i, of the 16 rows at
 * dt. Column c of product j is token 4 (c / 2) + 2 j + c % 2. */
template <typename T>
__device__ inline void ends_project_dt(const T *dt, const uint32_t (&w)[4], uint32_t lane,
                                       float (&raw)[4]) {
    const uint32_t c = lane / 4, q = lane % 4;
#pragma unroll
    for (uint32_t j = 0; j < 2; j++) {
        const T *row = dt + (4 * (c / 2) + 2 * j + c % 2) * ENDS_DT_ROW + 2 * q;
        float sum[4] = {0, 0, 0, 0};
        multiply_add<T>(sum, w, *(const uint32_t *)row, *(const uint32_t *)(row + 8));
        raw[2 * j] = sum[0], raw[2 * j + 1] = sum[1];
    }
}

/* Of a lane's channel and its four tokens of sixteen, times ENDS_SCALE. before: the deltas of the
 * sixteen's tokens before the first of the four; then of the four before the second, third and
 * fourth. all: the sixteen's. */
struct ends_tokens {
    float4 x; /* delta u */
    float4 before;
    float all;
};

/* dt, w: with a rank. */
template <typename T, bool RANK>
__device__ inline ends_tokens ends_make(const T *u_delta, const T *dt, const uint32_t (&w)[4],
                                        float bias, uint32_t lane) {
    uint32_t v[4];
    load_transposed(v, u_delta);
    const float2 u01 = pair<T>::wide(v[0]), u23 = pair<T>::wide(v[1]);
    const float2 d01 = pair<T>::wide(v[2]), d23 = pair<T>::wide(v[3]);
    const float u[4] = {u01.x, u01.y, u23.x, u23.y};
    float raw[4] = {d01.x, d01.y, d23.x, d23.y};
    if (RANK) ends_project_dt(dt, w, lane, raw);
    float x[4], before[4], own = 0;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const float delta = softplus<false, (int)ENDS_SCALE>(fmaf(raw[i], ENDS_SCALE, bias));
        x[i] = delta * u[i];
        before[i] = own;
        own += delta;
    }
    /* Sums over the four lanes of a channel. */
    const uint32_t q = lane % 4;
    float up = own, other = __shfl_up_sync(ALL_LANES, up, 1, 4);
    if (q >= 1) up += other;
    other = __shfl_up_sync(ALL_LANES, up, 2, 4);
    if (q >= 2) up += other;
    return {make_float4(x[0], x[1], x[2], x[3]),
            make_float4(up - own, before[1], before[2], before[3]),
            __shfl_sync(ALL_LANES, up, 3, 4)};
}

/* Where the warps of an octet exchange them, in shared memory. */
struct ends_shelf {
    float4 *x, *before; /* [ENDS_TOKENS / 16][lane] */
    float *all;
    static constexpr uint32_t PIECES = ENDS_TOKENS / 16 * 32;
    static constexpr uint32_t BYTES = PIECES * (2 * sizeof(float4) + sizeof(float));
    __device__ explicit ends_shelf(char *at)
        : x((float4 *)at), before(x + PIECES), all((float *)(before + PIECES)) {}
    __device__ void put(uint32_t i, const ends_tokens &t) const {
        x[i] = t.x, before[i] = t.before, all[i] = t.all;
    }
    __device__ ends_tokens get(uint32_t i) const { return {x[i], before[i], all[i]}; }
};

/* Sixteen tokens: adds their products to g. sum: the deltas of all tokens before, of the lane's
 * channel (times ENDS_SCALE). */
template <typename T, int NT, int PAIRS>
__device__ inline void ends_step(const ends_tokens &tokens, const T *b, uint32_t b_row,
                                 const float (&rate)[2], float &sum, float (&g)[PAIRS][NT][4],
                                 uint32_t lane) {
    const float x[4] = {tokens.x.x, tokens.x.y, tokens.x.z, tokens.x.w};
    const float before[4] = {0, tokens.before.y, tokens.before.z, tokens.before.w};
    const float base = sum + tokens.before.x;
    sum += tokens.all;
    float e[2][4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const float r = base + before[i];
        e[0][i] = exp2_unit(rate[0] * r), e[1][i] = exp2_unit(rate[1] * r);
    }
    uint32_t a[PAIRS][4];
#pragma unroll
    for (int p = 0; p < PAIRS; p++) {
        a[p][0] = pair<T>::pack(e[0][0] * x[0], e[0][1] * x[1]);
        a[p][1] = pair<T>::pack(e[1][0] * x[0], e[1][1] * x[1]);
        a[p][2] = pair<T>::pack(e[0][2] * x[2], e[0][3] * x[3]);
        a[p][3] = pair<T>::pack(e[1][2] * x[2], e[1][3] * x[3]);
        if (p + 1 < PAIRS) {
#pragma unroll
            for (int i = 0; i < 4; i++) e[0][i] *= e[0][i], e[1][i] *= e[1][i];
        }
    }
    /* Matrices of b: token rows 0 .. 7 and 8 .. 15 of states 8j .. 8j + 7, then of the next 8. */
    const T *b_lane = b + (lane & 15) * b_row + (lane & 16) / 2;
#pragma unroll
    for (int j = 0; j < NT; j += 2) {
        uint32_t bv[4];
        load_transposed(bv, b_lane + 8 * j);
#pragma unroll
        for (int p = 0; p < PAIRS; p++) {
            multiply_add<T>(g[p][j], a[p], bv[0], bv[1]);
            multiply_add<T>(g[p][j + 1], a[p], bv[2], bv[3]);
        }
    }
}

/* Threads and blocks that fit a multiprocessor's registers, by the accumulators of a lane. */
template <int NT, int PAIRS> struct ends_bounds {
    static constexpr int SUMS = 4 * NT * PAIRS;
    static constexpr int THREADS = 32 * (int)ends_warps(NT);
    static constexpr int BLOCKS = (SUMS <= 64 ? 16 : 8) * 32 / THREADS;
};

template <typename T, int NT, int PAIRS, bool RANK>
__global__ void __launch_bounds__(ends_bounds<NT, PAIRS>::THREADS, ends_bounds<NT, PAIRS>::BLOCKS)
    scan_ends(const __grid_constant__ scan_args args) {
    const item_args &it = args.item[blockIdx.y];
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const uint32_t octet = warp & (args.octets - 1), share = warp >> args.octet_shift;
    const uint32_t chunk = blockIdx.x / args.octet_blocks;
    const uint32_t channel = (blockIdx.x - chunk * args.octet_blocks) * 8 * args.octets;
    const uint32_t width = min(8 * args.octets, args.channels - channel);
    const uint32_t begin = chunk * args.chunk, end = min(begin + args.chunk, args.length);
    const uint32_t rates = 2 * PAIRS * args.shares; /* K */

    const uint32_t own = channel + 8 * octet + lane / 4; /* the lane's channel */
    const bool live = own < args.channels;
    float bias = 0, rate[2] = {0, 0}, sum = 0;
    if (live) {
        const float *r = it.rates + (size_t)own * rates + 2 * PAIRS * share;
        bias = it.delta_bias[own] * ENDS_SCALE;
        rate[0] = r[0] * (LOG2_E / ENDS_SCALE), rate[1] = r[1] * (LOG2_E / ENDS_SCALE);
    }
    float g[PAIRS][NT][4];
#pragma unroll
    for (int p = 0; p < PAIRS; p++)
#pragma unroll
        for (int j = 0; j < NT; j++) g[p][j][0] = g[p][j][1] = g[p][j][2] = g[p][j][3] = 0;

    uint32_t w[4] = {0, 0, 0, 0};
    if (RANK) ends_dt_weights<T>(args, it.dt_w, own, lane, w);
    if (RANK || !args.whole) ends_fill<T, NT, RANK>(args, width);
    const ends_shelf shelf(shared_memory() + 2 * ends_stage<NT>(args.octets, RANK) * sizeof(T) +
                           octet * ends_shelf::BYTES);
    __shared__ uint32_t voxels[2][ENDS_TOKENS];
    ends_locate(args, it, begin, end, 0, voxels[0]);
    ends_locate(args, it, begin, end, ENDS_TOKENS, voxels[1]);
    __syncthreads();
    ends_fetch<T, NT, RANK>(args, it, channel, width, begin, end, 0, 0, voxels[0]);
    uint32_t stage = 0;
    for (uint32_t from = 0; from < end - begin; from += ENDS_TOKENS, stage ^= 1) {
        copy_wait_all();
        __syncthreads(); /* this stage is here, and all are done with the other */
        ends_fetch<T, NT, RANK>(args, it, channel, width, begin, end, from + ENDS_TOKENS, stage ^ 1,
                                voxels[stage ^ 1]);
        ends_locate(args, it, begin, end, from + 2 * ENDS_TOKENS, voxels[stage]);
        const ends_rows<T> r = ends_shared<T, NT, RANK>(args, stage);
        /* Matrices: u of token rows 0 .. 7 and 8 .. 15, then delta of the same. */
        const T *u_delta = (lane & 16 && !RANK ? r.delta : r.u) + (lane & 15) * r.row + 8 * octet;
        /* Whole sixteens, but in the last chunk. */
        const uint32_t tokens = min(ENDS_TOKENS, end - begin - from);
        auto make = [&](uint32_t i) {
            return ends_make<T, RANK>(u_delta + i * r.row, r.delta + i * ENDS_DT_ROW, w, bias,
                                      lane);
        };
        if (ends_exchange(NT)) {
#pragma unroll 1
            for (uint32_t i = 16 * share; i < tokens; i += 16 * args.shares)
                shelf.put(2 * i + lane, make(i));
            group_barrier(args.shares, blockDim.x / 32, octet);
        }
#pragma unroll 1
        for (uint32_t i = 0; i < tokens; i += 16)
            ends_step<T, NT, PAIRS>(ends_exchange(NT) ? shelf.get(2 * i + lane) : make(i),
                                    r.b + i * r.b_row, r.b_row, rate, sum, g, lane);
    }

    /* w times G, of this warp's pairs, for two states of each eight: in place of g[0]. */
    const uint32_t tiles = (args.states + 7) / 8;
    const float4 *fit = (const float4 *)it.weights +
                        (size_t)(channel / 8 + octet) * (rates / 2) * tiles * 32 +
                        (size_t)share * PAIRS * tiles * 32 + (lane % 4) * 8 + lane / 4;
#pragma unroll
    for (int j = 0; j < NT; j++) {
        float h[2] = {0, 0};
#pragma unroll
        for (int p = 0; p < PAIRS; p++) {
            float4 v = make_float4(0, 0, 0, 0);
            if ((uint32_t)j < tiles) v = fit[((size_t)p * tiles + j) * 32];
            h[0] = fmaf(v.x, g[p][j][0], fmaf(v.y, g[p][j][2], h[0]));
            h[1] = fmaf(v.z, g[p][j][1], fmaf(v.w, g[p][j][3], h[1]));
        }
        g[0][j][0] = h[0], g[0][j][1] = h[1];
    }
    /* The sum over the warps that share the octet, in their order. */
    const size_t row = ((size_t)blockIdx.y * args.chunks + chunk) * args.channels + own;
    float *parts = (float *)shared_memory() + (octet * 8 + lane / 4) * 8 * NT;
    for (uint32_t turn = 0; turn < args.shares; turn++) {
        if (args.shares > 1) __syncthreads();
        if (turn != share || !live) continue;
#pragma unroll
        for (int j = 0; j < NT; j++)
#pragma unroll
            for (int i = 0; i < 2; i++) {
                const uint32_t n = 8 * j + 2 * (lane % 4) + i;
                if (n >= args.states) continue;
                const float h = turn > 0 ? parts[n] + g[0][j][i] : g[0][j][i];
                if (turn + 1 < args.shares)
                    parts[n] = h;
                else
                    args.state[row * args.states + n] = h * (1.0f / ENDS_SCALE);
            }
    }
    if (live && share == 0 && lane % 4 == 0) args.delta_sum[row] = sum * (1.0f / ENDS_SCALE);
}

} // namespace vx_cuda

#endif
