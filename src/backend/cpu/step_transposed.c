/* Transposed convolution with kernel = stride: one matrix product a tap, whose rows are written to
 * the tap's place in the output; there also the voxels that are concatenated, if any. */
#include <string.h>

#include "backend/cpu/cpu.h"
#include "base/size.h"

enum { ROWS = 48 };

typedef struct transposed_state {
    size_t c_out;            /* channels of the convolution; out may have more */
    size_t taps, tap_floats; /* of one tap's packed matrix */
} transposed_state;

typedef struct transposed_job {
    const vx_cpu_step *step;
    const vx_cpu_run *run;
} transposed_job;

/* First output token of the input token t (n, z, y, x in one number). */
static size_t output_token(const vx_cpu_step *step, size_t t) {
    const vx_shape in = step->in, out = step->out;
    const size_t *stride = step->op->stride;
    const size_t x = t % in.w, y = t / in.w % in.h, nz = t / in.w / in.h;
    return (nz * stride[0] * out.h + y * stride[1]) * out.w + x * stride[2];
}

/* The voxels of the other input at the same places as y_rows, behind the convolution's channels. */
static void append(const transposed_job *job, const size_t *tokens, size_t offset, size_t rows,
                   void *const *y_rows) {
    const vx_cpu_step *step = job->step;
    const transposed_state *state = step->state;
    const size_t c = step->in2.c, bytes = c * vx_dtype_size(step->kernels->stored);
    const void *other = job->run->value[step->op->in[1]];
    for (size_t r = 0; r < rows; r++)
        memcpy(vx_stored_at(step->kernels, y_rows[r], state->c_out),
               vx_stored_from(step->kernels, other, (tokens[r] + offset) * c), bytes);
}

static void run_rows(void *ctx, size_t task, unsigned worker) {
    const transposed_job *job = ctx;
    const vx_cpu_step *step = job->step;
    const transposed_state *state = step->state;
    const vx_op *op = step->op;
    const size_t count = vx_shape_tokens(step->in), first = task * ROWS;
    const size_t rows = count - first < ROWS ? count - first : ROWS;
    const void *x = job->run->value[op->in[0]], *x_rows[ROWS];
    const float *packed = step->weights;
    const float *bias = op->bias.data ? packed + state->taps * state->tap_floats : NULL;
    void *y = job->run->value[op->out], *y_rows[ROWS];
    size_t tokens[ROWS]; /* of the output, at tap 0 */
    (void)worker;
    for (size_t r = 0; r < rows; r++) {
        x_rows[r] = vx_stored_from(step->kernels, x, (first + r) * step->in.c);
        tokens[r] = output_token(step, first + r);
    }
    for (size_t tap = 0; tap < state->taps; tap++) {
        const size_t kx = tap % op->stride[2], ky = tap / op->stride[2] % op->stride[1];
        const size_t kz = tap / op->stride[2] / op->stride[1];
        const size_t offset = (kz * step->out.h + ky) * step->out.w + kx;
        for (size_t r = 0; r < rows; r++)
            y_rows[r] = vx_stored_at(step->kernels, y, (tokens[r] + offset) * step->out.c);
        const vx_gemm gemm = {.rows = rows,
                              .taps = 1,
                              .depth = step->in.c,
                              .x = x_rows,
                              .y = y_rows,
                              .w = packed + tap * state->tap_floats,
                              .bias = bias,
                              .columns = state->c_out,
                              .end_column = state->c_out};
        step->kernels->gemm(&gemm);
        if (op->kind == VX_OP_TRANSPOSED_CONCAT) append(job, tokens, offset, rows, y_rows);
    }
}

static vx_status run_transposed(const vx_cpu_step *step, const vx_cpu_run *run, vx_error *err) {
    transposed_job job = {step, run};
    (void)err;
    vx_pool_run(run->pool, (vx_shape_tokens(step->in) + ROWS - 1) / ROWS, run_rows, &job);
    return VX_OK;
}

/* Weight (Cin, Cout, taps). */
static vx_status pack(vx_cpu_step *step, vx_error *err) {
    const transposed_state *state = step->state;
    const vx_op *op = step->op;
    const size_t c_out = state->c_out, taps = state->taps;
    float *packed = step->weights, *plain = vx_alloc(op->weight.elements * sizeof *plain);
    if (!plain) return vx_fail(err, VX_ERR_RESOURCE, "out of memory");
    vx_read_weight(&op->weight, plain);
    for (size_t tap = 0; tap < taps; tap++)
        vx_pack_gemm(step->kernels, plain + tap, c_out, step->in.c, 1, taps, c_out * taps, 0,
                     packed + tap * state->tap_floats);
    vx_free(plain);
    if (op->bias.data) vx_read_weight(&op->bias, packed + taps * state->tap_floats);
    return VX_OK;
}

vx_status vx_cpu_prepare_transposed(vx_cpu_step *step, vx_error *err) {
    const vx_op *op = step->op;
    transposed_state *state = step->state = vx_alloc_zero(1, sizeof *state);
    size_t floats;
    if (!state) return vx_fail(err, VX_ERR_RESOURCE, "out of memory");
    state->c_out = step->out.c;
    if (op->kind == VX_OP_TRANSPOSED_CONCAT) state->c_out -= step->in2.c;
    if (!vx_product(op->stride, 3, &state->taps) ||
        !vx_gemm_packed(step->kernels, state->c_out, step->in.c, 1, &state->tap_floats) ||
        !vx_mul_size(state->tap_floats, state->taps, &floats) ||
        !vx_add_size(floats, state->c_out, &floats) ||
        !vx_mul_size(floats, sizeof(float), &step->weight_bytes))
        return vx_cpu_overflow(err);
    step->pack = pack;
    step->run = run_transposed;
    step->out_float = false;
    return VX_OK;
}
