/* Every operation is rounded on its own (__fmul_rn, __fadd_rn: never a fused multiply-add), in the
 * order of infer/slab.c and infer/finalise.c: the same bits as there. One thread owns a sum, so
 * nothing depends on the order of threads. */
#include "cuda/check.h"
#include "cuda/sweep_kernels.h"

namespace {

enum { THREADS = 256 };

/* Row number `i` of rows: a block's. */
struct row_range {
    uint32_t z, y, ny;
    uint32_t count;
};

row_range range_of(const vx_rows *rows) {
    return {(uint32_t)rows->from[0], (uint32_t)rows->from[1],
            (uint32_t)(rows->end[1] - rows->from[1]), (uint32_t)vx_rows_count(rows)};
}

__device__ __forceinline__ size_t row_floats(const vx_sweep_view &v) {
    return (size_t)v.dims[2] * v.classes;
}

__device__ __forceinline__ float *row_at(const vx_sweep_view &v, uint32_t z, uint32_t y) {
    return v.sums + v.slot[(size_t)z * v.dims[1] + y] * row_floats(v);
}

__global__ void zero_rows(vx_sweep_view v, row_range rows) {
    float *row = row_at(v, rows.z + blockIdx.x / rows.ny, rows.y + blockIdx.x % rows.ny);
    for (size_t i = threadIdx.x; i < row_floats(v); i += blockDim.x) row[i] = 0;
}

/* One row (blockIdx.y z, blockIdx.x y) of the tile. */
__global__ void cut_row(vx_sweep_view v, vx_sweep_at at, unsigned flips, float *tile) {
    const uint32_t z = blockIdx.y, y = blockIdx.x;
    const int64_t from_z = at.at[0] + (int64_t)(flips & 1 ? v.patch[0] - 1 - z : z);
    const int64_t from_y = at.at[1] + (int64_t)(flips & 2 ? v.patch[1] - 1 - y : y);
    const bool inside = from_z >= 0 && from_z < v.dims[0] && from_y >= 0 && from_y < v.dims[1];
    const size_t n = (size_t)v.patch[2] * v.channels;
    float *to = tile + ((size_t)z * v.patch[1] + y) * n;
    for (size_t i = threadIdx.x; i < n; i += blockDim.x) {
        const uint32_t x = (uint32_t)(i / v.channels), c = (uint32_t)(i % v.channels);
        const int64_t from_x = at.at[2] + (int64_t)(flips & 4 ? v.patch[2] - 1 - x : x);
        float value = 0;
        if (inside && from_x >= 0 && from_x < v.dims[2])
            value =
                v.image[(((size_t)c * v.dims[0] + (size_t)from_z) * v.dims[1] + (size_t)from_y) *
                            v.dims[2] +
                        (size_t)from_x];
        to[i] = value;
    }
}

/* One row of the volume that the tile covers: its z-th, y-th. */
__global__ void add_row(vx_sweep_view v, vx_sweep_at at, unsigned flips, float scale,
                        const float *logits) {
    const uint32_t z = blockIdx.y, y = blockIdx.x;
    const int64_t to_z = at.at[0] + (int64_t)z, to_y = at.at[1] + (int64_t)y;
    if (to_z < 0 || to_z >= v.dims[0] || to_y < 0 || to_y >= v.dims[1]) return;
    const uint32_t from_z = flips & 1 ? v.patch[0] - 1 - z : z;
    const uint32_t from_y = flips & 2 ? v.patch[1] - 1 - y : y;
    const size_t n = (size_t)v.patch[2] * v.classes;
    const float *from = logits + ((size_t)from_z * v.patch[1] + from_y) * n;
    float *to = row_at(v, (uint32_t)to_z, (uint32_t)to_y);
    const float weight_zy = __fmul_rn(__fmul_rn(v.profile[0][z], v.profile[1][y]), scale);
    for (size_t i = threadIdx.x; i < n; i += blockDim.x) {
        const uint32_t x = (uint32_t)(i / v.classes), c = (uint32_t)(i % v.classes);
        const int64_t to_x = at.at[2] + (int64_t)x;
        if (to_x < 0 || to_x >= v.dims[2]) continue;
        const uint32_t from_x = flips & 4 ? v.patch[2] - 1 - x : x;
        const float weight = __fmul_rn(weight_zy, v.profile[2][x]);
        float *sum = to + (size_t)to_x * v.classes + c;
        *sum = __fadd_rn(*sum, __fmul_rn(weight, from[(size_t)from_x * v.classes + c]));
    }
}

__global__ void divide_row(vx_sweep_view v, row_range rows) {
    const uint32_t z = rows.z + blockIdx.x / rows.ny, y = rows.y + blockIdx.x % rows.ny;
    float *row = row_at(v, z, y);
    const float total_zy = __fmul_rn(v.total[0][z], v.total[1][y]);
    bool bad = false;
    for (size_t i = threadIdx.x; i < row_floats(v); i += blockDim.x) {
        row[i] = __fdiv_rn(row[i], __fmul_rn(total_zy, v.total[2][i / v.classes]));
        bad |= !isfinite(row[i]);
    }
    if (bad) *v.bad = 1; /* whoever writes, writes the same */
}

__device__ __forceinline__ float blend(float a, float b, float w) {
    return __fadd_rn(__fmul_rn(1 - w, a), __fmul_rn(w, b));
}

/* The rows that one row of labels is blended from, and how much of each. */
struct sources {
    const float *a, *b, *c, *d; /* (z, y): low low, low high, high low, high high */
    float wz, wy, w00, w01, w10, w11;

