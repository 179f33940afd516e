#include "model/json_text.h"

#include <string.h>

static void skip_space(vx_json_cursor *c) {
    while (c->at < c->end && (*c->at == ' ' || *c->at == '\t' || *c->at == '\n' || *c->at == '\r'))
        c->at++;
}

bool vx_json_take(vx_json_cursor *cursor, char c) {
    skip_space(cursor);
    if (cursor->at >= cursor->end || *cursor->at != c) return false;
    cursor->at++;
    return true;
}

bool vx_json_at_end(vx_json_cursor *cursor) {
    skip_space(cursor);
    return cursor->at >= cursor->end;
}

/* Bytes of the well-formed UTF-8 character at p (Unicode 15, table 3-7), 0 when it is none. */
static size_t utf8_length(const unsigned char *p, size_t left) {
    if (p[0] < 0x80) return 1;
    size_t n = p[0] >= 0xF0 ? 4 : p[0] >= 0xE0 ? 3 : 2;
    if (p[0] < 0xC2 || p[0] > 0xF4 || left < n) return 0;
    unsigned char low = 0x80, high = 0xBF; /* of the second byte */
    if (p[0] == 0xE0) low = 0xA0;          /* overlong */
    if (p[0] == 0xED) high = 0x9F;         /* surrogates */
    if (p[0] == 0xF0) low = 0x90;          /* overlong */
    if (p[0] == 0xF4) high = 0x8F;         /* above U+10FFFF */
    if (p[1] < low || p[1] > high) return 0;
    for (size_t i = 2; i < n; i++)
        if (p[i] < 0x80 || p[i] > 0xBF) return 0;
    return n;
}

/* Writes code as UTF-8; at most 4 bytes. */
static size_t put_utf8(uint32_t code, char *out) {
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    if (code < 0x800) {
        out[0] = (char)(0xC0 | code >> 6);
        out[1] = (char)(0x80 | (code & 63));
        return 2;
    }
    if (code < 0x10000) {
        out[0] = (char)(0xE0 | code >> 12);
        out[1] = (char)(0x80 | (code >> 6 & 63));
        out[2] = (char)(0x80 | (code & 63));
        return 3;
    }
    out[0] = (char)(0xF0 | code >> 18);
    out[1] = (char)(0x80 | (code >> 12 & 63));
    out[2] = (char)(0x80 | (code >> 6 & 63));
    out[3] = (char)(0x80 | (code & 63));
    return 4;
}

/* Four hexadecimal digits. */
static bool take_hex4(vx_json_cursor *c, uint32_t *out) {
    if (c->end - c->at < 4) return false;
    *out = 0;
    for (int i = 0; i < 4; i++) {
        const char d = *c->at++;
        uint32_t v;
        if (d >= '0' && d <= '9')
            v = (uint32_t)(d - '0');
        else if (d >= 'a' && d <= 'f')
            v = (uint32_t)(d - 'a' + 10);
        else if (d >= 'A' && d <= 'F')
            v = (uint32_t)(d - 'A' + 10);
        else
            return false;
        *out = *out << 4 | v;
    }
    return true;
}

/* What follows "\u": one character, of two escapes where it lies above U+FFFF. */
static bool take_unicode(vx_json_cursor *c, uint32_t *code) {
    uint32_t low;
    if (!take_hex4(c, code) || *code == 0) return false;
    if (*code < 0xD800 || *code > 0xDFFF) return true;
    if (*code > 0xDBFF || c->end - c->at < 2 || c->at[0] != '\\' || c->at[1] != 'u') return false;
    c->at += 2;
    if (!take_hex4(c, &low) || low < 0xDC00 || low > 0xDFFF) return false;
    *code = 0x10000 + ((*code - 0xD800) << 10) + (low - 0xDC00);
    return true;
}

/* What follows a backslash, as UTF-8. */
static size_t take_escape(vx_json_cursor *c, char *out) {
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    uint32_t code;
    if (c->at >= c->end) return 0;
    const char letter = *c->at++;
    if (letter == 'u') return take_unicode(c, &code) ? put_utf8(code, out) : 0;
    const char *found = letter ? strchr(from, letter) : NULL;
    if (!found) return 0;
    out[0] = to[found - from];
    return 1;
}

bool vx_json_string(vx_json_cursor *cursor, char *out, size_t *bytes) {
    size_t n = 0;
    if (!vx_json_take(cursor, '"')) return false;
    while (cursor->at < cursor->end && *cursor->at != '"') {
        char escaped[4];
        const char *piece = cursor->at;
        size_t length;
        if (*piece == '\\') {
            cursor->at++;
            length = take_escape(cursor, escaped);
            piece = escaped;
        } else {
            if ((unsigned char)*piece < 0x20) return false;
            length = utf8_length((const unsigned char *)piece, (size_t)(cursor->end - piece));
            cursor->at += length;
        }
        if (length == 0) return false;
        if (out) memcpy(out + n, piece, length);
        n += length;
    }
    if (cursor->at >= cursor->end) return false;
    cursor->at++;
    if (out) out[n] = '\0';
    if (bytes) *bytes = n;
    return true;
}

