/* A block takes 64 input voxels and 8 times 32 columns of the product (a tap and output channels),
 * one a warp, and writes them where they belong. */
#include "cuda/check.h"
#include "cuda/device.cuh"
#include "cuda/launch.cuh"
#include "cuda/ops.h"
#include "cuda/wide.cuh"

using namespace vx_cuda;

static constexpr unsigned VOXELS = 64, WARPS = 8, COLUMNS = 32;
static constexpr unsigned MT = VOXELS / 16, NT = COLUMNS / 8;

/* What the kernel needs of a vx_cuda_transposed. */
struct shape {
    unsigned d, h, w, sd, sh, sw; /* the input's grid, strides */
    unsigned c_in, c_out, c_skip;
    size_t voxels; /* of the input, all n */
};

static size_t units_of(const vx_cuda_transposed *t) {
    return t->stride[0] * t->stride[1] * t->stride[2] * (t->c_out / COLUMNS);
}

/* places[i]: output voxel of the block's voxel i and tap 0. x into rows of `pitch` bytes. */
template <typename T>
static __device__ void load_voxels(char *rows, size_t *places, const T *x, const shape &s,
                                   size_t first, unsigned pitch) {
    const unsigned pieces = s.c_in / 8;
    for (unsigned i = threadIdx.x; i < VOXELS * pieces; i += blockDim.x) {
        const unsigned v = i / pieces, piece = i % pieces;
        char *to = rows + v * pitch + piece * 16;
        if (first + v < s.voxels)
            copy_async<16>(to, x + (first + v) * s.c_in + piece * 8);
        else
            *(uint4 *)to = make_uint4(0, 0, 0, 0);
    }
    if (threadIdx.x < VOXELS) {
        size_t i = first + threadIdx.x;
        const size_t px = i % s.w, py = i / s.w % s.h, slice = i / s.w / s.h; /* n d + z */
        places[threadIdx.x] = (slice * s.sd * s.h * s.sh + py * s.sh) * s.w * s.sw + px * s.sw;
    }
    copy_wait_all();
    __syncthreads();
}

/* The skip's channels behind the product's, for the block's share of its output voxels. */
template <typename T>
static __device__ void copy_skip(const T *__restrict__ skip, T *__restrict__ y,
                                 const size_t *places, const shape &s, unsigned count) {
    constexpr unsigned AHEAD = 4; /* loads on their way at a time */
    const unsigned pieces = s.c_skip / 8, rows = s.sd * s.sh, c = s.c_out + s.c_skip;
    const unsigned all = rows * count * s.sw * pieces, step = gridDim.y * blockDim.x;
    for (unsigned i = blockIdx.y * blockDim.x + threadIdx.x; i < all; i += step * AHEAD) {
        uint4 v[AHEAD];
        T *to[AHEAD];
#pragma unroll
        for (unsigned a = 0; a < AHEAD; a++) {
            const unsigned at = i + a * step;
            if (at >= all) continue;
            const unsigned piece = at % pieces, dx = at / pieces % s.sw, rest = at / pieces / s.sw;
            const unsigned row = rest / count;
            const size_t down = (size_t)(row / s.sh) * s.h * s.sh + row % s.sh;
            const size_t place = places[rest % count] + down * s.w * s.sw + dx;
            v[a] = *(const uint4 *)(skip + place * s.c_skip + piece * 8);
            to[a] = y + place * c + s.c_out + piece * 8;
        }
#pragma unroll
        for (unsigned a = 0; a < AHEAD; a++)
            if (i + a * step < all) store_16(to[a], v[a]);
    }
}

template <typename T>
static __device__ void store_column_block(const float (&sums)[MT][NT][4], T *y, const float *bias,
                                          const size_t *places, const shape &s, size_t offset,
                                          unsigned channel, unsigned count) {
    const unsigned lane = threadIdx.x % 32, q = lane % 4, c = s.c_out + s.c_skip;
    float b[NT][2];
#pragma unroll
    for (unsigned n = 0; n < NT; n++)
#pragma unroll
        for (unsigned j = 0; j < 2; j++) b[n][j] = bias ? bias[channel + n * 8 + 2 * q + j] : 0.0f;
#pragma unroll
    for (unsigned m = 0; m < MT; m++)
#pragma unroll
        for (unsigned half = 0; half < 2; half++) {
            uint32_t v[4];
#pragma unroll
            for (unsigned n = 0; n < NT; n++)
                v[n] = pair<T>::pack(sums[m][n][2 * half] + b[n][0],
                                     sums[m][n][2 * half + 1] + b[n][1]);
            transpose_four(v);
            const unsigned voxel = m * 16 + lane / 4 + 8 * half;
            if (voxel < count)
                store_16(y + (places[voxel] + offset) * c + channel + q * 8,
                         make_uint4(v[0], v[1], v[2], v[3]));
        }
}

