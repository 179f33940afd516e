#include "infer/prepare.h"

#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "base/size.h"
#include "volume/resample.h"

static bool same_dims(const size_t a[3], const size_t b[3]) {
    return a[0] == b[0] && a[1] == b[1] && a[2] == b[2];
}

static vx_status find_turn(const vx_recipe *recipe, const vx_geometry *geo, vx_reorient *turn,
                           vx_error *err) {
    *turn = (vx_reorient){{0, 1, 2}, {false, false, false}};
    return recipe->orientation[0] ? vx_reorient_to(geo, recipe->orientation, turn, err) : VX_OK;
}

/* The geometry of the box along the tensor's axes. */
static vx_geometry turned_box(const vx_geometry *geo, vx_box box, vx_reorient turn) {
    vx_geometry cropped = vx_crop_geometry(geo, box);
    return vx_reorient_geometry(&cropped, turn);
}

vx_status vx_route_plan(const vx_recipe *recipe, const vx_geometry *geo, const vx_box *box,
                        vx_route *out, vx_error *err) {
    *out = (vx_route){.image_axis = -1};
    memcpy(out->box.size, geo->dims, sizeof geo->dims);
    if (box) out->box = *box;
    vx_status status = find_turn(recipe, geo, &out->turn, err);
    if (status != VX_OK) return status;

    vx_geometry turned = turned_box(geo, out->box, out->turn);
    double stored[3], wanted[3];
    size_t grid[3];
    vx_spacing(&turned, stored);
    for (int a = 0; a < 3; a++) {
        wanted[a] = recipe->spacing[2 - a];
        if (!((double)turned.dims[a] * stored[a] / wanted[a] < 1e6))
            return vx_fail(err, VX_ERR_INPUT,
                           "%zu voxels of %g mm are too many at the model's spacing of %g mm",
                           turned.dims[a], stored[a], wanted[a]);
    }
    vx_resampled_dims(turned.dims, stored, wanted, grid);
    int logits_axis = -1;
    if (recipe->separate_axis_auto) {
        out->image_axis = vx_separate_axis(stored, wanted);
        logits_axis = vx_separate_axis(wanted, stored);
    }
    for (int a = 0; a < 3; a++) {
        int zyx = 2 - a, apart = recipe->separate_axis_order;
        out->crop_zyx[zyx] = turned.dims[a];
        out->grid_zyx[zyx] = grid[a];
        /* Logits are never resampled with splines: those would need the whole volume. */
        out->logits_order[zyx] = a == logits_axis ? (apart > 1 ? 1 : apart) : recipe->logits_order;
    }
    return VX_OK;
}

vx_label_target vx_route_target(const vx_route *route, vx_mask *mask) {
    const size_t *dims = mask->geo.dims;
    const ptrdiff_t stored[3] = {1, (ptrdiff_t)dims[0], (ptrdiff_t)(dims[0] * dims[1])};
    vx_label_target target = {.mask = mask};
    for (int a = 0; a < 3; a++) {
        int axis = route->turn.axis[a];
        size_t first = route->box.from[axis];
        if (route->turn.flip[a]) first += route->box.size[axis] - 1;
        target.origin += (ptrdiff_t)first * stored[axis];
        target.stride[2 - a] = route->turn.flip[a] ? -stored[axis] : stored[axis];
    }
    return target;
}

vx_status vx_check_field_of_view(const vx_recipe *recipe, const vx_geometry *geo, bool force,
                                 const vx_log *log, vx_error *err) {
    if (!recipe->has_field_of_view) return VX_OK;
    vx_reorient turn;
    vx_status status = find_turn(recipe, geo, &turn, err);
    if (status != VX_OK) return status;
    vx_geometry turned = vx_reorient_geometry(geo, turn);
    double spacing[3], mm[3];
    bool outside = false, plainly = false;
    vx_spacing(&turned, spacing);
    for (int a = 0; a < 3; a++) {
        int zyx = 2 - a;
        mm[zyx] = (double)turned.dims[a] * spacing[a];
        double low = recipe->fov_min[zyx], high = recipe->fov_max[zyx];
        outside |= mm[zyx] < low || mm[zyx] > high;
        plainly |= mm[zyx] * 1.25 < low || mm[zyx] > high * 1.25;
    }
    if (!outside) return VX_OK;
    const double *low = recipe->fov_min, *high = recipe->fov_max;
    char text[300];
    snprintf(text, sizeof text,
             "the volume is %.0f x %.0f x %.0f mm (z, y, x), the model '%s' is for %.0f..%.0f x "
             "%.0f..%.0f x %.0f..%.0f mm",
             mm[0], mm[1], mm[2], recipe->name, low[0], high[0], low[1], high[1], low[2], high[2]);
    if (plainly && !force)
        return vx_fail(err, VX_ERR_MODEL, "%s (crop it, take another model, or use --force)", text);
    vx_log_message(log, VX_LOG_WARNING, "%s", text);
    return VX_OK;
}

static void replace(vx_volume **volume, vx_volume *next) {
    vx_volume_free(*volume);
    *volume = next;
}

static vx_status to_model_spacing(const vx_recipe *recipe, const vx_route *route, vx_pool *pool,
                                  vx_volume **volume, vx_error *err) {
    const size_t dims[3] = {route->grid_zyx[2], route->grid_zyx[1], route->grid_zyx[0]};
    if (same_dims(dims, (*volume)->geo.dims)) return VX_OK;
    vx_volume *next = NULL;
    vx_status status = vx_resample_volume(*volume, dims, recipe->image_order, route->image_axis,
                                          recipe->separate_axis_order, pool, &next, err);
    if (status == VX_OK) replace(volume, next);
    return status;
}

