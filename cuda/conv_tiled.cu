#include "cuda/conv_tiled.h"

#include "cuda/check.h"
#include "cuda/device.cuh"
#include "cuda/launch.cuh"
#include "cuda/wide.cuh"

using namespace vx_cuda;

static constexpr unsigned TILE_X = 16, TILE_Y = 8;
static constexpr unsigned BORDER_X = TILE_X + 2, BORDER_Y = TILE_Y + 2;

struct grid {
    unsigned d, h, w, tiles_z, tiles_y, tiles_x;
};

/* How one variant cuts the work. A warp's rows of 16 voxels along x are MT products of 16 rows; a
 * product's columns are 8 * NT output channels. CK input channels are in shared memory at a time.
 */
template <int CK_, bool FLAT_, int NT_, int MT_, int WARPS_, int BLOCKS_> struct shape_of {
    static constexpr int CK = CK_, NT = NT_, MT = MT_, WARPS = WARPS_, BLOCKS = BLOCKS_;
    static constexpr bool FLAT = FLAT_; /* one tap along x */
    static constexpr unsigned TAPS = FLAT ? 9 : 27;
    static constexpr unsigned THREADS = 32 * WARPS, TILE_Z = WARPS * MT / TILE_Y;
    static constexpr unsigned CHANNELS = 8 * NT, STEPS = TAPS * CK / 16;
    static constexpr unsigned GROUPS = CK == 16 ? 1 : 9;
    /* Bytes of a voxel in shared memory: 16 more than its numbers, so that the 8 rows of a matrix
     * are in different banks. */
    static constexpr unsigned PITCH = 2 * CK + 16, OUT_PITCH = 16 * NT + 16;
    static constexpr unsigned BORDER_Z = TILE_Z + 2;
    static constexpr unsigned VOXELS = BORDER_Z * BORDER_Y * BORDER_X;
    static constexpr unsigned OUT_BYTES = WARPS * MT * 16 * OUT_PITCH;
    static constexpr unsigned BYTES =
        VOXELS * PITCH > OUT_BYTES ? VOXELS *PITCH : OUT_BYTES; /* of shared memory */
    static_assert(WARPS * MT % TILE_Y == 0 && TILE_Y % MT == 0, "whole planes, whole warps");
};

/* A tile with its border, CK channels from `channel` on, into shared memory; zeros outside. */
template <typename S, typename T>
static __device__ void load_tile(char *shared, const T *x, size_t c_in, unsigned channel,
                                 const grid &g, size_t first, int z0, int y0, int x0) {
    constexpr unsigned PIECES = S::CK / 8;
    for (unsigned i = threadIdx.x; i < S::VOXELS * PIECES; i += S::THREADS) {
        const unsigned piece = i % PIECES, v = i / PIECES;
        const int px = x0 + (int)(v % BORDER_X) - 1, rest = (int)(v / BORDER_X);
        const int py = y0 + rest % (int)BORDER_Y - 1, pz = z0 + rest / (int)BORDER_Y - 1;
        char *to = shared + v * S::PITCH + piece * 16;
        if ((unsigned)px < g.w && (unsigned)py < g.h && (unsigned)pz < g.d) {
            const size_t voxel = first + ((size_t)pz * g.h + (size_t)py) * g.w + (size_t)px;
            copy_async<16>(to, x + voxel * c_in + channel + piece * 8);
        } else {
            *(uint4 *)to = make_uint4(0, 0, 0, 0);
        }
    }
    copy_commit();
}

/* What one step (a tap and 16 input channels) multiplies. */
template <typename S> struct fragments {
    uint32_t a[S::MT][4];
    uint4 b[S::NT / 2]; /* for two columns of 8 each */
};

/* Step of a group: the taps of one plane and row, or all of them. */
template <typename S>
static __device__ __forceinline__ void load_step(fragments<S> &f, unsigned step, const char *rows,
                                                 const uint4 *weights) {
    constexpr unsigned KK = S::CK / 16;
    const unsigned tap = step / KK, kk = step % KK;
    const unsigned row = S::FLAT ? tap : tap / 3, voxel = row / 3 * BORDER_Y + row % 3;
    const unsigned first = voxel * BORDER_X + (S::FLAT ? 1 : tap % 3);
#pragma unroll
    for (int p = 0; p < S::NT / 2; p++) f.b[p] = __ldg(weights + (step * (S::NT / 2) + p) * 32);
#pragma unroll
    for (int m = 0; m < S::MT; m++)
        load_matrices(f.a[m], rows + (first + m * BORDER_X) * S::PITCH + kk * 32);
}

template <typename S, typename T>
static __device__ __forceinline__ void multiply_step(float (&sums)[S::MT][S::NT][4],
                                                     const fragments<S> &f) {
#pragma unroll
    for (int p = 0; p < S::NT / 2; p++)
#pragma unroll
        for (int m = 0; m < S::MT; m++) {
            multiply_add<T>(sums[m][2 * p], f.a[m], f.b[p].x, f.b[p].y);
            multiply_add<T>(sums[m][2 * p + 1], f.a[m], f.b[p].z, f.b[p].w);
        }
}

/* All steps of a chunk, each loaded while the one before is multiplied. The loop over groups stays
 * a loop: unrolled, the compiler loads all weights first and runs out of registers. */
