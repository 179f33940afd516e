/* Convolution as a matrix product over pointers to input voxels (the "indirect convolution" of
 * Dukhan 2019, arXiv:1907.02129): for each tap a list of the voxels that it meets, a row of zeros
 * standing for the padding. Nothing is copied. */
#include <string.h>

#include "backend/cpu/conv.h"
#include "base/size.h"

/* Output tokens of one call of the matrix product: a multiple of every kernel's tile. */
enum { ROWS = 48, PIECES_MAX = 256 };

typedef struct own_state {
    size_t kernel[3], stride[3], pad[3]; /* 1, 1, 0 for a linear layer */
    size_t taps;
    const void *packed, *zeros; /* in the step's weights; zeros: a stored row */
    const float *bias;          /* likewise */
    bool with_bias;
} own_state;

/* Pointers to what one tap reads for rows output tokens, starting at o (z, y, x). */
static void tap_rows(const vx_cpu_step *step, const own_state *own, const void *x,
                     const size_t tap[3], size_t o[3], size_t rows, const void **out) {
    const vx_shape in = step->in;
    for (size_t r = 0; r < rows; r++) {
        /* An index below the padding wraps to a huge number: one comparison finds both ends. */
        const size_t z = o[0] * own->stride[0] + tap[0] - own->pad[0];
        const size_t y = o[1] * own->stride[1] + tap[1] - own->pad[1];
        const size_t v = o[2] * own->stride[2] + tap[2] - own->pad[2];
        const bool inside = z < in.d && y < in.h && v < in.w;
        out[r] = inside ? vx_stored_from(step->kernels, x, ((z * in.h + y) * in.w + v) * in.c)
                        : own->zeros;
        if (++o[2] < step->out.w) continue;
        o[2] = 0;
        if (++o[1] < step->out.h) continue;
        o[1] = 0;
        o[0]++;
    }
}

/* A linear layer may write over its input: reads rows tokens from a copy. */
static void copy_rows(const vx_cpu_step *step, const void *x, size_t first, size_t rows,
                      unsigned char *copy, const void **out) {
    const size_t bytes = step->in.c * vx_dtype_size(step->kernels->stored);
    memcpy(copy, (const unsigned char *)x + first * bytes, rows * bytes);
    for (size_t r = 0; r < rows; r++) out[r] = copy + r * bytes;
}

/* rows output tokens from token `first` of one n. */
static void run_rows(const vx_cpu_step *step, const own_state *own, const void *x, unsigned char *y,
                     size_t first, size_t rows, const void **x_rows, void **y_rows) {
    const vx_shape out = step->out;
    unsigned char *copy = (unsigned char *)(y_rows + ROWS);
    const size_t y_row = out.c * vx_conv_out_size(step);
    size_t tap[3];
    const void **list = x_rows;
    for (tap[0] = 0; tap[0] < own->kernel[0]; tap[0]++)
        for (tap[1] = 0; tap[1] < own->kernel[1]; tap[1]++)
            for (tap[2] = 0; tap[2] < own->kernel[2]; tap[2]++, list += rows) {
                size_t o[3] = {first / (out.h * out.w), first / out.w % out.h, first % out.w};
                tap_rows(step, own, x, tap, o, rows, list);
            }
    if (x == y) copy_rows(step, x, first, rows, copy, x_rows);
    for (size_t r = 0; r < rows; r++) y_rows[r] = y + (first + r) * y_row;
    const vx_gemm gemm = {.rows = rows,
                          .taps = own->taps,
                          .depth = step->in.c,
                          .x = x_rows,
                          .y = y_rows,
                          .y_float = step->out_float,
                          .w = own->packed,
                          .bias = own->bias,
                          .columns = out.c,
                          .end_column = out.c};
    step->kernels->gemm(&gemm);
}

