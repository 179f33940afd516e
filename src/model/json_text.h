/* A strict reader of JSON text (RFC 8259) that never recurses: what untrusted text passes before
 * any of it is believed. Used for the safetensors header, whose offsets must not go through a
 * double, and as the gate before cJSON builds the recipe's tree. */
#ifndef VX_MODEL_JSON_TEXT_H
#define VX_MODEL_JSON_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct vx_json_cursor {
    const char *at, *end;
} vx_json_cursor;

#define VX_JSON_MAX_DEPTH 64

/* Skips white space, then takes c if it comes next. */
bool vx_json_take(vx_json_cursor *cursor, char c);
/* Skips white space; true when nothing is left. */
bool vx_json_at_end(vx_json_cursor *cursor);
/* Takes a string. out, if not NULL, receives it decoded to UTF-8 and a NUL; it needs no more room
 * than the string has in the text with its quotes. False: no string, an unknown escape, a half
 * surrogate pair, bytes that are not UTF-8, a raw control character, or U+0000. */
bool vx_json_string(vx_json_cursor *cursor, char *out, size_t *bytes);
/* Takes a decimal unsigned integer; false for anything else ("-1", "1.0", "1e3", 2^64, "01"). */
bool vx_json_u64(vx_json_cursor *cursor, uint64_t *out);
/* NULL when text is one JSON value and nothing else, nested at most VX_JSON_MAX_DEPTH deep; else a
 * few words on what is wrong; *where, if not NULL, is then the byte. */
const char *vx_json_check(const char *text, size_t bytes, size_t *where);

/* True when s (NUL-terminated UTF-8) holds a C0 or C1 control character or DEL: such names would
 * write escape sequences into a terminal. */
bool vx_has_control(const char *s);

#endif
