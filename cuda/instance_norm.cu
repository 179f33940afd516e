/* Two launches for the statistics and one for the rest; one for all where the voxels are few. A
 * block's threads stand in rows of lanes: a
 * lane owns V neighbouring channels, the rows share out the voxels of the block's part. */
#include "base/size.h"
#include "cuda/check.h"
#include "cuda/value.cuh"

using namespace vx_cuda;

static constexpr unsigned THREADS = 256, WARPS = THREADS / 32;
static constexpr size_t PARTS_MAX = 1024, PART_VOXELS_MIN = 64;
static constexpr unsigned JOINED = 2, SLOTS = 512; /* channels of a joining block, threads of one */
static constexpr int AHEAD = 2;                    /* loads of a thread before it needs the first */

static constexpr unsigned SMALL_THREADS = 512;
static constexpr size_t SMALL = 2 * SMALL_THREADS; /* voxels that one block takes */

size_t vx_cuda_instance_norm_parts(vx_shape s) {
    const size_t voxels = s.d * s.h * s.w;
    size_t of_part = (voxels + PARTS_MAX - 1) / PARTS_MAX;
    if (of_part < PART_VOXELS_MIN) of_part = PART_VOXELS_MIN;
    return (voxels + of_part - 1) / of_part;
}

bool vx_cuda_instance_norm_scratch(vx_shape s, size_t parts, size_t *bytes) {
    const size_t dims[] = {s.n, parts + 1, s.c, sizeof(vx_cuda_moments)};
    return vx_product(dims, 4, bytes);
}

/* How the voxels of a tensor are cut among blocks, and the channels among lanes and groups. */
struct cut {
    size_t voxels, part_voxels;
    unsigned parts, lanes, rows, groups;
};

static cut cut_of(vx_shape s, unsigned width) {
    cut k;
    k.voxels = s.d * s.h * s.w;
    k.lanes = 1;
    while (k.lanes < 32 && (size_t)k.lanes * width < s.c) k.lanes *= 2;
    k.rows = THREADS / k.lanes;
    const size_t columns = (size_t)k.lanes * width;
    k.groups = (unsigned)((s.c + columns - 1) / columns);
    return k;
}

static cut with_parts(cut k, size_t part_voxels) {
    k.part_voxels = part_voxels;
    k.parts = (unsigned)((k.voxels + part_voxels - 1) / part_voxels);
    return k;
}

/* Adds up what the block's threads hold for each lane: first the rows of a warp, then the warps, in
 * a fixed order. The result is in the first row. */
template <int V>
static __device__ __forceinline__ void add_rows(float (&v)[V], unsigned lanes,
                                                float (*shared)[32 * V]) {
    const unsigned warp = threadIdx.x / 32, in_warp = threadIdx.x % 32;
#pragma unroll
    for (int j = 0; j < V; j++) {
        for (unsigned o = 16; o >= lanes; o /= 2) v[j] += __shfl_xor_sync(0xffffffffu, v[j], o);
        if (in_warp < lanes) shared[warp][in_warp * V + j] = v[j];
    }
    __syncthreads();
    if (threadIdx.x < lanes) {
#pragma unroll
        for (int j = 0; j < V; j++) {
            v[j] = 0;
            for (unsigned w = 0; w < WARPS; w++) v[j] += shared[w][threadIdx.x * V + j];
        }
    }
}

