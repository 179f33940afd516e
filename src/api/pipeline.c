/* One case from files to files. vx_segment_case, at the end, is the way of a volume through the
 * program; the functions above it are its steps in order. */
#include "api/pipeline.h"

#include <stdio.h>
#include <string.h>

#include "api/read_ahead.h"
#include "base/clock.h"
#include "base/memory.h"
#include "infer/postprocess.h"
#include "report/report.h"

/* ---- Callbacks ---- */

void vx_run_state_init(vx_run_state *state, const vxm_callbacks *callbacks, size_t case_count) {
    *state = (vx_run_state){.callbacks = *callbacks, .case_count = case_count};
    pthread_mutex_init(&state->lock, NULL);
    pthread_cond_init(&state->memory_given, NULL);
    atomic_init(&state->cancelled, false);
}

void vx_run_state_destroy(vx_run_state *state) {
    pthread_cond_destroy(&state->memory_given);
    pthread_mutex_destroy(&state->lock);
}

static void on_message(void *user_data, vx_log_level level, const char *text) {
    vx_case_run *run = user_data;
    vx_run_state *state = run->state;
    if (level == VX_LOG_WARNING) vx_result_warn(run->result, text);
    if (!state->callbacks.log) return;
    pthread_mutex_lock(&state->lock);
    state->callbacks.log(state->callbacks.user_data, (vxm_log_level)level, run->number, text);
    pthread_mutex_unlock(&state->lock);
}

bool vx_say_progress(const vx_case_run *run, const char *stage, double fraction) {
    vx_run_state *state = run->state;
    if (!state->callbacks.progress) return false;
    if (!(fraction >= 0.0)) fraction = 0.0;
    if (fraction > 1.0) fraction = 1.0;
    pthread_mutex_lock(&state->lock);
    vxm_progress progress = {.case_number = run->number,
                             .case_count = state->case_count,
                             .cases_done = state->cases_done,
                             .stage = stage,
                             .fraction = run->from + run->share * fraction};
    const bool stop = state->callbacks.progress(state->callbacks.user_data, &progress) != 0;
    pthread_mutex_unlock(&state->lock);
    return stop;
}

static bool on_progress(void *user_data, const char *stage, double fraction) {
    vx_case_run *run = user_data;
    vx_run_state *state = run->state;
    if (!atomic_load(&state->cancelled) && vx_say_progress(run, stage, fraction))
        atomic_store(&state->cancelled, true);
    return atomic_load(&state->cancelled);
}

vxm_status vx_case_begin(vx_case_run *run, vxm_error *error) {
    run->log = (vx_log){.message = on_message, .progress = on_progress, .user_data = run};
    run->result = vx_result_create();
    return run->result ? VXM_OK : vx_api_no_memory(error);
}

void vx_case_end(vx_case_run *run) { vx_memory_give(run); }

/* Opens a part of the case that takes share of its time; false-like VXM_ERR_CANCELLED to stop. */
static vxm_status enter(vx_case_run *run, const char *stage, double from, double share,
                        vxm_error *error) {
    run->from = from;
    run->share = share;
    if (vx_log_progress(&run->log, stage, 0.0))
        return vx_api_fail(error, NULL, VXM_ERR_CANCELLED, "cancelled");
    return VXM_OK;
}

/* ---- Steps ---- */

/* One open probability file a class; each slice goes to all of them. */
typedef struct probability_files {
    size_t count;
    vx_slice_writer **writers;
    size_t slice_voxels;
} probability_files;

static vx_status put_slices(void *user_data, size_t z, const float *data, vx_error *err) {
    probability_files *files = user_data;
    (void)z; /* ascending, by contract */
    for (size_t k = 0; k < files->count; k++) {
        vx_status s = vx_slice_writer_put(files->writers[k], data + k * files->slice_voxels, err);
        if (s != VX_OK) return s;
    }
    return VX_OK;
}

