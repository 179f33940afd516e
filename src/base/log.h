/* Log and progress sinks. The library prints nothing itself: it calls these. */
#ifndef VX_BASE_LOG_H
#define VX_BASE_LOG_H

#include <stdbool.h>

typedef enum vx_log_level { VX_LOG_DEBUG = 0, VX_LOG_INFO = 1, VX_LOG_WARNING = 2 } vx_log_level;

/* A NULL vx_log, or one with a NULL member, is silent. Called from the thread that called the
 * library. */
typedef struct vx_log {
    void (*message)(void *user_data, vx_log_level level, const char *text);
    /* fraction 0..1 of one case; stage is a short word ("read", "network", "write"). True = cancel.
     */
    bool (*progress)(void *user_data, const char *stage, double fraction);
    void *user_data;
} vx_log;

void vx_log_message(const vx_log *log, vx_log_level level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* True when the caller wants to stop. */
bool vx_log_progress(const vx_log *log, const char *stage, double fraction);

#endif
