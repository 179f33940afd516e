/* The kernel of mamba_in.h. A row group of warps takes 32 tokens of the order, of which the first
 * three belong to the tile before and are only looked back at, through everything; nothing but x
 * and the outputs touches memory. Its warps share out z's and u's blocks of 32 channels, then the
 * projections' blocks of 32 columns; v and u pass through shared memory in the storage type. Row
 * groups of a block use the same weights at about the same time: from the L1 cache.
 *
 * A lane holds four tokens in sequence (mamba_rows.cuh), so that three of four values that the
 * convolution looks back at are its own, and the others its neighbour's. A token before the first
 * one has v = 0, hence p = 0: the convolution's padding.
 */
#include "cuda/mamba_in.h"

#include "cuda/launch.cuh"
#include "cuda/mamba_rows.cuh"
#include "cuda/walk.cuh"

namespace vx_cuda {
namespace {

constexpr uint32_t BEFORE = 3;  /* tokens that the convolution looks back */
constexpr uint32_t TOKENS = 32; /* of a row group, those included */
constexpr uint32_t THREADS = 256;
constexpr uint32_t NONE = 0xffffffffu; /* the voxel of a token that does not exist */

struct in_args {
    vx_mamba_in_item item[VX_SCAN_MAX_ITEMS];
    walk_args walk[VX_SCAN_MAX_ITEMS];
    uint32_t length, features, channels, columns;
    uint32_t row_groups, sharers; /* of a block; warps of a row group */
    float inverse, eps;           /* 1 / C */
};

/* Where a warp is. */
struct in_place {
    uint32_t lane, sharer;
    int32_t first; /* token of its row 0; may be below 0 */
    /* The row group's, in shared memory: [block][4][lane], operands of products. */
    uint4 *v, *u;
    uint32_t voxel[4]; /* of the lane's rows 4 (lane / 4) + r */
    __device__ uint32_t row(int r) const { return 4 * (lane / 4) + (uint32_t)r; }
};

/* Bytes of shared memory of a row group. */
__host__ __device__ inline uint32_t group_bytes(uint32_t features, uint32_t channels) {
    return TOKENS * (features + channels) * 2;
}

template <int ALONE> __device__ inline void sharers_barrier() {
    if (ALONE)
        __syncwarp();
    else
        __syncthreads();
}

__device__ inline uint32_t voxel_at(const in_args &args, const walk_args &walk, int32_t token) {
    return token >= 0 && token < (int32_t)args.length ? voxel_of(walk, args.length, (uint32_t)token)
                                                      : NONE;
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

/* The same for a warp that has its tokens to itself, and BLOCKS blocks of features: in registers,
 * each lane its own four rows. voxel: of these. */
template <typename T, int BLOCKS>
__device__ inline void normalise_alone(const in_args &args, const vx_mamba_in_item &it,
                                       const in_place &at, const uint32_t (&voxel)[4]) {
    const uint32_t feature = 8 * (at.lane % 4);
    float v[BLOCKS][4][8];
#pragma unroll
    for (int r = 0; r < 4; r++)
#pragma unroll
        for (int k = 0; k < BLOCKS; k++) {
            uint4 x = make_uint4(0, 0, 0, 0);
            if (voxel[r] != NONE)
                x = *(const uint4 *)((const T *)it.x + (size_t)voxel[r] * it.x_row + 32 * k +
                                     feature);
            widen8<T>(x, v[k][r]);
        }
    if (it.before_gamma)
        normalise_rows(v, it.before_gamma + feature, it.before_beta + feature, args.inverse,
                       args.eps, sum_lanes);
    normalise_rows(v, it.gamma + feature, it.beta + feature, args.inverse, args.eps, sum_lanes);
#pragma unroll
    for (int k = 0; k < BLOCKS; k++) {
        uint4 rows[4];
#pragma unroll
        for (int r = 0; r < 4; r++)
            rows[r] = voxel[r] != NONE ? narrow8<T>(v[k][r]) : make_uint4(0, 0, 0, 0);
        put_operands(at, at.v, (uint32_t)k, rows);
    }
}

/* sum = one block of outputs of the row group's tokens, whose operands `from` has. */
template <typename T>
__device__ inline void product(const in_place &at, const uint4 *from, uint32_t inputs,
                               const uint4 *weights, float (&sum)[4][8]) {
#pragma unroll
    for (int r = 0; r < 4; r++)
#pragma unroll
        for (int i = 0; i < 8; i++) sum[r][i] = 0;
#pragma unroll 2
    for (uint32_t k = 0; k < inputs / 32; k++) {
        uint4 in[4];
#pragma unroll
        for (uint32_t i = 0; i < 4; i++) in[i] = from[(4 * k + i) * 32 + at.lane];
        multiply_block<T>(in, weights + 128 * k, sum);
    }
}

/* u from p, in its place, of this lane's 8 channels from `channel`. */
__device__ inline void convolve(const vx_mamba_in_item &it, uint32_t channel, float (&p)[4][8]) {
#pragma unroll
    for (int i = 0; i < 8; i++) {
        const float4 k = __ldg((const float4 *)it.conv + channel + i);
        const float bias = __ldg(it.conv_bias + channel + i);
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

template <typename T> __device__ inline void narrow(const float (&from)[4][8], uint4 (&to)[4]) {
#pragma unroll
    for (int r = 0; r < 4; r++) to[r] = narrow8<T>(from[r]);
}

/* Grid: tiles of tokens, items. ALONE: the features in blocks where a row group is one warp; else
 * 0. */
template <typename T, int ALONE>
__global__ void __launch_bounds__(THREADS, 2) mamba_in(const __grid_constant__ in_args args) {
    const vx_mamba_in_item &it = args.item[blockIdx.y];
    const walk_args &walk = args.walk[blockIdx.y];
    const uint32_t warp = threadIdx.x / 32, group = warp / args.sharers;
    const uint32_t D = args.channels, blocks = D / 32;
    in_place at;
    at.lane = threadIdx.x % 32, at.sharer = warp - group * args.sharers;
    at.first =
        (int32_t)((blockIdx.x * args.row_groups + group) * (TOKENS - BEFORE)) - (int32_t)BEFORE;
    at.v = (uint4 *)(shared_memory() + group * group_bytes(args.features, D));
    at.u = at.v + TOKENS * args.features / 8;
    const uint32_t own = voxel_at(args, walk, at.first + (int32_t)at.lane);
#pragma unroll
    for (int r = 0; r < 4; r++) at.voxel[r] = __shfl_sync(ALL_LANES, own, (int)at.row(r));
    if constexpr (ALONE > 0)
        normalise_alone<T, ALONE>(args, it, at, at.voxel);
    else
        normalise_shared<T>(args, it, at, own);
    sharers_barrier<ALONE>();
#pragma unroll
    for (int r = 0; r < 4; r++) /* from now on: where results go */
        if (at.row(r) < BEFORE) at.voxel[r] = NONE;

    float sum[4][8];
    uint4 narrowed[4];
    const uint32_t q8 = 8 * (at.lane % 4);
    for (uint32_t k = at.sharer; k < 2 * blocks; k += args.sharers) { /* u, then z */
        const uint32_t inputs = ALONE ? 32 * ALONE : args.features;
        product<T>(at, at.v, inputs, weights_of(it.weights, inputs, k, at.lane), sum);
        const uint32_t channel = 32 * (k < blocks ? k : k - blocks) + q8;
        if (k < blocks) convolve(it, channel, sum);
        narrow<T>(sum, narrowed);
        store<T>(at, narrowed, k < blocks ? it.u : it.z, k < blocks ? it.u_row : it.z_row, channel);
        if (k < blocks) put_operands(at, at.u, k, narrowed);
    }
    sharers_barrier<ALONE>();
    const T *x_proj = (const T *)it.weights + (size_t)2 * D * args.features;
    for (uint32_t k = at.sharer; 32 * k < args.columns; k += args.sharers) {
        product<T>(at, at.u, D, weights_of(x_proj, D, k, at.lane), sum);
        narrow<T>(sum, narrowed);
        if (32 * k + q8 < args.columns)
            store<T>(at, narrowed, it.projections, it.projections_row, 32 * k + q8);
    }
}

/* ---- host -------------------------------------------------------------------------------------
 */

/* Warps that share their tokens, so that few tokens still make many warps, and row groups of a
 * block, as many as its shared memory holds. Neither changes a result. */
uint32_t cut(in_args *args) {
    const uint32_t c = args->features, bytes = group_bytes(c, args->channels);
    int device = 0, limit = 48 * 1024;
    if (cudaGetDevice(&device) == cudaSuccess)
        (void)cudaDeviceGetAttribute(&limit, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
    args->sharers = c <= 64 ? 1 : c <= 128 ? 2 : c <= 256 ? 4 : 8;
    args->row_groups = c <= 128 ? 4 : c <= 256 ? 2 : 1;
    while (args->row_groups > 1 && args->row_groups * bytes > (uint32_t)limit)
        args->row_groups /= 2;
    return args->row_groups * bytes;
}

template <typename T, int ALONE>
cudaError_t launch_blocks(in_args args, size_t count, cudaStream_t stream) {
    const uint32_t shared = cut(&args), tokens = args.row_groups * (TOKENS - BEFORE);
    cudaError_t e = allow_shared(mamba_in<T, ALONE>, shared);
    if (e != cudaSuccess) return e;
    mamba_in<T, ALONE><<<dim3(ceil_div(args.length, tokens), (unsigned)count),
                         32 * args.row_groups * args.sharers, shared, stream>>>(args);
    return cudaGetLastError();
}

template <typename T> cudaError_t launch(const in_args &args, size_t count, cudaStream_t stream) {
    if (args.features == 32) return launch_blocks<T, 1>(args, count, stream);
    if (args.features == 64) return launch_blocks<T, 2>(args, count, stream);
    return launch_blocks<T, 0>(args, count, stream);
}

vx_status check_item(const vx_mamba_in_item *it, vx_error *err) {
    const size_t rows = it->x_row | it->u_row | it->z_row | it->projections_row;
    const uintptr_t at = (uintptr_t)it->x | (uintptr_t)it->u | (uintptr_t)it->z |
                         (uintptr_t)it->projections | (uintptr_t)it->weights;
    if (rows % 8 == 0 && at % 16 == 0) return VX_OK;
    return vx_fail(err, VX_ERR_USAGE, "Mamba input with rows that are no multiples of 16 bytes");
}

} // namespace
} // namespace vx_cuda

using namespace vx_cuda;

extern "C" bool vx_cuda_mamba_in_takes(const vx_mamba_in_shape *s) {
    return s->length >= 1 && s->length <= INT32_MAX - 256 && s->features >= 32 &&
           s->features <= 512 && s->features % 32 == 0 && s->channels > s->features &&
           s->channels <= 1024 && s->channels % 32 == 0 && s->states >= 1 && s->states <= 256 &&
           s->rank >= 1 && s->rank <= 64 && s->dtype != VX_F32 && has_matrix_units();
}

extern "C" vx_status vx_cuda_mamba_in(const vx_mamba_in_shape *shape, const vx_mamba_in_item *items,
                                      size_t count, cudaStream_t stream, vx_error *err) {
    if (!vx_cuda_mamba_in_takes(shape) || count < 1 || count > VX_SCAN_MAX_ITEMS)
        return vx_fail(err, VX_ERR_USAGE,
                       "%zu Mamba inputs of %u tokens, %u features, %u channels, %u states, rank "
                       "%u are outside the limits, or the storage type or the device is",
                       count, shape->length, shape->features, shape->channels, shape->states,
                       shape->rank);
    in_args args = {};
    args.length = shape->length, args.features = shape->features, args.channels = shape->channels;
    args.columns = vx_mamba_in_columns(shape), args.eps = shape->eps;
    args.inverse = 1.0f / (float)shape->features;
    for (size_t i = 0; i < count; i++) {
        args.item[i] = items[i];
        vx_status status = check_item(&items[i], err);
        if (status == VX_OK) status = make_walk(&items[i].walk, shape->length, &args.walk[i], err);
        if (status != VX_OK) return status;
    }
    const cudaError_t e = shape->dtype == VX_F16 ? launch<__half>(args, count, stream)
                                                 : launch<__nv_bfloat16>(args, count, stream);
    if (e != cudaSuccess)
        return vx_fail(err, VX_ERR_RESOURCE, "CUDA Mamba input: %s", cudaGetErrorString(e));
    return VX_OK;
}
