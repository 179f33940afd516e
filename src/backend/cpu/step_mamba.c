/* The Mamba mixer, fused and cut for cache and cores (the equations are in ref_mamba.c).
 *
 * The sequence of one n is worked off in waves of some thousand tokens. Of a wave, and never of the
 * whole grid, z, delta, delta * u, y, B and C are held. In a wave:
 *
 *   project   tasks of 48 tokens: in_proj, causal convolution (a block projects the d_conv - 1
 *             tokens before it again), SiLU, x_proj, dt_proj, softplus. Tokens are read in scan
 *             order through pointers: nothing is permuted.
 *   scan      tasks of 16 channels; with few channels the states are dealt out too, and each task
 *             has an output of its own. The sequence is never cut: each exponential is computed
 *             once, and the recurrence is exactly the sequential one.
 *   finish    tasks of 48 tokens: the parts' sum, gate, out_proj; written to the tokens' places in
 *             the grid.
 *
 * How it is cut depends on shapes only.
 */
#include <string.h>

#include "backend/cpu/mamba.h"
#include "base/size.h"

typedef struct mamba_job {
    const vx_cpu_step *step;
    const vx_mamba_step *s;
    const vx_mamba *m;
    const vx_kernels *kernels;
    const float *weights;
    const void *x; /* x, y: of one n */
    void *y;
    float *wave;
    unsigned char *locals;
    size_t local_stride;
    size_t first, tokens; /* the wave's positions in the sequence */
} mamba_job;

/* A worker's scratch. */
typedef struct local_view {
    const void **x_rows;
    void **y_rows;
    float *raw;
    void *u, *dt; /* stored */
} local_view;

static local_view local_of(const mamba_job *job, unsigned worker) {
    unsigned char *base = job->locals + worker * job->local_stride;
    const vx_mamba_local *at = &job->s->local;
    return (local_view){.x_rows = (const void **)(void *)(base + at->x_rows),
                        .y_rows = (void **)(void *)(base + at->y_rows),
                        .raw = (float *)(void *)(base + at->raw),
                        .u = base + at->u,
                        .dt = base + at->dt};
}

/* Rows of a plain matrix of float, and of a stored one. */
static void rows_of(float *y, size_t ld, size_t count, void **rows) {
    for (size_t i = 0; i < count; i++) rows[i] = y + i * ld;
}

static void stored_rows(const mamba_job *job, void *y, size_t ld, size_t count, void **rows) {
    for (size_t i = 0; i < count; i++) rows[i] = vx_stored_at(job->kernels, y, i * ld);
}

/* y = x * matrix + bias for the rows in l->x_rows and l->y_rows. */
static void project(const mamba_job *job, const local_view *l, size_t rows, size_t depth,
                    size_t columns, size_t matrix, const float *bias, bool y_float) {
    const vx_gemm gemm = {.rows = rows,
                          .taps = 1,
                          .depth = depth,
                          .x = l->x_rows,
                          .y = l->y_rows,
                          .y_float = y_float,
                          .w = job->weights + matrix,
                          .bias = bias,
                          .columns = columns,
                          .end_column = columns};
    job->kernels->gemm(&gemm);
}

static size_t token_bytes(const mamba_job *job) {
    return job->step->in.c * vx_dtype_size(job->kernels->stored);
}

/* z (stored) of the wave's token number `begin`. */
static void *z_of(const mamba_job *job, size_t begin) {
    return vx_stored_at(job->kernels, job->wave + job->s->wave.z, begin * job->s->padded);
}

/* Token number i of the d_conv - 1 before the wave. */
static void *halo_of(const mamba_job *job, size_t i) {
    return vx_stored_at(job->kernels, job->wave + job->s->wave.halo, i * job->step->in.c);
}

/* Keeps the wave's last tokens for the next wave: the output may take their place. */
static void keep_halo(const mamba_job *job) {
    const size_t halo = job->m->d_conv - 1;
    const local_view l = local_of(job, 0);
    if (!job->step->in_place || job->first + job->tokens == job->s->tokens) return;
    vx_walk_rows(&job->s->walk, job->first + job->tokens - halo, halo, job->x, token_bytes(job),
                 l.x_rows);
    for (size_t i = 0; i < halo; i++) memcpy(halo_of(job, i), l.x_rows[i], token_bytes(job));
}

/* in_proj of a block and of the d_conv - 1 tokens before it: raw (u before its convolution) in the
 * local scratch, z in the wave. */
