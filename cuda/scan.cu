/* The selective scan of scan.h in three launches.
 *
 *   1. pass<false>: every chunk from a zero state -> its end state [D][N] and the sum of its deltas
 *   2. carry:       runs over the chunks, replaces each end state with the state before the chunk
 *   3. pass<true>:  every chunk again from its true state -> y
 *
 * A lane owns two channels and 16 of their states; `split` lanes (1, 2, 4, 8 or 16) share a channel
 * pair, so a warp holds 64 / split channels with all their states in registers. B and C are loaded
 * once for a whole warp's channels (for all warps of a block that work on the same chunk), become
 * fp32 in shared memory and reach the registers as broadcasts. Tokens come in tiles of four: the
 * next tile is copied asynchronously while this one is computed.
 *
 * The exponentials limit this kernel, twice D*N for each token. The special function unit gives 16
 * a clock for each multiprocessor; MIX_LOCAL and MIX_OUTPUT of the 16 states are therefore raised
 * by a polynomial on the FMA pipes, if all arguments of the tile lie in [-2, 0]
 * (docs/performance.md).
 */
#include "scan.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

/* How many of a lane's 16 states use the polynomial, in the first and in the last pass. */
#ifndef VX_SCAN_MIX_LOCAL
#define VX_SCAN_MIX_LOCAL 4
#endif
#ifndef VX_SCAN_MIX_OUTPUT
#define VX_SCAN_MIX_OUTPUT 3
#endif
/* Warps that the cut aims at, over all chunks and channels of one item. */
#ifndef VX_SCAN_WARPS
#define VX_SCAN_WARPS 2048
#endif

