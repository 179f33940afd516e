/* Normalisation against nnU-Net's classes (cases.h) and by hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "cases.h"
#include "volume/crop.h"
#include "volume/foreground.h"
#include "volume/intensity.h"

static vx_volume *make_volume(size_t x, size_t y, size_t z, size_t channels, const float *data) {
    vx_geometry geo = {{x, y, z}, {{1, 0, 0, 0}, {0, 1, 0, 0}, {0, 0, 1, 0}, {0, 0, 0, 1}}};
    vx_volume *v;
    assert_int_equal(vx_volume_create(&geo, channels, &v, NULL), VX_OK);
    memcpy(v->data, data, x * y * z * channels * sizeof(float));
    return v;
}

static void check_kind(vx_norm_kind kind, const float *expected) {
    const vx_normalisation one = {kind, -958.25, 1300.75, 90.5, 141.25};
    const vx_normalisation norms[2] = {one, one};
    vx_volume *v = make_volume(6, 5, 4, 2, intensity_in);
    assert_int_equal(vx_normalise(v, norms, NULL, NULL), VX_OK);
    for (int i = 0; i < 240; i++) {
        /* nnU-Net sums in float32, we in double: measured 3e-7. */
        double d = fabs((double)v->data[i] - expected[i]);
        if (!(d <= 1e-6)) fail_msg("kind %d, voxel %d: differs by %g", (int)kind, i, d);
    }
    vx_volume_free(v);
}

static void matches_nnunet(void **state) {
    (void)state;
    check_kind(VX_NORM_NONE, intensity_in);
    check_kind(VX_NORM_ZSCORE, intensity_zscore);
    check_kind(VX_NORM_ZSCORE_NONZERO, intensity_zscore_nonzero);
    check_kind(VX_NORM_CT, intensity_ct);
    check_kind(VX_NORM_RESCALE01, intensity_rescale01);
}

/* Several blocks, the last one short. */
static void same_bits_for_any_pool(void **state) {
    (void)state;
    enum { X = 61, Y = 59, Z = 47, N = X * Y * Z };
    float *data = vx_alloc(2 * N * sizeof *data);
    uint32_t seed = 3;
    assert_non_null(data);
    for (size_t i = 0; i < 2 * (size_t)N; i++) {
        seed = seed * 1664525u + 1013904223u;
        data[i] = seed >> 30 ? (float)(seed >> 8 & 4095) - 1000.25f : 0;
    }
    for (int kind = VX_NORM_NONE; kind <= VX_NORM_RESCALE01; kind++) {
        const vx_normalisation one = {(vx_norm_kind)kind, -958.25, 1300.75, 90.5, 141.25};
        const vx_normalisation norms[2] = {one, one};
        vx_volume *first = make_volume(X, Y, Z, 2, data);
        assert_int_equal(vx_normalise(first, norms, NULL, NULL), VX_OK);
        for (unsigned workers = 1; workers < 6; workers += 2) {
            vx_pool *pool;
            float low, high, again[2];
            vx_volume *v = make_volume(X, Y, Z, 2, data);
            assert_int_equal(vx_pool_create(workers, &pool, NULL), VX_OK);
            assert_int_equal(vx_normalise(v, norms, pool, NULL), VX_OK);
            assert_memory_equal(v->data, first->data, 2 * N * sizeof *data);
            assert_int_equal(vx_value_range(v->data, N, pool, &low, &high, NULL), VX_OK);
            again[0] = again[1] = v->data[0];
            for (size_t i = 0; i < N; i++) {
                again[0] = fminf(again[0], v->data[i]);
                again[1] = fmaxf(again[1], v->data[i]);
            }
            assert_true(low == again[0] && high == again[1]);
            vx_pool_free(pool);
            vx_volume_free(v);
        }
        vx_volume_free(first);
    }
    vx_free(data);
}

static void constant_becomes_zero(void **state) {
    (void)state;
    float data[4000];
    for (int i = 0; i < 4000; i++) data[i] = 1234.567f;
    static const vx_norm_kind kinds[] = {VX_NORM_ZSCORE, VX_NORM_ZSCORE_NONZERO, VX_NORM_RESCALE01};
    for (int k = 0; k < 3; k++) {
        vx_volume *v = make_volume(20, 20, 10, 1, data);
        const vx_normalisation norm = {.kind = kinds[k]};
        assert_int_equal(vx_normalise(v, &norm, NULL, NULL), VX_OK);
        for (int i = 0; i < 4000; i++) assert_true(v->data[i] == 0);
        vx_volume_free(v);
    }
    /* Nothing but zeros: the mask is empty. */
    memset(data, 0, sizeof data);
    vx_volume *v = make_volume(20, 20, 10, 1, data);
    const vx_normalisation norm = {.kind = VX_NORM_ZSCORE_NONZERO};
    assert_int_equal(vx_normalise(v, &norm, NULL, NULL), VX_OK);
    for (int i = 0; i < 4000; i++) assert_true(v->data[i] == 0);
    vx_volume_free(v);
}

