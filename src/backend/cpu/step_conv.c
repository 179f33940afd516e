/* Convolution, linear layer, instance norm, and the two fused forms: one step. */
#include <stdatomic.h>

#include "backend/cpu/conv.h"
#include "backend/cpu/norm.h"
#include "base/size.h"

typedef struct conv_step {
    vx_conv conv;      /* pieces 0: a bare instance norm */
    size_t conv_bytes; /* of its weights, rounded up */
    bool normed;
    vx_norm norm;
    size_t norm_scratch_at; /* in a worker's scratch */
} conv_step;

typedef struct conv_job {
    const vx_cpu_step *step;
    const vx_cpu_run *run;
    const void *x;
    void *y;
    atomic_bool failed;
} conv_job;

/* Computes one piece and, while it is in cache, its moments. */
static void run_piece(void *ctx, size_t task, unsigned worker) {
    conv_job *job = ctx;
    const conv_step *state = job->step->state;
    const size_t pieces = state->normed ? state->norm.pieces : state->conv.pieces;
    const size_t n = task / pieces, p = task % pieces;
    unsigned char *scratch = job->run->worker_scratch + worker * job->run->worker_stride;
    if (state->conv.pieces &&
        !state->conv.piece(&state->conv, job->step, job->x, job->y, n, p, scratch, worker))
        atomic_store(&job->failed, true);
    if (state->normed)
        vx_norm_piece(&state->norm, job->run, state->conv.pieces ? job->y : job->x, n, p,
                      scratch + state->norm_scratch_at);
}

static vx_status run_conv(const vx_cpu_step *step, const vx_cpu_run *run, vx_error *err) {
    const conv_step *state = step->state;
    const vx_op *op = step->op;
    const size_t pieces = state->normed ? state->norm.pieces : state->conv.pieces;
    conv_job job = {.step = step, .run = run, .x = run->value[op->in[0]], .y = run->value[op->out]};
    atomic_init(&job.failed, false);
    vx_pool_run(run->pool, step->out.n * pieces, run_piece, &job);
    if (atomic_load(&job.failed))
        return vx_fail(err, VX_ERR_RESOURCE, "a convolution could not be run (out of memory)");
    if (!state->normed) return VX_OK;
    const float *gamma =
        (const float *)(void *)((unsigned char *)step->weights + state->conv_bytes);
    const void *residual = op->kind == VX_OP_NORM_ACT_ADD ? run->value[op->in[1]] : NULL;
    vx_norm_apply(&state->norm, run, gamma, gamma + step->out.c, state->conv.pieces ? job.y : job.x,
                  residual, job.y);
    return VX_OK;
}

static vx_status pack(vx_cpu_step *step, vx_error *err) {
    conv_step *state = step->state;
    if (state->conv.pieces) {
        vx_status status = state->conv.pack(&state->conv, step, step->weights, err);
        if (status != VX_OK) return status;
    }
    if (state->normed) {
        float *gamma = (float *)(void *)((unsigned char *)step->weights + state->conv_bytes);
        vx_read_weight(&step->op->gamma, gamma);
        vx_read_weight(&step->op->beta, gamma + step->out.c);
    }
    return VX_OK;
}

static void destroy(vx_cpu_step *step) {
    conv_step *state = step->state;
    if (state->conv.destroy) state->conv.destroy(&state->conv);
}

/* Whether oneDNN is asked for a convolution. Its AVX2 kernels are ahead of ours on the first layers
 * (1 channel: 53 against 16 GFLOP/s on one Zen 3 core, 32 channels: 89 against 85) and behind where
 * there are more channels or a stride (64 channels to 32 at 40 x 56 x 40: 76 against 92; stride 2
 * from 32 to 64: 72 against 80), measured in bench conditions with both cores of the machine
 * shared. */
static bool wants_dnnl(const vx_cpu_step *step) {
    const vx_op *op = step->op;
    const bool pointwise = op->kernel[0] * op->kernel[1] * op->kernel[2] == 1;
    const bool strided = op->stride[0] * op->stride[1] * op->stride[2] > 1;
    if (op->kind == VX_OP_LINEAR || pointwise || step->own_only) return false;
    return step->kernels->isa != VX_ISA_AVX2 || step->in.c <= 8 || (step->in.c < 64 && !strided);
}

/* A bias before an instance norm cancels, so it is left out. */
static vx_status prepare_conv(const vx_cpu_step *step, conv_step *state, vx_error *err) {
    vx_status status = vx_conv_winograd(step, !state->normed, &state->conv, err);
    if (status != VX_OK || state->conv.pieces) return status;
    if (wants_dnnl(step)) {
        status = vx_conv_dnnl(step, !state->normed, &state->conv, err);
        if (status != VX_OK || state->conv.pieces) return status;
    }
    return vx_conv_own(step, !state->normed, &state->conv, err);
}

static vx_status prepare_norm(vx_cpu_step *step, conv_step *state, vx_error *err) {
    const vx_op *op = step->op;
    const size_t tokens = step->out.d * step->out.h * step->out.w;
    size_t worker;
    state->norm = (vx_norm){.n = step->out.n,
                            .tokens = tokens,
                            .c = step->out.c,
                            .pieces = state->conv.pieces,
                            .piece_tokens = state->conv.piece_tokens,
                            .eps = op->eps,
                            .slope = op->slope,
                            .act = op->kind == VX_OP_INSTANCE_NORM ? VX_ACT_NONE : op->act};
    if (!state->norm.pieces) {
        /* At most 256 pieces, of at least one block. */
        const size_t block = vx_cpu_block(step->out.c), share = tokens / 256 + 1;
        state->norm.piece_tokens = share > block ? share : block;
        state->norm.pieces = (tokens + state->norm.piece_tokens - 1) / state->norm.piece_tokens;
    }
    if (!vx_norm_scratch(&state->norm, &step->scratch_bytes, &worker) ||
        !vx_align_size(state->conv.worker_bytes, VX_ALIGN, &state->norm_scratch_at) ||
        !vx_add_size(state->norm_scratch_at, worker, &step->worker_bytes))
        return vx_cpu_overflow(err);
    return VX_OK;
}

/* VX_OP_CONV, _LINEAR, _INSTANCE_NORM, _CONV_NORM_ACT, _NORM_ACT_ADD. */
vx_status vx_cpu_prepare_conv(vx_cpu_step *step, vx_error *err) {
    const vx_op_kind kind = step->op->kind;
    conv_step *state = step->state = vx_alloc_zero(1, sizeof *state);
    if (!state) return vx_fail(err, VX_ERR_RESOURCE, "out of memory");
    step->destroy = destroy;
    step->pack = pack;
    step->run = run_conv;
    state->normed = kind != VX_OP_CONV && kind != VX_OP_LINEAR;
    step->in_place = kind == VX_OP_INSTANCE_NORM || kind == VX_OP_LINEAR;
    vx_status status = VX_OK;
    if (state->normed) step->out_float = false;
    if (kind != VX_OP_INSTANCE_NORM) status = prepare_conv(step, state, err);
    if (status != VX_OK) return status;
    step->worker_bytes = state->conv.worker_bytes;
    if (!vx_align_size(state->conv.weight_bytes, VX_ALIGN, &state->conv_bytes))
        return vx_cpu_overflow(err);
    step->weight_bytes = state->conv_bytes;
    if (!state->normed) return VX_OK;
    if (!vx_add_size(step->weight_bytes, 2 * step->out.c * sizeof(float), &step->weight_bytes))
        return vx_cpu_overflow(err);
    return prepare_norm(step, state, err);
}
