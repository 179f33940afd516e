/* A batch over several devices: the same files, lines and report as on one; a case that overflows
 * in half precision; reading while the device is opened. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "batch_bench.h"

/* ---- Spreading ---- */

/* The first case takes longest; the third is broken at once; the fourth has an empty mask. */
static void put_cases(void) {
    batch_make_model(8);
    batch_put_volume("a.nii", 24, 4);
    batch_put_volume("b.nii", 11, 4);
    batch_put_bytes("c.nii", "no volume", 9, "", 0);
    batch_put_volume("d.nii", 10, 4);
    batch_put_volume("e.nii", 9, 3);
    batch_put_volume("f.nii", 12, 4);
}

static void several_devices_do_as_one(void **state) {
    (void)state;
    static const struct {
        const char *device;
        int devices;
        unsigned jobs;
        const char *report;
    } rows[] = {
        {"cuda:all", 2, 1,
         "{\"kind\":\"cuda\",\"description\":\"pretended device\","
         "\"threads\":1,\"jobs\":2,\"devices\":2}"},
        {"cuda:all", 3, 2,
         "{\"kind\":\"cuda\",\"description\":\"pretended device\","
         "\"threads\":1,\"jobs\":6,\"devices\":3}"},
        {"cuda:all", 1, 1,
         "{\"kind\":\"cuda\",\"description\":\"pretended device\","
         "\"threads\":1,\"jobs\":1,\"devices\":1}"},
        {"cuda", 2, 3,
         "{\"kind\":\"cuda\",\"description\":\"pretended device\","
         "\"threads\":1,\"jobs\":3,\"devices\":1}"},
    };
    batch_outcome one, many;
    put_cases();
    pretend.microseconds = 1000;
    batch_run(&(batch_wish){.device = "cuda", .out = "one"}, &one);
    assert_int_equal(one.status, VXM_ERR_BATCH);
    assert_string_equal(one.lines, "1 ends: 1\n2 ends: 1\n3 ends: 3\n4 ends: 1\n5 ends: 1\n"
                                   "6 ends: 1\n");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char out[16];
        memset(&pretend_seen_so_far, 0, sizeof pretend_seen_so_far);
        pretend.count = rows[i].devices;
        snprintf(out, sizeof out, "many%zu", i);
        batch_run(&(batch_wish){.device = rows[i].device, .out = out, .jobs = rows[i].jobs}, &many);
        assert_int_equal(many.status, one.status);
        assert_string_equal(many.error.text, one.error.text);
        assert_string_equal(many.lines, one.lines);
        assert_string_equal(many.device, rows[i].report);
        for (const char *name = "abdef"; *name; name++) {
            batch_assert_same_file("one", out, (char[]){*name, '.', 'n', 'i', 'i', '\0'});
            batch_assert_same_file("one", out, (char[]){*name, '.', 'j', 's', 'o', 'n', '\0'});
        }
        const bool all = strcmp(rows[i].device, "cuda:all") == 0;
        for (int d = 0; d < rows[i].devices; d++) {
            const int runs = atomic_load(&pretend_seen_so_far.runs[d]);
            if (d == 0 || all)
                assert_true(runs > 0);
            else
                assert_int_equal(runs, 0);
        }
    }
}

/* More devices than cases. */
static void one_case_takes_one_device(void **state) {
    (void)state;
    batch_outcome o;
    batch_make_model(8);
    batch_put_volume("a.nii", 12, 4);
    pretend.count = 3;
    batch_run(&(batch_wish){.device = "cuda:all", .out = "out"}, &o);
    assert_int_equal(o.status, VXM_OK);
    assert_non_null(strstr(o.device, "\"jobs\":1,\"devices\":1"));
    assert_true(atomic_load(&pretend_seen_so_far.runs[0]) > 0);
    assert_int_equal(atomic_load(&pretend_seen_so_far.runs[1]), 0);
}

static void a_device_that_does_not_open_ends_the_run(void **state) {
    (void)state;
    batch_outcome o;
    put_cases();
    pretend.closed = 1;
    batch_run(&(batch_wish){.device = "cuda:all", .out = "out"}, &o);
    assert_int_equal(o.status, VXM_ERR_RESOURCE);
    assert_string_equal(o.error.text, "device 1 is closed (use another)");
    assert_string_equal(o.lines, "");
}

