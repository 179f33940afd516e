#define _GNU_SOURCE
#include "statistics_table.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

char statistics_table_separator(const char *path) {
    const char *dot = strrchr(path, '.');
    if (dot && strcasecmp(dot, ".tsv") == 0) return '\t';
    if (dot && strcasecmp(dot, ".csv") == 0) return ',';
    return 0;
}

/* Quoted where a comma-separated table needs it (RFC 4180); what would end a cell of a
 * tab-separated one becomes a blank. */
static void put_cell(FILE *to, const char *text, char separator) {
    const bool quoted = separator == ',' && strpbrk(text, ",\"\r\n");
    if (quoted) fputc('"', to);
    for (const char *p = text; *p; p++) {
        if (quoted && *p == '"') fputc('"', to);
        fputc(separator == '\t' && (unsigned char)*p < 32 ? ' ' : *p, to);
    }
    if (quoted) fputc('"', to);
}

/* The shortest of these that reads back as the same number. */
static void put_number(FILE *to, double value, char before) {
    char text[40];
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value) break;
    }
    fprintf(to, "%c%s", before, value != value ? "nan" : text);
}

char *statistics_table_text(const vxm_result *result, char separator) {
    static const char *const columns[] = {"label", "value", "voxels", "ml", "mean", "sd"};
    char *text = NULL;
    size_t bytes;
    FILE *to = open_memstream(&text, &bytes);
    if (!to) return NULL;
    for (size_t i = 0; i < sizeof columns / sizeof *columns; i++)
        fprintf(to, "%s%c", columns[i],
                i + 1 < sizeof columns / sizeof *columns ? separator : '\n');
    for (size_t i = 0; i < result->label_count; i++) {
        const vxm_label_result *label = &result->labels[i];
        put_cell(to, label->name, separator);
        fprintf(to, "%c%u%c%llu", separator, label->value, separator,
                (unsigned long long)label->voxels);
        put_number(to, label->ml, separator);
        put_number(to, label->mean, separator);
        put_number(to, label->sd, separator);
        fputc('\n', to);
    }
    const bool ok = !ferror(to);
    if (fclose(to) == 0 && ok) return text;
    free(text);
    return NULL;
}