static bool run_piece(const vx_conv *conv, const vx_cpu_step *step, const void *x, void *y,
                      size_t n, size_t piece, void *scratch, unsigned worker) {
    const own_state *own = conv->state;
    const vx_shape in = step->in, out = step->out;
    const void **x_rows = scratch;
    void **y_rows = (void **)scratch + ROWS * own->taps;
    const void *x_n = vx_stored_from(step->kernels, x, n * in.d * in.h * in.w * in.c);
    unsigned char *y_n =
        (unsigned char *)y + n * out.d * out.h * out.w * out.c * vx_conv_out_size(step);
    size_t first, end;
    (void)worker;
    vx_conv_range(conv, out, piece, &first, &end);
    for (; first < end; first += ROWS)
        run_rows(step, own, x_n, y_n, first, end - first < ROWS ? end - first : ROWS, x_rows,
                 y_rows);
    return true;
}

/* The weight block: packed matrix, bias, zeros. */
static vx_status pack(vx_conv *conv, const vx_cpu_step *step, void *weights, vx_error *err) {
    own_state *own = conv->state;
    const vx_op *op = step->op;
    const size_t c_in = step->in.c, c_out = step->out.c, taps = own->taps;
    size_t floats;
    if (!vx_gemm_packed(step->kernels, c_out, c_in, taps, &floats)) return vx_cpu_overflow(err);
    float *packed = weights, *bias = packed + floats, *zeros = bias + c_out;
    float *plain = vx_alloc(op->weight.elements * sizeof *plain);
    if (!plain) return vx_fail(err, VX_ERR_RESOURCE, "out of memory");
    vx_read_weight(&op->weight, plain);
    vx_pack_gemm(step->kernels, plain, c_out, c_in, taps, c_in * taps, taps, 1, packed);
    vx_free(plain);
    if (own->with_bias) vx_read_weight(&op->bias, bias);
    memset(zeros, 0, c_in * sizeof *zeros);
    own->packed = packed;
    own->bias = own->with_bias ? bias : NULL;
    own->zeros = zeros;
    return VX_OK;
}

static void destroy(vx_conv *conv) { vx_free(conv->state); }

vx_status vx_conv_own(const vx_cpu_step *step, bool with_bias, vx_conv *out, vx_error *err) {
    const vx_op *op = step->op;
    const vx_shape shape = step->out;
    const size_t tokens = shape.d * shape.h * shape.w;
    const size_t share = ROWS * PIECES_MAX;
    own_state *own = vx_alloc_zero(1, sizeof *own);
    size_t floats, pointers, copy;
    if (!own) return vx_fail(err, VX_ERR_RESOURCE, "out of memory");
    out->state = own;
    out->destroy = destroy;
    for (int i = 0; i < 3; i++) {
        const bool linear = op->kind == VX_OP_LINEAR;
        own->kernel[i] = linear ? 1 : op->kernel[i];
        own->stride[i] = linear ? 1 : op->stride[i];
        own->pad[i] = linear ? 0 : op->pad[i];
    }
    if (!vx_product(own->kernel, 3, &own->taps) ||
        !vx_gemm_packed(step->kernels, shape.c, step->in.c, own->taps, &floats) ||
        !vx_add_size(floats, shape.c, &floats) || !vx_add_size(floats, step->in.c, &floats) ||
        !vx_mul_size(floats, sizeof(float), &out->weight_bytes) ||
        !vx_add_size(own->taps, 1, &pointers) || !vx_mul_size(pointers, ROWS, &pointers) ||
        !vx_mul_size(pointers, sizeof(void *), &out->worker_bytes) ||
        !vx_mul_size(step->in.c, ROWS * sizeof(float), &copy) ||
        (op->kind == VX_OP_LINEAR && !vx_add_size(out->worker_bytes, copy, &out->worker_bytes)))
        return vx_cpu_overflow(err);
    own->with_bias = with_bias && op->bias.data;
    out->piece_tokens = ROWS * (tokens / share + (tokens % share != 0));
    out->pieces = (tokens + out->piece_tokens - 1) / out->piece_tokens;
    out->pack = pack;
    out->piece = run_piece;
    return VX_OK;
}
