/* The preview is read back with libpng's own reader; a marked corner must appear where radiological
 * convention puts it, whatever the axes of the stored grid. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <png.h>

#include "base/memory.h"
#include "report/report.h"

static char path[] = "/tmp/vx_report_XXXXXX";

typedef struct picture {
    size_t width, height;
    uint8_t *rgb;
} picture;

static picture read_png(const char *name) {
    png_image image;
    memset(&image, 0, sizeof image);
    image.version = PNG_IMAGE_VERSION;
    assert_true(png_image_begin_read_from_file(&image, name));
    image.format = PNG_FORMAT_RGB;
    picture p = {image.width, image.height, vx_alloc(PNG_IMAGE_SIZE(image))};
    assert_true(png_image_finish_read(&image, NULL, p.rgb, 0, NULL));
    return p;
}

/* A grid of 8 x 10 x 12 mm in RAS; flip[k] turns stored axis k around, spacing is 1 x 1 x 2 mm. */
static vx_volume *make_image(const int flip[3]) {
    vx_geometry geo = {{8, 10, 6}, {{1, 0, 0, 0}, {0, 1, 0, 0}, {0, 0, 2, 0}, {0, 0, 0, 1}}};
    for (int k = 0; k < 3; k++)
        if (flip[k]) {
            geo.affine[k][3] = geo.affine[k][k] * (double)(geo.dims[k] - 1);
            geo.affine[k][k] = -geo.affine[k][k];
        }
    vx_volume *image;
    assert_int_equal(vx_volume_create(&geo, 1, &image, NULL), VX_OK);
    for (size_t i = 0; i < vx_voxels(&geo); i++) image->data[i] = 0;
    return image;
}

static size_t index_of(const vx_geometry *geo, const int flip[3], size_t r, size_t a, size_t s) {
    size_t at[3] = {r, a, s};
    for (int k = 0; k < 3; k++)
        if (flip[k]) at[k] = geo->dims[k] - 1 - at[k];
    return (at[2] * geo->dims[1] + at[1]) * geo->dims[0] + at[0];
}

static int is_red(const picture *p, size_t u, size_t v) {
    const uint8_t *c = p->rgb + (v * p->width + u) * 3;
    return c[0] > 100 && c[1] < 100 && c[2] < 100;
}

/* One label on the voxel at the patient's right, anterior, superior corner: all three planes pass
 * through it. */
static void corner_is_where_radiologists_expect_it(void **state) {
    (void)state;
    vx_label red = {.value = 1, .name = "corner", .rgb = {255, 0, 0}};
    vx_label_table labels = {1, &red};
    for (int bits = 0; bits < 8; bits++) {
        const int flip[3] = {bits & 1, bits >> 1 & 1, bits >> 2};
        vx_volume *image = make_image(flip);
        vx_mask *mask;
        assert_int_equal(vx_mask_create(&image->geo, 1, &mask, NULL), VX_OK);
        /* In RAS the corner has the largest index on every axis. */
        size_t corner = index_of(&image->geo, flip, 7, 9, 5);
        vx_mask_set(mask, corner, 1);
        assert_int_equal(vx_preview_write(path, image, mask, &labels, true, NULL, NULL), VX_OK);
        picture p = read_png(path);
        /* Extents 8 x 10 x 12 mm at 384 pixels for 12 mm: 256, 320, 384. Planes: axial 256x320,
         * coronal 256x384, sagittal 320x384, side by side with gaps of 4, centred vertically. */
        assert_int_equal(p.width, 256 + 256 + 320 + 8);
        assert_int_equal(p.height, 384);
        const size_t axial = 0, coronal = 260, sagittal = 520, top = (384 - 320) / 2;
        assert_true(is_red(&p, axial + 1, top + 1)); /* right at the left, anterior at the top */
        assert_true(is_red(&p, coronal + 1, 1));     /* right at the left, superior at the top */
        assert_true(is_red(&p, sagittal + 1, 1));    /* anterior at the left, superior at the top */
        assert_false(is_red(&p, axial + 255, top + 1));
        assert_false(is_red(&p, axial + 1, top + 319));
        assert_false(is_red(&p, coronal + 1, 383));
        assert_false(is_red(&p, sagittal + 319, 1));
        vx_free(p.rgb);
        vx_mask_free(mask);
        vx_volume_free(image);
    }
    unlink(path);
}

