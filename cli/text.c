#include "text.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* Length of the UTF-8 character at s, 0 when it is none (RFC 3629). The program sees the library
 * through its public header only, so this is here as well as in src/api/json.c. */
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

/* Terminals obey C1 controls too: U+009B begins an escape sequence like ESC [. */
static bool is_control(const unsigned char *s) {
    return s[0] < 32 || s[0] == 127 || (s[0] == 0xc2 && s[1] < 0xa0);
}

void cli_put_safe(FILE *to, const char *text) {
    for (const unsigned char *s = (const unsigned char *)text; *s;) {
        size_t n = utf8_length(s);
        bool harmless = n && !is_control(s);
        if (n == 0) n = 1;
        for (size_t i = 0; i < n; i++) {
            if (harmless)
                fputc(s[i], to);
            else
                fprintf(to, "\\x%02x", s[i]);
        }
        s += n;
    }
}

char *cli_clean_utf8(const char *text) {
    static const char replacement[] = "\xef\xbf\xbd";
    char *clean = malloc(3 * strlen(text) + 1), *to = clean;
    if (!clean) return NULL;
    for (const char *from = text; *from;) {
        size_t n = utf8_length((const unsigned char *)from);
        size_t bytes = n ? n : sizeof replacement - 1;
        memcpy(to, n ? from : replacement, bytes);
        to += bytes;
        from += n ? n : 1;
    }
    *to = '\0';
    return clean;
}
