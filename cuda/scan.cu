/* The selective scan of scan.h in three launches.
 *
 *   1. scan_pass<false>: every chunk from a zero state -> its end state [D][N] and sum of deltas
 *   2. scan_carry:       runs over the chunks, replaces each end state by the state before the
 * chunk
 *   3. scan_pass<true>:  every chunk again from its true state -> y
 *
 * A lane owns one channel and 16 of its states, in registers; SPLIT lanes (1, 2, 4, 8 or 16) share
 * a channel, so that a warp holds 32 / SPLIT channels with all their states. Warps side by side in
 * D form a group that works on one chunk and shares its B and C: they are loaded once, become fp32
 * in shared memory and reach the registers as broadcasts. Tokens come in tiles of eight: the next
 * tile is copied asynchronously while this one is computed.
 *
 * Two things limit the kernel, about equally: the special function unit, which needs as long for
 * one exponential as the rest of a multiprocessor for eight multiply-adds, and instruction issue (9
 * a state over the two passes). docs/performance.md counts them, and says what was tried.
 */
#include "cuda/scan.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

/* Blocks of 8 warps that a multiprocessor is to hold: 3 leaves 80 registers a thread, 4 leaves 64.
 */
#ifndef VX_SCAN_BLOCKS
#define VX_SCAN_BLOCKS 3
#endif
/* Warps that the cut aims at, over all chunks and channels of one item. */
#ifndef VX_SCAN_WARPS
#define VX_SCAN_WARPS 8192
#endif

namespace {

constexpr uint32_t TILE = 8;                /* tokens staged together */
constexpr uint32_t LANE_STATES = 16;        /* states of one channel in one lane */
constexpr uint32_t BLOCK_WARPS = 8;         /* at most */
constexpr uint32_t BLOCKS = VX_SCAN_BLOCKS; /* of BLOCK_WARPS resident on a multiprocessor */
constexpr uint32_t MIN_CHUNK = 64;          /* tokens */
constexpr size_t SHARED_MAX = 48 * 1024;
constexpr uint32_t ALL = 0xffffffffu;

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
    uint32_t whole;          /* every row of every warp is full and copied in the largest pieces */
};

/* ---- storage types ----------------------------------------------------------------------------
 */

__device__ inline float to_float(float v) { return v; }
__device__ inline float to_float(__half v) { return __half2float(v); }
__device__ inline float to_float(__nv_bfloat16 v) { return __bfloat162float(v); }
__device__ inline void from_float(float v, float *out) { *out = v; }
__device__ inline void from_float(float v, __half *out) { *out = __float2half_rn(v); }
__device__ inline void from_float(float v, __nv_bfloat16 *out) { *out = __float2bfloat16_rn(v); }

/* Four elements at 4 * sizeof(T) alignment. */
__device__ inline float4 load4(const float *at) { return *(const float4 *)at; }
__device__ inline float4 load4(const __half *at) {
    const uint2 v = *(const uint2 *)at;
    const float2 a = __half22float2(*(const __half2 *)&v.x),
                 b = __half22float2(*(const __half2 *)&v.y);
    return make_float4(a.x, a.y, b.x, b.y);
}
__device__ inline float4 load4(const __nv_bfloat16 *at) {
    const uint2 v = *(const uint2 *)at;
    return make_float4(__uint_as_float(v.x << 16), __uint_as_float(v.x & 0xffff0000u),
                       __uint_as_float(v.y << 16), __uint_as_float(v.y & 0xffff0000u));
}

/* ---- functions --------------------------------------------------------------------------------
 */

/* 2^x by the special function unit; below 2^-126 it is 0. */
__device__ inline float exp2_unit(float x) {
    float r;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
    return r;
}

/* softplus(x) = max(x, 0) + log1p(exp(-|x|)); log1p(e) = e p(e) with a minimax fit on [0, 1]
 * (relative error 3e-8, for half types 1e-6). Above 20 this is x to the last bit. */
