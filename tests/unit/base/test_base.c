#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/memory.h"
#include "base/out_file.h"
#include "base/size.h"
#include "base/status.h"
#include "base/text.h"
#include "base/threads.h"

static void sizes_that_overflow(void **state) {
    (void)state;
    size_t r = 7;
    assert_true(vx_mul_size((size_t)1 << 31, 4, &r));
    assert_true(r == (size_t)1 << 33);
    assert_false(vx_mul_size(SIZE_MAX / 2 + 1, 2, &r));
    assert_false(vx_add_size(SIZE_MAX, 1, &r));
    const size_t dims[4] = {(size_t)1 << 20, (size_t)1 << 20, (size_t)1 << 20, 16};
    assert_true(vx_product(dims, 3, &r));
    assert_false(vx_product(dims, 4, &r));
    assert_true(r == (size_t)1 << 60); /* a failure leaves the result alone */
    assert_true(vx_align_size(65, 64, &r) && r == 128);
    assert_false(vx_align_size(SIZE_MAX - 3, 64, &r));
    assert_null(vx_alloc_zero(SIZE_MAX / 2, 3));
}

static void endings(void **state) {
    (void)state;
    assert_true(vx_has_ending("a.NII.gz", ".nii.GZ") && vx_has_ending(".gz", ".gz"));
    assert_false(vx_has_ending("gz", ".gz") || vx_has_ending("a.gz.b", ".gz"));
    assert_true(vx_has_ending("a", "") && vx_has_ending("", ""));
}

static void messages(void **state) {
    (void)state;
    vx_error err;
    assert_int_equal(vx_fail(&err, VX_ERR_INPUT, "bad %d", 3), VX_ERR_INPUT);
    assert_string_equal(err.text, "bad 3");
    assert_int_equal(vx_fail_prefix(&err, VX_ERR_MODEL, "a.nii"), VX_ERR_MODEL);
    assert_string_equal(err.text, "a.nii: bad 3");
    char long_name[600];
    memset(long_name, 'x', sizeof long_name - 1);
    long_name[sizeof long_name - 1] = '\0';
    vx_fail_prefix(&err, VX_ERR_INPUT, long_name);
    assert_int_equal(strlen(err.text), sizeof err.text - 1); /* cut, and ended */
    assert_int_equal(vx_fail(NULL, VX_ERR_USAGE, "x"), VX_ERR_USAGE);
}

typedef struct tally {
    unsigned char seen[1000];
    unsigned workers;
    int bad_worker;
} tally;

static void count_task(void *ctx, size_t task, unsigned worker) {
    tally *t = ctx;
    t->seen[task]++;
    if (worker >= t->workers) t->bad_worker = 1;
}

static void every_task_once(void **state) {
    (void)state;
    for (unsigned workers = 1; workers <= 9; workers += 2) {
        vx_pool *pool;
        assert_int_equal(vx_pool_create(workers, &pool, NULL), VX_OK);
        assert_int_equal(vx_pool_workers(pool), workers);
        for (size_t count = 0; count <= 1000; count += 250) {
            tally t;
            memset(&t, 0, sizeof t);
            t.workers = workers;
            vx_pool_run(pool, count, count_task, &t);
            for (size_t i = 0; i < 1000; i++) assert_int_equal(t.seen[i], i < count);
            assert_false(t.bad_worker);
        }
        vx_pool_free(pool);
    }
    vx_pool *none;
    assert_int_equal(vx_pool_create(0, &none, NULL), VX_ERR_USAGE);
    assert_true(vx_cpu_count() >= 1);
}

static char folder[] = "/tmp/vx_base_XXXXXX";

static char *in_folder(const char *name) {
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static int files_in_folder(void) {
    char command[300];
    snprintf(command, sizeof command, "exit $(ls -A %s | wc -l)", folder);
    int status = system(command);
    return WEXITSTATUS(status);
}

static void a_file_appears_whole_or_not_at_all(void **state) {
    (void)state;
    assert_non_null(mkdtemp(folder));
    char path[256];
    snprintf(path, sizeof path, "%s", in_folder("a.bin"));
    vx_out_file *file;
    vx_error err;
    assert_int_equal(vx_out_open(path, &file, &err), VX_OK);
    assert_int_equal(vx_out_write(file, "hello", 5, &err), VX_OK);
    assert_int_not_equal(access(path, F_OK), 0);
    vx_out_discard(file);
    assert_int_equal(files_in_folder(), 0);

    assert_int_equal(vx_out_open(path, &file, &err), VX_OK);
    assert_int_equal(vx_out_write(file, "hello", 5, &err), VX_OK);
    assert_int_equal(vx_out_commit(file, false, &err), VX_OK);
    struct stat info;
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_size, 5);
    assert_int_equal(files_in_folder(), 1);

    /* It exists now: refused without replace, and what is there stays. */
    assert_int_equal(vx_out_open(path, &file, &err), VX_OK);
    assert_int_equal(vx_out_commit(file, false, &err), VX_ERR_OUTPUT);
    assert_non_null(strstr(err.text, "exists already"));
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_size, 5);
    assert_int_equal(vx_out_open(path, &file, &err), VX_OK);
    assert_int_equal(vx_out_commit(file, true, &err), VX_OK);
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_size, 0);
    assert_int_equal(files_in_folder(), 1);
    assert_int_equal(vx_out_open(path, &file, &err), VX_OK);
    vx_out_private(file);
    assert_int_equal(vx_out_commit(file, true, &err), VX_OK);
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0600);
    unlink(path);

    assert_int_equal(vx_out_open("/nowhere/at/all", &file, &err), VX_ERR_OUTPUT);
}

