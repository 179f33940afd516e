/* Resampling against nnU-Net's own (tests/golden/write_resample_goldens.py), and its invariants. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "base/threads.h"
#include "volume/resample.h"

enum { IMAGE, MASK_HALF, MASK_ARGMAX };

typedef struct golden {
    char name[49];
    uint32_t kind, dims[3], new_dims[3];
    double old_spacing[3], new_spacing[3];
    int32_t order, axis, axis_order;
    vx_geometry geo, new_geo;
    float *in, *out;
} golden;

static void take(FILE *f, void *to, size_t bytes) {
    assert_int_equal(fread(to, 1, bytes, f), bytes);
}

static vx_geometry plain_geometry(const uint32_t dims[3], const double spacing[3]) {
    vx_geometry geo = {{dims[0], dims[1], dims[2]}, {{0}}};
    for (int i = 0; i < 3; i++) geo.affine[i][i] = spacing[i];
    geo.affine[3][3] = 1;
    return geo;
}

static golden read_golden(FILE *f) {
    golden g;
    memset(&g, 0, sizeof g);
    take(f, g.name, 48);
    take(f, &g.kind, sizeof g.kind);
    take(f, g.old_spacing, sizeof g.old_spacing);
    take(f, g.new_spacing, sizeof g.new_spacing);
    take(f, g.dims, sizeof g.dims);
    take(f, g.new_dims, sizeof g.new_dims);
    take(f, &g.order, sizeof g.order);
    take(f, &g.axis, sizeof g.axis);
    take(f, &g.axis_order, sizeof g.axis_order);
    g.geo = plain_geometry(g.dims, g.old_spacing);
    g.new_geo = plain_geometry(g.new_dims, g.new_spacing);
    size_t in = vx_voxels(&g.geo) * sizeof(float), out = vx_voxels(&g.new_geo) * sizeof(float);
    g.in = vx_alloc(in);
    g.out = vx_alloc(out);
    take(f, g.in, in);
    take(f, g.out, out);
    return g;
}

static vx_volume *image_of(const golden *g, size_t channels) {
    vx_volume *v;
    assert_int_equal(vx_volume_create(&g->geo, channels, &v, NULL), VX_OK);
    for (size_t c = 0; c < channels; c++)
        memcpy(v->data + c * vx_voxels(&g->geo), g->in, vx_voxels(&g->geo) * sizeof(float));
    return v;
}

/* Measured: 1.2e-7 at most over all cases (intermediate lines are float32). */
#define IMAGE_TOLERANCE 5e-7

static void check_image(const golden *g, const size_t dims[3]) {
    vx_volume *v = image_of(g, 2), *r;
    assert_int_equal(vx_resample_volume(v, dims, g->order, g->axis, g->axis_order, NULL, &r, NULL),
                     VX_OK);
    size_t n = vx_voxels(&g->new_geo);
    double largest = 0, worst = 0;
    for (size_t i = 0; i < n; i++) largest = fmax(largest, fabs((double)g->out[i]));
    for (size_t i = 0; i < n; i++)
        worst = fmax(worst, fabs((double)r->data[i] - g->out[i]) / largest);
    assert_memory_equal(r->data, r->data + n, n * sizeof(float)); /* both channels alike */
    if (!(worst <= IMAGE_TOLERANCE))
        fail_msg("%s: differs by %g of the largest value", g->name, worst);
    print_message("  %-22s %.1e\n", g->name, worst);
    vx_volume_free(r);
    vx_volume_free(v);
}

static void check_mask(const golden *g, const size_t dims[3], unsigned bytes) {
    vx_mask *m, *r;
    assert_int_equal(vx_mask_create(&g->geo, bytes, &m, NULL), VX_OK);
    for (size_t i = 0; i < vx_voxels(&g->geo); i++) vx_mask_set(m, i, (unsigned)g->in[i]);
    vx_mask_rule rule = g->kind == MASK_HALF ? VX_MASK_RULE_HALF : VX_MASK_RULE_ARGMAX;
    assert_int_equal(vx_resample_mask_by(m, dims, g->order, g->axis, rule, &r, NULL), VX_OK);
    assert_int_equal(r->bytes, bytes);
    for (size_t i = 0; i < vx_voxels(&g->new_geo); i++)
        if (vx_mask_get(r, i) != (unsigned)g->out[i])
            fail_msg("%s: voxel %zu is %u, not %g", g->name, i, vx_mask_get(r, i),
                     (double)g->out[i]);
    vx_mask_free(r);
    vx_mask_free(m);
}

