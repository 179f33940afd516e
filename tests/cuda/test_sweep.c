/* A sweep on the device beside the host's tiles, slab and finaliser: from the same logits the same
 * tiles, sums and labels, to the bit; odd shapes, padding, mirroring, resampling, regions. The
 * device's memory holds NaN and guard bytes at first. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "cuda/plan.h"
#include "cuda/sweep.h"
#include "infer/finalise.h"

typedef struct setting {
    size_t in[3], patch[3], out[3];
    int order[3];
    size_t channels, classes;
    double step;
    bool regions, mirror;
} setting;

static const setting settings[] = {
    {{9, 8, 7}, {4, 4, 4}, {9, 8, 7}, {1, 1, 1}, 1, 3, 0.5, false, false},
    {{9, 8, 7}, {4, 4, 4}, {14, 11, 13}, {1, 1, 1}, 2, 3, 0.5, false, true},
    {{13, 12, 11}, {5, 6, 4}, {6, 7, 3}, {1, 1, 1}, 3, 5, 0.5, false, false},
    {{13, 12, 11}, {5, 6, 4}, {40, 7, 11}, {0, 1, 1}, 1, 5, 0.3, false, false},
    {{13, 12, 11}, {5, 6, 4}, {5, 20, 31}, {0, 1, 1}, 1, 2, 1.0, true, false},
    {{6, 12, 11}, {5, 6, 4}, {9, 37, 8}, {1, 0, 1}, 1, 4, 0.7, false, false},
    {{6, 5, 11}, {5, 6, 4}, {9, 7, 5}, {0, 0, 0}, 2, 4, 0.5, true, true},
    {{3, 2, 1}, {5, 6, 4}, {3, 5, 2}, {1, 1, 1}, 1, 3, 0.5, false, true},
    {{1, 1, 1}, {2, 2, 2}, {1, 1, 1}, {1, 1, 1}, 1, 2, 0.5, false, false},
    {{40, 5, 5}, {8, 8, 8}, {97, 9, 4}, {1, 1, 1}, 1, 3, 0.25, false, false},
    {{8, 40, 7}, {8, 8, 4}, {5, 21, 9}, {1, 1, 1}, 1, 3, 0.3, true, false},
    {{9, 7, 301}, {4, 4, 64}, {9, 7, 601}, {1, 1, 1}, 1, 25, 0.5, false, true},
    {{5, 9, 70}, {4, 8, 32}, {7, 11, 133}, {1, 1, 1}, 1, 300, 0.5, false, false},
};

enum { LABELS = 300, GUARD = 64 };

static vx_device *device;

static void must(vx_status status, const vx_error *err) {
    if (status != VX_OK) fail_msg("%s", err->text);
}

static size_t product(const size_t n[3]) { return n[0] * n[1] * n[2]; }

static float random_float(uint64_t *state) { /* -4 .. 4 in 65536 steps: equals happen */
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (float)(*state >> 40 & 0xffff) / 8192.0f - 4.0f;
}

static float *random_floats(size_t n, uint64_t seed) {
    float *x = vx_alloc(n * sizeof *x);
    assert_non_null(x);
    for (size_t i = 0; i < n; i++) x[i] = random_float(&seed);
    return x;
}

/* A network of one linear layer: it is there for its input and output. */
static vx_plan *make_plan(const setting *s, float *weights) {
    const vx_compile_options options = {.precision = VX_PRECISION_FP32};
    const vx_weight w = {weights, VX_F32, s->channels * s->classes};
    vx_error err;
    vx_graph *g;
    vx_plan *plan;
    must(vx_graph_create(&g, &err), &err);
    int x = vx_graph_input(g, (vx_shape){1, s->patch[0], s->patch[1], s->patch[2], s->channels});
    vx_graph_output(g, vx_graph_linear(g, x, w, (vx_weight){0}, s->classes));
    must(vx_graph_finish(g, &err), &err);
    must(vx_cuda_backend.compile(device, g, &options, &plan, &err), &err);
    vx_graph_free(g);
    return plan;
}

/* Both ways of one case. */
typedef struct both {
    const setting *s;
    vx_pool *pool;
    vx_tiles tiles;
    vx_frontier frontier;
    vx_finaliser finaliser;
    vx_mask mask; /* the host's labels */
    vx_slab slab;
    vx_plan *plan;
    vx_sweep *sweep;
    float *weights, *image, *tile, *seen, *logits, *row;
    unsigned values[LABELS];
    unsigned char *made; /* by the device, between guards */
    size_t made_bytes;
} both;

