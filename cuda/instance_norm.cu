/* Two launches for the statistics and one for the rest; one for all where the voxels are few. A
 * block's threads stand in rows of lanes: a
 * lane owns V neighbouring channels, the rows share out the voxels of the block's part. */
#include "base/size.h"
#include "cuda/check.h"
#include "cuda/pending.cuh"
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
    static_assert(sizeof(vx_cuda_affine) == sizeof(vx_cuda_moments), "of one more part");
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

/* affine[n][c] = (mean, gamma / sqrt(variance + eps), beta), mean as a part of the last where it is
 * folded. A block takes JOINED channels, SLOTS
 * threads share out a channel's parts; sums are double, about the first part's mean, in a fixed
 * order. */
static __global__ void whole_kernel(const vx_cuda_moments *__restrict__ parts, size_t c,
                                    unsigned count, double voxels, const float *__restrict__ gamma,
                                    const float *__restrict__ beta, float eps, bool folded,
                                    vx_cuda_affine *__restrict__ affine) {
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
    const double scale = inv * (double)gamma[channel], shift = (double)beta[channel];
    affine[blockIdx.y * c + channel] =
        folded ? vx_cuda_affine{0, (float)scale, (float)(shift - (origin + mean) * scale)}
               : vx_cuda_affine{(float)(origin + mean), (float)scale, (float)shift};
}

enum residual_kind { NO_RESIDUAL, RESIDUAL, PENDING_RESIDUAL };

/* Grid: (parts, groups, n). x, residual (as KIND says) and y may be the same memory. What is on
 * its way is held as it is stored: registers are what limits how much that is. SLOPED: slope alone
 * says what the activation is, as in a vx_cuda_pending. */
template <typename T, int V, residual_kind KIND, bool SLOPED>
static __global__ void apply_kernel(const T *x, const T *residual, vx_cuda_pending pending, T *y,
                                    size_t c, cut k, const vx_cuda_affine *__restrict__ affine,
                                    vx_activation act, float slope) {
    using piece = numbers<T, V>;
    const unsigned lane = threadIdx.x % k.lanes, row = threadIdx.x / k.lanes;
    const size_t channel = ((size_t)blockIdx.y * k.lanes + lane) * V;
    const size_t first = blockIdx.x * k.part_voxels;
    const size_t count = min(k.part_voxels, k.voxels - first);
    if (channel >= c) return;
    vx_cuda_affine own[V], other[V];
#pragma unroll
    for (int j = 0; j < V; j++) {
        own[j] = affine[blockIdx.z * c + channel + j];
        if (KIND == PENDING_RESIDUAL) other[j] = pending.affine[blockIdx.z * c + channel + j];
    }
    const size_t base = (blockIdx.z * k.voxels + first) * c + channel;
    for (size_t i = row; i < count; i += (size_t)k.rows * AHEAD) {
        piece v[AHEAD], r[AHEAD];
#pragma unroll
        for (int a = 0; a < AHEAD; a++) {
            const size_t at = i + (size_t)a * k.rows;
            if (at >= count) continue;
            v[a] = *(const piece *)(x + base + at * c);
            if (KIND != NO_RESIDUAL) r[a] = *(const piece *)(residual + base + at * c);
        }
#pragma unroll
        for (int a = 0; a < AHEAD; a++) {
            const size_t at = i + (size_t)a * k.rows;
            if (at >= count) continue;
            float u[V], more[V];
#pragma unroll
            for (int j = 0; j < V; j++) {
                u[j] = apply_affine<T>(to_float(v[a].x[j]), own[j]);
                if (KIND == NO_RESIDUAL) continue;
                more[j] = to_float(r[a].x[j]);
                if (KIND == PENDING_RESIDUAL)
                    more[j] = apply_pending<T>(more[j], other[j], pending.slope);
            }
            if (KIND == PENDING_RESIDUAL) round_numbers<T, V>(more);
#pragma unroll
            for (int j = 0; j < V; j++) {
                if (KIND != NO_RESIDUAL) u[j] += more[j];
                u[j] = SLOPED ? fmaxf(u[j], u[j] * slope) : activate(u[j], act, slope);
            }
            store_numbers<T, V>(y + base + at * c, u);
        }
    }
}

