/* voxmamba info: a volume's geometry, a DICOM folder's series, or a model's recipe. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "api/voxmamba.h"
#include "device.h"
#include "models_path.h"
#include "output.h"
#include "verbs.h"

typedef struct info_args {
    cli_common common;
    bool json, plan, anonymous;
    const char *model, *series, *format;
    cli_device device;
} info_args;

static const cli_option options[] = {
    {0, "json", CLI_FLAG, offsetof(info_args, json), NULL, "print JSON"},
    {0, "plan", CLI_FLAG, offsetof(info_args, plan), NULL,
     "add peak memory and FLOPs of segmenting it (a model: one patch)"},
    {0, "anonymous", CLI_FLAG, offsetof(info_args, anonymous), NULL,
     "leave out paths, series UIDs, descriptions and file names"},
    {0, "series", CLI_TEXT, offsetof(info_args, series), "UID|NUMBER[/PART]",
     "this DICOM series only"},
    {'m', "model", CLI_TEXT, offsetof(info_args, model), "NAME|FILE", "the model of --plan"},
    {0, "format", CLI_TEXT, offsetof(info_args, format), "nii.gz|nii|nrrd|seg.nrrd|mha|dcmseg",
     "the masks' format of --plan: dcmseg takes memory of its own"},
    CLI_DEVICE_OPTIONS(info_args, device),
    CLI_COMMON_OPTIONS(info_args, common),
};

/* ---- Printing ---- */

static double number_at(const cJSON *array, int i) {
    return cJSON_GetNumberValue(cJSON_GetArrayItem(array, i));
}

static double number_of(const cJSON *object, const char *key) {
    const cJSON *item = cJSON_GetObjectItem(object, key);
    return cJSON_IsNumber(item) ? item->valuedouble : 0.0;
}

static void print_text(const cJSON *object, const char *key, const char *title) {
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItem(object, key));
    if (!text || !*text) return;
    printf("%-13s", title);
    cli_print_safe(text);
    putchar('\n');
}

static void print_geometry(const cJSON *volume) {
    const cJSON *dims = cJSON_GetObjectItem(volume, "dims");
    const cJSON *spacing = cJSON_GetObjectItem(volume, "spacing"), *row;
    const char *title = "affine";
    printf("%-13s%.0f x %.0f x %.0f voxels (x, y, z)\n", "size", number_at(dims, 0),
           number_at(dims, 1), number_at(dims, 2));
    if (cJSON_IsArray(spacing))
        printf("%-13s%.6g x %.6g x %.6g mm\n", "spacing", number_at(spacing, 0),
               number_at(spacing, 1), number_at(spacing, 2));
    print_text(volume, "orientation", "orientation");
    print_text(volume, "dtype", "type");
    printf("%-13s%.0f\n", "channels", number_of(volume, "channels"));
    cJSON_ArrayForEach(row, cJSON_GetObjectItem(volume, "affine")) {
        printf("%-13s%12.6g %12.6g %12.6g %12.6g\n", title, number_at(row, 0), number_at(row, 1),
               number_at(row, 2), number_at(row, 3));
        title = "";
    }
}

static void print_plan(const cJSON *plan) {
    if (!plan) return;
    printf("%-13s%.1f MB peak: network %.1f, accumulators %.1f, volume %.1f, program %.1f\n",
           "memory", number_of(plan, "peak_bytes") / 1e6, number_of(plan, "network_bytes") / 1e6,
           number_of(plan, "accumulator_bytes") / 1e6, number_of(plan, "volume_bytes") / 1e6,
           number_of(plan, "program_bytes") / 1e6);
    if (cJSON_GetObjectItem(plan, "device_room_bytes"))
        printf("%-13s%.1f MB of %.1f: network %.1f, volume and accumulators %.1f%s\n", "GPU memory",
               (number_of(plan, "device_network_bytes") + number_of(plan, "device_volume_bytes")) /
                   1e6,
               number_of(plan, "device_room_bytes") / 1e6,
               number_of(plan, "device_network_bytes") / 1e6,
               number_of(plan, "device_volume_bytes") / 1e6,
               number_of(plan, "device_volume_bytes") > 0 ? "" : " (in the host's memory)");
    if (cJSON_GetObjectItem(plan, "output_bytes"))
        printf("%-13sup to %.1f MB of DICOM SEG\n", "output",
               number_of(plan, "output_bytes") / 1e6);
    print_text(plan, "caution", "caution");
    printf("%-13s%.1f GFLOP in %.0f tiles\n", "work", number_of(plan, "flops") / 1e9,
           number_of(plan, "tiles"));
}

static void print_series(const cJSON *series) {
    const cJSON *problem;
    printf("%-13s%.0f", "series", number_of(series, "number"));
    const cJSON *part = cJSON_GetObjectItem(series, "part");
    if (part) printf("/%.0f", part->valuedouble);
    putchar('\n');
    print_text(series, "contents", "contents");
    print_text(series, "uid", "uid");
    print_text(series, "description", "description");
    print_text(series, "modality", "modality");
    printf("%-13s%.0f\n", "files", number_of(series, "files"));
    print_geometry(series);
    cJSON_ArrayForEach(problem, cJSON_GetObjectItem(series, "problems"))
        print_text(problem, "message", "problem");
    print_plan(cJSON_GetObjectItem(series, "plan"));
    putchar('\n');
}