static vxm_status open_probabilities(const vx_case_run *run, const vx_volume *image,
                                     vx_outputs *outputs, probability_files *files,
                                     vxm_error *error) {
    vx_write_options options = {.format = outputs->target->format};
    files->slice_voxels = image->geo.dims[0] * image->geo.dims[1];
    files->writers = vx_alloc_zero(run->choices->recipe->network.classes, sizeof *files->writers);
    if (!files->writers) return vx_api_no_memory(error);
    for (size_t i = 0; i < outputs->count; i++) {
        if (outputs->items[i].role != VX_ROLE_PROBABILITY) continue;
        vx_error err;
        const char *path = outputs->items[i].path;
        vx_out_discard(outputs->items[i].file); /* of a first try in half precision */
        outputs->items[i].file = NULL;
        options.keep = &outputs->items[i].file;
        vx_status s = vx_slice_writer_open(path, &image->geo, image->source, &options,
                                           &files->writers[files->count], &err);
        if (s != VX_OK) return vx_api_error(error, path, s, &err);
        files->count++;
    }
    return VXM_OK;
}

/* Finishes or discards every writer. */
static vxm_status close_probabilities(probability_files *files, vxm_status so_far, const char *path,
                                      vxm_error *error) {
    for (size_t k = 0; k < files->count; k++) {
        vx_error err;
        vx_status s = VX_OK;
        if (so_far == VXM_OK)
            s = vx_slice_writer_commit(files->writers[k], &err);
        else
            vx_slice_writer_discard(files->writers[k]);
        if (s != VX_OK) so_far = vx_api_error(error, path, s, &err);
    }
    vx_free(files->writers);
    return so_far;
}

/* outputs: NULL when nothing is written. *overflow is set as vx_session_predict does. */
static vxm_status predict_with(vx_case_run *run, vx_session *session, vx_volume *image,
                               vx_outputs *outputs, vx_mask **mask, bool *overflow,
                               vxm_error *error) {
    vx_error err;
    vx_predict_record record = {0};
    probability_files files = {0};
    vx_predict_options options = {.log = &run->log,
                                  .force = run->choices->options.force != 0,
                                  .consume = run->consume,
                                  .overflow = overflow};
    if (session == run->session->session) {
        options.others = run->session->others;
        options.other_count = run->session->other_count;
    }
    vxm_status s = VXM_OK;
    *mask = NULL;
    if (outputs && run->choices->options.probabilities) {
        s = open_probabilities(run, image, outputs, &files, error);
        options.sink = put_slices;
        options.sink_data = &files;
    }
    if (s == VXM_OK) {
        vx_status t = vx_session_predict(session, image, &options, mask, &record, &err);
        if (t != VX_OK) {
            const char *file = run->files ? run->files->shown : NULL;
            s = vx_api_error(error, t == VX_ERR_OUTPUT ? run->target->mask : file, t, &err);
        }
    }
    s = close_probabilities(&files, s, run->target ? run->target->mask : NULL, error);
    run->result->pub.preprocess_s += record.preprocess;
    run->result->pub.network_s += record.network;
    run->result->pub.accumulate_s += record.accumulate;
    run->result->pub.finalise_s += record.finalise;
    if (record.device_bytes > run->result->pub.device_bytes)
        run->result->pub.device_bytes = record.device_bytes;
    return s;
}

/* Reads an image again whose voxels were used up, silently: what there is to say of the file has
 * been said. The same grid, or an error. */
static vxm_status read_used_up(vx_case_run *run, vx_volume **image, vxm_error *error) {
    const vx_geometry geo = (*image)->geo;
    const vx_log log = run->log;
    vx_volume_free(*image);
    run->log.message = NULL;
    vxm_status s = vx_read_inputs(run, run->session->pool, vx_admit_unchanged(&geo), image, error);
    run->log = log;
    return s;
}

/* fp16 may overflow where fp32 does not. Where auto chose it, such a case is done again in fp32,
 * all of it: a mask has one precision (docs/decisions/0004). *image is read again if it was used
 * up. */
