/* A convolution as a set of pieces: each piece is a contiguous stretch of one n's output tokens
 * that one worker computes alone. How a convolution is cut depends on its shapes only. */
#ifndef VX_BACKEND_CPU_CONV_H
#define VX_BACKEND_CPU_CONV_H

#include "backend/cpu/cpu.h"

typedef struct vx_conv {
    size_t pieces;       /* of one n */
    size_t piece_tokens; /* of each piece but the last, which may be shorter */
    size_t weight_bytes, worker_bytes;
    void *state;
    vx_status (*pack)(struct vx_conv *conv, const vx_cpu_step *step, void *weights, vx_error *err);
    /* x and y: the whole input and output, y float if step->out_float. False: the library below
     * failed (out of memory). */
    bool (*piece)(const struct vx_conv *conv, const vx_cpu_step *step, const void *x, void *y,
                  size_t n, size_t piece, void *scratch, unsigned worker);
    void (*destroy)(struct vx_conv *conv);
} vx_conv;

/* Bytes of a number of the output. */
static inline size_t vx_conv_out_size(const vx_cpu_step *step) {
    return step->out_float ? sizeof(float) : vx_dtype_size(step->kernels->stored);
}

/* Output tokens of piece number p of one n: [first, end). */
static inline void vx_conv_range(const vx_conv *conv, vx_shape out, size_t p, size_t *first,
                                 size_t *end) {
    const size_t tokens = out.d * out.h * out.w;
    *first = p * conv->piece_tokens;
    *end = tokens - *first < conv->piece_tokens ? tokens : *first + conv->piece_tokens;
}

/* Both leave what they made in out even when they fail: the caller calls out->destroy if set.
 * The bias is left out unless with_bias. */

/* Our own kernels: any kernel, stride and padding; also linear layers (kernel 1). */
vx_status vx_conv_own(const vx_cpu_step *step, bool with_bias, vx_conv *out, vx_error *err);

/* Winograd with our own kernels. *out stays empty (pieces 0) where it does not pay for these
 * shapes.
 */
vx_status vx_conv_winograd(const vx_cpu_step *step, bool with_bias, vx_conv *out, vx_error *err);

/* oneDNN. *out stays empty (pieces 0) where it has no fast way for these shapes, or is not built
 * in. */
vx_status vx_conv_dnnl(const vx_cpu_step *step, bool with_bias, vx_conv *out, vx_error *err);

#endif
