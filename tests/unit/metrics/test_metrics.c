/* Truth: hand-worked cases, brute force, and the PyPI package surface-distance-based-measures 0.1
 * run on the same masks (arrays [x][y][z]; the three masks below are formulas, so the numbers can
 * be made again in numpy). */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "metrics/distance_transform.h"
#include "metrics/metrics.h"
#include "metrics/surfel_area.h"

static vx_geometry grid(size_t x, size_t y, size_t z, double sx, double sy, double sz) {
    vx_geometry geo = {{x, y, z}, {{sx, 0, 0, 0}, {0, sy, 0, 0}, {0, 0, sz, 0}, {0, 0, 0, 1}}};
    return geo;
}

static vx_mask *make_mask(vx_geometry geo, int (*inside)(double x, double y, double z)) {
    vx_mask *mask;
    assert_int_equal(vx_mask_create(&geo, 1, &mask, NULL), VX_OK);
    size_t i = 0;
    for (size_t z = 0; z < geo.dims[2]; z++)
        for (size_t y = 0; y < geo.dims[1]; y++)
            for (size_t x = 0; x < geo.dims[0]; x++, i++)
                vx_mask_set(mask, i, inside((double)x, (double)y, (double)z) ? 1 : 0);
    return mask;
}

static double sq(double v) { return v * v; }
static int ellipsoid(double x, double y, double z) {
    return sq((x - 11) / 7) + sq((y - 9) / 5) + sq((z - 8) / 4.5) <= 1;
}
static int hollow(double x, double y, double z) {
    return sq((x - 12.5) / 6) + sq((y - 9) / 6.5) + sq((z - 7) / 4) <= 1 &&
           !(sq((x - 12) / 1.5) + sq((y - 9) / 2) + sq((z - 8) / 3) <= 1);
}
static int scattered(double x, double y, double z) { return fmod(x * 7 + y * 13 + z * 29, 11) < 4; }
static int nothing(double x, double y, double z) {
    (void)x, (void)y, (void)z;
    return 0;
}
static int cube(double x, double y, double z) {
    return x >= 2 && x < 5 && y >= 2 && y < 5 && z >= 2 && z < 5;
}
static int cube_shifted(double x, double y, double z) { return cube(x - 1, y, z); }

static void agrees_with_the_package(void **state) {
    (void)state;
    static const struct {
        int (*ref)(double, double, double);
        double spacing[3], dice, hd95, assd, nsd[3];
    } cases[] = {
        {ellipsoid,
         {0.8, 1.1, 2.5},
         0.6666666666666666,
         3.4655446902326914,
         1.118462151013322,
         {0.33637714061808716, 0.5280431076421497, 0.7998914352005221}},
        {ellipsoid,
         {1, 1, 1},
         0.6666666666666666,
         2.449489742783178,
         0.8917239171959974,
         {0.3477713238070201, 0.7287074264296379, 0.935811900511744}},
        {scattered,
         {0.7, 1.3, 3.1},
         0.12444196428571429,
         16.268066879626478,
         6.37889628816699,
         {0.12893285626399592, 0.17251795450525512, 0.24349339079370177}},
    };
    static const double tolerance[3] = {0.5, 1, 2};
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        vx_geometry geo =
            grid(24, 20, 17, cases[c].spacing[0], cases[c].spacing[1], cases[c].spacing[2]);
        vx_mask *ref = make_mask(geo, cases[c].ref), *pred = make_mask(geo, hollow);
        for (int t = 0; t < 3; t++) {
            vx_label_score s;
            assert_int_equal(vx_score_label(pred, ref, 1, tolerance[t], 1, UINT64_MAX, &s, NULL),
                             VX_OK);
            assert_true(fabs(s.dice - cases[c].dice) < 1e-12);
            assert_true(fabs(s.hd95 - cases[c].hd95) < 1e-9);
            assert_true(fabs(s.assd - cases[c].assd) < 1e-9);
            assert_true(fabs(s.nsd - cases[c].nsd[t]) < 1e-9);
            assert_true(fabs(s.iou - s.dice / (2 - s.dice)) < 1e-12);
        }
        vx_mask_free(ref);
        vx_mask_free(pred);
    }
}

/* A cube of 27 voxels moved by one voxel: 18 voxels are shared. */
static void cube_by_hand(void **state) {
    (void)state;
    vx_geometry geo = grid(9, 8, 8, 2, 1, 1);
    vx_mask *a = make_mask(geo, cube), *b = make_mask(geo, cube_shifted);
    vx_label_score s;
    assert_int_equal(vx_score_label(a, b, 1, 1, 0, UINT64_MAX, &s, NULL), VX_OK);
    assert_int_equal(s.both_voxels, 18);
    assert_true(fabs(s.dice - 36.0 / 54) < 1e-15);
    assert_true(fabs(s.iou - 18.0 / 36) < 1e-15);
    assert_true(fabs(s.pred_ml - 27 * 2 / 1000.0) < 1e-15);
    assert_true(isnan(s.hd95)); /* not asked for */
    vx_mask_free(a);
    vx_mask_free(b);
}