static vx_sweep_shape shape_of(const both *b) {
    const setting *s = b->s;
    vx_sweep_shape shape = {.size = {.channels = s->channels,
                                     .classes = s->classes,
                                     .rows = vx_frontier_rows(&b->frontier, false),
                                     .made_rows = vx_frontier_made(&b->frontier),
                                     .places = 2,
                                     .label_bytes = b->mask.bytes},
                            .regions = s->regions,
                            .values = b->values};
    for (int a = 0; a < 3; a++) {
        shape.size.dims[a] = s->in[a];
        shape.size.patch[a] = s->patch[a];
        shape.size.out[a] = s->out[a];
        shape.profile[a] = b->tiles.profile[a];
        shape.total[a] = b->tiles.total[a];
        shape.low[a] = b->finaliser.axis[a].low;
        shape.weight[a] = b->finaliser.axis[a].weight;
    }
    return shape;
}

static void open_both(both *b, const setting *s) {
    vx_error err;
    const size_t patch = product(s->patch), out = product(s->out);
    *b = (both){.s = s};
    for (unsigned i = 0; i < LABELS; i++) b->values[i] = s->classes > 100 ? 3 * i : (7 * i) % 256;
    b->mask = (vx_mask){.geo = {.dims = {s->out[2], s->out[1], s->out[0]}},
                        .bytes = s->classes > 100 ? 2 : 1};
    b->mask.data = vx_alloc_zero(out, b->mask.bytes);
    assert_non_null(b->mask.data);
    vx_label_target target = {
        &b->mask, 0, {(ptrdiff_t)(s->out[1] * s->out[2]), (ptrdiff_t)s->out[2], 1}};
    must(vx_pool_create(2, &b->pool, &err), &err);
    must(vx_tiles_create(s->in, s->patch, s->step, &b->tiles, &err), &err);
    must(vx_finaliser_create(s->in, s->out, s->order, s->classes, s->regions, b->values, &target,
                             b->pool, &b->finaliser, &err),
         &err);
    must(vx_frontier_create(&b->tiles, b->finaliser.axis, &b->frontier, &err), &err);
    must(vx_slab_create(&b->tiles, s->classes, vx_frontier_rows(&b->frontier, false), &b->slab,
                        &err),
         &err);
    b->weights = random_floats(s->channels * s->classes, 5);
    b->image = random_floats(s->channels * product(s->in), 7);
    b->tile = random_floats(patch * s->channels, 1);
    b->seen = random_floats(patch * s->channels, 1);
    b->row = random_floats(b->slab.row_floats, 1);
    b->plan = make_plan(s, b->weights);
    const vx_sweep_shape shape = shape_of(b);
    must(vx_cuda_sweep.create(b->plan, &shape, b->image, &b->sweep, &err), &err);
    must(vx_cuda_sweep_poison(b->sweep, &err), &err);
    b->made_bytes = shape.size.made_rows * s->out[2] * b->mask.bytes;
    b->made = vx_alloc(b->made_bytes + 2 * GUARD);
    assert_non_null(b->made);
}

static void close_both(both *b) {
    vx_cuda_sweep.free(b->sweep);
    vx_cuda_backend.plan_free(b->plan);
    vx_slab_free(&b->slab);
    vx_frontier_free(&b->frontier);
    vx_finaliser_free(&b->finaliser);
    vx_tiles_free(&b->tiles);
    vx_pool_free(b->pool);
    vx_free(b->mask.data);
    vx_free(b->weights);
    vx_free(b->image);
    vx_free(b->tile);
    vx_free(b->seen);
    vx_free(b->row);
    vx_free(b->made);
}

/* Cuts a tile by both ways, gives both the same logits (what: one that is not random). */
static void both_add(both *b, const size_t tile[3], unsigned flips, float scale, uint64_t seed,
                     float what) {
    vx_error err;
    const setting *s = b->s;
    ptrdiff_t at[3];
    const size_t patch = product(s->patch), in_bytes = patch * s->channels * sizeof(float);
    for (int a = 0; a < 3; a++) at[a] = vx_tile_start(&b->tiles, a, tile[a]);
    must(vx_cuda_sweep.cut(b->sweep, at, flips, &err), &err);
    assert_int_equal(
        cudaMemcpy(b->seen, vx_cuda_plan_input(b->plan), in_bytes, cudaMemcpyDeviceToHost),
        cudaSuccess);
    vx_tile_read(&b->tiles, tile, b->image, s->channels, flips, b->tile, b->pool);
    assert_memory_equal(b->seen, b->tile, in_bytes);

    float *logits = random_floats(patch * s->classes, seed);
    if (what != 0) logits[patch * s->classes / 2] = what;
    float *output = (float *)(uintptr_t)vx_cuda_plan_output(b->plan);
    assert_int_equal(
        cudaMemcpy(output, logits, patch * s->classes * sizeof(float), cudaMemcpyHostToDevice),
        cudaSuccess);
    /* It may return before the device has the bytes, and the sweep's stream does not wait for it.
     */
    assert_int_equal(cudaDeviceSynchronize(), cudaSuccess);
    /* From the output itself, or from a place that has it, when the output is gone. */
    const size_t place = seed % 3 ? seed % 3 - 1 : VX_SWEEP_OWN;
    if (place != VX_SWEEP_OWN) {
        must(vx_cuda_sweep.take(b->sweep, place, b->sweep, &err), &err);
        assert_int_equal(cudaMemset(output, 0xff, patch * s->classes * sizeof(float)), cudaSuccess);
        assert_int_equal(cudaDeviceSynchronize(), cudaSuccess);
    }
    must(vx_cuda_sweep.add(b->sweep, place, at, flips, scale, &err), &err);
    vx_slab_add(&b->slab, tile, logits, flips, scale, b->pool);
    vx_free(logits);
}

