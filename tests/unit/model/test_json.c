/* The strict JSON reader: what RFC 8259 allows, and nothing else. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "model/json_text.h"

static void accepts(void **state) {
    (void)state;
    static const char *const good[] = {
        "{}",
        "[]",
        " [ ] ",
        "1",
        "-0",
        "0.5",
        "-1e-3",
        "1E+2",
        "true",
        "false",
        "null",
        "\"\"",
        "\"\\u00e9\\n\\/\"",
        "\"\xc3\xa9\"",
        "\"\\ud83d\\ude00\"",
        "[1,2,[3,{\"a\":[]}]]",
        "{\"a\":1,\"b\":{\"c\":[true,null]},\"d\":\"e\"}\n",
        "[{},{},[[]]]",
        "\"\xef\xbf\xbf\xf4\x8f\xbf\xbf\"",
    };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        const char *wrong = vx_json_check(good[i], strlen(good[i]), NULL);
        if (wrong) fail_msg("%s: %s", good[i], wrong);
    }
}

static void refuses(void **state) {
    (void)state;
    static const char *const bad[] = {
        "",
        " ",
        "{",
        "[",
        "]",
        "}",
        "[1,]",
        "[,1]",
        "[1 2]",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{a:1}",
        "{'a':1}",
        "{\"a\":1]",
        "[1}",
        "01",
        "-",
        "+1",
        "1.",
        ".5",
        "1e",
        "1e+",
        "0x10",
        "NaN",
        "Infinity",
        "-Infinity",
        "tru",
        "nul",
        "True",
        "\"",
        "\"a",
        "\"\\",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\u123g\"",
        "\"\\u0000\"",
        "\"\\ud800\"",
        "\"\\ud800\\u0041\"",
        "\"\\udc00\"",
        "\"\n\"",
        "\"\x01\"",
        "\"\xff\"",
        "\"\xc3\"",
        "\"\xc0\x80\"",
        "\"\xed\xa0\x80\"",
        "\"\xe0\x80\x80\"",
        "\"\xf0\x80\x80\x80\"",
        "\"\xf4\x90\x80\x80\"",
        "1 1",
        "{} {}",
        "[]x",
        "\xef\xbb\xbf{}",
        "/**/1",
        "[1//\n]",
        "1111111111111111111111111111111111111111111111111111111111111", /* 61 digits */
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (!vx_json_check(bad[i], strlen(bad[i]), NULL)) fail_msg("took %s", bad[i]);
    assert_non_null(vx_json_check("1\0", 2, NULL));
    assert_non_null(vx_json_check("\"a\0\"", 4, NULL));
    /* The text ends where the count says, NUL or not. */
    assert_non_null(vx_json_check("[1,2]", 4, NULL));
    assert_null(vx_json_check("[1,2]xyz", 5, NULL));
}

static void nesting(void **state) {
    (void)state;
    enum { DEEP = 100000 };
    char *text = malloc(2 * DEEP);
    assert_non_null(text);
    memset(text, '[', DEEP);
    memset(text + DEEP, ']', DEEP);
    size_t where = 0;
    assert_null(vx_json_check(text + DEEP - 64, 128, NULL));
    assert_non_null(vx_json_check(text + DEEP - 65, 130, &where));
    assert_int_equal(where, 65);
    assert_string_equal(vx_json_check(text, 2 * DEEP, NULL), "it nests more than 64 deep");
    free(text);
}

static bool take_u64(const char *text, uint64_t *out) {
    vx_json_cursor c = {text, text + strlen(text)};
    return vx_json_u64(&c, out);
}

static void unsigned_numbers(void **state) {
    (void)state;
    uint64_t v = 0;
    assert_true(take_u64("18446744073709551615", &v) && v == UINT64_MAX);
    assert_true(take_u64(" 9007199254740993,", &v) && v == 9007199254740993u); /* 2^53 + 1 */
    assert_true(take_u64("0]", &v) && v == 0);
    static const char *const bad[] = {"18446744073709551616",
                                      "99999999999999999999999",
                                      "-1",
                                      "-0",
                                      "01",
                                      "1.0",
                                      "1e3",
                                      "1E3",
                                      "",
                                      "x",
                                      "\"1\"",
                                      "null"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (take_u64(bad[i], &v)) fail_msg("took %s", bad[i]);
}

static void strings(void **state) {
    (void)state;
    const char *text = " \"a\\\"\\\\\\/\\b\\f\\n\\r\\t\\u0041\\u00E9\\u20ac\\ud83d\\ude00\" :";
    char out[64];
    size_t n;
    vx_json_cursor c = {text, text + strlen(text)};
    assert_true(vx_json_string(&c, out, &n));
    assert_string_equal(out, "a\"\\/\b\f\n\r\tA\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80");
    assert_int_equal(n, strlen(out));
    assert_true(vx_json_take(&c, ':') && vx_json_at_end(&c));
    assert_true(vx_has_control("a\x1b[0m") && vx_has_control("\x7f") && vx_has_control("\xc2\x9b"));
    assert_false(vx_has_control("plain \xc3\xa9 \xe2\x82\xac \xc2\xa0"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(accepts),          cmocka_unit_test(refuses), cmocka_unit_test(nesting),
        cmocka_unit_test(unsigned_numbers), cmocka_unit_test(strings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
