#include "infer/frontier.h"

#include <string.h>

#include "base/memory.h"

static size_t min_size(size_t a, size_t b) { return a < b ? a : b; }

/* One block holds the four lists. */
static vx_status fill_axis(const vx_tiles *tiles, const vx_logits_axis *map, int axis,
                           vx_frontier_axis *out, vx_error *err) {
    size_t count = tiles->count[axis], dim = tiles->dims[axis], made = 0;
    *out = (vx_frontier_axis){.count = count, .covered = vx_alloc_zero(count, 4 * sizeof(size_t))};
    if (!out->covered) return vx_fail(err, VX_ERR_RESOURCE, "out of memory");
    out->finished = out->covered + count;
    out->made = out->finished + count;
    out->dropped = out->made + count;
    for (size_t k = 0; k < count; k++) {
        bool last = k + 1 == count;
        out->covered[k] =
            min_size(dim, tiles->start[axis][k] + tiles->patch[axis] - tiles->pad[axis]);
        /* Padding there is only where there is one tile. */
        out->finished[k] = last ? dim : min_size(dim, tiles->start[axis][k + 1]);
        while (made < map->out && vx_logits_axis_high(map, made) < out->finished[k]) made++;
        out->made[k] = made;
        out->dropped[k] = last ? dim : out->finished[k];
        if (made < map->out) out->dropped[k] = min_size(map->low[made], out->dropped[k]);
    }
    return VX_OK;
}

vx_status vx_frontier_create(const vx_tiles *tiles, const vx_logits_axis map[2], vx_frontier *out,
                             vx_error *err) {
    memset(out, 0, sizeof *out);
    for (int a = 0; a < 2; a++) {
        vx_status status = fill_axis(tiles, &map[a], a, &out->axis[a], err);
        if (status != VX_OK) {
            vx_frontier_free(out);
            return status;
        }
    }
    size_t rows[2];
    for (out->outer = 0; out->outer < 2; out->outer++)
        rows[out->outer] = vx_frontier_rows(out, false);
    out->outer = rows[1] < rows[0] - rows[0] / 8;
    return VX_OK;
}

void vx_frontier_free(vx_frontier *frontier) {
    for (int a = 0; a < 2; a++) {
        vx_free(frontier->axis[a].covered);
        frontier->axis[a] = (vx_frontier_axis){0};
    }
}

size_t vx_frontier_bytes(const vx_tiles *tiles) {
    return (tiles->count[0] + tiles->count[1]) * 4 * sizeof(size_t);
}

size_t vx_frontier_steps(const vx_frontier *frontier) {
    return frontier->axis[0].count * frontier->axis[1].count;
}

/* What entry k adds to entry k - 1. */
static void set_range(vx_rows *rows, int axis, const size_t *below, size_t k) {
    rows->from[axis] = k ? below[k - 1] : 0;
    rows->end[axis] = below[k];
}

void vx_frontier_step(const vx_frontier *frontier, size_t step, bool whole, vx_step *out) {
    int outer = frontier->outer;
    size_t inner_count = frontier->axis[1 - outer].count, index[2];
    index[outer] = step / inner_count;
    index[1 - outer] = step % inner_count;
    *out = (vx_step){.tile = {index[0], index[1], 0}};
    for (int a = 0; a < 2; a++) {
        const vx_frontier_axis *axis = &frontier->axis[a];
        set_range(&out->started, a, axis->covered, index[a]);
        set_range(&out->finished, a, axis->finished, index[a]);
        set_range(&out->made, a, axis->made, index[a]);
        set_range(&out->dropped, a, axis->dropped, index[a]);
        if (!whole || a == outer) continue;
        bool last = index[a] + 1 == inner_count;
        out->made.from[a] = out->dropped.from[a] = 0;
        out->made.end[a] = last ? axis->made[index[a]] : 0;
        out->dropped.end[a] = last ? axis->dropped[index[a]] : 0;
    }
}

size_t vx_frontier_rows(const vx_frontier *frontier, bool whole) {
    size_t rows = 0, most = 0, steps = vx_frontier_steps(frontier);
    for (size_t i = 0; i < steps; i++) {
        vx_step step;
        vx_frontier_step(frontier, i, whole, &step);
        rows += vx_rows_count(&step.started);
        if (rows > most) most = rows;
        rows -= vx_rows_count(&step.dropped);
    }
    return most;
}

size_t vx_frontier_made(const vx_frontier *frontier) {
    size_t most = 0, steps = vx_frontier_steps(frontier);
    for (size_t i = 0; i < steps; i++) {
        vx_step step;
        vx_frontier_step(frontier, i, false, &step);
        const size_t rows = vx_rows_count(&step.made);
        if (rows > most) most = rows;
    }
    return most;
}