/* Grid: (blocks of voxels, groups of WARPS units). weights: vx_cuda_transposed_pack's order. */
template <typename T>
static __global__ void __launch_bounds__(32 * WARPS, 2)
    transposed_kernel(const T *__restrict__ x, const uint4 *__restrict__ weights,
                      const float *__restrict__ bias, const T *__restrict__ skip, T *__restrict__ y,
                      shape s, unsigned units, unsigned pitch) {
    __shared__ size_t places[VOXELS];
    char *rows = shared_memory();
    const unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const unsigned unit = blockIdx.y * WARPS + warp, steps = s.c_in / 16;
    const size_t first = (size_t)blockIdx.x * VOXELS;
    const unsigned count = (unsigned)min((size_t)VOXELS, s.voxels - first);
    load_voxels(rows, places, x, s, first, pitch);
    if (unit < units) {
        float sums[MT][NT][4] = {};
        const char *own = rows + lane % 16 * pitch + lane / 16 * 16;
        const uint4 *w = weights + (size_t)unit * steps * (NT / 2) * 32 + lane;
#pragma unroll 4
        for (unsigned k = 0; k < steps; k++) {
            uint4 b[NT / 2];
#pragma unroll
            for (unsigned p = 0; p < NT / 2; p++) b[p] = __ldg(w + (k * (NT / 2) + p) * 32);
#pragma unroll
            for (unsigned m = 0; m < MT; m++) {
                uint32_t a[4];
                load_matrices(a, own + m * 16 * pitch + k * 32);
#pragma unroll
                for (unsigned p = 0; p < NT / 2; p++) {
                    multiply_add<T>(sums[m][2 * p], a, b[p].x, b[p].y);
                    multiply_add<T>(sums[m][2 * p + 1], a, b[p].z, b[p].w);
                }
            }
        }
        const unsigned blocks = s.c_out / COLUMNS, tap = unit / blocks;
        const size_t down = (size_t)(tap / s.sw / s.sh) * s.h * s.sh + tap / s.sw % s.sh;
        store_column_block(sums, y, bias, places, s, down * s.w * s.sw + tap % s.sw,
                           unit % blocks * COLUMNS, count);
    }
    if (s.c_skip) copy_skip(skip, y, places, s, count);
}

bool vx_cuda_transposed_fits(const vx_cuda_transposed *t) {
    const vx_shape in = t->in;
    const size_t most = 1u << 20;
    return t->dtype != VX_F32 && in.c % 16 == 0 && in.c && in.c <= 1024 &&
           t->c_out % COLUMNS == 0 && t->c_skip % 8 == 0 && t->c_out <= most && t->c_skip <= most &&
           in.d <= most && in.h <= most && in.w <= most && t->stride[0] <= 8 && t->stride[1] <= 8 &&
           t->stride[2] <= 8 && vx_shape_tokens(in) / VOXELS < 0x7fffffffu &&
           units_of(t) / WARPS < 65535 && has_matrix_units() &&
           VOXELS * (2 * in.c + 16 + sizeof(size_t)) <= limits_of_device().shared;
}

/* [tap][32 output channels][16 input channels][two columns of 8][lane][8], as in conv_tiled.cu. */
void vx_cuda_transposed_pack(const vx_cuda_transposed *t, const float *w, float *to) {
    const size_t taps = t->stride[0] * t->stride[1] * t->stride[2], c_in = t->in.c;
    for (size_t tap = 0; tap < taps; tap++)
        for (size_t block = 0; block < t->c_out / COLUMNS; block++)
            for (size_t step = 0; step < c_in / 16; step++)
                for (size_t p = 0; p < NT / 2; p++)
                    for (size_t lane = 0; lane < 32; lane++)
                        for (size_t e = 0; e < 8; e++) {
                            const size_t i = step * 16 + e / 2 % 2 * 8 + lane % 4 * 2 + e % 2;
                            const size_t o = block * COLUMNS + p * 16 + e / 4 * 8 + lane / 4;
                            *to++ = w[(i * t->c_out + o) * taps + tap];
                        }
}

template <typename T>
static cudaError_t launch(const vx_cuda_transposed *t, const void *x, const void *w,
                          const float *bias, const void *skip, void *y, cudaStream_t stream) {
    const shape s = {(unsigned)t->in.d,      (unsigned)t->in.h,      (unsigned)t->in.w,
                     (unsigned)t->stride[0], (unsigned)t->stride[1], (unsigned)t->stride[2],
                     (unsigned)t->in.c,      (unsigned)t->c_out,     (unsigned)t->c_skip,
                     vx_shape_tokens(t->in)};
    const unsigned pitch = 2 * s.c_in + 16, bytes = VOXELS * pitch, units = (unsigned)units_of(t);
    const cudaError_t code = allow_shared(transposed_kernel<T>);
    if (code != cudaSuccess) return code;
    const dim3 blocks((unsigned)((s.voxels + VOXELS - 1) / VOXELS), (units + WARPS - 1) / WARPS);
    transposed_kernel<T><<<blocks, 32 * WARPS, bytes, stream>>>(
        (const T *)x, (const uint4 *)w, bias, (const T *)skip, (T *)y, s, units, pitch);
    return cudaGetLastError();
}

vx_status vx_cuda_transposed_launch(const vx_cuda_transposed *t, const void *x, const void *w,
                                    const float *bias, const void *skip, void *y,
                                    cudaStream_t stream, vx_error *err) {
    return vx_cuda_check(t->dtype == VX_F16 ? launch<__half>(t, x, w, bias, skip, y, stream)
                                            : launch<__nv_bfloat16>(t, x, w, bias, skip, y, stream),
                         "transposed convolution", err);
}