static void compare_sums(both *b, const vx_rows *rows) {
    vx_error err;
    for (size_t z = rows->from[0]; z < rows->end[0]; z++)
        for (size_t y = rows->from[1]; y < rows->end[1]; y++) {
            const uint32_t slot = b->slab.slots.slot[z * b->slab.slots.width + y];
            must(vx_cuda_sweep_row(b->sweep, slot, b->row, &err), &err);
            assert_memory_equal(b->row, vx_slab_row(&b->slab, z, y),
                                b->slab.row_floats * sizeof(float));
        }
}

static void compare_labels(both *b, const vx_rows *rows) {
    vx_error err;
    const size_t nx = b->s->out[2] * b->mask.bytes, bytes = vx_rows_count(rows) * nx;
    if (!bytes) return;
    assert_true(bytes <= b->made_bytes);
    memset(b->made, 0x5a, GUARD + bytes + GUARD);
    memset(b->made + GUARD, 0xff, bytes);
    must(vx_cuda_sweep.make(b->sweep, rows, b->made + GUARD, &err), &err);
    vx_finaliser_make(&b->finaliser, &b->slab, rows, NULL, b->pool);
    const unsigned char *made = b->made + GUARD;
    for (size_t z = rows->from[0]; z < rows->end[0]; z++)
        for (size_t y = rows->from[1]; y < rows->end[1]; y++, made += nx)
            assert_memory_equal(made, (unsigned char *)b->mask.data + (z * b->s->out[1] + y) * nx,
                                nx);
    for (size_t i = 0; i < GUARD; i++) {
        assert_int_equal(b->made[i], 0x5a);
        assert_int_equal(b->made[GUARD + bytes + i], 0x5a);
    }
}

static void equals_the_host(void **state) {
    (void)state;
    for (size_t k = 0; k < sizeof settings / sizeof *settings; k++) {
        const setting *s = &settings[k];
        const bool mirror[3] = {s->mirror, s->mirror, s->mirror};
        both b;
        vx_error err;
        unsigned passes[8];
        const size_t pass_count = vx_mirror_passes(mirror, passes);
        uint64_t seed = 100;
        open_both(&b, s);
        for (size_t i = 0; i < vx_frontier_steps(&b.frontier); i++) {
            vx_step step;
            bool finite = false;
            vx_frontier_step(&b.frontier, i, false, &step);
            vx_slab_start(&b.slab, &step.started, b.pool);
            must(vx_cuda_sweep.start(b.sweep, b.slab.slots.slot, &step.started, &err), &err);
            for (; step.tile[2] < b.tiles.count[2]; step.tile[2]++)
                for (size_t p = 0; p < pass_count; p++)
                    both_add(&b, step.tile, passes[p], 1 / (float)pass_count, seed++, 0);
            assert_true(vx_slab_finish(&b.slab, &step.finished, b.pool));
            must(vx_cuda_sweep.finish(b.sweep, &step.finished, &finite, &err), &err);
            assert_true(finite);
            compare_sums(&b, &step.finished);
            compare_labels(&b, &step.made);
            vx_slab_drop(&b.slab, &step.dropped);
        }
        must(vx_cuda_sweep_check_guards(b.sweep, &err), &err);
        close_both(&b);
    }
}

static void nan_and_infinity_are_found(void **state) {
    static const float poison[] = {NAN, INFINITY, -INFINITY, 3e38f};
    (void)state;
    for (int k = 0; k < 4; k++) {
        both b;
        vx_error err;
        vx_step step;
        bool finite = true;
        open_both(&b, &settings[0]);
        vx_frontier_step(&b.frontier, 0, false, &step);
        vx_slab_start(&b.slab, &step.started, b.pool);
        must(vx_cuda_sweep.start(b.sweep, b.slab.slots.slot, &step.started, &err), &err);
        both_add(&b, step.tile, 0, 1, 3, poison[k]);
        must(vx_cuda_sweep.finish(b.sweep, &step.started, &finite, &err), &err);
        assert_true(finite == vx_slab_finish(&b.slab, &step.started, b.pool));
        assert_true(finite == (k == 3));
        close_both(&b);
    }
}

