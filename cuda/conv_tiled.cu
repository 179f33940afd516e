#include "cuda/conv_tiled.h"

#include "cuda/check.h"
#include "cuda/device.cuh"
#include "cuda/launch.cuh"
#include "cuda/pending.cuh"
#include "cuda/wide.cuh"

using namespace vx_cuda;

static constexpr unsigned TILE_X = 16, TILE_Y = 8;

struct grid {
    unsigned d, h, w, tiles_z, tiles_y, tiles_x;
};

/* How one variant cuts the work. A warp's rows of 16 voxels along x are MT products of 16 rows; a
 * product's columns are 8 * NT output channels. CK input channels are in shared memory at a time.
 */
template <int CK_, int TAPS_, int NT_, int MT_, int WARPS_, int BLOCKS_> struct shape_of {
    static constexpr int CK = CK_, NT = NT_, MT = MT_, WARPS = WARPS_, BLOCKS = BLOCKS_;
    static constexpr unsigned TAPS = TAPS_; /* 27, 9: one along x, or 1 */
    /* Taps along z, y, x, and voxels of the border on each side. */
    static constexpr unsigned PLANES = TAPS == 1 ? 1 : 3, DOWN = PLANES;
    static constexpr unsigned ACROSS = TAPS / (PLANES * DOWN), BORDER = PLANES / 2;
    static constexpr unsigned THREADS = 32 * WARPS, TILE_Z = WARPS * MT / TILE_Y;
    static constexpr unsigned CHANNELS = 8 * NT, STEPS = TAPS * CK / 16;
    /* Bytes of a voxel in shared memory: 16 more than its numbers, so that the 8 rows of a matrix
     * are in different banks. */
    static constexpr unsigned PITCH = 2 * CK + 16, OUT_PITCH = 16 * NT + 16;
    static constexpr unsigned BORDER_Z = TILE_Z + 2 * BORDER, BORDER_Y = TILE_Y + 2 * BORDER;
    static constexpr unsigned BORDER_X = TILE_X + 2 * BORDER;
    static constexpr unsigned VOXELS = BORDER_Z * BORDER_Y * BORDER_X;
    static constexpr unsigned OUT_BYTES = WARPS * MT * 16 * OUT_PITCH;
    static constexpr unsigned BYTES =
        VOXELS * PITCH > OUT_BYTES ? VOXELS *PITCH : OUT_BYTES; /* of shared memory */
    static_assert(WARPS * MT % TILE_Y == 0 && TILE_Y % MT == 0, "whole planes, whole warps");
};

/* Pieces of 16 bytes of a tile with its border, CK channels. A thread's pieces are of the same
 * channels. The first EARLY of them are a group of copies of their own. */
template <typename S> struct pieces_of {
    static constexpr unsigned OF_VOXEL = S::CK / 8, ALL = S::VOXELS * OF_VOXEL;
    static constexpr unsigned OF_THREAD = (ALL + S::THREADS - 1) / S::THREADS;
    static constexpr unsigned EARLY = OF_THREAD / 2;
    static_assert(S::THREADS % OF_VOXEL == 0 && OF_THREAD <= 64, "a bit a piece");
};

/* A tile with its border, CK channels from `channel` on, on its way into shared memory; zeros
 * outside. Bit k of the result: the thread's piece k is inside. */
