/* Convolution, linear layer, instance norm, and the two fused forms: one step.
 *
 * The input may be a view, the concatenation of an up-sampled tensor and another one, which is
 * never stored: the planes of the first that a band needs are made before it, into a ring of
 * planes. */
#include <stdatomic.h>

#include "backend/cpu/conv.h"
#include "backend/cpu/norm.h"
#include "backend/cpu/up.h"
#include "base/size.h"

typedef struct conv_step {
    vx_conv conv;      /* piece NULL: a bare instance norm */
    size_t conv_bytes; /* of its weights, rounded up */
    bool normed;
    vx_norm norm;
    size_t norm_scratch_at; /* in a worker's scratch */
    /* In the step's scratch, behind the norm's. */
    size_t ring_at, ring_planes, shared_at;
} conv_step;

/* One band of number n. */
typedef struct conv_job {
    const vx_cpu_step *step;
    const vx_cpu_run *run;
    vx_source x;
    void *y, *y_n;        /* of all, of this n */
    size_t n, first, end; /* planes of the cut */
    atomic_bool failed;
} conv_job;

/* Computes one piece and, while it is in cache, its moments. */
static void run_piece(void *ctx, size_t task, unsigned worker) {
    conv_job *job = ctx;
    const conv_step *state = job->step->state;
    const vx_conv *conv = &state->conv;
    unsigned char *scratch = job->run->worker_scratch + worker * job->run->worker_stride;
    vx_piece p = {.x = &job->x,
                  .y = job->y_n,
                  .shared = job->run->scratch + state->shared_at,
                  .plane = job->first + task / conv->cut.cells * conv->piece_planes,
                  .cell = task % conv->cut.cells,
                  .scratch = scratch,
                  .worker = worker};
    const size_t left = job->end - p.plane;
    p.planes = left < conv->piece_planes ? left : conv->piece_planes;
    if (!conv->piece(conv, job->step, &p)) atomic_store(&job->failed, true);
    for (size_t z = 0; state->normed && z < p.planes; z++)
        vx_norm_cell(&state->norm, job->run, job->y, job->n, p.plane + z, p.cell,
                     scratch + state->norm_scratch_at);
}

/* What the convolution reads of number n. */
static vx_source source_of(const vx_cpu_step *step, const vx_cpu_run *run, size_t n) {
    const conv_step *state = step->state;
    const vx_shape in = step->in;
    const size_t tokens = in.d * in.h * in.w;
    if (!step->view) {
        const void *x =
            vx_stored_from(step->kernels, run->value[step->op->in[0]], n * tokens * in.c);
        return (vx_source){1, {{x, in.c, in.d}}};
    }
    const size_t c = step->view->in2.c;
    const void *other = run->value[step->view->op->in[1]];
    return (vx_source){2,
                       {{run->scratch + state->ring_at, in.c - c, state->ring_planes},
                        {vx_stored_from(step->kernels, other, n * tokens * c), c, in.d}}};
}

/* Makes the planes of the up-sampled tensor that the output planes before `end` need and that are
 * not there; *made: those of the tensor that it is made of. */
static void extend_ring(const vx_cpu_step *step, const vx_cpu_run *run, size_t n, size_t end,
                        size_t *made) {
    const conv_step *state = step->state;
    const vx_op *op = step->op;
    const size_t stride = step->view->op->stride[0], reach = end + op->kernel[0] - 1;
    size_t needed = reach > op->pad[0] ? reach - op->pad[0] : 0;
    if (needed > step->in.d) needed = step->in.d;
    needed = (needed + stride - 1) / stride;
    if (needed <= *made) return;
    vx_up_planes(step->view, run, n, *made, needed, run->scratch + state->ring_at,
                 state->ring_planes);
    *made = needed;
}

