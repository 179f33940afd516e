/* A 3D convolution through cuDNN's backend API: channels last, zero padding, no bias.
 *
 *   x [n][d][h][w][c], w packed [Cout][kd][kh][kw][Cin], y [n][d][h][w][Cout], all of one type.
 *
 * Only engines that give the same bits on every run; with fp32 none that uses tensor cores (which
 * would round to TF32), and sums are never kept in less than fp32. The engine is chosen among those
 * that cuDNN's heuristic names by timing each once, and kept on disk (plan_cache.h): which engine
 * is taken can change the last bits between machines, never between runs with one cache.
 */
#ifndef VX_CUDA_CONV_CUDNN_H
#define VX_CUDA_CONV_CUDNN_H

#include "cuda/step.h"

typedef struct vx_cuda_conv_shape {
    vx_shape in, out;
    size_t kernel[3], stride[3], pad[3];
    vx_dtype dtype;
} vx_cuda_conv_shape;

typedef struct vx_cuda_conv {
    cudnnBackendDescriptor_t plan;
    size_t workspace_bytes;
} vx_cuda_conv;

/* conv: zeroed; vx_cuda_conv_destroy also after a failure. Takes device memory for x, w, y and
 * workspaces while it times. VX_ERR_RESOURCE when no engine does it. */
vx_status vx_cuda_conv_create(const vx_device *device, const vx_cuda_conv_shape *shape,
                              vx_cuda_conv *conv, vx_error *err);
void vx_cuda_conv_destroy(vx_cuda_conv *conv);

/* Queues it on the device's stream, the one that device->cudnn is set to. Pointers VX_CUDA_ALIGN
 * aligned. */
vx_status vx_cuda_conv_launch(const vx_device *device, const vx_cuda_conv *conv, const void *x,
                              const void *w, void *y, void *workspace, vx_error *err);

#endif
