#include "infer/session.h"

#include <string.h>
#include <time.h>

#include "base/memory.h"
#include "base/size.h"
#include "infer/finalise.h"
#include "infer/frontier.h"
#include "infer/prepare.h"
#include "infer/probabilities.h"
#include "infer/slab.h"
#include "infer/tiles.h"

struct vx_session {
    const vx_model *model;
    vx_session_options options;
    vx_device *device;
    vx_graph *graph;
    vx_plan *plan;
    vx_plan_info info;
    size_t classes;
    unsigned *values; /* label value of each class */
    unsigned mask_bytes;
    size_t pass_count; /* mirrored passes over a tile */
    unsigned passes[8];
};

static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Class c means values[c]: without regions class 0 is the background. */
static vx_status list_values(vx_session *s, vx_error *err) {
    const vx_recipe *recipe = s->model->recipe;
    size_t background = recipe->regions ? 0 : 1;
    s->classes = recipe->network.classes;
    if (s->classes == 0 || s->classes != recipe->labels.count + background)
        return vx_fail(err, VX_ERR_MODEL, "the network has %zu classes, the recipe %zu labels",
                       s->classes, recipe->labels.count);
    s->values = vx_alloc_zero(s->classes, sizeof *s->values);
    if (!s->values) return vx_fail(err, VX_ERR_RESOURCE, "out of memory");
    s->mask_bytes = 1;
    for (size_t k = 0; k < recipe->labels.count; k++) {
        s->values[k + background] = recipe->labels.labels[k].value;
        if (recipe->labels.labels[k].value > 255) s->mask_bytes = 2;
    }
    return VX_OK;
}

static vx_status compile(vx_session *s, vx_error *err) {
    const vx_session_options *o = &s->options;
    vx_compile_options compile_options = {
        .precision = o->precision, .memory_budget = o->memory_budget, .output_in_arena = true};
    vx_status status = vx_model_graph(s->model, 1, s->model->recipe->patch, &s->graph, err);
    if (status == VX_OK) status = o->backend->open(o->ordinal, o->pool, &s->device, err);
    if (status == VX_OK)
        status = o->backend->compile(s->device, s->graph, &compile_options, &s->plan, err);
    if (status != VX_OK) return status;
    o->backend->plan_info(s->plan, &s->info);
    vx_model_file_release(s->model->file); /* the plan has packed what it needs */
    return VX_OK;
}

vx_status vx_session_create(const vx_model *model, const vx_session_options *options,
                            vx_session **out, vx_error *err) {
    *out = NULL;
    if (!(options->step > 0 && options->step <= 1))
        return vx_fail(err, VX_ERR_USAGE, "tile step %g (more than 0 and at most 1 is possible)",
                       options->step);
    vx_session *s = vx_alloc_zero(1, sizeof *s);
    if (!s) return vx_fail(err, VX_ERR_RESOURCE, "out of memory");
    s->model = model;
    s->options = *options;
    const bool none[3] = {false, false, false};
    s->pass_count = vx_mirror_passes(options->tta ? model->recipe->mirror : none, s->passes);
    vx_status status = list_values(s, err);
    if (status == VX_OK) status = compile(s, err);
    if (status == VX_OK)
        *out = s;
    else
        vx_session_free(s);
    return status;
}

void vx_session_free(vx_session *session) {
    if (!session) return;
    if (session->plan) session->options.backend->plan_free(session->plan);
    if (session->device) session->options.backend->close(session->device);
    vx_graph_free(session->graph);
    vx_free(session->values);
    vx_free(session);
}

void vx_session_describe(const vx_session *session, char *text, size_t bytes) {
    session->options.backend->describe(session->device, text, bytes);
}

/* Bytes of one tile in and out; none for an output that lies in the arena. */
static bool tile_bytes(const vx_session *s, size_t *in, size_t *out) {
    const size_t *patch = s->model->recipe->patch;
    size_t voxels;
    if (!vx_product(patch, 3, &voxels) || !vx_mul_size(voxels, sizeof(float), &voxels) ||
        !vx_mul_size(voxels, s->model->recipe->channel_count, in) ||
        !vx_mul_size(voxels, s->classes, out))
        return false;
    if (s->info.output_in_arena) *out = 0;
    return true;
}

/* ---- Planning ---- */