static vxm_status predict(vx_case_run *run, vx_volume **image, vx_outputs *outputs, vx_mask **mask,
                          vxm_error *error) {
    bool overflow = false;
    vx_session *exact = NULL;
    vxm_status s =
        predict_with(run, run->session->session, *image, outputs, mask, &overflow, error);
    if (!overflow || !run->session->may_repeat) return s;
    vx_log_message(&run->log, VX_LOG_WARNING,
                   "a logit is infinite or NaN in half precision: computed again in fp32");
    run->repeated = true;
    s = vx_exact_session(run->session, &exact, error);
    if (s == VXM_OK && !(*image)->data) s = read_used_up(run, image, error);
    return s == VXM_OK ? predict_with(run, exact, *image, outputs, mask, NULL, error) : s;
}

/* Labels that were not asked for become background. */
static void keep_wanted(vx_mask *mask, const vx_choices *choices) {
    const vx_label_table *table = &choices->recipe->labels;
    if (choices->wanted_count == table->count) return;
    size_t voxels = vx_voxels(&mask->geo);
    for (size_t i = 0; i < voxels; i++) {
        unsigned value = vx_mask_get(mask, i);
        const vx_label *label = value ? vx_label_find(table, value) : NULL;
        if (label && !choices->wanted[label - table->labels]) vx_mask_set(mask, i, 0);
    }
}

static vxm_status clean_up(vx_case_run *run, vx_mask *mask, vxm_error *error) {
    vx_error err;
    vx_status s = VX_OK;
    const vx_choices *choices = run->choices;
    keep_wanted(mask, choices);
    if (choices->largest_count)
        s = vx_keep_largest(mask, choices->largest, choices->largest_count, &err);
    if (s == VX_OK && choices->remove_small_mm3 > 0)
        s = vx_remove_small(mask, choices->remove_small_mm3, &err);
    return s == VX_OK ? VXM_OK : vx_api_error(error, NULL, s, &err);
}

static vxm_status measure(vx_case_run *run, const vx_volume *image, const vx_mask *mask,
                          vxm_error *error) {
    vx_result *result = run->result;
    vxm_status s = vx_result_measure(result, image, mask, run->choices, run->session->pool, error);
    uint64_t voxels = 0;
    for (size_t i = 0; i < result->pub.label_count; i++) voxels += result->labels[i].voxels;
    if (s == VXM_OK && !voxels)
        vx_log_message(&run->log, VX_LOG_WARNING, "no label was found: the mask is empty");
    return s;
}

/* A mask of 0 and 1 for one label. */
static vx_status write_label(const char *path, const vx_mask *mask, const vx_label *label,
                             const vx_write_options *options, vx_error *err) {
    vx_mask *one;
    vx_status s = vx_mask_create(&mask->geo, 1, &one, err);
    if (s != VX_OK) return s;
    one->source = vx_source_ref(mask->source);
    size_t voxels = vx_voxels(&mask->geo);
    uint8_t *to = one->data;
    for (size_t i = 0; i < voxels; i++) to[i] = vx_mask_get(mask, i) == label->value;
    vx_label as_one = *label;
    as_one.value = 1;
    vx_label_table table = {.count = 1, .labels = &as_one};
    vx_write_options with_name = *options;
    with_name.labels = &table;
    s = vx_io_write_mask(path, one, &with_name, err);
    vx_mask_free(one);
    return s;
}