static void project_in(const mamba_job *job, const local_view *l, size_t begin, size_t count) {
    const vx_mamba_step *s = job->s;
    const size_t c = job->step->in.c, halo = job->m->d_conv - 1, position = job->first + begin;
    /* Before the sequence's start there are zeros. */
    const size_t missing = position < halo ? halo - position : 0;
    memset(l->raw, 0, missing * s->padded * sizeof *l->raw);
    vx_walk_rows(&s->walk, position + missing - halo, count + halo - missing, job->x,
                 token_bytes(job), l->x_rows);
    for (size_t i = begin + missing; i < halo && job->step->in_place; i++)
        l->x_rows[i - begin - missing] = halo_of(job, i);
    rows_of(l->raw + missing * s->padded, s->padded, count + halo - missing, l->y_rows);
    project(job, l, count + halo - missing, c, s->padded, s->at.in_u, NULL, true);
    memmove(l->x_rows, l->x_rows + halo - missing, count * sizeof *l->x_rows);
    stored_rows(job, z_of(job, begin), s->padded, count, l->y_rows);
    project(job, l, count, c, s->padded, s->at.in_z, NULL, false);
}

/* dt, B and C (into the wave) from u, then delta's projection (into raw). */
static void project_selective(const mamba_job *job, const local_view *l, size_t begin,
                              size_t count) {
    const vx_mamba_step *s = job->s;
    const vx_mamba *m = job->m;
    float *dbc = job->wave + s->wave.dbc + begin * s->row;
    for (size_t i = 0; i < count; i++)
        l->x_rows[i] = vx_stored_from(job->kernels, l->u, i * s->padded);
    rows_of(dbc, s->row, count, l->y_rows);
    project(job, l, count, m->d_inner, s->row, s->at.x_proj, NULL, true);
    for (size_t i = 0; i < count; i++) {
        void *dt = vx_stored_at(job->kernels, l->dt, i * m->dt_rank);
        job->kernels->narrow(dbc + i * s->row, m->dt_rank, dt);
        l->x_rows[i] = dt;
    }
    rows_of(l->raw, s->padded, count, l->y_rows);
    project(job, l, count, m->dt_rank, s->padded, s->at.dt, job->weights + s->at.dt_b, true);
}

static size_t block_of(const mamba_job *job, size_t task, size_t *begin) {
    *begin = task * VX_MAMBA_BLOCK;
    return job->tokens - *begin < VX_MAMBA_BLOCK ? job->tokens - *begin : VX_MAMBA_BLOCK;
}

/* Part p of the y of group g, token `begin` of the wave. */
static float *y_of(const mamba_job *job, size_t p, size_t g, size_t begin) {
    const vx_mamba_step *s = job->s;
    return job->wave + s->wave.y + ((p * s->groups + g) * s->wave_tokens + begin) * VX_SCAN_GROUP;
}

static void project_task(void *ctx, size_t task, unsigned worker) {
    const mamba_job *job = ctx;
    const vx_mamba_step *s = job->s;
    const local_view l = local_of(job, worker);
    size_t begin;
    const size_t count = block_of(job, task, &begin);
    project_in(job, &l, begin, count);
    job->kernels->causal_conv(l.raw, count, s->padded, job->m->d_conv, job->weights + s->at.conv,
                              job->weights + s->at.conv_b, l.u);
    project_selective(job, &l, begin, count);
    for (size_t g = 0; g < s->groups; g++) {
        const size_t channel = g * VX_SCAN_GROUP;
        const size_t at = (g * s->wave_tokens + begin) * VX_SCAN_GROUP;
        job->kernels->scan_inputs(l.raw + channel, vx_stored_from(job->kernels, l.u, channel),
                                  s->padded, count, job->weights + s->at.skip + channel,
                                  job->wave + s->wave.delta + at, job->wave + s->wave.du + at,
                                  y_of(job, 0, g, begin));
    }
}

/* One part of one group's states over the whole wave. Part 0 adds to what project_task left in y,
 * the others have sums of their own, which finish_task adds up. */
