/* Scores of masks against references: each pair, each label, and what they come to together.
 *
 * A label that is in neither mask of a pair says nothing about the prediction: it is left out of
 * the means and counted as both_empty. In one mask only: Dice, IoU and NSD 0, distances infinite.
 */
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/pairs.h"
#include "base/memory.h"
#include "metrics/metrics.h"

#define LABEL_VALUES 65536

enum { METRIC_DICE, METRIC_IOU, METRIC_HD95, METRIC_ASSD, METRIC_NSD, METRICS };
static const char *const metric_names[METRICS] = {"dice", "iou", "hd95", "assd", "nsd"};

typedef struct pair_scores {
    vxm_error *error; /* the pair could not be scored */
    size_t count;
    vx_label_score *scores; /* ascending labels */
} pair_scores;

typedef struct evaluation {
    vxm_evaluate_options options;
    vx_pairs pairs;
    pair_scores *results; /* one a pair */
    char (*names)[64];    /* of label values; NULL when none were given */
    bool wanted[LABEL_VALUES];
    bool given; /* wanted was given, and holds for every pair */
} evaluation;

static double metric(const vx_label_score *score, int m) {
    switch (m) {
    case METRIC_DICE:
        return score->dice;
    case METRIC_IOU:
        return score->iou;
    case METRIC_HD95:
        return score->hd95;
    case METRIC_ASSD:
        return score->assd;
    default:
        return score->nsd;
    }
}

static bool both_empty(const vx_label_score *score) {
    return score->pred_voxels == 0 && score->ref_voxels == 0;
}

/* ---- Labels ---- */

static vxm_status parse_labels(evaluation *e, vxm_error *error) {
    const char *list = e->options.labels;
    if (!list) return VXM_OK;
    e->given = true;
    e->names = vx_alloc_zero(LABEL_VALUES, sizeof *e->names);
    if (!e->names) return vx_api_no_memory(error);
    for (const char *from = list;;) {
        size_t n = strcspn(from, ",");
        const char *equals = memchr(from, '=', n);
        const char *digits = equals ? equals + 1 : from;
        char *end;
        unsigned long value = isdigit((unsigned char)*digits) ? strtoul(digits, &end, 10) : 0;
        if (value < 1 || value >= LABEL_VALUES || end != from + n)
            return vx_api_fail(error, NULL, VXM_ERR_USAGE,
                               "--labels: '%.*s' is not a label (values 1 to 65535, or NAME=VALUE)",
                               (int)(n < 60 ? n : 60), from);
        e->wanted[value] = true;
        if (equals) snprintf(e->names[value], sizeof *e->names, "%.*s", (int)(equals - from), from);
        from += n;
        if (*from++ != ',') return VXM_OK;
    }
}

static void mark_labels(const vx_mask *mask, bool *present) {
    size_t voxels = vx_voxels(&mask->geo);
    for (size_t i = 0; i < voxels; i++) present[vx_mask_get(mask, i)] = true;
}

/* ---- One pair ---- */

static vx_status admit_mask(void *unused, const vx_geometry *geo, uint64_t beside, vx_error *err) {
    (void)unused;
    const uint64_t need = vx_voxels(geo) + beside, room = vx_available_memory();
    if (need <= room) return VX_OK;
    const uint64_t current = vx_current_memory(); /* in both numbers, as segment has it */
    vxm_error error;
    vxm_status s = vx_memory_short(NULL, need + current, room + current, false, &error);
    return vx_fail(err, (vx_status)s, "%s", error.text);
}

static vxm_status read_mask(const char *path, vx_mask **out, vxm_error *error) {
    vx_error err;
    vx_read_options options = {.admit = admit_mask};
    vx_status s = vx_io_read_mask(path, &options, out, &err);
    return s == VX_OK ? VXM_OK : vx_api_error(error, path, s, &err);
}

static bool stop(const evaluation *e, size_t i, double fraction) {
    vxm_progress progress = {.case_number = i + 1,
                             .case_count = e->pairs.count,
                             .cases_done = i,
                             .stage = "evaluate",
                             .fraction = fraction};
    const vxm_callbacks *callbacks = &e->options.callbacks;
    return callbacks->progress && callbacks->progress(callbacks->user_data, &progress);
}

