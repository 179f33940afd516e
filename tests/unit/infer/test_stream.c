/* The sliding slab with fused resampling and arg-max, against the same computed plainly: all tiles
 * added into one array of the whole volume in double, divided, resampled by formula, arg-maxed. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "infer/finalise.h"

typedef struct setting {
    size_t in[3], patch[3], out[3];
    int order[3];
    size_t classes;
    double step;
    bool regions, mirror;
} setting;

static const setting settings[] = {
    {{9, 8, 7}, {4, 4, 4}, {9, 8, 7}, {1, 1, 1}, 3, 0.5, false, false},
    {{9, 8, 7}, {4, 4, 4}, {14, 11, 13}, {1, 1, 1}, 3, 0.5, false, true},
    {{13, 12, 11}, {5, 6, 4}, {6, 7, 3}, {1, 1, 1}, 5, 0.5, false, false},
    {{13, 12, 11}, {5, 6, 4}, {40, 7, 11}, {0, 1, 1}, 5, 0.3, false, false},
    {{13, 12, 11}, {5, 6, 4}, {5, 20, 31}, {0, 1, 1}, 2, 1.0, true, false},
    {{6, 12, 11}, {5, 6, 4}, {9, 37, 8}, {1, 0, 1}, 4, 0.7, false, false},
    {{6, 5, 11}, {5, 6, 4}, {9, 7, 5}, {0, 0, 0}, 4, 0.5, true, true},
    {{3, 2, 1}, {5, 6, 4}, {3, 5, 2}, {1, 1, 1}, 3, 0.5, false, false},
    {{1, 1, 1}, {2, 2, 2}, {1, 1, 1}, {1, 1, 1}, 2, 0.5, false, false},
    {{1, 30, 9}, {4, 8, 8}, {7, 31, 9}, {1, 1, 1}, 3, 0.5, false, false},
    {{40, 5, 5}, {8, 8, 8}, {1, 5, 5}, {1, 1, 1}, 3, 0.5, false, false},
    {{40, 5, 5}, {8, 8, 8}, {97, 9, 4}, {1, 1, 1}, 3, 0.25, false, false},
    {{17, 9, 8}, {16, 8, 8}, {33, 9, 8}, {1, 1, 1}, 3, 0.5, false, false},
    /* y is the outer axis */
    {{9, 40, 7}, {8, 8, 4}, {9, 40, 7}, {1, 1, 1}, 3, 0.5, false, true},
    {{9, 40, 7}, {8, 8, 4}, {13, 77, 9}, {1, 1, 1}, 4, 0.5, false, false},
    {{8, 40, 7}, {8, 8, 4}, {5, 21, 9}, {1, 1, 1}, 3, 0.3, true, false},
    {{4, 31, 7}, {8, 6, 4}, {4, 9, 7}, {1, 0, 1}, 2, 1.0, false, false},
};
enum { SETTINGS = sizeof settings / sizeof *settings };

/* What the "network" says: any function of tile, pass, voxel and class will do. -4 .. 4. */
static float logit(size_t tile, unsigned flips, size_t voxel, size_t c) {
    uint64_t h = tile * 0x9e3779b97f4a7c15u ^ (voxel * 64 + c * 8 + flips) * 0xc2b2ae3d27d4eb4fu;
    h ^= h >> 29;
    h *= 0xbf58476d1ce4e5b9u;
    h ^= h >> 32;
    return (float)(h & 0xffff) / 8192.0f - 4.0f;
}

static void fake_network(const vx_tiles *t, size_t tile, unsigned flips, size_t classes,
                         float *out) {
    size_t voxels = t->patch[0] * t->patch[1] * t->patch[2];
    for (size_t v = 0; v < voxels; v++)
        for (size_t c = 0; c < classes; c++) out[v * classes + c] = logit(tile, flips, v, c);
}

static size_t product(const size_t n[3]) { return n[0] * n[1] * n[2]; }

static const unsigned values[5] = {0, 3, 1, 200, 7};

/* Slots and memory of rows that are not in use must not matter: NaN, and slots that do not exist.
 */
static void poison_rows(vx_slab *slab, const vx_rows *rows) {
    for (size_t z = rows->from[0]; z < rows->end[0]; z++)
        for (size_t y = rows->from[1]; y < rows->end[1]; y++) {
            memset(vx_slab_row(slab, z, y), 0xff, slab->row_floats * sizeof(float));
            slab->slots.slot[z * slab->slots.width + y] = UINT32_MAX;
        }
}

