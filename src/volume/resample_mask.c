#include <string.h>

#include "volume/resample.h"
#include "volume/resample_axis.h"

/* One output voxel's neighbours: distinct labels and the sums of their weights. */
typedef struct votes {
    unsigned label[8];
    double score[8];
    int count;
} votes;

static void vote(votes *v, unsigned label, double weight) {
    int i = 0;
    while (i < v->count && v->label[i] != label) i++;
    if (i == v->count) {
        v->label[i] = label;
        v->score[i] = 0;
        v->count++;
    }
    v->score[i] += weight;
}

/* The last label in ascending order that reaches one half; 0 when none does. */
static unsigned winner_half(const votes *v) {
    unsigned best = 0;
    for (int i = 0; i < v->count; i++)
        if (v->score[i] >= 0.5 && v->label[i] > best) best = v->label[i];
    return best;
}

/* The label with the largest score; the nearest voxel's among equals, else the lowest. */
static unsigned winner_argmax(const votes *v, unsigned nearest) {
    int best = 0;
    for (int i = 1; i < v->count; i++)
        if (v->score[i] > v->score[best] ||
            (v->score[i] == v->score[best] && v->label[i] < v->label[best]))
            best = i;
    for (int i = 0; i < v->count; i++)
        if (v->label[i] == nearest && v->score[i] == v->score[best]) return nearest;
    return v->label[best];
}

/* The up to four input rows around an output row. */
typedef struct rows {
    size_t first[4]; /* voxel index of the row's begin */
    double weight[4];
    int count;
} rows;

/* Weights are multiplied, and below summed, in scipy's order (z, y, x), because the comparison with
 * one half, and that of equal scores, hangs on the last bit. */
static rows rows_around(const vx_mask *in, const vx_axis_map maps[3], size_t y, size_t z) {
    rows r = {.count = 0};
    for (int k = 0; k <= maps[2].order; k++)
        for (int j = 0; j <= maps[1].order; j++, r.count++) {
            size_t row =
                vx_axis_index(&maps[2], z, k) * in->geo.dims[1] + vx_axis_index(&maps[1], y, j);
            double wz = maps[2].weights[z * (size_t)(maps[2].order + 1) + (size_t)k];
            double wy = maps[1].weights[y * (size_t)(maps[1].order + 1) + (size_t)j];
            r.first[r.count] = row * in->geo.dims[0];
            r.weight[r.count] = wz * wy;
        }
    return r;
}

/* A label's own channel is 1 on its voxels, so its score is the sum of their weights: no channel is
 * ever made. */
static void gather_votes(const vx_mask *in, const vx_axis_map *map, const rows *r, size_t x,
                         votes *v) {
    v->count = 0;
    size_t neighbours = (size_t)map->order + 1;
    for (int row = 0; row < r->count; row++)
        for (size_t i = 0; i < neighbours; i++)
            vote(v, vx_mask_get(in, r->first[row] + vx_axis_index(map, x, (int)i)),
                 r->weight[row] * map->weights[x * neighbours + i]);
}

static void resample_voxels(const vx_mask *in, const vx_axis_map maps[3],
                            const vx_axis_map nearest[3], vx_mask_rule rule, vx_mask *out) {
    size_t nx = in->geo.dims[0], ny = in->geo.dims[1], o = 0;
    for (size_t z = 0; z < out->geo.dims[2]; z++)
        for (size_t y = 0; y < out->geo.dims[1]; y++) {
            size_t row = (vx_axis_index(&nearest[2], z, 0) * ny + vx_axis_index(&nearest[1], y, 0));
            rows around = rows_around(in, maps, y, z);
            for (size_t x = 0; x < out->geo.dims[0]; x++, o++) {
                unsigned value = vx_mask_get(in, row * nx + vx_axis_index(&nearest[0], x, 0));
                votes v;
                gather_votes(in, &maps[0], &around, x, &v);
                if (v.count > 1)
                    value =
                        rule == VX_MASK_RULE_ARGMAX ? winner_argmax(&v, value) : winner_half(&v);
                vx_mask_set(out, o, value);
            }
        }
}

vx_status vx_resample_mask_by(const vx_mask *in, const size_t new_dims[3], int order,
                              int separate_axis, vx_mask_rule rule, vx_mask **out, vx_error *err) {
    *out = NULL;
    if ((order != 0 && order != 1) || separate_axis < -1 || separate_axis > 2)
        return vx_fail(err, VX_ERR_USAGE, "masks are resampled with order 0 or 1, axis -1 to 2");
    if (!new_dims[0] || !new_dims[1] || !new_dims[2])
        return vx_fail(err, VX_ERR_USAGE, "a mask cannot be resampled to no voxels");
    vx_geometry geo = vx_resampled_geometry(&in->geo, new_dims);
    vx_mask *mask = NULL;
    vx_axis_map maps[3] = {{0}}, nearest[3] = {{0}};
    vx_status s = vx_mask_create(&geo, in->bytes, &mask, err);
    for (int i = 0; i < 3 && s == VX_OK; i++) {
        s = vx_axis_map_create(in->geo.dims[i], new_dims[i], 0, &nearest[i], err);
        if (s == VX_OK)
            s = vx_axis_map_create(in->geo.dims[i], new_dims[i], i == separate_axis ? 0 : order,
                                   &maps[i], err);
    }
    if (s == VX_OK) {
        resample_voxels(in, maps, nearest, rule, mask);
        mask->source = vx_source_ref(in->source);
        *out = mask;
    } else {
        vx_mask_free(mask);
    }
    for (int i = 0; i < 3; i++) {
        vx_axis_map_free(&maps[i]);
        vx_axis_map_free(&nearest[i]);
    }
    return s;
}

vx_status vx_resample_mask(const vx_mask *in, const size_t new_dims[3], int order,
                           int separate_axis, vx_mask **out, vx_error *err) {
    return vx_resample_mask_by(in, new_dims, order, separate_axis, VX_MASK_RULE_HALF, out, err);
}