/* Everything but probabilities, which were streamed; nothing gets its name yet. */
static vxm_status write_nameless(vx_case_run *run, const vx_volume *image, const vx_mask *mask,
                                 vx_outputs *outputs, vxm_error *error) {
    const vx_label_table *table = &run->choices->recipe->labels;
    vx_write_options options = {.format = run->target->format,
                                .labels = &run->choices->table,
                                .algorithm = run->choices->recipe->name,
                                .algorithm_version = run->choices->recipe->version,
                                .anonymous = run->choices->options.anonymous != 0,
                                .log = &run->log,
                                .pool = run->session->pool};
    for (size_t i = 0; i < outputs->count; i++) {
        vx_error err;
        vx_status s = VX_OK;
        vx_output *item = &outputs->items[i];
        options.keep = &item->file;
        switch (item->role) {
        case VX_ROLE_PROBABILITY:
            break;
        case VX_ROLE_PREVIEW:
            s = vx_preview_write(item->path, image, mask, table, false, &item->file, &err);
            break;
        case VX_ROLE_LABEL:
            s = write_label(item->path, mask, &table->labels[item->index], &options, &err);
            break;
        case VX_ROLE_TABLE:
            s = vx_label_table_write(item->path, options.labels, false, &item->file, &err);
            break;
        case VX_ROLE_MASK:
            s = vx_io_write_mask(item->path, mask, &options, &err);
            break;
        }
        const bool one_of_many = item->role == VX_ROLE_PROBABILITY || item->role == VX_ROLE_LABEL;
        if (s == VX_OK && one_of_many) s = vx_out_park(item->file, &err);
        if (s != VX_OK) return vx_api_error(error, item->path, s, &err);
    }
    return VXM_OK;
}

static vxm_status write_outputs(vx_case_run *run, const vx_volume *image, const vx_mask *mask,
                                vx_outputs *outputs, vxm_error *error) {
    const vx_choices *choices = run->choices;
    bool replace = choices->options.overwrite || run->resume;
    vxm_result *result = &run->result->pub;
    vxm_status s = write_nameless(run, image, mask, outputs, error);
    if (s == VXM_OK) s = vx_outputs_hash(outputs, &run->log, error);
    if (s == VXM_OK) s = enter(run, "write", 0.99, 0.01, error); /* the last moment to stop */
    if (s != VXM_OK) return s;
    cJSON *sidecar = NULL;
    if (run->target->sidecar) {
        sidecar = vx_sidecar_json(
            run->session->model->model, result->input_sha256,
            vx_choices_json(choices, run->session, run->repeated, run->target->format),
            vx_outputs_json(outputs, choices->recipe));
        cJSON_AddItemToObject(sidecar, "labels", vx_result_labels_json(result, true));
    }
    return vx_outputs_commit(outputs, sidecar, replace, error);
}

static vxm_status take_hash(vx_case_run *run, vxm_error *error) {
    return run->ahead ? vx_read_ahead_hash(run->ahead, run, error) : vx_hash_inputs(run, error);
}

static vxm_status take_memory(void *data, const vx_geometry *geo, uint64_t beside,
                              vxm_error *error) {
    return vx_memory_take(data, geo, beside, true, error);
}

/* What can be said of the outputs before the work: a file's name does not tell what it holds. */
static vxm_status check_output_format(const vx_case_run *run, const vx_volume *image,
                                      vxm_error *error) {
    const vx_plan_outputs outputs = vx_choices_outputs(run->choices, run->target);
    const bool dicom = image->source && image->source->kind == VX_FORMAT_DICOM;
    if (outputs.format == VX_FORMAT_DICOM_SEG && !dicom)
        return vx_api_fail(error, run->files->shown, VXM_ERR_USAGE, VX_NEEDS_DICOM);
    const char *caution = vx_plan_caution(&image->geo, &outputs);
    if (caution) vx_log_message(&run->log, VX_LOG_WARNING, "%s", caution);
    return VXM_OK;
}

/* Memory is taken before a voxel is read: a file of few bytes may claim more than the machine has.
 */
static vxm_status read_image(vx_case_run *run, vx_volume **image, vxm_error *error) {
    vxm_status s = VXM_OK;
    if (run->ahead) s = vx_read_ahead_image(run->ahead, run, image, error);
    if (s != VXM_OK) return s;
    if (*image) {
        s = take_memory(run, &(*image)->geo, 0, error);
    } else {
        const vx_admission admission = {take_memory, run};
        s = vx_read_inputs(run, run->session->pool, admission, image, error);
    }
    return s == VXM_OK ? check_output_format(run, *image, error) : s;
}

