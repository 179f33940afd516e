/* Tiles in the host's memory: the backend gets one tile at a time and gives back its logits. */
#include <stddef.h>

#include "base/clock.h"
#include "base/memory.h"
#include "base/size.h"
#include "infer/accumulator.h"
#include "infer/slab.h"

typedef struct host_accumulator {
    vx_accumulator base;
    vx_accumulator_setup setup;
    vx_slab slab;
    vx_arena arena;
    float *in, *out; /* one tile */
    float *own_out;  /* its memory, unless that is the arena's */
} host_accumulator;

static host_accumulator *self_of(vx_accumulator *a) { return (host_accumulator *)(void *)a; }

static vx_status host_start(vx_accumulator *a, const vx_rows *rows, vx_error *err) {
    host_accumulator *h = self_of(a);
    (void)err;
    vx_slab_start(&h->slab, rows, h->setup.pool);
    return VX_OK;
}

static vx_status host_tile(vx_accumulator *a, const size_t tile[3], unsigned flips, float scale,
                           vx_tile_times *times, vx_error *err) {
    host_accumulator *h = self_of(a);
    const vx_accumulator_setup *s = &h->setup;
    double start = vx_seconds();
    vx_tile_read(s->tiles, tile, s->image, s->channels, flips, h->in, s->pool);
    double ready = vx_seconds();
    vx_status status = s->backend->run(s->plan, h->arena.base, h->in, &h->out, err);
    if (status != VX_OK) return status;
    double done = vx_seconds();
    vx_slab_add(&h->slab, tile, h->out, flips, scale, s->pool);
    times->network += done - ready;
    times->accumulate += ready - start + vx_seconds() - done;
    return VX_OK;
}

static vx_status host_finish(vx_accumulator *a, const vx_rows *rows, bool *finite, vx_error *err) {
    host_accumulator *h = self_of(a);
    (void)err;
    *finite = vx_slab_finish(&h->slab, rows, h->setup.pool);
    return VX_OK;
}

static vx_status host_make(vx_accumulator *a, const vx_rows *rows,
                           const vx_probability_slice *probabilities, vx_error *err) {
    host_accumulator *h = self_of(a);
    (void)err;
    vx_finaliser_make(h->setup.finaliser, &h->slab, rows, probabilities, h->setup.pool);
    return VX_OK;
}

static void host_drop(vx_accumulator *a, const vx_rows *rows) {
    vx_slab_drop(&self_of(a)->slab, rows);
}

static void host_free(vx_accumulator *a) {
    host_accumulator *h = self_of(a);
    vx_free(h->in);
    vx_free(h->own_out);
    vx_arena_free(&h->arena);
    vx_slab_free(&h->slab);
    vx_free(h);
}

static const vx_accumulator_ops host_ops = {.start = host_start,
                                            .tile = host_tile,
                                            .finish = host_finish,
                                            .make = host_make,
                                            .drop = host_drop,
                                            .free = host_free};

bool vx_host_tile_bytes(const size_t patch[3], size_t channels, size_t classes,
                        const vx_plan_info *info, size_t *in, size_t *out) {
    size_t voxels;
    if (!vx_product(patch, 3, &voxels) || !vx_mul_size(voxels, sizeof(float), &voxels) ||
        !vx_mul_size(voxels, channels, in) || !vx_mul_size(voxels, classes, out))
        return false;
    if (info->output_in_arena) *out = 0;
    return true;
}

static vx_status allocate_network(host_accumulator *h, vx_error *err) {
    const vx_accumulator_setup *s = &h->setup;
    size_t in, out;
    vx_status status = vx_arena_create(s->info->arena_bytes, &h->arena, err);
    if (status != VX_OK) return status;
    bool fits =
        vx_host_tile_bytes(s->tiles->patch, s->channels, s->finaliser->classes, s->info, &in, &out);
    if (fits) h->in = vx_alloc(in);
    if (fits && !s->info->output_in_arena) h->own_out = vx_alloc(out);
    h->out = s->info->output_in_arena ? (float *)(void *)(h->arena.base + s->info->output_offset)
                                      : h->own_out;
    return h->in && h->out ? VX_OK : vx_fail(err, VX_ERR_RESOURCE, "out of memory for one tile");
}

vx_status vx_host_accumulator(const vx_accumulator_setup *setup, vx_accumulator **out,
                              vx_error *err) {
    *out = NULL;
    host_accumulator *h = vx_alloc_zero(1, sizeof *h);
    if (!h) return vx_fail(err, VX_ERR_RESOURCE, "out of memory");
    h->base.ops = &host_ops;
    h->setup = *setup;
    vx_status status =
        vx_slab_create(setup->tiles, setup->finaliser->classes, setup->rows, &h->slab, err);
    if (status == VX_OK) status = allocate_network(h, err);
    if (status == VX_OK)
        *out = &h->base;
    else
        host_free(&h->base);
    return status;
}
