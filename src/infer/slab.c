#include "infer/slab.h"

#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "base/memory.h"
#include "base/size.h"

static size_t min_size(size_t a, size_t b) { return a < b ? a : b; }

static bool data_bytes(const vx_tiles *tiles, size_t classes, size_t rows, size_t *bytes) {
    const size_t parts[4] = {rows, tiles->dims[2], classes, sizeof(float)};
    return vx_product(parts, 4, bytes);
}

bool vx_slab_bytes(const vx_tiles *tiles, size_t classes, size_t rows, size_t *bytes) {
    size_t slots;
    return vx_slots_bytes(tiles, rows, &slots) && data_bytes(tiles, classes, rows, bytes) &&
           vx_add_size(*bytes, slots, bytes);
}

vx_status vx_slab_create(const vx_tiles *tiles, size_t classes, size_t rows, vx_slab *out,
                         vx_error *err) {
    size_t data;
    *out = (vx_slab){.tiles = tiles, .classes = classes, .row_floats = tiles->dims[2] * classes};
    if (!data_bytes(tiles, classes, rows, &data))
        return vx_fail(err, VX_ERR_RESOURCE, "the volume is too large for %zu classes", classes);
    vx_status status = vx_slots_create(tiles, rows, &out->slots, err);
    if (status != VX_OK) return status;
    out->data = vx_alloc(data);
    if (out->data) return VX_OK;
    vx_slab_free(out);
    return vx_fail(err, VX_ERR_RESOURCE, "out of memory (%zu MB are needed for the logits)",
                   data / 1000000);
}

void vx_slab_free(vx_slab *slab) {
    vx_slots_free(&slab->slots);
    vx_free(slab->data);
    slab->data = NULL;
}

/* ---- Starting and dropping ---- */

typedef struct rows_job {
    vx_slab *slab;
    const vx_rows *rows;
    atomic_bool bad; /* a logit is NaN or infinite */
} rows_job;

/* Task -> row. */
static void row_of(const vx_rows *rows, size_t task, size_t *z, size_t *y) {
    size_t ny = rows->end[1] - rows->from[1];
    *z = rows->from[0] + task / ny;
    *y = rows->from[1] + task % ny;
}

static void zero_row(void *ctx, size_t task, unsigned worker) {
    (void)worker;
    const rows_job *job = ctx;
    size_t z, y;
    row_of(job->rows, task, &z, &y);
    memset(vx_slab_row(job->slab, z, y), 0, job->slab->row_floats * sizeof(float));
}

void vx_slab_start(vx_slab *slab, const vx_rows *rows, vx_pool *pool) {
    vx_slots_take(&slab->slots, rows);
    rows_job job = {.slab = slab, .rows = rows};
    vx_pool_run(pool, vx_rows_count(rows), zero_row, &job);
}

void vx_slab_drop(vx_slab *slab, const vx_rows *rows) { vx_slots_give(&slab->slots, rows); }

/* ---- Adding ---- */

typedef struct add_job {
    const vx_slab *slab;
    const size_t *tile;
    const float *logits;
    unsigned flips;
    float scale;
} add_job;

/* One z plane of a tile. */
static void add_plane(void *ctx, size_t task, unsigned worker) {
    (void)worker;
    const add_job *job = ctx;
    const vx_slab *slab = job->slab;
    const vx_tiles *t = slab->tiles;
    const size_t *dims = t->dims, *patch = t->patch;
    size_t classes = slab->classes;
    ptrdiff_t z = vx_tile_start(t, 0, job->tile[0]) + (ptrdiff_t)task;
    if (z < 0 || (size_t)z >= dims[0]) return;
    ptrdiff_t y0 = vx_tile_start(t, 1, job->tile[1]), x0 = vx_tile_start(t, 2, job->tile[2]);
    size_t x_from = x0 < 0 ? (size_t)-x0 : 0;
    size_t x_end = min_size(patch[2], (size_t)((ptrdiff_t)dims[2] - x0));
    bool flip_x = job->flips & VX_FLIP_X;
    size_t from_z = job->flips & VX_FLIP_Z ? patch[0] - 1 - task : task;
    for (size_t y = 0; y < patch[1]; y++) {
        ptrdiff_t to_y = y0 + (ptrdiff_t)y;
        if (to_y < 0 || (size_t)to_y >= dims[1]) continue;
        size_t from_y = job->flips & VX_FLIP_Y ? patch[1] - 1 - y : y;
        const float *from = job->logits + (from_z * patch[1] + from_y) * patch[2] * classes;
        float *to = vx_slab_row(slab, (size_t)z, (size_t)to_y);
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
    add_job job = {.slab = slab, .tile = tile, .logits = logits, .flips = flips, .scale = scale};
    vx_pool_run(pool, slab->tiles->patch[0], add_plane, &job);
}

/* ---- Finishing ---- */

static void divide_row(void *ctx, size_t task, unsigned worker) {
    (void)worker;
    rows_job *job = ctx;
    const vx_tiles *t = job->slab->tiles;
    size_t z, y, classes = job->slab->classes;
    row_of(job->rows, task, &z, &y);
    float *v = vx_slab_row(job->slab, z, y);
    bool bad = false;
    for (size_t x = 0; x < t->dims[2]; x++, v += classes) {
        float weight = t->total[0][z] * t->total[1][y] * t->total[2][x];
        for (size_t c = 0; c < classes; c++) {
            v[c] /= weight;
            bad |= !isfinite(v[c]);
        }
    }
    if (bad) atomic_store_explicit(&job->bad, true, memory_order_relaxed);
}

bool vx_slab_finish(vx_slab *slab, const vx_rows *rows, vx_pool *pool) {
    rows_job job = {.slab = slab, .rows = rows};
    atomic_init(&job.bad, false);
    vx_pool_run(pool, vx_rows_count(rows), divide_row, &job);
    return !atomic_load(&job.bad);
}
