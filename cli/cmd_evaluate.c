/* voxmamba evaluate: scores of masks against references. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "api/voxmamba.h"
#include "output.h"
#include "verbs.h"

typedef struct evaluate_args {
    cli_common common;
    bool json, overlap_only;
    const char *labels;
    double tolerance;
} evaluate_args;

static const cli_option options[] = {
    {0, "json", CLI_FLAG, offsetof(evaluate_args, json), NULL, "print JSON"},
    {0, "labels", CLI_TEXT, offsetof(evaluate_args, labels), "1,2|A=1,B=2",
     "score these values (default: all that occur)"},
    {0, "tolerance", CLI_NUMBER, offsetof(evaluate_args, tolerance), "MM",
     "of the normalised surface Dice, NSD (default 1)"},
    {0, "overlap-only", CLI_FLAG, offsetof(evaluate_args, overlap_only), NULL,
     "Dice and IoU only: no surface distances"},
    CLI_COMMON_OPTIONS(evaluate_args, common),
};

static const char *const metrics[] = {"dice", "iou", "hd95", "assd", "nsd"};
static const char *const titles[] = {"Dice", "IoU", "HD95 mm", "ASSD mm", "NSD"};

/* A cell: a number, inf, or - for what is undefined or was not asked for. */
static void print_cell(const cJSON *value) {
    if (cJSON_IsNumber(value))
        printf(" %9.4f", value->valuedouble);
    else
        printf(" %9s", cJSON_IsString(value) ? value->valuestring : "-");
}

static void print_label(const cJSON *row) {
    const char *name = cJSON_GetStringValue(cJSON_GetObjectItem(row, "name"));
    char text[80];
    snprintf(text, sizeof text, "%.0f%s%s", cJSON_GetNumberValue(cJSON_GetObjectItem(row, "label")),
             name ? " " : "", name ? name : "");
    printf("  %-20.40s", text);
}

static void print_header(const char *what) {
    printf("%-22s", what);
    for (int m = 0; m < 5; m++) printf(" %9s", titles[m]);
}

static void print_case(const cJSON *item) {
    const cJSON *row;
    const char *name = cJSON_GetStringValue(cJSON_GetObjectItem(item, "name"));
    if (cJSON_GetObjectItem(item, "error")) return; /* said on stderr */
    cli_print_safe(name ? name : "");
    putchar('\n');
    cJSON_ArrayForEach(row, cJSON_GetObjectItem(item, "labels")) {
        print_label(row);
        for (int m = 0; m < 5; m++) print_cell(cJSON_GetObjectItem(row, metrics[m]));
        printf(" %11.3f %11.3f\n", cJSON_GetNumberValue(cJSON_GetObjectItem(row, "prediction_ml")),
               cJSON_GetNumberValue(cJSON_GetObjectItem(row, "reference_ml")));
    }
}

static void print_summary_row(const cJSON *row, const char *which) {
    print_label(row);
    for (int m = 0; m < 5; m++)
        print_cell(cJSON_GetObjectItem(cJSON_GetObjectItem(row, metrics[m]), which));
    printf("  %-6s", which);
    if (strcmp(which, "mean") == 0)
        printf(" of %.0f, both empty in %.0f",
               cJSON_GetNumberValue(cJSON_GetObjectItem(row, "cases")),
               cJSON_GetNumberValue(cJSON_GetObjectItem(row, "both_empty")));
    putchar('\n');
}

static void print_evaluation(const cJSON *root) {
    const cJSON *cases = cJSON_GetObjectItem(root, "cases"), *item;
    const cJSON *summary = cJSON_GetObjectItem(root, "summary");
    print_header("case, label");
    printf(" %11s %11s\n", "pred. ml", "ref. ml");
    cJSON_ArrayForEach(item, cases) print_case(item);
    putchar('\n');
    print_header("all cases");
    putchar('\n');
    cJSON_ArrayForEach(item, cJSON_GetObjectItem(summary, "labels")) {
        print_summary_row(item, "mean");
        if (cJSON_GetArraySize(cases) > 1) {
            print_summary_row(item, "sd");
            print_summary_row(item, "median");
        }
    }
    printf("  %-20s", "mean over labels");
    const cJSON *mean = cJSON_GetObjectItem(summary, "mean_over_labels");
    for (int m = 0; m < 5; m++) print_cell(cJSON_GetObjectItem(mean, metrics[m]));
    putchar('\n');
}

static void pair_failed(void *user_data, size_t case_number, const vxm_error *error) {
    (void)user_data;
    cli_log_file(VXM_LOG_WARNING, case_number, error->file, error->text);
}

static vxm_status run_evaluate(const evaluate_args *args) {
    vxm_error error;
    char *json = NULL;
    vxm_evaluate_options evaluate;
    vxm_evaluate_options_init(&evaluate, sizeof evaluate);
    evaluate.labels = args->labels;
    evaluate.tolerance_mm = args->tolerance;
    evaluate.overlap_only = args->overlap_only;
    evaluate.callbacks.log = cli_log;
    evaluate.callbacks.progress = cli_progress;
    evaluate.on_error = pair_failed;
    cli_catch_signals();
    vxm_status s = vxm_evaluate(args->common.operands.items[0], args->common.operands.items[1],
                                &evaluate, &json, &error);
    cli_progress_end();
    if (json && args->json) {
        puts(json);
    } else if (json) {
        cJSON *root = cJSON_Parse(json);
        print_evaluation(root);
        cJSON_Delete(root);
    }
    vxm_free(json);
    if (s != VXM_OK && s != VXM_ERR_CANCELLED) {
        fflush(stdout);
        cli_error(&error, 0);
    }
    return s;
}

static int main_evaluate(int argc, char **argv) {
    evaluate_args args = {.tolerance = 1.0};
    int code = VXM_ERR_USAGE;
    if (!cli_parse_common(&cli_evaluate, argc, argv, &args.common))
        ;
    else if (args.common.help) {
        cli_print_help(&cli_evaluate);
        code = cli_exit_code(VXM_OK);
    } else if (args.common.operands.count != 2)
        cli_usage_error("evaluate takes a prediction and a reference, %zu were given (see voxmamba "
                        "evaluate --help)",
                        args.common.operands.count);
    else
        code = cli_exit_code(run_evaluate(&args));
    cli_free_args(&cli_evaluate, &args);
    return code;
}

const cli_verb cli_evaluate = {
    .name = "evaluate",
    .operands = "PRED REF [OPTIONS]",
    .summary = "score masks against references: Dice, IoU, HD95, ASSD, NSD, volumes",
    .details =
        "Two files, or two folders whose files are paired by name. Surface distances are those of\n"
        "DeepMind's surface-distance. A label in neither mask is left out and counted; in one "
        "only:\n"
        "Dice 0, distances inf.",
    .options = options,
    .option_count = sizeof options / sizeof *options,
    .run = main_evaluate,
};
