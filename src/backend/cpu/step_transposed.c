/* Transposed convolution with kernel = stride: one matrix product a tap, whose rows are written to
 * the tap's place in the output; there also the voxels that are concatenated, if any. */
#include <string.h>

#include "backend/cpu/up.h"
#include "base/size.h"

enum { ROWS = 48 };

typedef struct transposed_state {
    size_t c_out;            /* channels of the convolution; out may have more */
    size_t taps, tap_floats; /* of one tap's packed matrix */
} transposed_state;

/* Some tokens of one n. */
typedef struct transposed_job {
    const vx_cpu_step *step;
    const void *x, *other; /* of this n; other: concatenated, or NULL */
    size_t first, end;     /* tokens of x */
    void *y;
    size_t planes, row; /* of y: plane z lies at z % planes; numbers of a voxel */
} transposed_job;

/* Where the output voxels at tap (kz, 0, 0) of rows input tokens from `token` on lie in y. */
static void output_tokens(const transposed_job *job, size_t token, size_t rows, size_t kz,
                          size_t *tokens) {
    const vx_shape in = job->step->in, out = job->step->out;
    const size_t *stride = job->step->op->stride;
    size_t x = token % in.w, y = token / in.w % in.h, z = token / in.w / in.h;
    for (size_t r = 0; r < rows; r++) {
        const size_t plane = (z * stride[0] + kz) % job->planes;
        tokens[r] = (plane * out.h + y * stride[1]) * out.w + x * stride[2];
        if (++x < in.w) continue;
        x = 0;
        if (++y < in.h) continue;
        y = 0;
        z++;
    }
}

/* The voxels of the other input at the same places as y_rows, behind the convolution's channels. */
static void append(const transposed_job *job, const size_t *tokens, size_t offset, size_t rows,
                   void *const *y_rows) {
    const vx_cpu_step *step = job->step;
    const transposed_state *state = step->state;
    const size_t c = step->in2.c, bytes = c * vx_dtype_size(step->kernels->stored);
    for (size_t r = 0; r < rows; r++)
        memcpy(vx_stored_at(step->kernels, y_rows[r], state->c_out),
               vx_stored_from(step->kernels, job->other, (tokens[r] + offset) * c), bytes);
}

static void run_rows(void *ctx, size_t task, unsigned worker) {
    const transposed_job *job = ctx;
    const vx_cpu_step *step = job->step;
    const transposed_state *state = step->state;
    const vx_op *op = step->op;
    const size_t first = job->first + task * ROWS;
    const size_t rows = job->end - first < ROWS ? job->end - first : ROWS;
    const float *packed = step->weights;
    const float *bias = op->bias.data ? packed + state->taps * state->tap_floats : NULL;
    const void *x_rows[ROWS];
    void *y_rows[ROWS];
    size_t tokens[ROWS]; /* of the output, at tap (kz, 0, 0) */
    (void)worker;
    for (size_t r = 0; r < rows; r++)
        x_rows[r] = vx_stored_from(step->kernels, job->x, (first + r) * step->in.c);
    for (size_t tap = 0; tap < state->taps; tap++) {
        const size_t kx = tap % op->stride[2], ky = tap / op->stride[2] % op->stride[1];
        const size_t offset = ky * step->out.w + kx;
        if (!offset) output_tokens(job, first, rows, tap / op->stride[2] / op->stride[1], tokens);
        for (size_t r = 0; r < rows; r++)
            y_rows[r] = vx_stored_at(step->kernels, job->y, (tokens[r] + offset) * job->row);
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
        if (job->other) append(job, tokens, offset, rows, y_rows);
    }
}

/* Of number n of a value, whose tokens have that shape. */
static void *number(const vx_cpu_step *step, const vx_cpu_run *run, int value, vx_shape shape,
                    size_t n) {
    return vx_stored_at(step->kernels, run->value[value],
                        n * shape.d * shape.h * shape.w * shape.c);
}

static void run_job(transposed_job *job, const vx_cpu_run *run) {
    vx_pool_run(run->pool, (job->end - job->first + ROWS - 1) / ROWS, run_rows, job);
}

static vx_status run_transposed(const vx_cpu_step *step, const vx_cpu_run *run, vx_error *err) {
    const vx_op *op = step->op;
    const vx_shape in = step->in, out = step->out;
    (void)err;
    for (size_t n = 0; n < out.n; n++) {
        transposed_job job = {.step = step,
                              .x = number(step, run, op->in[0], in, n),
                              .other = op->in[1] >= 0 ? number(step, run, op->in[1], step->in2, n)
                                                      : NULL,
                              .end = in.d * in.h * in.w,
                              .y = number(step, run, op->out, out, n),
                              .planes = out.d,
                              .row = out.c};
        run_job(&job, run);
    }
    return VX_OK;
}

void vx_up_planes(const vx_cpu_step *view, const vx_cpu_run *run, size_t n, size_t first,
                  size_t end, void *ring, size_t ring_planes) {
    const transposed_state *state = view->state;
    const vx_shape in = view->in;
    transposed_job job = {.step = view,
                          .x = number(view, run, view->op->in[0], in, n),
                          .first = first * in.h * in.w,
                          .end = end * in.h * in.w,
                          .y = ring,
                          .planes = ring_planes,
                          .row = state->c_out};
    run_job(&job, run);
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
    step->run = step->is_view ? NULL : run_transposed;
    step->out_float = false;
    return VX_OK;
}
