/* The whole way there and back with a "network" that copies its input to the logits: a marked voxel
 * must come back at exactly the same index, whatever the volume's axes and the recipe's. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fake_model.h"
#include "infer/session.h"

/* ---- Volumes ---- */

/* The k-th of the 48 axis orders and directions: axis i of the volume runs along world axis
 * perm[i]. */
static void set_axes(vx_geometry *geo, int k, double mm) {
    static const int perms[6][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2},
                                    {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
    memset(geo->affine, 0, sizeof geo->affine);
    for (int i = 0; i < 3; i++) {
        geo->affine[perms[k / 8][i]][i] = k >> i & 1 ? -mm : mm;
        geo->affine[i][3] = 10 * i - 7;
    }
    geo->affine[3][3] = 1;
}

/* Small rotations about all axes. */
static void tilt(vx_geometry *geo) {
    static const double r[3][3] = {
        {0.9553, -0.0959, 0.2796}, {0.1816, 0.9372, -0.2992}, {-0.2333, 0.3366, 0.9123}};
    vx_geometry old = *geo;
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 3; j++) {
            geo->affine[i][j] = 0;
            for (int k = 0; k < 3; k++) geo->affine[i][j] += r[i][k] * old.affine[k][j];
        }
}

/* Class indices 0 .. 3, non-zero only inside a margin so that there is something to crop. */
static vx_volume *labelled_volume(const vx_geometry *geo, size_t channels) {
    vx_volume *volume = NULL;
    assert_int_equal(vx_volume_create(geo, channels, &volume, NULL), VX_OK);
    uint32_t seed = 12345;
    const size_t *n = geo->dims;
    for (size_t i = 0; i < channels * vx_voxels(geo); i++) {
        size_t x = i % n[0], y = i / n[0] % n[1], z = i / (n[0] * n[1]) % n[2];
        seed = seed * 1664525u + 1013904223u;
        bool inside = x >= 1 && y >= 2 && y + 1 < n[1] && z >= 1 && z + 3 < n[2];
        volume->data[i] = inside ? (float)(seed >> 20 & 3) : 0;
    }
    return volume;
}

/* ---- A session for one test ---- */

typedef struct bench {
    vx_pool *pool;
    vx_model *model;
    vx_session *session;
} bench;

/* All tests but those of the plan run with the host's memory, then with a device's. */
static const vx_backend *backend = &fake_backend;

static bench open_bench(const fake_settings *settings, unsigned workers, bool tta) {
    bench b;
    vx_error err = {0};
    fake_backend_rule = FAKE_LABELS;
    fake_backend_runs = 0;
    assert_int_equal(vx_pool_create(workers, &b.pool, NULL), VX_OK);
    b.model = fake_model(settings);
    vx_session_options options = {.backend = backend, .pool = b.pool, .tta = tta, .step = 0.5};
    if (vx_session_create(b.model, &options, &b.session, &err) != VX_OK) fail_msg("%s", err.text);
    return b;
}

static void close_bench(bench *b) {
    vx_session_free(b->session);
    vx_model_close(b->model);
    vx_pool_free(b->pool);
}

static void assert_mask_is_volume(const vx_mask *mask, const vx_volume *volume) {
    assert_memory_equal(&mask->geo, &volume->geo, sizeof mask->geo);
    for (size_t i = 0; i < vx_voxels(&mask->geo); i++)
        assert_int_equal(vx_mask_get(mask, i), 10 * (unsigned)volume->data[i]);
}

/* ---- Geometry ---- */

static void all_axes(const fake_settings *settings, double mm, bool oblique, bool tta) {
    bench b = open_bench(settings, 2, tta);
    for (int k = 0; k < 48; k++) {
        vx_geometry geo = {.dims = {9, 8, 11}};
        set_axes(&geo, k, mm);
        if (oblique) tilt(&geo);
        vx_volume *volume = labelled_volume(&geo, 1);
        vx_mask *mask = NULL;
        assert_int_equal(vx_session_predict(b.session, volume, NULL, &mask, NULL, NULL), VX_OK);
        assert_mask_is_volume(mask, volume);
        vx_mask_free(mask);
        vx_volume_free(volume);
    }
    close_bench(&b);
}

static void every_voxel_returns_on_all_48_axis_codes(void **state) {
    (void)state;
    static const char *const codes[] = {NULL, "RAS", "SPL", "ILA", "AIR"};
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
        all_axes(&(fake_settings){.orientation = codes[i]}, 1, false, false);
        all_axes(&(fake_settings){.orientation = codes[i], .crop = "none"}, 1, true, false);
    }
}