/* Two devices run at one time, unless the memory allowed is enough for one case only. */
static void memory_counts_all_devices(void **state) {
    (void)state;
    batch_outcome o;
    vxm_plan plan;
    vxm_session *session;
    vxm_session_options options;
    vx_device_list list;
    batch_make_model(32);
    batch_put_volume("a.nii", 100, 4);
    batch_put_volume("b.nii", 100, 4);
    pretend.wait_for_two = true;
    batch_run(&(batch_wish){.device = "cuda:all", .out = "free"}, &o);
    assert_int_equal(o.status, VXM_OK);
    assert_int_equal(atomic_load(&pretend_seen_so_far.most_running), 2);

    vxm_session_options_init(&options, sizeof options);
    assert_int_equal(vx_devices_find(&pretend_source, "cuda", &list, NULL), VXM_OK);
    assert_int_equal(vx_open_session(&batch_model, &options, &list, 0, &session, NULL), VXM_OK);
    const vx_geometry geo = {.dims = {100, 100, 100},
                             .affine = {{1}, {0, 1}, {0, 0, 1}, {0, 0, 0, 1}}};
    assert_int_equal(vx_plan_volume(session, &geo, 0, &(vx_plan_outputs){0}, &plan, NULL), VXM_OK);
    vxm_session_free(session);
    const uint64_t own = plan.peak_bytes - plan.program_bytes;
    assert_true(own > 8000000); /* or the half below is lost in what the process holds besides */
    memset(&pretend_seen_so_far, 0, sizeof pretend_seen_so_far);
    pretend.wait_for_two = false;
    pretend.microseconds = 1000;
    batch_run(&(batch_wish){.device = "cuda:all",
                            .out = "tight",
                            .memory_limit = plan.peak_bytes + own / 2},
              &o);
    assert_int_equal(o.status, VXM_OK);
    assert_int_equal(atomic_load(&pretend_seen_so_far.most_running), 1);
    batch_assert_same_file("free", "tight", "a.nii");
    batch_assert_same_file("free", "tight", "b.nii");
}

/* ---- Half precision ---- */

#define REPEATED "a logit is infinite or NaN in half precision: computed again in fp32"

static void an_overflow_is_computed_again(void **state) {
    (void)state;
    batch_outcome o;
    batch_make_model(8);
    batch_put_volume("a.nii", 14, 4); /* has the class that overflows */
    batch_put_volume("b.nii", 14, 3);
    batch_run(&(batch_wish){.device = "cuda", .out = "exact", .precision = VXM_PRECISION_FP32}, &o);
    assert_int_equal(o.status, VXM_OK);
    pretend.overflows = true;
    batch_run(&(batch_wish){.device = "cuda", .out = "auto"}, &o);
    assert_int_equal(o.status, VXM_OK);
    assert_string_equal(o.lines, "1: " REPEATED "\n1 ends: 1\n2 ends: 1\n");
    batch_assert_same_file("exact", "auto", "a.nii");
    batch_assert_same_file("exact", "auto", "b.nii");
    batch_assert_says("auto", "a.json", "\"precision\":\t\"fp32\",\n\t\t\"repeated\":\ttrue");
    batch_assert_says("auto", "b.json", "\"precision\":\t\"fp16\",\n\t\t\"tta\"");

    /* Resuming believes that, and only where such cases are repeated. */
    batch_run(&(batch_wish){.device = "cuda", .out = "auto", .resume = true}, &o);
    assert_string_equal(o.lines, "1 ends: 2\n2 ends: 2\n");
    batch_run(&(batch_wish){.device = "cuda", .out = "exact", .resume = true}, &o);
    assert_string_equal(o.lines, "1: " REPEATED "\n1 ends: 1\n2 ends: 1\n");
    batch_run(
        &(batch_wish){
            .device = "cuda", .out = "auto", .resume = true, .precision = VXM_PRECISION_FP32},
        &o);
    assert_string_equal(o.lines, "1 ends: 1\n2 ends: 1\n");

    batch_run(&(batch_wish){.device = "cuda", .out = "half", .precision = VXM_PRECISION_FP16}, &o);
    assert_int_equal(o.status, VXM_ERR_BATCH);
    assert_string_equal(o.lines, "1 ends: 3\n2 ends: 1\n");
}

