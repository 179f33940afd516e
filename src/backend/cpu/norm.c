#include "backend/cpu/norm.h"

#include <math.h>

#include "base/size.h"

/* The shared scratch: moments of the cells, then what the last pass needs. */
typedef struct norm_scratch {
    double *mean, *m2;             /* [n][plane][cell][c] */
    float *centre, *scale, *shift; /* [n][c] */
} norm_scratch;

static size_t cells_of(const vx_norm *norm) { return norm->cut.planes * norm->cut.cells; }

static norm_scratch divide(const vx_norm *norm, void *scratch) {
    const size_t moments = norm->n * cells_of(norm) * norm->c, channels = norm->n * norm->c;
    norm_scratch s;
    s.mean = scratch;
    s.m2 = s.mean + moments;
    s.centre = (float *)(s.m2 + moments);
    s.scale = s.centre + channels;
    s.shift = s.scale + channels;
    return s;
}

bool vx_norm_scratch(const vx_norm *norm, size_t *shared, size_t *worker) {
    const size_t moments[] = {norm->n, norm->cut.planes, norm->cut.cells, norm->c,
                              2,       sizeof(double)};
    const size_t channels[] = {norm->n, norm->c, 3, sizeof(float)};
    size_t rest;
    return vx_product(moments, 6, shared) && vx_product(channels, 4, &rest) &&
           vx_add_size(*shared, rest, shared) && vx_mul_size(norm->c, 2 * sizeof(float), worker);
}

void vx_norm_cell(const vx_norm *norm, const vx_cpu_run *run, const void *y, size_t n, size_t plane,
                  size_t cell, void *worker_scratch) {
    const norm_scratch s = divide(norm, run->scratch);
    const size_t at = (n * cells_of(norm) + plane * norm->cut.cells + cell) * norm->c;
    size_t first;
    const size_t tokens = vx_cut_cell(&norm->cut, plane, cell, &first);
    first += n * vx_cut_tokens(&norm->cut);
    run->kernels->moments(vx_stored_from(run->kernels, y, first * norm->c), tokens, norm->c,
                          worker_scratch, s.mean + at, s.m2 + at);
}

/* Mean and variance of all cells (Chan, Golub & LeVeque 1979), to a mean, a factor and a shift. */
static void combine(const vx_norm *norm, const norm_scratch *s, const float *gamma,
                    const float *beta, size_t n, size_t k) {
    const vx_cut *cut = &norm->cut;
    const double *mean = s->mean + n * cells_of(norm) * norm->c + k;
    const double *m2 = s->m2 + n * cells_of(norm) * norm->c + k;
    const double all = (double)vx_cut_tokens(cut);
    double centre = 0, spread = 0;
    size_t first;
    for (size_t i = 0; i < cells_of(norm); i++)
        centre += mean[i * norm->c] * (double)vx_cut_cell(cut, 0, i % cut->cells, &first);
    centre /= all;
    for (size_t i = 0; i < cells_of(norm); i++) {
        const double off = mean[i * norm->c] - centre;
        const double tokens = (double)vx_cut_cell(cut, 0, i % cut->cells, &first);
        spread += m2[i * norm->c] + off * off * tokens;
    }
    const double inv = 1.0 / sqrt(spread / all + (double)norm->eps);
    const float rounded = (float)centre;
    s->centre[n * norm->c + k] = rounded;
    s->scale[n * norm->c + k] = (float)(inv * (double)gamma[k]);
    s->shift[n * norm->c + k] =
        (float)((double)beta[k] + ((double)rounded - centre) * inv * (double)gamma[k]);
}

typedef struct apply_job {
    const vx_norm *norm;
    const vx_kernels *kernels;
    norm_scratch s;
    const void *x, *residual;
    void *y;
    size_t blocks, block_tokens; /* of one n */
} apply_job;

static void apply_block(void *ctx, size_t task, unsigned worker) {
    const apply_job *job = ctx;
    const vx_norm *norm = job->norm;
    const size_t n = task / job->blocks, first = task % job->blocks * job->block_tokens;
    const size_t tokens = vx_cut_tokens(&norm->cut), left = tokens - first, c = norm->c;
    const size_t at = (n * tokens + first) * c;
    (void)worker;
    const vx_kernels *k = job->kernels;
    k->normalise(vx_stored_from(k, job->x, at), left < job->block_tokens ? left : job->block_tokens,
                 c, job->s.centre + n * c, job->s.scale + n * c, job->s.shift + n * c,
                 job->residual ? vx_stored_from(k, job->residual, at) : NULL, norm->act,
                 norm->slope, vx_stored_at(k, job->y, at));
}

void vx_norm_apply(const vx_norm *norm, const vx_cpu_run *run, const float *gamma,
                   const float *beta, const void *x, const void *residual, void *y) {
    apply_job job = {.norm = norm,
                     .kernels = run->kernels,
                     .s = divide(norm, run->scratch),
                     .x = x,
                     .residual = residual,
                     .y = y,
                     .block_tokens = vx_cpu_block(norm->c)};
    for (size_t n = 0; n < norm->n; n++)
        for (size_t k = 0; k < norm->c; k++) combine(norm, &job.s, gamma, beta, n, k);
    job.blocks = (vx_cut_tokens(&norm->cut) + job.block_tokens - 1) / job.block_tokens;
    vx_pool_run(run->pool, norm->n * job.blocks, apply_block, &job);
}
