/* Device memory that one convolution's plan is tried in, and what such a try finds out, before the
 * plan is taken (conv_cudnn.c). */
#ifndef VX_CUDA_CONV_TRY_H
#define VX_CUDA_CONV_TRY_H

#include "cuda/conv_cudnn.h"

/* x, w and y of the shape and a workspace, all VX_CUDA_ALIGN aligned. No more than what a network
 * with this convolution needs later: it has these four at once too. */
typedef struct vx_cuda_conv_memory {
    unsigned char *all;
    void *x, *w, *y, *workspace;
    size_t x_bytes, w_bytes, y_bytes;
} vx_cuda_conv_memory;

/* m: zeroed. False where it cannot be had: more than is free is never asked for. */
bool vx_cuda_conv_memory_open(const vx_cuda_conv_shape *shape, size_t workspace_bytes,
                              vx_cuda_conv_memory *m);
void vx_cuda_conv_memory_close(vx_cuda_conv_memory *m);

/* Whether this fp16 plan stores an infinity of the right sign where a sum is beyond fp16. Not every
 * engine of cuDNN does: some store 0 for sums below -65504, which nobody would notice later. Two
 * runs on the convolution's own shape, in which every sum overflows, one of each sign; every number
 * that they store is looked at. A plan that cannot be run does not. VX_ERR_RESOURCE without memory
 * to try it in. */
vx_status vx_cuda_conv_overflows(const vx_device *device, const vx_cuda_conv_shape *shape,
                                 const vx_cuda_conv *conv, bool *does, vx_error *err);

#endif
