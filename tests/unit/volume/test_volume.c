/* Volumes, masks, labels and affines. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "volume/labels.h"
#include "volume/volume.h"

static const vx_geometry unit = {{2, 3, 4},
                                 {{1, 0, 0, 0}, {0, 1, 0, 0}, {0, 0, 1, 0}, {0, 0, 0, 1}}};

static void sizes_are_checked(void **state) {
    (void)state;
    vx_volume *v = (vx_volume *)1;
    vx_mask *m = (vx_mask *)1;
    vx_geometry geo = unit;
    assert_int_equal(vx_volume_create(&geo, 0, &v, NULL), VX_ERR_INPUT);
    assert_null(v);
    geo.dims[1] = 0;
    assert_int_equal(vx_volume_create(&geo, 1, &v, NULL), VX_ERR_INPUT);
    assert_int_equal(vx_geometry_check(&geo, NULL), VX_ERR_INPUT);
    geo.dims[0] = geo.dims[1] = geo.dims[2] = (size_t)1 << 31;
    assert_int_equal(vx_volume_create(&geo, 1, &v, NULL), VX_ERR_INPUT);
    assert_int_equal(vx_mask_create(&geo, 1, &m, NULL), VX_ERR_INPUT);
    assert_null(m);
    geo.dims[0] = (size_t)1 << 62;
    geo.dims[1] = geo.dims[2] = 1;
    assert_int_equal(vx_volume_create(&geo, 1, &v, NULL), VX_ERR_INPUT);
    assert_int_equal(vx_mask_create(&unit, 4, &m, NULL), VX_ERR_USAGE);
}

static void masks_hold_both_widths(void **state) {
    (void)state;
    for (unsigned bytes = 1; bytes <= 2; bytes++) {
        vx_mask *m;
        assert_int_equal(vx_mask_create(&unit, bytes, &m, NULL), VX_OK);
        for (size_t i = 0; i < 24; i++) assert_int_equal(vx_mask_get(m, i), 0);
        vx_mask_set(m, 23, bytes == 1 ? 255 : 65535);
        assert_int_equal(vx_mask_get(m, 23), bytes == 1 ? 255 : 65535);
        assert_int_equal(vx_mask_get(m, 22), 0);
        vx_mask_free(m);
    }
    vx_mask_free(NULL);
    vx_volume_free(NULL);
}

static int destroyed;
static void destroy(vx_source *source) {
    (void)source;
    destroyed++;
}

static void sources_are_counted(void **state) {
    (void)state;
    vx_source source = {.references = 1, .destroy = destroy};
    vx_volume *v;
    vx_mask *m;
    assert_int_equal(vx_volume_create(&unit, 1, &v, NULL), VX_OK);
    assert_int_equal(vx_mask_create(&unit, 1, &m, NULL), VX_OK);
    v->source = vx_source_ref(&source);
    m->source = vx_source_ref(&source);
    vx_source_unref(&source);
    vx_volume_free(v);
    assert_int_equal(destroyed, 0);
    vx_mask_free(m);
    assert_int_equal(destroyed, 1);
    assert_null(vx_source_ref(NULL));
    vx_source_unref(NULL);
}

static void affines_invert(void **state) {
    (void)state;
    const double affine[4][4] = {
        {1.2, -0.4, 0.1, -90}, {0.3, 2.1, -0.2, 31}, {-0.2, 0.05, 4.5, 1e3}, {0, 0, 0, 1}};
    double inverse[4][4], world[3], back[3];
    const double index[3] = {13, 17, 5.5};
    assert_true(vx_affine_invert(affine, inverse));
    vx_affine_apply(affine, index, world);
    assert_true(fabs(world[0] - (1.2 * 13 - 0.4 * 17 + 0.1 * 5.5 - 90)) < 1e-12);
    vx_affine_apply(inverse, world, back);
    for (int i = 0; i < 3; i++) assert_true(fabs(back[i] - index[i]) < 1e-10);
    /* Tiny voxels are not singular, flat ones are. */
    double m[4][4] = {{1e-7, 0, 0, 0}, {0, 1e-7, 0, 0}, {0, 0, 1e-7, 0}, {0, 0, 0, 1}};
    assert_true(vx_affine_invert(m, inverse));
    assert_true(fabs(inverse[1][1] - 1e7) < 1e-3);
    m[2][2] = 0;
    assert_false(vx_affine_invert(m, inverse));
    m[0][2] = m[1][2] = 1e-7;
    assert_false(vx_affine_invert(m, inverse));
}