/* One finished slice after the other into probabilities [z][class][y][x] of the output. */
static void make_slices(const setting *s, const vx_finaliser *f, const vx_slab *slab,
                        const vx_rows *made, int outer, float *probabilities, vx_pool *pool) {
    vx_finaliser copy = *f;
    if (!vx_rows_count(made)) return;
    size_t rows = s->out[1 - outer], x = s->out[2], plane = s->out[1] * x;
    float *data = malloc(s->classes * rows * x * sizeof *data);
    for (size_t k = made->from[outer]; k < made->end[outer]; k++) {
        vx_rows slice = *made;
        vx_probability_slice to = {.data = data, .rows = rows, .across = outer};
        assert_int_equal(slice.from[1 - outer], 0);
        assert_int_equal(slice.end[1 - outer], rows);
        slice.from[outer] = k;
        slice.end[outer] = k + 1;
        vx_finaliser_make(&copy, slab, &slice, &to, pool);
        for (size_t c = 0; c < s->classes; c++)
            for (size_t row = 0; row < rows; row++) {
                size_t z = outer == 0 ? k : row, y = outer == 0 ? row : k;
                memcpy(probabilities + (z * s->classes + c) * plane + y * x,
                       data + (c * rows + row) * x, x * sizeof *data);
            }
    }
    free(data);
}

/* Streams through slab and finaliser. probabilities: [z][class][y][x] of the output, or NULL. The
 * tile number that the network sees is that of the z, y, x order. */
static void stream(const setting *s, unsigned workers, uint8_t *labels, float *probabilities) {
    vx_pool *pool;
    vx_tiles t;
    vx_frontier frontier;
    vx_slab slab;
    vx_finaliser f;
    unsigned passes[8];
    const bool mirror[3] = {s->mirror, false, s->mirror}, whole = probabilities != NULL;
    size_t pass_count = vx_mirror_passes(mirror, passes), bytes;
    assert_int_equal(vx_pool_create(workers, &pool, NULL), VX_OK);
    assert_int_equal(vx_tiles_create(s->in, s->patch, s->step, &t, NULL), VX_OK);
    vx_mask mask = {.geo = {.dims = {s->out[2], s->out[1], s->out[0]}}, .bytes = 1, .data = labels};
    vx_label_target target = {
        &mask, 0, {(ptrdiff_t)(s->out[1] * s->out[2]), (ptrdiff_t)s->out[2], 1}};
    assert_int_equal(vx_finaliser_create(s->in, s->out, s->order, s->classes, s->regions, values,
                                         &target, pool, &f, NULL),
                     VX_OK);
    assert_int_equal(vx_frontier_create(&t, f.axis, &frontier, NULL), VX_OK);
    size_t room = vx_frontier_rows(&frontier, whole), least = room;
    assert_int_equal(vx_slab_create(&t, s->classes, room, &slab, NULL), VX_OK);
    assert_true(vx_slab_bytes(&t, s->classes, room, &bytes));
    memset(slab.data, 0xff, room * slab.row_floats * sizeof(float));
    memset(slab.slots.slot, 0xff, t.dims[0] * t.dims[1] * sizeof *slab.slots.slot);
    float *logits = malloc(product(s->patch) * s->classes * sizeof *logits);
    for (size_t i = 0; i < vx_frontier_steps(&frontier); i++) {
        vx_step step;
        vx_frontier_step(&frontier, i, whole, &step);
        assert_true(vx_rows_count(&step.started) <= slab.slots.unused_count);
        vx_slab_start(&slab, &step.started, pool);
        if (slab.slots.unused_count < least) least = slab.slots.unused_count;
        for (; step.tile[2] < t.count[2]; step.tile[2]++)
            for (size_t p = 0; p < pass_count; p++) {
                size_t n = (step.tile[0] * t.count[1] + step.tile[1]) * t.count[2] + step.tile[2];
                fake_network(&t, n, passes[p], s->classes, logits);
                vx_slab_add(&slab, step.tile, logits, passes[p], 1 / (float)pass_count, pool);
            }
        assert_true(vx_slab_finish(&slab, &step.finished, pool));
        if (whole)
            make_slices(s, &f, &slab, &step.made, frontier.outer, probabilities, pool);
        else
            vx_finaliser_make(&f, &slab, &step.made, NULL, pool);
        vx_slab_drop(&slab, &step.dropped);
        poison_rows(&slab, &step.dropped);
    }
    assert_int_equal(slab.slots.unused_count, room);
    assert_int_equal(least, 0); /* no slot for nothing */
    free(logits);
    vx_finaliser_free(&f);
    vx_slab_free(&slab);
    vx_frontier_free(&frontier);
    vx_tiles_free(&t);
    vx_pool_free(pool);
}

static double gauss(size_t patch, size_t i) {
    double d = ((double)i - (double)(patch / 2)) * 8 / (double)patch;
    return exp(-d * d / 2);
}

