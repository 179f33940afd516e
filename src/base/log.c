#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>

void vx_log_message(const vx_log *log, vx_log_level level, const char *format, ...) {
    if (!log || !log->message) return;
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    log->message(log->user_data, level, text);
}

bool vx_log_progress(const vx_log *log, const char *stage, double fraction) {
    return log && log->progress && log->progress(log->user_data, stage, fraction);
}
