/* Convolutions that work band by band: over their input's memory, and on a concatenation that is
 * never stored. The same results as with every value in memory of its own. */
#include "ops.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/memory.h"

static const size_t one[3] = {1, 1, 1}, three[3] = {3, 3, 3}, none[3] = {0, 0, 0};

/* The last stage of a decoder: an up-sampled tensor beside another one, then convolutions. */
typedef struct decoder {
    vx_shape low;           /* the stage before */
    size_t c, other;        /* channels: of the up-sampled tensor and the output, of the other */
    size_t stride[3], pad0; /* pad0: along z, of the first convolution */
    bool residual;          /* a residual block, else convolutions in a row */
} decoder;

/* Bands: where 32 jobs do not take all planes (conv.h); every case but the third and the last two
 * has several. */
static const decoder decoders[] = {
    {{1, 17, 35, 13, 24}, 16, 16, {2, 1, 2}, 1, true},
    {{1, 11, 35, 13, 24}, 16, 16, {3, 1, 2}, 1, true},
    {{2, 3, 4, 5, 16}, 16, 16, {2, 2, 2}, 1, true},
    {{2, 17, 35, 26, 17}, 18, 18, {2, 1, 1}, 1, false},
    {{1, 33, 35, 26, 16}, 17, 33, {1, 1, 1}, 1, false}, /* parts of other widths */
    {{1, 18, 35, 13, 16}, 16, 16, {2, 1, 2}, 2, false}, /* the grid grows by two planes */
    {{1, 18, 35, 13, 16}, 16, 16, {2, 1, 2}, 0, false}, /* ... shrinks */
    {{1, 3, 4, 5, 16}, 16, 24, {2, 2, 2}, 1, true}, /* pointwise wants parts of equal width: stored
                                                     */
    {{1, 3, 4, 5, 16}, 8, 8, {2, 2, 2}, 1, false},
};

static int conv_norm(vx_graph *g, ops_weights *w, int x, size_t c_out, const size_t kernel[3],
                     size_t pad0, bool act) {
    const size_t filter = g->values[x].shape.c * kernel[0] * kernel[1] * kernel[2];
    const size_t pad[3] = {pad0, kernel[1] / 2, kernel[2] / 2};
    x = vx_graph_conv(g, x, ops_weight(w, c_out * filter, 1.7f / sqrtf((float)filter), 0),
                      (vx_weight){0}, c_out, kernel, one, pad);
    x = vx_graph_instance_norm(g, x, ops_weight(w, c_out, 0.5f, 1), ops_weight(w, c_out, 1, 0),
                               1e-5f);
    return act ? vx_graph_activation(g, x, VX_ACT_LEAKY_RELU, 0.01f) : x;
}

/* apart: every value of the stage is an output, so that the concatenation is stored and no memory
 * taken over. The stage's result is the last output. */
static vx_graph *build(const decoder *d, ops_weights *w, bool apart) {
    vx_graph *g;
    vx_error err = {0};
    const size_t taps = d->stride[0] * d->stride[1] * d->stride[2];
    assert_int_equal(vx_graph_create(&g, &err), VX_OK);
    const int x = vx_graph_input(g, d->low);
    /* Neither is the input, which lies in the caller's memory. */
    const int low =
        vx_graph_linear(g, x, ops_weight(w, d->low.c * d->low.c, 1.7f / sqrtf((float)d->low.c), 0),
                        (vx_weight){0}, d->low.c);
    const int other =
        vx_graph_linear(g, vx_graph_upsample_nearest(g, x, d->stride),
                        ops_weight(w, d->other * d->low.c, 1.7f / sqrtf((float)d->low.c), 0),
                        (vx_weight){0}, d->other);
    const int up = vx_graph_transposed_conv(
        g, low, ops_weight(w, d->low.c * d->c * taps, 1.7f / sqrtf((float)d->low.c), 0),
        ops_weight(w, d->c, 1, 0), d->c, d->stride);
    int y = vx_graph_concat(g, up, other), shown[5] = {low, other, y, -1, -1};
    const int cat = y;
    shown[3] = y = conv_norm(g, w, y, d->c, three, d->pad0, true);
    if (d->residual) {
        shown[4] = conv_norm(g, w, cat, d->c, one, 0, false);
        y = conv_norm(g, w, y, d->c, three, 1, false);
        y = vx_graph_activation(g, vx_graph_add(g, y, shown[4], 1), VX_ACT_LEAKY_RELU, 0.01f);
    } else {
        y = conv_norm(g, w, y, d->c, three, 1, true);
    }
    for (int i = 0; i < 5 && apart; i++)
        if (shown[i] >= 0) vx_graph_output(g, shown[i]);
    y = vx_graph_conv(g, y, ops_weight(w, 3 * d->c, 0.3f, 0), ops_weight(w, 3, 1, 0), 3, one, one,
                      none);
    vx_graph_output(g, y);
    if (vx_graph_finish(g, &err) != VX_OK) fail_msg("%s", err.text);
    return g;
}

/* The last output, and in *n its numbers. */
static float *run_last(const vx_graph *g, const float *x, ops_how how, size_t *n) {
    float *results[OPS_OUTPUTS];
    const size_t count = ops_run_all(g, x, how, results);
    for (size_t i = 0; i + 1 < count; i++) vx_free(results[i]);
    *n = vx_shape_elements(g->values[g->value_count - 1].shape);
    return results[count - 1];
}