/* The image that the prediction used up, for statistics and preview. */
static vxm_status read_again(vx_case_run *run, vx_volume **image, vxm_error *error) {
    vx_geometry geo = (*image)->geo;
    vx_volume_free(*image);
    *image = NULL;
    return vx_read_again(run, &geo, image, error);
}

/* ---- The whole way ---- */

static vxm_status segment(vx_case_run *run, vx_outputs *outputs, vx_volume **image, vx_mask **mask,
                          vxm_error *error) {
    vxm_result *result = &run->result->pub;
    bool replace = run->choices->options.overwrite || run->resume;
    double t0 = vx_seconds();
    vxm_status s = enter(run, "hash", 0.0, 0.02, error);
    if (s == VXM_OK) s = take_hash(run, error);
    if (s == VXM_OK)
        s = vx_outputs_check_inputs(outputs, run->files->files, run->files->channel_count, error);
    if (s != VXM_OK) return s;
    cJSON *sidecar = NULL;
    if (run->resume && vx_outputs_confirmed(outputs, run->choices, run->session,
                                            result->input_sha256, &run->log, &sidecar)) {
        vx_result_restore(run->result, cJSON_GetObjectItemCaseSensitive(sidecar, "labels"));
        cJSON_Delete(sidecar);
        result->skipped = 1;
        return VXM_OK;
    }
    if (!replace)
        s = vx_outputs_check_absent(outputs, error);
    else if (!run->choices->options.overwrite)
        s = vx_outputs_check_sidecar(outputs, error);
    if (s == VXM_OK) s = vx_outputs_check_writable(outputs, error);

    double t1 = vx_seconds();
    result->hash_s += t1 - t0;
    if (s == VXM_OK) s = enter(run, "read", 0.02, 0.03, error);
    if (s == VXM_OK) s = read_image(run, image, error);
    if (s != VXM_OK) return s;
    vx_result_geometry(run->result, &(*image)->geo);
    result->read_s += vx_seconds() - t1;

    s = enter(run, "prepare", 0.05, 0.88, error);
    if (s == VXM_OK) s = predict(run, image, outputs, mask, error);

    double t2 = vx_seconds();
    if (s == VXM_OK && run->consume) s = read_again(run, image, error);

    double t3 = vx_seconds();
    result->read_s += t3 - t2;
    if (s == VXM_OK) s = enter(run, "postprocess", 0.93, 0.02, error);
    if (s == VXM_OK) s = clean_up(run, *mask, error);
    if (s == VXM_OK) s = measure(run, *image, *mask, error);

    double t4 = vx_seconds();
    result->postprocess_s = t4 - t3;
    if (s == VXM_OK) s = enter(run, "write", 0.95, 0.04, error);
    if (s == VXM_OK) s = write_outputs(run, *image, *mask, outputs, error);
    result->write_s = vx_seconds() - t4;
    return s;
}

vxm_status vx_segment_case(vx_case_run *run, vxm_result **out, vxm_error *error) {
    vx_outputs outputs = {0};
    vx_volume *image = NULL;
    vx_mask *mask = NULL;
    *out = NULL;
    double start = vx_seconds();
    vxm_status s = vx_case_begin(run, error);
    if (s != VXM_OK) return s;
    vxm_result *result = &run->result->pub;
    s = vx_outputs_make(run->target, run->choices, &outputs, error);
    if (s == VXM_OK) s = segment(run, &outputs, &image, &mask, error);
    if (s == VXM_OK) {
        memcpy(result->output_sha256, outputs.items[outputs.count - 1].sha256,
               sizeof result->output_sha256);
        run->result->outputs = vx_outputs_json(&outputs, run->choices->recipe);
    }
    vx_outputs_free(&outputs);
    vx_mask_free(mask);
    vx_volume_free(image);
    vx_case_end(run);
    result->total_s = vx_seconds() - start + vx_read_ahead_seconds(run->ahead);
    result->peak_bytes = vx_peak_memory();
    *out = result;
    return s;
}