/* parts [n][part][c]. Grid: (parts, groups, n). */
template <typename T, int V>
static __global__ void part_kernel(const T *__restrict__ x, size_t c, cut k,
                                   vx_cuda_moments *__restrict__ parts) {
    __shared__ float shared[2][WARPS][32 * V];
    const unsigned lane = threadIdx.x % k.lanes, row = threadIdx.x / k.lanes;
    const size_t channel = ((size_t)blockIdx.y * k.lanes + lane) * V;
    const size_t first = blockIdx.x * k.part_voxels;
    const size_t count = min(k.part_voxels, k.voxels - first);
    const bool active = channel < c; /* V divides c: all V channels then */
    float origin[V] = {}, sum[V] = {}, squares[V] = {};
    if (active) {
        /* Sums about the part's first number: no cancellation where the mean is far from zero. */
        const T *from = x + (blockIdx.z * k.voxels + first) * c + channel;
        load_numbers<T, V>(from, origin);
#pragma unroll 4
        for (size_t i = row; i < count; i += k.rows) {
            float v[V];
            load_numbers<T, V>(from + i * c, v);
#pragma unroll
            for (int j = 0; j < V; j++) {
                const float e = v[j] - origin[j];
                sum[j] += e;
                squares[j] = fmaf(e, e, squares[j]);
            }
        }
    }
    add_rows<V>(sum, k.lanes, shared[0]);
    add_rows<V>(squares, k.lanes, shared[1]);
    if (!active || row != 0) return;
    const float n = (float)count;
#pragma unroll
    for (int j = 0; j < V; j++) {
        const float mean = sum[j] / n;
        parts[((size_t)blockIdx.z * k.parts + blockIdx.x) * c + channel + j] = {
            origin[j] + mean, fmaxf(squares[j] - sum[j] * mean, 0.0f), n};
    }
}

/* whole[n][c] = (mean, gamma / sqrt(variance + eps)). A block takes JOINED channels, SLOTS threads
 * share out a channel's parts; sums are double, about the first part's mean, in a fixed order. */
static __global__ void whole_kernel(const vx_cuda_moments *__restrict__ parts, size_t c,
                                    unsigned count, double voxels, const float *__restrict__ gamma,
                                    float eps, vx_cuda_moments *__restrict__ whole) {
    __shared__ double2 shared[SLOTS][JOINED];
    const unsigned k = threadIdx.x % JOINED, slot = threadIdx.x / JOINED;
    const size_t channel = (size_t)blockIdx.x * JOINED + k;
    const bool active = channel < c;
    const vx_cuda_moments *from = parts + (size_t)blockIdx.y * count * c + (active ? channel : 0);
    const double origin = (double)from[0].mean;
    double2 s = {0, 0};
#pragma unroll 4
    for (unsigned p = slot; p < count; p += SLOTS) {
        const vx_cuda_moments m = from[p * c];
        const double e = (double)m.mean - origin, n = (double)m.count;
        s.x += n * e;
        s.y += (double)m.squares + n * e * e;
    }
    shared[slot][k] = s;
    for (unsigned half = SLOTS / 2; half; half /= 2) {
        __syncthreads();
        if (slot >= half) continue;
        shared[slot][k].x += shared[slot + half][k].x;
        shared[slot][k].y += shared[slot + half][k].y;
    }
    if (!active || slot) return;
    s = shared[0][k];
    const double mean = s.x / voxels, variance = fmax(s.y / voxels - mean * mean, 0.0);
    const double inv = 1.0 / sqrt(variance + (double)eps);
    whole[blockIdx.y * c + channel] = {(float)(origin + mean),
                                       (float)(inv * (double)gamma[channel]), 0};
}

/* Grid: (parts, groups, n). x, residual (read if RESIDUAL) and y may be the same memory. What is on
 * its way is held as it is stored: registers are what limits how much that is. */