template <bool EXACT> __device__ inline float softplus(float x) {
    const float e = exp2_unit(-1.4426950408889634f * fabsf(x));
    float p;
    if (EXACT) {
        p = fmaf(0.005232629366219044f, e, -0.029504986479878426f);
        p = fmaf(p, e, 0.07822556048631668f);
        p = fmaf(p, e, -0.13663214445114136f);
        p = fmaf(p, e, 0.1910599321126938f);
        p = fmaf(p, e, -0.2484297901391983f);
        p = fmaf(p, e, 0.3331909775733948f);
        p = fmaf(p, e, -0.4999949336051941f);
        p = fmaf(p, e, 0.9999999403953552f);
    } else {
        p = fmaf(0.014140856452286243f, e, -0.06640131771564484f);
        p = fmaf(p, e, 0.14922335743904114f);
        p = fmaf(p, e, -0.23503835499286652f);
        p = fmaf(p, e, 0.3310944437980652f);
        p = fmaf(p, e, -0.4998696446418762f);
        p = fmaf(p, e, 0.9999987483024597f);
    }
    return fmaf(p, e, fmaxf(x, 0.0f));
}

__device__ inline float silu(float z) {
    float r;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(1.0f + exp2_unit(-1.4426950408889634f * z)));
    return z * r;
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
__device__ inline void group_barrier(uint32_t warps, uint32_t group) {
    if (warps == 1) {
        __syncwarp();
    } else if (warps == BLOCK_WARPS) {
        __syncthreads();
    } else {
        const uint32_t threads = warps * 32;
        switch (group) {
        case 0:
            asm volatile("bar.sync 1, %0;" ::"r"(threads) : "memory");
            break;
        case 1:
            asm volatile("bar.sync 2, %0;" ::"r"(threads) : "memory");
            break;
        case 2:
            asm volatile("bar.sync 3, %0;" ::"r"(threads) : "memory");
            break;
        default:
            asm volatile("bar.sync 4, %0;" ::"r"(threads) : "memory");
            break;
        }
    }
}

/* ---- one tile of tokens -----------------------------------------------------------------------
 */

/* A warp's place: which chunk, which channels, and its parts of shared memory. */
template <typename T, int SPLIT> struct place {
    static constexpr uint32_t CHANNELS = 32 / SPLIT, STATES = LANE_STATES * SPLIT;
    uint32_t chunk, group, worker; /* worker: this thread's number in its group */
    uint32_t channel, width;       /* the warp's first channel and how many it has (may be 0) */
    T *rows;        /* [2][u, delta, z][TILE][CHANNELS] as copied, one for each stage */
    T *bc_rows;     /* [2][B, C][TILE][STATES], the group's */
    float *bc;      /* [B, C][TILE][STATES], the group's; unused for fp32 storage */
    float2 *dx;     /* [TILE][CHANNELS] delta, delta * u; unused for SPLIT 1 */
    float *partial; /* [TILE][32] y's part from each lane; unused for SPLIT 1 */
};

/* Bytes of shared memory of a warp and of a group, and the pointers into them. */
template <typename T, bool OUTPUT, int SPLIT> __host__ __device__ constexpr uint32_t warp_bytes() {
    return TILE * (32 / SPLIT) * (6 * (uint32_t)sizeof(T) + (SPLIT > 1 ? 8 : 0)) +
           (SPLIT > 1 && OUTPUT ? TILE * 32 * 4 : 0);
}
template <typename T, int SPLIT> __host__ __device__ constexpr uint32_t group_bytes() {
    return 2 * TILE * LANE_STATES * SPLIT * (2 * (uint32_t)sizeof(T) + (sizeof(T) < 4 ? 4 : 0));
}
template <typename T, bool OUTPUT, int SPLIT>
__device__ inline void take_shared(place<T, SPLIT> *p, char *warp, char *group) {
    typedef place<T, SPLIT> P;
    p->rows = (T *)warp;
    p->dx = (float2 *)(p->rows + 6 * TILE * P::CHANNELS);
    p->partial = (float *)(p->dx + TILE * P::CHANNELS);
    p->bc_rows = (T *)group;
    p->bc = (float *)(p->bc_rows + 4 * TILE * P::STATES);
}