/* run is the plan's run, without the copies. */
static void runs_the_network(void **state) {
    (void)state;
    both b;
    vx_error err;
    const setting *s = &settings[1];
    const ptrdiff_t at[3] = {-1, 3, 5};
    open_both(&b, s);
    const size_t patch = product(s->patch), bytes = patch * s->classes * sizeof(float);
    float *seen = random_floats(patch * s->classes, 1);
    float *truth = random_floats(patch * s->classes, 2);
    must(vx_cuda_sweep.cut(b.sweep, at, 5, &err), &err);
    assert_int_equal(cudaMemcpy(b.tile, vx_cuda_plan_input(b.plan),
                                patch * s->channels * sizeof(float), cudaMemcpyDeviceToHost),
                     cudaSuccess);
    must(vx_cuda_sweep.run(b.sweep, &err), &err);
    assert_int_equal(cudaMemcpy(seen, vx_cuda_plan_output(b.plan), bytes, cudaMemcpyDeviceToHost),
                     cudaSuccess);
    must(vx_cuda_backend.run(b.plan, NULL, b.tile, &truth, &err), &err);
    assert_memory_equal(seen, truth, bytes);
    vx_free(seen);
    vx_free(truth);
    close_both(&b);
}

/* Logits go from one device to the other, where there are two. */
static void another_device_fills_a_place(void **state) {
    (void)state;
    both b;
    vx_error err;
    const setting *s = &settings[1];
    const size_t n = product(s->patch) * s->classes, bytes = n * sizeof(float);
    vx_device *first = device, *second;
    vx_sweep *from;
    if (vx_cuda_backend.open(1, NULL, &second, &err) != VX_OK) {
        printf("%s\n", err.text);
        skip();
    }
    open_both(&b, s);
    vx_sweep_shape shape = shape_of(&b);
    shape.size.rows = shape.size.made_rows = shape.size.places = 0;
    device = second;
    vx_plan *plan = make_plan(s, b.weights);
    device = first;
    must(vx_cuda_sweep.create(plan, &shape, b.image, &from, &err), &err);
    const ptrdiff_t at[3] = {1, -1, 2};
    must(vx_cuda_sweep.cut(from, at, 3, &err), &err);
    must(vx_cuda_sweep.run(from, &err), &err);
    must(vx_cuda_sweep.take(b.sweep, 1, from, &err), &err);
    must(vx_cuda_sweep.cut(b.sweep, at, 3, &err), &err);
    must(vx_cuda_sweep.run(b.sweep, &err), &err);
    must(vx_cuda_sweep.take(b.sweep, 0, b.sweep, &err), &err);
    float *both_places = random_floats(2 * n, 1);
    must(vx_cuda_sweep_places(b.sweep, both_places, &err), &err);
    assert_memory_equal(both_places, both_places + n, bytes);
    vx_free(both_places);
    vx_cuda_sweep.free(from);
    vx_cuda_backend.plan_free(plan);
    close_both(&b);
    vx_cuda_backend.close(second);
}

static void too_little_memory_has_two_numbers(void **state) {
    (void)state;
    both b;
    vx_error err = {0};
    vx_sweep *sweep = NULL;
    size_t available, bytes;
    open_both(&b, &settings[0]);
    vx_sweep_shape shape = shape_of(&b);
    must(vx_cuda_sweep.free_bytes(device, &available, &err), &err);
    shape.size.rows = available / (b.slab.row_floats * sizeof(float)) + 1000;
    assert_true(vx_cuda_sweep.bytes(device, &shape.size, &bytes));
    assert_true(bytes > available);
    assert_int_equal(vx_cuda_sweep.create(b.plan, &shape, b.image, &sweep, &err), VX_ERR_RESOURCE);
    assert_null(sweep);
    assert_non_null(strstr(err.text, "GB of the GPU's memory"));
    assert_non_null(strstr(err.text, "are free"));
    shape.size.rows = SIZE_MAX / 2;
    assert_false(vx_cuda_sweep.bytes(device, &shape.size, &bytes));
    close_both(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_the_host),
        cmocka_unit_test(nan_and_infinity_are_found),
        cmocka_unit_test(runs_the_network),
        cmocka_unit_test(another_device_fills_a_place),
        cmocka_unit_test(too_little_memory_has_two_numbers),
    };
    vx_error err;
    if (vx_cuda_backend.open(0, NULL, &device, &err) != VX_OK) {
        printf("no CUDA device: %s\n", err.text);
        return 77;
    }
    device->separate = true;
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    vx_cuda_backend.close(device);
    return failed;
}
