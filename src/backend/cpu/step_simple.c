/* Ops that touch each number once: activation, addition, concatenation, layer norm, pooling,
 * upsampling. Cut into blocks of tokens (of output rows along x for pooling and upsampling). */
#include <string.h>

#include "backend/cpu/cpu.h"
#include "base/size.h"

typedef struct simple_job {
    const vx_cpu_step *step;
    const void *a, *b;
    void *y;
    size_t tokens, block; /* of the output */
} simple_job;

/* Tokens [*first, *first + result) of a task. */
static size_t block_of(const simple_job *job, size_t task, size_t *first) {
    *first = task * job->block;
    return job->tokens - *first < job->block ? job->tokens - *first : job->block;
}

static void activation_task(void *ctx, size_t task, unsigned worker) {
    const simple_job *job = ctx;
    const vx_op *op = job->step->op;
    const size_t c = job->step->out.c;
    size_t first;
    const size_t count = block_of(job, task, &first);
    (void)worker;
    const vx_kernels *k = job->step->kernels;
    k->activate(vx_stored_from(k, job->a, first * c), count * c, op->act, op->slope,
                vx_stored_at(k, job->y, first * c));
}

static void add_task(void *ctx, size_t task, unsigned worker) {
    const simple_job *job = ctx;
    const size_t c = job->step->out.c;
    size_t first;
    const size_t count = block_of(job, task, &first);
    (void)worker;
    const vx_kernels *k = job->step->kernels;
    k->add(vx_stored_from(k, job->a, first * c), vx_stored_from(k, job->b, first * c), count * c,
           job->step->op->scale, vx_stored_at(k, job->y, first * c));
}

static void concat_task(void *ctx, size_t task, unsigned worker) {
    const simple_job *job = ctx;
    const size_t size = vx_dtype_size(job->step->kernels->stored);
    const size_t a_row = job->step->in.c * size, b_row = job->step->in2.c * size;
    size_t first;
    const size_t count = block_of(job, task, &first);
    const unsigned char *a = (const unsigned char *)job->a + first * a_row;
    const unsigned char *b = (const unsigned char *)job->b + first * b_row;
    unsigned char *y = (unsigned char *)job->y + first * (a_row + b_row);
    (void)worker;
    for (size_t t = 0; t < count; t++, a += a_row, b += b_row, y += a_row + b_row) {
        memcpy(y, a, a_row);
        memcpy(y + a_row, b, b_row);
    }
}

static void layer_norm_task(void *ctx, size_t task, unsigned worker) {
    const simple_job *job = ctx;
    const vx_cpu_step *step = job->step;
    const size_t c = step->out.c;
    const float *gamma = step->weights;
    size_t first;
    const size_t count = block_of(job, task, &first);
    (void)worker;
    const vx_kernels *k = step->kernels;
    k->layer_norm(vx_stored_from(k, job->a, first * c), count, c, gamma, gamma + c, step->op->eps,
                  vx_stored_at(k, job->y, first * c));
}

/* Task = one row of output voxels along x. */
static void pool_task(void *ctx, size_t task, unsigned worker) {
    const simple_job *job = ctx;
    const vx_cpu_step *step = job->step;
    const vx_shape in = step->in, out = step->out;
    const size_t *window = step->op->stride;
    const vx_kernels *k = step->kernels;
    const size_t y = task % out.h, z = task / out.h % out.d, n = task / out.h / out.d;
    const size_t row = ((n * in.d + z * window[0]) * in.h + y * window[1]) * in.w;
    (void)worker;
    for (size_t x = 0; x < out.w; x++)
        k->pool(vx_stored_from(k, job->a, (row + x * window[2]) * in.c), window, in.w * in.c,
                in.h * in.w * in.c, in.c, vx_stored_at(k, job->y, (task * out.w + x) * out.c));
}

static void upsample_task(void *ctx, size_t task, unsigned worker) {
    const simple_job *job = ctx;
    const vx_cpu_step *step = job->step;
    const vx_shape in = step->in, out = step->out;
    const size_t *factor = step->op->stride, token = in.c * vx_dtype_size(step->kernels->stored);
    const size_t y = task % out.h, z = task / out.h % out.d, n = task / out.h / out.d;
    const size_t row = ((n * in.d + z / factor[0]) * in.h + y / factor[1]) * in.w;
    const unsigned char *from = (const unsigned char *)job->a + row * token;
    unsigned char *to = (unsigned char *)job->y + task * out.w * token;
    (void)worker;
    for (size_t x = 0; x < out.w; x++) memcpy(to + x * token, from + x / factor[2] * token, token);
}

static vx_status run_simple(const vx_cpu_step *step, const vx_cpu_run *run, vx_error *err) {
    const vx_op *op = step->op;
    simple_job job = {.step = step,
                      .a = run->value[op->in[0]],
                      .b = op->in[1] >= 0 ? run->value[op->in[1]] : NULL,
                      .y = run->value[op->out],
                      .tokens = vx_shape_tokens(step->out),
                      .block = vx_cpu_block(step->out.c)};
    const size_t blocks = (job.tokens + job.block - 1) / job.block;
    const size_t rows = step->out.n * step->out.d * step->out.h;
    (void)err;
    switch (op->kind) {
    case VX_OP_ACTIVATION:
        vx_pool_run(run->pool, blocks, activation_task, &job);
        break;
    case VX_OP_ADD:
        vx_pool_run(run->pool, blocks, add_task, &job);
        break;
    case VX_OP_CONCAT:
        vx_pool_run(run->pool, blocks, concat_task, &job);
        break;
    case VX_OP_LAYER_NORM:
        vx_pool_run(run->pool, blocks, layer_norm_task, &job);
        break;
    case VX_OP_AVG_POOL:
        vx_pool_run(run->pool, rows, pool_task, &job);
        break;
    default:
        vx_pool_run(run->pool, rows, upsample_task, &job);
        break;
    }
    return VX_OK;
}

static vx_status pack_layer_norm(vx_cpu_step *step, vx_error *err) {
    float *gamma = step->weights;
    (void)err;
    vx_read_weight(&step->op->gamma, gamma);
    vx_read_weight(&step->op->beta, gamma + step->out.c);
    return VX_OK;
}

/* VX_OP_ACTIVATION, _ADD, _CONCAT, _LAYER_NORM, _AVG_POOL, _UPSAMPLE_NEAREST. */
vx_status vx_cpu_prepare_simple(vx_cpu_step *step, vx_error *err) {
    const vx_op_kind kind = step->op->kind;
    step->run = run_simple;
    step->out_float = false;
    step->in_place = kind == VX_OP_ACTIVATION || kind == VX_OP_ADD || kind == VX_OP_LAYER_NORM;
    if (kind != VX_OP_LAYER_NORM) return VX_OK;
    step->pack = pack_layer_norm;
    return vx_mul_size(step->out.c, 2 * sizeof(float), &step->weight_bytes) ? VX_OK
                                                                            : vx_cpu_overflow(err);
}
