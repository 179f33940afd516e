/* Log lines that are said later. */
#ifndef VX_API_LINES_H
#define VX_API_LINES_H

#include <stdbool.h>

#include "base/log.h"

typedef struct vx_line {
    struct vx_line *next;
    vx_log_level level;
    char text[]; /* NUL-terminated */
} vx_line;

/* {0} is an empty list. */
typedef struct vx_lines {
    vx_line *first, *last;
} vx_lines;

/* A copy of text goes to the end; false without memory. */
bool vx_lines_add(vx_lines *lines, vx_log_level level, const char *text);
/* Says all of them in their order, unless say is NULL, and empties the list. */
void vx_lines_end(vx_lines *lines,
                  void (*say)(void *user_data, vx_log_level level, const char *text),
                  void *user_data);

#endif