/* In every way of this machine, with several numbers of workers. */
static void compare(const vx_graph *together, const vx_graph *apart, bool bf16, bool same_bits) {
    static const unsigned workers[] = {1, 16};
    ops_how ways[OPS_WAYS];
    const size_t count = ops_ways(bf16, ways);
    float *x = ops_input(together, 5);
    for (size_t i = 0; i < count; i++) {
        size_t n, m;
        float *b = run_last(apart, x, ways[i], &m);
        for (size_t k = 0; k < sizeof workers / sizeof *workers; k++) {
            ways[i].workers = workers[k];
            float *a = run_last(together, x, ways[i], &n);
            assert_int_equal(n, m);
            if (same_bits)
                assert_memory_equal(a, b, n * sizeof *a);
            else /* a pointwise convolution's moments are summed in other cells */
                assert_true(ops_relative(a, b, n) <= (bf16 ? 1e-3 : 1e-6));
            vx_free(a);
        }
        vx_free(b);
    }
    vx_free(x);
}

static void decoders_agree(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof decoders / sizeof *decoders; i++)
        for (int bf16 = 0; bf16 < 2; bf16++) {
            ops_weights w[2] = {{.seed = 21, .coarse = true}, {.seed = 21, .coarse = true}};
            vx_graph *together = build(&decoders[i], &w[0], false);
            vx_graph *apart = build(&decoders[i], &w[1], true);
            compare(together, apart, bf16 == 1, !decoders[i].residual);
            for (int k = 0; k < 2; k++) ops_weights_free(&w[k]);
            vx_graph_free(together);
            vx_graph_free(apart);
        }
}

/* Against the reference, in every way and with every number of workers. */
static void decoder_is_right(void **state) {
    (void)state;
    for (size_t i = 0; i < 4; i += 3) {
        ops_weights w = {.seed = 22, .coarse = true};
        vx_graph *g = build(&decoders[i], &w, false);
        printf("decoder %zu: relative L2 %.2g\n", i, ops_check(g, "decoder", 5e-6));
        printf("decoder %zu, bf16: relative L2 %.2g\n", i,
               ops_check_bf16(g, "decoder", 3 * OPS_BF16));
        vx_graph_free(g);
        ops_weights_free(&w);
    }
}

static vx_plan_info plan_of(const vx_graph *g) {
    vx_error err = {0};
    vx_pool *pool;
    vx_device *device;
    vx_plan *plan;
    vx_plan_info info;
    const vx_compile_options options = {.output_in_arena = true};
    assert_int_equal(vx_pool_create(1, &pool, &err), VX_OK);
    assert_int_equal(vx_cpu_open_isa(VX_ISA_BASELINE, pool, &device, &err), VX_OK);
    assert_int_equal(vx_backend_cpu.compile(device, g, &options, &plan, &err), VX_OK);
    vx_backend_cpu.plan_info(plan, &info);
    vx_backend_cpu.plan_free(plan);
    vx_backend_cpu.close(device);
    vx_pool_free(pool);
    return info;
}

/* A residual block at the end of a decoder holds the other tensor and one of the same size, and of
 * the rest a few planes. */
static void decoder_is_small(void **state) {
    (void)state;
    const decoder d = {{1, 32, 32, 32, 16}, 32, 32, {2, 2, 2}, 1, true};
    const size_t value = 64 * 64 * 64 * 32 * sizeof(float);
    ops_weights w = {.seed = 23};
    vx_graph *g = build(&d, &w, false);
    const vx_plan_info info = plan_of(g);
    printf("decoder: arena of %.2f values\n", (double)info.arena_bytes / (double)value);
    assert_true(info.arena_bytes < 2 * value + 3 * (value / 4));
    vx_graph_free(g);
    ops_weights_free(&w);
}

/* Convolutions one after the other go through little more than one value's memory, whatever its
 * planes are. */
static void chain_is_small(void **state) {
    (void)state;
    /* A band is one plane; several blocks of two. */
    static const vx_shape shapes[] = {{1, 10, 512, 36, 16}, {2, 37, 131, 21, 17}};
    for (size_t k = 0; k < 2; k++) {
        ops_weights w[2] = {{.seed = 24}, {.seed = 24}};
        const size_t value = vx_shape_elements(shapes[k]) * sizeof(float);
        vx_graph *g[2];
        size_t bytes[2];
        for (int apart = 0; apart < 2; apart++) {
            vx_error err = {0};
            assert_int_equal(vx_graph_create(&g[apart], &err), VX_OK);
            int x = vx_graph_input(g[apart], shapes[k]);
            for (int i = 0; i < 3; i++) {
                x = conv_norm(g[apart], &w[apart], x, shapes[k].c, three, 1, true);
                if (apart) vx_graph_output(g[apart], x);
            }
            x = vx_graph_activation(g[apart], x, VX_ACT_SILU, 0);
            vx_graph_output(g[apart], x);
            assert_int_equal(vx_graph_finish(g[apart], &err), VX_OK);
            bytes[apart] = plan_of(g[apart]).arena_bytes;
        }
        printf("chain: arena of %.2f values\n", (double)bytes[0] / (double)value);
        assert_true(bytes[0] < 2 * value);
        for (int bf16 = 0; bf16 < 2; bf16++) compare(g[0], g[1], bf16 == 1, true);
        for (int i = 0; i < 2; i++) {
            vx_graph_free(g[i]);
            ops_weights_free(&w[i]);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decoders_agree),
        cmocka_unit_test(decoder_is_right),
        cmocka_unit_test(decoder_is_small),
        cmocka_unit_test(chain_is_small),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