/* What stands for a token or a channel that does not exist: it leaves every state as it is. */
template <typename T> __device__ inline void fill_row(T *row, uint32_t from, uint32_t to, float v) {
#pragma unroll 1
    for (uint32_t i = from; i < to; i++) from_float(v, row + i);
}
constexpr float NO_DELTA = -60000.0f; /* softplus gives 0 */

/* Starts the copies of tile `t0` into stage `stage`. Lane l brings token l % TILE and returns its
 * voxel. */
template <typename T, bool OUTPUT, int SPLIT>
__device__ inline uint32_t fetch(const scan_args &args, const item_args &it,
                                 const place<T, SPLIT> &p, uint32_t t0, uint32_t end,
                                 uint32_t stage, uint32_t lane) {
    typedef place<T, SPLIT> P;
    constexpr uint32_t PLANE = TILE * P::CHANNELS, WORKERS = 32 / TILE;
    const uint32_t token = lane % TILE, worker = lane / TILE;
    const uint32_t group_worker = p.worker / TILE, group_workers = args.group_warps * WORKERS;
    T *rows = p.rows + stage * 3 * PLANE + token * P::CHANNELS;
    T *bc = p.bc_rows + (stage * 2 * TILE + token) * P::STATES;
    uint32_t at = 0;
    if (t0 + token < end) {
        at = voxel_of(it, args.length, t0 + token);
        const size_t voxel = at;
        const T *u = (const T *)it.u + voxel * it.u_row + p.channel;
        const T *delta = (const T *)it.delta + voxel * it.delta_row + p.channel;
        const T *z = (const T *)it.z + voxel * it.z_row + p.channel;
        const T *b = (const T *)it.b + voxel * it.b_row, *c = (const T *)it.c + voxel * it.c_row;
        if (args.whole) {
            /* Rows of full width in the largest pieces: nothing to look up or to compare. */
            constexpr uint32_t ROW = P::CHANNELS * sizeof(T), BYTES = ROW < 16 ? ROW : 16;
            constexpr uint32_t PIECE = BYTES / sizeof(T), BC_PIECE = 16 / sizeof(T);
#pragma unroll
            for (uint32_t k = 0; k < P::CHANNELS; k += WORKERS * PIECE) {
                const uint32_t i = k + worker * PIECE;
                if (i >= P::CHANNELS) break;
                copy_async<BYTES>(rows + i, u + i);
                copy_async<BYTES>(rows + PLANE + i, delta + i);
                if (OUTPUT && it.z) copy_async<BYTES>(rows + 2 * PLANE + i, z + i);
            }
#pragma unroll 1
            for (uint32_t i = group_worker * BC_PIECE; i < P::STATES;
                 i += group_workers * BC_PIECE) {
                copy_async<16>(bc + i, b + i);
                if (OUTPUT) copy_async<16>(bc + TILE * P::STATES + i, c + i);
            }
        } else {
            copy_row(rows, u, p.width, args.row_bytes, worker, WORKERS);
            copy_row(rows + PLANE, delta, p.width, args.row_bytes, worker, WORKERS);
            if (OUTPUT && it.z)
                copy_row(rows + 2 * PLANE, z, p.width, args.row_bytes, worker, WORKERS);
            copy_row(bc, b, args.states, args.bc_bytes, group_worker, group_workers);
            if (OUTPUT)
                copy_row(bc + TILE * P::STATES, c, args.states, args.bc_bytes, group_worker,
                         group_workers);
        }
    } else if (t0 < end) {
        if (worker == 0) {
            fill_row(rows, 0, P::CHANNELS, 0.0f);
            fill_row(rows + PLANE, 0, P::CHANNELS, NO_DELTA);
        }
        if (group_worker == 0) {
            fill_row(bc, 0, P::STATES, 0.0f);
            fill_row(bc + TILE * P::STATES, 0, P::STATES, 0.0f);
        }
    }
    copy_commit();
    return at;
}