/* Kept files have no name that a killed process would leave, and can be read. */
static void files_that_are_kept(void **state) {
    (void)state;
    char path[256], name[VX_OUT_READING_NAME], text[8] = "";
    vx_out_file *file, *kept;
    vx_error err;
    snprintf(path, sizeof path, "%s", in_folder("k.bin"));
    for (int parked = 0; parked < 2; parked++) {
        assert_int_equal(vx_out_open(path, &file, &err), VX_OK);
        assert_int_equal(vx_out_write(file, "hello", 5, &err), VX_OK);
        assert_int_equal(vx_out_finish(file, false, &kept, &err), VX_OK);
        assert_int_equal(files_in_folder(), 0);
        if (parked) assert_int_equal(vx_out_park(kept, &err), VX_OK);
        assert_int_equal(files_in_folder(), parked); /* the temporary name */
        vx_out_reading_name(kept, name);
        FILE *f = fopen(name, "rb");
        assert_non_null(f);
        assert_int_equal(fread(text, 1, sizeof text, f), 5);
        fclose(f);
        assert_memory_equal(text, "hello", 5);
        assert_int_equal(vx_out_commit(kept, false, &err), VX_OK);
        assert_int_equal(files_in_folder(), 1);
        /* Without a caller who keeps it, it is committed: refused, then replaced. */
        for (int replace = 0; replace < 2; replace++) {
            assert_int_equal(vx_out_open(path, &file, &err), VX_OK);
            assert_int_equal(vx_out_finish(file, replace, NULL, &err),
                             replace ? VX_OK : VX_ERR_OUTPUT);
            assert_int_equal(files_in_folder(), 1);
        }
        unlink(path);
        assert_int_equal(vx_out_open(path, &file, &err), VX_OK);
        assert_int_equal(vx_out_finish(file, false, &kept, &err), VX_OK);
        if (parked) assert_int_equal(vx_out_park(kept, &err), VX_OK);
        vx_out_discard(kept);
        assert_int_equal(files_in_folder(), 0);
    }
}

static void stale_temporaries_are_swept(void **state) {
    (void)state;
    pid_t child = fork();
    if (child == 0) _exit(0);
    waitpid(child, NULL, 0); /* now its number belongs to nobody */
    char name[300], other[300], mine[VX_OUT_READING_NAME];
    vx_out_file *parked;
    assert_int_equal(vx_out_open(in_folder("mask.nii"), &parked, NULL), VX_OK);
    assert_int_equal(vx_out_park(parked, NULL), VX_OK);
    vx_out_reading_name(parked, mine);
    assert_int_equal(access(mine, F_OK), 0);
    /* The same name as ours, but of that process; and one of a host that we cannot ask. */
    char host[9];
    const char *mark = strstr(mine, VX_TMP_MARK) + strlen(VX_TMP_MARK);
    snprintf(host, sizeof host, "%s", mark);
    snprintf(name, sizeof name, "%s/.mask.nii" VX_TMP_MARK "%s-%ld-0.tmp", folder, host,
             (long)child);
    host[0] = host[0] == '0' ? '1' : '0';
    snprintf(other, sizeof other, "%s/.mask.nii" VX_TMP_MARK "%s-%ld-0.tmp", folder, host,
             (long)child);
    FILE *f = fopen(name, "w");
    assert_non_null(f);
    fclose(f);
    assert_non_null(f = fopen(other, "w"));
    fclose(f);
    vx_out_sweep(folder);
    assert_int_equal(access(other, F_OK), 0); /* its process may run */
    const struct timespec yesterday[2] = {{1, 0}, {1, 0}};
    assert_int_equal(utimensat(AT_FDCWD, other, yesterday, 0), 0);
    vx_out_sweep(folder);
    assert_int_not_equal(access(other, F_OK), 0);
    assert_int_not_equal(access(name, F_OK), 0); /* its process is gone */
    assert_int_equal(access(mine, F_OK), 0);     /* ours still runs */
    assert_int_equal(vx_out_commit(parked, false, NULL), VX_OK);
    assert_int_equal(files_in_folder(), 1);
    unlink(in_folder("mask.nii"));
    rmdir(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_that_overflow),
        cmocka_unit_test(endings),
        cmocka_unit_test(messages),
        cmocka_unit_test(every_task_once),
        cmocka_unit_test(a_file_appears_whole_or_not_at_all),
        cmocka_unit_test(files_that_are_kept),
        cmocka_unit_test(stale_temporaries_are_swept),
    };
    return cmocka_run_group_tests_name("base", tests, NULL, NULL);
}