template <typename S, typename T>
static __device__ uint64_t load_tile(char *shared, const T *x, size_t c_in, unsigned channel,
                                     const grid &g, size_t first, int z0, int y0, int x0) {
    using P = pieces_of<S>;
    uint64_t inside = 0;
    for (unsigned k = 0; k < P::OF_THREAD; k++) {
        const unsigned i = k * S::THREADS + threadIdx.x;
        if (k == P::EARLY) copy_commit();
        if (i >= P::ALL) break;
        const unsigned piece = i % P::OF_VOXEL, v = i / P::OF_VOXEL;
        constexpr int OUTSIDE = S::BORDER;
        const unsigned rest = v / S::BORDER_X;
        const int px = x0 + (int)(v % S::BORDER_X) - OUTSIDE;
        const int py = y0 + (int)(rest % S::BORDER_Y) - OUTSIDE;
        const int pz = z0 + (int)(rest / S::BORDER_Y) - OUTSIDE;
        char *to = shared + v * S::PITCH + piece * 16;
        if ((unsigned)px < g.w && (unsigned)py < g.h && (unsigned)pz < g.d) {
            const size_t voxel = first + ((size_t)pz * g.h + (size_t)py) * g.w + (size_t)px;
            copy_async<16>(to, x + voxel * c_in + channel + piece * 8);
            inside |= (uint64_t)1 << k;
        } else {
            *(uint4 *)to = make_uint4(0, 0, 0, 0);
        }
    }
    copy_commit();
    return inside;
}

/* What is pending, applied to pieces FIRST to END - 1 that this thread has loaded. */
template <typename S, typename T, unsigned FIRST, unsigned END>
static __device__ __forceinline__ void apply_pieces(char *shared, const vx_cuda_affine (&a)[8],
                                                    float slope, uint64_t inside) {
    using P = pieces_of<S>;
    char *own = shared + threadIdx.x / P::OF_VOXEL * S::PITCH + threadIdx.x % P::OF_VOXEL * 16;
#pragma unroll 2
    for (unsigned k = FIRST; k < END; k++) {
        uint4 *at = (uint4 *)(own + k * (S::THREADS / P::OF_VOXEL) * S::PITCH);
        if (k + 1 == P::OF_THREAD && k * S::THREADS + threadIdx.x >= P::ALL) break;
        const uint4 v = *at;
        uint32_t r[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const float2 u = pair<T>::wide(r[j]);
            r[j] = pair<T>::pack(apply_pending<T>(u.x, a[2 * j], slope),
                                 apply_pending<T>(u.y, a[2 * j + 1], slope));
        }
        if (inside >> k & 1) *at = make_uint4(r[0], r[1], r[2], r[3]);
    }
}

/* Waits for the copies of load_tile, and applies what is pending to them: to the early ones while
 * the others are on their way. affine: of the n and the tile's first channel. */
template <typename S, typename T>
static __device__ void apply_tile(char *shared, const vx_cuda_affine *__restrict__ affine,
                                  float slope, uint64_t inside) {
    using P = pieces_of<S>;
    vx_cuda_affine a[8];
#pragma unroll
    for (int j = 0; j < 8; j++) a[j] = affine[threadIdx.x % P::OF_VOXEL * 8 + j];
    copy_wait();
    apply_pieces<S, T, 0, P::EARLY>(shared, a, slope, inside);
    copy_wait_all();
    apply_pieces<S, T, P::EARLY, P::OF_THREAD>(shared, a, slope, inside);
}

/* Products of one step, a tap and 16 input channels: voxels of rows a[down] to a[down + MT - 1],
 * weights b. */
template <typename S, typename T>
static __device__ __forceinline__ void multiply_row(float (&sums)[S::NT][4], const uint32_t (&a)[4],
                                                    const uint4 (&b)[S::NT / 2]) {
#pragma unroll
    for (int p = 0; p < S::NT / 2; p++) {
        multiply_add<T>(sums[2 * p], a, b[p].x, b[p].y);
        multiply_add<T>(sums[2 * p + 1], a, b[p].z, b[p].w);
    }
}

template <typename S>
static __device__ __forceinline__ void load_weights(uint4 (&b)[S::NT / 2], const uint4 *from) {
#pragma unroll
    for (int p = 0; p < S::NT / 2; p++) b[p] = __ldg(from + p * 32);
}

