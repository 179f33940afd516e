/* Axis codes against nibabel (cases.h); a marked voxel keeps its index and its place in the world.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "cases.h"
#include "volume/crop.h"
#include "volume/orientation.h"

static vx_geometry case_geometry(const orientation_case *c) {
    vx_geometry geo = {{5, 7, 4}, {{0}}};
    for (int i = 0; i < 12; i++) geo.affine[i / 4][i % 4] = c->affine[i];
    geo.affine[3][3] = 1;
    return geo;
}

static void codes_match_nibabel(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof orientation_cases / sizeof *orientation_cases; i++) {
        vx_geometry geo = case_geometry(&orientation_cases[i]);
        char code[4];
        vx_orientation_codes(&geo, code);
        if (strcmp(code, orientation_cases[i].code) != 0)
            fail_msg("case %zu: %s, not %s", i, code, orientation_cases[i].code);
    }
}

/* All 48 codes. */
static size_t all_codes(char codes[48][4]) {
    static const char pairs[3][2] = {{'R', 'L'}, {'A', 'P'}, {'S', 'I'}};
    static const int orders[6][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2},
                                     {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
    size_t n = 0;
    for (int o = 0; o < 6; o++)
        for (int f = 0; f < 8; f++, n++) {
            for (int i = 0; i < 3; i++) codes[n][i] = pairs[orders[o][i]][f >> i & 1];
            codes[n][3] = '\0';
        }
    return n;
}

/* A voxel of each value 1, 2, 3 ... somewhere: its index after the change, by world position. */
static void check_change(const vx_geometry *geo, const char *code) {
    vx_reorient r;
    vx_error err;
    assert_int_equal(vx_reorient_to(geo, code, &r, &err), VX_OK);
    vx_geometry after = vx_reorient_geometry(geo, r);
    char now[4];
    vx_orientation_codes(&after, now);
    assert_string_equal(now, code);

    vx_volume *v, *w, *back;
    vx_mask *m, *n, *m_back;
    assert_int_equal(vx_volume_create(geo, 2, &v, NULL), VX_OK);
    assert_int_equal(vx_mask_create(geo, 2, &m, NULL), VX_OK);
    size_t voxels = vx_voxels(geo);
    for (size_t i = 0; i < 2 * voxels; i++) v->data[i] = (float)i;
    for (size_t i = 0; i < voxels; i++) vx_mask_set(m, i, (unsigned)i + 300);
    assert_int_equal(vx_reorient_volume(v, r, NULL, &w, NULL), VX_OK);
    assert_int_equal(vx_reorient_mask(m, r, &n, NULL), VX_OK);

    double inverse[4][4];
    assert_true(vx_affine_invert(after.affine, inverse));
    for (size_t i = 0; i < voxels; i++) {
        const double index[3] = {(double)(i % geo->dims[0]),
                                 (double)(i / geo->dims[0] % geo->dims[1]),
                                 (double)(i / geo->dims[0] / geo->dims[1])};
        double world[3], moved[3], again[3];
        vx_affine_apply(geo->affine, index, world);
        vx_affine_apply(inverse, world, moved);
        size_t at[3];
        for (int a = 0; a < 3; a++) {
            assert_true(fabs(moved[a] - nearbyint(moved[a])) < 1e-9);
            at[a] = (size_t)nearbyint(moved[a]);
            assert_true(at[a] < after.dims[a]);
            moved[a] = (double)at[a];
        }
        vx_affine_apply(after.affine, moved, again);
        for (int a = 0; a < 3; a++) assert_true(fabs(again[a] - world[a]) < 1e-9);
        size_t to = (at[2] * after.dims[1] + at[1]) * after.dims[0] + at[0];
        assert_true(w->data[to] == (float)i);
        assert_true(w->data[voxels + to] == (float)(voxels + i));
        assert_int_equal(vx_mask_get(n, to), i + 300);
    }
    vx_reorient inv = vx_reorient_inverse(r);
    assert_int_equal(vx_reorient_volume(w, inv, NULL, &back, NULL), VX_OK);
    assert_int_equal(vx_reorient_mask(n, inv, &m_back, NULL), VX_OK);
    assert_memory_equal(back->data, v->data, 2 * voxels * sizeof(float));
    assert_memory_equal(m_back->data, m->data, voxels * 2);
    assert_true(vx_geometry_distance(&back->geo, geo) < 1e-9);
    vx_volume_free(v);
    vx_volume_free(w);
    vx_volume_free(back);
    vx_mask_free(m);
    vx_mask_free(n);
    vx_mask_free(m_back);
}

static void marked_voxel_on_all_codes(void **state) {
    (void)state;
    char codes[48][4];
    assert_int_equal(all_codes(codes), 48);
    for (int from = 0; from < 48; from++) {
        vx_geometry geo = {{5, 7, 4}, {{0}}};
        static const double spacing[3] = {0.7, 1.3, 2.9};
        for (int i = 0; i < 3; i++) {
            static const char letters[] = "RLAPSI";
            ptrdiff_t letter = strchr(letters, codes[from][i]) - letters;
            geo.affine[letter / 2][i] = letter % 2 ? -spacing[i] : spacing[i];
            geo.affine[i][3] = 10.0 * i - 37.5;
        }
        geo.affine[3][3] = 1;
        char code[4];
        vx_orientation_codes(&geo, code);
        assert_string_equal(code, codes[from]);
        for (int to = 0; to < 48; to++) check_change(&geo, codes[to]);
    }
}

static void marked_voxel_on_oblique_grids(void **state) {
    (void)state;
    char codes[48][4];
    all_codes(codes);
    for (size_t i = 0; i < sizeof orientation_cases / sizeof *orientation_cases; i++) {
        vx_geometry geo = case_geometry(&orientation_cases[i]);
        check_change(&geo, codes[i % 48]);
    }
}

static void identity_and_nonsense(void **state) {
    (void)state;
    vx_geometry geo = {{5, 7, 4}, {{-1, 0, 0, 0}, {0, -1, 0, 0}, {0, 0, 1, 0}, {0, 0, 0, 1}}};
    vx_reorient r;
    vx_error err;
    assert_int_equal(vx_reorient_to(&geo, "LPS", &r, &err), VX_OK);
    assert_true(vx_reorient_is_identity(r));
    assert_int_equal(vx_reorient_to(&geo, "RAS", &r, &err), VX_OK);
    assert_false(vx_reorient_is_identity(r));
    static const char *const bad[] = {"", "RA", "RASS", "RAR", "RAL", "ras", "XYZ", "RAS "};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(vx_reorient_to(&geo, bad[i], &r, &err), VX_ERR_USAGE);
}

/* Exactly 45 degrees: a tie, which goes to the first axes whatever the last bits are. */
static void ties_do_not_depend_on_rounding(void **state) {
    (void)state;
    for (int i = -1; i <= 1; i++) {
        double c = sqrt(0.5), e = i * 1e-15;
        vx_geometry geo = {{2, 2, 2},
                           {{c + e, -c, 0, 0}, {c, c - e, 0, 0}, {0, 0, 1, 0}, {0, 0, 0, 1}}};
        char code[4];
        vx_orientation_codes(&geo, code);
        assert_string_equal(code, "RAS");
    }
}

static void crop_keeps_the_world(void **state) {
    (void)state;
    vx_geometry geo = case_geometry(&orientation_cases[0]);
    vx_volume *v, *c;
    assert_int_equal(vx_volume_create(&geo, 2, &v, NULL), VX_OK);
    for (size_t i = 0; i < 2 * vx_voxels(&geo); i++) v->data[i] = (float)i;
    const vx_box box = {{1, 2, 1}, {3, 4, 2}};
    assert_int_equal(vx_crop_volume(v, box, NULL, &c, NULL), VX_OK);
    size_t o = 0;
    for (size_t ch = 0; ch < 2; ch++)
        for (size_t z = 0; z < 2; z++)
            for (size_t y = 0; y < 4; y++)
                for (size_t x = 0; x < 3; x++, o++) {
                    assert_true(c->data[o] == (float)(((ch * 4 + z + 1) * 7 + y + 2) * 5 + x + 1));
                    const double a[3] = {(double)x, (double)y, (double)z},
                                 b[3] = {(double)x + 1, (double)y + 2, (double)z + 1};
                    double wa[3], wb[3];
                    vx_affine_apply(c->geo.affine, a, wa);
                    vx_affine_apply(geo.affine, b, wb);
                    for (int i = 0; i < 3; i++) assert_true(fabs(wa[i] - wb[i]) < 1e-11);
                }
    vx_volume_free(c);
    const vx_box bad[] = {{{0, 0, 0}, {6, 1, 1}},
                          {{5, 0, 0}, {1, 1, 1}},
                          {{0, 0, 0}, {0, 1, 1}},
                          {{1, 0, 0}, {SIZE_MAX, 1, 1}}};
    for (int i = 0; i < 4; i++)
        assert_int_equal(vx_crop_volume(v, bad[i], NULL, &c, NULL), VX_ERR_USAGE);
    vx_volume_free(v);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(codes_match_nibabel),
                                       cmocka_unit_test(marked_voxel_on_all_codes),
                                       cmocka_unit_test(marked_voxel_on_oblique_grids),
                                       cmocka_unit_test(identity_and_nonsense),
                                       cmocka_unit_test(ties_do_not_depend_on_rounding),
                                       cmocka_unit_test(crop_keeps_the_world)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