static void refuses_nan(void **state) {
    (void)state;
    float data[24] = {0};
    data[23] = NAN;
    data[7] = INFINITY;
    vx_volume *v = make_volume(4, 3, 2, 1, data);
    const vx_normalisation norm = {.kind = VX_NORM_NONE};
    vx_error err;
    assert_int_equal(vx_normalise(v, &norm, NULL, &err), VX_ERR_INPUT);
    assert_string_equal(err.text,
                        "2 voxels of channel 0 are NaN or infinite, the first at (3, 1, 0)");
    vx_volume_free(v);
}

/* A shell of 1 with a hollow inside, a spiral corridor that leads out, an island in the hollow. */
static void fills_holes_but_not_corridors(void **state) {
    (void)state;
    enum { N = 9 };
    float data[N * N * N] = {0};
#define AT(x, y, z) data[((z)*N + (y)) * N + (x)]
    for (int z = 1; z < 8; z++)
        for (int y = 1; y < 8; y++)
            for (int x = 1; x < 8; x++)
                if (x == 1 || x == 7 || y == 1 || y == 7 || z == 1 || z == 7) AT(x, y, z) = 1;
    AT(4, 4, 4) = 2;
    vx_volume *v = make_volume(N, N, N, 1, data);
    unsigned char *mask;
    assert_int_equal(vx_filled_foreground(v, &mask, NULL), VX_OK);
    for (int z = 0; z < N; z++)
        for (int y = 0; y < N; y++)
            for (int x = 0; x < N; x++) {
                int inside = x > 0 && x < 8 && y > 0 && y < 8 && z > 0 && z < 8;
                assert_int_equal(mask[(z * N + y) * N + x], inside);
            }
    vx_free(mask);
    /* A door through one face empties the hollow; a diagonal gap at an edge would not. */
    v->data[(4 * N + 4) * N + 1] = 0;
    assert_int_equal(vx_filled_foreground(v, &mask, NULL), VX_OK);
    assert_int_equal(mask[(3 * N + 3) * N + 3], 0);
    assert_int_equal(mask[(4 * N + 4) * N + 4], 1);
    vx_free(mask);
    v->data[(4 * N + 4) * N + 1] = 1;
    v->data[(4 * N + 1) * N + 1] = 0;
    assert_int_equal(vx_filled_foreground(v, &mask, NULL), VX_OK);
    assert_int_equal(mask[(3 * N + 3) * N + 3], 1);
    assert_int_equal(mask[(4 * N + 1) * N + 1], 0);
    vx_free(mask);
    vx_volume_free(v);
#undef AT
}

static void nonzero_box(void **state) {
    (void)state;
    float data[2 * 6 * 5 * 4] = {0};
    vx_volume *v = make_volume(6, 5, 4, 2, data);
    vx_box box;
    assert_int_equal(vx_nonzero_box(v, NULL, &box, NULL), VX_OK);
    assert_int_equal(box.size[0], 6);
    assert_int_equal(box.size[2], 4);
    v->data[(1 * 5 + 3) * 6 + 2] = -1;      /* channel 0: (2, 3, 1) */
    v->data[120 + (2 * 5 + 1) * 6 + 4] = 5; /* channel 1: (4, 1, 2) */
    assert_int_equal(vx_nonzero_box(v, NULL, &box, NULL), VX_OK);
    const size_t from[3] = {2, 1, 1}, size[3] = {3, 3, 2};
    assert_memory_equal(box.from, from, sizeof from);
    assert_memory_equal(box.size, size, sizeof size);
    vx_volume_free(v);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(matches_nnunet),
                                       cmocka_unit_test(same_bits_for_any_pool),
                                       cmocka_unit_test(constant_becomes_zero),
                                       cmocka_unit_test(refuses_nan),
                                       cmocka_unit_test(fills_holes_but_not_corridors),
                                       cmocka_unit_test(nonzero_box)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
