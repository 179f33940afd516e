#include "api/lines.h"

#include <string.h>

#include "base/memory.h"

bool vx_lines_add(vx_lines *lines, vx_log_level level, const char *text) {
    const size_t bytes = strlen(text) + 1;
    vx_line *line = vx_alloc(sizeof *line + bytes);
    if (!line) return false;
    line->next = NULL;
    line->level = level;
    memcpy(line->text, text, bytes);
    if (lines->last)
        lines->last->next = line;
    else
        lines->first = line;
    lines->last = line;
    return true;
}

void vx_lines_end(vx_lines *lines,
                  void (*say)(void *user_data, vx_log_level level, const char *text),
                  void *user_data) {
    for (vx_line *line = lines->first, *next; line; line = next) {
        next = line->next;
        if (say) say(user_data, line->level, line->text);
        vx_free(line);
    }
    *lines = (vx_lines){0};
}
