/* What --device and --precision auto choose, and the sessions that are opened on it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "api/devices.h"
#include "infer/fake_model.h"
#include "pretend_devices.h"

static int set_up(void **state) {
    (void)state;
    pretend_reset();
    return 0;
}

static vx_device_list find(const vx_device_source *source, const char *option) {
    vx_device_list list;
    vxm_error error;
    if (vx_devices_find(source, option, &list, &error) != VXM_OK) fail_msg("%s", error.text);
    return list;
}

/* ---- The option ---- */

static void auto_without_a_driver_asks_nothing(void **state) {
    (void)state;
    const char *const options[] = {NULL, "auto"};
    for (int i = 0; i < 2; i++) {
        vx_device_list list = find(&pretend_no_driver, options[i]);
        assert_ptr_equal(list.backend, pretend_no_driver.cpu);
        assert_string_equal(list.left_aside, "");
    }
    assert_int_equal(atomic_load(&pretend_seen_so_far.counted), 0);
}

static void auto_takes_the_first_device(void **state) {
    (void)state;
    vx_device_list list = find(&pretend_source, "auto");
    assert_ptr_equal(list.backend, pretend_source.cuda);
    assert_ptr_equal(list.instead, pretend_source.cpu);
    assert_int_equal(list.first, 0);
    assert_int_equal(list.count, 1);
    assert_string_equal(list.left_aside, "");
}

static void auto_says_what_is_missing(void **state) {
    (void)state;
    pretend.count_fails = true;
    vx_device_list list = find(&pretend_source, "auto");
    assert_ptr_equal(list.backend, pretend_source.cpu);
    assert_string_equal(list.left_aside, "a library is missing (get it)");
}

static void auto_is_silent_without_a_device(void **state) {
    (void)state;
    pretend.count = 0;
    vx_device_list list = find(&pretend_source, "auto");
    assert_ptr_equal(list.backend, pretend_source.cpu);
    assert_string_equal(list.left_aside, "");
}