namespace {

constexpr int TILE = 4;            /* tokens staged together */
constexpr int LANE_STATES = 16;    /* states of one channel in one lane */
constexpr int BLOCK_WARPS = 4;     /* at most */
constexpr uint32_t MIN_CHUNK = 64; /* tokens */
constexpr size_t SHARED_MAX = 48 * 1024;
constexpr uint32_t ALL = 0xffffffffu;
constexpr float POLY_RANGE = 2.0f; /* the polynomial holds for exp2(-2 .. 0) */

/* n / d for n < 2^31 by multiplication (Granlund and Montgomery 1994). */
struct divider {
    uint32_t divisor, multiplier, shift;
};

struct item_args {
    const void *u, *delta, *z, *b, *c;
    void *y;
    size_t u_row, delta_row, z_row, b_row, c_row, y_row;
    const float *a, *skip, *delta_bias;
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
    uint32_t split;          /* lanes that share a channel pair */
    uint32_t group_warps;    /* warps of a block on the same chunk, side by side in D */
    uint32_t groups;         /* chunks of a block */
    uint32_t channel_blocks; /* blocks side by side in D */
    uint32_t row_bytes;      /* bytes of one copy of u, delta, z: 16, 8, 4, or 0: one by one */
    uint32_t bc_bytes;       /* the same for B and C */
    uint32_t warp_shared, group_shared; /* bytes */
};

/* ---- storage types ----------------------------------------------------------------------------
 */

template <typename T> struct pair_of;
template <> struct pair_of<float> { typedef float2 type; };
template <> struct pair_of<__half> { typedef __half2 type; };
template <> struct pair_of<__nv_bfloat16> { typedef __nv_bfloat162 type; };
__device__ inline float2 to_float2(float2 v) { return v; }
__device__ inline float2 to_float2(__half2 v) { return __half22float2(v); }
__device__ inline float2 to_float2(__nv_bfloat162 v) { return __bfloat1622float2(v); }
__device__ inline void from_float2(float2 v, float2 *out) { *out = v; }
__device__ inline void from_float2(float2 v, __half2 *out) { *out = __float22half2_rn(v); }
__device__ inline void from_float2(float2 v, __nv_bfloat162 *out) {
    *out = __float22bfloat162_rn(v);
}
__device__ inline void from_float(float v, float *out) { *out = v; }
__device__ inline void from_float(float v, __half *out) { *out = __float2half_rn(v); }
__device__ inline void from_float(float v, __nv_bfloat16 *out) { *out = __float2bfloat16_rn(v); }

/* ---- functions --------------------------------------------------------------------------------
 */

/* 2^x by the special function unit; below 2^-126 it is 0. */
__device__ inline float exp2_unit(float x) {
    float r;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
    return r;
}

/* 2^x = 1 + x q(x) for x in [-2, 0]. q is the minimax fit of (2^x - 1) / x: the decay 1 - 2^x,
 * which is what a long memory sees, has this relative error: 5e-7 (fp32 storage), 1e-5 (half
 * types). */
template <bool EXACT> __device__ inline float exp2_poly(float x) {
    float q;
    if (EXACT) {
        q = fmaf(8.550805068807676e-05f, x, 0.0011920941760763526f);
        q = fmaf(q, x, 0.00947515107691288f);
        q = fmaf(q, x, 0.055436473339796066f);
        q = fmaf(q, x, 0.2402144819498062f);
        q = fmaf(q, x, 0.693146824836731f);
    } else {
        q = fmaf(0.0007535133045166731f, x, 0.008681891486048698f);
        q = fmaf(q, x, 0.05484408885240555f);
        q = fmaf(q, x, 0.24005664885044098f);
        q = fmaf(q, x, 0.6931398510932922f);
    }
    return fmaf(q, x, 1.0f);
}

/* softplus(x) = max(x, 0) + log1p(exp(-|x|)); log1p(e) = e p(e) with a minimax fit on [0, 1]
 * (relative error 3e-8). Above 20 this is x to the last bit. */
__device__ inline float softplus(float x) {
    float e = exp2_unit(-1.4426950408889634f * fabsf(x));
    float p = fmaf(0.005232629366219044f, e, -0.029504986479878426f);
    p = fmaf(p, e, 0.07822556048631668f);
    p = fmaf(p, e, -0.13663214445114136f);
    p = fmaf(p, e, 0.1910599321126938f);
    p = fmaf(p, e, -0.2484297901391983f);
    p = fmaf(p, e, 0.3331909775733948f);
    p = fmaf(p, e, -0.4999949336051941f);
    p = fmaf(p, e, 0.9999999403953552f);
    return fmaf(p, e, fmaxf(x, 0.0f));
}

__device__ inline float silu(float z) {
    return __fdividef(z, 1.0f + exp2_unit(-1.4426950408889634f * z));
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

/* ---- copies into shared memory ----------------------------------------------------------------
 */

template <int BYTES> __device__ inline void copy_async(void *shared, const void *global) {
#if __CUDA_ARCH__ >= 800
    uint32_t at = (uint32_t)__cvta_generic_to_shared(shared);
    if (BYTES == 16)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(at), "l"(global) : "memory");
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(at), "l"(global), "n"(BYTES)
                     : "memory");
#else
    if (BYTES == 16) *(uint4 *)shared = *(const uint4 *)global;
    if (BYTES == 8) *(uint2 *)shared = *(const uint2 *)global;
    if (BYTES == 4) *(uint32_t *)shared = *(const uint32_t *)global;
#endif
}
__device__ inline void copy_commit() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
/* Waits until all but the latest group of this thread's copies have landed. */
__device__ inline void copy_wait() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group 1;" ::: "memory");
#endif
}

/* Copies `count` elements of a row into shared memory, by `workers` threads of which this is number
 * `worker`, `bytes` at a time (0: one by one). */
template <typename T, int BYTES>
__device__ inline void copy_pieces(T *shared, const T *row, uint32_t count, uint32_t worker,
                                   uint32_t workers) {
    const uint32_t size = count * (uint32_t)sizeof(T);
#pragma unroll 1
    for (uint32_t i = worker * BYTES; i < size; i += workers * BYTES)
        copy_async<BYTES>((char *)shared + i, (const char *)row + i);
}
template <typename T>
__device__ inline void copy_row(T *shared, const T *row, uint32_t count, uint32_t bytes,
                                uint32_t worker, uint32_t workers) {
    if (bytes == 16) {
        copy_pieces<T, 16>(shared, row, count, worker, workers);
    } else if (bytes == 8) {
        copy_pieces<T, 8>(shared, row, count, worker, workers);
    } else if (bytes == 4) {
        copy_pieces<T, 4>(shared, row, count, worker, workers);
    } else {
#pragma unroll 1
        for (uint32_t i = worker; i < count; i += workers) shared[i] = row[i];
    }
}