static void every_voxel_returns_with_mirroring(void **state) {
    (void)state;
    all_axes(&(fake_settings){.orientation = "RAS", .mirror = true}, 1, false, true);
}

static void every_voxel_returns_from_a_finer_grid(void **state) {
    (void)state;
    /* Nearest neighbours there and back on a grid of half and of a third of the spacing. */
    const double half[3] = {0.5, 0.5, 0.5}, mixed[3] = {0.5, 1, 0.33333};
    fake_settings s = {.orientation = "LPS"};
    memcpy(s.spacing, half, sizeof half);
    all_axes(&s, 1, false, false);
    memcpy(s.spacing, mixed, sizeof mixed);
    all_axes(&s, 1, true, false);
}

static void any_size_works(void **state) {
    (void)state;
    for (size_t k = 0; k < 60; k++) {
        bench b = open_bench(&(fake_settings){.patch = {4, 4 + k % 2 * 2, 6}, .crop = "none"},
                             1 + (unsigned)k % 3, false);
        vx_geometry geo = {.dims = {1 + k * 7 % 13, 1 + k * 5 % 11, 1 + k * 3 % 17}};
        if (vx_voxels(&geo) == 1) geo.dims[2] = 2; /* one voxel is a constant image */
        set_axes(&geo, (int)k % 48, 1);
        vx_volume *volume = labelled_volume(&geo, 1);
        for (size_t i = 0; i < vx_voxels(&geo); i++) volume->data[i] = (float)(i * 7 / 3 % 4);
        vx_mask *mask = NULL;
        assert_int_equal(vx_session_predict(b.session, volume, NULL, &mask, NULL, NULL), VX_OK);
        assert_mask_is_volume(mask, volume);
        vx_mask_free(mask);
        vx_volume_free(volume);
        close_bench(&b);
    }
}

static void regions_overwrite_in_order(void **state) {
    (void)state;
    bench b = open_bench(&(fake_settings){.regions = true}, 2, false);
    fake_backend_rule = FAKE_REGIONS;
    vx_geometry geo = {.dims = {9, 8, 11}};
    set_axes(&geo, 0, 1);
    vx_volume *volume = labelled_volume(&geo, 1);
    vx_mask *mask = NULL;
    assert_int_equal(vx_session_predict(b.session, volume, NULL, &mask, NULL, NULL), VX_OK);
    assert_mask_is_volume(mask, volume);
    vx_mask_free(mask);
    vx_volume_free(volume);
    close_bench(&b);
}

static void labels_above_255_make_a_16_bit_mask(void **state) {
    (void)state;
    bench b = open_bench(&(fake_settings){.labels = 30}, 1, false);
    vx_geometry geo = {.dims = {5, 5, 5}};
    set_axes(&geo, 5, 1);
    vx_volume *volume = labelled_volume(&geo, 1);
    for (int i = 0; i < 125; i++) volume->data[i] = (float)(i % 31);
    vx_mask *mask = NULL;
    assert_int_equal(vx_session_predict(b.session, volume, NULL, &mask, NULL, NULL), VX_OK);
    assert_int_equal(mask->bytes, 2);
    assert_mask_is_volume(mask, volume);
    vx_mask_free(mask);
    vx_volume_free(volume);
    close_bench(&b);
}

/* ---- Probabilities ---- */

typedef struct collector {
    size_t plane, classes, next, stop_at;
    float *data; /* [z][class][y][x] */
} collector;

static vx_status collect(void *user_data, size_t z, const float *data, vx_error *err) {
    collector *c = user_data;
    assert_int_equal(z, c->next);
    if (z == c->stop_at) return vx_fail(err, VX_ERR_OUTPUT, "sink is full");
    c->next++;
    memcpy(c->data + z * c->plane * c->classes, data, c->plane * c->classes * sizeof(float));
    return VX_OK;
}