/* The most rows of the slab, and the axis (0 z, 1 y) that slices of probabilities lie across. */
static vx_status plan_rows(const vx_route *route, const vx_tiles *tiles, bool whole, size_t *rows,
                           int *across, vx_error *err) {
    vx_logits_axis map[2] = {{0}, {0}};
    vx_frontier frontier = {0};
    vx_status status = VX_OK;
    for (int a = 0; a < 2 && status == VX_OK; a++)
        status = vx_logits_axis_create(route->grid_zyx[a], route->crop_zyx[a],
                                       route->logits_order[a], &map[a], err);
    if (status == VX_OK) status = vx_frontier_create(tiles, map, &frontier, err);
    if (status == VX_OK) {
        *rows = vx_frontier_rows(&frontier, whole);
        *across = frontier.outer;
    }
    vx_frontier_free(&frontier);
    for (int a = 0; a < 2; a++) vx_logits_axis_free(&map[a]);
    return status;
}

static bool accumulator_bytes(const vx_session *s, const vx_geometry *geo, const vx_route *route,
                              const vx_tiles *tiles, size_t rows, int across, bool probabilities,
                              size_t *bytes) {
    size_t in, to, slab, slices = 0;
    if (!tile_bytes(s, &in, &to) || !vx_slab_bytes(tiles, s->classes, rows, &slab)) return false;
    if (probabilities && !vx_probabilities_bytes(geo->dims, route, across, s->classes, &slices))
        return false;
    size_t small = vx_tiles_bytes(tiles) + vx_frontier_bytes(tiles) +
                   vx_finaliser_bytes(route->grid_zyx, route->crop_zyx, s->classes,
                                      vx_pool_workers(s->options.pool));
    return vx_add_size(slab, in, bytes) && vx_add_size(*bytes, to, bytes) &&
           vx_add_size(*bytes, slices, bytes) && vx_add_size(*bytes, small, bytes);
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
    size_t rows = 0;
    int across = 0;
    memset(out, 0, sizeof *out);
    if (!wants) wants = &mask_alone;
    vx_status status = vx_geometry_check(geo, err);
    if (status == VX_OK) status = vx_route_plan(recipe, geo, NULL, &route, err);
    if (status == VX_OK)
        status = vx_tiles_create(route.grid_zyx, recipe->patch, session->options.step, &tiles, err);
    if (status != VX_OK) return status;
    status = plan_rows(&route, &tiles, wants->probabilities, &rows, &across, err);
    out->tiles = vx_tiles_total(&tiles);
    out->flops = session->info.flops * (double)out->tiles * (double)session->pass_count;
    bool fits = accumulator_bytes(session, geo, &route, &tiles, rows, across, wants->probabilities,
                                  &out->accumulator_bytes) &&
                sum_bytes(session, geo, &route, wants->consume, out);
    vx_tiles_free(&tiles);
    if (status != VX_OK || fits) return status;
    return vx_fail(err, VX_ERR_RESOURCE, "the volume is too large for this machine's memory");
}

/* ---- Checking ---- */

/* Normalisation divides by no less than 1e-8: without contrast above that, what the network sees is
 * constant, and it would still answer with a mask. */
#define SMALLEST_CONTRAST 1e-8F

static bool has_contrast(const float *v, size_t n) {
    float low = v[0], high = v[0];
    for (size_t i = 1; i < n; i++) {
        if (v[i] < low) low = v[i];
        if (v[i] > high) high = v[i];
    }
    return !(high - low < SMALLEST_CONTRAST); /* NaN is for normalisation to name */
}

/* One empty channel among others may be meant: a sequence that was not acquired. */
static vx_status check_contrast(const vx_recipe *recipe, const vx_volume *volume, const vx_log *log,
                                vx_error *err) {
    size_t n = vx_voxels(&volume->geo), constant = 0;
    for (size_t c = 0; c < volume->channels; c++)
        if (!has_contrast(volume->data + c * n, n)) constant++;
    if (constant == volume->channels)
        return vx_fail(err, VX_ERR_INPUT,
                       "is constant: no two voxels differ by more than %g (check how it was made)",
                       (double)SMALLEST_CONTRAST);
    for (size_t c = 0; constant && c < volume->channels; c++)
        if (!has_contrast(volume->data + c * n, n))
            vx_log_message(log, VX_LOG_WARNING, "channel '%s' is constant",
                           recipe->channels[c].name);
    return VX_OK;
}