static vxm_status score_masks(const evaluation *e, size_t i, const vx_mask *pred,
                              const vx_mask *ref, const bool *present, pair_scores *out,
                              vxm_error *error) {
    size_t labels = 0;
    for (unsigned v = 1; v < LABEL_VALUES; v++) labels += present[v];
    out->scores = vx_alloc_zero(labels + 1, sizeof *out->scores);
    if (!out->scores) return vx_api_no_memory(error);
    for (unsigned v = 1; v < LABEL_VALUES; v++) {
        vx_error err;
        if (!present[v]) continue;
        if (stop(e, i, (double)out->count / (double)labels))
            return vx_api_fail(error, NULL, VXM_ERR_CANCELLED, "cancelled");
        vx_status s =
            vx_score_label(pred, ref, v, e->options.tolerance_mm, !e->options.overlap_only,
                           vx_available_memory(), &out->scores[out->count], &err);
        if (s != VX_OK) return vx_api_error(error, e->pairs.pairs[i].prediction, s, &err);
        out->count++;
    }
    /* Grids are compared with the first label; masks without any still have to match. */
    if (!labels) {
        vx_error err;
        vx_label_score none;
        vx_status s = vx_score_label(pred, ref, 1, e->options.tolerance_mm, 0, 0, &none, &err);
        if (s != VX_OK) return vx_api_error(error, e->pairs.pairs[i].prediction, s, &err);
    }
    return VXM_OK;
}

static vxm_status score_pair(const evaluation *e, size_t i, pair_scores *out, vxm_error *error) {
    const vx_pair *pair = &e->pairs.pairs[i];
    vx_mask *pred = NULL, *ref = NULL;
    bool *present = vx_alloc_zero(LABEL_VALUES, sizeof *present);
    vxm_status s = present ? VXM_OK : vx_api_no_memory(error);
    if (s == VXM_OK) s = read_mask(pair->prediction, &pred, error);
    if (s == VXM_OK) s = read_mask(pair->reference, &ref, error);
    if (s == VXM_OK) {
        if (e->given) {
            memcpy(present, e->wanted, LABEL_VALUES * sizeof *present);
        } else {
            mark_labels(pred, present);
            mark_labels(ref, present);
        }
        s = score_masks(e, i, pred, ref, present, out, error);
    }
    vx_mask_free(pred);
    vx_mask_free(ref);
    vx_free(present);
    return s;
}

/* ---- All pairs together ---- */

