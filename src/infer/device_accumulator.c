/* Tiles in the device's memory (backend/sweep.h): the host says which rows are alive, and puts the
 * labels that come back where they belong. */
#include <string.h>

#include "base/clock.h"
#include "base/memory.h"
#include "base/size.h"
#include "infer/accumulator.h"
#include "infer/slots.h"
#include "infer/team.h"

typedef struct device_accumulator {
    vx_accumulator base;
    vx_accumulator_setup setup;
    const vx_sweep_ops *ops;
    vx_slots slots;
    vx_sweep *sweep;
    vx_team *team;         /* of several devices, or NULL */
    unsigned char *labels; /* of the rows that were made last: [z][y][x] */
} device_accumulator;

static device_accumulator *self_of(vx_accumulator *a) { return (device_accumulator *)(void *)a; }

static vx_status device_start(vx_accumulator *a, const vx_rows *rows, vx_error *err) {
    device_accumulator *d = self_of(a);
    vx_slots_take(&d->slots, rows);
    return d->ops->start(d->sweep, d->slots.slot, rows, err);
}

/* Logits that the team has made. */
static vx_status add_from_team(device_accumulator *d, const ptrdiff_t at[3], unsigned flips,
                               float scale, vx_tile_times *times, vx_error *err) {
    size_t place;
    double start = vx_seconds();
    vx_status status = vx_team_next(d->team, &place, err);
    double done = vx_seconds();
    times->network += done - start;
    if (status != VX_OK) return status;
    status = d->ops->add(d->sweep, place, at, flips, scale, err);
    vx_team_added(d->team, place);
    times->accumulate += vx_seconds() - done;
    return status;
}

static vx_status device_tile(vx_accumulator *a, const size_t tile[3], unsigned flips, float scale,
                             vx_tile_times *times, vx_error *err) {
    device_accumulator *d = self_of(a);
    const vx_tiles *t = d->setup.tiles;
    ptrdiff_t at[3];
    for (int i = 0; i < 3; i++) at[i] = vx_tile_start(t, i, tile[i]);
    if (d->team) return add_from_team(d, at, flips, scale, times, err);
    double start = vx_seconds();
    vx_status status = d->ops->cut(d->sweep, at, flips, err);
    double ready = vx_seconds();
    if (status == VX_OK) status = d->ops->run(d->sweep, err);
    double done = vx_seconds();
    if (status == VX_OK) status = d->ops->add(d->sweep, VX_SWEEP_OWN, at, flips, scale, err);
    times->network += done - ready;
    times->accumulate += ready - start + vx_seconds() - done;
    return status;
}

static vx_status device_finish(vx_accumulator *a, const vx_rows *rows, bool *finite,
                               vx_error *err) {
    device_accumulator *d = self_of(a);
    return d->ops->finish(d->sweep, rows, finite, err);
}

typedef struct place_job {
    const device_accumulator *accumulator;
    const vx_rows *rows;
} place_job;

/* One row of labels into the mask. */
static void place_row(void *ctx, size_t task, unsigned worker) {
    (void)worker;
    const place_job *job = ctx;
    const vx_finaliser *f = job->accumulator->setup.finaliser;
    const vx_label_target *target = &f->target;
    const size_t nx = f->axis[2].out, bytes = target->mask->bytes;
    const size_t ny = job->rows->end[1] - job->rows->from[1];
    const size_t z = job->rows->from[0] + task / ny, y = job->rows->from[1] + task % ny;
    const unsigned char *from = job->accumulator->labels + task * nx * bytes;
    ptrdiff_t at =
        target->origin + (ptrdiff_t)z * target->stride[0] + (ptrdiff_t)y * target->stride[1];
    unsigned char *to = (unsigned char *)target->mask->data + (size_t)at * bytes;
    const ptrdiff_t step = target->stride[2] * (ptrdiff_t)bytes;
    if (target->stride[2] == 1) {
        memcpy(to, from, nx * bytes);
        return;
    }
    for (size_t x = 0; x < nx; x++, from += bytes, to += step) memcpy(to, from, bytes);
}

