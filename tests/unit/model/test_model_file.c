/* safetensors files, good and hostile. Each hostile one gives one clear line and nothing else. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "model_writer.h"

/* Opens bytes as a file; text must be in the message, or NULL for "has to open". */
static void check_bytes(const void *data, size_t size, const char *text) {
    char path[64];
    vx_model_file *file = NULL;
    vx_error err = {0};
    write_temporary(data, size, path);
    const vx_status status = vx_model_file_open(path, &file, &err);
    unlink(path);
    vx_model_file_close(file);
    if (!text) {
        if (status) fail_msg("%s", err.text);
        return;
    }
    assert_int_equal(status, VX_ERR_MODEL);
    assert_null(file);
    if (strncmp(err.text, path, strlen(path)) != 0 || !strstr(err.text, text))
        fail_msg("\"%s\" is not in \"%s\"", text, err.text);
    for (const char *p = err.text; *p; p++) assert_true((unsigned char)*p >= 0x20);
}

static void check(const char *header, size_t data_bytes, const char *text) {
    bytes b = safetensors(header, data_bytes);
    check_bytes(b.data, b.size, text);
    free(b.data);
}

static void reads_a_good_file(void **state) {
    (void)state;
    /* Tensors in another order than their data, an escaped name, an empty tensor, a scalar. */
    bytes b =
        safetensors("{\"b\":{\"dtype\":\"F16\",\"shape\":[3],\"data_offsets\":[12,18]},"
                    "\"__metadata__\":{\"z\":\"1\",\"voxmamba\":\"{\\\"a\\\":\\n1}\"},"
                    "\"a\\u002eb\":{\"data_offsets\":[0,8],\"shape\":[1,2],\"dtype\":\"F32\"},"
                    "\"none\":{\"dtype\":\"F32\",\"shape\":[0,5],\"data_offsets\":[8,8]},"
                    "\"one\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[8,12]}}   ",
                    18);
    char path[64], hex[65];
    for (int i = 0; i < 18; i++) b.data[b.size - 18 + (size_t)i] = (unsigned char)i;
    write_temporary(b.data, b.size, path);
    vx_model_file *file;
    vx_error err = {0};
    if (vx_model_file_open(path, &file, &err)) fail_msg("%s", err.text);
    unlink(path);
    assert_int_equal(vx_model_file_count(file), 4);
    const vx_tensor *t = vx_model_file_find(file, "a.b");
    assert_non_null(t);
    assert_int_equal(t->rank, 2);
    assert_true(t->dims[0] == 1 && t->dims[1] == 2 && t->bytes == 8 && t->dtype == VX_F32);
    assert_int_equal(((const unsigned char *)t->data)[7], 7);
    t = vx_model_file_find(file, "b");
    assert_true(t->dtype == VX_F16 && t->bytes == 6 && t->rank == 1);
    assert_int_equal(((const unsigned char *)t->data)[0], 12);
    assert_ptr_equal(vx_model_file_at(file, 3), t); /* in the order of the data */
    assert_int_equal(vx_model_file_find(file, "one")->rank, 0);
    assert_int_equal(vx_model_file_find(file, "none")->bytes, 0);
    assert_null(vx_model_file_find(file, "__metadata__"));
    assert_null(vx_model_file_find(file, ""));
    assert_null(vx_model_file_at(file, 4));
    size_t n = 0;
    assert_string_equal(vx_model_file_metadata(file, "voxmamba", &n), "{\"a\":\n1}");
    assert_int_equal(n, 8);
    assert_null(vx_model_file_metadata(file, "y", &n));
    vx_model_file_sha256(file, hex);
    assert_int_equal(strlen(hex), 64);
    vx_model_file_close(file);
    vx_model_file_close(NULL);
    free(b.data);
}

/* SHA-256 of "{}" with its length before it, from sha256sum. */
static void names_a_file_by_its_hash(void **state) {
    (void)state;
    char path[64], hex[65];
    vx_model_file *file;
    bytes b = safetensors("{}", 0);
    write_temporary(b.data, b.size, path);
    assert_int_equal(vx_model_file_open(path, &file, NULL), VX_OK);
    unlink(path);
    assert_int_equal(vx_model_file_count(file), 0);
    assert_null(vx_model_file_find(file, "x"));
    assert_null(vx_model_file_metadata(file, "voxmamba", NULL));
    vx_model_file_sha256(file, hex);
    assert_string_equal(hex, "411a485216e432ece6b9af94fa32154cf79a2a56d4f81266baa50063f45092bd");
    vx_model_file_close(file);
    free(b.data);
}

