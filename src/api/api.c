/* Status, errors, options and texts: what every call of the public API needs. */
#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "api/internal.h"
#include "base/memory.h"

#ifndef VX_COMMIT
#define VX_COMMIT ""
#endif

_Static_assert((int)VXM_OK == (int)VX_OK && (int)VXM_ERR_USAGE == (int)VX_ERR_USAGE &&
                   (int)VXM_ERR_INPUT == (int)VX_ERR_INPUT &&
                   (int)VXM_ERR_MODEL == (int)VX_ERR_MODEL &&
                   (int)VXM_ERR_OUTPUT == (int)VX_ERR_OUTPUT &&
                   (int)VXM_ERR_RESOURCE == (int)VX_ERR_RESOURCE &&
                   (int)VXM_ERR_BATCH == (int)VX_ERR_BATCH &&
                   (int)VXM_ERR_CANCELLED == (int)VX_ERR_CANCELLED,
               "public and internal status codes are the same numbers");
_Static_assert((int)VXM_LOG_DEBUG == (int)VX_LOG_DEBUG && (int)VXM_LOG_INFO == (int)VX_LOG_INFO &&
                   (int)VXM_LOG_WARNING == (int)VX_LOG_WARNING,
               "public and internal log levels are the same numbers");
_Static_assert(sizeof((vxm_error *)0)->text == sizeof((vx_error *)0)->text,
               "an internal message fits the public one");

const char *vxm_status_text(vxm_status code) {
    switch (code) {
    case VXM_OK:
        return "ok";
    case VXM_ERR_USAGE:
        return "wrong usage";
    case VXM_ERR_INPUT:
        return "invalid input";
    case VXM_ERR_MODEL:
        return "model unreadable or unfit";
    case VXM_ERR_OUTPUT:
        return "output not written";
    case VXM_ERR_RESOURCE:
        return "device or memory";
    case VXM_ERR_BATCH:
        return "cases failed";
    case VXM_ERR_CANCELLED:
        return "cancelled";
    }
    return "unknown status";
}

const char *vxm_version(void) { return VX_VERSION; }
const char *vxm_commit(void) { return VX_COMMIT; }
void vxm_free(void *text) { vx_free(text); }

static void set_file(vxm_error *error, const char *file) {
    error->file[0] = '\0';
    if (file) snprintf(error->file, sizeof error->file, "%s", file);
}

vxm_status vx_api_error(vxm_error *error, const char *file, vx_status status, const vx_error *err) {
    if (error) {
        error->code = (vxm_status)status;
        /* Some parts put the path first; here it has a place of its own. */
        size_t n = file ? strlen(file) : 0;
        bool repeats = n && strncmp(err->text, file, n) == 0 && err->text[n] == ':';
        const char *text = repeats ? err->text + n + 1 : err->text;
        while (repeats && *text == ' ') text++;
        snprintf(error->text, sizeof error->text, "%s", text);
        set_file(error, file);
    }
    return (vxm_status)status;
}

vxm_status vx_api_fail(vxm_error *error, const char *file, vxm_status status, const char *format,
                       ...) {
    if (error) {
        va_list args;
        error->code = status;
        va_start(args, format);
        vsnprintf(error->text, sizeof error->text, format, args);
        va_end(args);
        set_file(error, file);
    }
    return status;
}

vxm_status vx_api_no_memory(vxm_error *error) {
    return vx_api_fail(error, NULL, VXM_ERR_RESOURCE, "out of memory");
}

/* struct_size, the first member of all such structs. */
static vxm_status read_size(const void *given, size_t *size, vxm_error *error) {
    memcpy(size, given, sizeof *size);
    if (*size >= sizeof *size && *size <= 4096) return VXM_OK;
    return vx_api_fail(error, NULL, VXM_ERR_USAGE,
                       "a struct without struct_size (call its init function first)");
}

vxm_status vx_api_options(void *known, size_t known_size, const void *given, vxm_error *error) {
    if (!given) return VXM_OK;
    size_t given_size;
    vxm_status s = read_size(given, &given_size, error);
    if (s != VXM_OK) return s;
    memcpy(known, given, given_size < known_size ? given_size : known_size);
    memcpy(known, &known_size, sizeof known_size);
    return VXM_OK;
}