template <typename T, int V, bool RESIDUAL>
static __global__ void apply_kernel(const T *x, const T *residual, T *y, size_t c, cut k,
                                    const vx_cuda_moments *__restrict__ whole,
                                    const float *__restrict__ beta, vx_activation act,
                                    float slope) {
    using piece = numbers<T, V>;
    const unsigned lane = threadIdx.x % k.lanes, row = threadIdx.x / k.lanes;
    const size_t channel = ((size_t)blockIdx.y * k.lanes + lane) * V;
    const size_t first = blockIdx.x * k.part_voxels;
    const size_t count = min(k.part_voxels, k.voxels - first);
    if (channel >= c) return;
    float mean[V], scale[V], shift[V];
#pragma unroll
    for (int j = 0; j < V; j++) {
        mean[j] = whole[blockIdx.z * c + channel + j].mean;
        scale[j] = whole[blockIdx.z * c + channel + j].squares;
        shift[j] = beta[channel + j];
    }
    const size_t base = (blockIdx.z * k.voxels + first) * c + channel;
    for (size_t i = row; i < count; i += (size_t)k.rows * AHEAD) {
        piece v[AHEAD], r[AHEAD];
#pragma unroll
        for (int a = 0; a < AHEAD; a++) {
            const size_t at = i + (size_t)a * k.rows;
            if (at >= count) continue;
            v[a] = *(const piece *)(x + base + at * c);
            if (RESIDUAL) r[a] = *(const piece *)(residual + base + at * c);
        }
#pragma unroll
        for (int a = 0; a < AHEAD; a++) {
            const size_t at = i + (size_t)a * k.rows;
            if (at >= count) continue;
#pragma unroll
            for (int j = 0; j < V; j++) {
                const float more = RESIDUAL ? to_float(r[a].x[j]) : 0.0f;
                const float u = fmaf(to_float(v[a].x[j]) - mean[j], scale[j], shift[j]) + more;
                v[a].x[j] = from_float<T>(activate(u, act, slope));
            }
            store_piece<T, V>(y + base + at * c, v[a]);
        }
    }
}

/* The sums over a block, to all its threads; in a fixed order. */
template <int V>
static __device__ __forceinline__ void add_block(float (&v)[V], float (*shared)[V]) {
    constexpr unsigned OF_BLOCK = SMALL_THREADS / 32;
#pragma unroll
    for (int j = 0; j < V; j++) {
        for (unsigned o = 16; o; o /= 2) v[j] += __shfl_xor_sync(0xffffffffu, v[j], o);
        if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32][j] = v[j];
    }
    __syncthreads();
#pragma unroll
    for (int j = 0; j < V; j++) {
        v[j] = 0;
        for (unsigned w = 0; w < OF_BLOCK; w++) v[j] += shared[w][j];
    }
}

/* All of it for V channels a block, whose P voxels a thread stay in registers. Grid: (c / V, n). x,
 * residual and y may be the same memory. */
template <typename T, int V, int P>
static __global__ void __launch_bounds__(SMALL_THREADS)
    small_kernel(const T *x, const T *residual, T *y, size_t c, unsigned voxels,
                 const float *__restrict__ gamma, const float *__restrict__ beta, float eps,
                 vx_activation act, float slope) {
    __shared__ float shared[2][SMALL_THREADS / 32][V];
    const size_t channel = (size_t)blockIdx.x * V;
    const size_t base = (size_t)blockIdx.y * voxels * c + channel;
    float v[P][V], mean[V] = {}, scale[V] = {};
#pragma unroll
    for (int p = 0; p < P; p++) {
        const unsigned i = p * SMALL_THREADS + threadIdx.x;
        if (i >= voxels) continue;
        load_numbers<T, V>(x + base + i * c, v[p]);
#pragma unroll
        for (int j = 0; j < V; j++) mean[j] += v[p][j];
    }
    add_block<V>(mean, shared[0]);
#pragma unroll
    for (int j = 0; j < V; j++) mean[j] /= (float)voxels;
#pragma unroll
    for (int p = 0; p < P; p++) {
        if (p * SMALL_THREADS + threadIdx.x >= voxels) continue;
#pragma unroll
        for (int j = 0; j < V; j++) {
            v[p][j] -= mean[j];
            scale[j] = fmaf(v[p][j], v[p][j], scale[j]);
        }
    }
    add_block<V>(scale, shared[1]);
#pragma unroll
    for (int j = 0; j < V; j++)
        scale[j] = gamma[channel + j] / sqrtf(scale[j] / (float)voxels + eps);
#pragma unroll
    for (int p = 0; p < P; p++) {
        const unsigned i = p * SMALL_THREADS + threadIdx.x;
        if (i >= voxels) continue;
        float r[V] = {};
        if (residual) load_numbers<T, V>(residual + base + i * c, r);
#pragma unroll
        for (int j = 0; j < V; j++)
            v[p][j] = activate(fmaf(v[p][j], scale[j], beta[channel + j]) + r[j], act, slope);
        store_numbers<T, V>(y + base + i * c, v[p]);
    }
}

