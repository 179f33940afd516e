/* What of the CUDA backend runs on the host: rounding weights to a storage type, kept plans. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/memory.h"
#include "cuda/plan_cache.h"
#include "cuda/step.h"

static float widened(uint16_t bits, vx_dtype type) {
    float f;
    const vx_weight w = {&bits, type, 1};
    vx_read_weight(&w, &f);
    return f;
}

static uint16_t narrowed(float f, vx_dtype type) {
    uint16_t bits;
    vx_cuda_narrow_host(&f, 1, type, &bits);
    return bits;
}

/* Every number of the type comes back; between two neighbours the nearer one is taken, and of two
 * equally near ones the even one. */
static void rounds_to_nearest_even(void **state) {
    static const vx_dtype types[] = {VX_F16, VX_BF16};
    (void)state;
    for (int t = 0; t < 2; t++) {
        const uint16_t infinity = types[t] == VX_F16 ? 0x7c00 : 0x7f80;
        for (uint32_t b = 0; b < 65536; b++) {
            const uint16_t bits = (uint16_t)b, sign = bits & 0x8000u, size = bits & 0x7fffu;
            const float f = widened(bits, types[t]);
            if (size > infinity) {
                assert_true(isnan(f) && isnan(widened(narrowed(f, types[t]), types[t])));
                continue;
            }
            assert_int_equal(narrowed(f, types[t]), bits);
            if (size >= infinity - 1) continue; /* no finite neighbour above */
            const float next = widened((uint16_t)(bits + 1), types[t]);
            const float middle = (float)(((double)f + (double)next) / 2); /* exact */
            const uint16_t even = size % 2 ? bits + 1 : bits;
            assert_int_equal(narrowed(middle, types[t]), even);
            assert_int_equal(narrowed(nextafterf(middle, sign ? -INFINITY : INFINITY), types[t]),
                             bits + 1);
            assert_int_equal(narrowed(nextafterf(middle, 0), types[t]), bits);
        }
    }
    assert_int_equal(narrowed(65519.0f, VX_F16), 0x7bff);
    assert_int_equal(narrowed(65520.0f, VX_F16), 0x7c00);
    assert_int_equal(narrowed(-1e30f, VX_F16), 0xfc00);
    assert_int_equal(narrowed(3.4e38f, VX_BF16), 0x7f80);
}