static void empty_masks(void **state) {
    (void)state;
    vx_geometry geo = grid(8, 8, 8, 1, 1, 1);
    vx_mask *full = make_mask(geo, cube), *none = make_mask(geo, nothing);
    vx_label_score s;
    assert_int_equal(vx_score_label(none, none, 1, 1, 1, UINT64_MAX, &s, NULL), VX_OK);
    assert_true(isnan(s.dice) && isnan(s.iou) && isnan(s.hd95) && isnan(s.nsd));
    assert_int_equal(vx_score_label(none, full, 1, 1, 1, UINT64_MAX, &s, NULL), VX_OK);
    assert_true(s.dice == 0 && s.iou == 0 && isinf(s.hd95) && isinf(s.assd) && s.nsd == 0);
    assert_int_equal(vx_score_label(full, none, 1, 1, 1, UINT64_MAX, &s, NULL), VX_OK);
    assert_true(s.dice == 0 && isinf(s.hd95));
    vx_mask_free(full);
    vx_mask_free(none);
}

/* Both cubes lie in a box of 4 x 3 x 3 voxels, 5 x 4 x 4 corners. */
static void distances_need_room(void **state) {
    (void)state;
    vx_geometry geo = grid(9, 8, 8, 2, 1, 1);
    vx_mask *a = make_mask(geo, cube), *b = make_mask(geo, cube_shifted);
    vx_label_score s;
    vx_error err;
    assert_int_equal(vx_score_label(a, b, 1, 1, 1, 27 * 80, &s, &err), VX_OK);
    assert_int_equal(vx_score_label(a, b, 1, 1, 1, 27 * 80 - 1, &s, &err), VX_ERR_RESOURCE);
    assert_non_null(strstr(err.text, "GB of memory are needed for surface distances"));
    assert_int_equal(vx_score_label(a, b, 1, 1, 0, 0, &s, &err), VX_OK);
    vx_mask_free(a);
    vx_mask_free(b);
}

static void grids_that_differ(void **state) {
    (void)state;
    vx_mask *a = make_mask(grid(8, 8, 8, 1, 1, 1), cube),
            *b = make_mask(grid(8, 8, 9, 1, 1, 1), cube);
    vx_mask *c = make_mask(grid(8, 8, 8, 1, 1, 1.02), cube),
            *d = make_mask(grid(8, 8, 8, 1, 1, 1.01), cube);
    vx_label_score s;
    vx_error err;
    assert_int_equal(vx_score_label(a, b, 1, 1, 1, UINT64_MAX, &s, &err), VX_ERR_INPUT);
    assert_non_null(strstr(err.text, "8x8x8 voxels against 8x8x9"));
    assert_int_equal(vx_score_label(a, c, 1, 1, 1, UINT64_MAX, &s, &err),
                     VX_ERR_INPUT); /* 0.14 mm at the far corner */
    assert_int_equal(vx_score_label(a, d, 1, 1, 1, UINT64_MAX, &s, &err), VX_OK); /* 0.07 mm */
    vx_mask_free(a);
    vx_mask_free(b);
    vx_mask_free(c);
    vx_mask_free(d);
}

static void distances_by_brute_force(void **state) {
    (void)state;
    static const size_t shapes[][3] = {{1, 1, 1}, {7, 1, 1}, {5, 6, 7}, {1, 9, 4}};
    const double s[3] = {0.7, 1.9, 3.3};
    unsigned seed = 12345;
    for (size_t k = 0; k < sizeof shapes / sizeof shapes[0]; k++) {
        const size_t *n = shapes[k];
        size_t points = n[0] * n[1] * n[2];
        uint8_t *set = vx_alloc(points);
        double *got = vx_alloc_zero(points, sizeof *got);
        for (int share = 0; share < 4; share++) { /* 0: nothing is set */
            for (size_t i = 0; i < points; i++) {
                seed = seed * 1664525u + 1013904223u;
                set[i] = (int)(seed >> 28) < share * 3;
            }
            assert_int_equal(vx_distance_transform(set, n, s, got, NULL), VX_OK);
            for (size_t p = 0; p < points; p++) {
                double best = INFINITY;
                for (size_t q = 0; q < points; q++) {
                    if (!set[q]) continue;
                    double d = sq(s[0] * ((double)(p % n[0]) - (double)(q % n[0]))) +
                               sq(s[1] * ((double)(p / n[0] % n[1]) - (double)(q / n[0] % n[1]))) +
                               sq(s[2] * ((double)(p / n[0] / n[1]) - (double)(q / n[0] / n[1])));
                    if (d < best) best = d;
                }
                assert_true(isinf(best) ? isinf(got[p])
                                        : fabs(got[p] - best) <= 1e-12 * (1 + best));
            }
        }
        vx_free(set);
        vx_free(got);
    }
}

/* One voxel is an octahedron of eight (1,1,1)/8 triangles; half a neighbourhood is a flat face of
 * one voxel. */
static void areas_by_hand(void **state) {
    (void)state;
    const double spacing[3] = {2, 3, 5};
    double area[256];
    vx_surfel_areas(spacing, area);
    assert_true(area[0] == 0 && area[255] == 0);
    assert_true(fabs(area[1] - sqrt(sq(15) + sq(10) + sq(6)) / 8) < 1e-12);
    assert_true(fabs(area[0x0f] - 15) < 1e-12); /* the four voxels of one x: a face of 3 x 5 mm */
    assert_true(fabs(area[0x33] - 10) < 1e-12); /* one y: 2 x 5 mm */
    assert_true(fabs(area[0x55] - 6) < 1e-12);  /* one z: 2 x 3 mm */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(agrees_with_the_package),
        cmocka_unit_test(cube_by_hand),
        cmocka_unit_test(empty_masks),
        cmocka_unit_test(distances_need_room),
        cmocka_unit_test(grids_that_differ),
        cmocka_unit_test(distances_by_brute_force),
        cmocka_unit_test(areas_by_hand),
    };
    return cmocka_run_group_tests_name("metrics", tests, NULL, NULL);
}