/* All steps of a chunk. The taps along y of one plane, column and 16 channels are a group: they
 * read the same rows, each one row further down, so that a row is loaded once for the three of
 * them. The next group's first rows are loaded as soon as their registers are free, weights a step
 * ahead. */
template <typename S, typename T>
static __device__ __forceinline__ void multiply_chunk(float (&sums)[S::MT][S::NT][4],
                                                      const char *rows, const uint4 *weights) {
    constexpr unsigned KK = S::CK / 16, ROW = S::BORDER_X * S::PITCH;
    constexpr unsigned OUTER = S::PLANES * S::ACROSS, OF_OUTER = KK * S::DOWN;
    /* The loop stays a loop where it can: unrolled, the compiler loads all weights first and runs
     * out of registers. */
    constexpr int UNROLL = OF_OUTER % 2 ? (int)OUTER : 1;
    uint32_t a[S::MT + S::DOWN - 1][4];
    uint4 b[2][S::NT / 2];
    const char *at = rows + (S::TAPS == 9 ? S::PITCH : 0);
#pragma unroll
    for (int m = 0; m < S::MT; m++) load_matrices(a[m], at + m * ROW);
    load_weights<S>(b[0], weights);
#pragma unroll UNROLL
    for (unsigned outer = 0; outer < OUTER; outer++) {
        const bool last = outer + 1 == OUTER;
        const char *next_at =
            at +
            ((outer + 1) % S::ACROSS ? S::PITCH : S::BORDER_Y * ROW - (S::ACROSS - 1) * S::PITCH);
#pragma unroll
        for (unsigned kk = 0; kk < KK; kk++) {
            const char *group = at + kk * 32, *next = kk + 1 < KK ? group + 32 : next_at;
#pragma unroll
            for (unsigned dy = 0; dy < S::DOWN; dy++) {
                const unsigned step = kk * S::DOWN + dy;
                const unsigned now = (UNROLL == 1 ? step : outer * OF_OUTER + step) % 2;
                weights += S::NT / 2 * 32;
                if (step + 1 < OF_OUTER || !last) load_weights<S>(b[1 - now], weights);
                if (dy + 1 < S::DOWN) load_matrices(a[S::MT + dy], group + (S::MT + dy) * ROW);
#pragma unroll
                for (int m = 0; m < S::MT; m++) {
                    multiply_row<S, T>(sums[m], a[m + dy], b[now]);
                    const int free =
                        m + (int)dy; /* the row that no later step of the group reads */
                    if ((m == 0 || dy + 1 == S::DOWN) && free < S::MT && (kk + 1 < KK || !last))
                        load_matrices(a[free], next + free * ROW);
                }
            }
        }
        at = next_at;
    }
}

/* Of each lane's values of one channel pair and column: the sum over the block's voxels, into
 * total[channel]. value(m, n, i) gives numbers, 0 for voxels outside. */
template <typename S, typename F>
static __device__ void add_up(float (*of_warp)[S::CHANNELS], float *total, F value) {
    const unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll
    for (int n = 0; n < S::NT; n++)
#pragma unroll
        for (int j = 0; j < 2; j++) {
            float sum = 0;
#pragma unroll
            for (int m = 0; m < S::MT; m++) sum += value(m, n, j) + value(m, n, j + 2);
            for (int o = 4; o < 32; o *= 2) sum += __shfl_xor_sync(ALL_LANES, sum, o);
            if (lane < 4) of_warp[warp][n * 8 + 2 * lane + j] = sum;
        }
    __syncthreads();
    for (unsigned c = threadIdx.x; c < S::CHANNELS; c += S::THREADS) {
        float sum = 0;
        for (int w = 0; w < S::WARPS; w++) sum += of_warp[w][c];
        total[c] = sum;
    }
    __syncthreads();
}

