/* From the output that was typed to the paths of each case; and the user's choices of labels. */
#define _GNU_SOURCE
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "api/cases.h"
#include "api/outputs.h"
#include "base/memory.h"
#include "base/out_file.h"

/* ---- Where outputs go ---- */

static bool is_folder(const char *path) {
    struct stat st;
    size_t n = strlen(path);
    return (n && path[n - 1] == '/') || (stat(path, &st) == 0 && S_ISDIR(st.st_mode));
}

static vxm_status check_format(vx_format format, const char *typed, vxm_error *error) {
    if (format == VX_FORMAT_UNKNOWN || format == VX_FORMAT_DICOM)
        return vx_api_fail(error, NULL, VXM_ERR_USAGE,
                           "unknown output format '%.60s' (nii.gz, nii, nrrd, seg.nrrd, mha, "
                           "dcmseg)",
                           typed);
    if (!vx_format_writable(format))
        return vx_api_fail(error, NULL, VXM_ERR_USAGE,
                           "output format '%.60s' is not in this build (nii.gz is)", typed);
    return VXM_OK;
}

vxm_status vx_output_format(const char *name, vx_format *out, vxm_error *error) {
    *out = vx_format_by_name(name);
    return check_format(*out, name, error);
}

/* Names of headers whose voxels lie in a file of their own, and of those files: read only. */
static bool is_pair(const char *ending) {
    static const char *const pair[] = {".hdr", ".img", ".hdr.gz", ".img.gz", ".mhd", ".nhdr"};
    for (size_t i = 0; i < sizeof pair / sizeof *pair; i++)
        if (strcasecmp(ending, pair[i]) == 0) return true;
    return false;
}

vxm_status vx_output_rule_make(const char *output, const vxm_segment_options *options,
                               size_t case_count, vx_output_rule *out, vxm_error *error) {
    const char *format = options->format;
    *out = (vx_output_rule){
        .output = output, .sidecars = options->sidecars != 0, .format = VX_FORMAT_NIFTI_GZ};
    if (!output || !*output)
        return vx_api_fail(error, NULL, VXM_ERR_USAGE, "no output was given (use -o OUT)");
    if (format) {
        vxm_status s = vx_output_format(format, &out->format, error);
        if (s != VXM_OK) return s;
    }
    const char *base = vx_base_name(output);
    size_t stem = vx_stem_length(base);
    bool ending = base[stem] != '\0';
    out->folder =
        is_folder(output) || (!ending && !strchr(base, '.')) || (case_count > 1 && !ending);
    if (out->folder) return VXM_OK;
    if (case_count > 1)
        return vx_api_fail(error, output, VXM_ERR_USAGE,
                           "%zu cases do not go into one file (give a folder)", case_count);
    vx_format by_name = vx_format_by_path(output);
    if (by_name == VX_FORMAT_DICOM) by_name = VX_FORMAT_DICOM_SEG; /* what we write as .dcm */
    if (by_name == VX_FORMAT_UNKNOWN && format) return VXM_OK; /* any name, the format was said */
    if (by_name == VX_FORMAT_UNKNOWN)
        return vx_api_fail(error, output, VXM_ERR_USAGE,
                           "unknown ending (take .nii.gz, .nii, .nrrd, .seg.nrrd, .mha or .dcm, or "
                           "give --format)");
    if (is_pair(base + stem))
        return vx_api_fail(error, output, VXM_ERR_USAGE,
                           "masks are written as one file (take .nii.gz, .nii, .nrrd or .mha)");
    if (!format) {
        out->format = by_name;
        return check_format(by_name, base + stem + (ending ? 1 : 0), error);
    }
    if (by_name != out->format)
        return vx_api_fail(error, output, VXM_ERR_USAGE,
                           "the ending contradicts --format %s (leave one of them out)", format);
    return VXM_OK;
}

