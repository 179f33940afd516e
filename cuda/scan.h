/* Selective scan over voxel tokens on a CUDA device (Gu & Dao 2023, arXiv:2312.00752, eq. 2-4).
 *
 * For each channel d of D and each state n of N, with h = 0 before the first token of the order:
 *
 *   delta_t[d] = softplus(delta[t][d] + delta_bias[d]), where delta is given or, with a rank R,
 *                delta[t][d] = sum_r dt_w[r][d] * dt[t][r]
 *   h_t[d][n]  = exp(delta_t[d] * a[d][n]) * h_{t-1}[d][n] + delta_t[d] * u[t][d] * B[t][n]
 *   y[t][d]    = (sum_n C[t][n] * h_t[d][n] + skip[d] * u[t][d]) * SiLU(z[t][d])
 *
 * Tensors are channels last: one row a voxel, rows at the voxel's place in the grid whatever the
 * scan order. Nothing is permuted: the order says which voxel is visited as token t. Storage is
 * fp16, bf16 or fp32; state, exp, softplus and sums are fp32.
 *
 * The sequence is cut into chunks, and the cut depends on the shape alone: results do not depend on
 * the device or on what else is in the launch, and repeated runs give the same bits.
 */
#ifndef VX_CUDA_SCAN_H
#define VX_CUDA_SCAN_H

#include <cuda_runtime_api.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#include "base/status.h"
#include "graph/graph.h"

/* Which voxel is token t. Without a table: t = (i0 * dims[1] + i1) * dims[2] + i2 visits voxel
 * i0 * step[0] + i1 * step[1] + i2 * step[2]; reverse visits the same voxels from the end. With a
 * table (device memory, length entries, each in [0, 2^31)), token t is voxel table[t]. */
typedef struct vx_scan_walk {
    uint32_t dims[3]; /* product = length */
    uint32_t step[3]; /* in voxels */
    bool reverse;
    const int32_t *table; /* or NULL */
} vx_scan_walk;

typedef struct vx_scan_shape {
    uint32_t length;   /* tokens, 1 .. 2^31 - 1 */
    uint32_t channels; /* D >= 1 */
    uint32_t states;   /* N, 1 .. 256 */
    vx_dtype dtype;    /* of u, delta, dt, z, b, c and y */
    uint32_t rates;    /* K of the items' fits (scan_fit.h), or 0: no fits */
    uint32_t rank;     /* R of the items' dt, up to vx_cuda_scan_rank_max; 0: they bring delta */
} vx_scan_shape;

/* One direction (or one sample) of a launch. Device pointers; row r of a tensor starts at
 * pointer + r * its row step (in elements), so b and c may lie inside x_proj's output rows. y may
 * be u, delta or z (a warp reads its channels of a token before it writes them). */
typedef struct vx_scan_item {
    const void *u, *z, *b, *c; /* z NULL: no gate */
    const void *delta;         /* without a rank */
    const void *dt;            /* [voxel][R], with a rank */
    const float *dt_w;         /* [R][D], numbers that the storage type can hold */
    void *y;
    size_t u_row, delta_row, dt_row, z_row, b_row, c_row, y_row;
    const float *a;          /* [D][N], negative: -exp(A_log) */
    const float *skip;       /* [D] */
    const float *delta_bias; /* [D] */
    /* A fit of a as of vx_scan_fit_fill, or NULL; the weights 16-byte aligned. Not used for fp32,
     * for N above 64 or below compute capability 8.0. */
    const float *rates, *weights;
    vx_scan_walk walk;
} vx_scan_item;

/* At most this many items in one launch. */
#define VX_SCAN_MAX_ITEMS 8

/* Whether a fit with shape->rates makes the scan of this shape quicker. If not, give it none. */
bool vx_cuda_scan_fit_pays(const vx_scan_shape *shape);

/* The largest rank that a scan of this shape takes instead of delta (shape->rank is not looked at):
 * the projection is repeated in both passes, and costs them less than a tensor of D read twice. */
uint32_t vx_cuda_scan_rank_max(const vx_scan_shape *shape);

/* Bytes of device scratch that vx_cuda_scan needs for `items` items of this shape (a multiple of
 * 256; 0 is possible). VX_ERR_USAGE for a shape outside the limits above. */
vx_status vx_cuda_scan_scratch(const vx_scan_shape *shape, size_t items, size_t *bytes,
                               vx_error *err);

/* Queues the scan of all items on the stream: asynchronous, no allocation, graph-capturable.
 * scratch: device memory of vx_cuda_scan_scratch bytes, 256-byte aligned, not shared with a launch
 * that may run at the same time. VX_ERR_RESOURCE when the launch fails. */
vx_status vx_cuda_scan(const vx_scan_shape *shape, const vx_scan_item *items, size_t count,
                       void *scratch, size_t scratch_bytes, cudaStream_t stream, vx_error *err);

#ifdef __cplusplus
}
#endif

#endif