/* Barrier of the warps that share B and C. Barrier numbers are constants: with numbers in registers
 * the compiler reserves all 16 for each block. */
__device__ inline void group_barrier(uint32_t group_warps, uint32_t group) {
    if (group_warps == 1)
        __syncwarp();
    else if (group_warps == BLOCK_WARPS)
        __syncthreads();
    else if (group == 0)
        asm volatile("bar.sync 1, 64;" ::: "memory");
    else
        asm volatile("bar.sync 2, 64;" ::: "memory");
}

/* ---- one tile of tokens -----------------------------------------------------------------------
 */

/* The recurrence over a tile. dx: [TILE][pairs of the warp], (delta, delta * u) twice; bf: [B, C]
 * [TILE][NP]; both already moved to the lane's first pair and quad; partial: [TILE][32], y's part
 * of this lane's states for its two channels. MIX: states by polynomial. */
template <bool OUTPUT, int SPLIT, int MIX, bool EXACT>
__device__ inline void recur(const float4 *dx, const float *bf, float (&h)[2][LANE_STATES],
                             const float (&a)[2][LANE_STATES], float (&sum)[2], float2 *partial) {
    constexpr int NP = LANE_STATES * SPLIT;
#pragma unroll 1
    for (int t = 0; t < TILE; t++) {
        float4 d = dx[t * (32 / SPLIT)];
        float y0 = 0, y1 = 0;
        if (!OUTPUT) sum[0] += d.x, sum[1] += d.z;
#pragma unroll
        for (int q = 0; q < LANE_STATES / 4; q++) {
            float4 b4 = *(const float4 *)(bf + t * NP + q * 4 * SPLIT);
            float b[4] = {b4.x, b4.y, b4.z, b4.w}, c[4];
            if (OUTPUT) {
                float4 c4 = *(const float4 *)(bf + (TILE + t) * NP + q * 4 * SPLIT);
                c[0] = c4.x, c[1] = c4.y, c[2] = c4.z, c[3] = c4.w;
            }
#pragma unroll
            for (int i = 0; i < 4; i++) {
                int n = 4 * q + i;
                float x0 = d.x * a[0][n], x1 = d.z * a[1][n];
                float e0 = n < MIX ? exp2_poly<EXACT>(x0) : exp2_unit(x0);
                float e1 = n < MIX ? exp2_poly<EXACT>(x1) : exp2_unit(x1);
                h[0][n] = fmaf(e0, h[0][n], d.y * b[i]);
                h[1][n] = fmaf(e1, h[1][n], d.w * b[i]);
                if (OUTPUT) y0 = fmaf(h[0][n], c[i], y0), y1 = fmaf(h[1][n], c[i], y1);
            }
        }
        if (OUTPUT) partial[t * 32] = make_float2(y0, y1);
    }
}

/* One warp's place: which chunk, which channels, and its parts of shared memory. */
template <typename T> struct place {
    uint32_t chunk, group, worker; /* worker: this thread's number in its group */
    uint32_t channel, width;       /* the warp's first channel and how many it has (may be 0) */
    T *rows;                       /* [2][u, delta, z][TILE][64 / split] */
    T *bc_rows;                    /* [2][B, C][TILE][states_padded] */
    float4 *dx;                    /* [TILE][32 / split] */
    float2 *partial;               /* [TILE][32] */
    float *bc;                     /* [B, C][TILE][states_padded] */
};

/* Starts the copies of tile `t0` into stage `stage`. Lane l brings token l % TILE and returns its
 * voxel. */
