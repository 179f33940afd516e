#include "infer/session.h"

#include <string.h>
#include <time.h>

#include "base/memory.h"
#include "base/size.h"
#include "infer/finalise.h"
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
    vx_arena arena;
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
    vx_compile_options compile_options = {.precision = o->precision,
                                          .memory_budget = o->memory_budget};
    vx_status status = vx_model_graph(s->model, 1, s->model->recipe->patch, &s->graph, err);
    if (status == VX_OK) status = o->backend->open(o->ordinal, o->pool, &s->device, err);
    if (status == VX_OK)
        status = o->backend->compile(s->device, s->graph, &compile_options, &s->plan, err);
    if (status != VX_OK) return status;
    o->backend->plan_info(s->plan, &s->info);
    return vx_arena_create(s->info.arena_bytes, &s->arena, err);
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
    vx_arena_free(&session->arena);
    if (session->plan) session->options.backend->plan_free(session->plan);
    if (session->device) session->options.backend->close(session->device);
    vx_graph_free(session->graph);
    vx_free(session->values);
    vx_free(session);
}

void vx_session_describe(const vx_session *session, char *text, size_t bytes) {
    session->options.backend->describe(session->device, text, bytes);
}

/* Bytes of one tile in and out. */
static bool tile_bytes(const vx_session *s, size_t *in, size_t *out) {
    const size_t *patch = s->model->recipe->patch;
    size_t voxels;
    return vx_product(patch, 3, &voxels) && vx_mul_size(voxels, sizeof(float), &voxels) &&
           vx_mul_size(voxels, s->model->recipe->channel_count, in) &&
           vx_mul_size(voxels, s->classes, out);
}

/* One case: what is allocated between preparation and the finished mask. */
typedef struct run_state {
    vx_session *session;
    const vx_volume *image; /* prepared */
    const vx_predict_options *options;
    vx_predict_times *times;
    vx_tiles tiles;
    vx_slab slab;
    vx_finaliser finaliser;
    vx_probabilities *probabilities; /* NULL: not wanted */
    float *in, *out;                 /* one tile */
} run_state;

/* Fills out; false on overflow. */
static bool count_bytes(const vx_session *s, const vx_geometry *geo, const vx_route *route,
                        const vx_tiles *tiles, vx_predict_plan *out) {
    size_t in, to, slab, preparing, held, mask, predicting;
    if (!tile_bytes(s, &in, &to) || !vx_slab_bytes(tiles, s->classes, &slab) ||
        !vx_prepare_bytes(s->model->recipe, route, &preparing, &held) ||
        !vx_mul_size(vx_voxels(geo), s->mask_bytes, &mask) || !vx_add_size(held, mask, &held) ||
        !vx_add_size(slab, in, &slab) || !vx_add_size(slab, to, &slab))
        return false;
    size_t small =
        vx_tiles_bytes(tiles) + vx_finaliser_bytes(route->grid_zyx, route->crop_zyx, s->classes,
                                                   vx_pool_workers(s->options.pool));
    out->network_bytes = s->info.arena_bytes + s->info.weight_bytes;
    out->volume_bytes = preparing > held ? preparing : held;
    return vx_add_size(slab, small, &out->accumulator_bytes) &&
           vx_add_size(held, out->accumulator_bytes, &predicting) &&
           vx_add_size(preparing > predicting ? preparing : predicting, out->network_bytes,
                       &out->peak_bytes);
}

vx_status vx_session_plan(const vx_session *session, const vx_geometry *geo, vx_predict_plan *out,
                          vx_error *err) {
    const vx_recipe *recipe = session->model->recipe;
    vx_route route;
    vx_tiles tiles;
    memset(out, 0, sizeof *out);
    vx_status status = vx_geometry_check(geo, err);
    if (status == VX_OK) status = vx_route_plan(recipe, geo, NULL, &route, err);
    if (status == VX_OK)
        status = vx_tiles_create(route.grid_zyx, recipe->patch, session->options.step, &tiles, err);
    if (status != VX_OK) return status;
    out->tiles = vx_tiles_total(&tiles);
    out->flops = session->info.flops * (double)out->tiles * (double)session->pass_count;
    bool fits = count_bytes(session, geo, &route, &tiles, out);
    vx_tiles_free(&tiles);
    if (fits) return VX_OK;
    return vx_fail(err, VX_ERR_RESOURCE, "the volume is too large for this machine's memory");
}

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

