#define _GNU_SOURCE
#include "batch_bench.h"

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

#include "infer/fake_model.h"

/* ---- Files ---- */

char batch_folder[64];
vxm_model batch_model;

static int remove_entry(const char *path, const struct stat *st, int kind, struct FTW *at) {
    (void)st, (void)kind, (void)at;
    return remove(path);
}

int batch_set_up(void **state) {
    (void)state;
    char path[80];
    pretend_reset();
    strcpy(batch_folder, "/tmp/vxdevicesXXXXXX");
    if (!mkdtemp(batch_folder)) return -1;
    snprintf(path, sizeof path, "%s/in", batch_folder);
    return mkdir(path, 0777);
}

int batch_tear_down(void **state) {
    (void)state;
    vx_model_close(batch_model.model);
    return nftw(batch_folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

void batch_make_model(size_t patch) {
    const fake_settings settings = {.patch = {patch, patch, patch}, .mirror = true};
    batch_model = (vxm_model){.model = fake_model(&settings), .path = "fake.safetensors"};
}

void batch_put_bytes(const char *name, const void *head, size_t head_bytes, const void *data,
                     size_t bytes) {
    char path[160];
    snprintf(path, sizeof path, "%s/in/%s", batch_folder, name);
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

void batch_put_volume(const char *name, size_t n, unsigned most) {
    unsigned char h[352];
    fill_header(h, n, 16, 32);
    float *voxels = malloc(n * n * n * sizeof *voxels);
    for (size_t i = 0; i < n * n * n; i++) {
        const size_t x = i % n, y = i / n % n, z = i / (n * n);
        voxels[i] = (float)((x / 3 + 2 * (y / 4) + z / 2 + n) % most);
    }
    batch_put_bytes(name, h, sizeof h, voxels, n * n * n * sizeof *voxels);
    free(voxels);
}

void batch_put_bomb(const char *name) {
    unsigned char h[352];
    char path[160];
    const size_t n = (size_t)cbrt((double)vx_available_memory() / 2) + 1;
    fill_header(h, n, 2, 8);
    snprintf(path, sizeof path, "%s/in/%s", batch_folder, name);
    gzFile f = gzopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(gzwrite(f, h, sizeof h), sizeof h);
    assert_int_equal(gzclose(f), Z_OK);
    assert_int_equal(truncate(path, (off_t)(n * n * n / 1024)), 0);
}

/* Reads a whole file; NULL if it is not there. */
static char *batch_slurp(const char *path, size_t *bytes) {
    FILE *f = fopen(path, "rb");
    if (!f) return NULL;
    char *data = malloc(1 << 20);
    *bytes = fread(data, 1, 1 << 20, f);
    fclose(f);
    return data;
}

void batch_assert_same_file(const char *a_folder, const char *b_folder, const char *name) {
    char path[2][160];
    size_t bytes[2] = {0, 0};
    snprintf(path[0], sizeof path[0], "%s/%s/%s", batch_folder, a_folder, name);
    snprintf(path[1], sizeof path[1], "%s/%s/%s", batch_folder, b_folder, name);
    char *a = batch_slurp(path[0], &bytes[0]), *b = batch_slurp(path[1], &bytes[1]);
    assert_non_null(a);
    assert_non_null(b);
    assert_int_equal(bytes[0], bytes[1]);
    assert_memory_equal(a, b, bytes[0]);
    free(a);
    free(b);
}

void batch_assert_says(const char *out, const char *name, const char *text) {
    char path[160];
    size_t bytes = 0;
    snprintf(path, sizeof path, "%s/%s/%s", batch_folder, out, name);
    char *data = batch_slurp(path, &bytes);
    assert_non_null(data);
    data[bytes < (1 << 20) ? bytes : (1 << 20) - 1] = '\0';
    if (!strstr(data, text)) fail_msg("%s has no %s:\n%s", name, text, data);
    free(data);
}

/* ---- Running ---- */

static void on_log(void *user_data, vxm_log_level level, size_t number, const char *text) {
    batch_outcome *o = user_data;
    if (level == VXM_LOG_WARNING)
        snprintf(o->lines + strlen(o->lines), sizeof o->lines - strlen(o->lines), "%zu: %s\n",
                 number, text);
}

static int on_progress(void *user_data, const vxm_progress *progress) {
    (void)progress;
    batch_outcome *o = user_data;
    return o->stop || (o->stop_after && --o->stop_after == 0);
}

static void on_case(void *user_data, const vxm_case *c) {
    batch_outcome *o = user_data;
    if (c->status == VXM_CASE_CANCELLED) o->cancelled++;
    if (c->number == 1 && c->result) {
        o->seconds[0] = c->result->hash_s + c->result->read_s;
        o->seconds[1] = c->result->total_s;
    }
    snprintf(o->lines + strlen(o->lines), sizeof o->lines - strlen(o->lines), "%zu ends: %d\n",
             c->number, (int)c->status);
}

void batch_run(const batch_wish *wanted, batch_outcome *o) {
    char in[80], out[80];
    const char *inputs[] = {in};
    vxm_batch *batch;
    vxm_batch_options options;
    vxm_segment_options segment;
    vxm_session_options session;
    memset(o, 0, sizeof *o);
    o->stop = wanted->stop;
    o->stop_after = wanted->stop_after;
    snprintf(in, sizeof in, "%s/in", batch_folder);
    snprintf(out, sizeof out, "%s/%s/", batch_folder, wanted->out);
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
    o->status = vx_batch_run_on(batch, &batch_model, &session,
                                wanted->source ? wanted->source : &pretend_source, &o->error);
    if (batch->run) {
        char *device =
            cJSON_PrintUnformatted(cJSON_GetObjectItemCaseSensitive(batch->run, "device"));
        snprintf(o->device, sizeof o->device, "%s", device);
        cJSON_free(device);
    }
    vxm_batch_close(batch);
}