/* Grid: (tiles, blocks of output channels, n). weights: this variant's order. */
template <typename S, typename T, bool PENDING>
static __global__ void __launch_bounds__(S::THREADS, S::BLOCKS)
    tiled_kernel(const T *__restrict__ x, vx_cuda_pending pending, unsigned c_in,
                 const uint4 *__restrict__ weights, T *__restrict__ y, unsigned c_out, grid g,
                 vx_cuda_moments *__restrict__ moments) {
    char *shared = shared_memory();
    const unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32, q = lane % 4;
    unsigned tile = blockIdx.x;
    const unsigned x0 = tile % g.tiles_x * TILE_X;
    tile /= g.tiles_x;
    const unsigned y0 = tile % g.tiles_y * TILE_Y, z0 = tile / g.tiles_y * S::TILE_Z;
    const size_t first = (size_t)blockIdx.z * g.d * g.h * g.w;
    const unsigned wz = warp * S::MT / TILE_Y,
                   wy = warp * S::MT % TILE_Y; /* the warp's first row */
    const char *rows =
        shared + ((wz * S::BORDER_Y + wy) * S::BORDER_X + lane % 16) * S::PITCH + lane / 16 * 16;
    const unsigned chunks = c_in / S::CK;
    const uint4 *step_weights =
        weights + (size_t)blockIdx.y * chunks * S::STEPS * (S::NT / 2) * 32 + lane;

    float sums[S::MT][S::NT][4] = {};
    for (unsigned chunk = 0; chunk < chunks; chunk++) {
        if (chunk) __syncthreads();
        const uint64_t inside =
            load_tile<S, T>(shared, x, c_in, chunk * S::CK, g, first, (int)z0, (int)y0, (int)x0);
        if constexpr (PENDING)
            apply_tile<S, T>(shared, pending.affine + blockIdx.z * c_in + chunk * S::CK,
                             pending.slope, inside);
        else
            copy_wait_all();
        __syncthreads();
        multiply_chunk<S, T>(sums, rows, step_weights);
        step_weights += S::STEPS * (S::NT / 2) * 32;
    }

    /* Row m of the warp, and its voxels lane / 4 and lane / 4 + 8: inside the grid or not. */
    const bool in_x[2] = {x0 + lane / 4 < g.w, x0 + lane / 4 + 8 < g.w};
    bool in_row[S::MT];
#pragma unroll
    for (int m = 0; m < S::MT; m++) in_row[m] = z0 + wz < g.d && y0 + wy + m < g.h;
    if (moments) {
        __shared__ float of_warp[S::WARPS][S::CHANNELS], sum[S::CHANNELS], squares[S::CHANNELS];
        const float count =
            (float)(min(S::TILE_Z, g.d - z0) * min(TILE_Y, g.h - y0) * min(TILE_X, g.w - x0));
        add_up<S>(of_warp, sum, [&](int m, int n, int i) {
            return in_row[m] && in_x[i / 2] ? sums[m][n][i] : 0.0f;
        });
        add_up<S>(of_warp, squares, [&](int m, int n, int i) {
            const float e = sums[m][n][i] - sum[n * 8 + 2 * q + i % 2] / count;
            return in_row[m] && in_x[i / 2] ? e * e : 0.0f;
        });
        for (unsigned c = threadIdx.x; c < S::CHANNELS; c += S::THREADS)
            moments[((size_t)blockIdx.z * gridDim.x + blockIdx.x) * c_out +
                    blockIdx.y * S::CHANNELS + c] = {sum[c] / count, squares[c], count};
    }

    /* Through shared memory, so that a voxel's channels leave in 16-byte pieces, one after another.
     */
    __syncthreads();
    char *own = shared + warp * S::MT * 16 * S::OUT_PITCH;
#pragma unroll
    for (int m = 0; m < S::MT; m++)
#pragma unroll
        for (int n = 0; n < S::NT; n++)
#pragma unroll
            for (int half = 0; half < 2; half++)
                *(uint32_t *)(own + (m * 16 + lane / 4 + 8 * half) * S::OUT_PITCH + n * 16 +
                              q * 4) =
                    pair<T>::pack(sums[m][n][2 * half], sums[m][n][2 * half + 1]);
    __syncwarp();
    for (unsigned i = lane; i < S::MT * 16 * S::NT; i += 32) {
        const unsigned piece = i % S::NT, v = i / S::NT, px = x0 + v % 16, py = y0 + wy + v / 16;
        if (px >= g.w || py >= g.h || z0 + wz >= g.d) continue;
        const size_t voxel = first + ((size_t)(z0 + wz) * g.h + py) * g.w + px;
        store_16(y + voxel * c_out + blockIdx.y * S::CHANNELS + piece * 8,
                 *(const uint4 *)(own + v * S::OUT_PITCH + piece * 16));
    }
}