template <typename T, bool OUTPUT, int SPLIT>
__device__ inline uint32_t fetch(const scan_args &args, const item_args &it, const place<T> &p,
                                 uint32_t t0, uint32_t end, uint32_t stage, uint32_t lane) {
    constexpr uint32_t warp_channels = 64 / SPLIT, NP = LANE_STATES * SPLIT;
    const uint32_t token = lane % TILE;
    uint32_t at = 0;
    if (t0 + token < end) {
        at = voxel_of(it, args.length, t0 + token);
        const size_t voxel = at;
        uint32_t plane = TILE * warp_channels;
        T *rows = p.rows + stage * 3 * plane + token * warp_channels;
        uint32_t worker = lane / TILE, workers = 32 / TILE;
        copy_row(rows, (const T *)it.u + voxel * it.u_row + p.channel, p.width, args.row_bytes,
                 worker, workers);
        copy_row(rows + plane, (const T *)it.delta + voxel * it.delta_row + p.channel, p.width,
                 args.row_bytes, worker, workers);
        if (OUTPUT && it.z)
            copy_row(rows + 2 * plane, (const T *)it.z + voxel * it.z_row + p.channel, p.width,
                     args.row_bytes, worker, workers);
        T *bc = p.bc_rows + (stage * 2 * TILE + token) * NP;
        worker = p.worker / TILE, workers = args.group_warps * 32 / TILE;
        copy_row(bc, (const T *)it.b + voxel * it.b_row, args.states, args.bc_bytes, worker,
                 workers);
        if (OUTPUT)
            copy_row(bc + TILE * NP, (const T *)it.c + voxel * it.c_row, args.states, args.bc_bytes,
                     worker, workers);
    }
    copy_commit();
    return at;
}

/* B and C of the staged tile to fp32, by the group; states past N and tokens past the end are 0. */
template <typename T, bool OUTPUT, int SPLIT>
__device__ inline void widen_bc(const scan_args &args, const place<T> &p, uint32_t valid,
                                uint32_t stage) {
    typedef typename pair_of<T>::type T2;
    constexpr uint32_t NP = LANE_STATES * SPLIT, COUNT = (OUTPUT ? 2 : 1) * TILE * NP / 2;
    const T2 *from = (const T2 *)(p.bc_rows + stage * 2 * TILE * NP);
#pragma unroll 2
    for (uint32_t i = p.worker; i < COUNT; i += args.group_warps * 32) {
        uint32_t row = i / (NP / 2), n = 2 * (i % (NP / 2));
        float2 v = to_float2(from[i]);
        bool live = row % TILE < valid;
        v.x = live && n < args.states ? v.x : 0.0f;
        v.y = live && n + 1 < args.states ? v.y : 0.0f;
        ((float2 *)p.bc)[i] = v;
    }
}