static FILE *open_goldens(uint32_t *count) {
    FILE *f = fopen(VX_SOURCE_DIR "/tests/golden/resample/cases.bin", "rb");
    assert_non_null(f);
    char magic[4];
    uint32_t version;
    take(f, magic, 4);
    take(f, &version, 4);
    take(f, count, 4);
    assert_memory_equal(magic, "VXRG", 4);
    assert_int_equal(version, 1);
    return f;
}

static void matches_nnunet(void **state) {
    (void)state;
    uint32_t count;
    FILE *f = open_goldens(&count);
    assert_true(count >= 30);
    for (uint32_t i = 0; i < count; i++) {
        golden g = read_golden(f);
        const size_t from[3] = {g.dims[0], g.dims[1], g.dims[2]};
        size_t dims[3];
        vx_resampled_dims(from, g.old_spacing, g.new_spacing, dims);
        for (int a = 0; a < 3; a++) assert_int_equal(dims[a], g.new_dims[a]);
        assert_int_equal(vx_separate_axis(g.old_spacing, g.new_spacing), g.axis);
        if (g.kind == IMAGE) {
            check_image(&g, dims);
        } else {
            check_mask(&g, dims, 1);
            check_mask(&g, dims, 2);
        }
        vx_free(g.in);
        vx_free(g.out);
    }
    assert_int_equal(fgetc(f), EOF);
    fclose(f);
}

static void same_bits_for_any_threads(void **state) {
    (void)state;
    uint32_t count;
    FILE *f = open_goldens(&count);
    for (uint32_t i = 0; i < count; i++) {
        golden g = read_golden(f);
        const size_t dims[3] = {g.new_dims[0], g.new_dims[1], g.new_dims[2]};
        vx_volume *v = image_of(&g, 1), *one, *many;
        assert_int_equal(
            vx_resample_volume(v, dims, g.order, g.axis, g.axis_order, NULL, &one, NULL), VX_OK);
        static const unsigned workers[] = {2, 3, 7};
        for (int w = 0; w < 3; w++) {
            vx_pool *pool;
            assert_int_equal(vx_pool_create(workers[w], &pool, NULL), VX_OK);
            assert_int_equal(
                vx_resample_volume(v, dims, g.order, g.axis, g.axis_order, pool, &many, NULL),
                VX_OK);
            assert_memory_equal(one->data, many->data, vx_voxels(&one->geo) * sizeof(float));
            vx_volume_free(many);
            vx_pool_free(pool);
        }
        vx_volume_free(one);
        vx_volume_free(v);
        vx_free(g.in);
        vx_free(g.out);
    }
    fclose(f);
}

static void constant_stays_constant(void **state) {
    (void)state;
    const uint32_t n[3] = {9, 8, 7};
    const double one[3] = {1, 1, 1};
    vx_geometry geo = plain_geometry(n, one);
    for (int axis = -1; axis < 3; axis++)
        for (int order = 0; order <= 3; order += order ? 2 : 1) {
            vx_volume *v, *r;
            assert_int_equal(vx_volume_create(&geo, 1, &v, NULL), VX_OK);
            for (size_t i = 0; i < vx_voxels(&geo); i++) v->data[i] = -1023.7f;
            const size_t dims[3] = {13, 5, 11};
            assert_int_equal(vx_resample_volume(v, dims, order, axis, 0, NULL, &r, NULL), VX_OK);
            for (size_t i = 0; i < 13 * 5 * 11; i++) assert_true(r->data[i] == -1023.7f);
            vx_volume_free(r);
            vx_volume_free(v);
        }
}

