/* Small questions about texts. */
#ifndef VX_BASE_TEXT_H
#define VX_BASE_TEXT_H

#include <stdbool.h>
#include <string.h>
#include <strings.h>

/* Whether text ends so, in letters of any case. */
static inline bool vx_has_ending(const char *text, const char *ending) {
    const size_t n = strlen(text), m = strlen(ending);
    return n >= m && strcasecmp(text + n - m, ending) == 0;
}

#endif
