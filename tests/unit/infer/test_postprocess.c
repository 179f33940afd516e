/* Connected components against a plain flood fill, and the two clean-ups on hand-made masks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "infer/postprocess.h"

static const double half_mm[4][4] = {
    {0, 0, 0.5, 0}, {-1, 0, 0, 0}, {0, 2, 0, 0}, {0, 0, 0, 1}}; /* 1 mm3 a voxel */

static vx_mask *make_mask(size_t x, size_t y, size_t z, unsigned bytes) {
    vx_geometry geo = {.dims = {x, y, z}};
    memcpy(geo.affine, half_mm, sizeof half_mm);
    vx_mask *mask = NULL;
    assert_int_equal(vx_mask_create(&geo, bytes, &mask, NULL), VX_OK);
    return mask;
}

/* Component number (1 ..) of every voxel, in the order of their first voxels; sizes[number]. */
static size_t flood_fill(const vx_mask *mask, unsigned *number, size_t *sizes) {
    const size_t *n = mask->geo.dims;
    size_t voxels = vx_voxels(&mask->geo), count = 0;
    size_t *stack = malloc(voxels * sizeof *stack);
    memset(number, 0, voxels * sizeof *number);
    for (size_t seed = 0; seed < voxels; seed++) {
        if (number[seed] || !vx_mask_get(mask, seed)) continue;
        size_t top = 0;
        sizes[++count] = 0;
        number[seed] = (unsigned)count;
        stack[top++] = seed;
        while (top) {
            size_t v = stack[--top];
            size_t x = v % n[0], y = v / n[0] % n[1], z = v / (n[0] * n[1]);
            sizes[count]++;
            for (size_t k = 0; k < 27; k++) {
                size_t i = x + k % 3 - 1, j = y + k / 3 % 3 - 1, l = z + k / 9 - 1;
                if (i >= n[0] || j >= n[1] || l >= n[2]) continue;
                size_t u = (l * n[1] + j) * n[0] + i;
                if (number[u] || vx_mask_get(mask, u) != vx_mask_get(mask, seed)) continue;
                number[u] = (unsigned)count;
                stack[top++] = u;
            }
        }
    }
    free(stack);
    return count;
}

static void fill_random(vx_mask *mask, unsigned labels, unsigned percent, uint32_t seed) {
    for (size_t i = 0; i < vx_voxels(&mask->geo); i++) {
        seed = seed * 1664525u + 1013904223u;
        unsigned value = (seed >> 8) % 100 < percent ? 1 + (seed >> 20) % labels : 0;
        vx_mask_set(mask, i, value * (mask->bytes == 2 ? 257 : 1));
    }
}

static void random_masks(void **state) {
    (void)state;
    for (uint32_t k = 0; k < 400; k++) {
        unsigned bytes = k % 5 == 0 ? 2 : 1;
        vx_mask *mask = make_mask(1 + k % 9, 1 + k / 3 % 7, 1 + k / 7 % 6, bytes);
        vx_mask *small = make_mask(1 + k % 9, 1 + k / 3 % 7, 1 + k / 7 % 6, bytes);
        fill_random(mask, 1 + k % 3, 10 + k % 80, k);
        size_t voxels = vx_voxels(&mask->geo);
        memcpy(small->data, mask->data, voxels * bytes);
        unsigned *number = malloc(voxels * sizeof *number);
        unsigned *before = malloc(voxels * sizeof *before);
        size_t *sizes = malloc((voxels + 1) * sizeof *sizes);
        size_t count = flood_fill(mask, number, sizes);
        for (size_t i = 0; i < voxels; i++) before[i] = vx_mask_get(mask, i);
        const unsigned keep[2] = {bytes == 2 ? 257 : 1, bytes == 2 ? 771 : 3};
        assert_int_equal(vx_keep_largest(mask, keep, 2, NULL), VX_OK);
        assert_int_equal(vx_remove_small(small, 4, NULL), VX_OK);
        size_t largest[2] = {0, 0};
        for (int l = 0; l < 2; l++)
            for (size_t i = 0; i < voxels; i++) /* in memory order: the first of equals wins */
                if (before[i] == keep[l] && (!largest[l] || sizes[number[i]] > sizes[largest[l]]))
                    largest[l] = number[i];
        for (size_t i = 0; i < voxels; i++) {
            unsigned want = before[i];
            for (int l = 0; l < 2; l++)
                if (before[i] == keep[l] && number[i] != largest[l]) want = 0;
            assert_int_equal(vx_mask_get(mask, i), want);
            assert_int_equal(vx_mask_get(small, i),
                             before[i] && sizes[number[i]] >= 4 ? before[i] : 0);
        }
        assert_true(count <= voxels);
        free(number);
        free(before);
        free(sizes);
        vx_mask_free(mask);
        vx_mask_free(small);
    }
}

/* 0.5 x 2 x 1 mm voxels behind a permuted affine: 3 voxels are 3 mm3. */
static void small_means_below_the_limit(void **state) {
    (void)state;
    vx_mask *mask = make_mask(9, 1, 1, 1);
    memcpy(mask->data, "\1\1\1\0\2\2\0\1\1", 9);
    assert_int_equal(vx_remove_small(mask, 3, NULL), VX_OK);
    assert_memory_equal(mask->data, "\1\1\1\0\0\0\0\0\0", 9);
    assert_int_equal(vx_remove_small(mask, 3.001, NULL), VX_OK);
    assert_memory_equal(mask->data, "\0\0\0\0\0\0\0\0\0", 9);
    assert_int_equal(vx_remove_small(mask, 0, NULL), VX_OK);
    vx_mask_free(mask);
}

static void corners_touch_and_labels_do_not(void **state) {
    (void)state;
    /* Two voxels that share a corner are one component; a voxel of another label between two parts
     * does not join them. */
    vx_mask *mask = make_mask(3, 3, 2, 1);
    uint8_t *v = mask->data;
    v[0] = 1;     /* (0, 0, 0) */
    v[9 + 4] = 1; /* (1, 1, 1) */
    v[8] = 1;     /* (2, 2, 0) */
    const unsigned one = 1;
    assert_int_equal(vx_keep_largest(mask, &one, 1, NULL), VX_OK);
    assert_true(v[0] == 1 && v[9 + 4] == 1 && v[8] == 1);
    v[9 + 4] = 2;
    assert_int_equal(vx_keep_largest(mask, &one, 1, NULL), VX_OK);
    assert_true(v[0] == 1 && v[9 + 4] == 2 && v[8] == 0);
    /* An absent label, and none at all, change nothing. */
    const unsigned nine = 9;
    assert_int_equal(vx_keep_largest(mask, &nine, 1, NULL), VX_OK);
    assert_int_equal(vx_keep_largest(mask, NULL, 0, NULL), VX_OK);
    assert_true(v[0] == 1 && v[9 + 4] == 2);
    vx_mask_free(mask);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_masks),
        cmocka_unit_test(small_means_below_the_limit),
        cmocka_unit_test(corners_touch_and_labels_do_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
