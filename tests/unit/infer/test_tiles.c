/* Tile positions, Gaussian and padding against nnU-Net v2 (2.8.1). The numbers were printed by
 *
 *   from nnunetv2.inference.sliding_window_prediction import *
 *   g = compute_gaussian(patch, 1 / 8, 10, torch.float32, torch.device("cpu")); g[index]
 *   compute_steps_for_sliding_window(image, patch, step)
 *   pad_nd_image(image, patch, "constant", {"value": 0}, True)
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "infer/tiles.h"

static void positions_equal_nnunet(void **state) {
    (void)state;
    static const struct {
        size_t image[3], patch[3];
        double step;
        size_t count[3], start[3][8];
    } cases[] = {
        {{110, 64, 70}, {64, 64, 64}, 0.5, {3, 1, 2}, {{0, 23, 46}, {0}, {0, 6}}},
        {{41, 57, 99}, {40, 56, 40}, 0.5, {2, 2, 4}, {{0, 1}, {0, 1}, {0, 20, 39, 59}}},
        {{100, 100, 100},
         {40, 56, 40},
         0.3,
         {6, 4, 6},
         {{0, 12, 24, 36, 48, 60}, {0, 15, 29, 44}, {0, 12, 24, 36, 48, 60}}},
        {{37, 23, 11},
         {5, 7, 3},
         1.0,
         {8, 4, 4},
         {{0, 5, 9, 14, 18, 23, 27, 32}, {0, 5, 11, 16}, {0, 3, 5, 8}}},
        {{130, 131, 45}, {40, 56, 40}, 0.75, {4, 3, 2}, {{0, 30, 60, 90}, {0, 38, 75}, {0, 5}}},
    };
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        vx_tiles t;
        assert_int_equal(vx_tiles_create(cases[k].image, cases[k].patch, cases[k].step, &t, NULL),
                         VX_OK);
        for (int a = 0; a < 3; a++) {
            assert_int_equal(t.count[a], cases[k].count[a]);
            for (size_t i = 0; i < t.count[a]; i++)
                assert_int_equal(t.start[a][i], cases[k].start[a][i]);
        }
        vx_tiles_free(&t);
    }
}

static void gaussian_equals_nnunet(void **state) {
    (void)state;
    static const struct {
        size_t patch[3], at[3];
        double weight; /* peak 10 */
    } cases[] = {
        {{40, 56, 40}, {20, 28, 20}, 10.0},           {{40, 56, 40}, {0, 0, 0}, 3.77513465e-10},
        {{40, 56, 40}, {39, 55, 39}, 3.14896997e-09}, {{40, 56, 40}, {10, 28, 3}, 0.0041801217},
        {{40, 56, 40}, {20, 0, 39}, 2.45492356e-06},  {{40, 56, 40}, {7, 13, 31}, 0.00304780598},
        {{5, 7, 3}, {0, 0, 0}, 4.78262291e-06},       {{5, 7, 3}, {1, 5, 0}, 0.00582721923},
        {{1, 2, 4}, {0, 0, 0}, 1.12535179e-06},       {{1, 2, 4}, {0, 1, 3}, 1.35335279},
    };
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        vx_tiles t;
        assert_int_equal(vx_tiles_create(cases[k].patch, cases[k].patch, 0.5, &t, NULL), VX_OK);
        double weight = 10;
        for (int a = 0; a < 3; a++) weight *= (double)t.profile[a][cases[k].at[a]];
        assert_true(fabs(weight - cases[k].weight) <= 3e-7 * cases[k].weight);
        vx_tiles_free(&t);
    }
}

/* The product of the three totals is the sum of all tiles' weights. */
static void totals_add_up(void **state) {
    (void)state;
    const size_t dims[3] = {11, 4, 9}, patch[3] = {4, 6, 3};
    vx_tiles t;
    assert_int_equal(vx_tiles_create(dims, patch, 0.5, &t, NULL), VX_OK);
    assert_int_equal(t.pad[0], 0);
    assert_int_equal(t.pad[1], 1);
    for (size_t z = 0; z < dims[0]; z++)
        for (size_t y = 0; y < dims[1]; y++)
            for (size_t x = 0; x < dims[2]; x++) {
                const size_t at[3] = {z, y, x};
                double sum = 0;
                for (size_t i = 0; i < t.count[0]; i++)
                    for (size_t j = 0; j < t.count[1]; j++)
                        for (size_t k = 0; k < t.count[2]; k++) {
                            const size_t tile[3] = {i, j, k};
                            double w = 1;
                            for (int a = 0; a < 3; a++) {
                                size_t p = at[a] + t.pad[a] - t.start[a][tile[a]];
                                w *= p < patch[a] ? (double)t.profile[a][p] : 0;
                            }
                            sum += w;
                        }
                double total =
                    (double)t.total[0][z] * (double)t.total[1][y] * (double)t.total[2][x];
                assert_true(fabs(sum - total) <= 1e-6 * sum);
            }
    vx_tiles_free(&t);
}