vxm_status vx_target_make(const vx_output_rule *rule, const char *name, vx_target *out,
                          vxm_error *error) {
    *out = (vx_target){.format = rule->format};
    if (rule->folder) {
        size_t n = strlen(rule->output);
        const char *slash = n && rule->output[n - 1] == '/' ? "" : "/";
        out->stem = vx_format_text("%s%s%s", rule->output, slash, name);
        out->mask =
            out->stem ? vx_format_text("%s%s", out->stem, vx_format_extension(rule->format)) : NULL;
    } else {
        size_t folder = vx_folder_length(rule->output);
        size_t stem = vx_stem_length(rule->output + folder);
        out->stem = vx_format_text("%.*s", (int)(folder + stem), rule->output);
        out->mask = vx_strdup(rule->output);
    }
    if (out->stem && rule->sidecars) out->sidecar = vx_format_text("%s.json", out->stem);
    if (out->mask && (out->sidecar || !rule->sidecars)) return VXM_OK;
    vx_target_free(out);
    return vx_api_no_memory(error);
}

void vx_target_free(vx_target *target) {
    vx_free(target->stem);
    vx_free(target->mask);
    vx_free(target->sidecar);
    *target = (vx_target){0};
}

vxm_status vx_output_folder_make(const vx_output_rule *rule, vxm_error *error) {
    if (!rule->folder) return VXM_OK;
    char *path = vx_strdup(rule->output);
    if (!path) return vx_api_no_memory(error);
    int failed = 0;
    for (char *p = path + 1; !failed; p++) {
        if (*p != '/' && *p != '\0') continue;
        char end = *p;
        *p = '\0';
        struct stat st;
        if (mkdir(path, 0777) != 0) {
            int why = errno;
            if (stat(path, &st) != 0 || !S_ISDIR(st.st_mode)) failed = why;
        }
        *p = end;
        if (end == '\0') break;
    }
    vx_free(path);
    if (!failed) return VXM_OK;
    return vx_api_fail(error, rule->output, VXM_ERR_OUTPUT, "cannot create the folder: %s",
                       strerror(failed));
}

void vx_output_sweep(const vx_output_rule *rule) {
    char *folder = rule->folder
                       ? vx_strdup(rule->output)
                       : vx_format_text("%.*s.", (int)vx_folder_length(rule->output), rule->output);
    if (folder) vx_out_sweep(folder);
    vx_free(folder);
}

/* ---- Labels by name or value ---- */

/* Sets flags of the labels that the list names. what: the option, for the message. */
static vxm_status parse_labels(const char *list, const vx_label_table *table, const char *what,
                               bool *flags, vxm_error *error) {
    for (const char *from = list;;) {
        size_t n = strcspn(from, ",");
        char name[80];
        snprintf(name, sizeof name, "%.*s", (int)(n < 79 ? n : 79), from);
        char *end;
        unsigned long value = strtoul(name, &end, 10);
        bool is_number = n && isdigit((unsigned char)name[0]) && *end == '\0';
        const vx_label *label = vx_label_find_name(table, name);
        if (!label && is_number && value <= UINT16_MAX)
            label = vx_label_find(table, (unsigned)value);
        if (!label) {
            char known[300] = "";
            size_t used = 0;
            for (size_t i = 0; i < table->count && used < sizeof known - 1; i++)
                used += (size_t)snprintf(known + used, sizeof known - used, "%s%s", i ? ", " : "",
                                         table->labels[i].name);
            return vx_api_fail(error, NULL, VXM_ERR_USAGE,
                               "%s: the model has no label '%.60s' (it has: %s)", what, name,
                               known);
        }
        flags[label - table->labels] = true;
        from += n;
        if (*from++ != ',') return VXM_OK;
    }
}

static vxm_status choose_largest(const char *list, const vx_recipe *recipe, vx_choices *out,
                                 vxm_error *error) {
    const vx_label_table *table = &recipe->labels;
    size_t room = table->count + recipe->keep_largest_count + 1;
    out->largest = vx_alloc_zero(room, sizeof *out->largest);
    if (!out->largest) return vx_api_no_memory(error);
    if (!list) {
        for (size_t i = 0; i < recipe->keep_largest_count; i++)
            out->largest[out->largest_count++] = recipe->keep_largest[i];
        return VXM_OK;
    }
    bool *flags = vx_alloc_zero(table->count + 1, sizeof *flags);
    if (!flags) return vx_api_no_memory(error);
    vxm_status s = VXM_OK;
    if (*list)
        s = parse_labels(list, table, "--keep-largest", flags, error);
    else
        for (size_t i = 0; i < table->count; i++) flags[i] = true;
    for (size_t i = 0; i < table->count && s == VXM_OK; i++)
        if (flags[i]) out->largest[out->largest_count++] = table->labels[i].value;
    vx_free(flags);
    return s;
}

