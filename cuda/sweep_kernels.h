/* sweep.cu: the kernels of a sweep (backend/sweep.h says what they compute). Each launcher queues
 * one kernel on the stream. All pointers are device memory. */
#ifndef VX_CUDA_SWEEP_KERNELS_H
#define VX_CUDA_SWEEP_KERNELS_H

#include <cuda_runtime_api.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#include "backend/sweep.h"

/* A sweep as its kernels see it. Dims fit 31 bits (vx_cuda_sweep_create sees to it); products do
 * not. Triples z, y, x. */
typedef struct vx_sweep_view {
    uint32_t dims[3], patch[3], out[3];
    uint32_t channels, classes;
    const float *image;      /* [channel][z][y][x] */
    float *sums;             /* [slot][x][class] */
    const uint32_t *slot;    /* [z][y] */
    const float *profile[3]; /* [patch] */
    const float *total[3];   /* [dims] */
    const uint32_t *low[3];  /* [out] */
    const float *weight[3];  /* [out] */
    const uint32_t *values;  /* [classes] */
    uint32_t regions;
    uint32_t label_bytes;
    uint32_t *bad; /* becomes 1 where a sum is NaN or infinite */
} vx_sweep_view;

/* A voxel; at[axis] may be negative. */
typedef struct vx_sweep_at {
    int32_t at[3];
} vx_sweep_at;

vx_status vx_cuda_sweep_zero(const vx_sweep_view *view, const vx_rows *rows, cudaStream_t stream,
                             vx_error *err);
/* tile: [z][y][x][channel] of patch. */
vx_status vx_cuda_sweep_cut(const vx_sweep_view *view, vx_sweep_at at, unsigned flips, float *tile,
                            cudaStream_t stream, vx_error *err);
/* logits: [z][y][x][class] of patch. */
vx_status vx_cuda_sweep_add(const vx_sweep_view *view, vx_sweep_at at, unsigned flips, float scale,
                            const float *logits, cudaStream_t stream, vx_error *err);
vx_status vx_cuda_sweep_divide(const vx_sweep_view *view, const vx_rows *rows, cudaStream_t stream,
                               vx_error *err);
/* labels: [z][y][x] of rows, view->label_bytes each. */
vx_status vx_cuda_sweep_labels(const vx_sweep_view *view, const vx_rows *rows, void *labels,
                               cudaStream_t stream, vx_error *err);

#ifdef __cplusplus
}
#endif

#endif
