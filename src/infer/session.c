#include "infer/session.h"

#include <string.h>

#include "base/clock.h"
#include "base/memory.h"
#include "infer/accumulator.h"
#include "infer/probabilities.h"
#include "infer/session_impl.h"
#include "volume/intensity.h"

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

/* ---- Checking ---- */

/* Normalisation divides by no less than 1e-8: without contrast above that, what the network sees is
 * constant, and it would still answer with a mask. */
#define SMALLEST_CONTRAST 1e-8F

/* NaN is for normalisation to name. */
static vx_status has_contrast(const float *v, size_t n, vx_pool *pool, bool *out, vx_error *err) {
    float low, high;
    vx_status status = vx_value_range(v, n, pool, &low, &high, err);
    if (status == VX_OK) *out = !(high - low < SMALLEST_CONTRAST);
    return status;
}

/* One empty channel among others may be meant: a sequence that was not acquired. */
static vx_status check_contrast(const vx_recipe *recipe, const vx_volume *volume, vx_pool *pool,
                                const vx_log *log, vx_error *err) {
    size_t n = vx_voxels(&volume->geo), constant = 0;
    bool contrast[VX_MAX_CHANNELS];
    for (size_t c = 0; c < volume->channels; c++) {
        vx_status status = has_contrast(volume->data + c * n, n, pool, &contrast[c], err);
        if (status != VX_OK) return status;
        if (!contrast[c]) constant++;
    }
    if (constant == volume->channels)
        return vx_fail(err, VX_ERR_INPUT,
                       "is constant: no two voxels differ by more than %g (check how it was made)",
                       (double)SMALLEST_CONTRAST);
    for (size_t c = 0; c < volume->channels; c++)
        if (!contrast[c])
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
    return status == VX_OK ? check_contrast(recipe, volume, s->options.pool, options->log, err)
                           : status;
}

/* ---- Predicting ---- */

/* One case: what is allocated between preparation and the finished mask. */
typedef struct run_state {
    vx_session *session;
    const vx_volume *image; /* prepared */
    const vx_predict_options *options;
    vx_predict_record *record;
    vx_tiles tiles;
    vx_frontier frontier;
    vx_finaliser finaliser;
    vx_plan **other_plans; /* of options->others */
    vx_accumulator *accumulator;
    vx_probabilities *probabilities; /* NULL: not wanted */
} run_state;

/* On all devices, or on one of them. */
static vx_status allocate_on_devices(run_state *r, vx_accumulator_setup *setup, vx_error *err) {
    const vx_predict_options *o = r->options;
    const size_t count = o->other_count;
    if (count) r->other_plans = vx_alloc_zero(count, sizeof(vx_plan *));
    for (size_t i = 0; r->other_plans && i < count; i++) r->other_plans[i] = o->others[i]->plan;
    setup->other_plans = r->other_plans;
    setup->other_count = r->other_plans ? count : 0;
    vx_status status = vx_device_accumulator(setup, &r->accumulator, err);
    if (status == VX_OK || !setup->other_count) return status;
    vx_log_message(o->log, VX_LOG_WARNING, "%s: one device computes all tiles, which is slower",
                   err->text);
    setup->other_count = 0;
    return vx_device_accumulator(setup, &r->accumulator, err);
}

/* On the device where it can and has the memory; probabilities come from the host's. */
static vx_status allocate_accumulator(run_state *r, vx_error *err) {
    vx_session *s = r->session;
    const vx_log *log = r->options->log;
    const bool whole = r->options->sink != NULL;
    vx_accumulator_setup setup = {.backend = s->options.backend,
                                  .device = s->device,
                                  .plan = s->plan,
                                  .info = &s->info,
                                  .pool = s->options.pool,
                                  .image = r->image->data,
                                  .channels = r->image->channels,
                                  .tiles = &r->tiles,
                                  .frontier = &r->frontier,
                                  .passes = s->passes,
                                  .pass_count = s->pass_count,
                                  .finaliser = &r->finaliser,
                                  .rows = vx_frontier_rows(&r->frontier, whole),
                                  .made_rows = vx_frontier_made(&r->frontier)};
    if (!s->options.backend->sweep) return vx_host_accumulator(&setup, &r->accumulator, err);
    if (whole) {
        vx_log_message(log, VX_LOG_INFO,
                       "probabilities are made in the host's memory, which is slower");
        return vx_host_accumulator(&setup, &r->accumulator, err);
    }
    vx_error small = {0};
    vx_status status = allocate_on_devices(r, &setup, &small);
    if (status == VX_OK) return status;
    vx_log_message(log, VX_LOG_WARNING,
                   "%s: tiles are added up in the host's memory, which is slower", small.text);
    return vx_host_accumulator(&setup, &r->accumulator, err);
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
    if (status == VX_OK && o->sink)
        status =
            vx_probabilities_create(mask->geo.dims, route, r->frontier.outer, s->classes,
                                    recipe->regions, o->sink, o->sink_data, &r->probabilities, err);
    return status == VX_OK ? allocate_accumulator(r, err) : status;
}

