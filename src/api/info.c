/* What a volume, a folder of DICOM, a model or this build is, as JSON text. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "api/devices.h"
#include "api/outputs.h"
#include "base/memory.h"
#include "base/text.h"
#include "base/threads.h"

int vxm_is_model(const char *path) {
    /* A safetensors file: the length of its JSON header in 8 bytes, then the header's brace. */
    unsigned char start[9] = {0};
    FILE *f = fopen(path, "rb");
    size_t n = f ? fread(start, 1, sizeof start, f) : 0;
    if (f) fclose(f);
    return (n == sizeof start && start[8] == '{' && start[6] == 0 && start[7] == 0) ||
           (f && vx_has_ending(path, ".safetensors"));
}

/* beside: as vx_plan_volume's. */
static vxm_status add_plan(cJSON *object, const vxm_info_options *options, const vx_geometry *geo,
                           uint64_t beside, vxm_error *error) {
    vxm_plan plan;
    const vxm_session *session = options->session;
    if (!session) return VXM_OK;
    vx_plan_outputs outputs = {.labels = session->model->model->recipe->labels.count};
    vxm_status s = VXM_OK;
    if (options->format) s = vx_output_format(options->format, &outputs.format, error);
    if (s == VXM_OK) s = vx_plan_volume(session, geo, beside, &outputs, &plan, error);
    if (s != VXM_OK) return s;
    cJSON *shown = vx_json_plan(&plan);
    const char *caution = vx_plan_caution(geo, &outputs);
    if (caution) cJSON_AddStringToObject(shown, "caution", caution);
    cJSON_AddItemToObject(object, "plan", shown);
    return VXM_OK;
}

static void add_image(cJSON *object, const vx_image_info *info) {
    cJSON_AddStringToObject(object, "format", vx_format_name(info->format));
    if (vx_geometry_check(&info->geo, NULL) == VX_OK) {
        vx_json_geometry(object, &info->geo);
    } else { /* DICOM without a usable grid: its problems say why */
        cJSON_AddItemToObject(object, "dims", vx_json_sizes(info->geo.dims, 3));
        cJSON_AddNullToObject(object, "spacing");
        cJSON_AddNullToObject(object, "affine");
        cJSON_AddNullToObject(object, "orientation");
    }
    cJSON_AddStringToObject(object, "dtype", info->dtype);
    vx_json_size(object, "channels", info->channels);
}

static vxm_status volume_json(const char *path, const vxm_info_options *options, cJSON *root,
                              vxm_error *error) {
    vx_error err;
    vx_image_info info = {0};
    vx_read_options read = {.series = options->series};
    vx_status s = vx_io_info(path, &read, &info, &err);
    if (s != VX_OK) return vx_api_error(error, path, s, &err);
    bool seg = options->format && vx_format_by_name(options->format) == VX_FORMAT_DICOM_SEG;
    if (options->session && seg && info.format != VX_FORMAT_DICOM)
        return vx_api_fail(error, path, VXM_ERR_USAGE, VX_NEEDS_DICOM);
    if (!options->anonymous) vx_json_text(root, "path", path);
    add_image(root, &info);
    return add_plan(root, options, &info.geo, info.beside, error);
}

/* A damaged file is told by its name, which may be a patient's. */
static void add_problem(cJSON *problems, const vx_series_problem *problem, bool anonymous) {
    char text[sizeof problem->message];
    snprintf(text, sizeof text, "%s", problem->message);
    if (anonymous && strcmp(problem->code, "damaged-files") == 0)
        snprintf(text, sizeof text, "files cannot be read");
    else if (anonymous)
        vxm_redact(text);
    cJSON *object = cJSON_CreateObject();
    cJSON_AddStringToObject(object, "code", problem->code);
    vx_json_text(object, "message", text);
    cJSON_AddItemToArray(problems, object);
}

static vxm_status series_json(const vx_series *series, const vxm_info_options *options,
                              cJSON *array, vxm_error *error) {
    cJSON *object = cJSON_CreateObject();
    cJSON_AddItemToArray(array, object);
    if (!options->anonymous) vx_json_text(object, "uid", series->uid);
    vx_json_size(object, "number", 0);
    cJSON_SetNumberValue(cJSON_GetObjectItem(object, "number"), series->number);
    if (!options->anonymous) vx_json_text(object, "description", series->description);
    vx_json_text(object, "modality", series->modality);
    if (series->part) {
        vx_json_size(object, "part", (size_t)series->part);
        vx_json_text(object, "contents", series->contents);
    }
    vx_json_size(object, "files", series->files);
    add_image(object, &series->info);
    cJSON *problems = cJSON_AddArrayToObject(object, "problems");
    for (size_t i = 0; i < series->problem_count && i < 8; i++)
        add_problem(problems, &series->problems[i], options->anonymous != 0);
    bool usable = !series->problem_count && vx_geometry_check(&series->info.geo, NULL) == VX_OK;
    return !usable ? VXM_OK
                   : add_plan(object, options, &series->info.geo, series->info.beside, error);
}

