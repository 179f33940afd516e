/* A 3D convolution, channels last, zero padding, no bias: through cuDNN's backend API or by our own
 * kernel (conv_tiled.h).
 *
 *   x [n][d][h][w][c], y [n][d][h][w][Cout], w packed by vx_cuda_conv_pack, all of one type.
 *
 * Only engines that give the same bits on every run; with fp32 none that uses tensor cores (which
 * would round to TF32), and sums are never kept in less than fp32; with fp16 none that stores
 * something finite where a sum is beyond fp16 (conv_try.h). Which one is taken can change
 * the last bits. With fp16 and bf16 it follows from the shape: our own kernel where it was the
 * quicker one when both were measured, otherwise the first such engine that cuDNN's heuristic
 * names; so the bits are the same on all GPUs of a kind with one cuDNN. With fp32 the engines are
 * timed and the quickest is kept on disk (plan_cache.h): the same bits as long as that is there.
 * Where nothing can be kept, or the device has too little memory to time in, the first one is
 * taken, as above.
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
} vx_cuda_conv;

/* conv: zeroed; vx_cuda_conv_destroy also after a failure. Takes device memory for x, w, y and the
 * largest workspace of the engines while it times, if so much is free; as much, and it must be
 * free, while it tries an fp16 engine. VX_ERR_RESOURCE when nothing does it. */
vx_status vx_cuda_conv_create(const vx_device *device, const vx_cuda_conv_shape *shape,
                              vx_cuda_conv *conv, vx_error *err);
void vx_cuda_conv_destroy(vx_cuda_conv *conv);

/* For benchmarks: our own kernel, with this variant; false where it has none for the shape. */
bool vx_cuda_conv_variant(const vx_cuda_conv_shape *shape, unsigned variant, vx_cuda_conv *conv);

/* PyTorch's (Cout, Cin, kd, kh, kw) to the order that the chosen kernel reads; both as float. */
void vx_cuda_conv_pack(const vx_cuda_conv *conv, const vx_cuda_conv_shape *shape, const float *w,
                       float *to);

/* Queues it on the device's stream, the one that device->cudnn is set to. pending: of x, where our
 * own kernel runs and applies it (vx_cuda_tiled_applies). moments: [n][parts][Cout], of
 * conv->parts. Pointers VX_CUDA_ALIGN aligned. */
vx_status vx_cuda_conv_launch(const vx_device *device, const vx_cuda_conv *conv, const void *x,
                              vx_cuda_pending pending, const void *w, void *y, void *workspace,
                              vx_cuda_moments *moments, vx_error *err);

#endif
