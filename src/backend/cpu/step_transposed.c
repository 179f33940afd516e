/* Transposed convolution with kernel = stride: one matrix product a tap, whose rows are written to
 * the tap's place in the output. */
#include "backend/cpu/cpu.h"
#include "base/size.h"

enum { ROWS = 48 };

typedef struct transposed_state {
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

static void run_rows(void *ctx, size_t task, unsigned worker) {
    const transposed_job *job = ctx;
    const vx_cpu_step *step = job->step;
    const transposed_state *state = step->state;
    const vx_op *op = step->op;
    const size_t tokens = vx_shape_tokens(step->in), first = task * ROWS;
    const size_t rows = tokens - first < ROWS ? tokens - first : ROWS;
    const void *x = job->run->value[op->in[0]], *x_rows[ROWS];
    const float *packed = step->weights;
    const float *bias = op->bias.data ? packed + state->taps * state->tap_floats : NULL;
    void *y = job->run->value[op->out], *corner[ROWS], *y_rows[ROWS];
    (void)worker;
    for (size_t r = 0; r < rows; r++) {
        x_rows[r] = vx_stored_from(step->kernels, x, (first + r) * step->in.c);
        corner[r] = vx_stored_at(step->kernels, y, output_token(step, first + r) * step->out.c);
    }
    for (size_t tap = 0; tap < state->taps; tap++) {
        const size_t kx = tap % op->stride[2], ky = tap / op->stride[2] % op->stride[1];
        const size_t kz = tap / op->stride[2] / op->stride[1];
        const size_t offset = ((kz * step->out.h + ky) * step->out.w + kx) * step->out.c;
        for (size_t r = 0; r < rows; r++)
            y_rows[r] = vx_stored_at(step->kernels, corner[r], offset);
        const vx_gemm gemm = {.rows = rows,
                              .taps = 1,
                              .depth = step->in.c,
                              .x = x_rows,
                              .y = y_rows,
                              .w = packed + tap * state->tap_floats,
                              .bias = bias,
                              .columns = step->out.c,
                              .end_column = step->out.c};
        step->kernels->gemm(&gemm);
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
    const size_t c_out = step->out.c, taps = state->taps;
    float *packed = step->weights, *plain = vx_alloc(op->weight.elements * sizeof *plain);
    if (!plain) return vx_fail(err, VX_ERR_RESOURCE, "out of memory");
    vx_cpu_read_weight(&op->weight, plain);
    for (size_t tap = 0; tap < taps; tap++)
        vx_pack_gemm(step->kernels, plain + tap, c_out, step->in.c, 1, taps, c_out * taps, 0,
                     packed + tap * state->tap_floats);
    vx_free(plain);
    if (op->bias.data) vx_cpu_read_weight(&op->bias, packed + taps * state->tap_floats);
    return VX_OK;
}

vx_status vx_cpu_prepare_transposed(vx_cpu_step *step, vx_error *err) {
    const vx_op *op = step->op;
    transposed_state *state = step->state = vx_alloc_zero(1, sizeof *state);
    size_t floats;
    if (!state) return vx_fail(err, VX_ERR_RESOURCE, "out of memory");
    if (!vx_product(op->stride, 3, &state->taps) ||
        !vx_gemm_packed(step->kernels, step->out.c, step->in.c, 1, &state->tap_floats) ||
        !vx_mul_size(state->tap_floats, state->taps, &floats) ||
        !vx_add_size(floats, step->out.c, &floats) ||
        !vx_mul_size(floats, sizeof(float), &step->weight_bytes))
        return vx_cpu_overflow(err);
    step->pack = pack;
    step->run = run_transposed;
    step->out_float = false;
    return VX_OK;
}