static vx_status check_input(const vx_session *s, const vx_volume *volume,
                             const vx_predict_options *options, vx_error *err) {
    const vx_recipe *recipe = s->model->recipe;
    vx_status status = vx_geometry_check(&volume->geo, err);
    if (status != VX_OK) return status;
    if (volume->channels != recipe->channel_count)
        return vx_fail(err, VX_ERR_INPUT,
                       "%zu channel%s given, the model '%s' wants %zu (see voxmamba info MODEL)",
                       volume->channels, volume->channels == 1 ? "" : "s", recipe->name,
                       recipe->channel_count);
    status = vx_check_field_of_view(recipe, &volume->geo, options->force, options->log, err);
    return status == VX_OK ? check_contrast(recipe, volume, options->log, err) : status;
}

/* ---- Predicting ---- */

/* One case: what is allocated between preparation and the finished mask. */
typedef struct run_state {
    vx_session *session;
    const vx_volume *image; /* prepared */
    const vx_predict_options *options;
    vx_predict_times *times;
    vx_tiles tiles;
    vx_frontier frontier;
    vx_slab slab;
    vx_finaliser finaliser;
    vx_probabilities *probabilities; /* NULL: not wanted */
    vx_arena arena;
    float *in, *out; /* one tile */
    float *own_out;  /* its memory, unless that is the arena's */
} run_state;

static vx_status allocate_network(run_state *r, vx_error *err) {
    const vx_plan_info *info = &r->session->info;
    size_t in, out;
    vx_status status = vx_arena_create(info->arena_bytes, &r->arena, err);
    if (status != VX_OK) return status;
    bool fits = tile_bytes(r->session, &in, &out);
    if (fits) r->in = vx_alloc(in);
    if (fits && !info->output_in_arena) r->own_out = vx_alloc(out);
    r->out =
        info->output_in_arena ? (float *)(void *)(r->arena.base + info->output_offset) : r->own_out;
    return r->in && r->out ? VX_OK : vx_fail(err, VX_ERR_RESOURCE, "out of memory for one tile");
}

static vx_status allocate(run_state *r, const vx_route *route, vx_mask *mask, vx_error *err) {
    vx_session *s = r->session;
    const vx_recipe *recipe = s->model->recipe;
    const vx_predict_options *o = r->options;
    vx_label_target target = vx_route_target(route, mask);
    vx_status status =
        vx_tiles_create(route->grid_zyx, recipe->patch, s->options.step, &r->tiles, err);
    if (status == VX_OK)
        status = vx_finaliser_create(route->grid_zyx, route->crop_zyx, route->logits_order,
                                     s->classes, recipe->regions, s->values, &target,
                                     s->options.pool, &r->finaliser, err);
    if (status == VX_OK)
        status = vx_frontier_create(&r->tiles, r->finaliser.axis, &r->frontier, err);
    if (status == VX_OK)
        status = vx_slab_create(&r->tiles, s->classes,
                                vx_frontier_rows(&r->frontier, o->sink != NULL), &r->slab, err);
    if (status == VX_OK && o->sink)
        status =
            vx_probabilities_create(mask->geo.dims, route, r->frontier.outer, s->classes,
                                    recipe->regions, o->sink, o->sink_data, &r->probabilities, err);
    return status == VX_OK ? allocate_network(r, err) : status;
}

static void release(run_state *r) {
    vx_free(r->in);
    vx_free(r->own_out);
    vx_arena_free(&r->arena);
    vx_probabilities_free(r->probabilities);
    vx_slab_free(&r->slab);
    vx_frontier_free(&r->frontier);
    vx_finaliser_free(&r->finaliser);
    vx_tiles_free(&r->tiles);
}

/* The network on one tile, once for each mirrored pass; the slab gets the mean. */
static vx_status predict_tile(run_state *r, const size_t tile[3], vx_error *err) {
    vx_session *s = r->session;
    vx_pool *pool = s->options.pool;
    float scale = 1 / (float)s->pass_count;
    for (size_t p = 0; p < s->pass_count; p++) {
        double start = seconds();
        vx_tile_read(&r->tiles, tile, r->image->data, r->image->channels, s->passes[p], r->in,
                     pool);
        double ready = seconds();
        vx_status status = s->options.backend->run(s->plan, r->arena.base, r->in, &r->out, err);
        if (status != VX_OK) return status;
        double done = seconds();
        vx_slab_add(&r->slab, tile, r->out, s->passes[p], scale, pool);
        r->times->network += done - ready;
        r->times->accumulate += ready - start + seconds() - done;
    }
    return VX_OK;
}

