/* What a case gives besides its files. */
#include <math.h>
#include <string.h>

#include "api/pipeline.h"
#include "base/memory.h"
#include "report/report.h"

#define MAX_WARNINGS 32

vx_result *vx_result_create(void) { return vx_alloc_zero(1, sizeof(vx_result)); }

void vxm_result_free(vxm_result *result) {
    if (!result) return;
    vx_result *r = (vx_result *)result;
    for (size_t i = 0; i < r->pub.label_count && r->labels; i++)
        vx_free((void *)r->labels[i].name); /* ours; const for the caller only */
    for (size_t i = 0; i < r->pub.warning_count; i++) vx_free(r->warnings[i]);
    cJSON_Delete(r->outputs);
    vx_free(r->labels);
    vx_free(r->warnings);
    vx_free(r);
}

void vx_result_warn(vx_result *result, const char *text) {
    for (size_t i = 0; i < result->pub.warning_count; i++)
        if (strcmp(result->warnings[i], text) == 0) return;
    if (!result->warnings) result->warnings = vx_alloc_zero(MAX_WARNINGS, sizeof *result->warnings);
    if (!result->warnings || result->pub.warning_count == MAX_WARNINGS) return;
    char *copy = vx_strdup(text);
    if (!copy) return;
    result->warnings[result->pub.warning_count++] = copy;
    result->pub.warnings = (const char *const *)result->warnings;
}

void vx_result_geometry(vx_result *result, const vx_geometry *geo) {
    result->geo = *geo;
    memcpy(result->pub.dims, geo->dims, sizeof geo->dims);
    vx_spacing(geo, result->pub.spacing);
}

vxm_status vx_result_measure(vx_result *result, const vx_volume *image, const vx_mask *mask,
                             const vx_choices *choices, vx_pool *pool, vxm_error *error) {
    const vx_label_table *table = &choices->recipe->labels;
    vx_label_stats *stats = vx_alloc_zero(table->count + 1, sizeof *stats);
    result->labels = vx_alloc_zero(table->count + 1, sizeof *result->labels);
    if (!stats || !result->labels) {
        vx_free(stats);
        return vx_api_no_memory(error);
    }
    vx_error err;
    vx_status t = vx_label_statistics(image, mask, table, pool, stats, &err);
    if (t != VX_OK) {
        vx_free(stats);
        return vx_api_error(error, NULL, t, &err);
    }
    bool memory = true;
    for (size_t i = 0; i < table->count; i++) {
        if (!choices->wanted[i]) continue; /* "0 voxels" would read as a finding */
        char *name = vx_strdup(table->labels[i].name);
        memory = memory && name;
        result->labels[result->pub.label_count++] =
            (vxm_label_result){.value = table->labels[i].value,
                               .name = name,
                               .voxels = stats[i].voxels,
                               .ml = stats[i].ml,
                               .mean = stats[i].mean,
                               .sd = stats[i].sd};
    }
    result->pub.labels = result->labels;
    vx_free(stats);
    return memory ? VXM_OK : vx_api_no_memory(error);
}

/* JSON's null is NaN here. */
static double number_of(const cJSON *object, const char *key) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    return cJSON_IsNumber(item) ? cJSON_GetNumberValue(item) : (double)NAN;
}

void vx_result_restore(vx_result *result, const cJSON *labels) {
    int count = cJSON_GetArraySize(labels);
    result->labels = vx_alloc_zero((size_t)count + 1, sizeof *result->labels);
    if (!result->labels) return;
    result->pub.labels = result->labels;
    const cJSON *item;
    cJSON_ArrayForEach(item, labels) {
        const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(item, "name"));
        char *name = vx_strdup(text ? text : "");
        double value = number_of(item, "value"), voxels = number_of(item, "voxels");
        if (!name || !(value >= 0 && value <= 65535) || !(voxels >= 0 && voxels < 1e18)) {
            vx_free(name);
            continue;
        }
        result->labels[result->pub.label_count++] =
            (vxm_label_result){.value = (unsigned)value,
                               .name = name,
                               .voxels = (uint64_t)voxels,
                               .ml = number_of(item, "ml"),
                               .mean = number_of(item, "mean"),
                               .sd = number_of(item, "sd")};
    }
}

cJSON *vx_result_labels_json(const vxm_result *result, bool intensities) {
    cJSON *array = cJSON_CreateArray();
    for (size_t i = 0; i < result->label_count; i++) {
        const vxm_label_result *label = &result->labels[i];
        cJSON *object = cJSON_CreateObject();
        vx_json_size(object, "value", label->value);
        cJSON_AddStringToObject(object, "name", label->name);
        vx_json_size(object, "voxels", label->voxels);
        vx_json_number(object, "ml", label->ml);
        if (intensities) {
            vx_json_number(object, "mean", label->mean);
            vx_json_number(object, "sd", label->sd);
        }
        cJSON_AddItemToArray(array, object);
    }
    return array;
}
