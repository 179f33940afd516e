/* Two launches for the statistics and one for the rest. A block's threads stand in rows of lanes:
 * a lane owns V neighbouring channels, the rows share out the voxels of the block's part. */
#include "base/size.h"
#include "cuda/check.h"
#include "cuda/value.cuh"

using namespace vx_cuda;

static constexpr unsigned THREADS = 256;
static constexpr size_t PARTS_MAX = 512, PART_VOXELS_MIN = 256;

/* count numbers with their mean and sum of squared deviations; joined as by Chan, Golub & LeVeque
 * 1979. */
struct moments {
    float mean, squares;
};

/* How a tensor is cut: from its shape alone. */
struct cut {
    size_t voxels, part_voxels;
    unsigned parts, lanes, groups, width; /* groups of lanes * width channels cover c */
};

static cut cut_of(vx_shape s) {
    cut k;
    k.voxels = s.d * s.h * s.w;
    k.part_voxels = (k.voxels + PARTS_MAX - 1) / PARTS_MAX;
    if (k.part_voxels < PART_VOXELS_MIN) k.part_voxels = PART_VOXELS_MIN;
    k.parts = (unsigned)((k.voxels + k.part_voxels - 1) / k.part_voxels);
    k.width = s.c % 4 == 0 ? 4 : 1;
    k.lanes = 1;
    while (k.lanes < 32 && (size_t)k.lanes * k.width < s.c) k.lanes *= 2;
    const size_t columns = (size_t)k.lanes * k.width;
    k.groups = (unsigned)((s.c + columns - 1) / columns);
    return k;
}

/* Of numbers n_a and n_b; either may be 0. */
static __device__ __forceinline__ moments join(moments a, float n_a, moments b, float n_b) {
    const float n = n_a + n_b;
    if (n_b == 0.0f) return a;
    const float e = b.mean - a.mean, share = n_b / n;
    return {fmaf(e, share, a.mean), a.squares + b.squares + e * e * n_a * share};
}

/* Numbers of row r among `rows` that take turns over `count`. */
static __device__ __forceinline__ float turns(size_t count, unsigned r, unsigned rows) {
    return r < count ? (float)((count - r + rows - 1) / rows) : 0.0f;
}

/* parts [n][part][c]. Grid: (parts, groups, n). */
template <typename T, int V>
static __global__ void part_kernel(const T *__restrict__ x, size_t c, cut k,
                                   moments *__restrict__ parts) {
    __shared__ moments shared[THREADS][V];
    const unsigned lane = threadIdx.x % k.lanes, row = threadIdx.x / k.lanes;
    const unsigned rows = THREADS / k.lanes;
    const size_t channel = ((size_t)blockIdx.y * k.lanes + lane) * V;
    const size_t first = blockIdx.x * k.part_voxels;
    const size_t count = min(k.part_voxels, k.voxels - first);
    const bool active = channel < c; /* V divides c: all V channels then */
    if (active && row < count) {
        /* Sums about the first number: no cancellation where the mean is far from zero. */
        const T *from = x + (blockIdx.z * k.voxels + first) * c + channel;
        float origin[V], sum[V] = {}, squares[V] = {};
        load_numbers<T, V>(from + row * c, origin);
        for (size_t i = row; i < count; i += rows) {
            float v[V];
            load_numbers<T, V>(from + i * c, v);
#pragma unroll
            for (int j = 0; j < V; j++) {
                const float e = v[j] - origin[j];
                sum[j] += e;
                squares[j] = fmaf(e, e, squares[j]);
            }
        }
        const float n = turns(count, row, rows);
#pragma unroll
        for (int j = 0; j < V; j++) {
            const float mean = sum[j] / n;
            shared[threadIdx.x][j] = {origin[j] + mean, fmaxf(squares[j] - sum[j] * mean, 0.0f)};
        }
    }
    __syncthreads();
    if (!active || row != 0) return;
        /* Row after row, in order; few: at most 256. */
#pragma unroll
    for (int j = 0; j < V; j++) {
        moments all = shared[lane][j];
        float n = turns(count, 0, rows);
        for (unsigned r = 1; r < rows && r < count; r++) {
            const float more = turns(count, r, rows);
            all = join(all, n, shared[r * k.lanes + lane][j], more);
            n += more;
        }
        parts[((size_t)blockIdx.z * k.parts + blockIdx.x) * c + channel + j] = all;
    }
}

