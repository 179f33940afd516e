/* The recurrence over one chunk: scan_pass<OUTPUT = false> gives end states, true gives y. See
 * scan.cu.
 *
 * A lane owns one channel and S of its states (16 or 32), in registers; SPLIT lanes (1, 2, 4 or 8)
 * share a channel, so that a warp holds 32 / SPLIT channels with all their states. Warps side by
 * side in D form a group that works on one chunk and shares its B and C: they are loaded once,
 * become fp32 in shared memory and reach the registers as broadcasts. Tokens come in tiles: the
 * next tile is copied asynchronously while this one is computed. y takes u's place in the tile and
 * leaves it in pieces of 16 bytes.
 */
#ifndef VX_CUDA_SCAN_PASS_CUH
#define VX_CUDA_SCAN_PASS_CUH

#include "cuda/scan_parts.cuh"

namespace vx_cuda {

constexpr uint32_t BLOCK_WARPS = 8; /* at most */
__host__ __device__ constexpr uint32_t min_of(uint32_t a, uint32_t b) { return a < b ? a : b; }

/* Tokens staged together. With fp32 16 are slower than 8 (docs/performance.md), and with 8 lanes a
 * channel they need more shared memory than a block may have before compute capability 8.0. */
template <typename T, int SPLIT> __host__ __device__ constexpr uint32_t tile_tokens() {
    return sizeof(T) < 4 && SPLIT <= 4 ? 16 : 8;
}

/* Blocks of 8 warps that a multiprocessor's registers are to hold. */
constexpr int pass_blocks(int lane_states) { return lane_states == 32 ? 2 : 3; }

/* A warp's place: which chunk, which channels, and its parts of shared memory. */
template <typename T, int S, int SPLIT> struct place {
    static constexpr uint32_t TILE = tile_tokens<T, SPLIT>();
    static constexpr uint32_t CHANNELS = 32 / SPLIT, STATES = S * SPLIT;
    uint32_t chunk, group, worker; /* worker: this thread's number in its group */
    uint32_t channel, width;       /* the warp's first channel and how many it has (may be 0) */
    T *rows;        /* [2][u, delta, z][TILE][CHANNELS] as copied, one for each stage */
    T *bc_rows;     /* [2][B, C][TILE][STATES], the group's */
    float *bc;      /* [B, C][TILE][STATES], the group's; unused for fp32 storage */
    T *dt_rows;     /* [2][TILE][dt_width], the group's; only with a rank */
    float *dt;      /* [TILE][dt_width], the group's; unused for fp32 storage */
    float2 *dx;     /* [TILE][CHANNELS] delta, delta * u; unused for SPLIT 1 */
    float *partial; /* [TILE][32] y's part from each lane; unused for SPLIT 1 */
};

/* Bytes of shared memory of a warp and of a group, and the pointers into them. */
template <typename T, bool OUTPUT, int SPLIT> __host__ __device__ constexpr uint32_t warp_bytes() {
    return tile_tokens<T, SPLIT>() * (32 / SPLIT * (6 * (uint32_t)sizeof(T) + (SPLIT > 1 ? 8 : 0)) +
                                      (SPLIT > 1 && OUTPUT ? 32 * 4 : 0));
}
template <typename T, int S, int SPLIT>
__host__ __device__ constexpr uint32_t group_bytes(uint32_t dt_width) {
    return tile_tokens<T, SPLIT>() * (2 * S * SPLIT + dt_width) *
           (2 * (uint32_t)sizeof(T) + (sizeof(T) < 4 ? 4 : 0));
}
template <typename T, bool OUTPUT, int S, int SPLIT>
__device__ inline void take_shared(place<T, S, SPLIT> *p, char *warp, char *group,
                                   uint32_t dt_width) {
    typedef place<T, S, SPLIT> P;
    p->rows = (T *)warp;
    p->dx = (float2 *)(p->rows + 6 * P::TILE * P::CHANNELS);
    p->partial = (float *)(p->dx + P::TILE * P::CHANNELS);
    p->bc_rows = (T *)group;
    p->bc = (float *)(p->bc_rows + 4 * P::TILE * P::STATES);
    p->dt_rows = (T *)(p->bc + (sizeof(T) < 4 ? 2 * P::TILE * P::STATES : 0));
    p->dt = (float *)(p->dt_rows + 2 * P::TILE * dt_width);
}

/* Starts the copies of tile `t0` into stage `stage`. Lane l brings token l % P::TILE and returns
 * its voxel. */
template <typename T, bool OUTPUT, int S, int SPLIT, bool RANK>
__device__ inline uint32_t fetch(const scan_args &args, const item_args &it,
                                 const place<T, S, SPLIT> &p, uint32_t t0, uint32_t end,
                                 uint32_t stage, uint32_t lane) {
    typedef place<T, S, SPLIT> P;
    constexpr uint32_t PLANE = P::TILE * P::CHANNELS, WORKERS = 32 / P::TILE;
    const uint32_t token = lane % P::TILE, worker = lane / P::TILE;
    const uint32_t group_worker = p.worker / P::TILE, group_workers = args.group_warps * WORKERS;
    T *rows = p.rows + stage * 3 * PLANE + token * P::CHANNELS;
    T *bc = p.bc_rows + (stage * 2 * P::TILE + token) * P::STATES;
    uint32_t at = 0;
    if (t0 + token < end) {
        at = voxel_of(it.walk, args.length, t0 + token);
        const size_t voxel = at;
        const T *u = (const T *)it.u + voxel * it.u_row + p.channel;
        const T *delta = RANK ? nullptr : (const T *)it.delta + voxel * it.delta_row + p.channel;
        const T *z = (const T *)it.z + voxel * it.z_row + p.channel;
        const T *b = (const T *)it.b + voxel * it.b_row, *c = (const T *)it.c + voxel * it.c_row;
        if (args.whole) {
            /* Rows of full width in the largest pieces: nothing to look up or to compare. */
            constexpr uint32_t ROW = P::CHANNELS * sizeof(T), BYTES = ROW < 16 ? ROW : 16;
            constexpr uint32_t PIECE = BYTES / sizeof(T), BC_PIECE = 16 / sizeof(T);
#pragma unroll
            for (uint32_t k = 0; k < P::CHANNELS; k += WORKERS * PIECE) {
                const uint32_t i = k + worker * PIECE;
                if (i >= P::CHANNELS || p.width == 0) break;
                copy_async<BYTES>(rows + i, u + i);
                if (!RANK) copy_async<BYTES>(rows + PLANE + i, delta + i);
                if (OUTPUT && it.z) copy_async<BYTES>(rows + 2 * PLANE + i, z + i);
            }
#pragma unroll 1
            for (uint32_t i = group_worker * BC_PIECE; i < P::STATES;
                 i += group_workers * BC_PIECE) {
                copy_async<16>(bc + i, b + i);
                if (OUTPUT) copy_async<16>(bc + P::TILE * P::STATES + i, c + i);
            }
        } else {
            copy_row(rows, u, p.width, args.row_bytes, worker, WORKERS);
            if (!RANK) copy_row(rows + PLANE, delta, p.width, args.row_bytes, worker, WORKERS);
            if (OUTPUT && it.z)
                copy_row(rows + 2 * PLANE, z, p.width, args.row_bytes, worker, WORKERS);
            copy_row(bc, b, args.states, args.bc_bytes, group_worker, group_workers);
            if (OUTPUT)
                copy_row(bc + P::TILE * P::STATES, c, args.states, args.bc_bytes, group_worker,
                         group_workers);
        }
        if (RANK)
            copy_row(p.dt_rows + (stage * P::TILE + token) * args.dt_width,
                     (const T *)it.dt + voxel * it.dt_row, args.rank, args.dt_bytes, group_worker,
                     group_workers);
    } else if (t0 < end) {
        if (worker == 0) {
            fill_row(rows, 0, P::CHANNELS, 0.0f);
            if (!RANK) fill_row(rows + PLANE, 0, P::CHANNELS, NO_DELTA);
        }
        if (group_worker == 0) {
            if (RANK)
                fill_row(p.dt_rows + (stage * P::TILE + token) * args.dt_width, 0, args.rank, 0.0f);
            fill_row(bc, 0, P::STATES, 0.0f);
            fill_row(bc + P::TILE * P::STATES, 0, P::STATES, 0.0f);
        }
    }
    copy_commit();
    return at;
}

/* The columns that no copy ever writes: channels past D and states past N, in both stages. */
template <typename T, int S, int SPLIT>
__device__ inline void fill_columns(const scan_args &args, const place<T, S, SPLIT> &p,
                                    uint32_t lane) {
    typedef place<T, S, SPLIT> P;
    for (uint32_t r = lane; r < 6 * P::TILE;
         r += 32) /* row r is of delta if (r / P::TILE) % 3 == 1 */
        fill_row(p.rows + r * P::CHANNELS, p.width, P::CHANNELS,
                 r / P::TILE % 3 == 1 ? NO_DELTA : 0.0f);
    for (uint32_t r = p.worker; r < 4 * P::TILE; r += args.group_warps * 32)
        fill_row(p.bc_rows + r * P::STATES, args.states, P::STATES, 0.0f);
}

/* The columns of dt past R, in both stages. */
template <typename T, int S, int SPLIT>
__device__ inline void fill_dt(const scan_args &args, const place<T, S, SPLIT> &p) {
    typedef place<T, S, SPLIT> P;
    for (uint32_t r = p.worker; r < 2 * P::TILE; r += args.group_warps * 32)
        fill_row(p.dt_rows + r * args.dt_width, args.rank, args.dt_width, 0.0f);
}

/* raw[k]: delta before bias and softplus of tokens k SPLIT + token of a tile, from its rows of dt,
 * for channel `channel` of D (if it is live). */
template <int SPLIT, int COUNT>
__device__ inline void project_dt(const scan_args &args, const float *dt_w, const float *dt,
                                  uint32_t channel, bool live, uint32_t token,
                                  float (&raw)[COUNT]) {
#pragma unroll
    for (int k = 0; k < COUNT; k++) raw[k] = 0;
#pragma unroll 1
    for (uint32_t r = 0; r < args.rank; r += 4) {
        float w[4];
#pragma unroll
        for (uint32_t i = 0; i < 4; i++)
            w[i] = live && r + i < args.rank ? dt_w[(size_t)(r + i) * args.channels + channel] : 0;
#pragma unroll
        for (int k = 0; k < COUNT; k++) {
            const float4 v = load4(dt + ((uint32_t)k * SPLIT + token) * args.dt_width + r);
            raw[k] = fmaf(w[3], v.w, fmaf(w[2], v.z, fmaf(w[1], v.y, fmaf(w[0], v.x, raw[k]))));
        }
    }
}

/* Writes the tile's y from the rows of u, where it was left, to the voxel of each lane's token. */
template <typename T, int S, int SPLIT>
__device__ inline void store_tile(const scan_args &args, const item_args &it,
                                  const place<T, S, SPLIT> &p, const T *rows, uint32_t voxel,
                                  uint32_t valid, uint32_t lane) {
    typedef place<T, S, SPLIT> P;
    constexpr uint32_t WORKERS = 32 / P::TILE;
    const uint32_t token = lane % P::TILE, worker = lane / P::TILE;
    if (token >= valid || p.width == 0) return;
    T *y = (T *)it.y + (size_t)voxel * it.y_row + p.channel;
    rows += token * P::CHANNELS;
    if (args.whole) {
        constexpr uint32_t ROW = P::CHANNELS * sizeof(T), BYTES = ROW < 16 ? ROW : 16;
        constexpr uint32_t PIECE = BYTES / sizeof(T);
#pragma unroll
        for (uint32_t k = 0; k < P::CHANNELS; k += WORKERS * PIECE) {
            const uint32_t i = k + worker * PIECE;
            if (i >= P::CHANNELS) break;
            if (BYTES == 16) *(uint4 *)(y + i) = *(const uint4 *)(rows + i);
            if (BYTES == 8) *(uint2 *)(y + i) = *(const uint2 *)(rows + i);
            if (BYTES == 4) *(uint32_t *)(y + i) = *(const uint32_t *)(rows + i);
        }
    } else {
#pragma unroll 1
        for (uint32_t i = worker; i < p.width; i += WORKERS) y[i] = rows[i];
    }
}

/* B, C and dt of the staged tile to fp32, by the group. */
template <typename T, bool OUTPUT, int S, int SPLIT, bool RANK>
__device__ inline void widen_shared(const scan_args &args, const place<T, S, SPLIT> &p,
                                    uint32_t stage) {
    typedef place<T, S, SPLIT> P;
    constexpr uint32_t COUNT = P::TILE * P::STATES;
    const T *from = p.bc_rows + stage * 2 * COUNT;
#pragma unroll 1
    for (uint32_t i = 4 * p.worker; i < (OUTPUT ? 2 : 1) * COUNT; i += args.group_warps * 128)
        *(float4 *)(p.bc + i) = load4(from + i);
    if (RANK) {
        const uint32_t count = P::TILE * args.dt_width;
        for (uint32_t i = 4 * p.worker; i < count; i += args.group_warps * 128)
            *(float4 *)(p.dt + i) = load4(p.dt_rows + stage * count + i);
    }
}

/* One token for this lane's S states: h <- exp2(delta a) h + x B; returns the sum of C h. b and c
 * point to the lane's first quad of states; the next is 4 * SPLIT further. */
template <bool OUTPUT, int S, int SPLIT>
__device__ inline float step(float delta, float x, const float *b, const float *c, float (&h)[S],
                             const float (&a)[S]) {
    float y[2] = {0, 0};
#pragma unroll
    for (int q = 0; q < S / 4; q++) {
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

/* y of one token and channel from the sum of C h: skip connection and gate, without branches. */
__device__ inline float finish(float sum, float u, float skip, float z, bool gated) {
    const float y = fmaf(skip, u, sum);
    return gated ? y * silu(z) : y;
}

/* RANK: delta is made from dt here. Where a lane has a channel to itself (SPLIT 1) R is at most 2,
 * and its weights stay in registers. */
template <typename T, bool OUTPUT, int S, int SPLIT, bool RANK>
__global__ void __launch_bounds__(32 * BLOCK_WARPS, pass_blocks(S))
    scan_pass(const __grid_constant__ scan_args args) {
    typedef place<T, S, SPLIT> P;
    constexpr bool WIDE = sizeof(T) == 4;           /* B, C and dt are used as copied */
    constexpr int UNROLL = S == 16 && RANK ? 2 : 4; /* tokens: what registers allow */
    constexpr uint32_t PLANE = P::TILE * P::CHANNELS;
    char *shared = shared_memory();
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
    take_shared<T, OUTPUT, S, SPLIT>(
        &p, shared + warp * warp_bytes<T, OUTPUT, SPLIT>(),
        shared + args.groups * args.group_warps * warp_bytes<T, OUTPUT, SPLIT>() +
            p.group * group_bytes<T, S, SPLIT>(args.dt_width),
        args.dt_width);

    /* The lane's channel and states 4 * (share + SPLIT * q) + i, for q below S / 4 and i in 0..3 */
    const uint32_t share = lane % SPLIT, own = lane / SPLIT;
    const size_t chunk_index = (size_t)blockIdx.y * args.chunks + p.chunk;
    float *state = args.state + (chunk_index * args.channels + p.channel + own) * args.states;
    float h[S], a[S], delta_sum = 0;
#pragma unroll
    for (int j = 0; j < S; j++) {
        const uint32_t n = 4 * (share + SPLIT * (j / 4)) + j % 4;
        const bool live = own < p.width && n < args.states;
        a[j] = live ? it.a[(size_t)(p.channel + own) * args.states + n] * LOG2_E : 0.0f;
        h[j] = OUTPUT && live && args.chunks > 1 ? state[n] : 0.0f;
    }
    /* The channel of the element-wise steps: with SPLIT > 1 not the one above. */
    const uint32_t side = lane % P::CHANNELS, side_token = lane / P::CHANNELS;
    const float bias = side < p.width ? it.delta_bias[p.channel + side] : 0.0f;
    const float skip = OUTPUT && side < p.width ? it.skip[p.channel + side] : 0.0f;
    const bool gated = it.z != nullptr;
    float w[2] = {0, 0};
    if (RANK && SPLIT == 1 && side < p.width)
        for (uint32_t r = 0; r < 2 && r < args.rank; r++)
            w[r] = it.dt_w[(size_t)r * args.channels + p.channel + side];

    if (!args.whole) fill_columns(args, p, lane);
    if (RANK) fill_dt(args, p);
    const uint32_t begin = p.chunk * args.chunk, end = min(begin + args.chunk, args.length);
    uint32_t stage = 0, next;
    uint32_t voxel = fetch<T, OUTPUT, S, SPLIT, RANK>(args, it, p, begin, end, 0, lane);
    for (uint32_t t0 = begin; t0 < end; t0 += P::TILE, stage ^= 1, voxel = next) {
        next = fetch<T, OUTPUT, S, SPLIT, RANK>(args, it, p, t0 + P::TILE, end, stage ^ 1, lane);
        copy_wait();
        /* The tile is here; all are done with bc. */
        group_barrier(args.group_warps, BLOCK_WARPS, p.group);
        const float *bc = (const float *)(p.bc_rows + stage * 2 * P::TILE * P::STATES);
        const float *dt = (const float *)(p.dt_rows + stage * P::TILE * args.dt_width);
        if (!WIDE) {
            widen_shared<T, OUTPUT, S, SPLIT, RANK>(args, p, stage);
            group_barrier(args.group_warps, BLOCK_WARPS, p.group);
            bc = p.bc, dt = p.dt;
        }
        bc += 4 * share;
        T *rows = p.rows + stage * 3 * PLANE;
        if (SPLIT == 1) {
#pragma unroll UNROLL
            for (uint32_t t = 0; t < P::TILE; t++) {
                T *row = rows + t * P::CHANNELS + side;
                const float u = to_float(row[0]);
                float raw;
                if (RANK) {
                    const float2 v = *(const float2 *)(dt + t * args.dt_width);
                    raw = fmaf(w[1], v.y, fmaf(w[0], v.x, bias));
                } else {
                    raw = to_float(row[PLANE]) + bias;
                }
                const float delta = softplus<WIDE>(raw);
                if (!OUTPUT) delta_sum += delta;
                const float sum = step<OUTPUT, S, SPLIT>(delta, delta * u, bc + t * P::STATES,
                                                         bc + (P::TILE + t) * P::STATES, h, a);
                if (OUTPUT)
                    store_shared(row, finish(sum, u, skip, to_float(row[2 * PLANE]), gated));
            }
        } else {
            constexpr uint32_t AT_ONCE = min_of(4, P::TILE / SPLIT); /* for want of registers */
#pragma unroll
            for (uint32_t k = 0; k < P::TILE; k += AT_ONCE * SPLIT) {
                float raw[AT_ONCE];
                if (RANK)
                    project_dt<SPLIT>(args, it.dt_w, dt, p.channel + side, side < p.width,
                                      k + side_token, raw);
#pragma unroll
                for (uint32_t j = 0; j < AT_ONCE; j++) {
                    const uint32_t i = (k + j * SPLIT + side_token) * P::CHANNELS + side;
                    if (!RANK) raw[j] = to_float(rows[PLANE + i]);
                    const float delta = softplus<WIDE>(raw[j] + bias);
                    p.dx[i] = make_float2(delta, delta * to_float(rows[i]));
                }
            }
            __syncwarp();
#pragma unroll UNROLL
            for (uint32_t t = 0; t < P::TILE; t++) {
                const float2 d = p.dx[t * P::CHANNELS + own];
                if (!OUTPUT) delta_sum += d.x;
                const float sum = step<OUTPUT, S, SPLIT>(d.x, d.y, bc + t * P::STATES,
                                                         bc + (P::TILE + t) * P::STATES, h, a);
                if (OUTPUT) store_shared(p.partial + t * 32 + lane, sum);
            }
            __syncwarp();
            if (OUTPUT) {
#pragma unroll
                for (uint32_t k = 0; k < P::TILE; k += SPLIT) {
                    const uint32_t t = k + side_token;
                    const float *part = p.partial + t * 32 + side * SPLIT;
                    float sum = 0;
#pragma unroll
                    for (int s = 0; s < SPLIT; s++) sum += part[s];
                    T *row = rows + t * P::CHANNELS + side;
                    from_float(finish(sum, to_float(row[0]), skip, to_float(row[2 * PLANE]), gated),
                               row);
                }
            }
        }
        if (OUTPUT) {
            __syncwarp();
            store_tile(args, it, p, rows, voxel, min(P::TILE, end - t0), lane);
        }
        /* All are done with this stage: the warp with its rows, the group with B and C if they were
         * used as copied. */
        if (WIDE)
            group_barrier(args.group_warps, BLOCK_WARPS, p.group);
        else
            __syncwarp();
    }

    if (!OUTPUT && own < p.width) {
#pragma unroll
        for (int j = 0; j < S; j++) {
            const uint32_t n = 4 * (share + SPLIT * (j / 4)) + j % 4;
            if (n < args.states) state[n] = h[j];
        }
        if (share == 0) args.delta_sum[chunk_index * args.channels + p.channel + own] = delta_sum;
    }
}

} // namespace vx_cuda

#endif
