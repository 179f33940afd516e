/* What is packed in blocks unpacks to what went in, has the same bytes for any number of threads,
 * and is hardly longer than one stream. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "io/gzip_blocks.h"

enum { BLOCK = 1 << 18 };

typedef struct bytes {
    unsigned char *data;
    size_t count, room;
    size_t fail_at; /* 0: never */
} bytes;

static vx_status take(void *user_data, const void *data, size_t count, vx_error *err) {
    bytes *b = user_data;
    if (b->fail_at && b->count + count >= b->fail_at)
        return vx_fail(err, VX_ERR_OUTPUT, "the disk is full");
    assert_true(b->count + count <= b->room);
    memcpy(b->data + b->count, data, count);
    b->count += count;
    return VX_OK;
}

/* Runs of labels, and some noise. */
static unsigned char *mask_like(size_t n) {
    unsigned char *data = malloc(n + 1);
    uint32_t seed = 1, run = 0, label = 0;
    assert_non_null(data);
    for (size_t i = 0; i < n; i++, run--) {
        seed = seed * 1664525u + 1013904223u;
        if (!run) {
            run = 1 + (seed >> 24);
            label = seed >> 16 & 7;
        }
        data[i] = (unsigned char)(seed >> 27 ? label : seed >> 8 & 31);
    }
    return data;
}

/* first bytes in a call of their own, the rest in another. */
static bytes pack(const unsigned char *data, size_t first, size_t n, unsigned workers) {
    bytes b = {.room = n + n / 8 + 4096};
    vx_pool *pool = NULL;
    vx_gzip_blocks *g;
    b.data = malloc(b.room);
    assert_non_null(b.data);
    if (workers) assert_int_equal(vx_pool_create(workers, &pool, NULL), VX_OK);
    assert_int_equal(vx_gzip_begin(4, pool, take, &b, &g, NULL), VX_OK);
    assert_int_equal(vx_gzip_write(g, data, first, NULL), VX_OK);
    assert_int_equal(vx_gzip_write(g, data + first, n - first, NULL), VX_OK);
    assert_int_equal(vx_gzip_end(g, NULL), VX_OK);
    vx_gzip_free(g);
    vx_pool_free(pool);
    return b;
}

/* zlib compares checksum and length. */
static void assert_unpacks(const bytes *b, const unsigned char *data, size_t n) {
    unsigned char *out = malloc(n + 1);
    z_stream z = {
        .next_in = b->data, .avail_in = (uInt)b->count, .next_out = out, .avail_out = (uInt)n + 1};
    assert_non_null(out);
    assert_int_equal(inflateInit2(&z, 15 + 16), Z_OK);
    assert_int_equal(inflate(&z, Z_FINISH), Z_STREAM_END);
    assert_int_equal(z.avail_in, 0);
    assert_int_equal(z.total_out, n);
    inflateEnd(&z);
    assert_memory_equal(out, data, n);
    free(out);
}

static void comes_back_for_any_threads(void **state) {
    static const size_t sizes[][2] = {{0, 0},
                                      {0, 1},
                                      {1, 1},
                                      {352, 352},
                                      {352, 40000},
                                      {40000, 40001},
                                      {0, BLOCK},
                                      {0, BLOCK + 1},
                                      {352, 352 + 5 * BLOCK - 1},
                                      {BLOCK - 1, 3 * BLOCK},
                                      {20000, 20000 + BLOCK / 2},
                                      {100, 11 * BLOCK + 77}};
    static const unsigned workers[] = {1, 3, 8};
    (void)state;
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
        const size_t n = sizes[k][1];
        unsigned char *data = mask_like(n);
        bytes first = pack(data, sizes[k][0], n, 0);
        assert_unpacks(&first, data, n);
        for (size_t i = 0; i < sizeof workers / sizeof *workers; i++) {
            bytes b = pack(data, sizes[k][0], n, workers[i]);
            assert_int_equal(b.count, first.count);
            assert_memory_equal(b.data, first.data, b.count);
            free(b.data);
        }
        free(first.data);
        free(data);
    }
}

/* Every length of what is remembered from call to call. */
static void small_calls_remember(void **state) {
    const size_t n = 200000;
    unsigned char *data = mask_like(n);
    bytes b = {.room = 2 * n};
    vx_gzip_blocks *g;
    size_t done = 0;
    (void)state;
    b.data = malloc(b.room);
    assert_int_equal(vx_gzip_begin(9, NULL, take, &b, &g, NULL), VX_OK);
    for (size_t step = 1; done < n; step = step * 3 / 2 + 1) {
        const size_t count = n - done < step ? n - done : step;
        assert_int_equal(vx_gzip_write(g, data + done, count, NULL), VX_OK);
        done += count;
    }
    assert_int_equal(vx_gzip_end(g, NULL), VX_OK);
    vx_gzip_free(g);
    assert_unpacks(&b, data, n);
    free(b.data);
    free(data);
}

static void hardly_longer_than_one_stream(void **state) {
    const size_t n = 8 * BLOCK;
    unsigned char *data = mask_like(n);
    bytes b = pack(data, 352, n, 2);
    uLongf one = (uLongf)b.room;
    unsigned char *whole = malloc(one);
    (void)state;
    assert_non_null(whole);
    assert_int_equal(compress2(whole, &one, data, (uLong)n, 4), Z_OK);
    assert_true((double)b.count < 1.005 * (double)one);
    free(whole);
    free(b.data);
    free(data);
}

static void errors_end_it(void **state) {
    unsigned char *data = mask_like(4 * BLOCK);
    static unsigned char room[2 * BLOCK];
    (void)state;
    for (size_t fail_at = 1; fail_at < 100000; fail_at = fail_at * 7 + 3) {
        bytes b = {.data = room, .room = sizeof room, .fail_at = fail_at};
        vx_gzip_blocks *g;
        vx_error err;
        assert_int_equal(vx_gzip_begin(1, NULL, take, &b, &g, NULL), VX_OK);
        assert_int_equal(vx_gzip_write(g, data, 4 * BLOCK, &err), VX_ERR_OUTPUT);
        assert_string_equal(err.text, "the disk is full");
        vx_gzip_free(g);
    }
    free(data);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(comes_back_for_any_threads),
        cmocka_unit_test(small_calls_remember),
        cmocka_unit_test(hardly_longer_than_one_stream),
        cmocka_unit_test(errors_end_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
