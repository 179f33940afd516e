/* A batch over several devices: the same files, lines and report as on one; and a case that
 * overflows in half precision. The network reads class indices from the image, so that the mask of
 * a volume of 0 .. 3 is ten times the volume. */
#define _GNU_SOURCE
#include <ftw.h>
#include <math.h>
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
#include <zlib.h>

#include "api/batch.h"
#include "infer/fake_model.h"
#include "infer/fake_plan.h"
#include "pretend_devices.h"

/* ---- Files ---- */

static char folder[64];
static vxm_model model;

static int remove_entry(const char *path, const struct stat *st, int kind, struct FTW *at) {
    (void)st, (void)kind, (void)at;
    return remove(path);
}

static int set_up(void **state) {
    (void)state;
    char path[80];
    pretend_reset();
    strcpy(folder, "/tmp/vxdevicesXXXXXX");
    if (!mkdtemp(folder)) return -1;
    snprintf(path, sizeof path, "%s/in", folder);
    return mkdir(path, 0777);
}

static int tear_down(void **state) {
    (void)state;
    vx_model_close(model.model);
    return nftw(folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

static void make_model(size_t patch) {
    const fake_settings settings = {.patch = {patch, patch, patch}, .mirror = true};
    model = (vxm_model){.model = fake_model(&settings), .path = "fake.safetensors"};
}

static void put_bytes(const char *name, const void *head, size_t head_bytes, const void *data,
                      size_t bytes) {
    char path[160];
    snprintf(path, sizeof path, "%s/in/%s", folder, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(head, 1, head_bytes, f), head_bytes);
    assert_int_equal(fwrite(data, 1, bytes, f), bytes);
    fclose(f);
}

/* Of a cube of n^3 voxels, 1 mm, of this NIfTI type. */
static void fill_header(unsigned char h[352], size_t n, int16_t datatype, int16_t bits) {
    memset(h, 0, 352);
    const int32_t size = 348;
    const int16_t dim[8] = {3, (int16_t)n, (int16_t)n, (int16_t)n, 1, 1, 1, 1};
    const int16_t type[2] = {datatype, bits};
    const int16_t sform = 1;
    const float pixdim[4] = {1, 1, 1, 1}, offset = 352, scale[2] = {1, 0};
    memcpy(h, &size, 4);
    memcpy(h + 40, dim, 16);
    memcpy(h + 70, type, 4);
    memcpy(h + 76, pixdim, 16);
    memcpy(h + 108, &offset, 4);
    memcpy(h + 112, scale, 8);
    h[123] = 2; /* mm */
    memcpy(h + 254, &sform, 2);
    for (size_t i = 0; i < 3; i++) {
        float row[4] = {0, 0, 0, -3};
        row[i] = 1;
        memcpy(h + 280 + 16 * i, row, 16);
    }
    memcpy(h + 344, "n+1", 4);
}

/* A cube of n^3 float32 voxels with indices 0 .. most - 1 in blocks. */
static void put_volume(const char *name, size_t n, unsigned most) {
    unsigned char h[352];
    fill_header(h, n, 16, 32);
    float *voxels = malloc(n * n * n * sizeof *voxels);
    for (size_t i = 0; i < n * n * n; i++) {
        const size_t x = i % n, y = i / n % n, z = i / (n * n);
        voxels[i] = (float)((x / 3 + 2 * (y / 4) + z / 2 + n) % most);
    }
    put_bytes(name, h, sizeof h, voxels, n * n * n * sizeof *voxels);
    free(voxels);
}

/* A header that claims as many voxels of one byte as half the memory that is free, so that they are
 * twice as much as floats, in a compressed file that is just long enough to be believed. */
static void put_bomb(const char *name) {
    unsigned char h[352];
    char path[160];
    const size_t n = (size_t)cbrt((double)vx_available_memory() / 2) + 1;
    fill_header(h, n, 2, 8);
    snprintf(path, sizeof path, "%s/in/%s", folder, name);
    gzFile f = gzopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(gzwrite(f, h, sizeof h), sizeof h);
    assert_int_equal(gzclose(f), Z_OK);
    assert_int_equal(truncate(path, (off_t)(n * n * n / 1024)), 0);
}

/* Reads a whole file; NULL if it is not there. */
static char *slurp(const char *path, size_t *bytes) {
    FILE *f = fopen(path, "rb");
    if (!f) return NULL;
    char *data = malloc(1 << 20);
    *bytes = fread(data, 1, 1 << 20, f);
    fclose(f);
    return data;
}

static void assert_same_file(const char *a_folder, const char *b_folder, const char *name) {
    char path[2][160];
    size_t bytes[2] = {0, 0};
    snprintf(path[0], sizeof path[0], "%s/%s/%s", folder, a_folder, name);
    snprintf(path[1], sizeof path[1], "%s/%s/%s", folder, b_folder, name);
    char *a = slurp(path[0], &bytes[0]), *b = slurp(path[1], &bytes[1]);
    assert_non_null(a);
    assert_non_null(b);
    assert_int_equal(bytes[0], bytes[1]);
    assert_memory_equal(a, b, bytes[0]);
    free(a);
    free(b);
}

static void assert_says(const char *out, const char *name, const char *text) {
    char path[160];
    size_t bytes = 0;
    snprintf(path, sizeof path, "%s/%s/%s", folder, out, name);
    char *data = slurp(path, &bytes);
    assert_non_null(data);
    data[bytes < (1 << 20) ? bytes : (1 << 20) - 1] = '\0';
    if (!strstr(data, text)) fail_msg("%s has no %s:\n%s", name, text, data);
    free(data);
}

/* ---- Running ---- */

typedef struct outcome {
    vxm_status status;
    vxm_error error;
    char lines[4096];  /* what the callbacks heard */
    char device[256];  /* of the report */
    size_t cancelled;  /* cases */
    double seconds[2]; /* of the first case: reading, all of it */
    bool stop;         /* what progress answers */
    int stop_after;    /* how often it answers no before it stops; 0: always, if not at once */
} outcome;

static void on_log(void *user_data, vxm_log_level level, size_t number, const char *text) {
    outcome *o = user_data;
    if (level == VXM_LOG_WARNING)
        snprintf(o->lines + strlen(o->lines), sizeof o->lines - strlen(o->lines), "%zu: %s\n",
                 number, text);
}

static int on_progress(void *user_data, const vxm_progress *progress) {
    (void)progress;
    outcome *o = user_data;
    return o->stop || (o->stop_after && --o->stop_after == 0);
}

static void on_case(void *user_data, const vxm_case *c) {
    outcome *o = user_data;
    if (c->status == VXM_CASE_CANCELLED) o->cancelled++;
    if (c->number == 1 && c->result) {
        o->seconds[0] = c->result->hash_s + c->result->read_s;
        o->seconds[1] = c->result->total_s;
    }
    snprintf(o->lines + strlen(o->lines), sizeof o->lines - strlen(o->lines), "%zu ends: %d\n",
             c->number, (int)c->status);
}

typedef struct wish {
    const char *device, *out;
    unsigned jobs;
    vxm_precision precision;
    uint64_t memory_limit;
    bool probabilities, resume;
    unsigned threads;               /* 0: 1 */
    const vx_device_source *source; /* NULL: pretend_source */
    bool stop, tta;
    int stop_after;
} wish;

static void run(const wish *wanted, outcome *o) {
    char in[80], out[80];
    const char *inputs[] = {in};
    vxm_batch *batch;
    vxm_batch_options options;
    vxm_segment_options segment;
    vxm_session_options session;
    memset(o, 0, sizeof *o);
    o->stop = wanted->stop;
    o->stop_after = wanted->stop_after;
    snprintf(in, sizeof in, "%s/in", folder);
    snprintf(out, sizeof out, "%s/%s/", folder, wanted->out);
    vxm_batch_options_init(&options, sizeof options);
    options.inputs = inputs;
    options.input_count = 1;
    options.output = out;
    options.jobs = wanted->jobs ? wanted->jobs : 1;
    options.on_case = on_case;
    options.resume = wanted->resume;
    options.user_data = o;
    vxm_segment_options_init(&segment, sizeof segment);
    segment.callbacks = (vxm_callbacks){.user_data = o, .log = on_log, .progress = on_progress};
    segment.format = "nii";
    segment.probabilities = wanted->probabilities;
    vxm_session_options_init(&session, sizeof session);
    session.device = wanted->device;
    session.precision = wanted->precision;
    session.threads = wanted->threads ? wanted->threads : 1;
    session.memory_limit = wanted->memory_limit;
    session.tta = wanted->tta;
    if (vxm_batch_open(&options, &segment, &batch, &o->error) != VXM_OK)
        fail_msg("%s", o->error.text);
    o->status = vx_batch_run_on(batch, &model, &session,
                                wanted->source ? wanted->source : &pretend_source, &o->error);
    if (batch->run) {
        char *device =
            cJSON_PrintUnformatted(cJSON_GetObjectItemCaseSensitive(batch->run, "device"));
        snprintf(o->device, sizeof o->device, "%s", device);
        cJSON_free(device);
    }
    vxm_batch_close(batch);
}

/* ---- Spreading ---- */

/* The first case takes longest; the third is broken at once; the fourth has an empty mask. */
static void put_cases(void) {
    make_model(8);
    put_volume("a.nii", 24, 4);
    put_volume("b.nii", 11, 4);
    put_bytes("c.nii", "no volume", 9, "", 0);
    put_volume("d.nii", 10, 4);
    put_volume("e.nii", 9, 3);
    put_volume("f.nii", 12, 4);
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
    outcome one, many;
    put_cases();
    pretend.microseconds = 1000;
    run(&(wish){.device = "cuda", .out = "one"}, &one);
    assert_int_equal(one.status, VXM_ERR_BATCH);
    assert_string_equal(one.lines, "1 ends: 1\n2 ends: 1\n3 ends: 3\n4 ends: 1\n5 ends: 1\n"
                                   "6 ends: 1\n");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char out[16];
        memset(&pretend_seen_so_far, 0, sizeof pretend_seen_so_far);
        pretend.count = rows[i].devices;
        snprintf(out, sizeof out, "many%zu", i);
        run(&(wish){.device = rows[i].device, .out = out, .jobs = rows[i].jobs}, &many);
        assert_int_equal(many.status, one.status);
        assert_string_equal(many.error.text, one.error.text);
        assert_string_equal(many.lines, one.lines);
        assert_string_equal(many.device, rows[i].report);
        for (const char *name = "abdef"; *name; name++) {
            assert_same_file("one", out, (char[]){*name, '.', 'n', 'i', 'i', '\0'});
            assert_same_file("one", out, (char[]){*name, '.', 'j', 's', 'o', 'n', '\0'});
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
    outcome o;
    make_model(8);
    put_volume("a.nii", 12, 4);
    pretend.count = 3;
    run(&(wish){.device = "cuda:all", .out = "out"}, &o);
    assert_int_equal(o.status, VXM_OK);
    assert_non_null(strstr(o.device, "\"jobs\":1,\"devices\":1"));
    assert_true(atomic_load(&pretend_seen_so_far.runs[0]) > 0);
    assert_int_equal(atomic_load(&pretend_seen_so_far.runs[1]), 0);
}

static void a_device_that_does_not_open_ends_the_run(void **state) {
    (void)state;
    outcome o;
    put_cases();
    pretend.closed = 1;
    run(&(wish){.device = "cuda:all", .out = "out"}, &o);
    assert_int_equal(o.status, VXM_ERR_RESOURCE);
    assert_string_equal(o.error.text, "device 1 is closed (use another)");
    assert_string_equal(o.lines, "");
}

/* Two devices run at one time, unless the memory allowed is enough for one case only. */
static void memory_counts_all_devices(void **state) {
    (void)state;
    outcome o;
    vxm_plan plan;
    vxm_session *session;
    vxm_session_options options;
    vx_device_list list;
    make_model(32);
    put_volume("a.nii", 100, 4);
    put_volume("b.nii", 100, 4);
    pretend.wait_for_two = true;
    run(&(wish){.device = "cuda:all", .out = "free"}, &o);
    assert_int_equal(o.status, VXM_OK);
    assert_int_equal(atomic_load(&pretend_seen_so_far.most_running), 2);

    vxm_session_options_init(&options, sizeof options);
    assert_int_equal(vx_devices_find(&pretend_source, "cuda", &list, NULL), VXM_OK);
    assert_int_equal(vx_open_session(&model, &options, &list, 0, &session, NULL), VXM_OK);
    const vx_geometry geo = {.dims = {100, 100, 100},
                             .affine = {{1}, {0, 1}, {0, 0, 1}, {0, 0, 0, 1}}};
    assert_int_equal(vx_plan_volume(session, &geo, &(vx_plan_outputs){0}, &plan, NULL), VXM_OK);
    vxm_session_free(session);
    const uint64_t own = plan.peak_bytes - plan.program_bytes;
    assert_true(own > 8000000); /* or the half below is lost in what the process holds besides */
    memset(&pretend_seen_so_far, 0, sizeof pretend_seen_so_far);
    pretend.wait_for_two = false;
    pretend.microseconds = 1000;
    run(&(wish){.device = "cuda:all", .out = "tight", .memory_limit = plan.peak_bytes + own / 2},
        &o);
    assert_int_equal(o.status, VXM_OK);
    assert_int_equal(atomic_load(&pretend_seen_so_far.most_running), 1);
    assert_same_file("free", "tight", "a.nii");
    assert_same_file("free", "tight", "b.nii");
}

/* ---- Half precision ---- */

#define REPEATED "a logit is infinite or NaN in half precision: computed again in fp32"

static void an_overflow_is_computed_again(void **state) {
    (void)state;
    outcome o;
    make_model(8);
    put_volume("a.nii", 14, 4); /* has the class that overflows */
    put_volume("b.nii", 14, 3);
    run(&(wish){.device = "cuda", .out = "exact", .precision = VXM_PRECISION_FP32}, &o);
    assert_int_equal(o.status, VXM_OK);
    pretend.overflows = true;
    run(&(wish){.device = "cuda", .out = "auto"}, &o);
    assert_int_equal(o.status, VXM_OK);
    assert_string_equal(o.lines, "1: " REPEATED "\n1 ends: 1\n2 ends: 1\n");
    assert_same_file("exact", "auto", "a.nii");
    assert_same_file("exact", "auto", "b.nii");
    assert_says("auto", "a.json", "\"precision\":\t\"fp32\",\n\t\t\"repeated\":\ttrue");
    assert_says("auto", "b.json", "\"precision\":\t\"fp16\",\n\t\t\"tta\"");

    /* Resuming believes that, and only where such cases are repeated. */
    run(&(wish){.device = "cuda", .out = "auto", .resume = true}, &o);
    assert_string_equal(o.lines, "1 ends: 2\n2 ends: 2\n");
    run(&(wish){.device = "cuda", .out = "exact", .resume = true}, &o);
    assert_string_equal(o.lines, "1: " REPEATED "\n1 ends: 1\n2 ends: 1\n");
    run(&(wish){.device = "cuda", .out = "auto", .resume = true, .precision = VXM_PRECISION_FP32},
        &o);
    assert_string_equal(o.lines, "1 ends: 1\n2 ends: 1\n");

    run(&(wish){.device = "cuda", .out = "half", .precision = VXM_PRECISION_FP16}, &o);
    assert_int_equal(o.status, VXM_ERR_BATCH);
    assert_string_equal(o.lines, "1 ends: 3\n2 ends: 1\n");
}

/* Probabilities are streamed while the network runs: those of the first attempt must be gone. */
static void its_probabilities_are_the_second_ones(void **state) {
    (void)state;
    outcome o;
    make_model(8);
    put_volume("a.nii", 14, 4);
    run(&(wish){.device = "cuda",
                .out = "exact",
                .precision = VXM_PRECISION_FP32,
                .probabilities = true},
        &o);
    assert_int_equal(o.status, VXM_OK);
    pretend.overflows = true;
    run(&(wish){.device = "cuda", .out = "auto", .probabilities = true}, &o);
    assert_int_equal(o.status, VXM_OK);
    assert_string_equal(o.lines, "1: " REPEATED "\n1 ends: 1\n");
    assert_same_file("exact", "auto", "a.nii");
    assert_same_file("exact", "auto", "a_prob_l3.nii");
}

/* Under a limit the first attempt uses the image up. */
static void its_image_is_read_again(void **state) {
    (void)state;
    outcome o;
    vxm_plan plan;
    vxm_session *session;
    vxm_session_options options;
    vx_device_list list;
    make_model(32);
    put_volume("a.nii", 120, 4);
    pretend.overflows = true;
    run(&(wish){.device = "cuda", .out = "free"}, &o);
    assert_int_equal(o.status, VXM_OK);
    vxm_session_options_init(&options, sizeof options);
    assert_int_equal(vx_devices_find(&pretend_source, "cuda", &list, NULL), VXM_OK);
    assert_int_equal(vx_open_session(&model, &options, &list, 0, &session, NULL), VXM_OK);
    const vx_geometry geo = {.dims = {120, 120, 120},
                             .affine = {{1}, {0, 1}, {0, 0, 1}, {0, 0, 0, 1}}};
    assert_int_equal(vx_plan_volume(session, &geo, &(vx_plan_outputs){0}, &plan, NULL), VXM_OK);
    vxm_session_free(session);
    const uint64_t image = 4 * 120 * 120 * 120;
    run(&(wish){.device = "cuda", .out = "tight", .memory_limit = plan.peak_bytes - image / 2}, &o);
    if (o.status != VXM_OK) fail_msg("%s", o.lines);
    assert_string_equal(o.lines, "1: " REPEATED "\n1 ends: 1\n");
    assert_same_file("free", "tight", "a.nii");
}

/* ---- Reading while the device is opened ---- */

/* It is left to the case, whose plan has the two numbers; with two threads it would be read ahead.
 */
static void what_there_is_no_room_for_is_not_read(void **state) {
    (void)state;
    outcome o;
    make_model(8);
    put_bomb("a.nii.gz");
    for (unsigned threads = 1; threads <= 2; threads++) {
        run(
            &(wish){
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
    outcome o[2];
    make_model(8);
    put_bytes("a.nii", "no volume", 9, "", 0);
    put_volume("b.nii", 12, 4);
    pretend.open_microseconds = 20000;
    for (int broken = 1; broken >= 0; broken--) {
        if (!broken) put_volume("a.nii", 20, 4);
        for (size_t d = 0; d < 3; d++) {
            char out[2][16];
            for (unsigned k = 0; k < 2; k++) {
                snprintf(out[k], sizeof out[k], "%d%zu%u", broken, d, k);
                run(&(wish){.device = devices[d],
                            .out = out[k],
                            .threads = 1 + k,
                            .source = &pretend_own_memory},
                    &o[k]);
            }
            assert_int_equal(o[0].status, broken ? VXM_ERR_BATCH : VXM_OK);
            assert_int_equal(o[1].status, o[0].status);
            assert_string_equal(o[1].lines, o[0].lines);
            assert_string_equal(o[1].error.text, o[0].error.text);
            if (!broken) assert_same_file(out[0], out[1], "a.nii");
            if (!broken) assert_true(o[1].seconds[1] >= o[1].seconds[0]);
            assert_same_file(out[0], out[1], "b.nii");
            assert_same_file(out[0], out[1], "b.json");
        }
    }
}

/* What says the reader of a lone case, and that it had it before the device was there. */
static void the_first_case_is_read_before_the_device_is_there(void **state) {
    (void)state;
    outcome o;
    char path[80];
    make_model(8);
    snprintf(path, sizeof path, "%s/in/a.nii", folder);
    pretend.open_microseconds = 300000;
    pretend.remove_at_open = path;
    wish wanted = {.device = "cuda", .out = "ahead", .threads = 2, .source = &pretend_own_memory};
    put_volume("a.nii", 12, 4);
    run(&wanted, &o);
    assert_int_equal(o.status, VXM_OK);
    /* Not where the case's memory is taken first, nor with one thread. */
    wanted.memory_limit = (uint64_t)1 << 40;
    wanted.out = "limit";
    put_volume("a.nii", 12, 4);
    run(&wanted, &o);
    assert_int_equal(o.status, VXM_ERR_INPUT);
    wanted.memory_limit = 0;
    wanted.threads = 1;
    wanted.out = "alone";
    put_volume("a.nii", 12, 4);
    run(&wanted, &o);
    assert_int_equal(o.status, VXM_ERR_INPUT);
    /* Nor on the CPU, whose opening needs the host's memory and threads itself. */
    wanted.threads = 2;
    wanted.device = "cpu";
    wanted.out = "cpu";
    put_volume("a.nii", 12, 4);
    run(&wanted, &o);
    assert_int_equal(o.status, VXM_ERR_INPUT);
    /* The GPU does not open, the CPU takes what was read. */
    pretend.closed = 0;
    wanted.device = "auto";
    wanted.out = "instead";
    put_volume("a.nii", 12, 4);
    run(&wanted, &o);
    assert_int_equal(o.status, VXM_OK);
    assert_same_file("ahead", "instead", "a.nii");
}

/* A device that is missing comes before an input that is broken, or fine; nothing is written. */
static void a_missing_device_is_told_alone(void **state) {
    (void)state;
    outcome o;
    char path[80];
    make_model(8);
    snprintf(path, sizeof path, "%s/out", folder);
    pretend.closed = 0;
    for (int broken = 0; broken < 2; broken++) {
        if (broken)
            put_bytes("a.nii", "no volume", 9, "", 0);
        else
            put_volume("a.nii", 100, 4);
        run(&(wish){.device = "cuda", .out = "out", .threads = 2, .source = &pretend_own_memory},
            &o);
        assert_int_equal(o.status, VXM_ERR_RESOURCE);
        assert_string_equal(o.error.text, "device 0 is closed (use another)");
        assert_string_equal(o.lines, "");
        assert_int_not_equal(access(path, F_OK), 0);
    }
}

static void stopping_while_reading(void **state) {
    (void)state;
    outcome o[2];
    make_model(8);
    put_volume("a.nii", 100, 4);
    put_volume("b.nii", 12, 4);
    for (unsigned k = 0; k < 2; k++) {
        run(&(wish){.device = "cuda",
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

/* ---- The tiles of one case on several devices ---- */

static int runs_of(int device) { return atomic_load(&pretend_seen_so_far.runs[device]); }

static void start_counting(int devices) {
    memset(&pretend_seen_so_far, 0, sizeof pretend_seen_so_far);
    pretend.count = devices;
    fake_sweep_order = 0;
}

/* The same tiles are added in the same order, and computed evenly by all. */
static void tiles_are_shared(void **state) {
    (void)state;
    outcome o;
    make_model(8);
    put_volume("a.nii", 21, 4);
    for (int tta = 0; tta < 2; tta++) {
        char one[32], many[32];
        wish wanted = {.source = &pretend_own_memory, .tta = tta};
        snprintf(one, sizeof one, "one%d", tta);
        start_counting(1);
        wanted.device = "cuda";
        wanted.out = one;
        run(&wanted, &o);
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
            run(&wanted, &o);
            assert_int_equal(o.status, VXM_OK);
            assert_true(fake_sweep_order == order);
            int sum = 0;
            for (int d = 0; d < devices; d++) {
                sum += runs_of(d);
                assert_true(abs(runs_of(d) - all / devices) <= 1);
            }
            assert_int_equal(sum, all);
            assert_same_file(one, many, "a.nii");
            assert_same_file(one, many, "a.json");
            char report[32];
            snprintf(report, sizeof report, "\"jobs\":1,\"devices\":%d", devices);
            assert_non_null(strstr(o.device, report));
        }
    }
}

/* Two cases on four devices: two each. Probabilities are the host's, on a device each. */
static void devices_are_dealt_out_to_cases(void **state) {
    (void)state;
    outcome o;
    make_model(8);
    put_volume("a.nii", 21, 4);
    put_volume("b.nii", 21, 3);
    for (int probabilities = 0; probabilities < 2; probabilities++) {
        start_counting(4);
        run(&(wish){.device = "cuda:all",
                    .out = probabilities ? "with" : "without",
                    .source = &pretend_own_memory,
                    .probabilities = probabilities},
            &o);
        assert_int_equal(o.status, VXM_OK);
        assert_non_null(strstr(o.device, probabilities ? "\"devices\":2" : "\"devices\":4"));
        for (int d = 0; d < 4; d++) assert_int_equal(runs_of(d) > 0, d < 2 || !probabilities);
    }
    assert_same_file("with", "without", "a.nii");
    assert_same_file("with", "without", "b.nii");
}

/* Of another kind, or not to be opened: a warning. */
static void devices_are_left_out(void **state) {
    (void)state;
    static const char *const lines[] = {
        "0: cuda:1 is not used: it is of another kind than the first one\n1 ends: 1\n",
        "0: cuda:1 is not used: device 1 is closed (use another)\n1 ends: 1\n"};
    outcome o;
    make_model(8);
    put_volume("a.nii", 21, 4);
    for (int k = 0; k < 2; k++) {
        start_counting(3);
        pretend.odd = k ? -1 : 1;
        pretend.closed = k ? 1 : -1;
        run(&(wish){.device = "cuda:all",
                    .out = k ? "closed" : "odd",
                    .source = &pretend_own_memory},
            &o);
        assert_int_equal(o.status, VXM_OK);
        assert_string_equal(o.lines, lines[k]);
        assert_non_null(strstr(o.device, "\"devices\":2"));
        assert_true(runs_of(0) > 0 && runs_of(2) > 0);
        assert_int_equal(runs_of(1), 0);
    }
    assert_same_file("odd", "closed", "a.nii");
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
    assert_int_equal(vx_open_session(&model, &options, &list, 0, &session, NULL), VXM_OK);
    vx_open_others(session, &list, 0, 1);
    assert_int_equal(session->other_count, devices - 1);
    assert_int_equal(vx_plan_volume(session, &geo, &(vx_plan_outputs){0}, &plan, NULL), VXM_OK);
    vxm_session_free(session);
    return plan.device_volume_bytes;
}

/* Volume and logits fit, the others' logits beside them do not. */
static void one_device_computes_where_places_do_not_fit(void **state) {
    (void)state;
    outcome o;
    make_model(8);
    put_volume("a.nii", 21, 4);
    const size_t some = fake_device_free, places = 3 * 8 * 8 * 8 * 4 * sizeof(float);
    const size_t alone = device_bytes(1);
    assert_int_equal(device_bytes(3), alone + places);
    for (int fits = 1; fits >= 0; fits--) {
        fake_device_free = alone + places - 1 + (size_t)fits;
        assert_int_equal(device_bytes(3), fits ? alone + places : alone);
        run(&(wish){.device = "cuda:all",
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
    assert_same_file("one", "three", "a.nii");
}

/* Whoever breaks first, the tile that is next for the mask is told; nothing hangs. */
static void a_device_that_breaks_ends_the_case(void **state) {
    (void)state;
    outcome o;
    make_model(8);
    put_volume("a.nii", 21, 4);
    for (int d = 0; d < 3; d++) {
        char out[2] = {(char)('0' + d), '\0'}, text[32];
        start_counting(3);
        pretend.breaks = d;
        pretend.microseconds = 500;
        run(&(wish){.device = "cuda:all", .out = out, .source = &pretend_own_memory}, &o);
        assert_int_equal(o.status, VXM_ERR_RESOURCE);
        snprintf(text, sizeof text, "device %d broke", d);
        assert_string_equal(o.error.text, text);
        assert_string_equal(o.lines, "1 ends: 3\n");
    }
    start_counting(3);
    pretend.closed = 0;
    run(&(wish){.device = "cuda:all", .out = "out", .source = &pretend_own_memory}, &o);
    assert_int_equal(o.status, VXM_ERR_RESOURCE);
    assert_string_equal(o.error.text, "device 0 is closed (use another)");
    assert_string_equal(o.lines, "");
}

static void several_devices_stop(void **state) {
    (void)state;
    outcome o;
    make_model(8);
    put_volume("a.nii", 21, 4);
    start_counting(3);
    pretend.microseconds = 500;
    run(
        &(wish){
            .device = "cuda:all", .out = "out", .source = &pretend_own_memory, .stop_after = 20},
        &o);
    assert_int_equal(o.status, VXM_ERR_CANCELLED);
    assert_true(runs_of(0) + runs_of(1) + runs_of(2) < 60);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
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
        TEST(tiles_are_shared),
        TEST(devices_are_dealt_out_to_cases),
        TEST(devices_are_left_out),
        TEST(one_device_computes_where_places_do_not_fit),
        TEST(a_device_that_breaks_ends_the_case),
        TEST(several_devices_stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
