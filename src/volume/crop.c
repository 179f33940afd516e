#include "volume/crop.h"

#include <stdbool.h>
#include <string.h>

#include "base/memory.h"

/* The non-zero voxels of one z of one channel: x and y of the smallest box; high[0] 0: none. */
typedef struct slice_box {
    size_t low[2], high[2];
} slice_box;

typedef struct box_job {
    const vx_volume *volume;
    slice_box *slices; /* [channel][z] */
} box_job;

static void box_slice(void *ctx, size_t task, unsigned worker) {
    (void)worker;
    const box_job *job = ctx;
    const size_t *n = job->volume->geo.dims;
    slice_box box = {{n[0], n[1]}, {0, 0}};
    for (size_t y = 0; y < n[1]; y++) {
        const float *row = job->volume->data + (task * n[1] + y) * n[0];
        size_t first = 0, last = n[0];
        while (first < n[0] && row[first] == 0) first++;
        if (first == n[0]) continue;
        while (row[last - 1] == 0) last--;
        if (first < box.low[0]) box.low[0] = first;
        if (last > box.high[0]) box.high[0] = last;
        if (y < box.low[1]) box.low[1] = y;
        box.high[1] = y + 1;
    }
    job->slices[task] = box;
}

vx_status vx_nonzero_box(const vx_volume *volume, vx_pool *pool, vx_box *out, vx_error *err) {
    const size_t *n = volume->geo.dims;
    size_t low[3] = {n[0], n[1], n[2]}, high[3] = {0, 0, 0};
    box_job job = {volume, vx_alloc_zero(volume->channels * n[2], sizeof *job.slices)};
    if (!job.slices) return vx_fail(err, VX_ERR_RESOURCE, "out of memory");
    vx_pool_run(pool, volume->channels * n[2], box_slice, &job);
    for (size_t k = 0; k < volume->channels * n[2]; k++) {
        const slice_box *s = &job.slices[k];
        if (!s->high[0]) continue;
        const size_t from[3] = {s->low[0], s->low[1], k % n[2]};
        const size_t to[3] = {s->high[0], s->high[1], k % n[2] + 1};
        for (int i = 0; i < 3; i++) {
            if (from[i] < low[i]) low[i] = from[i];
            if (to[i] > high[i]) high[i] = to[i];
        }
    }
    vx_free(job.slices);
    *out = (vx_box){{0, 0, 0}, {n[0], n[1], n[2]}};
    for (int i = 0; i < 3 && high[0] > 0; i++) {
        out->from[i] = low[i];
        out->size[i] = high[i] - low[i];
    }
    return VX_OK;
}

vx_geometry vx_crop_geometry(const vx_geometry *geo, vx_box box) {
    vx_geometry out = *geo;
    double index[3], origin[3];
    for (int i = 0; i < 3; i++) {
        out.dims[i] = box.size[i];
        index[i] = (double)box.from[i];
    }
    vx_affine_apply(geo->affine, index, origin);
    for (int r = 0; r < 3; r++) out.affine[r][3] = origin[r];
    return out;
}

typedef struct copy_job {
    const vx_volume *from;
    vx_volume *to;
    vx_box box;
} copy_job;

/* One z of one channel of the box. */
static void copy_slice(void *ctx, size_t task, unsigned worker) {
    (void)worker;
    const copy_job *job = ctx;
    const size_t *n = job->from->geo.dims, *size = job->box.size, *from = job->box.from;
    const size_t c = task / size[2], z = task % size[2];
    const float *first =
        job->from->data + ((c * n[2] + from[2] + z) * n[1] + from[1]) * n[0] + from[0];
    float *to = job->to->data + task * size[1] * size[0];
    for (size_t y = 0; y < size[1]; y++)
        memcpy(to + y * size[0], first + y * n[0], size[0] * sizeof *to);
}

vx_status vx_crop_volume(const vx_volume *in, vx_box box, vx_pool *pool, vx_volume **out,
                         vx_error *err) {
    *out = NULL;
    const size_t *n = in->geo.dims;
    for (int i = 0; i < 3; i++)
        if (box.size[i] == 0 || box.from[i] >= n[i] || box.size[i] > n[i] - box.from[i])
            return vx_fail(err, VX_ERR_USAGE, "the box to crop to does not lie within the volume");
    vx_geometry geo = vx_crop_geometry(&in->geo, box);
    vx_volume *volume;
    vx_status s = vx_volume_create(&geo, in->channels, &volume, err);
    if (s != VX_OK) return s;
    copy_job job = {in, volume, box};
    vx_pool_run(pool, in->channels * box.size[2], copy_slice, &job);
    volume->source = vx_source_ref(in->source);
    *out = volume;
    return VX_OK;
}
