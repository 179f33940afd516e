/* Errors, options, redaction, JSON numbers and hashes. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "api/internal.h"
#include "base/memory.h"

static void check_redacted(const char *text, const char *expected) {
    char copy[256];
    snprintf(copy, sizeof copy, "%s", text);
    vxm_redact(copy);
    assert_string_equal(copy, expected);
}

static void test_redaction(void **state) {
    (void)state;
    check_redacted("2 series: 1.2.840.113619.2.5 (MR)", "2 series: * (MR)");
    check_redacted("cannot open '/data/Doe^John/a b.nii'", "cannot open *");
    check_redacted("e.g. 'Zo\xc3\xab O'Neil 7': cut short", "e.g. *: cut short");
    check_redacted("the line 'Doe^John of a message that was c", "the line *");
    check_redacted("spacing 1.25 x 3.5 mm, version 0.1.0", "spacing 1.25 x 3.5 mm, version 0.1.0");
    check_redacted("1 / 2 and z/y/x stay", "1 / 2 and z/y/x stay");
    check_redacted("5 files cannot be read, e.g. Doe_J.dcm: damaged file",
                   "5 files cannot be read, "
                   "e.g. *: damaged file");
    check_redacted("no image: IM0001: damaged", "no image: *: damaged");
    check_redacted("cannot open: Permission denied", "cannot open: Permission denied");
    check_redacted("don't know 'Doe^J'", "don't know *");
    check_redacted("2 of 9 files: one slice", "2 of 9 files: one slice");
    check_redacted("open /data/x", "open *");
    check_redacted("", "");
}

static void test_errors_keep_paths_apart(void **state) {
    (void)state;
    vxm_error error;
    vx_error err = {.code = VX_ERR_MODEL, .text = "a/b.safetensors: too short (copy it again)"};
    assert_int_equal(vx_api_error(&error, "a/b.safetensors", VX_ERR_MODEL, &err), VXM_ERR_MODEL);
    assert_string_equal(error.text, "too short (copy it again)");
    assert_string_equal(error.file, "a/b.safetensors");
    assert_int_equal(vx_api_error(&error, "other", VX_ERR_MODEL, &err), VXM_ERR_MODEL);
    assert_string_equal(error.text, err.text);
    assert_int_equal(vx_api_fail(NULL, NULL, VXM_ERR_USAGE, "no error struct"), VXM_ERR_USAGE);
    for (int code = -1; code <= 8; code++) assert_non_null(vxm_status_text((vxm_status)code));
}

static void test_options(void **state) {
    (void)state;
    vxm_error error;
    vxm_session_options known, given, longer[2];
    vxm_session_options_init(&known, sizeof known);
    assert_int_equal(vx_api_options(&known, sizeof known, NULL, &error), VXM_OK);
    assert_string_equal(known.device, "auto");
    memset(&given, 0, sizeof given);
    assert_int_equal(vx_api_options(&known, sizeof known, &given, &error), VXM_ERR_USAGE);
    /* An older program: only its first members count. */
    given.struct_size = offsetof(vxm_session_options, precision);
    given.device = "cpu";
    given.threads = 7;
    assert_int_equal(vx_api_options(&known, sizeof known, &given, &error), VXM_OK);
    assert_string_equal(known.device, "cpu");
    assert_int_equal(known.threads, 0);
    assert_int_equal(known.struct_size, sizeof known);
    /* A newer one: what this library does not know is left alone. */
    vxm_session_options_init(&longer[0], sizeof longer[0]);
    longer[0].struct_size = sizeof longer;
    assert_int_equal(vx_api_options(&known, sizeof known, longer, &error), VXM_OK);
}

static void test_json_numbers(void **state) {
    (void)state;
    char *json;
    cJSON *root = cJSON_CreateObject();
    vx_json_number(root, "a", NAN);
    vx_json_number(root, "b", INFINITY);
    vx_json_number(root, "c", -INFINITY);
    vx_json_number(root, "d", 0.1);
    vx_json_size(root, "e", (uint64_t)1 << 52);
    const double zeros[] = {-0.0, 1e-300};
    cJSON_AddItemToObject(root, "f", vx_json_doubles(zeros, 2));
    assert_int_equal(vx_json_print(root, &json, NULL), VXM_OK);
    assert_non_null(strstr(json, "\"a\":\tnull"));
    assert_non_null(strstr(json, "\"b\":\t\"inf\""));
    assert_non_null(strstr(json, "\"c\":\t\"-inf\""));
    assert_non_null(strstr(json, "\"d\":\t0.1,"));
    assert_non_null(strstr(json, "4503599627370496"));
    assert_non_null(strstr(json, "[0, 1e-300]"));
    vxm_free(json);
}

static void test_hashes(void **state) {
    (void)state;
    /* FIPS 180-2, appendix B.1. */
    const char *abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    char hex[65], parts[2][65], path[] = "/tmp/vxhashXXXXXX";
    vx_error err;
    vx_sha256_text("abc", hex);
    assert_string_equal(hex, abc);
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "abc", 3), 3);
    close(fd);
    assert_int_equal(vx_sha256_file(path, NULL, hex, &err), VX_OK);
    assert_string_equal(hex, abc);
    assert_int_equal(vx_sha256_input(path, NULL, hex, &err), VX_ERR_INPUT); /* no volume */
    assert_string_equal(hex, "");
    unlink(path);
    assert_int_equal(vx_sha256_file(path, NULL, hex, &err), VX_ERR_INPUT);
    assert_int_equal(vx_sha256_input(path, NULL, hex, &err), VX_ERR_INPUT);
    memcpy(parts[0], abc, 65);
    memcpy(parts[1], abc, 65);
    vx_sha256_join((const char(*)[65])parts, 1, hex);
    assert_string_equal(hex, abc);
    vx_sha256_join((const char(*)[65])parts, 2, hex);
    assert_string_not_equal(hex, abc);
}

static void test_resources(void **state) {
    (void)state;
    assert_true(vx_peak_memory() > 100000);
    assert_true(vx_available_memory() > 1000000);
    assert_string_equal(vx_base_name("a/b.c"), "b.c");
    assert_string_equal(vx_base_name("b"), "b");
    assert_int_equal(vx_folder_length("a/b"), 2);
    char *text = vx_format_text("%s-%d", "x", 5);
    assert_string_equal(text, "x-5");
    vx_free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_redaction), cmocka_unit_test(test_errors_keep_paths_apart),
        cmocka_unit_test(test_options),   cmocka_unit_test(test_json_numbers),
        cmocka_unit_test(test_hashes),    cmocka_unit_test(test_resources),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