/* Softmax of -(v - k)^2 at every voxel of the crop, background outside: in stored order. */
static void check_probabilities(const collector *c, const vx_volume *volume) {
    const size_t *n = volume->geo.dims;
    assert_int_equal(c->next, n[2]);
    size_t low[3] = {1, 2, 1}, high[3] = {n[0], n[1] - 1, n[2] - 3}; /* labelled_volume's margin */
    for (size_t i = 0; i < vx_voxels(&volume->geo); i++) {
        size_t at[3] = {i % n[0], i / n[0] % n[1], i / (n[0] * n[1])};
        bool inside = true;
        for (int a = 0; a < 3; a++) inside &= at[a] >= low[a] && at[a] < high[a];
        double want[4], sum = 0;
        for (int k = 0; k < 4; k++) {
            double d = (double)volume->data[i] - k;
            sum += want[k] = inside ? exp(-d * d) : k == 0;
        }
        for (size_t k = 0; k < 4; k++) {
            double got = (double)c->data[(at[2] * 4 + k) * c->plane + i % c->plane];
            assert_true(fabs(got - want[k] / sum) < 1e-6);
        }
    }
}

static void probabilities_come_in_stored_order(void **state) {
    (void)state;
    static const char *const codes[] = {NULL, "RAS"};
    for (size_t i = 0; i < 2; i++) {
        bench b = open_bench(&(fake_settings){.orientation = codes[i]}, 2, false);
        for (int k = 0; k < 96; k++) {
            /* The second: y is the frontier's outer axis wherever 33 runs along it. */
            vx_geometry geo = {.dims = {9, 8, 11}};
            if (k >= 48) geo = (vx_geometry){.dims = {7, 33, 9}};
            set_axes(&geo, k % 48, 1);
            vx_volume *volume = labelled_volume(&geo, 1);
            size_t plane = geo.dims[0] * geo.dims[1];
            collector c = {.plane = plane, .classes = 4, .stop_at = SIZE_MAX};
            c.data = malloc(geo.dims[2] * plane * 4 * sizeof(float));
            vx_predict_options options = {.sink = collect, .sink_data = &c};
            vx_mask *mask = NULL;
            assert_int_equal(vx_session_predict(b.session, volume, &options, &mask, NULL, NULL),
                             VX_OK);
            assert_mask_is_volume(mask, volume);
            check_probabilities(&c, volume);
            vx_mask_free(mask);
            mask = NULL;
            options.consume = true;
            options.sink = NULL;
            vx_volume *used = labelled_volume(&geo, 1);
            assert_int_equal(vx_session_predict(b.session, used, &options, &mask, NULL, NULL),
                             VX_OK);
            assert_null(used->data);
            assert_mask_is_volume(mask, volume);
            vx_mask_free(mask);
            vx_volume_free(used);
            mask = NULL;
            options = (vx_predict_options){.sink = collect, .sink_data = &c};
            c.next = 0;
            c.stop_at = 4;
            assert_int_equal(vx_session_predict(b.session, volume, &options, &mask, NULL, NULL),
                             VX_ERR_OUTPUT);
            assert_null(mask);
            free(c.data);
            vx_volume_free(volume);
        }
        close_bench(&b);
    }
}

/* ---- Refusals ---- */

static void expect(bench *b, vx_volume *volume, const vx_predict_options *options, vx_status want,
                   const char *words) {
    vx_error err = {0};
    vx_mask *mask = NULL;
    assert_int_equal(vx_session_predict(b->session, volume, options, &mask, NULL, &err), want);
    if (want != VX_OK) {
        assert_null(mask);
        if (!strstr(err.text, words)) fail_msg("%s", err.text);
    }
    vx_mask_free(mask);
}

static void bad_input_is_refused(void **state) {
    (void)state;
    bench b = open_bench(&(fake_settings){.channels = 2}, 2, false);
    vx_geometry geo = {.dims = {9, 8, 11}};
    set_axes(&geo, 0, 1);
    vx_volume *one = labelled_volume(&geo, 1), *two = labelled_volume(&geo, 2);
    vx_volume *three = labelled_volume(&geo, 3);
    expect(&b, one, NULL, VX_ERR_INPUT, "1 channel given, the model 'fake' wants 2");
    expect(&b, three, NULL, VX_ERR_INPUT, "3 channels given, the model 'fake' wants 2");
    expect(&b, two, NULL, VX_OK, "");
    fake_backend_rule = FAKE_NAN;
    expect(&b, two, NULL, VX_ERR_MODEL, "NaN");
    fake_backend_rule = FAKE_FAIL;
    expect(&b, two, NULL, VX_ERR_RESOURCE, "fake failure");
    fake_backend_rule = FAKE_LABELS;
    two->data[100] = NAN;
    expect(&b, two, NULL, VX_ERR_INPUT, "NaN");
    two->data[100] = 1;
    two->geo.affine[0][0] = 0;
    expect(&b, two, NULL, VX_ERR_INPUT, "");
    for (int i = 0; i < 3; i++) /* ten million voxels an axis at the model's millimetre */
        two->geo.affine[i][i] = 1e6;
    expect(&b, two, NULL, VX_ERR_INPUT, "too many");
    vx_volume_free(one);
    vx_volume_free(two);
    vx_volume_free(three);
    close_bench(&b);
}