/* Probabilities are streamed while the network runs: those of the first attempt must be gone. */
static void its_probabilities_are_the_second_ones(void **state) {
    (void)state;
    batch_outcome o;
    batch_make_model(8);
    batch_put_volume("a.nii", 14, 4);
    batch_run(&(batch_wish){.device = "cuda",
                            .out = "exact",
                            .precision = VXM_PRECISION_FP32,
                            .probabilities = true},
              &o);
    assert_int_equal(o.status, VXM_OK);
    pretend.overflows = true;
    batch_run(&(batch_wish){.device = "cuda", .out = "auto", .probabilities = true}, &o);
    assert_int_equal(o.status, VXM_OK);
    assert_string_equal(o.lines, "1: " REPEATED "\n1 ends: 1\n");
    batch_assert_same_file("exact", "auto", "a.nii");
    batch_assert_same_file("exact", "auto", "a_prob_l3.nii");
}

/* Under a limit the first attempt uses the image up. */
static void its_image_is_read_again(void **state) {
    (void)state;
    batch_outcome o;
    vxm_plan plan;
    vxm_session *session;
    vxm_session_options options;
    vx_device_list list;
    batch_make_model(32);
    batch_put_volume("a.nii", 120, 4);
    pretend.overflows = true;
    batch_run(&(batch_wish){.device = "cuda", .out = "free"}, &o);
    assert_int_equal(o.status, VXM_OK);
    vxm_session_options_init(&options, sizeof options);
    assert_int_equal(vx_devices_find(&pretend_source, "cuda", &list, NULL), VXM_OK);
    assert_int_equal(vx_open_session(&batch_model, &options, &list, 0, &session, NULL), VXM_OK);
    const vx_geometry geo = {.dims = {120, 120, 120},
                             .affine = {{1}, {0, 1}, {0, 0, 1}, {0, 0, 0, 1}}};
    assert_int_equal(vx_plan_volume(session, &geo, 0, &(vx_plan_outputs){0}, &plan, NULL), VXM_OK);
    vxm_session_free(session);
    const uint64_t image = 4 * 120 * 120 * 120;
    batch_run(&(batch_wish){.device = "cuda",
                            .out = "tight",
                            .memory_limit = plan.peak_bytes - image / 2},
              &o);
    if (o.status != VXM_OK) fail_msg("%s", o.lines);
    assert_string_equal(o.lines, "1: " REPEATED "\n1 ends: 1\n");
    batch_assert_same_file("free", "tight", "a.nii");
}

/* ---- Reading while the device is opened ---- */

/* It is left to the case, whose plan has the two numbers; with two threads it would be read ahead.
 */
static void what_there_is_no_room_for_is_not_read(void **state) {
    (void)state;
    batch_outcome o;
    batch_make_model(8);
    batch_put_bomb("a.nii.gz");
    for (unsigned threads = 1; threads <= 2; threads++) {
        batch_run(
            &(batch_wish){
                .device = "cuda", .out = "bomb", .threads = threads, .source = &pretend_own_memory},
            &o);
        assert_int_equal(o.status, VXM_ERR_RESOURCE);
        assert_non_null(strstr(o.error.text, " GB of memory are needed at the least, "));
        assert_string_equal(o.lines, "1 ends: 3\n");
    }
}

/* Two threads read ahead, one does not: cases, lines and files are the same. */
static void reading_ahead_is_not_heard(void **state) {
    (void)state;
    static const char *const devices[] = {"cuda", "auto", "cpu"};
    batch_outcome o[2];
    batch_make_model(8);
    batch_put_bytes("a.nii", "no volume", 9, "", 0);
    batch_put_volume("b.nii", 12, 4);
    pretend.open_microseconds = 20000;
    for (int broken = 1; broken >= 0; broken--) {
        if (!broken) batch_put_volume("a.nii", 20, 4);
        for (size_t d = 0; d < 3; d++) {
            char out[2][16];
            for (unsigned k = 0; k < 2; k++) {
                snprintf(out[k], sizeof out[k], "%d%zu%u", broken, d, k);
                batch_run(&(batch_wish){.device = devices[d],
                                        .out = out[k],
                                        .threads = 1 + k,
                                        .source = &pretend_own_memory},
                          &o[k]);
            }
            assert_int_equal(o[0].status, broken ? VXM_ERR_BATCH : VXM_OK);
            assert_int_equal(o[1].status, o[0].status);
            assert_string_equal(o[1].lines, o[0].lines);
            assert_string_equal(o[1].error.text, o[0].error.text);
            if (!broken) batch_assert_same_file(out[0], out[1], "a.nii");
            if (!broken) assert_true(o[1].seconds[1] >= o[1].seconds[0]);
            batch_assert_same_file(out[0], out[1], "b.nii");
            batch_assert_same_file(out[0], out[1], "b.json");
        }
    }
}