template <typename T, bool OUTPUT, int SPLIT>
__global__ void __launch_bounds__(32 * BLOCK_WARPS, 4)
    scan_pass(const __grid_constant__ scan_args args) {
    typedef typename pair_of<T>::type T2;
    constexpr bool EXACT = sizeof(T) == 4;
    constexpr int MIX = OUTPUT ? VX_SCAN_MIX_OUTPUT : VX_SCAN_MIX_LOCAL;
    extern __shared__ __align__(16) char shared[];
    const item_args &it = args.item[blockIdx.y];
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    constexpr uint32_t warp_channels = 64 / SPLIT, warp_pairs = warp_channels / 2;
    constexpr uint32_t NP = LANE_STATES * SPLIT;

    place<T> p;
    p.group = warp / args.group_warps;
    p.worker = threadIdx.x - p.group * args.group_warps * 32;
    uint32_t block_row = blockIdx.x / args.channel_blocks;
    p.chunk = block_row * args.groups + p.group;
    if (p.chunk >= args.chunks) return; /* a whole group */
    p.channel =
        ((blockIdx.x - block_row * args.channel_blocks) * args.group_warps + p.worker / 32) *
        warp_channels;
    p.width = p.channel < args.channels ? min(warp_channels, args.channels - p.channel) : 0;
    char *mine = shared + warp * args.warp_shared;
    p.dx = (float4 *)mine;
    p.partial = (float2 *)(mine + TILE * 32 * sizeof(float4) / SPLIT);
    p.rows = (T *)(p.partial + (OUTPUT ? TILE * 32 : 0));
    char *group_shared =
        shared + args.groups * args.group_warps * args.warp_shared + p.group * args.group_shared;
    p.bc = (float *)group_shared;
    p.bc_rows = (T *)(p.bc + 2 * TILE * NP);

    /* Rates and states of this lane: channels (channel + 2 * (lane / split)) + {0, 1}, states
     * 4 * (lane % split + split * q) + i. */
    const uint32_t share = lane % SPLIT;
    const uint32_t ch = 2 * (lane / SPLIT);
    const size_t chunk_index = (size_t)blockIdx.y * args.chunks + p.chunk;
    float *state = args.state + (chunk_index * args.channels + p.channel) * args.states;
    float h[2][LANE_STATES], a[2][LANE_STATES], sum[2] = {0, 0}, steepest[2] = {0, 0};
#pragma unroll
    for (int k = 0; k < 2; k++)
#pragma unroll
        for (int j = 0; j < LANE_STATES; j++) {
            uint32_t n = 4 * (share + SPLIT * (j / 4)) + j % 4;
            bool live = ch + k < p.width && n < args.states;
            a[k][j] =
                live ? it.a[(size_t)(p.channel + ch + k) * args.states + n] * 1.4426950408889634f
                     : 0.0f;
            h[k][j] = OUTPUT && live && args.chunks > 1 ? state[(ch + k) * args.states + n] : 0.0f;
            if (j < MIX) steepest[k] = fmaxf(steepest[k], -a[k][j]);
        }

    /* This lane's channel pair in the element-wise steps: lane % warp_pairs; its bias, skip and the
     * largest delta for which the polynomial holds. */
    const uint32_t pair = lane % warp_pairs, pair_token = lane / warp_pairs;
    const bool has0 = 2 * pair < p.width, has1 = 2 * pair + 1 < p.width;
    const uint32_t pc = p.channel + 2 * pair;
    const float2 bias = make_float2(has0 ? it.delta_bias[pc] : 0, has1 ? it.delta_bias[pc + 1] : 0);
    float2 skip = make_float2(0, 0);
    if (OUTPUT) skip = make_float2(has0 ? it.skip[pc] : 0, has1 ? it.skip[pc + 1] : 0);
#pragma unroll
    for (int k = 0; k < 2; k++) {
        for (uint32_t o = 1; o < SPLIT; o *= 2)
            steepest[k] = fmaxf(steepest[k], __shfl_xor_sync(ALL, steepest[k], o));
        steepest[k] = __shfl_sync(ALL, steepest[k], pair * SPLIT);
    }
    const float2 limit = make_float2(POLY_RANGE / fmaxf(steepest[0], 1e-30f),
                                     POLY_RANGE / fmaxf(steepest[1], 1e-30f));

    const uint32_t begin = p.chunk * args.chunk, end = min(begin + args.chunk, args.length);
    uint32_t stage = 0, voxel = fetch<T, OUTPUT, SPLIT>(args, it, p, begin, end, 0, lane), next;
    for (uint32_t t0 = begin; t0 < end; t0 += TILE, stage ^= 1, voxel = next) {
        next = fetch<T, OUTPUT, SPLIT>(args, it, p, t0 + TILE, end, stage ^ 1, lane);
        copy_wait();
        group_barrier(args.group_warps, p.group);

        const uint32_t valid = min((uint32_t)TILE, end - t0);
        const T2 *rows = (const T2 *)(p.rows + stage * 3 * TILE * warp_channels);
        widen_bc<T, OUTPUT, SPLIT>(args, p, valid, stage);
        bool small = true;
#pragma unroll
        for (uint32_t k = 0; k < TILE; k += SPLIT) {
            const uint32_t t = k + pair_token;
            if (t >= TILE) break;
            uint32_t i = t * warp_pairs + pair;
            float2 u = to_float2(rows[i]), d = to_float2(rows[TILE * warp_pairs + i]);
            d.x = softplus(d.x + bias.x), d.y = softplus(d.y + bias.y);
            bool live = t < valid;
            d.x = live && has0 ? d.x : 0.0f, d.y = live && has1 ? d.y : 0.0f;
            u.x = live && has0 ? u.x : 0.0f, u.y = live && has1 ? u.y : 0.0f;
            small = small && d.x <= limit.x && d.y <= limit.y;
            p.dx[i] = make_float4(d.x, d.x * u.x, d.y, d.y * u.y);
        }
        const bool poly = MIX > 0 && __all_sync(ALL, small);
        group_barrier(args.group_warps, p.group);

        const float4 *dx = p.dx + lane / SPLIT;
        const float *bf = p.bc + 4 * share;
        if (poly)
            recur<OUTPUT, SPLIT, MIX, EXACT>(dx, bf, h, a, sum, p.partial + lane);
        else
            recur<OUTPUT, SPLIT, 0, EXACT>(dx, bf, h, a, sum, p.partial + lane);
        if (OUTPUT) {
            __syncwarp();
#pragma unroll
            for (uint32_t k = 0; k < TILE; k += SPLIT) {
                const uint32_t t = k + pair_token;
                const size_t row = __shfl_sync(ALL, voxel, t % TILE);
                if (t >= valid) continue;
                uint32_t i = t * warp_pairs + pair;
                const float2 *part = p.partial + t * 32 + (pair * SPLIT);
                float2 y = part[0], u = to_float2(rows[i]);

#pragma unroll
                for (int s = 1; s < SPLIT; s++) y.x += part[s].x, y.y += part[s].y;
                y.x = fmaf(skip.x, u.x, y.x), y.y = fmaf(skip.y, u.y, y.y);
                if (it.z) {
                    float2 z = to_float2(rows[2 * TILE * warp_pairs + i]);
                    y.x *= silu(z.x), y.y *= silu(z.y);
                }
                T *out = (T *)it.y + row * it.y_row + pc;
                if (args.row_bytes && has1) {
                    from_float2(y, (T2 *)out);
                } else {
                    if (has0) from_float(y.x, out);
                    if (has1) from_float(y.y, out + 1);
                }
            }
        }
        group_barrier(args.group_warps, p.group);
    }

    if (!OUTPUT) {
#pragma unroll
        for (int k = 0; k < 2; k++) {
            if (ch + k >= p.width) continue;
#pragma unroll
            for (int j = 0; j < LANE_STATES; j++) {
                uint32_t n = 4 * (share + SPLIT * (j / 4)) + j % 4;
                if (n < args.states) state[(ch + k) * args.states + n] = h[k][j];
            }
            if (share == 0)
                args.delta_sum[chunk_index * args.channels + p.channel + ch + k] = sum[k];
        }
    }
}