/* pad_nd_image of a 3 x 5 x 2 volume to 6 x 5 x 5 puts 1, 0, 1 zeros in front and 2, 0, 2 behind.
 */
static void small_volume_is_centred(void **state) {
    (void)state;
    const size_t dims[3] = {3, 5, 2}, patch[3] = {6, 5, 5}, tile[3] = {0, 0, 0};
    vx_tiles t;
    vx_pool *pool;
    assert_int_equal(vx_pool_create(1, &pool, NULL), VX_OK);
    assert_int_equal(vx_tiles_create(dims, patch, 0.5, &t, NULL), VX_OK);
    assert_int_equal(vx_tiles_total(&t), 1);
    float volume[2 * 30], out[2 * 150];
    for (int i = 0; i < 60; i++) volume[i] = (float)(i + 1);
    vx_tile_read(&t, tile, volume, 2, 0, out, pool);
    for (size_t z = 0; z < 6; z++)
        for (size_t y = 0; y < 5; y++)
            for (size_t x = 0; x < 5; x++)
                for (size_t c = 0; c < 2; c++) {
                    int inside = z >= 1 && z < 4 && x >= 1 && x < 3;
                    float want = inside ? volume[c * 30 + ((z - 1) * 5 + y) * 2 + x - 1] : 0;
                    assert_true(out[((z * 5 + y) * 5 + x) * 2 + c] == want);
                }
    vx_tiles_free(&t);
    vx_pool_free(pool);
}

static void flips_mirror_the_tile(void **state) {
    (void)state;
    const size_t dims[3] = {5, 6, 7}, patch[3] = {3, 4, 5}, tile[3] = {1, 1, 1};
    vx_tiles t;
    vx_pool *pool;
    assert_int_equal(vx_pool_create(3, &pool, NULL), VX_OK);
    assert_int_equal(vx_tiles_create(dims, patch, 0.5, &t, NULL), VX_OK);
    float volume[210], plain[60], flipped[60];
    for (int i = 0; i < 210; i++) volume[i] = (float)i;
    vx_tile_read(&t, tile, volume, 1, 0, plain, pool);
    assert_true(plain[0] == volume[(t.start[0][1] * 6 + t.start[1][1]) * 7 + t.start[2][1]]);
    for (unsigned flips = 0; flips < 8; flips++) {
        vx_tile_read(&t, tile, volume, 1, flips, flipped, pool);
        for (size_t z = 0; z < 3; z++)
            for (size_t y = 0; y < 4; y++)
                for (size_t x = 0; x < 5; x++) {
                    size_t fz = flips & VX_FLIP_Z ? 2 - z : z, fy = flips & VX_FLIP_Y ? 3 - y : y;
                    size_t fx = flips & VX_FLIP_X ? 4 - x : x;
                    assert_true(flipped[(z * 4 + y) * 5 + x] == plain[(fz * 4 + fy) * 5 + fx]);
                }
    }
    vx_tiles_free(&t);
    vx_pool_free(pool);
}

static void mirror_passes(void **state) {
    (void)state;
    unsigned passes[8];
    const bool none[3] = {false, false, false}, all[3] = {true, true, true};
    const bool zx[3] = {true, false, true};
    assert_int_equal(vx_mirror_passes(none, passes), 1);
    assert_int_equal(passes[0], 0);
    assert_int_equal(vx_mirror_passes(all, passes), 8);
    unsigned seen = 0;
    for (int i = 0; i < 8; i++) seen |= 1u << passes[i];
    assert_int_equal(seen, 255);
    assert_int_equal(vx_mirror_passes(zx, passes), 4);
    assert_int_equal(passes[3], VX_FLIP_Z | VX_FLIP_X);
}

static void wrong_steps(void **state) {
    (void)state;
    const size_t dims[3] = {9, 9, 9}, patch[3] = {4, 4, 4};
    const double steps[] = {0, -1, 1.0001, NAN, INFINITY};
    vx_tiles t;
    vx_error err;
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++)
        assert_int_equal(vx_tiles_create(dims, patch, steps[i], &t, &err), VX_ERR_USAGE);
    /* A tiny step ends in one tile a voxel, not in an endless list. */
    assert_int_equal(vx_tiles_create(dims, patch, 1e-300, &t, &err), VX_OK);
    assert_int_equal(t.count[0], 6);
    vx_tiles_free(&t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(positions_equal_nnunet),
        cmocka_unit_test(gaussian_equals_nnunet),
        cmocka_unit_test(totals_add_up),
        cmocka_unit_test(small_volume_is_centred),
        cmocka_unit_test(flips_mirror_the_tile),
        cmocka_unit_test(mirror_passes),
        cmocka_unit_test(wrong_steps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
