/* The selective scan of scan.h in three launches.
 *
 *   1. scan_ends or scan_pass<false>: every chunk from a zero state -> its end state [D][N] and sum
 *      of deltas. scan_ends is the fast one, for half types with a fit (scan_fit.h).
 *   2. scan_carry: runs over the chunks, replaces each end state by the state before the chunk
 *   3. scan_pass<true>:  every chunk again from its true state -> y
 *
 * Two things limit the recurrence, about equally: the special function unit, which needs as long
 * for one exponential as the rest of a multiprocessor for eight multiply-adds, and instruction
 * issue. docs/performance.md counts them, and says what was tried.
 */
#include "cuda/scan.h"

#include "cuda/launch.cuh"
#include "cuda/scan_ends.cuh"
#include "cuda/scan_pass.cuh"

#include <algorithm>

namespace vx_cuda {
namespace {

/* How a scan is cut. The figures are measured (H200, docs/performance.md).
 *
 * Warps aimed at, over all chunks and channels of an item: many keep the multiprocessors full to
 * the end, but each chunk costs 16 N bytes a channel, and with a fit a product with N K weights.
 * ALONE: a lane has a channel to itself; half as many were 8 % slower without a fit. FITTED: the
 * same from N 32 on with a fit, 0 to 12 % quicker than twice as many. SHARED: lanes share a channel
 * and there is no fit; 2 to 14 % quicker than four times as many. LEAST: fewer are not left for
 * longer chunks. */
constexpr uint32_t WARPS_ALONE = 8192, WARPS_FITTED = 4096, WARPS_SHARED = 2048, WARPS_LEAST = 1024;
#ifndef VX_SCAN_MIN_CHUNK
#define VX_SCAN_MIN_CHUNK 64 /* tokens */
#endif
constexpr uint32_t MIN_CHUNK = VX_SCAN_MIN_CHUNK;
/* The fit pays while that product is small beside the tokens of a chunk: up to N K = 2.5 times the
 * chunk it gained 5 to 15 %, from 4 times on it lost (7 % at 4, 60 % at 16, a factor of 9 at 72).
 */
constexpr uint32_t FIT_WEIGHTS_A_TOKEN = 3, FIT_WEIGHTS_WANTED = 2;
constexpr uint32_t FIT_STATES = 64; /* scan_ends is built up to this N */
/* The ranks of scan_pass: where a lane has a channel to itself, and where lanes share one. */
constexpr uint32_t RANK_ALONE = 2, RANK_SHARED = 64;

/* Shared memory of a block, at most. */
constexpr uint32_t SHARED_MAX = 72 * 1024;

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
    const float a = live ? args.item[blockIdx.y].a[column] * LOG2_E : 0.0f;

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

bool has_fit(const vx_scan_shape *s) {
    return s->rates > 0 && s->dtype != VX_F32 && s->states <= FIT_STATES;
}

vx_status check_shape(const vx_scan_shape *s, vx_error *err) {
    if (s->length < 1 || s->length > INT32_MAX || s->channels < 1 || s->channels > (1u << 24) ||
        s->states < 1 || s->states > 256)
        return vx_fail(err, VX_ERR_USAGE,
                       "scan of %u tokens, %u channels, %u states is outside the limits", s->length,
                       s->channels, s->states);
    if (s->rank > vx_cuda_scan_rank_max(s))
        return vx_fail(err, VX_ERR_USAGE, "scan of rank %u, %u is the largest for %u states",
                       s->rank, vx_cuda_scan_rank_max(s), s->states);
    return VX_OK;
}

/* Tokens of a chunk, at least. Where lanes share a channel longer ones pay, with a fit so long that
 * the product with its weights is small. */
uint32_t least_chunk(const vx_scan_shape *s, uint32_t split, uint32_t channel_warps) {
    if (split == 1) return MIN_CHUNK;
    const uint32_t wanted =
        s->rates ? ceil_div(s->states * s->rates, FIT_WEIGHTS_WANTED) : 2 * MIN_CHUNK;
    return (uint64_t)ceil_div(s->length, wanted) * channel_warps >= WARPS_LEAST ? wanted
                                                                                : MIN_CHUNK;
}

/* Everything that follows from the shape alone. */
void cut(const vx_scan_shape *s, scan_args *args) {
    args->length = s->length, args->channels = s->channels, args->states = s->states;
    args->rank = s->rank, args->dt_width = ceil_div(s->rank, 4) * 4;
    args->lane_states = s->states > 16 ? 32 : 16;
    args->split = 1;
    while (args->split * args->lane_states < s->states) args->split *= 2;
    uint32_t channel_warps = ceil_div(s->channels, 32 / args->split);
    uint32_t most = ceil_div(s->length, least_chunk(s, args->split, channel_warps));
    const uint32_t warps = args->split > 1              ? (s->rates ? WARPS_FITTED : WARPS_SHARED)
                           : s->rates && s->states > 16 ? WARPS_FITTED
                                                        : WARPS_ALONE;
    uint32_t chunks = warps / channel_warps;
    chunks = chunks < 1 ? 1 : chunks > most ? most : chunks;
    args->chunk = ceil_div(ceil_div(s->length, chunks), 16) * 16; /* whole tiles */
    args->chunks = ceil_div(s->length, args->chunk);
}

size_t state_bytes(const scan_args *args, size_t items) {
    size_t n = items * args->chunks * args->channels * args->states * sizeof(float);
    return (n + 255) / 256 * 256;
}
size_t sum_bytes(const scan_args *args, size_t items) {
    size_t n = items * args->chunks * args->channels * sizeof(float);
    return (n + 255) / 256 * 256;
}

vx_status fill_item(const vx_scan_shape *s, const vx_scan_item *from, size_t size, scan_args *args,
                    item_args *to, vx_error *err) {
    vx_status status = make_walk(&from->walk, s->length, &to->walk, err);
    if (status != VX_OK) return status;
    if (args->rates && (!from->rates || !from->weights))
        return vx_fail(err, VX_ERR_USAGE, "scan with %u rates, but an item without a fit",
                       args->rates);
    to->u = from->u, to->delta = from->delta, to->z = from->z, to->b = from->b, to->c = from->c;
    to->y = from->y, to->dt = from->dt, to->dt_w = from->dt_w;
    to->u_row = from->u_row, to->delta_row = from->delta_row, to->z_row = from->z_row;
    to->dt_row = from->dt_row;
    to->b_row = from->b_row, to->c_row = from->c_row, to->y_row = from->y_row;
    to->rates = from->rates, to->weights = from->weights;
    to->a = from->a, to->skip = from->skip, to->delta_bias = from->delta_bias;
    uint32_t v = args->widest_row;
    v = widest(v, from->u, from->u_row, s->channels, size);
    if (s->rank)
        args->dt_bytes = widest(args->dt_bytes, from->dt, from->dt_row, s->rank, size);
    else
        v = widest(v, from->delta, from->delta_row, s->channels, size);
    if (from->z) v = widest(v, from->z, from->z_row, s->channels, size);
    v = widest(v, from->y, from->y_row, s->channels, size);
    args->widest_row = v;
    v = widest(args->bc_bytes, from->b, from->b_row, s->states, size);
    args->bc_bytes = widest(v, from->c, from->c_row, s->states, size);
    return VX_OK;
}

/* Shared memory that a block may have here, so that a multiprocessor holds two. */
uint32_t shared_limit() {
    int device = 0, block = 0, all = 0;
    if (cudaGetDevice(&device) != cudaSuccess ||
        cudaDeviceGetAttribute(&block, cudaDevAttrMaxSharedMemoryPerBlockOptin, device) !=
            cudaSuccess ||
        cudaDeviceGetAttribute(&all, cudaDevAttrMaxSharedMemoryPerMultiprocessor, device) !=
            cudaSuccess)
        return 48 * 1024;
    const int half = all / 2 - 1024; /* a block's own 1 KB */
    return std::min(SHARED_MAX, (uint32_t)std::min(block, half));
}

/* How many warps make a group and how many groups a block changes no result: it follows from the
 * channels and from the device's shared memory. */
template <typename T, bool OUTPUT, int S, int SPLIT, bool RANK>
cudaError_t launch_pass(scan_args args, size_t count, cudaStream_t stream) {
    const uint32_t limit = shared_limit();
    const uint32_t warps = ceil_div(args.channels, 32 / SPLIT);
    auto bytes = [&] {
        return args.groups * (args.group_warps * warp_bytes<T, OUTPUT, SPLIT>() +
                              group_bytes<T, S, SPLIT>(args.dt_width));
    };
    args.groups = args.group_warps = 1;
    while (args.group_warps < BLOCK_WARPS && args.group_warps < warps) args.group_warps *= 2;
    while (args.group_warps > 1 && bytes() > limit) args.group_warps /= 2;
    while (args.groups * args.group_warps < BLOCK_WARPS && 2 * bytes() <= limit) args.groups *= 2;
    args.channel_blocks = ceil_div(warps, args.group_warps);

    cudaError_t e = prefer_shared(scan_pass<T, OUTPUT, S, SPLIT, RANK>);
    if (e != cudaSuccess) return e;
    dim3 grid(ceil_div(args.chunks, args.groups) * args.channel_blocks, (unsigned)count);
    scan_pass<T, OUTPUT, S, SPLIT, RANK>
        <<<grid, args.groups * args.group_warps * 32, bytes(), stream>>>(args);
    return cudaGetLastError();
}

template <typename T, int NT, int PAIRS, bool RANK>
cudaError_t launch_ends(scan_args args, size_t count, cudaStream_t stream) {
    if (args.rates % (2 * PAIRS) != 0) return cudaErrorInvalidValue;
    args.shares = args.rates / (2 * PAIRS);
    args.octets = 1, args.octet_shift = 0;
    while (args.octets < ENDS_OCTETS && 2 * args.octets * args.shares <= ends_warps(NT) &&
           args.channels % (16 * args.octets) == 0)
        args.octets *= 2, args.octet_shift++;
    args.octet_blocks = ceil_div(args.channels, 8 * args.octets);
    args.row_bytes = args.widest_row;
    args.whole = args.channels % (8 * args.octets) == 0 && args.states == 8 * NT &&
                 args.row_bytes == 16 && args.bc_bytes == 16;
    const size_t shared = 2 * ends_stage<NT>(args.octets, RANK) * sizeof(T) +
                          (ends_exchange(NT) ? args.octets * ends_shelf::BYTES : 0);
    cudaError_t e = prefer_shared(scan_ends<T, NT, PAIRS, RANK>);
    if (e != cudaSuccess) return e;
    dim3 grid(args.chunks * args.octet_blocks, (unsigned)count);
    scan_ends<T, NT, PAIRS, RANK><<<grid, args.octets * args.shares * 32, shared, stream>>>(args);
    return cudaGetLastError();
}

/* The first pass by sums of exponentials. */
template <typename T, bool RANK> struct fitted {
    static cudaError_t launch(const scan_args &args, size_t count, cudaStream_t stream) {
        if (args.states <= 16) return launch_ends<T, 2, 5, RANK>(args, count, stream);
        if (args.states <= 32) return launch_ends<T, 4, 3, RANK>(args, count, stream);
        return launch_ends<T, 8, 4, RANK>(args, count, stream);
    }
};
template <bool RANK> struct fitted<float, RANK> {
    static cudaError_t launch(const scan_args &, size_t, cudaStream_t) {
        return cudaErrorInvalidValue;
    }
};

template <typename T, int S, int SPLIT, bool RANK>
cudaError_t launch_passes(const scan_args &args, size_t count, cudaStream_t stream) {
    cudaError_t e = cudaSuccess;
    if (args.chunks > 1) {
        e = args.rates ? fitted<T, RANK>::launch(args, count, stream)
                       : launch_pass<T, false, S, SPLIT, RANK>(args, count, stream);
        if (e != cudaSuccess) return e;
        size_t columns = (size_t)args.channels * args.states;
        scan_carry<<<dim3((unsigned)((columns + 31) / 32), (unsigned)count), 1024, 0, stream>>>(
            args);
        e = cudaGetLastError();
        if (e != cudaSuccess) return e;
    }
    return launch_pass<T, true, S, SPLIT, RANK>(args, count, stream);
}

template <typename T, int S, int SPLIT>
cudaError_t launch_split(const scan_args &args, size_t count, cudaStream_t stream) {
    return args.rank ? launch_passes<T, S, SPLIT, true>(args, count, stream)
                     : launch_passes<T, S, SPLIT, false>(args, count, stream);
}

template <typename T> cudaError_t launch(const scan_args &args, size_t count, cudaStream_t stream) {
    if (args.lane_states == 16) return launch_split<T, 16, 1>(args, count, stream);
    switch (args.split) {
    case 1:
        return launch_split<T, 32, 1>(args, count, stream);
    case 2:
        return launch_split<T, 32, 2>(args, count, stream);
    case 4:
        return launch_split<T, 32, 4>(args, count, stream);
    default:
        return launch_split<T, 32, 8>(args, count, stream);
    }
}

} // namespace
} // namespace vx_cuda