/* Moves the box's voxels to the front of the volume's block, which the new volume takes over. */
static vx_status crop_in_place(vx_volume *volume, vx_box box, vx_volume **out, vx_error *err) {
    const size_t *n = volume->geo.dims;
    vx_volume *image = vx_alloc_zero(1, sizeof *image);
    *out = image;
    if (!image) return vx_fail(err, VX_ERR_RESOURCE, "out of memory");
    *image = (vx_volume){.geo = vx_crop_geometry(&volume->geo, box),
                         .channels = volume->channels,
                         .data = volume->data,
                         .source = vx_source_ref(volume->source)};
    volume->data = NULL;
    float *to = image->data;
    for (size_t c = 0; c < image->channels; c++)
        for (size_t z = 0; z < box.size[2]; z++)
            for (size_t y = 0; y < box.size[1]; y++, to += box.size[0])
                memmove(to,
                        image->data +
                            ((c * n[2] + box.from[2] + z) * n[1] + box.from[1] + y) * n[0] +
                            box.from[0],
                        box.size[0] * sizeof *to);
    return VX_OK;
}

static void drop_voxels(vx_volume *volume) {
    vx_free(volume->data);
    volume->data = NULL;
}

vx_status vx_prepare(const vx_recipe *recipe, vx_volume *volume, bool consume, vx_pool *pool,
                     vx_route *route, vx_volume **out, vx_error *err) {
    *out = NULL;
    vx_box box = {.size = {volume->geo.dims[0], volume->geo.dims[1], volume->geo.dims[2]}};
    vx_status status = recipe->crop_nonzero ? vx_nonzero_box(volume, pool, &box, err) : VX_OK;
    if (status == VX_OK) status = vx_route_plan(recipe, &volume->geo, &box, route, err);

    vx_volume *image = NULL; /* the one that may be changed */
    if (status == VX_OK)
        status = consume ? crop_in_place(volume, box, &image, err)
                         : vx_crop_volume(volume, box, pool, &image, err);
    if (consume && status != VX_OK) drop_voxels(volume);
    if (status != VX_OK) return status;
    if (!vx_reorient_is_identity(route->turn)) {
        vx_volume *turned = NULL;
        status = vx_reorient_volume(image, route->turn, pool, &turned, err);
        if (status == VX_OK) replace(&image, turned);
    }
    if (status == VX_OK) {
        size_t n = recipe->channel_count;
        vx_normalisation norms[VX_MAX_CHANNELS];
        for (size_t c = 0; c < n; c++) norms[c] = recipe->channels[c].normalisation;
        status = vx_normalise(image, norms, pool, err);
    }
    if (status == VX_OK) status = to_model_spacing(recipe, route, pool, &image, err);
    if (status != VX_OK) {
        vx_volume_free(image);
        return status;
    }
    *out = image;
    return VX_OK;
}

/* vx_resample_volume works on one channel after the other, in two steps with a buffer between where
 * the sizes along one axis (the separate one, else z) and across it change: the smaller of the two
 * possible buffers, unless the separate axis prescribes the order. 0 without such a buffer. */
static bool resampler_bytes(const vx_recipe *recipe, const vx_route *route, size_t *bytes) {
    const size_t *from = route->crop_zyx, *to = route->grid_zyx;
    bool separate = route->image_axis >= 0;
    int axis = separate ? 2 - route->image_axis : 0;
    size_t along[3], across[3], a, b;
    bool along_changes = from[axis] != to[axis], across_changes = false;
    for (int i = 0; i < 3; i++) {
        along[i] = i == axis ? to[i] : from[i];
        across[i] = i == axis ? from[i] : to[i];
        across_changes |= i != axis && from[i] != to[i];
    }
    *bytes = 0;
    if (!along_changes || !across_changes || (separate && recipe->separate_axis_order == 0))
        return true;
    if (!vx_product(along, 3, &a) || !vx_product(across, 3, &b)) return false;
    return vx_mul_size(separate || b < a ? b : a, sizeof(float), bytes);
}

static bool masks_foreground(const vx_recipe *recipe) {
    for (size_t c = 0; c < recipe->channel_count; c++)
        if (recipe->channels[c].normalisation.kind == VX_NORM_ZSCORE_NONZERO) return true;
    return false;
}

bool vx_prepare_bytes(const vx_recipe *recipe, const vx_route *route, bool consume, size_t *peak,
                      size_t *held) {
    size_t voxels, crop, grid, pixel, between;
    if (!vx_mul_size(recipe->channel_count, sizeof(float), &pixel) ||
        !vx_product(route->crop_zyx, 3, &voxels) || !vx_mul_size(voxels, pixel, &crop) ||
        !vx_product(route->grid_zyx, 3, &grid) || !vx_mul_size(grid, pixel, &grid) ||
        !resampler_bytes(recipe, route, &between))
        return false;
    /* Beside the image that is worked on, one after the other. */
    size_t turning = vx_reorient_is_identity(route->turn) ? 0 : crop;
    size_t normalising = masks_foreground(recipe) ? voxels : 0, resampling = 0;
    *held = crop;
    if (!same_dims(route->crop_zyx, route->grid_zyx)) {
        if (!vx_add_size(grid, between, &resampling)) return false;
        *held = grid;
    }
    size_t most = turning > normalising ? turning : normalising;
    if (resampling > most) most = resampling;
    size_t original = consume ? 0 : crop;
    return vx_add_size(crop, most, peak) && vx_add_size(*peak, original, peak) &&
           vx_add_size(*held, original, held);
}
