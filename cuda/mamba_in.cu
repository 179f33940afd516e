/* The kernels of mamba_in.h: a block takes a tile of tokens of the order, with the three before it,
 * through both products; nothing but x, u and the projections touches memory.
 *
 * mamba_in: on the matrix units. 64 channels at a time are between the products: in_proj into fp32,
 *   convolution and SiLU into the storage type, x_proj into registers. Where its outputs are more
 *   than registers hold, blocks side by side share them and repeat the first product.
 * mamba_in_exact: fp32 throughout, a thread a channel.
 *
 * A token before the first one has v = 0, hence p = 0: the convolution's padding.
 */
#include "cuda/launch.cuh"
#include "cuda/mamba_in_layout.h"
#include "cuda/walk.cuh"

#include "cuda/device.cuh"

namespace vx_cuda {
namespace {

constexpr uint32_t BEFORE = 3;         /* tokens that the convolution looks back */
constexpr uint32_t NONE = 0xffffffffu; /* the voxel of a token that does not exist */
constexpr float EPSILON = 1e-5f;

struct in_item {
    const void *x;
    void *u, *projections;
    size_t x_row, u_row, projections_row;
    const float *gamma, *beta, *conv, *conv_bias;
    const void *weights;
    walk_args walk;
};

struct in_args {
    in_item item[VX_SCAN_MAX_ITEMS];
    uint32_t length, features, channels;
    uint32_t columns, column_tiles; /* of the projections */
    uint32_t slabs, feature_tiles, channel_tiles;
    size_t in_proj;                    /* elements of its packed weights: x_proj's come next */
    uint32_t x_bytes;                  /* of one copy of x: 16, 8, 4 or 0 (one by one) */
    uint32_t wide_u, wide_projections; /* rows can be stored in pieces of 16 bytes */
};

/* Fills voxel[0 .. rows): of the tile's tokens and, first, the three before. */
__device__ inline void find_voxels(const in_args &args, const in_item &it, uint32_t *voxel,
                                   uint32_t rows) {
    for (uint32_t r = threadIdx.x; r < rows; r += blockDim.x) {
        const uint32_t t = blockIdx.x * (rows - BEFORE) + r; /* plus BEFORE */
        voxel[r] = t >= BEFORE && t - BEFORE < args.length
                       ? voxel_of(it.walk, args.length, t - BEFORE)
                       : NONE;
    }
}

/* ---- matrix units -----------------------------------------------------------------------------
 */

/* Shared memory of a block with ROW_GROUPS groups of 32 rows, each of two warps. */
template <typename T, int ROW_GROUPS, int TILES> struct in_shared {
    static constexpr uint32_t ROWS = 32 * ROW_GROUPS, THREADS = 64 * ROW_GROUPS;
    static constexpr uint32_t COLUMNS = 16 * TILES; /* of the projections, in a block */
    static constexpr uint32_t P_ROW = IN_SLAB + 8, U_ROW = IN_SLAB + 8, OUT_ROW = COLUMNS + 8;
    static constexpr uint32_t P_BYTES = ROWS * P_ROW * 4, OUT_BYTES = ROWS * OUT_ROW * 2;
    static constexpr uint32_t MIDDLE = P_BYTES > OUT_BYTES ? P_BYTES : OUT_BYTES;
    uint32_t *voxel; /* [ROWS] */
    float *p;        /* [ROWS][P_ROW], of a slab */
    T *out;          /* [ROWS][OUT_ROW], in p's place */
    T *u;            /* [ROWS][U_ROW], of a slab */
    T *v;            /* [ROWS][v_row] */
    uint32_t v_row;
    __host__ __device__ static uint32_t bytes(uint32_t feature_tiles) {
        return ROWS * 4 + MIDDLE + ROWS * U_ROW * 2 + ROWS * (16 * feature_tiles + 8) * 2;
    }
    __device__ explicit in_shared(uint32_t feature_tiles) {
        char *at = shared_memory();
        voxel = (uint32_t *)at, p = (float *)(at + ROWS * 4), out = (T *)p;
        u = (T *)(at + ROWS * 4 + MIDDLE), v = u + ROWS * U_ROW;
        v_row = 16 * feature_tiles + 8;
    }
};

/* LayerNorm of a warp's 16 rows, in place of x; zero for tokens and features that do not exist.
 * Four lanes share a row, eight rows go side by side. */
template <typename T>
__device__ inline void normalise(const in_args &args, const in_item &it, const uint32_t *voxel,
                                 T *rows, uint32_t row_step, uint32_t lane) {
    const uint32_t features = args.features, q = lane % 4;
    for (uint32_t r = lane / 4; r < 16; r += 8)
        if (voxel[r] != NONE)
            copy_row(rows + r * row_step, (const T *)it.x + (size_t)voxel[r] * it.x_row, features,
                     args.x_bytes, q, 4);
    copy_commit();
    copy_wait_all();
    __syncwarp();
    for (uint32_t r = lane / 4; r < 16; r += 8) {
        const bool live = voxel[r] != NONE;
        uint32_t *row = (uint32_t *)(rows + r * row_step);
        float sum = 0;
        for (uint32_t c = 2 * q; live && c < features; c += 8) {
            const float2 x = pair<T>::wide(row[c / 2]);
            sum += x.x + (c + 1 < features ? x.y : 0.0f);
        }
        sum += __shfl_xor_sync(ALL_LANES, sum, 1);
        sum += __shfl_xor_sync(ALL_LANES, sum, 2);
        const float mean = sum / (float)features;
        float squares = 0;
        for (uint32_t c = 2 * q; live && c < features; c += 8) {
            const float2 x = pair<T>::wide(row[c / 2]);
            const float lo = x.x - mean, hi = c + 1 < features ? x.y - mean : 0.0f;
            squares = fmaf(lo, lo, fmaf(hi, hi, squares));
        }
        squares += __shfl_xor_sync(ALL_LANES, squares, 1);
        squares += __shfl_xor_sync(ALL_LANES, squares, 2);
        const float scale = 1.0f / sqrtf(squares / (float)features + EPSILON);
        for (uint32_t c = 2 * q; c < 16 * args.feature_tiles; c += 8) {
            float v[2] = {0, 0};
            const float2 x = live && c < features ? pair<T>::wide(row[c / 2]) : make_float2(0, 0);
            const float raw[2] = {x.x, x.y};
            for (uint32_t i = 0; i < 2; i++)
                if (live && c + i < features)
                    v[i] = fmaf((raw[i] - mean) * scale, it.gamma[c + i], it.beta[c + i]);
            row[c / 2] = pair<T>::pack(v[0], v[1]);
        }
    }
}

/* sum += 32 rows of a, from shared memory, times `live` of TILES output tiles of packed weights b,
 * whose input tiles are `b_tiles` to an output tile. */
template <typename T, int TILES>
__device__ inline void multiply(const T *a, uint32_t a_row, const uint2 *b, uint32_t b_tiles,
                                uint32_t input_tiles, uint32_t live, float (&sum)[2][TILES][4],
                                uint32_t lane) {
    a += (lane & 15) * a_row + (lane >> 4) * 8;
    b += lane;
#pragma unroll 1
    for (uint32_t k = 0; k < input_tiles; k++) {
        uint32_t am[2][4];
        load_matrices(am[0], a + 16 * k);
        load_matrices(am[1], a + 16 * a_row + 16 * k);
#pragma unroll
        for (int j = 0; j < TILES; j++) {
            if ((uint32_t)j >= live) break;
            const uint2 w = b[((size_t)j * b_tiles + k) * 32];
            multiply_add<T>(sum[0][j], am[0], w.x, w.y);
            multiply_add<T>(sum[1][j], am[1], w.x, w.y);
        }
    }
}

template <typename V, int TILES> __device__ inline void clear(V (&sum)[2][TILES][4]) {
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
        for (int j = 0; j < TILES; j++)
            sum[i][j][0] = sum[i][j][1] = sum[i][j][2] = sum[i][j][3] = 0;
}

/* u of a warp's 16 rows and a slab's channels from p; rows is where its first row lies in p, which
 * has the three rows before it unless the warp is the block's first. */
template <typename T>
__device__ inline void convolve(const in_args &args, const in_item &it, const float *p,
                                uint32_t p_row, T *u, uint32_t u_row, uint32_t slab, bool first,
                                uint32_t lane) {
#pragma unroll
    for (uint32_t i = lane; i < IN_SLAB; i += 32) {
        const uint32_t channel = slab * IN_SLAB + i;
        float4 k = make_float4(0, 0, 0, 0);
        float bias = 0;
        if (channel < args.channels)
            k = *(const float4 *)(it.conv + 4 * (size_t)channel), bias = it.conv_bias[channel];
        float a = 0, b = 0, c = 0;
        if (!first) {
            const float *back = p + i - BEFORE * p_row;
            a = back[0], b = back[p_row], c = back[2 * p_row];
        }
#pragma unroll
        for (uint32_t r = 0; r < 16; r++) {
            const float d = p[i + r * p_row];
            const float sum = fmaf(k.x, a, fmaf(k.y, b, fmaf(k.z, c, fmaf(k.w, d, bias))));
            from_float(silu(sum), u + r * u_row + i);
            a = b, b = c, c = d;
        }
    }
}

/* Writes the columns first .. first + WIDTH of the tile's rows, as far as they exist. */
template <typename T, uint32_t WIDTH>
__device__ inline void store_rows(const T *tile, uint32_t tile_row, const uint32_t *voxel,
                                  uint32_t rows, T *out, size_t out_row, uint32_t first,
                                  uint32_t columns, bool wide) {
    constexpr uint32_t PIECES = WIDTH / 8;
    for (uint32_t i = threadIdx.x; i < rows * PIECES; i += blockDim.x) {
        const uint32_t r = i / PIECES, piece = i % PIECES, column = first + 8 * piece;
        if (r < BEFORE || voxel[r] == NONE || column >= columns) continue;
        const T *from = tile + r * tile_row + 8 * piece;
        T *to = out + (size_t)voxel[r] * out_row + column;
        if (wide)
            *(uint4 *)to = *(const uint4 *)from;
        else
            for (uint32_t k = 0; k < min(8u, columns - column); k++) to[k] = from[k];
    }
}

/* Grid: tiles of tokens, blocks side by side in the columns, items. */
template <typename T, int ROW_GROUPS, int TILES>
__global__ void __launch_bounds__(64 * ROW_GROUPS, 512 / (64 * ROW_GROUPS))
    mamba_in(const __grid_constant__ in_args args) {
    typedef in_shared<T, ROW_GROUPS, TILES> S;
    const in_item &it = args.item[blockIdx.z];
    const S s(args.feature_tiles);
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const uint32_t row = 32 * (warp % ROW_GROUPS), side = warp / ROW_GROUPS; /* of its products */
    const uint32_t own = 16 * warp; /* its rows in the other steps */
    const uint2 *in_proj = (const uint2 *)it.weights;
    const uint2 *x_proj = (const uint2 *)((const T *)it.weights + args.in_proj);
    const uint32_t first_tile = blockIdx.y * 2 * TILES + side * TILES;
    const uint32_t live =
        first_tile < args.column_tiles ? min((uint32_t)TILES, args.column_tiles - first_tile) : 0;

    find_voxels(args, it, s.voxel, S::ROWS);
    __syncthreads();
    normalise(args, it, s.voxel + own, s.v + own * s.v_row, s.v_row, lane);
    __syncthreads();

    float out[2][TILES][4];
    clear(out);
    const uint32_t g = lane / 4, q = lane % 4;
    for (uint32_t slab = 0; slab < args.slabs; slab++) {
        /* p: two products of 16 columns a warp, so that few registers are taken from `out`. */
#pragma unroll 1
        for (uint32_t half = 0; half < 2; half++) {
            float sum[2][2][4];
            clear(sum);
            const uint32_t tile = 4 * side + 2 * half;
            multiply(s.v + row * s.v_row, s.v_row,
                     in_proj + (size_t)(slab * 8 + tile) * args.feature_tiles * 32,
                     args.feature_tiles, args.feature_tiles, 2, sum, lane);
#pragma unroll
            for (int i = 0; i < 2; i++)
#pragma unroll
                for (int j = 0; j < 2; j++) {
                    float *to = s.p + (row + 16 * i + g) * S::P_ROW + 8 * (tile + j) + 2 * q;
                    *(float2 *)to = make_float2(sum[i][j][0], sum[i][j][1]);
                    *(float2 *)(to + 8 * S::P_ROW) = make_float2(sum[i][j][2], sum[i][j][3]);
                }
        }
        __syncthreads();
        convolve(args, it, s.p + own * S::P_ROW, S::P_ROW, s.u + own * S::U_ROW, S::U_ROW, slab,
                 warp == 0, lane);
        __syncthreads();
        if (blockIdx.y == 0)
            store_rows<T, IN_SLAB>(s.u, S::U_ROW, s.voxel, S::ROWS, (T *)it.u, it.u_row,
                                   slab * IN_SLAB, args.channels, args.wide_u);
        multiply(s.u + row * S::U_ROW, S::U_ROW,
                 x_proj + ((size_t)first_tile * args.channel_tiles + slab * (IN_SLAB / 16)) * 32,
                 args.channel_tiles, IN_SLAB / 16, live, out, lane);
    }
    /* `out` takes the place of p, which nobody reads after the last barrier. */
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
        for (int j = 0; j < TILES; j++) {
            uint32_t *to = (uint32_t *)(s.out + (row + 16 * i + g) * S::OUT_ROW +
                                        8 * (side * TILES + j) + 2 * q);
            to[0] = pair<T>::pack(out[i][j][0], out[i][j][1]);
            to[4 * S::OUT_ROW] = pair<T>::pack(out[i][j][2], out[i][j][3]);
        }
    __syncthreads();
    store_rows<T, S::COLUMNS>(s.out, S::OUT_ROW, s.voxel, S::ROWS, (T *)it.projections,
                              it.projections_row, blockIdx.y * S::COLUMNS, args.columns,
                              args.wide_projections);
}

/* ---- fp32 -------------------------------------------------------------------------------------
 */

constexpr uint32_t EXACT_THREADS = 128;

/* LayerNorm of one row, by a warp. */
template <typename T>
__device__ inline void normalise_exact(const in_args &args, const in_item &it, uint32_t voxel,
                                       float *row, uint32_t lane) {
    const T *x = (const T *)it.x + (size_t)voxel * it.x_row;
    float sum = 0, squares = 0;
    for (uint32_t c = lane; c < args.features; c += 32) sum += row[c] = to_float(x[c]);
    for (int k = 16; k > 0; k /= 2) sum += __shfl_xor_sync(ALL_LANES, sum, k);
    const float mean = sum / (float)args.features;
    for (uint32_t c = lane; c < args.features; c += 32)
        squares = fmaf(row[c] - mean, row[c] - mean, squares);
    for (int k = 16; k > 0; k /= 2) squares += __shfl_xor_sync(ALL_LANES, squares, k);
    const float scale = 1.0f / sqrtf(squares / (float)args.features + EPSILON);
    for (uint32_t c = lane; c < args.features; c += 32)
        row[c] = fmaf((row[c] - mean) * scale, it.gamma[c], it.beta[c]);
}

/* Grid: tiles of ROWS - 3 tokens, 1, items. */
template <typename T, int ROWS>
__global__ void __launch_bounds__(EXACT_THREADS)
    mamba_in_exact(const __grid_constant__ in_args args) {
    const in_item &it = args.item[blockIdx.z];
    const uint32_t features = args.features, channels = args.channels, columns = args.columns;
    uint32_t *voxel = (uint32_t *)shared_memory();
    float *v = (float *)(voxel + ROWS), *u = v + ROWS * features;
    const float *in_proj = (const float *)it.weights, *x_proj = in_proj + args.in_proj;

    find_voxels(args, it, voxel, ROWS);
    __syncthreads();
    for (uint32_t r = threadIdx.x / 32; r < ROWS; r += EXACT_THREADS / 32) {
        const uint32_t lane = threadIdx.x % 32;
        if (voxel[r] != NONE)
            normalise_exact<T>(args, it, voxel[r], v + r * features, lane);
        else
            for (uint32_t c = lane; c < features; c += 32) v[r * features + c] = 0;
    }
    __syncthreads();
    for (uint32_t d = threadIdx.x; d < channels; d += EXACT_THREADS) {
        float p[ROWS];
#pragma unroll
        for (int r = 0; r < ROWS; r++) p[r] = 0;
        for (uint32_t c = 0; c < features; c++) {
            const float w = in_proj[(size_t)c * channels + d];
#pragma unroll
            for (int r = 0; r < ROWS; r++) p[r] = fmaf(v[r * features + c], w, p[r]);
        }
        const float *k = it.conv + 4 * (size_t)d;
        const float bias = it.conv_bias[d];
#pragma unroll
        for (int r = BEFORE; r < ROWS; r++) {
            const float sum = fmaf(
                k[0], p[r - 3], fmaf(k[1], p[r - 2], fmaf(k[2], p[r - 1], fmaf(k[3], p[r], bias))));
            const float value = silu(sum);
            u[r * channels + d] = value;
            if (voxel[r] != NONE) from_float(value, (T *)it.u + (size_t)voxel[r] * it.u_row + d);
        }
    }
    __syncthreads();
    for (uint32_t j = threadIdx.x; j < columns; j += EXACT_THREADS) {
        float sum[ROWS];
#pragma unroll
        for (int r = 0; r < ROWS; r++) sum[r] = 0;
        for (uint32_t d = 0; d < channels; d++) {
            const float w = x_proj[(size_t)d * columns + j];
#pragma unroll
            for (int r = BEFORE; r < ROWS; r++) sum[r] = fmaf(u[r * channels + d], w, sum[r]);
        }
#pragma unroll
        for (int r = BEFORE; r < ROWS; r++)
            if (voxel[r] != NONE)
                from_float(sum[r], (T *)it.projections + (size_t)voxel[r] * it.projections_row + j);
    }
}

/* ---- host -------------------------------------------------------------------------------------
 */

template <typename T, int ROW_GROUPS, int TILES>
cudaError_t launch_tiles(const in_args &args, size_t count, cudaStream_t stream) {
    typedef in_shared<T, ROW_GROUPS, TILES> S;
    const uint32_t shared = S::bytes(args.feature_tiles);
    cudaError_t e = allow_shared(mamba_in<T, ROW_GROUPS, TILES>, shared);
    if (e != cudaSuccess) return e;
    dim3 grid(ceil_div(args.length, S::ROWS - BEFORE), ceil_div(args.columns, S::COLUMNS),
              (unsigned)count);
    mamba_in<T, ROW_GROUPS, TILES><<<grid, S::THREADS, shared, stream>>>(args);
    return cudaGetLastError();
}

/* Tiles of 64 rows where 128 rows of v would need more shared memory than many devices have, and
 * where there are few tokens anyway. */
template <typename T>
cudaError_t launch_matrix(const in_args &args, size_t count, cudaStream_t stream) {
    const bool small = args.features > 128, few = args.columns <= 80;
    if (small)
        return few ? launch_tiles<T, 2, 5>(args, count, stream)
                   : launch_tiles<T, 2, 9>(args, count, stream);
    return few ? launch_tiles<T, 4, 5>(args, count, stream)
               : launch_tiles<T, 4, 9>(args, count, stream);
}

template <typename T, int ROWS>
cudaError_t launch_rows(const in_args &args, size_t count, cudaStream_t stream) {
    const size_t shared = ROWS * (1 + args.features + args.channels) * sizeof(float);
    cudaError_t e = allow_shared(mamba_in_exact<T, ROWS>, shared);
    if (e != cudaSuccess) return e;
    dim3 grid(ceil_div(args.length, ROWS - BEFORE), 1, (unsigned)count);
    mamba_in_exact<T, ROWS><<<grid, EXACT_THREADS, shared, stream>>>(args);
    return cudaGetLastError();
}

template <typename T>
cudaError_t launch_exact(const in_args &args, size_t count, cudaStream_t stream) {
    return args.features + args.channels <= 768 ? launch_rows<T, 16>(args, count, stream)
                                                : launch_rows<T, 8>(args, count, stream);
}

vx_status check_shape(const vx_mamba_in_shape *s, size_t count, vx_error *err) {
    if (count < 1 || count > VX_SCAN_MAX_ITEMS)
        return vx_fail(err, VX_ERR_USAGE, "%zu Mamba inputs in one launch [1 .. %d]", count,
                       VX_SCAN_MAX_ITEMS);
    if (s->length < 1 || s->length > INT32_MAX || s->features < 1 || s->features > 512 ||
        s->channels < 1 || s->channels > 1024 || s->states < 1 || s->states > 256 || s->rank < 1 ||
        s->rank > 64)
        return vx_fail(err, VX_ERR_USAGE,
                       "Mamba input of %u tokens, %u features, %u channels, %u states, rank %u is "
                       "outside the limits",
                       s->length, s->features, s->channels, s->states, s->rank);
    if (!s->exact && (s->dtype == VX_F32 || !has_matrix_units()))
        return vx_fail(err, VX_ERR_USAGE,
                       "Mamba input without the exact products for fp32 or on "
                       "a device without matrix units");
    return VX_OK;
}

vx_status fill_item(const vx_mamba_in_shape *s, const vx_mamba_in_item *from, in_args *args,
                    in_item *to, vx_error *err) {
    const size_t size = s->dtype == VX_F32 ? 4 : 2;
    to->x = from->x, to->u = from->u, to->projections = from->projections;
    to->x_row = from->x_row, to->u_row = from->u_row;
    to->projections_row = from->projections_row;
    to->gamma = from->gamma, to->beta = from->beta;
    to->conv = from->conv, to->conv_bias = from->conv_bias, to->weights = from->weights;
    args->x_bytes = widest(args->x_bytes, from->x, from->x_row, s->features, size);
    if (widest(16, from->u, from->u_row, s->channels, size) < 16) args->wide_u = 0;
    if (widest(16, from->projections, from->projections_row, args->columns, size) < 16)
        args->wide_projections = 0;
    return make_walk(&from->walk, s->length, &to->walk, err);
}

} // namespace
} // namespace vx_cuda