static void constant_and_empty_volumes_are_refused(void **state) {
    (void)state;
    static const char *const kinds[] = {"zscore", "zscore_nonzero", "rescale01", "none"};
    for (size_t k = 0; k < 4; k++)
        for (int value = 0; value < 2; value++) {
            bench b = open_bench(&(fake_settings){.normalise = kinds[k]}, 2, false);
            vx_geometry geo = {.dims = {6, 5, 4}};
            set_axes(&geo, 13, 1);
            vx_volume *volume = labelled_volume(&geo, 1);
            for (int i = 0; i < 120; i++) volume->data[i] = (float)value;
            expect(&b, volume, NULL, VX_ERR_INPUT, "constant");
            volume->data[7] += 1e-9F; /* below what normalisation can see (or lost beside 1) */
            expect(&b, volume, NULL, VX_ERR_INPUT, "constant");
            volume->data[7] += 1e-3F;
            expect(&b, volume, NULL, VX_OK, "");
            vx_volume_free(volume);
            close_bench(&b);
        }
}

typedef struct listener {
    int warnings, calls, cancel_after;
    double last;
    char warning[200]; /* the last one */
} listener;

static void hear(void *user_data, vx_log_level level, const char *text) {
    listener *l = user_data;
    if (level != VX_LOG_WARNING) return;
    l->warnings++;
    snprintf(l->warning, sizeof l->warning, "%s", text);
}

static void one_constant_channel_warns(void **state) {
    (void)state;
    bench b = open_bench(&(fake_settings){.channels = 2}, 2, false);
    vx_geometry geo = {.dims = {9, 8, 11}};
    set_axes(&geo, 0, 1);
    vx_volume *volume = labelled_volume(&geo, 2);
    for (size_t i = 0; i < vx_voxels(&geo); i++) volume->data[vx_voxels(&geo) + i] = 0;
    listener l = {0};
    vx_log log = {.message = hear, .user_data = &l};
    expect(&b, volume, &(vx_predict_options){.log = &log}, VX_OK, "");
    assert_int_equal(l.warnings, 1);
    vx_volume_free(volume);
    close_bench(&b);
}

static bool follow(void *user_data, const char *stage, double fraction) {
    listener *l = user_data;
    (void)stage;
    assert_true(fraction >= l->last && fraction <= 1);
    l->last = fraction;
    return ++l->calls == l->cancel_after;
}

static void field_of_view_is_checked(void **state) {
    (void)state;
    bench b = open_bench(
        &(fake_settings){.orientation = "RAS",
                         .field_of_view = "{\"min\": [10, 6, 6], \"max\": [12, 10, 10]}"},
        2, false);
    static const struct {
        size_t dims[3]; /* x, y, z */
        vx_status want;
        int warnings;
    } cases[] = {
        {{8, 8, 11}, VX_OK, 0},
        {{8, 8, 14}, VX_OK, 1},
        {{8, 8, 16}, VX_ERR_MODEL, 0},
        {{8, 8, 9}, VX_OK, 1},
        {{8, 8, 7}, VX_ERR_MODEL, 0},
        {{13, 8, 11}, VX_ERR_MODEL, 0},
        {{240, 240, 12}, VX_ERR_MODEL, 0},
    };
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        vx_geometry geo = {.dims = {cases[k].dims[0], cases[k].dims[1], cases[k].dims[2]}};
        set_axes(&geo, 7, 1); /* reversed axes: the extents are the same */
        vx_volume *volume = labelled_volume(&geo, 1);
        listener l = {0};
        vx_log log = {.message = hear, .user_data = &l};
        vx_predict_options options = {.log = &log};
        expect(&b, volume, &options, cases[k].want, "mm");
        assert_int_equal(l.warnings, cases[k].warnings);
        if (cases[k].want != VX_OK && k != 6) {
            options.force = true;
            expect(&b, volume, &options, VX_OK, "");
            assert_int_equal(l.warnings, 1);
        }
        vx_volume_free(volume);
    }
    close_bench(&b);
}

