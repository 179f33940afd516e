/* Ops that touch each number once: activation, addition, concatenation, layer norm, pooling,
 * upsampling. Cut into blocks of tokens (of output rows along x for pooling and upsampling). */
#include <string.h>

#include "backend/cpu/cpu.h"
#include "base/size.h"

typedef struct simple_job {
    const vx_cpu_step *step;
    const float *a, *b;
    float *y;
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
    job->step->kernels->activate(job->a + first * c, count * c, op->act, op->slope,
                                 job->y + first * c);
}

static void add_task(void *ctx, size_t task, unsigned worker) {
    const simple_job *job = ctx;
    const size_t c = job->step->out.c;
    size_t first;
    const size_t count = block_of(job, task, &first);
    (void)worker;
    job->step->kernels->add(job->a + first * c, job->b + first * c, count * c, job->step->op->scale,
                            job->y + first * c);
}

static void concat_task(void *ctx, size_t task, unsigned worker) {
    const simple_job *job = ctx;
    const size_t ca = job->step->in.c, cb = job->step->in2.c;
    size_t first;
    const size_t count = block_of(job, task, &first);
    (void)worker;
    for (size_t t = first; t < first + count; t++) {
        memcpy(job->y + t * (ca + cb), job->a + t * ca, ca * sizeof(float));
        memcpy(job->y + t * (ca + cb) + ca, job->b + t * cb, cb * sizeof(float));
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
    step->kernels->layer_norm(job->a + first * c, count, c, gamma, gamma + c, step->op->eps,
                              job->y + first * c);
}

/* Sum over one window row by row, then the mean. */
static void pool_voxel(const vx_cpu_step *step, const float *corner, float *y) {
    const size_t *k = step->op->stride, c = step->out.c;
    const float share = 1.0f / (float)(k[0] * k[1] * k[2]);
    memset(y, 0, c * sizeof *y);
    for (size_t z = 0; z < k[0]; z++)
        for (size_t r = 0; r < k[1]; r++)
            for (size_t v = 0; v < k[2]; v++) {
                const float *x = corner + ((z * step->in.h + r) * step->in.w + v) * c;
                for (size_t i = 0; i < c; i++) y[i] += x[i];
            }
    for (size_t i = 0; i < c; i++) y[i] *= share;
}

/* Task = one row of output voxels along x. */
static void pool_task(void *ctx, size_t task, unsigned worker) {
    const simple_job *job = ctx;
    const vx_cpu_step *step = job->step;
    const vx_shape in = step->in, out = step->out;
    const size_t *k = step->op->stride;
    const size_t y = task % out.h, z = task / out.h % out.d, n = task / out.h / out.d;
    const float *row = job->a + ((n * in.d + z * k[0]) * in.h + y * k[1]) * in.w * in.c;
    (void)worker;
    for (size_t x = 0; x < out.w; x++)
        pool_voxel(step, row + x * k[2] * in.c, job->y + (task * out.w + x) * out.c);
}

static void upsample_task(void *ctx, size_t task, unsigned worker) {
    const simple_job *job = ctx;
    const vx_cpu_step *step = job->step;
    const vx_shape in = step->in, out = step->out;
    const size_t *k = step->op->stride;
    const size_t y = task % out.h, z = task / out.h % out.d, n = task / out.h / out.d;
    const float *row = job->a + ((n * in.d + z / k[0]) * in.h + y / k[1]) * in.w * in.c;
    (void)worker;
    for (size_t x = 0; x < out.w; x++)
        memcpy(job->y + (task * out.w + x) * out.c, row + x / k[2] * in.c, in.c * sizeof(float));
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
    vx_cpu_read_weight(&step->op->gamma, gamma);
    vx_cpu_read_weight(&step->op->beta, gamma + step->out.c);
    return VX_OK;
}

/* VX_OP_ACTIVATION, _ADD, _CONCAT, _LAYER_NORM, _AVG_POOL, _UPSAMPLE_NEAREST. */
vx_status vx_cpu_prepare_simple(vx_cpu_step *step, vx_error *err) {
    const vx_op_kind kind = step->op->kind;
    step->run = run_simple;
    step->in_place = kind == VX_OP_ACTIVATION || kind == VX_OP_ADD || kind == VX_OP_LAYER_NORM;
    if (kind != VX_OP_LAYER_NORM) return VX_OK;
    step->pack = pack_layer_norm;
    return vx_mul_size(step->out.c, 2 * sizeof(float), &step->weight_bytes) ? VX_OK
                                                                            : vx_cpu_overflow(err);
}
