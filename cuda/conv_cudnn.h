/* A 3D convolution, channels last, zero padding, no bias: through cuDNN's backend API or by our own
 * kernel (conv_tiled.h), whichever was quicker when both were timed.
 *
 *   x [n][d][h][w][c], y [n][d][h][w][Cout], w packed by vx_cuda_conv_pack, all of one type.
 *
 * Only engines that give the same bits on every run; with fp32 none that uses tensor cores (which
 * would round to TF32), and sums are never kept in less than fp32. The engine is chosen among those
 * that cuDNN's heuristic names and our variants by timing each, and kept on disk (plan_cache.h):
 * which engine is taken can change the last bits between machines, never between runs with one
 * cache.
 */
#ifndef VX_CUDA_CONV_CUDNN_H
#define VX_CUDA_CONV_CUDNN_H

#include "cuda/conv_tiled.h"
#include "cuda/step.h"

typedef struct vx_cuda_conv_shape {
    vx_shape in, out;
    size_t kernel[3], stride[3], pad[3];
    vx_dtype dtype;
    bool normed; /* an instance norm follows: what gives its moments may be taken */
} vx_cuda_conv_shape;

typedef struct vx_cuda_conv {
    cudnnBackendDescriptor_t plan; /* NULL: our own kernel */
    vx_cuda_tiled tiled;           /* variant 0: cuDNN */
    size_t workspace_bytes;
    size_t
        parts; /* of moments of each n that a launch leaves: those of an instance norm; 0: none */
    /* Milliseconds when it was chosen: cuDNN's best engine, our variants; 0: not timed. */
    float timed[1 + VX_CUDA_TILED_VARIANTS];
} vx_cuda_conv;

/* conv: zeroed; vx_cuda_conv_destroy also after a failure. Takes device memory for x, w, y and
 * workspaces while it times. VX_ERR_RESOURCE when no engine does it. */
vx_status vx_cuda_conv_create(const vx_device *device, const vx_cuda_conv_shape *shape,
                              vx_cuda_conv *conv, vx_error *err);
void vx_cuda_conv_destroy(vx_cuda_conv *conv);

/* PyTorch's (Cout, Cin, kd, kh, kw) to the order that the chosen kernel reads; both as float. */
void vx_cuda_conv_pack(const vx_cuda_conv *conv, const vx_cuda_conv_shape *shape, const float *w,
                       float *to);

/* Queues it on the device's stream, the one that device->cudnn is set to. moments:
 * [n][parts][Cout], of conv->parts. Pointers VX_CUDA_ALIGN aligned. */
vx_status vx_cuda_conv_launch(const vx_device *device, const vx_cuda_conv *conv, const void *x,
                              const void *w, void *y, void *workspace, vx_cuda_moments *moments,
                              vx_error *err);

#endif