static void print_list(const char *title, const cJSON *items, const char *key) {
    const cJSON *item;
    const char *comma = "";
    printf("%-13s", title);
    cJSON_ArrayForEach(item, items) {
        const char *text = cJSON_GetStringValue(cJSON_GetObjectItem(item, key));
        fputs(comma, stdout);
        if (cJSON_GetObjectItem(item, "value")) printf("%.0f ", number_of(item, "value"));
        cli_print_safe(text ? text : "");
        comma = ", ";
    }
    putchar('\n');
}

static void print_model(const cJSON *model) {
    const cJSON *recipe = cJSON_GetObjectItem(model, "recipe");
    const cJSON *patch = cJSON_GetObjectItem(recipe, "patch_zyx");
    const cJSON *spacing = cJSON_GetObjectItem(recipe, "spacing_zyx_mm");
    print_text(recipe, "name", "model");
    print_text(recipe, "version", "version");
    print_text(recipe, "description", "about");
    print_text(recipe, "licence", "licence");
    print_text(recipe, "modality", "modality");
    print_list("channels", cJSON_GetObjectItem(recipe, "channels"), "name");
    print_list("labels", cJSON_GetObjectItem(recipe, "labels"), "name");
    printf("%-13s%.6g x %.6g x %.6g mm\n", "spacing", number_at(spacing, 2), number_at(spacing, 1),
           number_at(spacing, 0));
    printf("%-13s%.0f x %.0f x %.0f voxels (x, y, z)\n", "patch", number_at(patch, 2),
           number_at(patch, 1), number_at(patch, 0));
    printf("%-13s%.0f\n", "parameters", number_of(model, "parameters"));
    print_text(model, "sha256", "sha256");
    print_plan(cJSON_GetObjectItem(model, "plan"));
}

static void print_info(const cJSON *info) {
    const cJSON *series = cJSON_GetObjectItem(info, "series"), *item;
    if (cJSON_GetObjectItem(info, "recipe")) {
        print_model(info);
    } else if (series) {
        cJSON_ArrayForEach(item, series) print_series(item);
    } else {
        print_text(info, "format", "format");
        print_geometry(info);
        print_plan(cJSON_GetObjectItem(info, "plan"));
    }
}

/* ---- Running ---- */

/* The model and session that --plan asks about. */
static vxm_status open_plan(const info_args *args, const char *path, vxm_model **model,
                            vxm_session **session, vxm_error *error) {
    vxm_session_options options_;
    if (!cli_device_options(&args->device, &options_)) {
        error->text[0] = '\0'; /* said already */
        return VXM_ERR_USAGE;
    }
    vxm_batch *batch = NULL;
    char *folders = cli_model_folders(NULL);
    vxm_status s = VXM_OK;
    if (vxm_is_model(path)) {
        s = vxm_model_open(path, model, error);
    } else {
        vxm_batch_options one;
        vxm_batch_options_init(&one, sizeof one);
        one.inputs = &path;
        one.input_count = 1;
        one.output = "."; /* named, never written */
        if (!args->model) s = vxm_batch_open(&one, NULL, &batch, error);
        if (s == VXM_OK) s = vxm_model_find(args->model, folders, batch, model, error);
    }
    if (s == VXM_OK) s = vxm_session_create(*model, &options_, session, error);
    vxm_batch_close(batch);
    free(folders);
    return s;
}

static vxm_status run_info(const info_args *args) {
    const char *path = args->common.operands.items[0];
    vxm_model *model = NULL;
    vxm_session *session = NULL;
    vxm_error error;
    vxm_status s = VXM_OK;
    char *json = NULL;
    vxm_info_options info;
    vxm_info_options_init(&info, sizeof info);
    info.anonymous = args->anonymous;
    info.series = args->series;
    info.format = args->format;
    if (args->plan) s = open_plan(args, path, &model, &session, &error);
    info.session = session;
    if (s == VXM_OK) s = vxm_info_json(path, &info, &json, &error);
    if (s != VXM_OK) {
        if (args->anonymous) vxm_redact(error.text);
        if (error.text[0]) cli_error(&error, 0);
    } else if (args->json) {
        puts(json);
    } else {
        cJSON *root = cJSON_Parse(json);
        print_info(root);
        cJSON_Delete(root);
    }
    vxm_free(json);
    vxm_session_free(session);
    vxm_model_close(model);
    return s;
}

static int main_info(int argc, char **argv) {
    info_args args = {.device = CLI_DEVICE_DEFAULTS};
    int code = VXM_ERR_USAGE;
    if (!cli_parse_common(&cli_info, argc, argv, &args.common))
        ;
    else if (args.common.help) {
        cli_print_help(&cli_info);
        code = cli_exit_code(VXM_OK);
    } else if (args.common.operands.count != 1)
        cli_usage_error("info takes one file or folder, %zu were given (see voxmamba info --help)",
                        args.common.operands.count);
    else
        code = cli_exit_code(run_info(&args));
    cli_free_args(&cli_info, &args);
    return code;
}

const cli_verb cli_info = {
    .name = "info",
    .operands = "FILE [OPTIONS]",
    .summary = "show a volume's geometry, a DICOM folder's series or a model's recipe",
    .details =
        "JSON of a volume: path, format, dims [x,y,z], spacing [mm], affine (4 rows of 4, voxel\n"
        "centre to RAS mm), orientation, dtype, channels; of a folder: series; of a model: "
        "recipe,\n"
        "sha256, parameters.",
    .options = options,
    .option_count = sizeof options / sizeof *options,
    .run = main_info,
};