/* state[c] := state before chunk c, from end states and delta sums: s_{c+1} = exp(a * sum_c) s_c +
 * end_c. A block takes 32 columns (d, n); each of its 32 warps runs over its share of the chunks
 * twice, with a scan over the 32 shares between. */
__global__ void __launch_bounds__(1024) scan_carry(const __grid_constant__ scan_args args) {
    __shared__ float decay[32][33], end[32][33];
    const uint32_t lane = threadIdx.x % 32, share = threadIdx.x / 32;
    const size_t columns = (size_t)args.channels * args.states;
    const size_t column = (size_t)blockIdx.x * 32 + lane;
    const bool live = column < columns;
    const uint32_t each = (args.chunks + 31) / 32;
    const uint32_t first = min(share * each, args.chunks), last = min(first + each, args.chunks);
    const size_t base = (size_t)blockIdx.y * args.chunks;
    float *state = args.state + base * columns + (live ? column : 0);
    const float *sums =
        args.delta_sum + base * args.channels + (live ? (uint32_t)(column / args.states) : 0);
    const float a = live ? args.item[blockIdx.y].a[column] * 1.4426950408889634f : 0.0f;

    float carried = 0, total = 0;
#pragma unroll 8
    for (uint32_t c = first; c < last; c++) {
        float s = sums[(size_t)c * args.channels];
        carried = fmaf(exp2_unit(a * s), carried, state[c * columns]);
        total += s;
    }
    decay[share][lane] = exp2_unit(a * total);
    end[share][lane] = carried;
    __syncthreads();
    carried = 0;
    for (uint32_t i = 0; i < share; i++) carried = fmaf(decay[i][lane], carried, end[i][lane]);
    if (!live) return;
#pragma unroll 8
    for (uint32_t c = first; c < last; c++) {
        float e = state[c * columns], f = exp2_unit(a * sums[(size_t)c * args.channels]);
        state[c * columns] = carried;
        carried = fmaf(f, carried, e);
    }
}

/* ---- host -------------------------------------------------------------------------------------
 */

uint32_t ceil_div(uint32_t a, uint32_t b) { return a / b + (a % b != 0); }

divider make_divider(uint32_t d) {
    divider r = {d, 0, 0};
    while ((1ull << r.shift) < d) r.shift++;
    r.multiplier = (uint32_t)(((1ull << 32) * ((1ull << r.shift) - d)) / d + 1);
    return r;
}

