#define _GNU_SOURCE
#include "return_parameters.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include <cjson/cJSON.h>

#include "cli/text.h"

/* "CPU, 2 threads, ...": as the report describes it; the empty text where it does not. */
static void put_device(FILE *to, const char *report) {
    cJSON *root = cJSON_Parse(report);
    const char *words = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(
        cJSON_GetObjectItemCaseSensitive(root, "device"), "description"));
    fputs("resultDevice = ", to);
    if (words) cli_put_safe(to, words);
    fputc('\n', to);
    cJSON_Delete(root);
}

static void put_volumes(FILE *to, const vxm_result *result) {
    fputs("resultVolumes = ", to);
    for (size_t i = 0; i < result->label_count; i++) {
        if (i) fputs(", ", to);
        cli_put_safe(to, result->labels[i].name);
        fprintf(to, " %.3f ml", result->labels[i].ml);
    }
    fputc('\n', to);
}

static void put_warnings(FILE *to, const vxm_result *result) {
    fputs("resultWarnings = ", to);
    for (size_t i = 0; i < result->warning_count; i++) {
        if (i) fputs("; ", to);
        cli_put_safe(to, result->warnings[i]);
    }
    fputc('\n', to);
}

char *return_parameters_text(const char *model, const char *report, const vxm_result *result) {
    char *text = NULL;
    size_t bytes;
    FILE *to = open_memstream(&text, &bytes);
    if (!to) return NULL;
    fputs("resultModel = ", to);
    cli_put_safe(to, model);
    fputc('\n', to);
    put_device(to, report);
    fprintf(to, "resultSeconds = %.3f\n", result->total_s);
    put_volumes(to, result);
    put_warnings(to, result);
    const bool ok = !ferror(to);
    if (fclose(to) == 0 && ok) return text;
    free(text);
    return NULL;
}
