/* The tiles of one case on several devices with memories of their own: the same files as from one,
 * whatever becomes of the others. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "batch_bench.h"
#include "infer/fake_model.h"
#include "infer/fake_plan.h"

static int runs_of(int device) { return atomic_load(&pretend_seen_so_far.runs[device]); }

static void start_counting(int devices) {
    memset(&pretend_seen_so_far, 0, sizeof pretend_seen_so_far);
    pretend.count = devices;
    fake_sweep_order = 0;
}

/* The same tiles are added in the same order, and computed evenly by all. */
static void tiles_are_shared(void **state) {
    (void)state;
    batch_outcome o;
    batch_make_model(8);
    batch_put_volume("a.nii", 21, 4);
    for (int tta = 0; tta < 2; tta++) {
        char one[32], many[32];
        batch_wish wanted = {.source = &pretend_own_memory, .tta = tta};
        snprintf(one, sizeof one, "one%d", tta);
        start_counting(1);
        wanted.device = "cuda";
        wanted.out = one;
        batch_run(&wanted, &o);
        assert_int_equal(o.status, VXM_OK);
        const size_t order = fake_sweep_order;
        const int all = runs_of(0);
        for (int devices = 2; devices <= PRETEND_MOST; devices++) {
            start_counting(devices);
            pretend.microseconds = devices == 3 ? 500 : 0;
            snprintf(many, sizeof many, "%d%d", devices, tta);
            wanted.device = "cuda:all";
            wanted.out = many;
            wanted.threads = (unsigned)devices - 1;
            batch_run(&wanted, &o);
            assert_int_equal(o.status, VXM_OK);
            assert_true(fake_sweep_order == order);
            int sum = 0;
            for (int d = 0; d < devices; d++) {
                sum += runs_of(d);
                assert_true(abs(runs_of(d) - all / devices) <= 1);
            }
            assert_int_equal(sum, all);
            batch_assert_same_file(one, many, "a.nii");
            batch_assert_same_file(one, many, "a.json");
            char report[32];
            snprintf(report, sizeof report, "\"jobs\":1,\"devices\":%d", devices);
            assert_non_null(strstr(o.device, report));
        }
    }
}

/* Two cases on four devices: two each. Probabilities are the host's, on a device each. */
static void devices_are_dealt_out_to_cases(void **state) {
    (void)state;
    batch_outcome o;
    batch_make_model(8);
    batch_put_volume("a.nii", 21, 4);
    batch_put_volume("b.nii", 21, 3);
    for (int probabilities = 0; probabilities < 2; probabilities++) {
        start_counting(4);
        batch_run(&(batch_wish){.device = "cuda:all",
                                .out = probabilities ? "with" : "without",
                                .source = &pretend_own_memory,
                                .probabilities = probabilities},
                  &o);
        assert_int_equal(o.status, VXM_OK);
        assert_non_null(strstr(o.device, probabilities ? "\"devices\":2" : "\"devices\":4"));
        for (int d = 0; d < 4; d++) assert_int_equal(runs_of(d) > 0, d < 2 || !probabilities);
    }
    batch_assert_same_file("with", "without", "a.nii");
    batch_assert_same_file("with", "without", "b.nii");
}

/* Of another kind, or not to be opened: a warning. */
static void devices_are_left_out(void **state) {
    (void)state;
    static const char *const lines[] = {
        "0: cuda:1 is not used: it is of another kind than the first one\n1 ends: 1\n",
        "0: cuda:1 is not used: device 1 is closed (use another)\n1 ends: 1\n"};
    batch_outcome o;
    batch_make_model(8);
    batch_put_volume("a.nii", 21, 4);
    for (int k = 0; k < 2; k++) {
        start_counting(3);
        pretend.odd = k ? -1 : 1;
        pretend.closed = k ? 1 : -1;
        batch_run(&(batch_wish){.device = "cuda:all",
                                .out = k ? "closed" : "odd",
                                .source = &pretend_own_memory},
                  &o);
        assert_int_equal(o.status, VXM_OK);
        assert_string_equal(o.lines, lines[k]);
        assert_non_null(strstr(o.device, "\"devices\":2"));
        assert_true(runs_of(0) > 0 && runs_of(2) > 0);
        assert_int_equal(runs_of(1), 0);
    }
    batch_assert_same_file("odd", "closed", "a.nii");
}

