#include "volume/intensity.h"

#include <math.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/memory.h"
#include "volume/foreground.h"

/* Voxels of one partial sum: the blocks, and with them the bits of the result, depend on the shape
 * only. */
#define BLOCK       ((size_t)65536)
#define SMALLEST_SD 1e-8

/* A pass over n voxels in blocks; what each block gives comes together in the blocks' order. */
typedef struct pass {
    float *v;
    const unsigned char *mask; /* NULL: all voxels */
    size_t n;
    double shift, scale; /* of what the pass writes, or about what it sums squares */
    double low, high;    /* clip */
    struct part *parts;  /* one a block; NULL where the pass only writes */
} pass;

typedef struct part {
    double sum;
    float min, max;
    size_t count, bad, first_bad;
} part;

static size_t block_count(size_t n) { return n / BLOCK + (n % BLOCK != 0); }

static size_t block_end(const pass *p, size_t block) {
    return p->n - block * BLOCK < BLOCK ? p->n : (block + 1) * BLOCK;
}

static void run(vx_pool *pool, pass *p, vx_task_fn fn) {
    vx_pool_run(pool, block_count(p->n), fn, p);
}

/* ---- Range ---- */

static void range_block(void *ctx, size_t block, unsigned worker) {
    (void)worker;
    const pass *p = ctx;
    size_t from = block * BLOCK, to = block_end(p, block);
    float low = p->v[from], high = low;
    for (size_t i = from + 1; i < to; i++) {
        if (p->v[i] < low) low = p->v[i];
        if (p->v[i] > high) high = p->v[i];
    }
    p->parts[block].min = low;
    p->parts[block].max = high;
}

vx_status vx_value_range(const float *v, size_t n, vx_pool *pool, float *low, float *high,
                         vx_error *err) {
    /* The pass only reads. */
    pass p = {.v = (float *)(uintptr_t)v, .n = n};
    p.parts = vx_alloc_zero(block_count(n), sizeof *p.parts);
    if (!p.parts) return vx_fail(err, VX_ERR_RESOURCE, "out of memory");
    run(pool, &p, range_block);
    *low = p.parts[0].min;
    *high = p.parts[0].max;
    for (size_t k = 1; k < block_count(n); k++) {
        if (p.parts[k].min < *low) *low = p.parts[k].min;
        if (p.parts[k].max > *high) *high = p.parts[k].max;
    }
    vx_free(p.parts);
    return VX_OK;
}

/* ---- Statistics ---- */

/* Of the voxels where mask is not 0. */
typedef struct stats {
    double mean, sd;
    float min, max;
    size_t count;
} stats;

static void sum_block(void *ctx, size_t block, unsigned worker) {
    (void)worker;
    const pass *p = ctx;
    part s = {.min = INFINITY, .max = -INFINITY};
    for (size_t i = block * BLOCK, to = block_end(p, block); i < to; i++) {
        if (p->mask && !p->mask[i]) continue;
        s.sum += p->v[i];
        if (p->v[i] < s.min) s.min = p->v[i];
        if (p->v[i] > s.max) s.max = p->v[i];
        s.count++;
    }
    p->parts[block] = s;
}

static void square_block(void *ctx, size_t block, unsigned worker) {
    (void)worker;
    const pass *p = ctx;
    double sum = 0;
    for (size_t i = block * BLOCK, to = block_end(p, block); i < to; i++)
        if (!p->mask || p->mask[i]) sum += (p->v[i] - p->shift) * (p->v[i] - p->shift);
    p->parts[block].sum = sum;
}

static stats measure(pass *p, vx_pool *pool) {
    stats s = {0, 0, INFINITY, -INFINITY, 0};
    double sum = 0;
    run(pool, p, sum_block);
    for (size_t k = 0; k < block_count(p->n); k++) {
        const part *b = &p->parts[k];
        sum += b->sum;
        if (b->min < s.min) s.min = b->min;
        if (b->max > s.max) s.max = b->max;
        s.count += b->count;
    }
    if (s.count == 0) return s;
    s.mean = sum / (double)s.count;
    p->shift = s.mean;
    run(pool, p, square_block);
    sum = 0;
    for (size_t k = 0; k < block_count(p->n); k++) sum += p->parts[k].sum;
    s.sd = sqrt(sum / (double)s.count);
    return s;
}

/* ---- Checking and changing ---- */

static void finite_block(void *ctx, size_t block, unsigned worker) {
    (void)worker;
    const pass *p = ctx;
    part s = {0};
    for (size_t from = block * BLOCK, i = block_end(p, block); i-- > from;)
        if (!isfinite(p->v[i])) {
            s.bad++;
            s.first_bad = i;
        }
    p->parts[block] = s;
}