vxm_status vx_api_give(void *given, const void *known, size_t known_size, vxm_error *error) {
    size_t given_size;
    vxm_status s = read_size(given, &given_size, error);
    if (s != VXM_OK) return s;
    memcpy(given, known, given_size < known_size ? given_size : known_size);
    memcpy(given, &given_size, sizeof given_size);
    return VXM_OK;
}

char *vx_format_text(const char *format, ...) {
    va_list args;
    va_start(args, format);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    char *text = n < 0 ? NULL : vx_alloc((size_t)n + 1);
    if (!text) return NULL;
    va_start(args, format);
    vsnprintf(text, (size_t)n + 1, format, args);
    va_end(args);
    return text;
}

const char *vx_base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

size_t vx_folder_length(const char *path) { return (size_t)(vx_base_name(path) - path); }

/* A run of digits and dots with at least four dots: a UID (an IP address has three). */
static size_t uid_length(const char *s) {
    size_t n = 0, dots = 0;
    for (; isdigit((unsigned char)s[n]) || s[n] == '.'; n++) dots += s[n] == '.';
    return dots >= 4 ? n : 0;
}

static size_t path_length(const char *s) {
    if (s[0] != '/' || !s[1] || isspace((unsigned char)s[1])) return 0;
    size_t n = 1;
    while (s[n] && !isspace((unsigned char)s[n]) && !strchr("'\",;()", s[n])) n++;
    return n;
}

/* "IM_0001.dcm: damaged": a word before a colon that is more than lower-case letters is a name. */
static size_t name_length(const char *s) {
    size_t n = strcspn(s, " \t");
    size_t colon = n && s[n - 1] == ':' ? n - 1 : 0;
    return strspn(s, "abcdefghijklmnopqrstuvwxyz-") < colon ? colon : 0;
}

/* 'quoted': readers quote what they took from a file. An apostrophe inside a word ('O'Neil') is no
 * end; a quotation without any, of a message that was cut, goes on to the message's end. */
static size_t quoted_length(const char *s) {
    if (s[0] != '\'') return 0;
    size_t n = 1;
    for (; s[n]; n++) {
        const unsigned char next = (unsigned char)s[n + 1];
        if (s[n] == '\'' && !isalnum(next) && next < 0x80) return n + 1;
    }
    return n;
}

void vxm_redact(char *text) {
    char *to = text;
    bool starts = true; /* at the start of a word */
    for (const char *from = text; *from;) {
        size_t n = 0;
        if (starts) n = quoted_length(from);
        if (starts && !n) n = uid_length(from);
        if (starts && !n) n = path_length(from);
        if (starts && !n) n = name_length(from);
        starts = !n && (isspace((unsigned char)*from) || strchr("(\"=", *from));
        *to++ = n ? '*' : *from;
        from += n ? n : 1;
    }
    *to = '\0';
}

/* A program may know fewer members than this library, or more. */
static void init(void *options, size_t size, const void *defaults, size_t known) {
    memset(options, 0, size);
    memcpy(options, defaults, size < known ? size : known);
    memcpy(options, &size, sizeof size); /* struct_size */
}

void vxm_session_options_init(vxm_session_options *options, size_t size) {
    const vxm_session_options defaults = {.device = "auto", .step = 0.5};
    init(options, size, &defaults, sizeof defaults);
}

void vxm_plan_init(vxm_plan *plan, size_t size) {
    const vxm_plan defaults = {0};
    init(plan, size, &defaults, sizeof defaults);
}

void vxm_segment_options_init(vxm_segment_options *options, size_t size) {
    const vxm_segment_options defaults = {.remove_small_mm3 = -1.0, .sidecars = 1};
    init(options, size, &defaults, sizeof defaults);
}

void vxm_batch_options_init(vxm_batch_options *options, size_t size) {
    const vxm_batch_options defaults = {.shard = 1, .shards = 1, .jobs = 1};
    init(options, size, &defaults, sizeof defaults);
}

void vxm_info_options_init(vxm_info_options *options, size_t size) {
    const vxm_info_options defaults = {0};
    init(options, size, &defaults, sizeof defaults);
}

void vxm_evaluate_options_init(vxm_evaluate_options *options, size_t size) {
    const vxm_evaluate_options defaults = {.tolerance_mm = 1.0};
    init(options, size, &defaults, sizeof defaults);
}