template <typename S, typename T>
static __device__ __forceinline__ void multiply_chunk(float (&sums)[S::MT][S::NT][4],
                                                      const char *rows, const uint4 *weights) {
    constexpr unsigned OF_GROUP = S::STEPS / S::GROUPS;
    static_assert(S::GROUPS == 1 || OF_GROUP % 2 == 0, "a group begins with f[0]");
    fragments<S> f[2];
    load_step<S>(f[0], 0, rows, weights);
#pragma unroll 1
    for (unsigned group = 0; group < S::GROUPS; group++) {
        const unsigned down = group % 3 == 2 ? BORDER_Y - 2 : 1; /* to the next group's rows */
        const char *next_rows = rows + down * BORDER_X * S::PITCH;
        const uint4 *next_weights = weights + OF_GROUP * (S::NT / 2) * 32;
#pragma unroll
        for (unsigned step = 0; step < OF_GROUP; step++) {
            if (step + 1 < OF_GROUP)
                load_step<S>(f[(step + 1) % 2], step + 1, rows, weights);
            else if (group + 1 < S::GROUPS)
                load_step<S>(f[0], 0, next_rows, next_weights);
            multiply_step<S, T>(sums, f[step % 2]);
        }
        rows = next_rows;
        weights = next_weights;
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
template <typename S, typename T>
static __global__ void __launch_bounds__(S::THREADS, S::BLOCKS)
    tiled_kernel(const T *__restrict__ x, unsigned c_in, const uint4 *__restrict__ weights,
                 T *__restrict__ y, unsigned c_out, grid g, vx_cuda_moments *__restrict__ moments) {
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
        shared + ((wz * BORDER_Y + wy) * BORDER_X + lane % 16) * S::PITCH + lane / 16 * 16;
    const unsigned chunks = c_in / S::CK;
    const uint4 *step_weights =
        weights + (size_t)blockIdx.y * chunks * S::STEPS * (S::NT / 2) * 32 + lane;

    float sums[S::MT][S::NT][4] = {};
    for (unsigned chunk = 0; chunk < chunks; chunk++) {
        if (chunk) __syncthreads();
        load_tile<S, T>(shared, x, c_in, chunk * S::CK, g, first, (int)z0, (int)y0, (int)x0);
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
template <int CK, bool FLAT, typename F> static bool for_variant(unsigned variant, F &&f) {
    switch (variant) {
    case 1: /* 512 voxels x 32 channels, 8 warps */
        return f(shape_of<CK, FLAT, 4, 4, 8, 2>());
    case 2: /* the same by 4 warps of twice the rows */
        return f(shape_of<CK, FLAT, 4, 8, 4, 2>());
    case 3: /* 256 voxels x 64 channels, 4 warps */
        return f(shape_of<CK, FLAT, 8, 4, 4, 2>());
    case 4: /* 256 voxels x 32 channels, 4 warps */
        return f(shape_of<CK, FLAT, 4, 4, 4, 3>());
    }
    return false;
}

template <typename F> static bool for_shape(const vx_cuda_tiled *conv, F &&f) {
    if (conv->in.c % 16) return false;
    if (conv->flat) return for_variant<16, true>(conv->variant, f);
    return conv->in.c % 32 ? for_variant<16, false>(conv->variant, f)
                           : for_variant<32, false>(conv->variant, f);
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

/* [block of channels][chunk][tap][16 channels][two columns of 8][lane][8]: the eight are rows
 * 2q, 2q + 1, 2q + 8, 2q + 9 of column g, then of column g + 8 (device.cuh: q, g). */
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
                                const size_t tap = step / (S::CK / 16), kk = step % (S::CK / 16);
                                const size_t k = kk * 16 + e / 2 % 2 * 8 + lane % 4 * 2 + e % 2;
                                const size_t i = chunk * S::CK + k;
                                const size_t o =
                                    block * S::CHANNELS + p * 16 + e / 4 * 8 + lane / 4;
                                *to++ = w[(o * c_in + i) * S::TAPS + tap];
                            }
        return true;
    });
}

template <typename S, typename T>
static cudaError_t launch(const vx_cuda_tiled *conv, const void *x, const void *w, void *y,
                          vx_cuda_moments *moments, cudaStream_t stream) {
    const auto kernel = tiled_kernel<S, T>;
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
    kernel<<<blocks, S::THREADS, S::BYTES, stream>>>((const T *)x, (unsigned)conv->in.c,
                                                     (const uint4 *)w, (T *)y,
                                                     (unsigned)conv->c_out, g, moments);
    return cudaGetLastError();
}

vx_status vx_cuda_tiled_launch(const vx_cuda_tiled *conv, const void *x, const void *w, void *y,
                               vx_cuda_moments *moments, cudaStream_t stream, vx_error *err) {
    cudaError_t code = cudaErrorInvalidValue;
    for_shape(conv, [&](auto shape) {
        using S = decltype(shape);
        code = conv->dtype == VX_F16 ? launch<S, __half>(conv, x, w, y, moments, stream)
                                     : launch<S, __nv_bfloat16>(conv, x, w, y, moments, stream);
        return true;
    });
    return vx_cuda_check(code, "a convolution", err);
}
