/* The report and the statistics of a run (docs/report.schema.json). A report names a case by its
 * number and hashes: no path, name, identifier or date of a patient unless log_paths asks for the
 * paths. Statistics are results for the caller and carry the case's name. */
#include <string.h>

#include "api/batch.h"
#include "base/clock.h"
#include "base/memory.h"

static const char *status_name(vxm_case_status status) {
    switch (status) {
    case VXM_CASE_PLANNED:
        return "planned";
    case VXM_CASE_DONE:
        return "done";
    case VXM_CASE_SKIPPED:
        return "skipped";
    case VXM_CASE_FAILED:
        return "failed";
    case VXM_CASE_CANCELLED:
        return "cancelled";
    }
    return "planned";
}

static cJSON *tool_json(void) {
    cJSON *tool = cJSON_CreateObject();
    cJSON_AddStringToObject(tool, "name", "voxmamba");
    cJSON_AddStringToObject(tool, "version", vxm_version());
    cJSON_AddStringToObject(tool, "commit", vxm_commit());
    return tool;
}

static cJSON *model_json(const vx_model *model) {
    cJSON *object = cJSON_CreateObject();
    cJSON_AddStringToObject(object, "name", model->recipe->name);
    cJSON_AddStringToObject(object, "version", model->recipe->version);
    cJSON_AddStringToObject(object, "licence", model->recipe->licence);
    cJSON_AddStringToObject(object, "sha256", model->sha256);
    return object;
}

cJSON *vx_run_json(const vxm_batch *batch, const vxm_session *session, const vx_choices *choices,
                   unsigned workers, unsigned devices) {
    cJSON *run = cJSON_CreateObject();
    cJSON_AddItemToObject(run, "model", model_json(session->model->model));
    cJSON_AddItemToObject(run, "options",
                          vx_choices_json(choices, session, false, batch->rule.format));
    cJSON *device = cJSON_AddObjectToObject(run, "device");
    cJSON_AddStringToObject(device, "kind", session->backend->name);
    cJSON_AddStringToObject(device, "description", session->device);
    vx_json_size(device, "threads", session->threads);
    vx_json_size(device, "jobs", workers);
    vx_json_size(device, "devices", devices);
    return run;
}

/* Texts from readers may quote an identifier or a path of the file. */
static void add_text(cJSON *object, const char *key, const char *text, bool paths) {
    char *copy = vx_strdup(text);
    if (!copy) return;
    if (!paths) vxm_redact(copy);
    vx_json_text(object, key, copy);
    vx_free(copy);
}

static cJSON *times_json(const vxm_result *result) {
    cJSON *times = cJSON_CreateObject();
    cJSON_AddNumberToObject(times, "hash", result->hash_s);
    cJSON_AddNumberToObject(times, "read", result->read_s);
    cJSON_AddNumberToObject(times, "preprocess", result->preprocess_s);
    cJSON_AddNumberToObject(times, "network", result->network_s);
    cJSON_AddNumberToObject(times, "accumulate", result->accumulate_s);
    cJSON_AddNumberToObject(times, "finalise", result->finalise_s);
    cJSON_AddNumberToObject(times, "postprocess", result->postprocess_s);
    cJSON_AddNumberToObject(times, "write", result->write_s);
    cJSON_AddNumberToObject(times, "total", result->total_s);
    return times;
}

static void add_result(cJSON *object, const vxm_result *result, bool paths) {
    const vx_result *own = (const vx_result *)result;
    if (result->input_sha256[0])
        cJSON_AddStringToObject(object, "input_sha256", result->input_sha256);
    if (result->dims[0]) {
        cJSON *geometry = cJSON_AddObjectToObject(object, "geometry");
        vx_json_geometry(geometry, &own->geo);
    }
    cJSON_AddItemToObject(object, "times_s", times_json(result));
    vx_json_size(object, "peak_memory_bytes", result->peak_bytes);
    if (result->device_bytes) vx_json_size(object, "device_memory_bytes", result->device_bytes);
    cJSON *warnings = cJSON_AddArrayToObject(object, "warnings");
    for (size_t i = 0; i < result->warning_count; i++)
        add_text(warnings, NULL, result->warnings[i], paths);
    if (result->label_count)
        cJSON_AddItemToObject(object, "labels", vx_result_labels_json(result, false));
    if (own->outputs) cJSON_AddItemToObject(object, "outputs", cJSON_Duplicate(own->outputs, 1));
}