static void release(run_state *r) {
    if (r->accumulator) r->accumulator->ops->free(r->accumulator);
    vx_free(r->other_plans);
    vx_probabilities_free(r->probabilities);
    vx_frontier_free(&r->frontier);
    vx_finaliser_free(&r->finaliser);
    vx_tiles_free(&r->tiles);
}

/* The network on one tile, once for each mirrored pass; the accumulator gets the mean. */
static vx_status predict_tile(run_state *r, const size_t tile[3], vx_error *err) {
    const vx_session *s = r->session;
    vx_accumulator *a = r->accumulator;
    vx_tile_times times = {0};
    vx_status status = VX_OK;
    for (size_t p = 0; p < s->pass_count && status == VX_OK; p++)
        status = a->ops->tile(a, tile, s->passes[p], 1 / (float)s->pass_count, &times, err);
    r->record->network += times.network;
    r->record->accumulate += times.accumulate;
    return status;
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
        status = r->accumulator->ops->make(r->accumulator, &slice, &buffer, err);
        if (status == VX_OK) status = vx_probabilities_put(r->probabilities, k, err);
    }
    return status;
}

/* What the step's tiles complete. */
static vx_status finalise(run_state *r, const vx_step *step, vx_error *err) {
    vx_accumulator *a = r->accumulator;
    bool finite = true;
    vx_status status = a->ops->finish(a, &step->finished, &finite, err);
    if (status == VX_OK && !finite) {
        if (r->options->overflow) *r->options->overflow = true;
        status = vx_fail(err, VX_ERR_MODEL,
                         "the network gave NaN or infinite values (check the input's intensities, "
                         "or use --precision fp32)");
    }
    if (status == VX_OK)
        status = r->probabilities ? make_slices(r, &step->made, err)
                                  : a->ops->make(a, &step->made, NULL, err);
    if (status == VX_OK) a->ops->drop(a, &step->dropped);
    return status;
}

/* One line of tiles along x. */
static vx_status predict_line(run_state *r, size_t number, vx_error *err) {
    vx_step step;
    vx_frontier_step(&r->frontier, number, r->probabilities != NULL, &step);
    double start = vx_seconds();
    vx_status status = r->accumulator->ops->start(r->accumulator, &step.started, err);
    if (status != VX_OK) return status;
    r->record->accumulate += vx_seconds() - start;
    size_t count = r->tiles.count[2], *x = &step.tile[2];
    for (*x = 0; *x < count; ++*x) {
        status = predict_tile(r, step.tile, err);
        if (status != VX_OK) return status;
        double done = (double)(number * count + *x + 1);
        if (vx_log_progress(r->options->log, "network", done / (double)vx_tiles_total(&r->tiles)))
            return vx_fail(err, VX_ERR_CANCELLED, "cancelled");
    }
    start = vx_seconds();
    status = finalise(r, &step, err);
    r->record->finalise += vx_seconds() - start;
    return status;
}

static vx_status predict_image(run_state *r, const vx_route *route, vx_mask *mask, vx_error *err) {
    double begin = vx_seconds();
    vx_status status = allocate(r, route, mask, err);
    r->record->accumulate += vx_seconds() - begin; /* a device gets the volume */
    r->record->device_bytes = r->session->info.device_bytes;
    if (r->accumulator) r->record->device_bytes += r->accumulator->device_bytes;
    size_t lines = status == VX_OK ? vx_frontier_steps(&r->frontier) : 0;
    for (size_t i = 0; status == VX_OK && i < lines; i++) status = predict_line(r, i, err);
    if (status == VX_OK && r->probabilities) {
        double start = vx_seconds();
        status = vx_probabilities_finish(r->probabilities, err);
        r->record->finalise += vx_seconds() - start;
    }
    release(r);
    return status;
}

vx_status vx_session_predict(vx_session *session, vx_volume *volume,
                             const vx_predict_options *options, vx_mask **mask,
                             vx_predict_record *record, vx_error *err) {
    const vx_predict_options defaults = {0};
    vx_predict_record own_record;
    *mask = NULL;
    if (!options) options = &defaults;
    if (!record) record = &own_record;
    memset(record, 0, sizeof *record);
    vx_status status = check_input(session, volume, options, err);
    if (status != VX_OK) return status;
    if (vx_log_progress(options->log, "prepare", 0))
        return vx_fail(err, VX_ERR_CANCELLED, "cancelled");

    double start = vx_seconds();
    vx_route route;
    vx_volume *image = NULL;
    status = vx_prepare(session->model->recipe, volume, options->consume, session->options.pool,
                        &route, &image, err);
    record->preprocess = vx_seconds() - start;
    vx_mask *result = NULL;
    if (status == VX_OK) status = vx_mask_create(&volume->geo, session->mask_bytes, &result, err);
    if (status == VX_OK) {
        result->source = vx_source_ref(volume->source);
        run_state run = {.session = session, .image = image, .options = options, .record = record};
        status = predict_image(&run, &route, result, err);
    }
    vx_volume_free(image);
    if (status == VX_OK)
        *mask = result;
    else
        vx_mask_free(result);
    return status;
}