/* Of the GPU's memory, on so many devices. */
static size_t device_bytes(unsigned devices) {
    vxm_plan plan;
    vxm_session *session;
    vxm_session_options options;
    vx_device_list list;
    const vx_geometry geo = {.dims = {21, 21, 21},
                             .affine = {{1}, {0, 1}, {0, 0, 1}, {0, 0, 0, 1}}};
    start_counting((int)devices);
    vxm_session_options_init(&options, sizeof options);
    assert_int_equal(vx_devices_find(&pretend_own_memory, "cuda:all", &list, NULL), VXM_OK);
    assert_int_equal(vx_open_session(&batch_model, &options, &list, 0, &session, NULL), VXM_OK);
    vx_open_others(session, &list, 0, 1);
    assert_int_equal(session->other_count, devices - 1);
    assert_int_equal(vx_plan_volume(session, &geo, 0, &(vx_plan_outputs){0}, &plan, NULL), VXM_OK);
    vxm_session_free(session);
    return plan.device_volume_bytes;
}

/* Volume and logits fit, the others' logits beside them do not. */
static void one_device_computes_where_places_do_not_fit(void **state) {
    (void)state;
    batch_outcome o;
    batch_make_model(8);
    batch_put_volume("a.nii", 21, 4);
    const size_t some = fake_device_free, places = 3 * 8 * 8 * 8 * 4 * sizeof(float);
    const size_t alone = device_bytes(1);
    assert_int_equal(device_bytes(3), alone + places);
    for (int fits = 1; fits >= 0; fits--) {
        fake_device_free = alone + places - 1 + (size_t)fits;
        assert_int_equal(device_bytes(3), fits ? alone + places : alone);
        batch_run(&(batch_wish){.device = "cuda:all",
                                .out = fits ? "three" : "one",
                                .source = &pretend_own_memory},
                  &o);
        assert_int_equal(o.status, VXM_OK);
        if (fits)
            assert_null(strstr(o.lines, "one device"));
        else
            assert_non_null(strstr(o.lines, ": one device computes all tiles, which is slower"));
        assert_int_equal(runs_of(1) > 0, fits);
    }
    fake_device_free = some;
    batch_assert_same_file("one", "three", "a.nii");
}

/* Whoever breaks first, the tile that is next for the mask is told; nothing hangs. */
static void a_device_that_breaks_ends_the_case(void **state) {
    (void)state;
    batch_outcome o;
    batch_make_model(8);
    batch_put_volume("a.nii", 21, 4);
    for (int d = 0; d < 3; d++) {
        char out[2] = {(char)('0' + d), '\0'}, text[32];
        start_counting(3);
        pretend.breaks = d;
        pretend.microseconds = 500;
        batch_run(&(batch_wish){.device = "cuda:all", .out = out, .source = &pretend_own_memory},
                  &o);
        assert_int_equal(o.status, VXM_ERR_RESOURCE);
        snprintf(text, sizeof text, "device %d broke", d);
        assert_string_equal(o.error.text, text);
        assert_string_equal(o.lines, "1 ends: 3\n");
    }
    start_counting(3);
    pretend.closed = 0;
    batch_run(&(batch_wish){.device = "cuda:all", .out = "out", .source = &pretend_own_memory}, &o);
    assert_int_equal(o.status, VXM_ERR_RESOURCE);
    assert_string_equal(o.error.text, "device 0 is closed (use another)");
    assert_string_equal(o.lines, "");
}

static void several_devices_stop(void **state) {
    (void)state;
    batch_outcome o;
    batch_make_model(8);
    batch_put_volume("a.nii", 21, 4);
    start_counting(3);
    pretend.microseconds = 500;
    batch_run(
        &(batch_wish){
            .device = "cuda:all", .out = "out", .source = &pretend_own_memory, .stop_after = 20},
        &o);
    assert_int_equal(o.status, VXM_ERR_CANCELLED);
    assert_true(runs_of(0) + runs_of(1) + runs_of(2) < 60);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, batch_set_up, batch_tear_down)
    const struct CMUnitTest tests[] = {
        TEST(tiles_are_shared),
        TEST(devices_are_dealt_out_to_cases),
        TEST(devices_are_left_out),
        TEST(one_device_computes_where_places_do_not_fit),
        TEST(a_device_that_breaks_ends_the_case),
        TEST(several_devices_stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
