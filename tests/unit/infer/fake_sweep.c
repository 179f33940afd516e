/* A sweep in plain memory, as backend/sweep.h describes it: sums in double, one voxel at a time. */
#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "fake_model.h"
#include "fake_plan.h"

size_t fake_device_free = 1 << 30;
atomic_size_t fake_sweep_order;
vx_status (*fake_sweep_network)(vx_plan *plan, void *arena, const float *in, float *const *out,
                                vx_error *err) = fake_run;

struct vx_sweep {
    vx_plan *plan;
    vx_sweep_shape shape; /* with borrowed lists: the fake's caller keeps them */
    float *image, *in, *out;
    float *places; /* [place][voxel][class] */
    double *sums;
    uint32_t *slot;
};

static vx_status free_bytes(vx_device *device, size_t *bytes, vx_error *err) {
    (void)device;
    (void)err;
    *bytes = fake_device_free;
    return VX_OK;
}

static size_t product(const size_t n[3]) { return n[0] * n[1] * n[2]; }

static bool sweep_bytes(const vx_device *device, const vx_sweep_size *size, size_t *bytes) {
    (void)device;
    *bytes = product(size->dims) * size->channels * sizeof(float) +
             (size->rows * size->dims[2] + size->places * product(size->patch)) * size->classes *
                 sizeof(float);
    return true;
}

static void sweep_free(vx_sweep *s) {
    if (!s) return;
    vx_free(s->image);
    vx_free(s->in);
    vx_free(s->out);
    vx_free(s->places);
    vx_free(s->sums);
    vx_free(s->slot);
    vx_free(s);
}

static vx_status sweep_create(vx_plan *plan, const vx_sweep_shape *shape, const float *image,
                              vx_sweep **out, vx_error *err) {
    const vx_sweep_size *size = &shape->size;
    size_t bytes, voxels = product(size->dims), patch = product(size->patch);
    *out = NULL;
    sweep_bytes(NULL, size, &bytes);
    if (bytes > fake_device_free)
        return vx_fail(err, VX_ERR_RESOURCE, "%zu bytes are needed, %zu are free", bytes,
                       fake_device_free);
    vx_sweep *s = vx_alloc_zero(1, sizeof *s);
    *s = (vx_sweep){.plan = plan,
                    .shape = *shape,
                    .image = vx_alloc_zero(size->channels * voxels, sizeof(float)),
                    .in = vx_alloc_zero(size->channels * patch, sizeof(float)),
                    .out = vx_alloc_zero(size->classes * patch, sizeof(float)),
                    .places = vx_alloc_zero(size->places * patch * size->classes, sizeof(float)),
                    .sums =
                        vx_alloc_zero(size->rows * size->dims[2] * size->classes, sizeof(double)),
                    .slot = vx_alloc_zero(size->dims[0] * size->dims[1], sizeof(uint32_t))};
    memcpy(s->image, image, size->channels * voxels * sizeof(float));
    *out = s;
    return VX_OK;
}

static double *row_of(const vx_sweep *s, size_t z, size_t y) {
    const vx_sweep_size *size = &s->shape.size;
    return s->sums + s->slot[z * size->dims[1] + y] * size->dims[2] * size->classes;
}

static vx_status sweep_start(vx_sweep *s, const uint32_t *slot, const vx_rows *rows,
                             vx_error *err) {
    const vx_sweep_size *size = &s->shape.size;
    (void)err;
    memcpy(s->slot, slot, size->dims[0] * size->dims[1] * sizeof *slot);
    for (size_t z = rows->from[0]; z < rows->end[0]; z++)
        for (size_t y = rows->from[1]; y < rows->end[1]; y++)
            memset(row_of(s, z, y), 0, size->dims[2] * size->classes * sizeof(double));
    return VX_OK;
}

/* Position i of a tile as the network sees it, to a voxel of the volume; -1 outside. */
static ptrdiff_t voxel_of(const vx_sweep *s, const ptrdiff_t at[3], unsigned flips, int axis,
                          size_t i) {
    const vx_sweep_size *size = &s->shape.size;
    if (flips >> axis & 1) i = size->patch[axis] - 1 - i;
    const ptrdiff_t v = at[axis] + (ptrdiff_t)i;
    return v >= 0 && v < (ptrdiff_t)size->dims[axis] ? v : -1;
}

static void split(const size_t patch[3], size_t i, size_t p[3]) {
    p[2] = i % patch[2];
    p[1] = i / patch[2] % patch[1];
    p[0] = i / (patch[1] * patch[2]);
}

static vx_status sweep_cut(vx_sweep *s, const ptrdiff_t at[3], unsigned flips, vx_error *err) {
    const vx_sweep_size *size = &s->shape.size;
    (void)err;
    for (size_t i = 0; i < product(size->patch); i++) {
        size_t p[3];
        ptrdiff_t v[3];
        split(size->patch, i, p);
        for (int a = 0; a < 3; a++) v[a] = voxel_of(s, at, flips, a, p[a]);
        const bool inside = v[0] >= 0 && v[1] >= 0 && v[2] >= 0;
        const size_t from =
            inside ? ((size_t)v[0] * size->dims[1] + (size_t)v[1]) * size->dims[2] + (size_t)v[2]
                   : 0;
        for (size_t c = 0; c < size->channels; c++)
            s->in[i * size->channels + c] = inside ? s->image[c * product(size->dims) + from] : 0;
    }
    return VX_OK;
}