/* --- variants --------------------------------------------------------------------------------- */

/* Calls f(shape_of) for a variant; false where there is none. */
template <int CK, int TAPS, typename F> static bool for_variant(unsigned variant, F &&f) {
    switch (variant) {
    case 1: /* 512 voxels x 32 channels, 8 warps */
        return f(shape_of<CK, TAPS, 4, 4, 8, 2>());
    case 2: /* the same by 4 warps of twice the rows */
        return f(shape_of<CK, TAPS, 4, 8, 4, 2>());
    case 3: /* 256 voxels x 64 channels, 4 warps */
        return f(shape_of<CK, TAPS, 8, 4, 4, 2>());
    case 4: /* 256 voxels x 32 channels, 4 warps */
        return f(shape_of<CK, TAPS, 4, 4, 4, 3>());
    }
    return false;
}

template <typename F> static bool for_shape(const vx_cuda_tiled *conv, F &&f) {
    if (conv->in.c % 16) return false;
    if (conv->taps == 1) return conv->in.c % 32 == 0 && for_variant<32, 1>(conv->variant, f);
    if (conv->taps == 9) return for_variant<16, 9>(conv->variant, f);
    return conv->in.c % 32 ? for_variant<16, 27>(conv->variant, f)
                           : for_variant<32, 27>(conv->variant, f);
}

static grid grid_of(vx_shape s, unsigned tile_z) {
    const auto tiles = [](size_t n, unsigned of) { return (unsigned)((n + of - 1) / of); };
    return {(unsigned)s.d,      (unsigned)s.h,      (unsigned)s.w,
            tiles(s.d, tile_z), tiles(s.h, TILE_Y), tiles(s.w, TILE_X)};
}

static size_t tiles_of(vx_shape s, unsigned tile_z) {
    const grid g = grid_of(s, tile_z);
    return (size_t)g.tiles_z * g.tiles_y * g.tiles_x;
}

bool vx_cuda_tiled_fits(const vx_cuda_tiled *conv) {
    const vx_shape s = conv->in;
    if (conv->dtype == VX_F32 || !s.c || s.n > 65535 || s.d > 1u << 20 || s.h > 1u << 20 ||
        s.w > 1u << 20 || s.c > 1u << 20 || conv->c_out > 1u << 20 || !has_matrix_units())
        return false;
    return for_shape(conv, [&](auto shape) {
        using S = decltype(shape);
        return conv->c_out % S::CHANNELS == 0 && tiles_of(s, S::TILE_Z) <= 0x7fffffffu;
    });
}

size_t vx_cuda_tiled_parts(const vx_cuda_tiled *conv) {
    size_t parts = 0;
    for_shape(conv, [&](auto shape) {
        parts = tiles_of(conv->in, decltype(shape)::TILE_Z);
        return true;
    });
    return parts;
}

/* [block of channels][chunk][plane][tap along x][16 channels][tap along y][two columns of
 * 8][lane][8]: the eight are rows 2q, 2q + 1, 2q + 8, 2q + 9 of column g, then of column g + 8
 * (device.cuh: q, g). */
