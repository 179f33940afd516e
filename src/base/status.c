#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

vx_status vx_fail(vx_error *err, vx_status code, const char *format, ...) {
    if (err) {
        va_list args;
        err->code = code;
        va_start(args, format);
        vsnprintf(err->text, sizeof err->text, format, args);
        va_end(args);
    }
    return code;
}

vx_status vx_fail_prefix(vx_error *err, vx_status code, const char *prefix) {
    if (err) {
        char old[sizeof err->text];
        memcpy(old, err->text, sizeof old);
        err->code = code;
        /* Truncation is fine here: a message is for people. */
        int n = snprintf(err->text, sizeof err->text, "%s: ", prefix);
        if (n > 0 && (size_t)n < sizeof err->text) {
            size_t room = sizeof err->text - (size_t)n;
            size_t len = strnlen(old, room - 1);
            memcpy(err->text + n, old, len);
            err->text[(size_t)n + len] = '\0';
        }
    }
    return code;
}