static vx_status sweep_run(vx_sweep *s, vx_error *err) {
    return fake_sweep_network(s->plan, NULL, s->in, &s->out, err);
}

static float *place_of(const vx_sweep *s, size_t place) {
    return s->places + place * product(s->shape.size.patch) * s->shape.size.classes;
}

static vx_status sweep_take(vx_sweep *s, size_t place, vx_sweep *from, vx_error *err) {
    const vx_sweep_size *size = &s->shape.size;
    if (place >= size->places) return vx_fail(err, VX_ERR_RESOURCE, "no such place");
    memcpy(place_of(s, place), from->out, product(size->patch) * size->classes * sizeof(float));
    return VX_OK;
}

static vx_status sweep_add(vx_sweep *s, size_t place, const ptrdiff_t at[3], unsigned flips,
                           float scale, vx_error *err) {
    const vx_sweep_size *size = &s->shape.size;
    const float *logits = place == VX_SWEEP_OWN ? s->out : place_of(s, place);
    (void)err;
    size_t order = atomic_load(&fake_sweep_order) * 1009 + flips;
    for (int a = 0; a < 3; a++) order = order * 1009 + (size_t)(at[a] + 99);
    atomic_store(&fake_sweep_order, order);
    for (size_t i = 0; i < product(size->patch); i++) {
        size_t p[3];
        ptrdiff_t v[3];
        double weight = scale;
        split(size->patch, i, p);
        for (int a = 0; a < 3; a++) {
            v[a] = voxel_of(s, at, flips, a, p[a]);
            if (flips >> a & 1) p[a] = size->patch[a] - 1 - p[a];
            weight *= s->shape.profile[a][p[a]];
        }
        if (v[0] < 0 || v[1] < 0 || v[2] < 0) continue;
        double *sum = row_of(s, (size_t)v[0], (size_t)v[1]) + (size_t)v[2] * size->classes;
        for (size_t c = 0; c < size->classes; c++)
            sum[c] += weight * (double)logits[i * size->classes + c];
    }
    return VX_OK;
}

static vx_status sweep_finish(vx_sweep *s, const vx_rows *rows, bool *finite, vx_error *err) {
    const vx_sweep_size *size = &s->shape.size;
    (void)err;
    *finite = true;
    for (size_t z = rows->from[0]; z < rows->end[0]; z++)
        for (size_t y = rows->from[1]; y < rows->end[1]; y++)
            for (size_t i = 0; i < size->dims[2] * size->classes; i++) {
                double *sum = row_of(s, z, y) + i;
                *sum /= (double)s->shape.total[0][z] * (double)s->shape.total[1][y] *
                        (double)s->shape.total[2][i / size->classes];
                *finite &= isfinite(*sum) != 0;
            }
    return VX_OK;
}

/* The logit of class c at voxel (z, y, x) of the labels' grid. */
static double logit_of(const vx_sweep *s, const size_t at[3], size_t c) {
    const vx_sweep_shape *h = &s->shape;
    double sum = 0;
    for (unsigned corner = 0; corner < 8; corner++) {
        size_t v[3];
        double weight = 1;
        for (int a = 0; a < 3; a++) {
            const float w = h->weight[a][at[a]];
            const bool high = corner >> a & 1;
            weight *= high ? (double)w : 1 - (double)w;
            v[a] = h->low[a][at[a]] + (high && w > 0);
        }
        if (weight > 0) sum += weight * row_of(s, v[0], v[1])[v[2] * h->size.classes + c];
    }
    return sum;
}

static unsigned label_of(const vx_sweep *s, const size_t at[3]) {
    unsigned label = s->shape.regions ? 0 : s->shape.values[0];
    double largest = s->shape.regions ? 0 : logit_of(s, at, 0);
    for (size_t c = s->shape.regions ? 0 : 1; c < s->shape.size.classes; c++) {
        const double logit = logit_of(s, at, c);
        if (!(logit > largest)) continue;
        label = s->shape.values[c];
        if (!s->shape.regions) largest = logit;
    }
    return label;
}

static vx_status sweep_make(vx_sweep *s, const vx_rows *rows, void *labels, vx_error *err) {
    const vx_sweep_size *size = &s->shape.size;
    size_t i = 0;
    if (vx_rows_count(rows) > size->made_rows)
        return vx_fail(err, VX_ERR_RESOURCE, "more rows than were planned");
    for (size_t z = rows->from[0]; z < rows->end[0]; z++)
        for (size_t y = rows->from[1]; y < rows->end[1]; y++)
            for (size_t x = 0; x < size->out[2]; x++, i++) {
                const unsigned label = label_of(s, (size_t[3]){z, y, x});
                if (size->label_bytes == 1)
                    ((uint8_t *)labels)[i] = (uint8_t)label;
                else
                    ((uint16_t *)labels)[i] = (uint16_t)label;
            }
    return VX_OK;
}

const vx_sweep_ops fake_sweep = {.free_bytes = free_bytes,
                                 .bytes = sweep_bytes,
                                 .create = sweep_create,
                                 .free = sweep_free,
                                 .start = sweep_start,
                                 .cut = sweep_cut,
                                 .run = sweep_run,
                                 .take = sweep_take,
                                 .add = sweep_add,
                                 .finish = sweep_finish,
                                 .make = sweep_make};