using namespace vx_cuda;

extern "C" vx_status vx_cuda_scan_scratch(const vx_scan_shape *shape, size_t items, size_t *bytes,
                                          vx_error *err) {
    scan_args args;
    vx_status status = check_shape(shape, err);
    if (status != VX_OK) return status;
    cut(shape, &args);
    *bytes = args.chunks > 1 ? state_bytes(&args, items) + sum_bytes(&args, items) : 0;
    return VX_OK;
}

extern "C" uint32_t vx_cuda_scan_rank_max(const vx_scan_shape *shape) {
    if (shape->states <= 32) return RANK_ALONE;
    return has_fit(shape) ? ENDS_RANK : RANK_SHARED;
}

extern "C" bool vx_cuda_scan_fit_pays(const vx_scan_shape *shape) {
    scan_args args;
    vx_error err;
    if (!has_fit(shape) || check_shape(shape, &err) != VX_OK) return false;
    cut(shape, &args);
    return args.chunks > 1 && shape->states * shape->rates <= FIT_WEIGHTS_A_TOKEN * args.chunk;
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
    if (has_fit(shape) && has_matrix_units()) args.rates = shape->rates;
    const size_t size = shape->dtype == VX_F32 ? 4 : 2;
    args.widest_row = args.bc_bytes = args.dt_bytes = 16;
    for (size_t i = 0; i < count; i++) {
        status = fill_item(shape, &items[i], size, &args, &args.item[i], err);
        if (status != VX_OK) return status;
    }
    /* A warp's channels are the longest piece of a row that is copied at once. */
    const uint32_t warp_row = 32 / args.split * (uint32_t)size;
    args.row_bytes = args.widest_row < warp_row ? args.widest_row : warp_row;
    args.whole = shape->channels % (32 / args.split) == 0 &&
                 shape->states == args.lane_states * args.split && args.bc_bytes == 16 &&
                 args.row_bytes == (warp_row < 16 ? warp_row : 16);
    args.state = (float *)scratch;
    args.delta_sum = scratch ? (float *)((char *)scratch + state_bytes(&args, count)) : nullptr;
    cudaError_t e = cudaErrorInvalidValue;
    switch (shape->dtype) {
    case VX_F32:
        e = launch<float>(args, count, stream);
        break;
    case VX_F16:
        e = launch<__half>(args, count, stream);
        break;
    case VX_BF16:
        e = launch<__nv_bfloat16>(args, count, stream);
        break;
    }
    if (e != cudaSuccess)
        return vx_fail(err, VX_ERR_RESOURCE, "CUDA scan: %s", cudaGetErrorString(e));
    return VX_OK;
}