/* [voxel][class] of the whole volume. */
static double *whole_volume_logits(const setting *s) {
    size_t classes = s->classes, voxels = product(s->in);
    double *sum = calloc(voxels * classes, sizeof *sum), *weight = calloc(voxels, sizeof *weight);
    float *logits = malloc(product(s->patch) * classes * sizeof *logits);
    unsigned passes[8];
    const bool mirror[3] = {s->mirror, false, s->mirror};
    size_t pass_count = vx_mirror_passes(mirror, passes);
    vx_tiles t;
    assert_int_equal(vx_tiles_create(s->in, s->patch, s->step, &t, NULL), VX_OK);
    for (size_t n = 0; n < vx_tiles_total(&t); n++) {
        size_t tile[3] = {n / (t.count[1] * t.count[2]), n / t.count[2] % t.count[1],
                          n % t.count[2]};
        for (size_t p = 0; p < pass_count; p++) {
            fake_network(&t, n, passes[p], classes, logits);
            for (size_t v = 0; v < product(s->patch); v++) {
                size_t at[3] = {v / (s->patch[1] * s->patch[2]), v / s->patch[2] % s->patch[1],
                                v % s->patch[2]};
                size_t to = 0;
                double w = 1;
                bool inside = true;
                for (int a = 0; a < 3; a++) {
                    size_t i = passes[p] >> a & 1 ? s->patch[a] - 1 - at[a] : at[a];
                    size_t padded = t.start[a][tile[a]] + i;
                    inside &= padded >= t.pad[a] && padded - t.pad[a] < s->in[a];
                    to = to * s->in[a] + padded - t.pad[a];
                    w *= gauss(s->patch[a], i);
                }
                if (!inside) continue;
                weight[to] += w;
                for (size_t c = 0; c < classes; c++)
                    sum[to * classes + c] += w * (double)logits[v * classes + c];
            }
        }
    }
    for (size_t v = 0; v < voxels; v++)
        for (size_t c = 0; c < classes; c++) sum[v * classes + c] /= weight[v];
    free(weight);
    free(logits);
    vx_tiles_free(&t);
    return sum;
}

/* Class c of the resampled logits at output voxel at: the eight neighbours, weighted. */
static double sample(const setting *s, const double *logits, const size_t at[3], size_t c) {
    size_t index[3][2];
    double w[3];
    for (int a = 0; a < 3; a++) {
        double x = ((double)at[a] + 0.5) * (double)s->in[a] / (double)s->out[a] - 0.5;
        x = fmin(fmax(x, 0), (double)s->in[a] - 1);
        /* Halves go up; a coordinate that is a half but for rounding is one. */
        if (s->order[a] == 0) x = floor(x + 0.5 + 1e-12);
        index[a][0] = (size_t)floor(x);
        index[a][1] = index[a][0] + 1 < s->in[a] ? index[a][0] + 1 : index[a][0];
        w[a] = x - floor(x);
    }
    double sum = 0;
    for (int k = 0; k < 8; k++) {
        size_t from = 0;
        double weight = 1;
        for (int a = 0; a < 3; a++) {
            int high = k >> a & 1;
            weight *= high ? w[a] : 1 - w[a];
            from = from * s->in[a] + index[a][high];
        }
        sum += weight * logits[from * s->classes + c];
    }
    return sum;
}

static void compare(const setting *s, const double *logits, const uint8_t *labels,
                    const float *probabilities) {
    size_t plane = s->out[1] * s->out[2], near = 0;
    for (size_t v = 0; v < product(s->out); v++) {
        size_t at[3] = {v / plane, v / s->out[2] % s->out[1], v % s->out[2]};
        double value[5], total = 0, gap = INFINITY;
        size_t best = 0;
        unsigned want = 0;
        for (size_t c = 0; c < s->classes; c++) {
            value[c] = sample(s, logits, at, c);
            total += exp(value[c]);
            if (s->regions) gap = fmin(gap, fabs(value[c]));
            if (s->regions && value[c] > 0) want = values[c];
            if (value[c] > value[best]) best = c;
        }
        for (size_t c = 0; c < s->classes && !s->regions; c++)
            if (c != best) gap = fmin(gap, value[best] - value[c]);
        if (!s->regions) want = values[best];
        if (gap > 1e-5)
            assert_int_equal(labels[v], want);
        else
            near++;
        for (size_t c = 0; c < s->classes; c++) {
            double p = s->regions ? 1 / (1 + exp(-value[c])) : exp(value[c]) / total;
            double got = (double)probabilities[(at[0] * s->classes + c) * plane + v % plane];
            assert_true(fabs(got - p) < 2e-6);
        }
    }
    assert_true(near <= 2);
}