void vx_cuda_tiled_pack(const vx_cuda_tiled *conv, const float *w, float *to) {
    const size_t c_in = conv->in.c;
    for_shape(conv, [&](auto shape) {
        using S = decltype(shape);
        for (size_t block = 0; block < conv->c_out / S::CHANNELS; block++)
            for (size_t chunk = 0; chunk < c_in / S::CK; chunk++)
                for (size_t step = 0; step < S::STEPS; step++)
                    for (size_t p = 0; p < S::NT / 2; p++)
                        for (size_t lane = 0; lane < 32; lane++)
                            for (size_t e = 0; e < 8; e++) {
                                const size_t dy = step % S::DOWN, group = step / S::DOWN;
                                const size_t kk = group % (S::CK / 16),
                                             outer = group / (S::CK / 16);
                                const size_t plane = outer / S::ACROSS, dx = outer % S::ACROSS;
                                const size_t tap = (plane * S::DOWN + dy) * S::ACROSS + dx;
                                const size_t k = kk * 16 + e / 2 % 2 * 8 + lane % 4 * 2 + e % 2;
                                const size_t i = chunk * S::CK + k;
                                const size_t o =
                                    block * S::CHANNELS + p * 16 + e / 4 * 8 + lane / 4;
                                *to++ = w[(o * c_in + i) * S::TAPS + tap];
                            }
        return true;
    });
}

/* Chunks of 32 channels alone: what is read with a norm pending has been made by our own kernel. */
template <typename S> static constexpr bool applies = S::CK == 32;

bool vx_cuda_tiled_applies(const vx_cuda_tiled *conv) {
    return for_shape(conv, [](auto shape) { return applies<decltype(shape)>; });
}

template <typename S, typename T, bool PENDING>
static cudaError_t launch(const vx_cuda_tiled *conv, const void *x, vx_cuda_pending pending,
                          const void *w, void *y, vx_cuda_moments *moments, cudaStream_t stream) {
    const auto kernel = tiled_kernel<S, T, PENDING>;
    const grid g = grid_of(conv->in, S::TILE_Z);
    /* No more shared memory than the blocks need: the weights are read through the L1 cache, which
     * is the rest. */
    constexpr int PERCENT = (int)((S::BLOCKS * (S::BYTES + 4096) * 100 + 233471) / 233472);
    cudaError_t code =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)S::BYTES);
    if (code == cudaSuccess)
        code = cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                                    PERCENT < 100 ? PERCENT : 100);
    if (code != cudaSuccess) return code;
    const dim3 blocks(g.tiles_z * g.tiles_y * g.tiles_x, (unsigned)(conv->c_out / S::CHANNELS),
                      (unsigned)conv->in.n);
    kernel<<<blocks, S::THREADS, S::BYTES, stream>>>((const T *)x, pending, (unsigned)conv->in.c,
                                                     (const uint4 *)w, (T *)y,
                                                     (unsigned)conv->c_out, g, moments);
    return cudaGetLastError();
}

vx_status vx_cuda_tiled_launch(const vx_cuda_tiled *conv, const void *x, vx_cuda_pending pending,
                               const void *w, void *y, vx_cuda_moments *moments,
                               cudaStream_t stream, vx_error *err) {
    cudaError_t code = cudaErrorInvalidValue;
    for_shape(conv, [&](auto shape) {
        using S = decltype(shape);
        const bool half = conv->dtype == VX_F16;
        if constexpr (applies<S>)
            if (pending.affine) {
                const auto run = half ? launch<S, __half, true> : launch<S, __nv_bfloat16, true>;
                code = run(conv, x, pending, w, y, moments, stream);
                return true;
            }
        const auto run = half ? launch<S, __half, false> : launch<S, __nv_bfloat16, false>;
        if (!pending.affine) code = run(conv, x, pending, w, y, moments, stream);
        return true;
    });
    return vx_cuda_check(code, "a convolution", err);
}