/* Labels and probabilities of whole slices across the outer axis. */
static vx_status make_slices(run_state *r, const vx_rows *made, vx_error *err) {
    int outer = r->frontier.outer;
    vx_probability_slice buffer = vx_probabilities_buffer(r->probabilities);
    vx_status status = VX_OK;
    if (!vx_rows_count(made)) return status;
    for (size_t k = made->from[outer]; k < made->end[outer] && status == VX_OK; k++) {
        vx_rows slice = *made;
        slice.from[outer] = k;
        slice.end[outer] = k + 1;
        vx_finaliser_make(&r->finaliser, &r->slab, &slice, &buffer, r->session->options.pool);
        status = vx_probabilities_put(r->probabilities, k, err);
    }
    return status;
}

/* What the step's tiles complete. */
static vx_status finalise(run_state *r, const vx_step *step, vx_error *err) {
    vx_pool *pool = r->session->options.pool;
    vx_status status = vx_slab_finish(&r->slab, &step->finished, pool, err);
    if (status == VX_ERR_MODEL && r->options->overflow) *r->options->overflow = true;
    if (status != VX_OK) return status;
    if (r->probabilities)
        status = make_slices(r, &step->made, err);
    else
        vx_finaliser_make(&r->finaliser, &r->slab, &step->made, NULL, pool);
    vx_slab_drop(&r->slab, &step->dropped);
    return status;
}

/* One line of tiles along x. */
static vx_status predict_line(run_state *r, size_t number, vx_error *err) {
    vx_step step;
    vx_frontier_step(&r->frontier, number, r->probabilities != NULL, &step);
    double start = seconds();
    vx_slab_start(&r->slab, &step.started, r->session->options.pool);
    r->times->accumulate += seconds() - start;
    size_t count = r->tiles.count[2], *x = &step.tile[2];
    for (*x = 0; *x < count; ++*x) {
        vx_status status = predict_tile(r, step.tile, err);
        if (status != VX_OK) return status;
        double done = (double)(number * count + *x + 1);
        if (vx_log_progress(r->options->log, "network", done / (double)vx_tiles_total(&r->tiles)))
            return vx_fail(err, VX_ERR_CANCELLED, "cancelled");
    }
    start = seconds();
    vx_status status = finalise(r, &step, err);
    r->times->finalise += seconds() - start;
    return status;
}

static vx_status predict_image(run_state *r, const vx_route *route, vx_mask *mask, vx_error *err) {
    vx_status status = allocate(r, route, mask, err);
    size_t lines = status == VX_OK ? vx_frontier_steps(&r->frontier) : 0;
    for (size_t i = 0; status == VX_OK && i < lines; i++) status = predict_line(r, i, err);
    if (status == VX_OK && r->probabilities) {
        double start = seconds();
        status = vx_probabilities_finish(r->probabilities, err);
        r->times->finalise += seconds() - start;
    }
    release(r);
    return status;
}

vx_status vx_session_predict(vx_session *session, vx_volume *volume,
                             const vx_predict_options *options, vx_mask **mask,
                             vx_predict_times *times, vx_error *err) {
    const vx_predict_options defaults = {0};
    vx_predict_times own_times;
    *mask = NULL;
    if (!options) options = &defaults;
    if (!times) times = &own_times;
    memset(times, 0, sizeof *times);
    vx_status status = check_input(session, volume, options, err);
    if (status != VX_OK) return status;
    if (vx_log_progress(options->log, "prepare", 0))
        return vx_fail(err, VX_ERR_CANCELLED, "cancelled");

    double start = seconds();
    vx_route route;
    vx_volume *image = NULL;
    status = vx_prepare(session->model->recipe, volume, options->consume, session->options.pool,
                        &route, &image, err);
    times->preprocess = seconds() - start;
    vx_mask *result = NULL;
    if (status == VX_OK) status = vx_mask_create(&volume->geo, session->mask_bytes, &result, err);
    if (status == VX_OK) {
        result->source = vx_source_ref(volume->source);
        run_state run = {.session = session, .image = image, .options = options, .times = times};
        status = predict_image(&run, &route, result, err);
    }
    vx_volume_free(image);
    if (status == VX_OK)
        *mask = result;
    else
        vx_mask_free(result);
    return status;
}