/* The columns that no copy ever writes: channels past D and states past N, in both stages. */
template <typename T, int SPLIT>
__device__ inline void fill_columns(const scan_args &args, const place<T, SPLIT> &p,
                                    uint32_t lane) {
    typedef place<T, SPLIT> P;
    for (uint32_t r = lane; r < 6 * TILE; r += 32) /* row r is of delta if (r / TILE) % 3 == 1 */
        fill_row(p.rows + r * P::CHANNELS, p.width, P::CHANNELS,
                 r / TILE % 3 == 1 ? NO_DELTA : 0.0f);
    for (uint32_t r = p.worker; r < 4 * TILE; r += args.group_warps * 32)
        fill_row(p.bc_rows + r * P::STATES, args.states, P::STATES, 0.0f);
}

/* B and C of the staged tile to fp32, by the group. */
template <typename T, bool OUTPUT, int SPLIT>
__device__ inline void widen_bc(const scan_args &args, const place<T, SPLIT> &p, uint32_t stage) {
    constexpr uint32_t COUNT = TILE * place<T, SPLIT>::STATES;
    const T *from = p.bc_rows + stage * 2 * COUNT;
#pragma unroll 1
    for (uint32_t i = 4 * p.worker; i < (OUTPUT ? 2 : 1) * COUNT; i += args.group_warps * 128)
        *(float4 *)(p.bc + i) = load4(from + i);
}

/* One token for this lane's 16 states: h <- exp2(delta a) h + x B; returns the sum of C h. b and c
 * point to the lane's first quad of states; the next is 4 * SPLIT further. */
template <bool OUTPUT, int SPLIT>
__device__ inline float step(float delta, float x, const float *b, const float *c,
                             float (&h)[LANE_STATES], const float (&a)[LANE_STATES]) {
    float y[2] = {0, 0};
#pragma unroll
    for (int q = 0; q < (int)LANE_STATES / 4; q++) {
        const float4 b4 = load4(b + q * 4 * SPLIT);
        const float bn[4] = {b4.x, b4.y, b4.z, b4.w};
        float4 c4 = make_float4(0, 0, 0, 0);
        if (OUTPUT) c4 = load4(c + q * 4 * SPLIT);
        const float cn[4] = {c4.x, c4.y, c4.z, c4.w};
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int n = 4 * q + i;
            const float e = exp2_unit(delta * a[n]);
            h[n] = fmaf(e, h[n], x * bn[i]);
            if (OUTPUT) y[i % 2] = fmaf(h[n], cn[i], y[i % 2]);
        }
    }
    return y[0] + y[1];
}

/* y of one token and channel from the sum of C h: skip connection and gate. Without branches, so
 * that only the store that follows is conditional. */
__device__ inline float finish(float sum, float u, float skip, float z, bool gated) {
    const float y = fmaf(skip, u, sum), g = y * silu(z);
    return gated ? g : y;
}