static void streaming_equals_whole_volume(void **state) {
    (void)state;
    for (size_t k = 0; k < SETTINGS; k++) {
        const setting *s = &settings[k];
        uint8_t *labels = malloc(product(s->out));
        float *probabilities = malloc(product(s->out) * s->classes * sizeof *probabilities);
        double *logits = whole_volume_logits(s);
        stream(s, 2, labels, probabilities);
        compare(s, logits, labels, probabilities);
        free(logits);
        free(probabilities);
        free(labels);
    }
}

static void same_bits_for_any_number_of_workers(void **state) {
    (void)state;
    static const unsigned workers[] = {1, 2, 3, 7, 16};
    for (size_t k = 0; k < SETTINGS; k++) {
        const setting *s = &settings[k];
        size_t n = product(s->out), floats = n * s->classes;
        uint8_t *first = malloc(n), *labels = malloc(n);
        float *first_p = malloc(floats * sizeof(float)), *p = malloc(floats * sizeof(float));
        stream(s, workers[0], first, first_p);
        for (size_t i = 1; i < sizeof workers / sizeof *workers; i++) {
            stream(s, workers[i], labels, p);
            assert_memory_equal(labels, first, n);
            assert_memory_equal(p, first_p, floats * sizeof(float));
            stream(s, workers[i], labels, NULL);
            assert_memory_equal(labels, first, n);
        }
        free(first);
        free(labels);
        free(first_p);
        free(p);
    }
}

static void nan_and_infinity_are_found(void **state) {
    (void)state;
    const size_t dims[3] = {6, 4, 4}, patch[3] = {4, 4, 4}, tile[3] = {0, 0, 0};
    const float poison[] = {NAN, INFINITY, -INFINITY, 3e38f};
    const bool finite[] = {false, false, false, true};
    vx_pool *pool;
    assert_int_equal(vx_pool_create(2, &pool, NULL), VX_OK);
    for (int k = 0; k < 4; k++) {
        vx_tiles t;
        vx_slab slab;
        float logits[64 * 2] = {0};
        logits[3] = poison[k];
        const vx_rows patch_rows = {{0, 0}, {4, 4}}, first = {{0, 0}, {2, 4}};
        assert_int_equal(vx_tiles_create(dims, patch, 0.5, &t, NULL), VX_OK);
        assert_int_equal(vx_slab_create(&t, 2, 16, &slab, NULL), VX_OK);
        vx_slab_start(&slab, &patch_rows, pool);
        vx_slab_add(&slab, tile, logits, 0, 1, pool);
        assert_true(vx_slab_finish(&slab, &first, pool) == finite[k]);
        vx_slab_free(&slab);
        vx_tiles_free(&t);
    }
    vx_pool_free(pool);
}

/* scikit-image 0.26.0: resize(numpy.arange(n, dtype=float), (m,), order, mode="edge",
 * anti_aliasing=False). */
static void axis_maps_equal_skimage(void **state) {
    (void)state;
    static const struct {
        size_t in, out;
        int order;
        double at[9];
    } cases[] = {
        {5, 8, 1, {0, 0.4375, 1.0625, 1.6875, 2.3125, 2.9375, 3.5625, 4}},
        {8, 5, 1, {0.3, 1.9, 3.5, 5.1, 6.7}},
        {4, 4, 1, {0, 1, 2, 3}},
        {1, 3, 1, {0, 0, 0}},
        {3, 1, 1, {1}},
        {2, 9, 1, {0, 0, 0.0555555556, 0.277777778, 0.5, 0.722222222, 0.944444444, 1, 1}},
        {5, 8, 0, {0, 0, 1, 2, 2, 3, 4, 4}},
        {8, 5, 0, {0, 2, 4, 5, 7}},
        {3, 6, 0, {0, 0, 1, 1, 2, 2}},
        {6, 3, 0, {1, 3, 5}},
        {4, 6, 0, {0, 1, 1, 2, 3, 3}},
        {9, 4, 0, {1, 3, 5, 7}},
        {7, 9, 0, {0, 1, 1, 2, 3, 4, 5, 5, 6}},
        {1, 4, 0, {0, 0, 0, 0}},
    };
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        vx_logits_axis map;
        assert_int_equal(
            vx_logits_axis_create(cases[k].in, cases[k].out, cases[k].order, &map, NULL), VX_OK);
        for (size_t i = 0; i < cases[k].out; i++)
            assert_true(fabs((double)map.low[i] + (double)map.weight[i] - cases[k].at[i]) < 1e-6);
        vx_logits_axis_free(&map);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(streaming_equals_whole_volume),
        cmocka_unit_test(same_bits_for_any_number_of_workers),
        cmocka_unit_test(nan_and_infinity_are_found),
        cmocka_unit_test(axis_maps_equal_skimage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