vx_status check_shape(const vx_scan_shape *s, vx_error *err) {
    if (s->length < 1 || s->length > INT32_MAX || s->channels < 1 || s->channels > (1u << 24) ||
        s->states < 1 || s->states > 256)
        return vx_fail(err, VX_ERR_USAGE,
                       "scan of %u tokens, %u channels, %u states is outside the limits", s->length,
                       s->channels, s->states);
    return VX_OK;
}

/* Everything that follows from the shape alone. */
void cut(const vx_scan_shape *s, scan_args *args) {
    args->length = s->length, args->channels = s->channels, args->states = s->states;
    args->split = 1;
    while (args->split * LANE_STATES < s->states) args->split *= 2;
    uint32_t channel_warps = ceil_div(s->channels, 64 / args->split);
    uint32_t most = ceil_div(s->length, MIN_CHUNK);
    uint32_t chunks = VX_SCAN_WARPS / channel_warps;
    chunks = chunks < 1 ? 1 : chunks > most ? most : chunks;
    args->chunk = ceil_div(ceil_div(s->length, chunks), TILE) * TILE;
    args->chunks = ceil_div(s->length, args->chunk);
    args->group_warps = channel_warps >= 4 ? 4 : channel_warps >= 2 ? 2 : 1;
    args->channel_blocks = ceil_div(channel_warps, args->group_warps);
    args->groups = BLOCK_WARPS / args->group_warps;
}

size_t state_bytes(const scan_args *args, size_t items) {
    size_t n = items * args->chunks * args->channels * args->states * sizeof(float);
    return (n + 255) / 256 * 256;
}
size_t sum_bytes(const scan_args *args, size_t items) {
    size_t n = items * args->chunks * args->channels * sizeof(float);
    return (n + 255) / 256 * 256;
}

/* The widest copy (16, 8 or 4 bytes) that fits both a row's start and its length, or 0. */
uint32_t widest(uint32_t bytes, const void *pointer, size_t row, size_t count, size_t size) {
    while (bytes >= 4 && ((uintptr_t)pointer % bytes || row * size % bytes || count * size % bytes))
        bytes /= 2;
    return bytes >= 4 ? bytes : 0;
}

vx_status fill_item(const vx_scan_shape *s, const vx_scan_item *from, size_t size, scan_args *args,
                    item_args *to, vx_error *err) {
    const vx_scan_walk *w = &from->walk;
    uint64_t product = (uint64_t)w->dims[0] * w->dims[1];
    if (!w->table && (product > INT32_MAX || product * w->dims[2] != s->length))
        return vx_fail(err, VX_ERR_USAGE, "scan order of %u x %u x %u tokens for a length of %u",
                       w->dims[0], w->dims[1], w->dims[2], s->length);
    to->u = from->u, to->delta = from->delta, to->z = from->z, to->b = from->b, to->c = from->c;
    to->y = from->y;
    to->u_row = from->u_row, to->delta_row = from->delta_row, to->z_row = from->z_row;
    to->b_row = from->b_row, to->c_row = from->c_row, to->y_row = from->y_row;
    to->a = from->a, to->skip = from->skip, to->delta_bias = from->delta_bias;
    to->table = w->table, to->reverse = w->reverse;
    to->by_last = make_divider(w->table ? 1 : w->dims[2]);
    to->by_middle = make_divider(w->table ? 1 : w->dims[1]);
    for (int k = 0; k < 3; k++) to->step[k] = w->step[k];
    uint32_t v = args->row_bytes;
    v = widest(v, from->u, from->u_row, s->channels, size);
    v = widest(v, from->delta, from->delta_row, s->channels, size);
    if (from->z) v = widest(v, from->z, from->z_row, s->channels, size);
    v = widest(v, from->y, from->y_row, s->channels, size);
    args->row_bytes = v;
    v = widest(args->bc_bytes, from->b, from->b_row, s->states, size);
    args->bc_bytes = widest(v, from->c, from->c_row, s->states, size);
    return VX_OK;
}

