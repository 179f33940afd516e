#include "infer/finalise.h"

#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "base/size.h"

vx_status vx_logits_axis_create(size_t in, size_t out, int order, vx_logits_axis *map,
                                vx_error *err) {
    *map = (vx_logits_axis){.in = in, .out = out};
    map->low = vx_alloc_zero(out, sizeof *map->low);
    map->weight = vx_alloc_zero(out, sizeof *map->weight);
    if (!map->low || !map->weight) {
        vx_logits_axis_free(map);
        return vx_fail(err, VX_ERR_RESOURCE, "out of memory");
    }
    double scale = (double)in / (double)out, last = (double)(in - 1);
    for (size_t i = 0; i < out; i++) {
        double at = ((double)i + 0.5) * scale - 0.5;
        at = at < 0 ? 0 : at > last ? last : at;
        double low = floor(order == 0 ? at + 0.5 : at);
        map->low[i] = (size_t)low;
        if (order == 0 || map->low[i] + 1 >= in) continue;
        float weight = (float)(at - low);
        if (weight < 1)
            map->weight[i] = weight;
        else
            map->low[i]++; /* at was a rounding error below the next voxel */
    }
    return VX_OK;
}

void vx_logits_axis_free(vx_logits_axis *map) {
    vx_free(map->low);
    vx_free(map->weight);
    map->low = NULL;
    map->weight = NULL;
}

static size_t row_floats(size_t in_x, size_t classes) { return (in_x + 1) * classes; }

size_t vx_finaliser_bytes(const size_t in[3], const size_t out[3], size_t classes,
                          unsigned workers) {
    return (out[0] + out[1] + out[2]) * (sizeof(size_t) + sizeof(float)) +
           workers * row_floats(in[2], classes) * sizeof(float);
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

bool vx_finaliser_ready(const vx_finaliser *finaliser, size_t finished) {
    const vx_logits_axis *z = &finaliser->axis[0];
    return finaliser->next < z->out && vx_logits_axis_high(z, finaliser->next) < finished;
}

typedef struct slice_job {
    const vx_finaliser *finaliser;
    const float *low, *high; /* slices of the slab */
    float weight;            /* of high */
    float *probabilities;
} slice_job;

/* out = (1 - w) * a + w * b. */
static void blend(const float *a, const float *b, float w, size_t n, float *out) {
    float v = 1 - w;
    for (size_t i = 0; i < n; i++) out[i] = v * a[i] + w * b[i];
}

/* The slab's row at output row y, interpolated along z and y: [x of the input][class]. */
static const float *blend_row(const slice_job *job, size_t y, float *scratch) {
    const vx_finaliser *f = job->finaliser;
    const vx_logits_axis *axis = &f->axis[1];
    size_t n = f->axis[2].in * f->classes;
    size_t low = axis->low[y] * n, high = vx_logits_axis_high(axis, y) * n;
    float wy = axis->weight[y], wz = job->weight;
    if (wz == 0 && wy == 0) return job->low + low;
    if (wz == 0) {
        blend(job->low + low, job->low + high, wy, n, scratch);
    } else if (wy == 0) {
        blend(job->low + low, job->high + low, wz, n, scratch);
    } else {
        float w00 = (1 - wz) * (1 - wy), w01 = (1 - wz) * wy, w10 = wz * (1 - wy), w11 = wz * wy;
        const float *a = job->low + low, *b = job->low + high;
        const float *c = job->high + low, *d = job->high + high;
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

static void finalise_row(void *ctx, size_t y, unsigned worker) {
    const slice_job *job = ctx;
    const vx_finaliser *f = job->finaliser;
    const vx_logits_axis *axis = &f->axis[2];
    const vx_label_target *target = &f->target;
    size_t classes = f->classes, plane = f->axis[1].out * axis->out;
    float *scratch = f->rows + worker * f->row_floats;
    const float *row = blend_row(job, y, scratch);
    float *voxel = scratch + axis->in * classes;
    ptrdiff_t at =
        target->origin + (ptrdiff_t)f->next * target->stride[0] + (ptrdiff_t)y * target->stride[1];
    for (size_t x = 0; x < axis->out; x++, at += target->stride[2]) {
        const float *logits = row + axis->low[x] * classes;
        if (axis->weight[x] > 0) {
            blend(logits, logits + classes, axis->weight[x], classes, voxel);
            logits = voxel;
        }
        ptrdiff_t best = decide(logits, classes, f->regions);
        vx_mask_set(target->mask, (size_t)at, best < 0 ? 0 : f->values[best]);
        if (job->probabilities)
            to_probabilities(logits, classes, f->regions, job->probabilities + y * axis->out + x,
                             plane);
    }
}

void vx_finaliser_slice(vx_finaliser *finaliser, const vx_slab *slab, float *probabilities,
                        vx_pool *pool) {
    const vx_logits_axis *z = &finaliser->axis[0];
    size_t i = finaliser->next;
    slice_job job = {.finaliser = finaliser,
                     .low = vx_slab_slice(slab, z->low[i]),
                     .high = vx_slab_slice(slab, vx_logits_axis_high(z, i)),
                     .weight = z->weight[i],
                     .probabilities = probabilities};
    vx_pool_run(pool, finaliser->axis[1].out, finalise_row, &job);
    finaliser->next++;
}