/* ---- From memory to memory ---- */

static vxm_status copy_mask(const vx_mask *mask, void *out, unsigned bytes, vxm_error *error) {
    size_t voxels = vx_voxels(&mask->geo);
    if (mask->bytes == bytes) {
        memcpy(out, mask->data, voxels * bytes);
        return VXM_OK;
    }
    for (size_t i = 0; i < voxels; i++) {
        unsigned value = vx_mask_get(mask, i);
        if (bytes == 2)
            ((uint16_t *)out)[i] = (uint16_t)value;
        else if (value <= 255)
            ((uint8_t *)out)[i] = (uint8_t)value;
        else
            return vx_api_fail(error, NULL, VXM_ERR_USAGE,
                               "label %u does not fit one byte (use two bytes a voxel)", value);
    }
    return VXM_OK;
}

static vxm_status check_image(const vxm_image *image, unsigned bytes, vx_volume *out,
                              vxm_error *error) {
    vx_error err;
    *out = (vx_volume){.channels = image->channels, .data = (float *)image->voxels};
    memcpy(out->geo.dims, image->dims, sizeof image->dims);
    memcpy(out->geo.affine, image->affine, sizeof image->affine);
    if (bytes != 1 && bytes != 2)
        return vx_api_fail(error, NULL, VXM_ERR_USAGE, "%u bytes a voxel (1 or 2)", bytes);
    vx_status s = vx_geometry_check(&out->geo, &err);
    return s == VX_OK ? VXM_OK : vx_api_error(error, NULL, s, &err);
}

vxm_status vxm_segment_image(vxm_session *session, const vxm_image *image,
                             const vxm_segment_options *options, void *mask_out,
                             unsigned bytes_per_voxel, vxm_result **result, vxm_error *error) {
    vxm_segment_options known;
    vx_volume volume;
    vx_choices choices;
    if (result) *result = NULL;
    vxm_segment_options_init(&known, sizeof known);
    vxm_status s = vx_api_options(&known, sizeof known, options, error);
    if (s == VXM_OK) s = check_image(image, bytes_per_voxel, &volume, error);
    if (s == VXM_OK) s = vx_choices_make(&known, session->model->model->recipe, &choices, error);
    if (s != VXM_OK) return s;
    vx_run_state state;
    vx_run_state_init(&state, &known.callbacks, 1);
    vx_say_device(session, &known.callbacks);
    vx_memory_begin(&state, session->memory_limit,
                    vx_voxels(&volume.geo) * volume.channels * sizeof(float));
    vx_case_run run = {.session = session, .choices = &choices, .number = 1, .state = &state};
    vx_mask *mask = NULL;
    double start = vx_seconds();
    s = vx_case_begin(&run, error);
    if (s == VXM_OK) {
        vx_result_geometry(run.result, &volume.geo);
        s = vx_memory_take(&run, &volume.geo, 0, false, error);
        if (s == VXM_OK) s = enter(&run, "prepare", 0.0, 0.95, error);
        vx_volume *image_in_place = &volume; /* nothing consumes it */
        if (s == VXM_OK) s = predict(&run, &image_in_place, NULL, &mask, error);
        if (s == VXM_OK) s = enter(&run, "postprocess", 0.95, 0.05, error);
        if (s == VXM_OK) s = clean_up(&run, mask, error);
        if (s == VXM_OK) s = measure(&run, &volume, mask, error);
        if (s == VXM_OK) s = copy_mask(mask, mask_out, bytes_per_voxel, error);
        run.result->pub.total_s = vx_seconds() - start;
        run.result->pub.peak_bytes = vx_peak_memory();
    }
    if (s == VXM_OK && result)
        *result = &run.result->pub;
    else if (run.result)
        vxm_result_free(&run.result->pub);
    vx_mask_free(mask);
    vx_case_end(&run);
    vx_choices_free(&choices);
    vx_run_state_destroy(&state);
    return s;
}