static void lengths_that_lie(void **state) {
    (void)state;
    unsigned char raw[32] = {0};
    check_bytes(raw, 0, "the file is empty");
    check_bytes("PK\3\4", 4, "4 bytes are too few");
    raw[7] = 0x80; /* 2^63 */
    check_bytes(raw, sizeof raw, "the header would have 9223372036854775808 bytes");
    memset(raw, 0xff, 8);
    check_bytes(raw, sizeof raw, "18446744073709551615");
    memset(raw, 0, 8);
    raw[0] = 25; /* one more than there is */
    check_bytes(raw, sizeof raw, "would have 25 bytes");
    raw[0] = 0;
    check_bytes(raw, sizeof raw, "does not begin with {");
    check_bytes(raw, 8, "does not begin with {");
    raw[0] = 24;
    check_bytes(raw, sizeof raw, "does not begin with {");
    check(" {}", 0, "does not begin with {");
    check("{} x", 0, "something follows");
    check("{}", 1, "1 bytes after the last tensor");
    /* A header above 100 MB, in a file that is long enough (sparse). */
    char path[64];
    vx_error err = {0};
    vx_model_file *file;
    memset(raw, 0, 8);
    raw[3] = 0x06; /* 100,663,296 */
    write_temporary(raw, sizeof raw, path);
    assert_int_equal(truncate(path, 101000000), 0);
    assert_int_equal(vx_model_file_open(path, &file, &err), VX_ERR_MODEL);
    assert_non_null(strstr(err.text, "the header would have 100663296 bytes"));
    unlink(path);
}

#define T(dtype, shape, offsets)                                                                   \
    "{\"x\":{\"dtype\":" dtype ",\"shape\":" shape ",\"data_offsets\":" offsets "}}"

static void tensors_that_lie(void **state) {
    (void)state;
    check(T("\"F32\"", "[2]", "[0,8]"), 8, NULL);
    check(T("\"BF16\"", "[2,2]", "[0,8]"), 8, NULL);
    check(T("\"I8\"", "[8]", "[0,8]"), 8, "tensor x: its type is not F32, F16 or BF16");
    check(T("3", "[8]", "[0,8]"), 8, "a dtype is no string");
    check(T("\"F32\"", "[3]", "[0,8]"), 8, "tensor x: its shape needs 12 bytes, it has 8");
    check(T("\"F32\"", "[-2]", "[0,8]"), 8, "whole numbers");
    check(T("\"F32\"", "[2.0]", "[0,8]"), 8, "whole numbers");
    check(T("\"F32\"", "[2e0]", "[0,8]"), 8, "whole numbers");
    check(T("\"F32\"", "2", "[0,8]"), 8, "a shape is no list");
    check(T("\"F32\"", "[[2]]", "[0,8]"), 8, "whole numbers");
    check(T("\"F32\"", "[4294967296,4294967296]", "[0,8]"), 8, "its shape overflows");
    check(T("\"F32\"", "[4611686018427387906]", "[0,8]"), 8, "its shape overflows");
    check(T("\"F32\"", "[18446744073709551616]", "[0,8]"), 8, "whole numbers");
    check(T("\"F32\"", "[0,18446744073709551615,2]", "[0,0]"), 0, NULL);
    check(T("\"F32\"", "[1,1,1,1,1,1,1,1,2]", "[0,8]"), 8, "more than 8 dimensions");
    check(T("\"F32\"", "[2]", "[0,9]"), 8, "beyond the file's end (is the file truncated?)");
    check(T("\"F32\"", "[2]", "[0,8]"), 7, "truncated");
    check(T("\"F32\"", "[2]", "[-8,0]"), 8, "data_offsets are not two whole numbers");
    check(T("\"F32\"", "[2]", "[8,0]"), 8, "ends before it begins");
    check(T("\"F32\"", "[2]", "[0.0,8.0]"), 8, "data_offsets");
    check(T("\"F32\"", "[2]", "[0,8e0]"), 8, "data_offsets");
    check(T("\"F32\"", "[2]", "[0]"), 8, "data_offsets");
    check(T("\"F32\"", "[2]", "[0,8,8]"), 8, "data_offsets");
    check(T("\"F32\"", "[2]", "[0,18446744073709551616]"), 8, "data_offsets");
    /* begin + size wraps to a small number */
    check(T("\"F32\"", "[2]", "[18446744073709551612,4]"), 8, "ends before it begins");
    check(T("\"F32\"", "[2]", "[18446744073709551608,18446744073709551615]"), 8, "beyond");
    check(T("\"F32\"", "[2]", "[4,12]"), 12, "gap before its data");
    check(T("\"F32\"", "[2]", "[0,8]"), 9, "1 bytes after the last tensor");
}