static void statistics_by_hand(void **state) {
    (void)state;
    const int flip[3] = {0, 0, 0};
    vx_volume *image = make_image(flip);
    vx_mask *mask;
    assert_int_equal(vx_mask_create(&image->geo, 2, &mask, NULL), VX_OK);
    const float values[4] = {1, 3, 3, 9};
    for (size_t i = 0; i < 4; i++) {
        image->data[10 + i] = values[i];
        vx_mask_set(mask, 10 + i, 300);
    }
    /* A second label between the first one's voxels, and a value that no label has. */
    image->data[200] = 5;
    vx_mask_set(mask, 200, 65535);
    vx_mask_set(mask, 201, 12);
    image->data[201] = 1000;
    vx_label three[3] = {
        {.value = 300, .name = "a"}, {.value = 7, .name = "b"}, {.value = 65535, .name = "c"}};
    vx_label_table labels = {3, three};
    vx_label_stats stats[3];
    assert_int_equal(vx_label_statistics(image, mask, &labels, NULL, stats, NULL), VX_OK);
    assert_int_equal(stats[2].label, 65535);
    assert_int_equal(stats[2].voxels, 1);
    assert_true(stats[2].mean == 5 && stats[2].sd == 0);
    assert_int_equal(stats[0].voxels, 4);
    assert_true(fabs(stats[0].ml - 4 * 2 / 1000.0) < 1e-15);
    assert_true(fabs(stats[0].mean - 4) < 1e-12);
    assert_true(fabs(stats[0].sd - 3) < 1e-12); /* squares 9, 1, 1, 25: mean 9 */
    assert_int_equal(stats[1].voxels, 0);
    assert_true(isnan(stats[1].mean) && isnan(stats[1].sd));
    for (unsigned workers = 1; workers < 6; workers += 2) {
        vx_pool *pool;
        vx_label_stats again[3];
        assert_int_equal(vx_pool_create(workers, &pool, NULL), VX_OK);
        assert_int_equal(vx_label_statistics(image, mask, &labels, pool, again, NULL), VX_OK);
        assert_true(again[0].voxels == 4 && again[2].voxels == 1 && again[1].voxels == 0);
        assert_true(again[0].mean == stats[0].mean && again[0].sd == stats[0].sd);
        vx_pool_free(pool);
    }
    vx_mask_free(mask);
    vx_volume_free(image);
}

static void preview_cannot_be_written(void **state) {
    (void)state;
    const int flip[3] = {0, 0, 0};
    vx_volume *image = make_image(flip);
    vx_mask *mask;
    vx_label_table none = {0, NULL};
    vx_error err;
    assert_int_equal(vx_mask_create(&image->geo, 1, &mask, NULL), VX_OK);
    assert_int_equal(vx_preview_write("/nowhere/a.png", image, mask, &none, true, NULL, &err),
                     VX_ERR_OUTPUT);
    vx_mask_free(mask);
    vx_volume_free(image);
}

static void table_of_labels(void **state) {
    (void)state;
    vx_label both[2] = {
        {.value = 2, .name = "left ear", .rgb = {255, 0, 10}},
        {.value = 65535, .name = "tab\tline\nend\x7f \xc3\xa4", .rgb = {0, 171, 16}}};
    const vx_label_table labels = {2, both};
    char text[200] = "";
    assert_int_equal(vx_label_table_write(path, &labels, true, NULL, NULL), VX_OK);
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    const size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = '\0';
    assert_string_equal(text, "index\tname\tcolor\n2\tleft ear\t#ff000a\n"
                              "65535\ttab line end  \xc3\xa4\t#00ab10\n");
    vx_error err;
    assert_int_equal(vx_label_table_write(path, &labels, false, NULL, &err), VX_ERR_OUTPUT);
    assert_int_equal(vx_label_table_write("/nowhere/a.tsv", &labels, true, NULL, &err),
                     VX_ERR_OUTPUT);
    unlink(path);
}

static int make_name(void **state) {
    (void)state;
    int fd = mkstemp(path);
    if (fd < 0) return -1;
    close(fd);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(corner_is_where_radiologists_expect_it),
        cmocka_unit_test(statistics_by_hand),
        cmocka_unit_test(preview_cannot_be_written),
        cmocka_unit_test(table_of_labels),
    };
    return cmocka_run_group_tests_name("report", tests, make_name, NULL);
}
