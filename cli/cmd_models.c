/* voxmamba models: the models found, with labels, licence and hash. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "api/voxmamba.h"
#include "models_path.h"
#include "output.h"
#include "verbs.h"

typedef struct models_args {
    cli_common common;
    bool json;
} models_args;

static const cli_option options[] = {
    {0, "json", CLI_FLAG, offsetof(models_args, json), NULL, "print JSON"},
    CLI_COMMON_OPTIONS(models_args, common),
};

static const char *text_of(const cJSON *object, const char *key) {
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItem(object, key));
    return text ? text : "";
}

static void print_names(const char *title, const cJSON *items) {
    const cJSON *item;
    const char *comma = "";
    printf("  %-9s", title);
    cJSON_ArrayForEach(item, items) {
        fputs(comma, stdout);
        if (cJSON_IsObject(item))
            printf("%.0f ", cJSON_GetNumberValue(cJSON_GetObjectItem(item, "value")));
        cli_print_safe(cJSON_IsString(item) ? item->valuestring : text_of(item, "name"));
        comma = ", ";
    }
    putchar('\n');
}

static void print_field(const char *title, const char *text) {
    if (!*text) return;
    printf("  %-9s", title);
    cli_print_safe(text);
    putchar('\n');
}

static void print_model(const cJSON *model) {
    if (cJSON_GetObjectItem(model, "error")) return; /* said on stderr */
    cli_print_safe(text_of(model, "name"));
    printf(" %s\n", text_of(model, "version"));
    print_field("about", text_of(model, "description"));
    print_names("channels", cJSON_GetObjectItem(model, "channels"));
    print_names("labels", cJSON_GetObjectItem(model, "labels"));
    print_field("licence", text_of(model, "licence"));
    printf("  %-9s%.0f parameters\n", "size",
           cJSON_GetNumberValue(cJSON_GetObjectItem(model, "parameters")));
    print_field("sha256", text_of(model, "sha256"));
    print_field("file", text_of(model, "path"));
}

static void say_broken(const cJSON *models) {
    const cJSON *model;
    cJSON_ArrayForEach(model, models) {
        if (!cJSON_GetObjectItem(model, "error")) continue;
        vxm_error error = {.code = VXM_ERR_MODEL};
        snprintf(error.file, sizeof error.file, "%s", text_of(model, "path"));
        snprintf(error.text, sizeof error.text, "%s", text_of(model, "error"));
        cli_error(&error, 0);
    }
}

static vxm_status run_models(const models_args *args) {
    vxm_error error;
    char *json = NULL, *folders = cli_model_folders(NULL);
    vxm_status s = vxm_models_json(folders, &json, &error);
    free(folders);
    if (s != VXM_OK) {
        cli_error(&error, 0);
        return s;
    }
    cJSON *models = cJSON_Parse(json), *model;
    say_broken(models);
    if (args->json)
        puts(json);
    else
        cJSON_ArrayForEach(model, models) print_model(model);
    if (!cJSON_GetArraySize(models) && !args->json && !cli_quiet())
        cli_log(NULL, VXM_LOG_WARNING, 0, "no model was found (set VOXMAMBA_MODELS to a folder)");
    cJSON_Delete(models);
    vxm_free(json);
    return VXM_OK;
}

static int main_models(int argc, char **argv) {
    models_args args = {0};
    int code = VXM_ERR_USAGE;
    if (!cli_parse_common(&cli_models, argc, argv, &args.common))
        ;
    else if (args.common.help) {
        cli_print_help(&cli_models);
        code = cli_exit_code(VXM_OK);
    } else if (args.common.operands.count)
        cli_usage_error("models takes no file (see voxmamba info FILE)");
    else
        code = cli_exit_code(run_models(&args));
    cli_free_args(&cli_models, &args);
    return code;
}

const cli_verb cli_models = {
    .name = "models",
    .operands = "[--json]",
    .summary = "list the models found, with labels, licence and hash",
    .details =
        "Models are *.safetensors in the folders of $VOXMAMBA_MODELS (separated by ':'), then\n"
        "those installed with the program.",
    .options = options,
    .option_count = sizeof options / sizeof *options,
    .run = main_models,
};