/* Empties every file of a folder, or puts a pipe in its place that nobody writes to. */
static void spoil_files(const char *folder, bool pipes) {
    char path[512];
    DIR *dir = opendir(folder);
    assert_non_null(dir);
    for (struct dirent *e = readdir(dir); e; e = readdir(dir)) {
        if (e->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        if (pipes) {
            assert_int_equal(unlink(path), 0);
            assert_int_equal(mkfifo(path, 0600), 0);
            continue;
        }
        FILE *file = fopen(path, "wb");
        assert_non_null(file);
        fclose(file);
    }
    closedir(dir);
}

/* A kept plan comes back under its key alone, and the first one stays; no folder is no error. */
static void plans_are_kept(void **state) {
    char folder[] = "/tmp/voxmamba-cache-test-XXXXXX";
    static const char text[] = "{\"plan\":\n 1}";
    size_t bytes;
    (void)state;
    assert_non_null(mkdtemp(folder));
    assert_int_equal(setenv("XDG_CACHE_HOME", folder, 1), 0);
    assert_null(vx_plan_cache_read("a key", &bytes));
    assert_int_equal(vx_plan_cache_state(), VX_PLAN_CACHE_OURS);
    assert_true(vx_plan_cache_write("a key", text, sizeof text - 1));
    char *back = vx_plan_cache_read("a key", &bytes);
    assert_non_null(back);
    assert_int_equal(bytes, sizeof text - 1);
    assert_string_equal(back, text);
    vx_free(back);
    assert_null(vx_plan_cache_read("a ke", &bytes));
    assert_null(vx_plan_cache_read("another key", &bytes));
    assert_true(vx_plan_cache_write("a key", "new", 3)); /* as a second process would */
    back = vx_plan_cache_read("a key", &bytes);
    assert_string_equal(back, text);
    vx_free(back);
    vx_plan_cache_forget("a key", "new");
    back = vx_plan_cache_read("a key", &bytes);
    assert_non_null(back);
    vx_free(back);
    vx_plan_cache_forget("a key", text);
    assert_null(vx_plan_cache_read("a key", &bytes));
    assert_true(vx_plan_cache_write("a key", "new", 3));
    back = vx_plan_cache_read("a key", &bytes);
    assert_string_equal(back, "new");
    vx_free(back);
    char path[96];
    snprintf(path, sizeof path, "%s/voxmamba", folder);
    for (int pipes = 0; pipes < 2; pipes++) {
        spoil_files(path, pipes);
        assert_null(vx_plan_cache_read("a key", &bytes));
        assert_true(vx_plan_cache_write("a key", text, sizeof text - 1));
        back = vx_plan_cache_read("a key", &bytes);
        assert_string_equal(back, text);
        vx_free(back);
    }
    assert_int_equal(setenv("XDG_CACHE_HOME", "/proc/nowhere", 1), 0);
    assert_int_equal(vx_plan_cache_state(), VX_PLAN_CACHE_NONE);
    assert_false(vx_plan_cache_write("a key", text, sizeof text - 1));
    assert_null(vx_plan_cache_read("a key", &bytes));
}

static void change_mode(const char *folder, mode_t mode) {
    char path[512];
    DIR *dir = opendir(folder);
    assert_non_null(dir);
    for (struct dirent *e = readdir(dir); e; e = readdir(dir)) {
        if (e->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        assert_int_equal(chmod(path, mode), 0);
    }
    closedir(dir);
}

/* What others can write is not read, and is written again; with any umask our own is. */
static void plans_of_others_are_not_trusted(void **state) {
    char folder[] = "/tmp/voxmamba-cache-test-XXXXXX", path[96];
    size_t bytes;
    (void)state;
    assert_non_null(mkdtemp(folder));
    assert_int_equal(setenv("XDG_CACHE_HOME", folder, 1), 0);
    const mode_t mask = umask(0);
    assert_int_equal(vx_plan_cache_state(), VX_PLAN_CACHE_OURS);
    assert_true(vx_plan_cache_write("a key", "text", 4));
    char *back = vx_plan_cache_read("a key", &bytes);
    assert_string_equal(back, "text");
    vx_free(back);
    snprintf(path, sizeof path, "%s/voxmamba", folder);
    static const mode_t open_to[] = {0620, 0602, 0666};
    for (size_t i = 0; i < sizeof open_to / sizeof *open_to; i++) {
        change_mode(path, open_to[i]);
        assert_null(vx_plan_cache_read("a key", &bytes));
        assert_true(vx_plan_cache_write("a key", "again", 5));
        back = vx_plan_cache_read("a key", &bytes);
        assert_string_equal(back, "again");
        vx_free(back);
        assert_int_equal(chmod(path, 0700 | (open_to[i] & 0077)), 0);
        assert_int_equal(vx_plan_cache_state(), VX_PLAN_CACHE_FOREIGN);
        assert_null(vx_plan_cache_read("a key", &bytes));
        assert_false(vx_plan_cache_write("a key", "text", 4));
        assert_int_equal(chmod(path, 0700), 0);
    }
    if (geteuid() == 0) { /* root can give a folder and a file away */
        assert_int_equal(chown(path, 1, 1), 0);
        assert_int_equal(vx_plan_cache_state(), VX_PLAN_CACHE_FOREIGN);
        assert_null(vx_plan_cache_read("a key", &bytes));
        assert_int_equal(chown(path, 0, 0), 0);
        char file[512] = "";
        DIR *dir = opendir(path);
        assert_non_null(dir);
        for (struct dirent *e = readdir(dir); e; e = readdir(dir))
            if (e->d_name[0] != '.') snprintf(file, sizeof file, "%s/%s", path, e->d_name);
        closedir(dir);
        assert_int_equal(chown(file, 1, 1), 0);
        assert_null(vx_plan_cache_read("a key", &bytes));
    }
    umask(mask);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rounds_to_nearest_even),
        cmocka_unit_test(plans_are_kept),
        cmocka_unit_test(plans_of_others_are_not_trusted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