static void names(void **state) {
    (void)state;
    vx_device_list list = find(&pretend_source, "cpu");
    assert_ptr_equal(list.backend, pretend_source.cpu);
    list = find(&pretend_source, "cuda");
    assert_ptr_equal(list.backend, pretend_source.cuda);
    assert_null(list.instead);
    list = find(&pretend_source, "cuda:3");
    assert_int_equal(list.first, 3);
    assert_int_equal(list.count, 1);
    list = find(&pretend_source, "cuda:99999999999999999999");
    assert_true(list.first > 1000000);
    pretend.count = 3;
    list = find(&pretend_source, "cuda:all");
    assert_int_equal(list.first, 0);
    assert_int_equal(list.count, 3);
    const char *const wrong[] = {"", "tpu", "cuda:", "cuda:x", "cuda:1x", "cuda:-1", "cuda: 1"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_int_equal(vx_devices_find(&pretend_source, wrong[i], &list, NULL), VXM_ERR_USAGE);
}

static void all_of_none(void **state) {
    (void)state;
    vx_device_list list;
    vxm_error error;
    pretend.count = 0;
    assert_int_equal(vx_devices_find(&pretend_source, "cuda:all", &list, &error), VXM_ERR_RESOURCE);
    pretend.count_fails = true;
    assert_int_equal(vx_devices_find(&pretend_source, "cuda:all", &list, &error), VXM_ERR_RESOURCE);
    assert_string_equal(error.text, "a library is missing (get it)");
}

static void assert_build_says(const vx_device_source *source, const char *text) {
    char *json;
    assert_int_equal(vx_build_json_on(source, &json, NULL), VXM_OK);
    cJSON *root = cJSON_Parse(json);
    assert_non_null(root);
    char *plain = cJSON_PrintUnformatted(root);
    if (!strstr(plain, text)) fail_msg("no %s in %s", text, plain);
    cJSON_free(plain);
    cJSON_Delete(root);
    vxm_free(json);
}

static void the_build_tells_its_devices(void **state) {
    (void)state;
    assert_build_says(&pretend_source, "\"devices\":[\"cpu\",\"cuda:0\",\"cuda:1\"],"
                                       "\"device\":\"pretended CPU\"");
    pretend.count = 0;
    assert_build_says(&pretend_source, "\"devices\":[\"cpu\"],\"no_cuda\":\"no NVIDIA device\"");
    pretend.count_fails = true;
    assert_build_says(&pretend_source,
                      "\"devices\":[\"cpu\"],\"no_cuda\":\"a library is missing (get it)\"");
}

/* ---- Sessions ---- */

typedef struct bench {
    vxm_model model;
    vx_device_list list;
    vxm_session *session;
    vxm_error error;
} bench;

static vxm_status open_bench(bench *b, const char *device, vxm_precision precision) {
    const fake_settings settings = {0};
    vxm_session_options options;
    vxm_session_options_init(&options, sizeof options);
    options.precision = precision;
    options.threads = 1;
    *b = (bench){.model = {.model = fake_model(&settings), .path = "fake.safetensors"}};
    b->list = find(&pretend_source, device);
    return vx_open_session(&b->model, &options, &b->list, 0, &b->session, &b->error);
}

static void close_bench(bench *b) {
    vxm_session_free(b->session);
    vx_model_close(b->model.model);
}

static void precision_of_auto(void **state) {
    (void)state;
    const struct {
        const char *device;
        vxm_precision wanted;
        vx_precision precision;
        bool may_repeat;
    } rows[] = {{"cpu", VXM_PRECISION_AUTO, VX_PRECISION_FP32, false},
                {"cuda", VXM_PRECISION_AUTO, VX_PRECISION_FP16, true},
                {"auto", VXM_PRECISION_AUTO, VX_PRECISION_FP16, true},
                {"cuda", VXM_PRECISION_FP16, VX_PRECISION_FP16, false},
                {"cuda", VXM_PRECISION_FP32, VX_PRECISION_FP32, false},
                {"cuda", VXM_PRECISION_BF16, VX_PRECISION_BF16, false}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        bench b;
        assert_int_equal(open_bench(&b, rows[i].device, rows[i].wanted), VXM_OK);
        assert_int_equal(b.session->precision, rows[i].precision);
        assert_int_equal(b.session->may_repeat, rows[i].may_repeat);
        close_bench(&b);
    }
}

/* What a session says of its device: "level text" a line. */
static void note(void *user_data, vxm_log_level level, size_t case_number, const char *text) {
    char *lines = user_data;
    assert_int_equal(case_number, 0);
    snprintf(lines + strlen(lines), 1024 - strlen(lines), "%d %s\n", (int)level, text);
}

static void auto_falls_back_to_the_cpu(void **state) {
    (void)state;
    bench b;
    char lines[1024] = "";
    const vxm_callbacks callbacks = {.user_data = lines, .log = note};
    pretend.closed = 0;
    assert_int_equal(open_bench(&b, "auto", VXM_PRECISION_AUTO), VXM_OK);
    assert_string_equal(b.session->backend->name, "cpu");
    assert_int_equal(b.session->precision, VX_PRECISION_FP32);
    vx_say_device(b.session, &callbacks);
    vx_say_device(b.session, &callbacks);
    assert_string_equal(lines, "2 computing on the CPU: device 0 is closed (use another)\n"
                               "1 device: pretended CPU, fp32\n");
    /* It stays there, whatever becomes of the device. */
    pretend.closed = -1;
    vxm_session *second;
    vxm_session_options options;
    vxm_session_options_init(&options, sizeof options);
    assert_int_equal(vx_open_session(&b.model, &options, &b.list, 1, &second, NULL), VXM_OK);
    assert_string_equal(second->backend->name, "cpu");
    vxm_session_free(second);
    close_bench(&b);
}

static void a_good_device_is_no_warning(void **state) {
    (void)state;
    bench b;
    char lines[1024] = "";
    const vxm_callbacks callbacks = {.user_data = lines, .log = note};
    assert_int_equal(open_bench(&b, "auto", VXM_PRECISION_AUTO), VXM_OK);
    vx_say_device(b.session, &callbacks);
    assert_string_equal(lines, "1 device: pretended device, fp16\n");
    close_bench(&b);
}

static void a_named_device_is_not_replaced(void **state) {
    (void)state;
    const char *const options[] = {"cuda", "cuda:0", "cuda:all", "cuda:7"};
    pretend.closed = 0;
    for (size_t i = 0; i < sizeof options / sizeof *options; i++) {
        bench b;
        assert_int_equal(open_bench(&b, options[i], VXM_PRECISION_AUTO), VXM_ERR_RESOURCE);
        assert_null(b.session);
        assert_string_equal(b.error.file, ""); /* it is not the model's fault */
        assert_non_null(strstr(b.error.text, "is closed"));
        close_bench(&b);
    }
}

static void sessions_go_round_the_devices(void **state) {
    (void)state;
    const fake_settings settings = {0};
    vxm_model model = {.model = fake_model(&settings), .path = "fake.safetensors"};
    vxm_session_options options;
    vxm_session_options_init(&options, sizeof options);
    pretend.count = 3;
    vx_device_list list = find(&pretend_source, "cuda:all");
    for (unsigned k = 0; k < 7; k++) {
        vxm_session *session;
        assert_int_equal(vx_open_session(&model, &options, &list, k, &session, NULL), VXM_OK);
        assert_int_equal(session->ordinal, k % 3);
        vxm_session_free(session);
    }
    vx_model_close(model.model);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(the_build_tells_its_devices, set_up),
        cmocka_unit_test_setup(auto_without_a_driver_asks_nothing, set_up),
        cmocka_unit_test_setup(auto_takes_the_first_device, set_up),
        cmocka_unit_test_setup(auto_says_what_is_missing, set_up),
        cmocka_unit_test_setup(auto_is_silent_without_a_device, set_up),
        cmocka_unit_test_setup(names, set_up),
        cmocka_unit_test_setup(all_of_none, set_up),
        cmocka_unit_test_setup(precision_of_auto, set_up),
        cmocka_unit_test_setup(auto_falls_back_to_the_cpu, set_up),
        cmocka_unit_test_setup(a_good_device_is_no_warning, set_up),
        cmocka_unit_test_setup(a_named_device_is_not_replaced, set_up),
        cmocka_unit_test_setup(sessions_go_round_the_devices, set_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