static vx_status allocate(run_state *r, const vx_route *route, vx_mask *mask, vx_error *err) {
    vx_session *s = r->session;
    const vx_recipe *recipe = s->model->recipe;
    vx_label_target target = vx_route_target(route, mask);
    size_t in, out;
    vx_status status =
        vx_tiles_create(route->grid_zyx, recipe->patch, s->options.step, &r->tiles, err);
    if (status == VX_OK) status = vx_slab_create(&r->tiles, s->classes, &r->slab, err);
    if (status == VX_OK)
        status = vx_finaliser_create(route->grid_zyx, route->crop_zyx, route->logits_order,
                                     s->classes, recipe->regions, s->values, &target,
                                     s->options.pool, &r->finaliser, err);
    if (status == VX_OK && r->options->sink)
        status = vx_probabilities_create(mask->geo.dims, route, s->classes, recipe->regions,
                                         r->options->sink, r->options->sink_data, &r->probabilities,
                                         err);
    if (status != VX_OK) return status;
    if (tile_bytes(s, &in, &out)) {
        r->in = vx_alloc(in);
        r->out = vx_alloc(out);
    }
    return r->in && r->out ? VX_OK : vx_fail(err, VX_ERR_RESOURCE, "out of memory for one tile");
}

static void release(run_state *r) {
    vx_free(r->in);
    vx_free(r->out);
    vx_probabilities_free(r->probabilities);
    vx_finaliser_free(&r->finaliser);
    vx_slab_free(&r->slab);
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
        vx_status status = s->options.backend->run(s->plan, s->arena.base, r->in, &r->out, err);
        if (status != VX_OK) return status;
        double done = seconds();
        vx_slab_add(&r->slab, tile, r->out, s->passes[p], scale, pool);
        r->times->network += done - ready;
        r->times->accumulate += ready - start + seconds() - done;
    }
    return VX_OK;
}

/* Labels (and probabilities) of every slice whose logits are complete. */
static vx_status finalise_ready(run_state *r, vx_error *err) {
    vx_status status = VX_OK;
    while (status == VX_OK && vx_finaliser_ready(&r->finaliser, r->slab.finished)) {
        size_t z = r->finaliser.next;
        float *buffer = r->probabilities ? vx_probabilities_buffer(r->probabilities) : NULL;
        vx_finaliser_slice(&r->finaliser, &r->slab, buffer, r->session->options.pool);
        if (r->probabilities) status = vx_probabilities_put(r->probabilities, z, err);
    }
    return status;
}

/* All tiles of one z start, then what they complete. */
static vx_status predict_row(run_state *r, size_t row, vx_error *err) {
    vx_pool *pool = r->session->options.pool;
    const size_t *count = r->tiles.count;
    size_t tile[3] = {row, 0, 0}, done = row * count[1] * count[2];
    vx_slab_begin_row(&r->slab, row, pool);
    for (tile[1] = 0; tile[1] < count[1]; tile[1]++) {
        for (tile[2] = 0; tile[2] < count[2]; tile[2]++) {
            vx_status status = predict_tile(r, tile, err);
            if (status != VX_OK) return status;
            double fraction = (double)++done / (double)vx_tiles_total(&r->tiles);
            if (vx_log_progress(r->options->log, "network", fraction))
                return vx_fail(err, VX_ERR_CANCELLED, "cancelled");
        }
    }
    double start = seconds();
    vx_status status = vx_slab_end_row(&r->slab, row, pool, err);
    if (status == VX_OK) status = finalise_ready(r, err);
    r->times->finalise += seconds() - start;
    return status;
}

static vx_status predict_image(run_state *r, const vx_route *route, vx_mask *mask, vx_error *err) {
    vx_status status = allocate(r, route, mask, err);
    for (size_t row = 0; status == VX_OK && row < r->tiles.count[0]; row++)
        status = predict_row(r, row, err);
    if (status == VX_OK && r->probabilities) {
        double start = seconds();
        status = vx_probabilities_finish(r->probabilities, err);
        r->times->finalise += seconds() - start;
    }
    release(r);
    return status;
}

vx_status vx_session_predict(vx_session *session, const vx_volume *volume,
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
    status = vx_prepare(session->model->recipe, volume, session->options.pool, &route, &image, err);
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