static void cancelling_stops_between_tiles(void **state) {
    (void)state;
    bench b = open_bench(&(fake_settings){.crop = "none"}, 2, false);
    vx_geometry geo = {.dims = {9, 8, 11}};
    set_axes(&geo, 0, 1);
    vx_volume *volume = labelled_volume(&geo, 1);
    listener l = {.cancel_after = 4};
    vx_log log = {.progress = follow, .user_data = &l};
    vx_predict_options options = {.log = &log};
    expect(&b, volume, &options, VX_ERR_CANCELLED, "cancelled");
    assert_int_equal(fake_backend_runs, 3);
    l = (listener){.cancel_after = 1};
    expect(&b, volume, &options, VX_ERR_CANCELLED, "cancelled");
    assert_int_equal(fake_backend_runs, 3);
    l = (listener){0};
    expect(&b, volume, &options, VX_OK, "");
    assert_true(l.last == 1.0);
    vx_volume_free(volume);
    close_bench(&b);
}

/* ---- Plan ---- */

static void plan_counts_tiles_and_bytes(void **state) {
    (void)state;
    bench b =
        open_bench(&(fake_settings){.orientation = "RAS", .crop = "none", .mirror = true}, 3, true);
    vx_geometry geo = {.dims = {9, 8, 11}};
    set_axes(&geo, 40, 1);
    vx_predict_plan plan;
    assert_int_equal(vx_session_plan(b.session, &geo, NULL, &plan, NULL), VX_OK);
    vx_volume *volume = labelled_volume(&geo, 1);
    expect(&b, volume, NULL, VX_OK, "");
    assert_int_equal(plan.tiles * 8, fake_backend_runs);
    assert_true(plan.flops == 7.0 * (double)fake_backend_runs);
    assert_int_equal(plan.network_bytes, 123);
    /* Axes 40: x runs along S, y along A, z along R. On RAS the tensor is 9 slices of 8 x 11. Tiles
     * of 4 x 6 x 4 start at z 0, 2, 3, 5 and y 0, 2: the most rows are in memory, 30, when the
     * second line of the second z row begins: z 2 of 6 y, z 3 to 5 of all 8. Four classes. */
    size_t slab = 30 * 11 * 4 * sizeof(float) + (9 * 8 + 30) * sizeof(uint32_t);
    size_t tile = 96 * (1 + 4) * sizeof(float), frontier = (4 + 2) * 4 * sizeof(size_t);
    size_t rows = 3 * (11 + 1) * 4 * sizeof(float), maps = (9 + 8 + 11) * 12;
    size_t starts = (4 + 2 + 5) * 8 + (4 + 6 + 4 + 9 + 8 + 11) * 4;
    assert_int_equal(plan.accumulator_bytes, slab + tile + rows + maps + starts + frontier);
    /* The image and two copies while it is turned; one less when it may be used up. */
    size_t image = 792 * sizeof(float);
    assert_int_equal(plan.volume_bytes, 3 * image);
    assert_int_equal(plan.weight_bytes, 23);
    assert_int_equal(plan.peak_bytes, 123 + plan.accumulator_bytes + 2 * image + 792);
    const vx_predict_wants consume = {.consume = true}, probabilities = {.probabilities = true};
    vx_predict_plan other;
    assert_int_equal(vx_session_plan(b.session, &geo, &consume, &other, NULL), VX_OK);
    assert_int_equal(other.volume_bytes, 2 * image);
    assert_int_equal(other.peak_bytes, plan.peak_bytes - image);
    /* Whole slices: z 2 to 5, of 8 y. A slice across z for the network, one as stored, and what of
     * the file makes one stored slice: 8 x 11, 9 x 8, 9 x 8 voxels of 4 classes. */
    assert_int_equal(vx_session_plan(b.session, &geo, &probabilities, &other, NULL), VX_OK);
    assert_int_equal(other.accumulator_bytes,
                     plan.accumulator_bytes +
                         (32 - 30) * (11 * 4 * sizeof(float) + sizeof(uint32_t)) +
                         (8 * 11 + 2 * 9 * 8) * 4 * sizeof(float));
    vx_volume_free(volume);
    geo.dims[0] = (size_t)1 << 62;
    assert_int_not_equal(vx_session_plan(b.session, &geo, NULL, &plan, NULL), VX_OK);
    close_bench(&b);
}

static void wrong_options(void **state) {
    (void)state;
    bench b = open_bench(&(fake_settings){0}, 1, false);
    vx_session_options options = {.backend = &fake_backend, .pool = b.pool, .step = 0};
    vx_session *session = NULL;
    assert_int_equal(vx_session_create(b.model, &options, &session, NULL), VX_ERR_USAGE);
    assert_null(session);
    char text[64];
    vx_session_describe(b.session, text, sizeof text);
    assert_string_equal(text, "fake");
    close_bench(&b);
}

