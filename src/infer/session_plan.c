/* What segmenting a volume will take, before anything is allocated. */
#include <string.h>

#include "base/size.h"
#include "infer/accumulator.h"
#include "infer/probabilities.h"
#include "infer/session_impl.h"
#include "infer/slab.h"
#include "infer/team.h"

/* The rows of a case, and the axis (0 z, 1 y) that slices of probabilities lie across. */
typedef struct case_rows {
    size_t most, made; /* of logits alive, of labels made at a time */
    size_t devices;    /* that share the tiles */
    int across;
} case_rows;

static vx_status plan_rows(const vx_route *route, const vx_tiles *tiles, bool whole,
                           case_rows *rows, vx_error *err) {
    vx_logits_axis map[2] = {{0}, {0}};
    vx_frontier frontier = {0};
    vx_status status = VX_OK;
    for (int a = 0; a < 2 && status == VX_OK; a++)
        status = vx_logits_axis_create(route->grid_zyx[a], route->crop_zyx[a],
                                       route->logits_order[a], &map[a], err);
    if (status == VX_OK) status = vx_frontier_create(tiles, map, &frontier, err);
    if (status == VX_OK) {
        rows->most = vx_frontier_rows(&frontier, whole);
        rows->made = vx_frontier_made(&frontier);
        rows->across = frontier.outer;
    }
    vx_frontier_free(&frontier);
    for (int a = 0; a < 2; a++) vx_logits_axis_free(&map[a]);
    return status;
}

/* Whether the device has the memory for the volume and its logits: *bytes more than the network's.
 * The same rule as in session.c, by what is free now. */
static bool device_takes(const vx_session *s, const vx_route *route, const vx_tiles *tiles,
                         const case_rows *rows, vx_sweep_size *size, size_t *bytes,
                         size_t *free_bytes) {
    *size = (vx_sweep_size){.channels = s->model->recipe->channel_count,
                            .classes = s->classes,
                            .rows = rows->most,
                            .places = rows->devices > 1 ? rows->devices : 0,
                            .made_rows = rows->made,
                            .label_bytes = s->mask_bytes};
    memcpy(size->dims, tiles->dims, sizeof size->dims);
    memcpy(size->patch, tiles->patch, sizeof size->patch);
    memcpy(size->out, route->crop_zyx, sizeof size->out);
    const vx_sweep_ops *ops = s->options.backend->sweep;
    return ops->free_bytes(s->device, free_bytes, NULL) == VX_OK &&
           ops->bytes(s->device, size, bytes) && *bytes <= *free_bytes;
}

/* Tiles, logits and labels on their way, in the host's memory. */
static bool host_bytes(const vx_session *s, const vx_tiles *tiles, const case_rows *rows,
                       size_t *bytes) {
    size_t in, out, slab;
    return vx_host_tile_bytes(tiles->patch, s->model->recipe->channel_count, s->classes, &s->info,
                              &in, &out) &&
           vx_slab_bytes(tiles, s->classes, rows->most, &slab) && vx_add_size(in, out, bytes) &&
           vx_add_size(*bytes, slab, bytes);
}

static bool accumulator_bytes(const vx_session *s, const vx_geometry *geo, const vx_route *route,
                              const vx_tiles *tiles, const case_rows *rows, bool probabilities,
                              vx_predict_plan *out) {
    size_t *bytes = &out->accumulator_bytes, slices = 0, sweep = 0, free_bytes = 0;
    vx_sweep_size size;
    if (s->options.backend->sweep) {
        case_rows alone = *rows;
        alone.devices = 1;
        const bool fits = device_takes(s, route, tiles, rows, &size, &sweep, &free_bytes) ||
                          device_takes(s, route, tiles, &alone, &size, &sweep, &free_bytes);
        out->device_network_bytes = s->info.device_bytes;
        out->device_volume_bytes = fits && !probabilities ? sweep : 0;
        if (!vx_add_size(s->info.device_bytes, free_bytes, &out->device_room_bytes)) return false;
    }
    if (out->device_volume_bytes ? !vx_device_accumulator_bytes(tiles, &size, bytes)
                                 : !host_bytes(s, tiles, rows, bytes))
        return false;
    if (probabilities &&
        !vx_probabilities_bytes(geo->dims, route, rows->across, s->classes, &slices))
        return false;
    size_t small = vx_tiles_bytes(tiles) + vx_frontier_bytes(tiles) +
                   vx_finaliser_bytes(route->grid_zyx, route->crop_zyx, s->classes,
                                      vx_pool_workers(s->options.pool));
    return vx_add_size(*bytes, slices, bytes) && vx_add_size(*bytes, small, bytes);
}

/* The volume's share, and the peak; false on overflow. */
static bool sum_bytes(const vx_session *s, const vx_geometry *geo, const vx_route *route,
                      bool consume, vx_predict_plan *out) {
    size_t preparing, held, predicting;
    if (!vx_prepare_bytes(s->model->recipe, route, consume, &preparing, &held) ||
        !vx_mul_size(vx_voxels(geo), s->mask_bytes, &out->mask_bytes) ||
        !vx_add_size(held, out->mask_bytes, &held))
        return false;
    out->weight_bytes = s->info.weight_bytes;
    out->network_bytes = s->info.arena_bytes + s->info.weight_bytes;
    out->volume_bytes = preparing > held ? preparing : held;
    return vx_add_size(preparing, s->info.weight_bytes, &preparing) &&
           vx_add_size(held, out->accumulator_bytes, &predicting) &&
           vx_add_size(predicting, out->network_bytes, &predicting) &&
           (out->peak_bytes = preparing > predicting ? preparing : predicting) > 0;
}

vx_status vx_session_plan(const vx_session *session, const vx_geometry *geo,
                          const vx_predict_wants *wants, vx_predict_plan *out, vx_error *err) {
    const vx_predict_wants mask_alone = {0};
    const vx_recipe *recipe = session->model->recipe;
    vx_route route;
    vx_tiles tiles;
    case_rows rows = {0};
    memset(out, 0, sizeof *out);
    if (!wants) wants = &mask_alone;
    vx_status status = vx_geometry_check(geo, err);
    if (status == VX_OK) status = vx_route_plan(recipe, geo, NULL, &route, err);
    if (status == VX_OK)
        status = vx_tiles_create(route.grid_zyx, recipe->patch, session->options.step, &tiles, err);
    if (status != VX_OK) return status;
    status = plan_rows(&route, &tiles, wants->probabilities, &rows, err);
    out->tiles = vx_tiles_total(&tiles);
    rows.devices = vx_team_count(&tiles, session->pass_count, wants->others);
    out->flops = session->info.flops * (double)out->tiles * (double)session->pass_count;
    bool fits = accumulator_bytes(session, geo, &route, &tiles, &rows, wants->probabilities, out) &&
                sum_bytes(session, geo, &route, wants->consume, out);
    vx_tiles_free(&tiles);
    if (status != VX_OK || fits) return status;
    return vx_fail(err, VX_ERR_RESOURCE, "the volume is too large for this machine's memory");
}