static void geometry_is_checked(void **state) {
    (void)state;
    vx_geometry geo = unit;
    assert_int_equal(vx_geometry_check(&geo, NULL), VX_OK);
    geo.affine[1][3] = NAN;
    assert_int_equal(vx_geometry_check(&geo, NULL), VX_ERR_INPUT);
    geo = unit;
    geo.affine[3][0] = 1;
    assert_int_equal(vx_geometry_check(&geo, NULL), VX_ERR_INPUT);
    geo = unit;
    geo.affine[2][2] = 0;
    assert_int_equal(vx_geometry_check(&geo, NULL), VX_ERR_INPUT);
    /* Beyond that NIfTI-1, which has single precision, cannot say where a voxel lies. */
    for (int i = 0; i < 2; i++) {
        geo = unit;
        geo.affine[0][3] = i ? -1.1e6 : -1e6;
        assert_int_equal(vx_geometry_check(&geo, NULL), i ? VX_ERR_INPUT : VX_OK);
    }
}

static void distance_is_of_the_farthest_corner(void **state) {
    (void)state;
    vx_geometry a = unit, b = unit;
    assert_true(vx_geometry_distance(&a, &b) == 0);
    b.affine[0][3] = 3;
    b.affine[1][3] = -4;
    assert_true(fabs(vx_geometry_distance(&a, &b) - 5) < 1e-12);
    b = unit;
    b.affine[2][2] = 1.5; /* the last of 4 slices is 3 * 0.5 away */
    assert_true(fabs(vx_geometry_distance(&a, &b) - 1.5) < 1e-12);
    b.dims[0]++;
    assert_true(isinf(vx_geometry_distance(&a, &b)));
}

/* volatile: GCC 12.2 drops the rounding of two neighbouring (double)(float) stores when it
 * vectorises them. */
static double as_float32(double v) {
    volatile float f = (float)v;
    return f;
}

/* Lengths along an axis are exact as stored; those of oblique columns lose their rounding. */
static void spacing_is_free_of_noise(void **state) {
    (void)state;
    vx_geometry geo = unit;
    double s[3];
    geo.affine[0][0] = (double)0.7f;
    geo.affine[1][1] = -0.9765625;
    geo.affine[2][2] = 1.00000011920928955;
    vx_spacing(&geo, s);
    assert_true(s[0] == (double)0.7f);
    assert_true(s[1] == 0.9765625);
    assert_true(s[2] == 1.00000011920928955);
    for (int degrees = 1; degrees < 90; degrees++) {
        double c = cos(degrees * 0.017453292519943295), d = sin(degrees * 0.017453292519943295);
        /* float32, as NIfTI-1 holds it */
        geo.affine[0][0] = as_float32(0.7 * c);
        geo.affine[1][0] = as_float32(0.7 * d);
        geo.affine[0][1] = as_float32(-3 * d);
        geo.affine[1][1] = as_float32(3 * c);
        vx_spacing(&geo, s);
        assert_true(s[0] == (double)0.7f);
        assert_true(s[1] == 3);
        /* double, as DICOM gives it */
        geo.affine[0][0] = 0.7 * c;
        geo.affine[1][0] = 0.7 * d;
        vx_spacing(&geo, s);
        assert_true(s[0] == 0.7);
        /* a spacing of more than six digits is left alone */
        geo.affine[0][0] = 0.9765625 * c;
        geo.affine[1][0] = 0.9765625 * d;
        vx_spacing(&geo, s);
        assert_true(fabs(s[0] - 0.9765625) < 1e-14);
    }
}

static void labels_are_found(void **state) {
    (void)state;
    vx_label labels[2] = {{.value = 1, .name = "anterior"}, {.value = 300, .name = "posterior"}};
    vx_label_table table = {2, labels};
    assert_ptr_equal(vx_label_find(&table, 300), &labels[1]);
    assert_null(vx_label_find(&table, 2));
    assert_ptr_equal(vx_label_find_name(&table, "anterior"), &labels[0]);
    assert_null(vx_label_find_name(&table, "Anterior"));
    assert_null(vx_label_find(NULL, 1));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(sizes_are_checked),
                                       cmocka_unit_test(masks_hold_both_widths),
                                       cmocka_unit_test(sources_are_counted),
                                       cmocka_unit_test(affines_invert),
                                       cmocka_unit_test(geometry_is_checked),
                                       cmocka_unit_test(distance_is_of_the_farthest_corner),
                                       cmocka_unit_test(spacing_is_free_of_noise),
                                       cmocka_unit_test(labels_are_found)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