template <typename T, int V, bool SLOPED>
static auto apply_kernel_for(const void *residual, vx_cuda_pending pending) {
    return !residual        ? apply_kernel<T, V, NO_RESIDUAL, SLOPED>
           : pending.affine ? apply_kernel<T, V, PENDING_RESIDUAL, SLOPED>
                            : apply_kernel<T, V, RESIDUAL, SLOPED>;
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

bool vx_cuda_instance_norm_small(vx_shape s) { return s.d * s.h * s.w <= SMALL; }

vx_status vx_cuda_instance_norm_moments(const vx_cuda_norm *norm, const void *x,
                                        vx_cuda_moments *moments, cudaStream_t stream,
                                        vx_error *err) {
    const vx_shape s = norm->shape;
    const size_t voxels = s.d * s.h * s.w, parts = vx_cuda_instance_norm_parts(s);
    if (!fits(s)) return vx_cuda_too_large("instance norm", err);
    for_norm(norm, [&](auto t, auto v) {
        using T = decltype(t);
        constexpr int V = decltype(v)::value;
        const cut k = with_parts(cut_of(s, V), (voxels + parts - 1) / parts);
        part_kernel<T, V><<<dim3(k.parts, k.groups, (unsigned)s.n), THREADS, 0, stream>>>(
            (const T *)x, s.c, k, moments);
    });
    return vx_cuda_launched("instance norm", err);
}

vx_status vx_cuda_instance_norm_join(const vx_cuda_norm *norm, size_t parts,
                                     const vx_cuda_moments *moments, vx_cuda_affine *affine,
                                     cudaStream_t stream, vx_error *err) {
    const vx_shape s = norm->shape;
    if (!fits(s)) return vx_cuda_too_large("instance norm", err);
    whole_kernel<<<dim3((unsigned)((s.c + JOINED - 1) / JOINED), (unsigned)s.n), JOINED * SLOTS, 0,
                   stream>>>(moments, s.c, (unsigned)parts, (double)(s.d * s.h * s.w), norm->gamma,
                             norm->beta, norm->eps, norm->dtype != VX_F32, affine);
    return vx_cuda_launched("instance norm", err);
}

vx_status vx_cuda_instance_norm_apply(const vx_cuda_norm *norm, const vx_cuda_affine *affine,
                                      const void *x, const void *residual, vx_cuda_pending pending,
                                      void *y, cudaStream_t stream, vx_error *err) {
    const vx_shape s = norm->shape;
    if (!fits(s)) return vx_cuda_too_large("instance norm", err);
    for_norm(norm, [&](auto t, auto v) {
        using T = decltype(t);
        constexpr int V = decltype(v)::value;
        const cut bare = cut_of(s, V), k = with_parts(bare, (size_t)bare.rows * 2 * AHEAD);
        const float slope = vx_cuda_slope_of(norm->act, norm->slope);
        const bool sloped = V > 1 && slope >= 0;
        const auto kernel = sloped ? apply_kernel_for<T, V, (V > 1)>(residual, pending)
                                   : apply_kernel_for<T, V, false>(residual, pending);
        kernel<<<dim3(k.parts, k.groups, (unsigned)s.n), THREADS, 0, stream>>>(
            (const T *)x, (const T *)residual, pending, (T *)y, s.c, k, affine, norm->act,
            sloped ? slope : norm->slope);
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
    if (vx_cuda_instance_norm_small(s)) return small_norm(norm, x, residual, y, stream, err);
    const size_t parts = vx_cuda_instance_norm_parts(s);
    vx_cuda_moments *moments = (vx_cuda_moments *)scratch;
    vx_cuda_affine *affine = (vx_cuda_affine *)(moments + s.n * parts * s.c);
    vx_status status = vx_cuda_instance_norm_moments(norm, x, moments, stream, err);
    if (status == VX_OK)
        status = vx_cuda_instance_norm_join(norm, parts, moments, affine, stream, err);
    return status == VX_OK ? vx_cuda_instance_norm_apply(norm, affine, x, residual,
                                                         vx_cuda_pending{}, y, stream, err)
                           : status;
}