/* Number n, band by band: the next one may make planes and overwrite memory that this one reads. */
static void run_bands(conv_job *job) {
    const conv_step *state = job->step->state;
    const vx_conv *conv = &state->conv;
    const bool banded = job->step->view || job->step->took_over;
    const size_t planes = conv->cut.planes, band = banded ? conv->band_planes : planes;
    size_t made = 0;
    for (job->first = 0; job->first < planes; job->first = job->end) {
        job->end = planes - job->first < band ? planes : job->first + band;
        if (job->step->view) extend_ring(job->step, job->run, job->n, job->end, &made);
        const size_t blocks = (job->end - job->first + conv->piece_planes - 1) / conv->piece_planes;
        vx_pool_run(job->run->pool, blocks * conv->cut.cells, run_piece, job);
    }
}

static bool convolve(const vx_cpu_step *step, const vx_cpu_run *run) {
    const conv_step *state = step->state;
    const size_t tokens = step->out.d * step->out.h * step->out.w;
    conv_job job = {.step = step, .run = run, .y = run->value[step->op->out]};
    atomic_init(&job.failed, false);
    if (state->conv.begin)
        state->conv.begin(&state->conv, step, run, run->scratch + state->shared_at);
    for (job.n = 0; job.n < step->out.n; job.n++) {
        job.x = source_of(step, run, job.n);
        job.y_n = (unsigned char *)job.y + job.n * tokens * step->out.c * vx_conv_out_size(step);
        run_bands(&job);
    }
    return !atomic_load(&job.failed);
}

typedef struct moments_job {
    const vx_norm *norm;
    const vx_cpu_run *run;
    const void *x;
} moments_job;

/* A cell of a bare norm, whose cut has one plane. */
static void run_moments(void *ctx, size_t task, unsigned worker) {
    const moments_job *job = ctx;
    const size_t cells = job->norm->cut.cells;
    vx_norm_cell(job->norm, job->run, job->x, task / cells, 0, task % cells,
                 job->run->worker_scratch + worker * job->run->worker_stride);
}

static vx_status run_conv(const vx_cpu_step *step, const vx_cpu_run *run, vx_error *err) {
    const conv_step *state = step->state;
    const vx_op *op = step->op;
    const bool bare = !state->conv.piece;
    void *y = run->value[op->out];
    const void *x = bare ? run->value[op->in[0]] : y;
    moments_job moments = {&state->norm, run, x};
    if (bare)
        vx_pool_run(run->pool, step->out.n * state->norm.cut.cells, run_moments, &moments);
    else if (!convolve(step, run))
        return vx_fail(err, VX_ERR_RESOURCE, "a convolution could not be run (out of memory)");
    if (!state->normed) return VX_OK;
    const float *gamma =
        (const float *)(void *)((unsigned char *)step->weights + state->conv_bytes);
    const void *residual = op->kind == VX_OP_NORM_ACT_ADD ? run->value[op->in[1]] : NULL;
    vx_norm_apply(&state->norm, run, gamma, gamma + step->out.c, x, residual, y);
    return VX_OK;
}