#define PAIR(a, b)                                                                                 \
    "{\"p\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":" a                                  \
    "},\"q\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":" b "}}"

static void tensors_that_collide(void **state) {
    (void)state;
    check(PAIR("[0,8]", "[8,16]"), 16, NULL);
    check(PAIR("[8,16]", "[0,8]"), 16, NULL);
    check(PAIR("[0,8]", "[4,12]"), 12, "tensor q: its data overlaps another tensor's");
    check(PAIR("[0,8]", "[0,8]"), 8, "overlaps");
    check(PAIR("[0,8]", "[9,17]"), 17, "tensor q: there is a gap before its data");
    check("{\"x\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
          "\"x\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}",
          8, "tensor x appears twice");
    check("{\"x\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
          "\"\\u0078\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}",
          8, "tensor x appears twice");
}

static void headers_that_are_not_json(void **state) {
    (void)state;
    check("{", 0, "a key is missing");
    check("{\"x\"", 0, "a key is missing or malformed");
    check("{\"x\":", 0, "a tensor is no object");
    check("{\"x\":null}", 0, "a tensor is no object");
    check("{\"x\":{}}", 0, "a tensor's key is malformed");
    check("{\"x\":{\"dtype\":\"F32\"}}", 0, "lacks dtype, shape or data_offsets");
    check("{\"x\":{\"dtype\":\"F32\",\"dtype\":\"F32\"}}", 0, "unknown key or one key twice");
    check("{\"x\":{\"stride\":1}}", 0, "unknown key");
    check(T("\"F32\"", "[2]", "[0,8]") ",", 8, "something follows");
    check("{\"x\\u0000\":{}}", 0, "a key is missing or malformed");
    check("{\"\\u001b[31m\":{}}", 0, "control character");
    check("{\"\xff\":{}}", 0, "a key is missing or malformed");
    check("{\"__metadata__\":[]}", 0, "__metadata__ is no object");
    check("{\"__metadata__\":{\"a\":1}}", 0, "no string");
    check("{\"__metadata__\":{\"a\":{\"b\":\"c\"}}}", 0, "no string");
    check("{\"__metadata__\":{\"a\":\"1\",\"a\":\"2\"}}", 0, "appears twice");
    check("{\"__metadata__\":{},\"__metadata__\":{}}", 0, "appears twice");
    check("{\"__metadata__\":{\"a\":\"b\"", 0, "does not end");
    check("{\"__metadata__\":{\"a\":\"b", 0, "no string");
}

/* Nothing recurses, so no depth can overflow the stack. */
static void nesting(void **state) {
    (void)state;
    enum { DEEP = 100000 };
    static const char *const starts[] = {
        "{\"x\":", "{\"x\":{\"shape\":", "{\"x\":{\"data_offsets\":", "{\"__metadata__\":{\"a\":",
        "{\"__metadata__\":"};
    for (size_t i = 0; i < sizeof starts / sizeof *starts; i++)
        for (int brace = 0; brace < 2; brace++) {
            char *header = malloc(DEEP * 5 + 100), *at = header;
            assert_non_null(header);
            at += sprintf(at, "%s", starts[i]);
            for (int k = 0; k < DEEP; k++) at += sprintf(at, "%s", brace ? "{\"a\":" : "[");
            check(header, 0, "");
            free(header);
        }
}

static void paths_that_are_no_files(void **state) {
    (void)state;
    vx_model_file *file;
    vx_error err = {0};
    assert_int_equal(vx_model_file_open("/tmp/no/such/model", &file, &err), VX_ERR_MODEL);
    assert_non_null(strstr(err.text, "/tmp/no/such/model: cannot open the model: No such file"));
    assert_int_equal(vx_model_file_open("/tmp", &file, &err), VX_ERR_MODEL);
    assert_non_null(strstr(err.text, "this is a folder"));
    assert_int_equal(vx_model_file_open("/dev/null", &file, &err), VX_ERR_MODEL);
    assert_non_null(strstr(err.text, "not a regular file"));
    char path[64];
    write_temporary("", 0, path);
    unlink(path);
    assert_int_equal(mkfifo(path, 0600), 0); /* must not wait for a writer */
    assert_int_equal(vx_model_file_open(path, &file, &err), VX_ERR_MODEL);
    unlink(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_a_good_file),
        cmocka_unit_test(names_a_file_by_its_hash),
        cmocka_unit_test(lengths_that_lie),
        cmocka_unit_test(tensors_that_lie),
        cmocka_unit_test(tensors_that_collide),
        cmocka_unit_test(headers_that_are_not_json),
        cmocka_unit_test(nesting),
        cmocka_unit_test(paths_that_are_no_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