static vx_status check_finite(pass *p, const size_t dims[3], size_t channel, vx_pool *pool,
                              vx_error *err) {
    size_t bad = 0, first = 0;
    run(pool, p, finite_block);
    for (size_t k = block_count(p->n); k-- > 0;)
        if (p->parts[k].bad) {
            bad += p->parts[k].bad;
            first = p->parts[k].first_bad;
        }
    if (!bad) return VX_OK;
    return vx_fail(err, VX_ERR_INPUT,
                   "%zu voxels of channel %zu are NaN or infinite, the first at (%zu, %zu, %zu)",
                   bad, channel, first % dims[0], first / dims[0] % dims[1],
                   first / dims[0] / dims[1]);
}

/* (v - shift) / scale where mask is not 0, else 0. */
static void shift_block(void *ctx, size_t block, unsigned worker) {
    (void)worker;
    const pass *p = ctx;
    for (size_t i = block * BLOCK, to = block_end(p, block); i < to; i++)
        p->v[i] = p->mask && !p->mask[i] ? 0 : (float)((p->v[i] - p->shift) / p->scale);
}

static void clip_block(void *ctx, size_t block, unsigned worker) {
    (void)worker;
    const pass *p = ctx;
    for (size_t i = block * BLOCK, to = block_end(p, block); i < to; i++)
        p->v[i] = (float)fmin(fmax(p->v[i], p->low), p->high);
}

static void shift_scale(pass *p, double shift, double scale, vx_pool *pool) {
    p->shift = shift;
    p->scale = scale;
    run(pool, p, shift_block);
}

static void zscore(pass *p, vx_pool *pool) {
    stats s = measure(p, pool);
    /* One value only: its mean, rounded, may differ from it by more than 1e-8. */
    double mean = s.min < s.max ? s.mean : (double)s.min;
    if (s.count == 0) mean = 0;
    shift_scale(p, mean, fmax(s.sd, SMALLEST_SD), pool);
}

static void normalise_channel(pass *p, const vx_normalisation *norm, vx_pool *pool) {
    switch (norm->kind) {
    case VX_NORM_NONE:
        break;
    case VX_NORM_ZSCORE:
    case VX_NORM_ZSCORE_NONZERO:
        zscore(p, pool);
        break;
    case VX_NORM_CT:
        p->low = norm->low;
        p->high = norm->high;
        run(pool, p, clip_block);
        shift_scale(p, norm->mean, fmax(norm->sd, SMALLEST_SD), pool);
        break;
    case VX_NORM_RESCALE01: {
        stats s = measure(p, pool);
        shift_scale(p, s.min, fmax((double)s.max - s.min, SMALLEST_SD), pool);
        break;
    }
    }
}

static vx_status normalise(vx_volume *volume, const vx_normalisation *norms, part *parts,
                           vx_pool *pool, vx_error *err) {
    size_t n = vx_voxels(&volume->geo);
    unsigned char *mask = NULL;
    for (size_t c = 0; c < volume->channels; c++) {
        pass p = {.v = volume->data + c * n, .n = n, .parts = parts};
        vx_status s = check_finite(&p, volume->geo.dims, c, pool, err);
        if (s != VX_OK) return s;
    }
    /* The mask is that of the image as read, so it is taken before any channel changes. */
    for (size_t c = 0; c < volume->channels && !mask; c++)
        if (norms[c].kind == VX_NORM_ZSCORE_NONZERO) {
            vx_status s = vx_filled_foreground(volume, &mask, err);
            if (s != VX_OK) return s;
        }
    for (size_t c = 0; c < volume->channels; c++) {
        const bool masked = norms[c].kind == VX_NORM_ZSCORE_NONZERO;
        pass p = {.v = volume->data + c * n, .mask = masked ? mask : NULL, .n = n, .parts = parts};
        normalise_channel(&p, &norms[c], pool);
    }
    vx_free(mask);
    return VX_OK;
}

vx_status vx_normalise(vx_volume *volume, const vx_normalisation *norms, vx_pool *pool,
                       vx_error *err) {
    part *parts = vx_alloc_zero(block_count(vx_voxels(&volume->geo)), sizeof *parts);
    if (!parts) return vx_fail(err, VX_ERR_RESOURCE, "out of memory");
    vx_status s = normalise(volume, norms, parts, pool, err);
    vx_free(parts);
    return s;
}