vxm_status vx_choices_make(const vxm_segment_options *options, const vx_recipe *recipe,
                           vx_choices *out, vxm_error *error) {
    const vx_label_table *table = &recipe->labels;
    *out = (vx_choices){.options = *options, .recipe = recipe};
    out->remove_small_mm3 =
        options->remove_small_mm3 < 0 ? recipe->remove_small_mm3 : options->remove_small_mm3;
    vxm_status s = VXM_OK;
    out->wanted = vx_alloc_zero(table->count + 1, sizeof *out->wanted);
    if (!out->wanted) return vx_api_no_memory(error);
    if (isnan(out->remove_small_mm3) || isinf(out->remove_small_mm3))
        s = vx_api_fail(error, NULL, VXM_ERR_USAGE, "remove-small is not a volume in mm3");
    if (s == VXM_OK && options->labels)
        s = parse_labels(options->labels, table, "--labels", out->wanted, error);
    for (size_t i = 0; i < table->count; i++) {
        if (!options->labels) out->wanted[i] = true;
        out->wanted_count += out->wanted[i];
    }
    out->table.labels = vx_alloc_zero(table->count + 1, sizeof *out->table.labels);
    if (!out->table.labels) s = vx_api_no_memory(error);
    for (size_t i = 0; i < table->count && s == VXM_OK; i++)
        if (out->wanted[i]) out->table.labels[out->table.count++] = table->labels[i];
    if (s == VXM_OK) s = choose_largest(options->keep_largest, recipe, out, error);
    if (s != VXM_OK) vx_choices_free(out);
    return s;
}

void vx_choices_free(vx_choices *choices) {
    vx_free(choices->wanted);
    vx_free(choices->table.labels);
    vx_free(choices->largest);
    *choices = (vx_choices){0};
}

vx_plan_outputs vx_choices_outputs(const vx_choices *choices, const vx_target *target) {
    if (!target) return (vx_plan_outputs){0};
    return (vx_plan_outputs){.probabilities = choices->options.probabilities != 0,
                             .split = choices->options.split != 0,
                             .format = target->format,
                             .labels = choices->wanted_count};
}

cJSON *vx_choices_json(const vx_choices *choices, const vxm_session *session, bool repeated,
                       vx_format format) {
    static const char *const precisions[] = {"fp32", "fp16", "bf16"};
    const vx_precision precision = repeated ? VX_PRECISION_FP32 : session->precision;
    const vxm_segment_options *options = &choices->options;
    cJSON *root = cJSON_CreateObject();
    cJSON_AddStringToObject(root, "format", vx_format_name(format));
    cJSON_AddStringToObject(root, "precision", precisions[precision]);
    if (repeated) cJSON_AddBoolToObject(root, "repeated", true);
    cJSON_AddBoolToObject(root, "tta", session->tta);
    cJSON_AddNumberToObject(root, "step", session->step);
    cJSON *labels = cJSON_AddArrayToObject(root, "labels");
    for (size_t i = 0; i < choices->recipe->labels.count; i++)
        if (choices->wanted[i])
            cJSON_AddItemToArray(labels,
                                 cJSON_CreateNumber(choices->recipe->labels.labels[i].value));
    cJSON *largest = cJSON_AddArrayToObject(root, "keep_largest");
    for (size_t i = 0; i < choices->largest_count; i++)
        cJSON_AddItemToArray(largest, cJSON_CreateNumber(choices->largest[i]));
    cJSON_AddNumberToObject(root, "remove_small_mm3", choices->remove_small_mm3);
    if (options->series) {
        char hex[65]; /* a UID is a patient's data: its hash tells series apart as well */
        vx_sha256_text(options->series, hex);
        cJSON_AddStringToObject(root, "series_sha256", hex);
    }
    cJSON_AddBoolToObject(root, "split", options->split != 0);
    cJSON_AddBoolToObject(root, "probabilities", options->probabilities != 0);
    cJSON_AddBoolToObject(root, "preview", options->preview != 0);
    cJSON_AddBoolToObject(root, "tolerate_geometry", options->tolerate_geometry != 0);
    cJSON_AddBoolToObject(root, "force", options->force != 0);
    if (options->anonymous) cJSON_AddBoolToObject(root, "anonymous", true);
    return root;
}