/* What says the reader of a lone case, and that it had it before the device was there. */
static void the_first_case_is_read_before_the_device_is_there(void **state) {
    (void)state;
    batch_outcome o;
    char path[80];
    batch_make_model(8);
    snprintf(path, sizeof path, "%s/in/a.nii", batch_folder);
    pretend.open_microseconds = 300000;
    pretend.remove_at_open = path;
    batch_wish wanted = {
        .device = "cuda", .out = "ahead", .threads = 2, .source = &pretend_own_memory};
    batch_put_volume("a.nii", 12, 4);
    batch_run(&wanted, &o);
    assert_int_equal(o.status, VXM_OK);
    /* Not where the case's memory is taken first, nor with one thread. */
    wanted.memory_limit = (uint64_t)1 << 40;
    wanted.out = "limit";
    batch_put_volume("a.nii", 12, 4);
    batch_run(&wanted, &o);
    assert_int_equal(o.status, VXM_ERR_INPUT);
    wanted.memory_limit = 0;
    wanted.threads = 1;
    wanted.out = "alone";
    batch_put_volume("a.nii", 12, 4);
    batch_run(&wanted, &o);
    assert_int_equal(o.status, VXM_ERR_INPUT);
    /* Nor on the CPU, whose opening needs the host's memory and threads itself. */
    wanted.threads = 2;
    wanted.device = "cpu";
    wanted.out = "cpu";
    batch_put_volume("a.nii", 12, 4);
    batch_run(&wanted, &o);
    assert_int_equal(o.status, VXM_ERR_INPUT);
    /* The GPU does not open, the CPU takes what was read. */
    pretend.closed = 0;
    wanted.device = "auto";
    wanted.out = "instead";
    batch_put_volume("a.nii", 12, 4);
    batch_run(&wanted, &o);
    assert_int_equal(o.status, VXM_OK);
    batch_assert_same_file("ahead", "instead", "a.nii");
}

/* A device that is missing comes before an input that is broken, or fine; nothing is written. */
static void a_missing_device_is_told_alone(void **state) {
    (void)state;
    batch_outcome o;
    char path[80];
    batch_make_model(8);
    snprintf(path, sizeof path, "%s/out", batch_folder);
    pretend.closed = 0;
    for (int broken = 0; broken < 2; broken++) {
        if (broken)
            batch_put_bytes("a.nii", "no volume", 9, "", 0);
        else
            batch_put_volume("a.nii", 100, 4);
        batch_run(
            &(batch_wish){
                .device = "cuda", .out = "out", .threads = 2, .source = &pretend_own_memory},
            &o);
        assert_int_equal(o.status, VXM_ERR_RESOURCE);
        assert_string_equal(o.error.text, "device 0 is closed (use another)");
        assert_string_equal(o.lines, "");
        assert_int_not_equal(access(path, F_OK), 0);
    }
}

static void stopping_while_reading(void **state) {
    (void)state;
    batch_outcome o[2];
    batch_make_model(8);
    batch_put_volume("a.nii", 100, 4);
    batch_put_volume("b.nii", 12, 4);
    for (unsigned k = 0; k < 2; k++) {
        batch_run(&(batch_wish){.device = "cuda",
                                .out = k ? "two" : "one",
                                .threads = 1 + k,
                                .source = &pretend_own_memory,
                                .stop = true},
                  &o[k]);
        assert_int_equal(o[k].status, VXM_ERR_CANCELLED);
        assert_int_equal(o[k].cancelled, 1);
    }
    assert_string_equal(o[1].lines, o[0].lines);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, batch_set_up, batch_tear_down)
    const struct CMUnitTest tests[] = {
        TEST(several_devices_do_as_one),
        TEST(one_case_takes_one_device),
        TEST(a_device_that_does_not_open_ends_the_run),
        TEST(memory_counts_all_devices),
        TEST(an_overflow_is_computed_again),
        TEST(its_probabilities_are_the_second_ones),
        TEST(its_image_is_read_again),
        TEST(what_there_is_no_room_for_is_not_read),
        TEST(reading_ahead_is_not_heard),
        TEST(the_first_case_is_read_before_the_device_is_there),
        TEST(a_missing_device_is_told_alone),
        TEST(stopping_while_reading),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
