/* Small helpers over cJSON. */
#include <math.h>
#include <string.h>

#include "api/internal.h"
#include "base/memory.h"
#include "base/out_file.h"
#include "volume/orientation.h"

/* Length of the UTF-8 character at s, 0 when it is none (RFC 3629). */
static size_t utf8_length(const unsigned char *s) {
    size_t n = s[0] < 0x80   ? 1
               : s[0] < 0xc2 ? 0
               : s[0] < 0xe0 ? 2
               : s[0] < 0xf0 ? 3
               : s[0] < 0xf5 ? 4
                             : 0;
    for (size_t i = 1; i < n; i++)
        if ((s[i] & 0xc0) != 0x80) return 0;
    bool overlong = (s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xf0 && s[1] < 0x90);
    bool surrogate = s[0] == 0xed && s[1] > 0x9f;
    bool beyond = s[0] == 0xf4 && s[1] > 0x8f;
    return overlong || surrogate || beyond ? 0 : n;
}

void vx_json_text(cJSON *object, const char *key, const char *text) {
    static const char replacement[] = "\xef\xbf\xbd";
    char *clean = vx_alloc(3 * strlen(text) + 1), *to = clean;
    if (!clean) return;
    for (const char *from = text; *from;) {
        size_t n = utf8_length((const unsigned char *)from);
        const char *copy = n ? from : replacement;
        size_t bytes = n ? n : 3;
        memcpy(to, copy, bytes);
        to += bytes;
        from += n ? n : 1;
    }
    *to = '\0';
    if (key)
        cJSON_AddStringToObject(object, key, clean);
    else
        cJSON_AddItemToArray(object, cJSON_CreateString(clean));
    vx_free(clean);
}

void vx_json_number(cJSON *object, const char *key, double value) {
    if (isinf(value))
        cJSON_AddStringToObject(object, key, value > 0 ? "inf" : "-inf");
    else
        cJSON_AddNumberToObject(object, key, value); /* NaN prints as null */
}

void vx_json_size(cJSON *object, const char *key, uint64_t value) {
    cJSON_AddNumberToObject(object, key, (double)value);
}

cJSON *vx_json_sizes(const size_t *values, int count) {
    cJSON *array = cJSON_CreateArray();
    for (int i = 0; i < count; i++)
        cJSON_AddItemToArray(array, cJSON_CreateNumber((double)values[i]));
    return array;
}

cJSON *vx_json_doubles(const double *values, int count) {
    cJSON *array = cJSON_CreateArray();
    for (int i = 0; i < count; i++)
        cJSON_AddItemToArray(array, cJSON_CreateNumber(values[i] + 0.0)); /* no "-0" */
    return array;
}

cJSON *vx_json_affine(const double affine[4][4]) {
    cJSON *rows = cJSON_CreateArray();
    for (int r = 0; r < 4; r++) cJSON_AddItemToArray(rows, vx_json_doubles(affine[r], 4));
    return rows;
}

void vx_json_geometry(cJSON *object, const vx_geometry *geo) {
    double spacing[3];
    char codes[4];
    vx_spacing(geo, spacing);
    vx_orientation_codes(geo, codes);
    cJSON_AddItemToObject(object, "dims", vx_json_sizes(geo->dims, 3));
    cJSON_AddItemToObject(object, "spacing", vx_json_doubles(spacing, 3));
    cJSON_AddItemToObject(object, "affine", vx_json_affine(geo->affine));
    cJSON_AddStringToObject(object, "orientation", codes);
}

cJSON *vx_json_plan(const vxm_plan *plan) {
    cJSON *object = cJSON_CreateObject();
    vx_json_size(object, "tiles", plan->tiles);
    vx_json_size(object, "network_bytes", plan->network_bytes);
    vx_json_size(object, "accumulator_bytes", plan->accumulator_bytes);
    vx_json_size(object, "volume_bytes", plan->volume_bytes);
    vx_json_size(object, "program_bytes", plan->program_bytes);
    vx_json_size(object, "peak_bytes", plan->peak_bytes);
    cJSON_AddNumberToObject(object, "flops", plan->flops);
    if (plan->output_bytes) vx_json_size(object, "output_bytes", plan->output_bytes);
    if (!plan->device_room_bytes) return object;
    vx_json_size(object, "device_network_bytes", plan->device_network_bytes);
    vx_json_size(object, "device_volume_bytes", plan->device_volume_bytes);
    vx_json_size(object, "device_room_bytes", plan->device_room_bytes);
    return object;
}

vxm_status vx_json_print(cJSON *root, char **json, vxm_error *error) {
    *json = root ? cJSON_Print(root) : NULL;
    cJSON_Delete(root);
    return *json ? VXM_OK : vx_api_no_memory(error);
}

vxm_status vx_json_write(cJSON *root, const char *path, bool replace, vxm_error *error) {
    char *text;
    vxm_status status = vx_json_print(root, &text, error);
    if (status != VXM_OK) return status;
    vx_error err;
    vx_out_file *file;
    vx_status s = vx_out_open(path, &file, &err);
    if (s == VX_OK) {
        s = vx_out_write(file, text, strlen(text), &err);
        if (s == VX_OK) s = vx_out_write(file, "\n", 1, &err);
        if (s == VX_OK)
            s = vx_out_commit(file, replace, &err);
        else
            vx_out_discard(file);
    }
    vx_free(text);
    return s == VX_OK ? VXM_OK : vx_api_error(error, path, s, &err);
}