template <typename T, bool OUTPUT, int SPLIT>
__global__ void __launch_bounds__(32 * BLOCK_WARPS, BLOCKS)
    scan_pass(const __grid_constant__ scan_args args) {
    typedef place<T, SPLIT> P;
    constexpr bool WIDE = sizeof(T) == 4; /* B and C are used as copied */
    constexpr uint32_t PLANE = TILE * P::CHANNELS;
    extern __shared__ __align__(16) char shared[];
    const item_args &it = args.item[blockIdx.y];
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;

    P p;
    p.group = warp / args.group_warps;
    p.worker = threadIdx.x - p.group * args.group_warps * 32;
    const uint32_t block_row = blockIdx.x / args.channel_blocks;
    p.chunk = block_row * args.groups + p.group;
    if (p.chunk >= args.chunks) return; /* a whole group */
    const uint32_t block_column = blockIdx.x - block_row * args.channel_blocks;
    p.channel = (block_column * args.group_warps + p.worker / 32) * P::CHANNELS;
    p.width = p.channel < args.channels ? min(P::CHANNELS, args.channels - p.channel) : 0;
    take_shared<T, OUTPUT, SPLIT>(
        &p, shared + warp * warp_bytes<T, OUTPUT, SPLIT>(),
        shared + args.groups * args.group_warps * warp_bytes<T, OUTPUT, SPLIT>() +
            p.group * group_bytes<T, SPLIT>());

    /* The lane's channel and states 4 * (share + SPLIT * q) + i, for q and i in 0 .. 3. */
    const uint32_t share = lane % SPLIT, own = lane / SPLIT;
    const size_t chunk_index = (size_t)blockIdx.y * args.chunks + p.chunk;
    float *state = args.state + (chunk_index * args.channels + p.channel + own) * args.states;
    float h[LANE_STATES], a[LANE_STATES], delta_sum = 0;
#pragma unroll
    for (int j = 0; j < (int)LANE_STATES; j++) {
        const uint32_t n = 4 * (share + SPLIT * (j / 4)) + j % 4;
        const bool live = own < p.width && n < args.states;
        a[j] =
            live ? it.a[(size_t)(p.channel + own) * args.states + n] * 1.4426950408889634f : 0.0f;
        h[j] = OUTPUT && live && args.chunks > 1 ? state[n] : 0.0f;
    }
    /* The channel of the element-wise steps: with SPLIT > 1 not the one above. */
    const uint32_t side = lane % P::CHANNELS, side_token = lane / P::CHANNELS;
    const float bias = side < p.width ? it.delta_bias[p.channel + side] : 0.0f;
    const float skip = OUTPUT && side < p.width ? it.skip[p.channel + side] : 0.0f;
    const bool gated = it.z != nullptr;
    T *y_channel = (T *)it.y + p.channel + side;

    if (!args.whole) fill_columns(args, p, lane);
    const uint32_t begin = p.chunk * args.chunk, end = min(begin + args.chunk, args.length);
    uint32_t stage = 0, next;
    uint32_t voxel = fetch<T, OUTPUT, SPLIT>(args, it, p, begin, end, 0, lane);
    for (uint32_t t0 = begin; t0 < end; t0 += TILE, stage ^= 1, voxel = next) {
        next = fetch<T, OUTPUT, SPLIT>(args, it, p, t0 + TILE, end, stage ^ 1, lane);
        copy_wait();
        group_barrier(args.group_warps, p.group); /* the tile is here; all are done with bc */
        const float *bc = (const float *)(p.bc_rows + stage * 2 * TILE * P::STATES);
        if (!WIDE) {
            widen_bc<T, OUTPUT, SPLIT>(args, p, stage);
            group_barrier(args.group_warps, p.group);
            bc = p.bc;
        }
        bc += 4 * share;
        const T *rows = p.rows + stage * 3 * PLANE;
        const uint32_t valid = min(TILE, end - t0);

        if (SPLIT == 1) {
#pragma unroll 4
            for (uint32_t t = 0; t < TILE; t++) {
                const T *row = rows + t * P::CHANNELS + side;
                const float u = to_float(row[0]);
                const float delta = softplus<WIDE>(to_float(row[PLANE]) + bias);
                if (!OUTPUT) delta_sum += delta;
                const float sum = step<OUTPUT, SPLIT>(delta, delta * u, bc + t * P::STATES,
                                                      bc + (TILE + t) * P::STATES, h, a);
                if (OUTPUT) {
                    const size_t at = __shfl_sync(ALL, voxel, t);
                    const float y = finish(sum, u, skip, to_float(row[2 * PLANE]), gated);
                    if (side < p.width && t < valid) from_float(y, y_channel + at * it.y_row);
                }
            }
        } else {
#pragma unroll
            for (uint32_t k = 0; k < TILE; k += SPLIT) {
                const uint32_t t = k + side_token;
                if (t >= TILE) break;
                const uint32_t i = t * P::CHANNELS + side;
                const float delta = softplus<WIDE>(to_float(rows[PLANE + i]) + bias);
                p.dx[i] = make_float2(delta, delta * to_float(rows[i]));
            }
            __syncwarp();
#pragma unroll 4
            for (uint32_t t = 0; t < TILE; t++) {
                const float2 d = p.dx[t * P::CHANNELS + own];
                if (!OUTPUT) delta_sum += d.x;
                const float sum = step<OUTPUT, SPLIT>(d.x, d.y, bc + t * P::STATES,
                                                      bc + (TILE + t) * P::STATES, h, a);
                if (OUTPUT) p.partial[t * 32 + lane] = sum;
            }
            __syncwarp();
            if (OUTPUT) {
#pragma unroll
                for (uint32_t k = 0; k < TILE; k += SPLIT) {
                    const uint32_t t = k + side_token;
                    const size_t at = __shfl_sync(ALL, voxel, t % TILE);
                    if (side >= p.width || t >= valid) continue;
                    const float *part = p.partial + t * 32 + side * SPLIT;
                    float sum = 0;
#pragma unroll
                    for (int s = 0; s < SPLIT; s++) sum += part[s];
                    const T *row = rows + t * P::CHANNELS + side;
                    const float y =
                        finish(sum, to_float(row[0]), skip, to_float(row[2 * PLANE]), gated);
                    from_float(y, y_channel + at * it.y_row);
                }
            }
        }
        /* All are done with this stage: the warp with its rows, the group with B and C if they were
         * used as copied. */
        if (WIDE)
            group_barrier(args.group_warps, p.group);
        else
            __syncwarp();
    }

    if (!OUTPUT && own < p.width) {
#pragma unroll
        for (int j = 0; j < (int)LANE_STATES; j++) {
            const uint32_t n = 4 * (share + SPLIT * (j / 4)) + j % 4;
            if (n < args.states) state[n] = h[j];
        }
        if (share == 0) args.delta_sum[chunk_index * args.channels + p.channel + own] = delta_sum;
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

    constexpr uint32_t BATCH = 8;
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
    for (uint32_t c = first; c < last; c += BATCH) { /* loads first: the stores may alias them */
        float e[BATCH], s[BATCH];
#pragma unroll
        for (uint32_t i = 0; i < BATCH; i++) {
            const uint32_t k = min(c + i, last - 1);
            e[i] = state[k * columns], s[i] = sums[(size_t)k * args.channels];
        }
#pragma unroll
        for (uint32_t i = 0; i < BATCH; i++) {
            if (c + i < last) state[(c + i) * columns] = carried;
            carried = fmaf(exp2_unit(a * s[i]), carried, e[i]);
        }
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
    uint32_t channel_warps = ceil_div(s->channels, 32 / args->split);
    uint32_t most = ceil_div(s->length, MIN_CHUNK);
    uint32_t chunks = VX_SCAN_WARPS / channel_warps;
    chunks = chunks < 1 ? 1 : chunks > most ? most : chunks;
    args->chunk = ceil_div(ceil_div(s->length, chunks), TILE) * TILE;
    args->chunks = ceil_div(s->length, args->chunk);
    args->group_warps = 1;
    while (args->group_warps < BLOCK_WARPS && args->group_warps < channel_warps)
        args->group_warps *= 2;
    args->channel_blocks = ceil_div(channel_warps, args->group_warps);
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
    const uint32_t group =
        args->group_warps * warp_bytes<T, OUTPUT, SPLIT>() + group_bytes<T, SPLIT>();
    args->groups = BLOCK_WARPS / args->group_warps;
    while (args->groups > 1 && args->groups * group > SHARED_MAX) args->groups /= 2;
    if (args->groups * group > SHARED_MAX) { /* one group of fp32 rows can be larger */
        cudaError_t e = cudaFuncSetAttribute(scan_pass<T, OUTPUT, SPLIT>,
                                             cudaFuncAttributeMaxDynamicSharedMemorySize,
                                             (int)(args->groups * group));
        if (e != cudaSuccess) return e;
    }
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
    while (args.row_bytes > 32 / args.split * size) args.row_bytes /= 2;
    for (size_t i = 0; i < count; i++) {
        status = fill_item(shape, &items[i], size, &args, &args.item[i], err);
        if (status != VX_OK) return status;
    }
    const size_t warp_row = 32 / args.split * size;
    args.whole = shape->channels % (32 / args.split) == 0 &&
                 shape->states == LANE_STATES * args.split && args.bc_bytes == 16 &&
                 args.row_bytes == (warp_row < 16 ? warp_row : 16);
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