    /* Element i of the blended row. */
    __device__ __forceinline__ float at(size_t i) const {
        if (wz == 0 && wy == 0) return a[i];
        if (wz == 0) return blend(a[i], b[i], wy);
        if (wy == 0) return blend(a[i], c[i], wz);
        const float low = __fadd_rn(__fmul_rn(w00, a[i]), __fmul_rn(w01, b[i]));
        return __fadd_rn(__fadd_rn(low, __fmul_rn(w10, c[i])), __fmul_rn(w11, d[i]));
    }
};

__device__ sources sources_of(const vx_sweep_view &v, uint32_t z, uint32_t y) {
    sources s;
    s.wz = v.weight[0][z];
    s.wy = v.weight[1][y];
    const uint32_t z0 = v.low[0][z], z1 = s.wz > 0 ? z0 + 1 : z0;
    const uint32_t y0 = v.low[1][y], y1 = s.wy > 0 ? y0 + 1 : y0;
    s.a = row_at(v, z0, y0);
    s.b = row_at(v, z0, y1);
    s.c = row_at(v, z1, y0);
    s.d = row_at(v, z1, y1);
    s.w00 = __fmul_rn(1 - s.wz, 1 - s.wy);
    s.w01 = __fmul_rn(1 - s.wz, s.wy);
    s.w10 = __fmul_rn(s.wz, 1 - s.wy);
    s.w11 = __fmul_rn(s.wz, s.wy);
    return s;
}

template <typename L> __global__ void label_row(vx_sweep_view v, row_range rows, L *labels) {
    const sources s = sources_of(v, rows.z + blockIdx.x / rows.ny, rows.y + blockIdx.x % rows.ny);
    L *to = labels + (size_t)blockIdx.x * v.out[2];
    for (uint32_t x = threadIdx.x; x < v.out[2]; x += blockDim.x) {
        const size_t from = (size_t)v.low[2][x] * v.classes;
        const float wx = v.weight[2][x];
        float largest = 0; /* of regions: what a class has to be above */
        int64_t best = v.regions ? -1 : 0;
        for (uint32_t c = 0; c < v.classes; c++) {
            float logit = s.at(from + c);
            if (wx > 0) logit = blend(logit, s.at(from + v.classes + c), wx);
            if (v.regions ? logit > 0 : c == 0 || logit > largest) {
                best = c;
                if (!v.regions) largest = logit;
            }
        }
        to[x] = best < 0 ? (L)0 : (L)v.values[best];
    }
}

} // namespace

vx_status vx_cuda_sweep_zero(const vx_sweep_view *view, const vx_rows *rows, cudaStream_t stream,
                             vx_error *err) {
    const row_range range = range_of(rows);
    if (range.count) zero_rows<<<range.count, THREADS, 0, stream>>>(*view, range);
    return vx_cuda_launched("clearing rows of logits", err);
}

vx_status vx_cuda_sweep_cut(const vx_sweep_view *view, vx_sweep_at at, unsigned flips, float *tile,
                            cudaStream_t stream, vx_error *err) {
    const dim3 grid(view->patch[1], view->patch[0]);
    cut_row<<<grid, THREADS, 0, stream>>>(*view, at, flips, tile);
    return vx_cuda_launched("cutting a tile", err);
}

vx_status vx_cuda_sweep_add(const vx_sweep_view *view, vx_sweep_at at, unsigned flips, float scale,
                            const float *logits, cudaStream_t stream, vx_error *err) {
    const dim3 grid(view->patch[1], view->patch[0]);
    add_row<<<grid, THREADS, 0, stream>>>(*view, at, flips, scale, logits);
    return vx_cuda_launched("adding a tile's logits", err);
}

vx_status vx_cuda_sweep_divide(const vx_sweep_view *view, const vx_rows *rows, cudaStream_t stream,
                               vx_error *err) {
    const row_range range = range_of(rows);
    if (range.count) divide_row<<<range.count, THREADS, 0, stream>>>(*view, range);
    return vx_cuda_launched("dividing logits", err);
}

vx_status vx_cuda_sweep_labels(const vx_sweep_view *view, const vx_rows *rows, void *labels,
                               cudaStream_t stream, vx_error *err) {
    const row_range range = range_of(rows);
    if (range.count && view->label_bytes == 1)
        label_row<<<range.count, THREADS, 0, stream>>>(*view, range, (uint8_t *)labels);
    else if (range.count)
        label_row<<<range.count, THREADS, 0, stream>>>(*view, range, (uint16_t *)labels);
    return vx_cuda_launched("making labels", err);
}