static vxm_status folder_json(const char *path, const vxm_info_options *options, cJSON *root,
                              vxm_error *error) {
    vx_error err;
    vx_series *series = NULL;
    size_t count = 0;
    vx_read_options read = {.series = options->series};
    vx_status s = vx_io_series(path, &read, &series, &count, &err);
    if (s != VX_OK) return vx_api_error(error, path, s, &err);
    if (!options->anonymous) vx_json_text(root, "path", path);
    cJSON *array = cJSON_AddArrayToObject(root, "series");
    vxm_status status = VXM_OK;
    for (size_t i = 0; i < count && status == VXM_OK; i++)
        status = series_json(&series[i], options, array, error);
    vx_free(series);
    return status;
}

static vxm_status model_json(const char *path, const vxm_info_options *options, char **json,
                             vxm_error *error) {
    vxm_model *model;
    vxm_status s = vxm_model_open(path, &model, error);
    if (s != VXM_OK) return s;
    s = vxm_model_json(model, json, error);
    cJSON *root = s == VXM_OK && options->session ? cJSON_Parse(*json) : NULL;
    if (root) {
        vx_geometry geo = vx_patch_geometry(model->model->recipe);
        vx_free(*json);
        *json = NULL;
        s = add_plan(root, options, &geo, 0, error);
        if (s == VXM_OK)
            s = vx_json_print(root, json, error);
        else
            cJSON_Delete(root);
    }
    vxm_model_close(model);
    return s;
}

vxm_status vxm_info_json(const char *path, const vxm_info_options *options, char **json,
                         vxm_error *error) {
    *json = NULL;
    vxm_info_options known;
    vxm_info_options_init(&known, sizeof known);
    vxm_status s = vx_api_options(&known, sizeof known, options, error);
    if (s != VXM_OK) return s;
    struct stat st;
    if (stat(path, &st) != 0) return vx_api_fail(error, path, VXM_ERR_INPUT, "%s", strerror(errno));
    if (S_ISREG(st.st_mode) && vxm_is_model(path)) return model_json(path, &known, json, error);
    cJSON *root = cJSON_CreateObject();
    s = S_ISDIR(st.st_mode) ? folder_json(path, &known, root, error)
                            : volume_json(path, &known, root, error);
    if (s == VXM_OK) return vx_json_print(root, json, error);
    cJSON_Delete(root);
    return s;
}

/* ---- The build ---- */

static cJSON *format_names(bool (*has)(vx_format)) {
    cJSON *names = cJSON_CreateArray();
    for (int f = VX_FORMAT_NIFTI; f <= VX_FORMAT_DICOM_SEG; f++)
        if (has((vx_format)f))
            cJSON_AddItemToArray(names, cJSON_CreateString(vx_format_name((vx_format)f)));
    return names;
}

/* One line about the processor. */
static void describe_cpu(const vx_backend *cpu, char *line, size_t bytes) {
    vx_error err;
    vx_pool *pool = NULL;
    vx_device *device;
    line[0] = '\0';
    if (vx_pool_create(1, &pool, &err) == VX_OK && cpu->open(0, pool, &device, &err) == VX_OK) {
        cpu->describe(device, line, bytes);
        cpu->close(device);
    }
    vx_pool_free(pool);
}

/* The names that --device takes, and why there is no GPU among them if so. */
static void add_devices(cJSON *root, const vx_device_source *source) {
    vx_error err = {.text = "no NVIDIA device"};
    int count = 0;
    cJSON *devices = cJSON_AddArrayToObject(root, "devices");
    cJSON_AddItemToArray(devices, cJSON_CreateString("cpu"));
    if (source->cuda->count(&count, &err) != VX_OK) count = 0;
    for (int i = 0; i < count; i++) {
        char name[24];
        snprintf(name, sizeof name, "cuda:%d", i);
        cJSON_AddItemToArray(devices, cJSON_CreateString(name));
    }
    if (!count) vx_json_text(root, "no_cuda", err.text);
}

vxm_status vx_build_json_on(const vx_device_source *source, char **json, vxm_error *error) {
    char line[160];
    *json = NULL;
    cJSON *root = cJSON_CreateObject();
    cJSON_AddStringToObject(root, "version", vxm_version());
    cJSON_AddStringToObject(root, "commit", vxm_commit());
    cJSON_AddItemToObject(root, "read", format_names(vx_format_readable));
    cJSON_AddItemToObject(root, "write", format_names(vx_format_writable));
    add_devices(root, source);
    describe_cpu(source->cpu, line, sizeof line);
    cJSON_AddStringToObject(root, "device", line);
    vx_json_size(root, "threads", vx_cpu_count());
    return vx_json_print(root, json, error);
}

vxm_status vxm_build_json(char **json, vxm_error *error) {
    return vx_build_json_on(&vx_machine_devices, json, error);
}