static bool is_digit(const vx_json_cursor *c) {
    return c->at < c->end && *c->at >= '0' && *c->at <= '9';
}

bool vx_json_u64(vx_json_cursor *cursor, uint64_t *out) {
    uint64_t value = 0;
    skip_space(cursor);
    if (!is_digit(cursor)) return false;
    const char *first = cursor->at;
    for (; is_digit(cursor); cursor->at++)
        if (__builtin_mul_overflow(value, (uint64_t)10, &value) ||
            __builtin_add_overflow(value, (uint64_t)(*cursor->at - '0'), &value))
            return false;
    if (*first == '0' && cursor->at - first > 1) return false;
    if (cursor->at < cursor->end &&
        (*cursor->at == '.' || *cursor->at == 'e' || *cursor->at == 'E'))
        return false;
    *out = value;
    return true;
}

/* -? int frac? exp?, at most 60 characters (cJSON copies numbers into 64). */
static bool take_number(vx_json_cursor *c) {
    const char *first = c->at;
    if (c->at < c->end && *c->at == '-') c->at++;
    if (!is_digit(c)) return false;
    if (*c->at == '0')
        c->at++;
    else
        while (is_digit(c)) c->at++;
    if (c->at < c->end && *c->at == '.') {
        c->at++;
        if (!is_digit(c)) return false;
        while (is_digit(c)) c->at++;
    }
    if (c->at < c->end && (*c->at == 'e' || *c->at == 'E')) {
        c->at++;
        if (c->at < c->end && (*c->at == '+' || *c->at == '-')) c->at++;
        if (!is_digit(c)) return false;
        while (is_digit(c)) c->at++;
    }
    return c->at - first <= 60;
}

static bool take_word(vx_json_cursor *c, const char *word) {
    const size_t n = strlen(word);
    if ((size_t)(c->end - c->at) < n || memcmp(c->at, word, n) != 0) return false;
    c->at += n;
    return true;
}

static bool take_scalar(vx_json_cursor *c) {
    if (c->at >= c->end) return false;
    switch (*c->at) {
    case '"':
        return vx_json_string(c, NULL, NULL);
    case 't':
        return take_word(c, "true");
    case 'f':
        return take_word(c, "false");
    case 'n':
        return take_word(c, "null");
    default:
        return take_number(c);
    }
}

/* "key": of an object. */
static bool take_key(vx_json_cursor *c) {
    return vx_json_string(c, NULL, NULL) && vx_json_take(c, ':');
}

/* The open brackets are kept in an array of VX_JSON_MAX_DEPTH closing ones instead of on the stack
 * of calls. */
static const char *check(vx_json_cursor *c) {
    char closing[VX_JSON_MAX_DEPTH];
    size_t depth = 0;
    for (;;) {
        /* A value is expected here. */
        const bool object = vx_json_take(c, '{');
        if (object || vx_json_take(c, '[')) {
            if (depth == VX_JSON_MAX_DEPTH) return "it nests more than 64 deep";
            closing[depth++] = object ? '}' : ']';
            if (!vx_json_take(c, closing[depth - 1])) {
                if (object && !take_key(c)) return "a key is missing or malformed";
                continue;
            }
            depth--;
        } else if (!take_scalar(c)) {
            return "a value is missing or malformed";
        }
        /* A value has ended: close what closes, then either stop or go on to the next one. */
        while (depth && vx_json_take(c, closing[depth - 1])) depth--;
        if (depth == 0) return vx_json_at_end(c) ? NULL : "something follows its end";
        if (!vx_json_take(c, ',')) return "a comma or a bracket is missing";
        if (closing[depth - 1] == '}' && !take_key(c)) return "a key is missing or malformed";
    }
}

const char *vx_json_check(const char *text, size_t bytes, size_t *where) {
    vx_json_cursor cursor = {text, text + bytes};
    const char *wrong = check(&cursor);
    if (where) *where = (size_t)(cursor.at - text);
    return wrong;
}

bool vx_has_control(const char *s) {
    const unsigned char *p = (const unsigned char *)s;
    for (; *p; p++)
        if (*p < 0x20 || *p == 0x7F || (*p == 0xC2 && p[1] >= 0x80 && p[1] <= 0x9F)) return true;
    return false;
}
