#include "model/recipe_reader.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "model/json_text.h"

void vx_read_fail(vx_reader *r, const char *key, const char *format, ...) {
    char text[256];
    va_list args;
    if (r->status) return;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    r->status =
        vx_fail(r->err, VX_ERR_MODEL, "recipe: %s%s%s%s%s", r->path,
                r->path[0] && key[0] ? "." : "", key, r->path[0] || key[0] ? ": " : "", text);
}

size_t vx_read_enter(vx_reader *r, const char *format, ...) {
    const size_t mark = strlen(r->path);
    va_list args;
    size_t at = mark;
    if (at && at + 1 < sizeof r->path) {
        r->path[at++] = '.';
        r->path[at] = '\0';
    }
    va_start(args, format);
    vsnprintf(r->path + at, sizeof r->path - at, format, args);
    va_end(args);
    return mark;
}

void vx_read_leave(vx_reader *r, size_t mark) { r->path[mark] = '\0'; }

static bool is_known(const char *key, const char *const *keys) {
    for (; *keys; keys++)
        if (strcmp(key, *keys) == 0) return true;
    return false;
}

void vx_read_keys(vx_reader *r, const cJSON *object, const char *const *keys) {
    if (r->status) return;
    if (!cJSON_IsObject(object)) {
        vx_read_fail(r, "", "this is no object");
        return;
    }
    for (const cJSON *item = object->child; item; item = item->next) {
        if (!is_known(item->string, keys)) {
            if (vx_has_control(item->string))
                vx_read_fail(r, "", "a key holds a control character");
            else
                vx_read_fail(r, "", "unknown key \"%.60s\"", item->string);
            return;
        }
        /* Unknown keys are refused above, so there are only few to look back at. */
        for (const cJSON *other = object->child; other != item; other = other->next)
            if (strcmp(other->string, item->string) == 0) {
                vx_read_fail(r, item->string, "this key appears twice");
                return;
            }
    }
}

bool vx_read_has(const cJSON *object, const char *key) {
    return cJSON_GetObjectItemCaseSensitive(object, key) != NULL;
}

/* NULL and a failure when the key is missing. */
static const cJSON *get(vx_reader *r, const cJSON *object, const char *key) {
    if (r->status) return NULL;
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    if (!item) vx_read_fail(r, key, "this key is missing");
    return item;
}

const cJSON *vx_read_object(vx_reader *r, const cJSON *object, const char *key) {
    const cJSON *item = get(r, object, key);
    if (!item || cJSON_IsObject(item)) return item;
    vx_read_fail(r, key, "this is no object");
    return NULL;
}

static size_t length_of(const cJSON *list) {
    size_t n = 0;
    for (const cJSON *item = list->child; item; item = item->next) n++;
    return n;
}

const cJSON *vx_read_list(vx_reader *r, const cJSON *object, const char *key, size_t min,
                          size_t max) {
    const cJSON *item = get(r, object, key);
    if (!item) return NULL;
    if (!cJSON_IsArray(item)) {
        vx_read_fail(r, key, "this is no list");
        return NULL;
    }
    const size_t n = length_of(item);
    if (n >= min && n <= max) return item;
    if (min == max)
        vx_read_fail(r, key, "%zu items, %zu are needed", n, min);
    else
        vx_read_fail(r, key, "%zu items, %zu to %zu are allowed", n, min, max);
    return NULL;
}

void vx_read_string(vx_reader *r, const cJSON *object, const char *key, char *out, size_t room) {
    const cJSON *item = get(r, object, key);
    if (!item) return;
    if (!cJSON_IsString(item)) {
        vx_read_fail(r, key, "this is no text");
        return;
    }
    const size_t n = strlen(item->valuestring);
    if (n == 0 || n >= room)
        vx_read_fail(r, key, "%zu bytes, 1 to %zu are allowed", n, room - 1);
    else if (vx_has_control(item->valuestring))
        vx_read_fail(r, key, "the text holds a control character");
    else
        memcpy(out, item->valuestring, n + 1);
}

bool vx_read_bool(vx_reader *r, const cJSON *object, const char *key) {
    const cJSON *item = get(r, object, key);
    if (item && !cJSON_IsBool(item)) vx_read_fail(r, key, "this is neither true nor false");
    return item && cJSON_IsTrue(item);
}

static double number_of(vx_reader *r, const cJSON *item, const char *key, double min, double max) {
    if (r->status || !item) return 0;
    if (!cJSON_IsNumber(item))
        vx_read_fail(r, key, "this is no number");
    else if (!(item->valuedouble >= min && item->valuedouble <= max)) /* NaN fails too */
        vx_read_fail(r, key, "%g is outside %g to %g", item->valuedouble, min, max);
    else
        return item->valuedouble;
    return 0;
}

static size_t count_of(vx_reader *r, const cJSON *item, const char *key, size_t min, size_t max) {
    const double v = number_of(r, item, key, (double)min, (double)max);
    if (r->status) return 0;
    if (v != floor(v)) {
        vx_read_fail(r, key, "%g is no whole number", v);
        return 0;
    }
    return (size_t)v;
}

double vx_read_number(vx_reader *r, const cJSON *object, const char *key, double min, double max) {
    return number_of(r, get(r, object, key), key, min, max);
}

size_t vx_read_count(vx_reader *r, const cJSON *object, const char *key, size_t min, size_t max) {
    return count_of(r, get(r, object, key), key, min, max);
}

int vx_read_choice(vx_reader *r, const cJSON *object, const char *key, const char *const *words) {
    char text[64] = "";
    char allowed[192] = "";
    vx_read_string(r, object, key, text, sizeof text);
    if (r->status) return 0;
    for (int i = 0; words[i]; i++) {
        if (strcmp(text, words[i]) == 0) return i;
        const size_t n = strlen(allowed);
        snprintf(allowed + n, sizeof allowed - n, "%s%s", i ? ", " : "", words[i]);
    }
    vx_read_fail(r, key, "\"%s\" is unknown (allowed: %s)", text, allowed);
    return 0;
}

size_t vx_read_counts(vx_reader *r, const cJSON *object, const char *key, size_t min, size_t max,
                      size_t low, size_t high, size_t *out) {
    const cJSON *list = vx_read_list(r, object, key, min, max);
    size_t n = 0;
    if (!list) return 0;
    for (const cJSON *item = list->child; item; item = item->next)
        out[n++] = count_of(r, item, key, low, high);
    return n;
}

void vx_read_triple(vx_reader *r, const cJSON *object, const char *key, double low, double high,
                    double out[3]) {
    const cJSON *list = vx_read_list(r, object, key, 3, 3);
    if (!list) return;
    for (const cJSON *item = list->child; item; item = item->next)
        *out++ = number_of(r, item, key, low, high);
}

void vx_read_count_triples(vx_reader *r, const cJSON *object, const char *key, size_t count,
                           size_t low, size_t high, size_t (*out)[3]) {
    const cJSON *list = vx_read_list(r, object, key, count, count);
    if (!list) return;
    for (const cJSON *row = list->child; row; row = row->next, out++) {
        if (!cJSON_IsArray(row) || length_of(row) != 3) {
            vx_read_fail(r, key, "each item has to be a list of three numbers");
            return;
        }
        size_t i = 0;
        for (const cJSON *item = row->child; item; item = item->next)
            (*out)[i++] = count_of(r, item, key, low, high);
    }
}