static vx_status device_make(vx_accumulator *a, const vx_rows *rows,
                             const vx_probability_slice *probabilities, vx_error *err) {
    device_accumulator *d = self_of(a);
    if (probabilities) return vx_fail(err, VX_ERR_USAGE, "probabilities are made by the host");
    if (!vx_rows_count(rows)) return VX_OK;
    vx_status status = d->ops->make(d->sweep, rows, d->labels, err);
    place_job job = {.accumulator = d, .rows = rows};
    if (status == VX_OK) vx_pool_run(d->setup.pool, vx_rows_count(rows), place_row, &job);
    return status;
}

static void device_drop(vx_accumulator *a, const vx_rows *rows) {
    vx_slots_give(&self_of(a)->slots, rows);
}

static void device_free(vx_accumulator *a) {
    device_accumulator *d = self_of(a);
    vx_team_free(d->team);
    d->ops->free(d->sweep);
    vx_slots_free(&d->slots);
    vx_free(d->labels);
    vx_free(d);
}

static const vx_accumulator_ops device_ops = {.start = device_start,
                                              .tile = device_tile,
                                              .finish = device_finish,
                                              .make = device_make,
                                              .drop = device_drop,
                                              .free = device_free};

static bool label_bytes(const vx_sweep_size *size, size_t *bytes) {
    return vx_mul_size(size->made_rows, size->out[2], bytes) &&
           vx_mul_size(*bytes, size->label_bytes, bytes);
}

bool vx_device_accumulator_bytes(const vx_tiles *tiles, const vx_sweep_size *size, size_t *host) {
    size_t slots;
    return vx_slots_bytes(tiles, size->rows, &slots) && label_bytes(size, host) &&
           vx_add_size(*host, slots, host);
}

static vx_sweep_shape shape_of(const vx_accumulator_setup *s) {
    const vx_finaliser *f = s->finaliser;
    const size_t devices = vx_team_count(s->tiles, s->pass_count, s->other_count);
    vx_sweep_shape shape = {.size = {.channels = s->channels,
                                     .classes = f->classes,
                                     .rows = s->rows,
                                     .places = devices > 1 ? devices : 0,
                                     .made_rows = s->made_rows,
                                     .label_bytes = f->target.mask->bytes},
                            .regions = f->regions,
                            .values = f->values};
    for (int a = 0; a < 3; a++) {
        shape.size.dims[a] = s->tiles->dims[a];
        shape.size.patch[a] = s->tiles->patch[a];
        shape.size.out[a] = f->axis[a].out;
        shape.profile[a] = s->tiles->profile[a];
        shape.total[a] = s->tiles->total[a];
        shape.low[a] = f->axis[a].low;
        shape.weight[a] = f->axis[a].weight;
    }
    return shape;
}

vx_status vx_device_accumulator(const vx_accumulator_setup *setup, vx_accumulator **out,
                                vx_error *err) {
    *out = NULL;
    device_accumulator *d = vx_alloc_zero(1, sizeof *d);
    if (!d) return vx_fail(err, VX_ERR_RESOURCE, "out of memory");
    d->base.ops = &device_ops;
    d->setup = *setup;
    d->ops = setup->backend->sweep;
    const vx_sweep_shape shape = shape_of(setup);
    size_t bytes;
    vx_status status = vx_slots_create(setup->tiles, setup->rows, &d->slots, err);
    if (status == VX_OK && label_bytes(&shape.size, &bytes))
        d->labels = vx_alloc(bytes ? bytes : 1);
    if (status == VX_OK && !d->labels)
        status = vx_fail(err, VX_ERR_RESOURCE, "out of memory for the labels");
    if (status == VX_OK) status = d->ops->create(setup->plan, &shape, setup->image, &d->sweep, err);
    if (status == VX_OK && shape.size.places)
        status = vx_team_create(&d->setup, &shape, d->sweep, &d->team, err);
    if (status == VX_OK) (void)d->ops->bytes(setup->device, &shape.size, &d->base.device_bytes);
    if (status == VX_OK)
        *out = &d->base;
    else
        device_free(&d->base);
    return status;
}