static cJSON *case_json(const vxm_batch *batch, size_t i) {
    const vxm_case *c = &batch->cases[i];
    bool paths = batch->segment.log_paths != 0;
    cJSON *object = cJSON_CreateObject();
    vx_json_size(object, "case", c->number);
    cJSON_AddStringToObject(object, "status", status_name(c->status));
    vx_json_size(object, "channels", c->channels);
    if (paths) {
        const vx_case_files *files = &batch->list.cases[batch->index[i]];
        cJSON *inputs = cJSON_AddArrayToObject(object, "input_paths");
        for (size_t k = 0; k < files->channel_count; k++)
            add_text(inputs, NULL, files->files[k], true);
        vx_json_text(object, "output_path", c->output);
    }
    if (c->error && c->status == VXM_CASE_FAILED) {
        cJSON *error = cJSON_AddObjectToObject(object, "error");
        vx_json_size(error, "code", (uint64_t)c->error->code);
        add_text(error, "message", c->error->text, paths);
    }
    if (c->plan) cJSON_AddItemToObject(object, "plan", vx_json_plan(c->plan));
    if (c->result) add_result(object, c->result, paths);
    return object;
}

static cJSON *summary_json(const vxm_batch *batch) {
    static const vxm_case_status kinds[] = {VXM_CASE_DONE, VXM_CASE_SKIPPED, VXM_CASE_FAILED,
                                            VXM_CASE_CANCELLED};
    cJSON *summary = cJSON_CreateObject();
    vx_json_size(summary, "found", batch->list.count);
    vx_json_size(summary, "shard", batch->options.shard);
    vx_json_size(summary, "shards", batch->options.shards);
    vx_json_size(summary, "cases", batch->count);
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        size_t n = 0;
        for (size_t i = 0; i < batch->count; i++) n += batch->cases[i].status == kinds[k];
        vx_json_size(summary, status_name(kinds[k]), n);
    }
    double end = batch->finished > 0 ? batch->finished : vx_seconds();
    cJSON_AddNumberToObject(summary, "seconds", batch->run ? end - batch->started : 0.0);
    vx_json_size(summary, "peak_memory_bytes", vx_peak_memory());
    return summary;
}

cJSON *vx_batch_report(const vxm_batch *batch) {
    cJSON *root = cJSON_CreateObject();
    vx_json_size(root, "report", 1); /* version of this format */
    cJSON_AddItemToObject(root, "tool", tool_json());
    const cJSON *item;
    cJSON_ArrayForEach(item, batch->run)
        cJSON_AddItemToObject(root, item->string, cJSON_Duplicate(item, 1));
    cJSON_AddItemToObject(root, "summary", summary_json(batch));
    cJSON *cases = cJSON_AddArrayToObject(root, "cases");
    for (size_t i = 0; i < batch->count; i++) cJSON_AddItemToArray(cases, case_json(batch, i));
    return root;
}

cJSON *vx_batch_stats(const vxm_batch *batch) {
    cJSON *root = cJSON_CreateObject();
    cJSON *cases = cJSON_AddArrayToObject(root, "cases");
    for (size_t i = 0; i < batch->count; i++) {
        const vxm_case *c = &batch->cases[i];
        if (!c->result || !c->result->label_count) continue;
        cJSON *object = cJSON_CreateObject();
        vx_json_size(object, "case", c->number);
        vx_json_text(object, "name", c->name);
        cJSON_AddItemToObject(object, "labels", vx_result_labels_json(c->result, true));
        cJSON_AddItemToArray(cases, object);
    }
    return root;
}