/* Calls f(zero of the type, V) with V the numbers of 16 bytes, or 1 where c is no multiple. */
template <typename F> static void for_norm(const vx_cuda_norm *norm, F &&f) {
    for_type(norm->dtype, [&](auto t) {
        constexpr int V = WIDE<decltype(t)>;
        if (norm->shape.c % V == 0)
            f(t, std::integral_constant<int, V>());
        else
            f(t, std::integral_constant<int, 1>());
    });
}

static bool fits(vx_shape s) { return s.n <= 65535 && s.c <= 65535 && s.d * s.h * s.w <= 1u << 31; }

vx_status vx_cuda_instance_norm_apply(const vx_cuda_norm *norm, size_t parts, const void *x,
                                      const void *residual, void *y, void *scratch,
                                      cudaStream_t stream, vx_error *err) {
    const vx_shape s = norm->shape;
    const double voxels = (double)(s.d * s.h * s.w);
    if (!fits(s)) return vx_cuda_too_large("instance norm", err);
    vx_cuda_moments *of_parts = (vx_cuda_moments *)scratch, *whole = of_parts + s.n * parts * s.c;
    whole_kernel<<<dim3((unsigned)((s.c + JOINED - 1) / JOINED), (unsigned)s.n), JOINED * SLOTS, 0,
                   stream>>>(of_parts, s.c, (unsigned)parts, voxels, norm->gamma, norm->eps, whole);
    for_norm(norm, [&](auto t, auto v) {
        using T = decltype(t);
        constexpr int V = decltype(v)::value;
        const cut bare = cut_of(s, V), k = with_parts(bare, (size_t)bare.rows * 2 * AHEAD);
        const auto kernel = residual ? apply_kernel<T, V, true> : apply_kernel<T, V, false>;
        kernel<<<dim3(k.parts, k.groups, (unsigned)s.n), THREADS, 0, stream>>>(
            (const T *)x, (const T *)residual, (T *)y, s.c, k, whole, norm->beta, norm->act,
            norm->slope);
    });
    return vx_cuda_launched("instance norm", err);
}

static vx_status small_norm(const vx_cuda_norm *norm, const void *x, const void *residual, void *y,
                            cudaStream_t stream, vx_error *err) {
    const vx_shape s = norm->shape;
    const unsigned voxels = (unsigned)(s.d * s.h * s.w);
    for_norm(norm, [&](auto t, auto v) {
        using T = decltype(t);
        constexpr int V = decltype(v)::value;
        const auto kernel = voxels <= SMALL_THREADS ? small_kernel<T, V, 1> : small_kernel<T, V, 2>;
        kernel<<<dim3((unsigned)(s.c / V), (unsigned)s.n), SMALL_THREADS, 0, stream>>>(
            (const T *)x, (const T *)residual, (T *)y, s.c, voxels, norm->gamma, norm->beta,
            norm->eps, norm->act, norm->slope);
    });
    return vx_cuda_launched("instance norm", err);
}

vx_status vx_cuda_instance_norm(const vx_cuda_norm *norm, const void *x, const void *residual,
                                void *y, void *scratch, cudaStream_t stream, vx_error *err) {
    const vx_shape s = norm->shape;
    if (!fits(s)) return vx_cuda_too_large("instance norm", err);
    const size_t voxels = s.d * s.h * s.w, parts = vx_cuda_instance_norm_parts(s);
    if (voxels <= SMALL) return small_norm(norm, x, residual, y, stream, err);
    for_norm(norm, [&](auto t, auto v) {
        using T = decltype(t);
        constexpr int V = decltype(v)::value;
        const cut k = with_parts(cut_of(s, V), (voxels + parts - 1) / parts);
        part_kernel<T, V><<<dim3(k.parts, k.groups, (unsigned)s.n), THREADS, 0, stream>>>(
            (const T *)x, s.c, k, (vx_cuda_moments *)scratch);
    });
    vx_status status = vx_cuda_launched("instance norm", err);
    return status == VX_OK
               ? vx_cuda_instance_norm_apply(norm, parts, x, residual, y, scratch, stream, err)
               : status;
}