template <typename T, bool OUTPUT, int SPLIT>
cudaError_t launch_pass(scan_args *args, size_t count, cudaStream_t stream) {
    size_t dx = TILE * 32 * sizeof(float4) / SPLIT;
    size_t partial = OUTPUT ? TILE * 32 * sizeof(float2) : 0;
    size_t rows = 2 * 3 * TILE * (64 / SPLIT) * sizeof(T);
    args->warp_shared = (uint32_t)(dx + partial + rows);
    args->group_shared =
        (uint32_t)(2 * TILE * LANE_STATES * SPLIT * (sizeof(float) + 2 * sizeof(T)));
    size_t group = args->group_warps * args->warp_shared + args->group_shared;
    args->groups = BLOCK_WARPS / args->group_warps;
    while (args->groups > 1 && args->groups * group > SHARED_MAX) args->groups /= 2;
    dim3 grid(ceil_div(args->chunks, args->groups) * args->channel_blocks, (unsigned)count);
    scan_pass<T, OUTPUT, SPLIT>
        <<<grid, args->groups * args->group_warps * 32, args->groups * group, stream>>>(*args);
    return cudaGetLastError();
}

template <typename T, int SPLIT>
cudaError_t launch_split(scan_args *args, size_t count, cudaStream_t stream) {
    cudaError_t e = cudaSuccess;
    if (args->chunks > 1) {
        e = launch_pass<T, false, SPLIT>(args, count, stream);
        if (e != cudaSuccess) return e;
        size_t columns = (size_t)args->channels * args->states;
        scan_carry<<<dim3((unsigned)((columns + 31) / 32), (unsigned)count), 1024, 0, stream>>>(
            *args);
        e = cudaGetLastError();
        if (e != cudaSuccess) return e;
    }
    return launch_pass<T, true, SPLIT>(args, count, stream);
}

template <typename T> cudaError_t launch(scan_args *args, size_t count, cudaStream_t stream) {
    switch (args->split) {
    case 1:
        return launch_split<T, 1>(args, count, stream);
    case 2:
        return launch_split<T, 2>(args, count, stream);
    case 4:
        return launch_split<T, 4>(args, count, stream);
    case 8:
        return launch_split<T, 8>(args, count, stream);
    default:
        return launch_split<T, 16>(args, count, stream);
    }
}

} // namespace

extern "C" vx_status vx_cuda_scan_scratch(const vx_scan_shape *shape, size_t items, size_t *bytes,
                                          vx_error *err) {
    scan_args args;
    vx_status status = check_shape(shape, err);
    if (status != VX_OK) return status;
    cut(shape, &args);
    *bytes = args.chunks > 1 ? state_bytes(&args, items) + sum_bytes(&args, items) : 0;
    return VX_OK;
}

extern "C" vx_status vx_cuda_scan(const vx_scan_shape *shape, const vx_scan_item *items,
                                  size_t count, void *scratch, size_t scratch_bytes,
                                  cudaStream_t stream, vx_error *err) {
    size_t need;
    vx_status status = vx_cuda_scan_scratch(shape, count, &need, err);
    if (status != VX_OK) return status;
    if (count < 1 || count > VX_SCAN_MAX_ITEMS)
        return vx_fail(err, VX_ERR_USAGE, "%zu scans in one launch [1 .. %d]", count,
                       VX_SCAN_MAX_ITEMS);
    if (scratch_bytes < need)
        return vx_fail(err, VX_ERR_USAGE, "scan scratch of %zu bytes, %zu needed", scratch_bytes,
                       need);
    scan_args args = {};
    cut(shape, &args);
    size_t size = shape->dtype == VX_F32 ? 4 : 2;
    /* A warp's channels are the longest piece of a row that is copied at once. */
    args.row_bytes = args.bc_bytes = 16;
    while (args.row_bytes > 64 / args.split * size) args.row_bytes /= 2;
    for (size_t i = 0; i < count; i++) {
        status = fill_item(shape, &items[i], size, &args, &args.item[i], err);
        if (status != VX_OK) return status;
    }
    args.state = (float *)scratch;
    args.delta_sum = scratch ? (float *)((char *)scratch + state_bytes(&args, count)) : nullptr;
    cudaError_t e = cudaErrorInvalidValue;
    switch (shape->dtype) {
    case VX_F32:
        e = launch<float>(&args, count, stream);
        break;
    case VX_F16:
        e = launch<__half>(&args, count, stream);
        break;
    case VX_BF16:
        e = launch<__nv_bfloat16>(&args, count, stream);
        break;
    }
    if (e != cudaSuccess)
        return vx_fail(err, VX_ERR_RESOURCE, "CUDA scan: %s", cudaGetErrorString(e));
    return VX_OK;
}
