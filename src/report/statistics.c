#include <math.h>
#include <stdint.h>

#include "base/memory.h"
#include "report/report.h"

enum { VALUES = 65536 }; /* that a mask can hold */

/* Entry of out for each value of a mask; NONE for values that the table does not name. */
enum { NONE = UINT16_MAX };

/* NULL without memory. Free with vx_free. */
static uint16_t *find_entries(const vx_label_table *labels) {
    uint16_t *entry = vx_alloc(VALUES * sizeof *entry);
    if (!entry) return NULL;
    for (size_t v = 0; v < VALUES; v++) entry[v] = NONE;
    /* Values are unique and never 0, so there are fewer labels than NONE. */
    for (size_t k = 0; k < labels->count; k++) entry[labels->labels[k].value] = (uint16_t)k;
    return entry;
}

/* The voxels come in so many parts, whatever the pool: sums depend on how they are cut. */
enum { PARTS = 64 };

typedef struct part_sum {
    size_t voxels;
    double sum;
} part_sum;

typedef struct statistics_job {
    const vx_volume *image;
    const vx_mask *mask;
    const uint16_t *entry;
    const vx_label_stats *means; /* NULL in the first pass */
    size_t labels;
    part_sum *sums; /* [part][label] */
} statistics_job;

/* Voxels and intensities of each label, or squares about its mean, in one part. */
static void sum_part(void *ctx, size_t task, unsigned worker) {
    (void)worker;
    const statistics_job *job = ctx;
    part_sum *sums = job->sums + task * job->labels;
    size_t n = vx_voxels(&job->mask->geo), size = n / PARTS + 1;
    size_t from = task * size < n ? task * size : n, end = n - from < size ? n : from + size;
    for (size_t k = 0; k < job->labels; k++) sums[k] = (part_sum){0, 0};
    for (size_t i = from; i < end; i++) {
        size_t k = job->entry[vx_mask_get(job->mask, i)];
        if (k == NONE) continue;
        double v = job->image->data[i];
        if (job->means) {
            v -= job->means[k].mean;
            v *= v;
        }
        sums[k].voxels++;
        sums[k].sum += v;
    }
}

vx_status vx_label_statistics(const vx_volume *image, const vx_mask *mask,
                              const vx_label_table *labels, vx_pool *pool, vx_label_stats *out,
                              vx_error *err) {
    double voxel_ml = vx_voxel_mm3(&mask->geo) / 1000;
    uint16_t *entry = find_entries(labels);
    statistics_job job = {.image = image, .mask = mask, .entry = entry, .labels = labels->count};
    job.sums = vx_alloc_zero(labels->count * PARTS + 1, sizeof *job.sums);
    if (!entry || !job.sums) {
        vx_free(entry);
        vx_free(job.sums);
        return vx_fail(err, VX_ERR_RESOURCE, "out of memory");
    }
    for (size_t k = 0; k < labels->count; k++)
        out[k] = (vx_label_stats){.label = labels->labels[k].value};
    vx_pool_run(pool, PARTS, sum_part, &job);
    for (size_t k = 0; k < labels->count; k++) {
        for (size_t part = 0; part < PARTS; part++) {
            out[k].voxels += job.sums[part * labels->count + k].voxels;
            out[k].mean += job.sums[part * labels->count + k].sum;
        }
        out[k].mean /= (double)out[k].voxels;
    }
    job.means = out;
    vx_pool_run(pool, PARTS, sum_part, &job);
    for (size_t k = 0; k < labels->count; k++) {
        vx_label_stats *s = &out[k];
        for (size_t part = 0; part < PARTS; part++) s->sd += job.sums[part * labels->count + k].sum;
        s->ml = voxel_ml * (double)s->voxels;
        s->sd = sqrt(s->sd / (double)s->voxels); /* without voxels 0 / 0: NaN, as the mean */
    }
    vx_free(entry);
    vx_free(job.sums);
    return VX_OK;
}