static void scan_task(void *ctx, size_t task, unsigned worker) {
    const mamba_job *job = ctx;
    const vx_mamba_step *s = job->s;
    const size_t g = task % s->groups, p = task / s->groups, N = job->m->d_state;
    const size_t first = p * s->part_states, at = g * s->wave_tokens * VX_SCAN_GROUP;
    const float *row = job->wave + s->wave.dbc + job->m->dt_rank + first;
    const vx_scan scan = {
        .tokens = job->tokens,
        .states = N - first < s->part_states ? N - first : s->part_states,
        .delta = job->wave + s->wave.delta + at,
        .du = job->wave + s->wave.du + at,
        .b = row,
        .c = row + N,
        .bc_row = s->row,
        .a = job->weights + s->at.a + (g * N + first) * VX_SCAN_GROUP,
        .h = job->wave + s->wave.state + (g * N + first) * VX_SCAN_GROUP,
        .y = y_of(job, p, g, 0),
        .fresh = p > 0,
    };
    (void)worker;
    job->kernels->scan(&scan);
}

static void finish_task(void *ctx, size_t task, unsigned worker) {
    const mamba_job *job = ctx;
    const vx_mamba_step *s = job->s;
    const local_view l = local_of(job, worker);
    const size_t c = job->step->in.c;
    size_t begin;
    const size_t count = block_of(job, task, &begin);
    for (size_t g = 0; g < s->groups; g++)
        job->kernels->gate(y_of(job, 0, g, begin), s->parts,
                           s->groups * s->wave_tokens * VX_SCAN_GROUP,
                           vx_stored_from(job->kernels, z_of(job, begin), g * VX_SCAN_GROUP),
                           s->padded, count, vx_stored_at(job->kernels, l.u, g * VX_SCAN_GROUP));
    /* The same walk as for reading, over the output. */
    vx_walk_rows(&s->walk, job->first + begin, count, job->y, token_bytes(job), l.x_rows);
    for (size_t i = 0; i < count; i++) {
        l.y_rows[i] = (unsigned char *)job->y +
                      ((const unsigned char *)l.x_rows[i] - (unsigned char *)job->y);
        l.x_rows[i] = vx_stored_from(job->kernels, l.u, i * s->padded);
    }
    project(job, &l, count, job->m->d_inner, c, s->at.out, NULL, false);
}

static vx_status run_mamba(const vx_cpu_step *step, const vx_cpu_run *run, vx_error *err) {
    const vx_mamba_step *s = step->state;
    const vx_mamba *m = &step->op->mamba;
    const size_t elements = s->tokens * step->in.c;
    (void)err;
    mamba_job job = {.step = step,
                     .s = s,
                     .m = m,
                     .kernels = step->kernels,
                     .weights = step->weights,
                     .wave = (float *)(void *)run->scratch,
                     .locals = run->worker_scratch,
                     .local_stride = run->worker_stride};
    for (size_t n = 0; n < step->in.n; n++) {
        job.x = vx_stored_from(step->kernels, run->value[step->op->in[0]], n * elements);
        job.y = vx_stored_at(step->kernels, run->value[step->op->out], n * elements);
        memset(job.wave + s->wave.state, 0, s->padded * m->d_state * sizeof(float));
        for (job.first = 0; job.first < s->tokens; job.first += job.tokens) {
            const size_t left = s->tokens - job.first;
            job.tokens = left < s->wave_tokens ? left : s->wave_tokens;
            const size_t blocks = (job.tokens + VX_MAMBA_BLOCK - 1) / VX_MAMBA_BLOCK;
            vx_pool_run(run->pool, blocks, project_task, &job);
            vx_pool_run(run->pool, s->groups * s->parts, scan_task, &job);
            keep_halo(&job);
            vx_pool_run(run->pool, blocks, finish_task, &job);
        }
    }
    return VX_OK;
}

vx_status vx_cpu_prepare_mamba(vx_cpu_step *step, vx_error *err) {
    vx_mamba_step *s = step->state = vx_alloc_zero(1, sizeof *s);
    if (!s) return vx_fail(err, VX_ERR_RESOURCE, "out of memory");
    if (!vx_mamba_plan(step, s) || !vx_mul_size(s->at.floats, sizeof(float), &step->weight_bytes) ||
        !vx_mul_size(s->wave.floats, sizeof(float), &step->scratch_bytes))
        return vx_cpu_overflow(err);
    step->worker_bytes = s->local.bytes;
    step->pack = vx_mamba_pack;
    step->run = run_mamba;
    step->out_float = false;
    /* A wave's tokens are all read before its output is written, but for the last ones, which the
     * next wave reads again from their copy. */
    step->in_place = step->op->mamba.d_conv - 1 <= s->wave_tokens;
    return VX_OK;
}
