#include "infer/slab.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "base/memory.h"
#include "base/size.h"

static size_t min_size(size_t a, size_t b) { return a < b ? a : b; }

static size_t slab_depth(const vx_tiles *tiles) {
    return min_size(tiles->dims[0], tiles->patch[0] + 1);
}

bool vx_slab_bytes(const vx_tiles *tiles, size_t classes, size_t *bytes) {
    const size_t parts[5] = {slab_depth(tiles), tiles->dims[1], tiles->dims[2], classes,
                             sizeof(float)};
    return vx_product(parts, 5, bytes);
}

vx_status vx_slab_create(const vx_tiles *tiles, size_t classes, vx_slab *out, vx_error *err) {
    size_t bytes;
    *out = (vx_slab){.tiles = tiles, .classes = classes, .depth = slab_depth(tiles)};
    if (!vx_slab_bytes(tiles, classes, &bytes))
        return vx_fail(err, VX_ERR_RESOURCE, "the volume is too large for %zu classes", classes);
    out->data = vx_alloc(bytes);
    if (!out->data)
        return vx_fail(err, VX_ERR_RESOURCE,
                       "out of memory (%zu MB are needed for the logits of %zu slices)",
                       bytes / 1000000, out->depth);
    return VX_OK;
}

void vx_slab_free(vx_slab *slab) {
    vx_free(slab->data);
    slab->data = NULL;
}

static size_t slice_floats(const vx_slab *slab) {
    return slab->tiles->dims[1] * slab->tiles->dims[2] * slab->classes;
}

/* The slice of the volume at position 0 of a tile row; negative in the padding. */
static ptrdiff_t row_start(const vx_tiles *tiles, int axis, size_t row) {
    return (ptrdiff_t)tiles->start[axis][row] - (ptrdiff_t)tiles->pad[axis];
}

typedef struct slab_job {
    vx_slab *slab;
    size_t first; /* slice of task 0 */
    const size_t *tile;
    const float *logits;
    unsigned flips;
    float scale;
    unsigned char *bad; /* a flag a task: a logit is NaN or infinite */
} slab_job;

static void zero_slice(void *ctx, size_t task, unsigned worker) {
    (void)worker;
    slab_job *job = ctx;
    size_t n = slice_floats(job->slab);
    memset(job->slab->data + (job->first + task) % job->slab->depth * n, 0, n * sizeof(float));
}

void vx_slab_begin_row(vx_slab *slab, size_t row, vx_pool *pool) {
    const vx_tiles *t = slab->tiles;
    size_t end = min_size(t->dims[0], t->start[0][row] + t->patch[0] - t->pad[0]);
    slab_job job = {.slab = slab, .first = slab->covered};
    vx_pool_run(pool, end - slab->covered, zero_slice, &job);
    slab->covered = end;
}

/* One z plane of a tile. */
static void add_plane(void *ctx, size_t task, unsigned worker) {
    (void)worker;
    const slab_job *job = ctx;
    const vx_slab *slab = job->slab;
    const vx_tiles *t = slab->tiles;
    const size_t *dims = t->dims, *patch = t->patch;
    size_t classes = slab->classes;
    ptrdiff_t z = row_start(t, 0, job->tile[0]) + (ptrdiff_t)task;
    if (z < 0 || (size_t)z >= dims[0]) return;
    ptrdiff_t y0 = row_start(t, 1, job->tile[1]), x0 = row_start(t, 2, job->tile[2]);
    size_t x_from = x0 < 0 ? (size_t)-x0 : 0;
    size_t x_end = min_size(patch[2], (size_t)((ptrdiff_t)dims[2] - x0));
    bool flip_x = job->flips & VX_FLIP_X;
    size_t from_z = job->flips & VX_FLIP_Z ? patch[0] - 1 - task : task;
    float *slice = slab->data + (size_t)z % slab->depth * slice_floats(slab);
    for (size_t y = 0; y < patch[1]; y++) {
        ptrdiff_t to_y = y0 + (ptrdiff_t)y;
        if (to_y < 0 || (size_t)to_y >= dims[1]) continue;
        size_t from_y = job->flips & VX_FLIP_Y ? patch[1] - 1 - y : y;
        const float *from = job->logits + (from_z * patch[1] + from_y) * patch[2] * classes;
        float *to = slice + (size_t)to_y * dims[2] * classes;
        float weight_zy = t->profile[0][task] * t->profile[1][y] * job->scale;
        for (size_t x = x_from; x < x_end; x++) {
            const float *in = from + (flip_x ? patch[2] - 1 - x : x) * classes;
            float *sum = to + (size_t)(x0 + (ptrdiff_t)x) * classes;
            float weight = weight_zy * t->profile[2][x];
            for (size_t c = 0; c < classes; c++) sum[c] += weight * in[c];
        }
    }
}

void vx_slab_add(vx_slab *slab, const size_t tile[3], const float *logits, unsigned flips,
                 float scale, vx_pool *pool) {
    slab_job job = {.slab = slab, .tile = tile, .logits = logits, .flips = flips, .scale = scale};
    vx_pool_run(pool, slab->tiles->patch[0], add_plane, &job);
}

static void divide_slice(void *ctx, size_t task, unsigned worker) {
    (void)worker;
    slab_job *job = ctx;
    const vx_slab *slab = job->slab;
    const vx_tiles *t = slab->tiles;
    size_t z = job->first + task, classes = slab->classes;
    float *v = slab->data + z % slab->depth * slice_floats(slab);
    bool bad = false;
    for (size_t y = 0; y < t->dims[1]; y++) {
        for (size_t x = 0; x < t->dims[2]; x++, v += classes) {
            float weight = t->total[0][z] * t->total[1][y] * t->total[2][x];
            for (size_t c = 0; c < classes; c++) {
                v[c] /= weight;
                bad |= !isfinite(v[c]);
            }
        }
    }
    job->bad[task] = bad;
}

vx_status vx_slab_end_row(vx_slab *slab, size_t row, vx_pool *pool, vx_error *err) {
    const vx_tiles *t = slab->tiles;
    size_t end = t->dims[0];
    if (row + 1 < t->count[0]) end = min_size(end, t->start[0][row + 1] - t->pad[0]);
    size_t count = end - slab->finished;
    if (count == 0) return VX_OK;
    slab_job job = {.slab = slab, .first = slab->finished, .bad = vx_alloc_zero(count, 1)};
    if (!job.bad) return vx_fail(err, VX_ERR_RESOURCE, "out of memory");
    vx_pool_run(pool, count, divide_slice, &job);
    bool bad = false;
    for (size_t i = 0; i < count; i++) bad |= job.bad[i] != 0;
    vx_free(job.bad);
    if (bad)
        return vx_fail(err, VX_ERR_MODEL,
                       "the network gave NaN or infinite values (check the input's intensities, or "
                       "use --precision fp32)");
    slab->finished = end;
    return VX_OK;
}