/* ---- A device with memory of its own ---- */

static void too_little_device_memory_takes_the_hosts(void **state) {
    (void)state;
    bench b = open_bench(&(fake_settings){.orientation = "RAS", .crop = "none"}, 2, false);
    vx_geometry geo = {.dims = {9, 8, 11}};
    set_axes(&geo, 40, 1);
    vx_volume *volume = labelled_volume(&geo, 1);
    vx_predict_plan plan;
    /* 792 voxels, 30 rows of 11 voxels of 4 classes (plan_counts_tiles_and_bytes). */
    const size_t needed = (792 + 30 * 11 * 4) * sizeof(float), some = fake_device_free;
    for (int fits = 0; fits < 2; fits++) {
        fake_device_free = needed - 1 + (size_t)fits;
        assert_int_equal(vx_session_plan(b.session, &geo, NULL, &plan, NULL), VX_OK);
        assert_int_equal(plan.device_network_bytes, 123);
        assert_int_equal(plan.device_volume_bytes, fits ? needed : 0);
        assert_int_equal(plan.device_room_bytes, 123 + fake_device_free);
        listener l = {0};
        vx_log log = {.message = hear, .user_data = &l};
        expect(&b, volume, &(vx_predict_options){.log = &log}, VX_OK, "");
        assert_int_equal(l.warnings, !fits);
        if (!fits) assert_non_null(strstr(l.warning, "added up in the host's memory"));
    }
    /* Of the host's memory then: slots, and the rows of labels that one step makes, at most 4 of z
     * by 6 of y at once, or by 2. */
    size_t slots = (9 * 8 + 30) * sizeof(uint32_t), made = 4 * 6 * 11;
    size_t rows = 2 * (11 + 1) * 4 * sizeof(float), maps = (9 + 8 + 11) * 12;
    size_t starts = (4 + 2 + 5) * 8 + (4 + 6 + 4 + 9 + 8 + 11) * 4;
    size_t frontier = (4 + 2) * 4 * sizeof(size_t);
    assert_int_equal(plan.accumulator_bytes, slots + made + rows + maps + starts + frontier);
    assert_int_equal(plan.network_bytes, 0);
    fake_device_free = some;
    vx_volume_free(volume);
    close_bench(&b);
}

static void probabilities_are_the_hosts(void **state) {
    (void)state;
    bench b = open_bench(&(fake_settings){.crop = "none"}, 2, false);
    vx_geometry geo = {.dims = {9, 8, 11}};
    set_axes(&geo, 0, 1);
    const vx_predict_wants wants = {.probabilities = true};
    vx_predict_plan plan;
    assert_int_equal(vx_session_plan(b.session, &geo, &wants, &plan, NULL), VX_OK);
    assert_int_equal(plan.device_volume_bytes, 0);
    close_bench(&b);
}

int main(void) {
    const struct CMUnitTest both[] = {
        cmocka_unit_test(every_voxel_returns_on_all_48_axis_codes),
        cmocka_unit_test(every_voxel_returns_with_mirroring),
        cmocka_unit_test(every_voxel_returns_from_a_finer_grid),
        cmocka_unit_test(any_size_works),
        cmocka_unit_test(regions_overwrite_in_order),
        cmocka_unit_test(labels_above_255_make_a_16_bit_mask),
        cmocka_unit_test(probabilities_come_in_stored_order),
        cmocka_unit_test(bad_input_is_refused),
        cmocka_unit_test(constant_and_empty_volumes_are_refused),
        cmocka_unit_test(one_constant_channel_warns),
        cmocka_unit_test(field_of_view_is_checked),
        cmocka_unit_test(cancelling_stops_between_tiles),
        cmocka_unit_test(wrong_options),
    };
    const struct CMUnitTest host[] = {cmocka_unit_test(plan_counts_tiles_and_bytes)};
    const struct CMUnitTest device[] = {
        cmocka_unit_test(too_little_device_memory_takes_the_hosts),
        cmocka_unit_test(probabilities_are_the_hosts),
    };
    int failed = cmocka_run_group_tests_name("host, both", both, NULL, NULL);
    failed += cmocka_run_group_tests_name("host", host, NULL, NULL);
    backend = &fake_device_backend;
    failed += cmocka_run_group_tests_name("device, both", both, NULL, NULL);
    return failed + cmocka_run_group_tests_name("device", device, NULL, NULL);
}