static vx_status pack(vx_cpu_step *step, vx_error *err) {
    conv_step *state = step->state;
    if (state->conv.piece) {
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
    if (status != VX_OK || state->conv.piece) return status;
    if (wants_dnnl(step)) {
        status = vx_conv_dnnl(step, !state->normed, &state->conv, err);
        if (status != VX_OK || state->conv.piece) return status;
    }
    return vx_conv_own(step, !state->normed, &state->conv, err);
}

bool vx_cpu_reads_view(const vx_cpu_step *step, size_t first_channels) {
    const vx_op_kind kind = step->op->kind;
    if (kind != VX_OP_CONV && kind != VX_OP_CONV_NORM_ACT) return false;
    if (vx_conv_winograd_pays(step)) return true;
    return vx_conv_is_pointwise(step->op) && 2 * first_channels == step->in.c;
}

/* At most 256 cells, of at least one block. */
static vx_cut cut_bare_norm(size_t tokens, size_t c) {
    const size_t block = vx_cpu_block(c), share = tokens / 256 + 1;
    vx_cut cut = {
        .planes = 1, .plane_tokens = tokens, .cell_tokens = share > block ? share : block};
    cut.cells = (tokens + cut.cell_tokens - 1) / cut.cell_tokens;
    return cut;
}

static vx_status prepare_norm(vx_cpu_step *step, conv_step *state, vx_error *err) {
    const vx_op *op = step->op;
    const size_t tokens = step->out.d * step->out.h * step->out.w;
    size_t worker;
    state->norm =
        (vx_norm){.n = step->out.n,
                  .c = step->out.c,
                  .cut = state->conv.piece ? state->conv.cut : cut_bare_norm(tokens, step->out.c),
                  .eps = op->eps,
                  .slope = op->slope,
                  .act = op->kind == VX_OP_INSTANCE_NORM ? VX_ACT_NONE : op->act};
    if (!vx_norm_scratch(&state->norm, &step->scratch_bytes, &worker) ||
        !vx_align_size(state->conv.worker_bytes, VX_ALIGN, &state->norm_scratch_at) ||
        !vx_add_size(state->norm_scratch_at, worker, &step->worker_bytes))
        return vx_cpu_overflow(err);
    return VX_OK;
}

/* Bytes of one plane of c channels. */
static bool plane_bytes(const vx_cpu_step *step, vx_shape shape, size_t c, size_t *bytes) {
    const size_t dims[] = {shape.h, shape.w, c, vx_dtype_size(step->kernels->stored)};
    return vx_product(dims, 4, bytes);
}

/* The ring holds what the planes of a band read, and what is made along with that: the up-sampled
 * tensor is made stride planes at a time. */
static bool place_scratch(vx_cpu_step *step, conv_step *state) {
    const vx_conv *conv = &state->conv;
    size_t ring = 0;
    if (step->view) {
        state->ring_planes =
            conv->band_planes + step->op->kernel[0] - 1 + step->view->op->stride[0] - 1;
        if (state->ring_planes > step->in.d) state->ring_planes = step->in.d;
        if (!plane_bytes(step, step->in, step->in.c - step->view->in2.c, &ring) ||
            !vx_mul_size(ring, state->ring_planes, &ring))
            return false;
    }
    return vx_align_size(step->scratch_bytes, VX_ALIGN, &state->ring_at) &&
           vx_add_size(state->ring_at, ring, &state->shared_at) &&
           vx_align_size(state->shared_at, VX_ALIGN, &state->shared_at) &&
           vx_add_size(state->shared_at, conv->shared_bytes, &step->scratch_bytes);
}

/* Band by band the output's planes can take the place of planes that no later band reads. */
static bool plan_lead(vx_cpu_step *step, const vx_conv *conv) {
    const vx_shape in = step->in, out = step->out;
    const size_t pad = step->op->pad[0];
    size_t bytes;
    if (step->in_place || in.d != out.d || in.h != out.h || in.w != out.w) return true;
    if (conv->cut.planes != out.d || out.d - conv->band_planes <= pad) return true;
    if (!plane_bytes(step, out, out.c, &bytes) ||
        !vx_mul_size(bytes, conv->band_planes + pad, &bytes) ||
        !vx_align_size(bytes, VX_ALIGN, &step->lead))
        return false;
    step->in_place = true;
    return true;
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
    /* Token by token. */
    step->in_place = kind == VX_OP_INSTANCE_NORM || kind == VX_OP_LINEAR ||
                     (step->view && vx_conv_is_pointwise(step->op));
    vx_status status = VX_OK;
    if (state->normed) step->out_float = false;
    if (kind != VX_OP_INSTANCE_NORM) status = prepare_conv(step, state, err);
    if (status != VX_OK) return status;
    step->worker_bytes = state->conv.worker_bytes;
    if (!vx_align_size(state->conv.weight_bytes, VX_ALIGN, &state->conv_bytes))
        return vx_cpu_overflow(err);
    step->weight_bytes = state->conv_bytes;
    if (state->normed) {
        if (!vx_add_size(step->weight_bytes, 2 * step->out.c * sizeof(float), &step->weight_bytes))
            return vx_cpu_overflow(err);
        status = prepare_norm(step, state, err);
        if (status != VX_OK) return status;
    }
    const bool fits = kind == VX_OP_INSTANCE_NORM ||
                      (place_scratch(step, state) && plan_lead(step, &state->conv));
    return fits ? VX_OK : vx_cpu_overflow(err);
}