/* The outer edges, half a voxel beyond the first and last centres, do not move. */
static void edges_stay(void **state) {
    (void)state;
    vx_geometry geo = {{10, 20, 30},
                       {{0.9, 0.1, 0, -30}, {-0.1, 1.8, 0.2, 40}, {0, -0.3, 2.9, 5}, {0, 0, 0, 1}}};
    const size_t dims[3] = {17, 11, 30};
    vx_geometry r = vx_resampled_geometry(&geo, dims);
    for (int corner = 0; corner < 8; corner++) {
        double a[3], b[3], wa[3], wb[3];
        for (int i = 0; i < 3; i++) {
            a[i] = corner >> i & 1 ? (double)geo.dims[i] - 0.5 : -0.5;
            b[i] = corner >> i & 1 ? (double)r.dims[i] - 0.5 : -0.5;
        }
        vx_affine_apply(geo.affine, a, wa);
        vx_affine_apply(r.affine, b, wb);
        for (int i = 0; i < 3; i++) assert_true(fabs(wa[i] - wb[i]) < 1e-12);
    }
}

static void rounding_and_axis_rules(void **state) {
    (void)state;
    /* Half to even; at least one voxel. */
    const size_t dims[3] = {5, 7, 1};
    const double one[3] = {1, 1, 1}, two[3] = {2, 2, 5};
    size_t out[3];
    vx_resampled_dims(dims, one, two, out);
    assert_int_equal(out[0], 2);
    assert_int_equal(out[1], 4);
    assert_int_equal(out[2], 1);
    /* x, y, z order: the coarse axis is named, the limit of 3 itself is not anisotropic. */
    const double z[3] = {1, 1, 3.01}, y[3] = {1, 4, 1}, x[3] = {8, 2, 2}, limit[3] = {1, 1, 3},
                 pair[3] = {1, 4, 4};
    assert_int_equal(vx_separate_axis(z, one), 2);
    assert_int_equal(vx_separate_axis(one, y), 1);
    assert_int_equal(vx_separate_axis(x, z), 0);
    assert_int_equal(vx_separate_axis(limit, one), -1);
    assert_int_equal(vx_separate_axis(pair, z), -1);
    assert_int_equal(vx_separate_axis(limit, pair), -1);
}

static void refuses_nonsense(void **state) {
    (void)state;
    const uint32_t n[3] = {4, 4, 4};
    const double one[3] = {1, 1, 1};
    vx_geometry geo = plain_geometry(n, one);
    vx_volume *v, *r;
    vx_mask *m, *q;
    const size_t dims[3] = {5, 5, 5}, none[3] = {5, 0, 5}, huge[3] = {SIZE_MAX, 1, 1};
    assert_int_equal(vx_volume_create(&geo, 1, &v, NULL), VX_OK);
    assert_int_equal(vx_mask_create(&geo, 1, &m, NULL), VX_OK);
    memset(v->data, 0, 64 * sizeof(float));
    assert_int_equal(vx_resample_volume(v, dims, 2, -1, 0, NULL, &r, NULL), VX_ERR_USAGE);
    assert_null(r);
    assert_int_equal(vx_resample_volume(v, dims, 3, 3, 0, NULL, &r, NULL), VX_ERR_USAGE);
    assert_int_equal(vx_resample_volume(v, none, 3, -1, 0, NULL, &r, NULL), VX_ERR_USAGE);
    assert_int_equal(vx_resample_volume(v, huge, 3, -1, 0, NULL, &r, NULL), VX_ERR_INPUT);
    assert_int_equal(vx_resample_mask(m, dims, 3, -1, &q, NULL), VX_ERR_USAGE);
    assert_int_equal(vx_resample_mask(m, none, 1, -1, &q, NULL), VX_ERR_USAGE);
    vx_volume_free(v);
    vx_mask_free(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(matches_nnunet),          cmocka_unit_test(same_bits_for_any_threads),
        cmocka_unit_test(constant_stays_constant), cmocka_unit_test(edges_stay),
        cmocka_unit_test(rounding_and_axis_rules), cmocka_unit_test(refuses_nonsense)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