using namespace vx_cuda;

extern "C" vx_status vx_cuda_mamba_in(const vx_mamba_in_shape *shape, const vx_mamba_in_item *items,
                                      size_t count, cudaStream_t stream, vx_error *err) {
    vx_status status = check_shape(shape, count, err);
    if (status != VX_OK) return status;
    const in_layout l = make_in_layout(shape);
    in_args args = {};
    args.length = shape->length, args.features = shape->features, args.channels = shape->channels;
    args.columns = l.columns, args.column_tiles = l.column_tiles;
    args.slabs = l.slabs, args.feature_tiles = l.feature_tiles;
    args.channel_tiles = l.channel_tiles, args.in_proj = l.in_proj;
    args.x_bytes = 16, args.wide_u = args.wide_projections = 1;
    for (size_t i = 0; i < count; i++) {
        status = fill_item(shape, &items[i], &args, &args.item[i], err);
        if (status != VX_OK) return status;
    }
    cudaError_t e = cudaErrorInvalidValue;
    switch (shape->dtype) {
    case VX_F32:
        e = launch_exact<float>(args, count, stream);
        break;
    case VX_F16:
        e = shape->exact ? launch_exact<__half>(args, count, stream)
                         : launch_matrix<__half>(args, count, stream);
        break;
    case VX_BF16:
        e = shape->exact ? launch_exact<__nv_bfloat16>(args, count, stream)
                         : launch_matrix<__nv_bfloat16>(args, count, stream);
        break;
    }
    if (e != cudaSuccess)
        return vx_fail(err, VX_ERR_RESOURCE, "CUDA Mamba input: %s", cudaGetErrorString(e));
    return VX_OK;
}
