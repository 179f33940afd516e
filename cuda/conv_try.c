#include "cuda/conv_try.h"

#include "base/size.h"
#include "cuda/capture_lock.h"
#include "cuda/check.h"

bool vx_cuda_conv_memory_open(const vx_cuda_conv_shape *c, size_t workspace_bytes,
                              vx_cuda_conv_memory *m) {
    size_t at[4], end = 0, available = 0, total = 0;
    const size_t filter = c->kernel[0] * c->kernel[1] * c->kernel[2] * c->in.c;
    if (!vx_cuda_reserve(&end, vx_shape_elements(c->in), 1, c->dtype, &at[0]) ||
        !vx_cuda_reserve(&end, c->out.c, filter, c->dtype, &at[1]) ||
        !vx_cuda_reserve(&end, vx_shape_elements(c->out), 1, c->dtype, &at[2]))
        return false;
    at[3] = end;
    if (!vx_add_size(end, workspace_bytes, &end) ||
        cudaMemGetInfo(&available, &total) != cudaSuccess || end > available ||
        cudaMalloc((void **)&m->all, end) != cudaSuccess) {
        (void)cudaGetLastError(); /* or the next launch would be blamed for it */
        return false;
    }
    m->x = m->all + at[0];
    m->w = m->all + at[1];
    m->y = m->all + at[2];
    m->workspace = m->all + at[3];
    m->x_bytes = at[1] - at[0];
    m->w_bytes = at[2] - at[1];
    m->y_bytes = at[3] - at[2];
    return true;
}

void vx_cuda_conv_memory_close(vx_cuda_conv_memory *m) {
    vx_cuda_free_memory(m->all);
    *m = (vx_cuda_conv_memory){0};
}

/* Voxels of the output that see at least one of the input: all, unless the padding is as wide as
 * the kernel. The others' sums are 0. */
static size_t reached_voxels(const vx_cuda_conv_shape *c) {
    const size_t in[3] = {c->in.d, c->in.h, c->in.w}, out[3] = {c->out.d, c->out.h, c->out.w};
    size_t voxels = c->out.n;
    for (int i = 0; i < 3; i++) {
        size_t reached = 0;
        for (size_t o = 0; o < out[i]; o++) {
            const size_t first = o * c->stride[i]; /* in the padded input */
            reached += first + c->kernel[i] > c->pad[i] && first < c->pad[i] + in[i];
        }
        voxels *= reached;
    }
    return voxels;
}

/* Halves whose bytes are both `byte`: 0x5c is 279, 0xdc -279, and a product of two is beyond 65504
 * already. */
static vx_status fill(const vx_device *device, void *to, int byte, size_t bytes, vx_error *err) {
    return vx_cuda_check(cudaMemsetAsync(to, byte, bytes, device->stream), "filling memory", err);
}

/* One run with x of 279 and w of w_byte: how many numbers of y have these bits. */
static vx_status count_stored(const vx_device *device, const vx_cuda_conv_shape *shape,
                              const vx_cuda_conv *conv, const vx_cuda_conv_memory *m, int w_byte,
                              uint16_t bits, size_t *count, vx_error *err) {
    unsigned long long found = 0;
    vx_error ignored;
    *count = 0;
    vx_status status = fill(device, m->w, w_byte, m->w_bytes, err);
    if (status == VX_OK) status = fill(device, m->y, 0, m->y_bytes, err);
    if (status != VX_OK) return status;
    if (vx_cuda_conv_launch(device, conv, m->x, (vx_cuda_pending){0}, m->w, m->y, m->workspace,
                            NULL, &ignored) != VX_OK)
        return VX_OK;
    /* x has been read: the count takes its place. */
    status = fill(device, m->x, 0, sizeof found, err);
    if (status == VX_OK)
        status = vx_cuda_count_halves(m->y, vx_shape_elements(shape->out), bits, m->x,
                                      device->stream, err);
    if (status == VX_OK)
        status = vx_cuda_check(
            cudaMemcpyAsync(&found, m->x, sizeof found, cudaMemcpyDeviceToHost, device->stream),
            "trying a convolution", err);
    if (status == VX_OK)
        status = vx_cuda_check(cudaStreamSynchronize(device->stream), "trying a convolution", err);
    if (status == VX_OK) status = fill(device, m->x, 0x5c, sizeof found, err);
    *count = (size_t)found;
    return status;
}

vx_status vx_cuda_conv_overflows(const vx_device *device, const vx_cuda_conv_shape *shape,
                                 const vx_cuda_conv *conv, bool *does, vx_error *err) {
    static const struct {
        int w_byte;
        uint16_t infinity;
    } runs[2] = {{0xdc, 0xfc00}, {0x5c, 0x7c00}};
    const size_t right = reached_voxels(shape) * shape->out.c;
    vx_cuda_conv_memory m = {0};
    *does = false;
    if (!vx_cuda_conv_memory_open(shape, conv->workspace_bytes, &m)) {
        /* A kernel that failed before shows here first: no lack of memory. */
        if (vx_cuda_check(cudaStreamSynchronize(device->stream), "before a convolution is tried",
                          err) != VX_OK)
            return VX_ERR_RESOURCE;
        return vx_fail(err, VX_ERR_RESOURCE,
                       "the GPU has too little free memory to try a %zux%zux%zu convolution of %zu "
                       "to %zu channels in (use --device cpu)",
                       shape->kernel[0], shape->kernel[1], shape->kernel[2], shape->in.c,
                       shape->out.c);
    }
    vx_status status = fill(device, m.x, 0x5c, m.x_bytes, err);
    size_t count = right;
    for (size_t i = 0; i < 2 && status == VX_OK && count == right; i++)
        status =
            count_stored(device, shape, conv, &m, runs[i].w_byte, runs[i].infinity, &count, err);
    *does = status == VX_OK && count == right;
    vx_cuda_conv_memory_close(&m);
    return status;
}
