/* Texts from elsewhere (file names, headers): cleaned before they are shown. */
#ifndef CLI_TEXT_H
#define CLI_TEXT_H

#include <stdio.h>

/* One harmless line of UTF-8: control characters (C0, DEL, C1) and bytes that are no UTF-8 are
 * written as \xNN. */
void cli_put_safe(FILE *to, const char *text);

/* A copy in which bytes that are no UTF-8 are U+FFFD; free() it. NULL without memory. */
char *cli_clean_utf8(const char *text);

#endif