/* whole[n][c] = (mean, gamma / sqrt(variance + eps)). One thread a channel; parts join in order. */
static __global__ void whole_kernel(const moments *__restrict__ parts, size_t c, cut k,
                                    const float *__restrict__ gamma, float eps,
                                    moments *__restrict__ whole) {
    const size_t channel = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (channel >= c) return;
    const moments *from = parts + (size_t)blockIdx.y * k.parts * c + channel;
    double mean = 0, squares = 0, n = 0;
    for (unsigned p = 0; p < k.parts; p++) {
        const size_t first = p * k.part_voxels;
        const double more = (double)min(k.part_voxels, k.voxels - first);
        const double e = (double)from[p * c].mean - mean, share = more / (n + more);
        squares += (double)from[p * c].squares + e * e * n * share;
        mean += e * share;
        n += more;
    }
    const double inv = 1.0 / sqrt(squares / n + (double)eps);
    whole[blockIdx.y * c + channel] = {(float)mean, (float)(inv * (double)gamma[channel])};
}

/* Grid: (parts, groups, n). x, residual and y may be the same memory. */
template <typename T, int V>
static __global__ void apply_kernel(const T *x, const T *residual, T *y, size_t c, cut k,
                                    const moments *__restrict__ whole,
                                    const float *__restrict__ beta, vx_activation act,
                                    float slope) {
    const unsigned lane = threadIdx.x % k.lanes, row = threadIdx.x / k.lanes;
    const unsigned rows = THREADS / k.lanes;
    const size_t channel = ((size_t)blockIdx.y * k.lanes + lane) * V;
    const size_t first = blockIdx.x * k.part_voxels;
    const size_t count = min(k.part_voxels, k.voxels - first);
    if (channel >= c) return;
    moments m[V];
    float shift[V];
#pragma unroll
    for (int j = 0; j < V; j++) {
        m[j] = whole[blockIdx.z * c + channel + j];
        shift[j] = beta[channel + j];
    }
    const size_t base = (blockIdx.z * k.voxels + first) * c + channel;
    for (size_t i = row; i < count; i += rows) {
        const size_t at = base + i * c;
        float v[V], r[V] = {};
        load_numbers<T, V>(x + at, v);
        if (residual) load_numbers<T, V>(residual + at, r);
#pragma unroll
        for (int j = 0; j < V; j++)
            v[j] = activate(fmaf(v[j] - m[j].mean, m[j].squares, shift[j]) + r[j], act, slope);
        store_numbers<T, V>(y + at, v);
    }
}

bool vx_cuda_instance_norm_scratch(vx_shape shape, size_t *bytes) {
    const size_t dims[] = {shape.n, (size_t)cut_of(shape).parts + 1, shape.c, sizeof(moments)};
    return vx_product(dims, 4, bytes);
}

template <typename T, int V>
static void launch(const vx_cuda_norm *norm, const cut &k, const T *x, const T *residual, T *y,
                   moments *parts, moments *whole, cudaStream_t stream) {
    const vx_shape s = norm->shape;
    const dim3 grid(k.parts, k.groups, (unsigned)s.n);
    part_kernel<T, V><<<grid, THREADS, 0, stream>>>(x, s.c, k, parts);
    whole_kernel<<<dim3((unsigned)((s.c + 31) / 32), (unsigned)s.n), 32, 0, stream>>>(
        parts, s.c, k, norm->gamma, norm->eps, whole);
    apply_kernel<T, V><<<grid, THREADS, 0, stream>>>(x, residual, y, s.c, k, whole, norm->beta,
                                                     norm->act, norm->slope);
}

vx_status vx_cuda_instance_norm(const vx_cuda_norm *norm, const void *x, const void *residual,
                                void *y, void *scratch, cudaStream_t stream, vx_error *err) {
    const vx_shape s = norm->shape;
    const cut k = cut_of(s);
    if (s.n > 65535 || k.groups > 65535)
        return vx_fail(err, VX_ERR_RESOURCE,
                       "instance norm: %zu samples of %zu channels are more "
                       "than the CUDA backend takes",
                       s.n, s.c);
    moments *parts = (moments *)scratch, *whole = parts + s.n * k.parts * s.c;
    for_type(norm->dtype, [&](auto t) {
        using T = decltype(t);
        if (k.width == 4)
            launch<T, 4>(norm, k, (const T *)x, (const T *)residual, (T *)y, parts, whole, stream);
        else
            launch<T, 1>(norm, k, (const T *)x, (const T *)residual, (T *)y, parts, whole, stream);
    });
    return vx_cuda_launched("instance norm", err);
}
