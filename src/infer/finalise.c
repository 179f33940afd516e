#include "infer/finalise.h"

#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "base/size.h"

static size_t row_floats(size_t in_x, size_t classes) { return (in_x + 1) * classes; }

size_t vx_finaliser_bytes(const size_t in[3], const size_t out[3], size_t classes,
                          unsigned workers) {
    return vx_logits_axis_bytes(out[0]) + vx_logits_axis_bytes(out[1]) +
           vx_logits_axis_bytes(out[2]) + workers * row_floats(in[2], classes) * sizeof(float);
}

vx_status vx_finaliser_create(const size_t in[3], const size_t out[3], const int order[3],
                              size_t classes, bool regions, const unsigned *values,
                              const vx_label_target *target, const vx_pool *pool,
                              vx_finaliser *finaliser, vx_error *err) {
    *finaliser = (vx_finaliser){.classes = classes,
                                .regions = regions,
                                .values = values,
                                .target = *target,
                                .row_floats = row_floats(in[2], classes),
                                .workers = vx_pool_workers(pool)};
    vx_status status = VX_OK;
    for (int a = 0; a < 3 && status == VX_OK; a++)
        status = vx_logits_axis_create(in[a], out[a], order[a], &finaliser->axis[a], err);
    if (status == VX_OK) {
        finaliser->rows = vx_alloc_zero(finaliser->workers, finaliser->row_floats * sizeof(float));
        if (!finaliser->rows) status = vx_fail(err, VX_ERR_RESOURCE, "out of memory");
    }
    if (status != VX_OK) vx_finaliser_free(finaliser);
    return status;
}

void vx_finaliser_free(vx_finaliser *finaliser) {
    for (int a = 0; a < 3; a++) vx_logits_axis_free(&finaliser->axis[a]);
    vx_free(finaliser->rows);
    finaliser->rows = NULL;
}

typedef struct make_job {
    const vx_finaliser *finaliser;
    const vx_slab *slab;
    const vx_rows *rows;
    const vx_probability_slice *probabilities;
} make_job;

/* out = (1 - w) * a + w * b. */
static void blend(const float *a, const float *b, float w, size_t n, float *out) {
    float v = 1 - w;
    for (size_t i = 0; i < n; i++) out[i] = v * a[i] + w * b[i];
}

/* Output row (z, y) before interpolation along x: [x of the input][class]. */
static const float *blend_row(const make_job *job, size_t z, size_t y, float *scratch) {
    const vx_finaliser *f = job->finaliser;
    const vx_logits_axis *az = &f->axis[0], *ay = &f->axis[1];
    size_t n = f->axis[2].in * f->classes;
    size_t z0 = az->low[z], z1 = vx_logits_axis_high(az, z);
    size_t y0 = ay->low[y], y1 = vx_logits_axis_high(ay, y);
    float wz = az->weight[z], wy = ay->weight[y];
    const float *a = vx_slab_row(job->slab, z0, y0);
    if (wz == 0 && wy == 0) return a;
    if (wz == 0) {
        blend(a, vx_slab_row(job->slab, z0, y1), wy, n, scratch);
    } else if (wy == 0) {
        blend(a, vx_slab_row(job->slab, z1, y0), wz, n, scratch);
    } else {
        float w00 = (1 - wz) * (1 - wy), w01 = (1 - wz) * wy, w10 = wz * (1 - wy), w11 = wz * wy;
        const float *b = vx_slab_row(job->slab, z0, y1);
        const float *c = vx_slab_row(job->slab, z1, y0), *d = vx_slab_row(job->slab, z1, y1);
        for (size_t i = 0; i < n; i++)
            scratch[i] = w00 * a[i] + w01 * b[i] + w10 * c[i] + w11 * d[i];
    }
    return scratch;
}

/* Class with the largest logit, the first of equals; for regions the last one above 0 (sigmoid >
 * 0.5), or -1. */
static ptrdiff_t decide(const float *logits, size_t classes, bool regions) {
    ptrdiff_t best = regions ? -1 : 0;
    for (size_t c = 0; c < classes; c++)
        if (regions ? logits[c] > 0 : logits[c] > logits[best]) best = (ptrdiff_t)c;
    return best;
}

/* out[c * stride]. */
static void to_probabilities(const float *logits, size_t classes, bool regions, float *out,
                             size_t stride) {
    if (regions) {
        for (size_t c = 0; c < classes; c++) out[c * stride] = 1 / (1 + expf(-logits[c]));
        return;
    }
    float largest = logits[0], sum = 0;
    for (size_t c = 1; c < classes; c++)
        if (logits[c] > largest) largest = logits[c];
    for (size_t c = 0; c < classes; c++) sum += out[c * stride] = expf(logits[c] - largest);
    for (size_t c = 0; c < classes; c++) out[c * stride] /= sum;
}

static void make_row(void *ctx, size_t task, unsigned worker) {
    const make_job *job = ctx;
    const vx_finaliser *f = job->finaliser;
    const vx_logits_axis *axis = &f->axis[2];
    const vx_label_target *target = &f->target;
    const vx_probability_slice *p = job->probabilities;
    size_t classes = f->classes, ny = job->rows->end[1] - job->rows->from[1];
    size_t z = job->rows->from[0] + task / ny, y = job->rows->from[1] + task % ny;
    float *scratch = f->rows + worker * f->row_floats;
    const float *row = blend_row(job, z, y, scratch);
    float *voxel = scratch + axis->in * classes;
    float *to = p ? p->data + (p->across == 0 ? y : z) * axis->out : NULL;
    ptrdiff_t at =
        target->origin + (ptrdiff_t)z * target->stride[0] + (ptrdiff_t)y * target->stride[1];
    for (size_t x = 0; x < axis->out; x++, at += target->stride[2]) {
        const float *logits = row + axis->low[x] * classes;
        if (axis->weight[x] > 0) {
            blend(logits, logits + classes, axis->weight[x], classes, voxel);
            logits = voxel;
        }
        ptrdiff_t best = decide(logits, classes, f->regions);
        vx_mask_set(target->mask, (size_t)at, best < 0 ? 0 : f->values[best]);
        if (to) to_probabilities(logits, classes, f->regions, to + x, p->rows * axis->out);
    }
}

void vx_finaliser_make(vx_finaliser *finaliser, const vx_slab *slab, const vx_rows *rows,
                       const vx_probability_slice *probabilities, vx_pool *pool) {
    make_job job = {
        .finaliser = finaliser, .slab = slab, .rows = rows, .probabilities = probabilities};
    vx_pool_run(pool, vx_rows_count(rows), make_row, &job);
}