static int compare_doubles(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Mean, sample standard deviation and median of n values; sd is null below two values, and with an
 * infinite one. */
static cJSON *spread_json(double *values, size_t n) {
    double sum = 0, squares = 0;
    cJSON *object = cJSON_CreateObject();
    for (size_t i = 0; i < n; i++) sum += values[i];
    double mean = n ? sum / (double)n : (double)NAN;
    for (size_t i = 0; i < n; i++) squares += (values[i] - mean) * (values[i] - mean);
    qsort(values, n, sizeof *values, compare_doubles);
    double median = n ? 0.5 * (values[(n - 1) / 2] + values[n / 2]) : (double)NAN;
    vx_json_number(object, "mean", mean);
    vx_json_number(object, "sd",
                   n > 1 && isfinite(mean) ? sqrt(squares / (double)(n - 1)) : (double)NAN);
    vx_json_number(object, "median", median);
    return object;
}

static const vx_label_score *find_score(const pair_scores *result, unsigned label) {
    for (size_t k = 0; k < result->count; k++)
        if (result->scores[k].label == label) return &result->scores[k];
    return NULL;
}

static void add_label_name(cJSON *object, const evaluation *e, unsigned label) {
    vx_json_size(object, "label", label);
    if (e->names && e->names[label][0]) vx_json_text(object, "name", e->names[label]);
}

/* values: room for one number a pair. means: sums over labels of this label's means. */
static cJSON *label_summary(const evaluation *e, unsigned label, double *values, double *means) {
    cJSON *object = cJSON_CreateObject();
    size_t empty = 0, one_empty = 0, scored = 0;
    add_label_name(object, e, label);
    for (size_t i = 0; i < e->pairs.count; i++) {
        if (e->results[i].error) continue;
        const vx_label_score *score = find_score(&e->results[i], label);
        if (!score || both_empty(score)) {
            empty++;
            continue;
        }
        scored++;
        one_empty += score->pred_voxels == 0 || score->ref_voxels == 0;
    }
    vx_json_size(object, "cases", scored);
    vx_json_size(object, "both_empty", empty);
    vx_json_size(object, "one_empty", one_empty);
    for (int m = 0; m < METRICS; m++) {
        size_t n = 0;
        double sum = 0;
        if (e->options.overlap_only && m >= METRIC_HD95) continue;
        for (size_t i = 0; i < e->pairs.count; i++) {
            const vx_label_score *score =
                e->results[i].error ? NULL : find_score(&e->results[i], label);
            if (!score || both_empty(score)) continue;
            values[n++] = metric(score, m);
            sum += metric(score, m);
        }
        if (n) means[m] += sum / (double)n;
        cJSON_AddItemToObject(object, metric_names[m], spread_json(values, n));
    }
    if (scored) means[METRICS] += 1;
    return object;
}

static cJSON *summary_json(const evaluation *e) {
    cJSON *summary = cJSON_CreateObject();
    cJSON *labels = cJSON_AddArrayToObject(summary, "labels");
    double means[METRICS + 1] = {0}; /* the last one counts labels */
    double *values = vx_alloc_zero(e->pairs.count + 1, sizeof *values);
    bool *present = vx_alloc_zero(LABEL_VALUES, sizeof *present);
    for (size_t i = 0; i < e->pairs.count && present; i++)
        for (size_t k = 0; k < e->results[i].count; k++)
            present[e->results[i].scores[k].label] = true;
    for (unsigned v = 1; v < LABEL_VALUES && values && present; v++)
        if (present[v]) cJSON_AddItemToArray(labels, label_summary(e, v, values, means));
    cJSON *mean = cJSON_AddObjectToObject(summary, "mean_over_labels");
    for (int m = 0; m < METRICS; m++)
        if (!e->options.overlap_only || m < METRIC_HD95)
            vx_json_number(mean, metric_names[m],
                           means[METRICS] > 0 ? means[m] / means[METRICS] : (double)NAN);
    vx_free(values);
    vx_free(present);
    return summary;
}

static cJSON *score_json(const evaluation *e, const vx_label_score *score) {
    cJSON *object = cJSON_CreateObject();
    add_label_name(object, e, score->label);
    for (int m = 0; m < METRICS; m++)
        if (!e->options.overlap_only || m < METRIC_HD95)
            vx_json_number(object, metric_names[m], metric(score, m));
    vx_json_size(object, "prediction_voxels", score->pred_voxels);
    vx_json_size(object, "reference_voxels", score->ref_voxels);
    vx_json_number(object, "prediction_ml", score->pred_ml);
    vx_json_number(object, "reference_ml", score->ref_ml);
    cJSON_AddBoolToObject(object, "both_empty", both_empty(score));
    return object;
}

static cJSON *evaluation_json(const evaluation *e) {
    cJSON *root = cJSON_CreateObject();
    cJSON_AddNumberToObject(root, "tolerance_mm", e->options.tolerance_mm);
    cJSON *cases = cJSON_AddArrayToObject(root, "cases");
    for (size_t i = 0; i < e->pairs.count; i++) {
        const pair_scores *result = &e->results[i];
        cJSON *object = cJSON_CreateObject();
        cJSON_AddItemToArray(cases, object);
        vx_json_text(object, "name", e->pairs.pairs[i].name);
        if (result->error) {
            cJSON *error = cJSON_AddObjectToObject(object, "error");
            vx_json_size(error, "code", (uint64_t)result->error->code);
            vx_json_text(error, "message", result->error->text);
            continue;
        }
        cJSON *labels = cJSON_AddArrayToObject(object, "labels");
        for (size_t k = 0; k < result->count; k++)
            cJSON_AddItemToArray(labels, score_json(e, &result->scores[k]));
    }
    cJSON_AddItemToObject(root, "summary", summary_json(e));
    cJSON *lone = cJSON_AddObjectToObject(root, "unpaired");
    vx_json_size(lone, "predictions", e->pairs.lone_predictions);
    vx_json_size(lone, "references", e->pairs.lone_references);
    return root;
}

static void say(const evaluation *e, vxm_log_level level, size_t case_number, const char *text) {
    const vxm_callbacks *callbacks = &e->options.callbacks;
    if (callbacks->log) callbacks->log(callbacks->user_data, level, case_number, text);
}

static void warn_unpaired(const evaluation *e) {
    char text[160];
    if (!e->pairs.lone_predictions && !e->pairs.lone_references) return;
    snprintf(text, sizeof text, "%zu predictions and %zu references have no partner: left out",
             e->pairs.lone_predictions, e->pairs.lone_references);
    say(e, VXM_LOG_WARNING, 0, text);
}

static vxm_status score_all(evaluation *e, vxm_error *error) {
    size_t failed = 0;
    e->results = vx_alloc_zero(e->pairs.count + 1, sizeof *e->results);
    if (!e->results) return vx_api_no_memory(error);
    for (size_t i = 0; i < e->pairs.count; i++) {
        pair_scores *result = &e->results[i];
        vxm_error own;
        vxm_status s = stop(e, i, 0.0) ? vx_api_fail(&own, NULL, VXM_ERR_CANCELLED, "cancelled")
                                       : score_pair(e, i, result, &own);
        if (s == VXM_OK) continue;
        if (s == VXM_ERR_CANCELLED || e->pairs.count == 1) {
            if (error) *error = own;
            return s;
        }
        result->error = vx_alloc(sizeof own);
        if (!result->error) return vx_api_no_memory(error);
        *result->error = own;
        result->count = 0;
        failed++;
        if (e->options.on_error)
            e->options.on_error(e->options.callbacks.user_data, i + 1, &own);
        else
            say(e, VXM_LOG_WARNING, i + 1, own.text);
    }
    if (!failed) return VXM_OK;
    return vx_api_fail(error, NULL, VXM_ERR_BATCH, "%zu of %zu pairs could not be scored", failed,
                       e->pairs.count);
}

static void evaluation_free(evaluation *e) {
    for (size_t i = 0; i < e->pairs.count && e->results; i++) {
        vx_free(e->results[i].error);
        vx_free(e->results[i].scores);
    }
    vx_free(e->results);
    vx_free(e->names);
    vx_pairs_free(&e->pairs);
    vx_free(e);
}

vxm_status vxm_evaluate(const char *prediction, const char *reference,
                        const vxm_evaluate_options *options, char **json, vxm_error *error) {
    *json = NULL;
    evaluation *e = vx_alloc_zero(1, sizeof *e);
    if (!e) return vx_api_no_memory(error);
    vxm_evaluate_options_init(&e->options, sizeof e->options);
    vxm_status s = vx_api_options(&e->options, sizeof e->options, options, error);
    if (s == VXM_OK && !(e->options.tolerance_mm >= 0 && isfinite(e->options.tolerance_mm)))
        s = vx_api_fail(error, NULL, VXM_ERR_USAGE, "tolerance %g (mm, not negative)",
                        e->options.tolerance_mm);
    if (s == VXM_OK) s = parse_labels(e, error);
    if (s == VXM_OK) s = vx_find_pairs(prediction, reference, &e->pairs, error);
    if (s == VXM_OK) {
        warn_unpaired(e);
        s = score_all(e, error);
    }
    if (s == VXM_OK || s == VXM_ERR_BATCH) {
        vxm_status printed = vx_json_print(evaluation_json(e), json, error);
        if (printed != VXM_OK) s = printed;
    }
    evaluation_free(e);
    return s;
}
