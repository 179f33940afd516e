/* Shapes of each op (worked by hand from PyTorch's formulas), weights that do not fit, sizes that
 * overflow, sticky failure, pruning, copies, flops. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "graph/graph.h"

static const unsigned char bytes[1];
static const size_t one[3] = {1, 1, 1}, none[3] = {0, 0, 0}, two[3] = {2, 2, 2},
                    three[3] = {3, 3, 3};
static const vx_weight absent = {0};

static vx_weight weight(size_t elements) {
    return (vx_weight){.data = bytes, .dtype = VX_F32, .elements = elements};
}

static vx_graph *new_graph(size_t n, size_t d, size_t h, size_t w, size_t c, int *x) {
    vx_graph *g;
    assert_int_equal(vx_graph_create(&g, NULL), VX_OK);
    *x = vx_graph_input(g, (vx_shape){n, d, h, w, c});
    return g;
}

static void assert_shape(const vx_graph *g, int v, size_t n, size_t d, size_t h, size_t w,
                         size_t c) {
    assert_true(v >= 0);
    const vx_shape s = g->values[v].shape;
    if (s.n != n || s.d != d || s.h != h || s.w != w || s.c != c)
        fail_msg("shape is %zu %zu %zu %zu %zu", s.n, s.d, s.h, s.w, s.c);
    assert_int_equal(g->ops[v].out, v);
}

/* The graph has failed with a line that holds text; frees it. */
static void assert_failed(vx_graph *g, const char *text) {
    vx_error err;
    assert_int_equal(vx_graph_finish(g, &err), VX_ERR_MODEL);
    assert_int_equal(err.code, VX_ERR_MODEL);
    if (!strstr(err.text, text)) fail_msg("\"%s\" is not in \"%s\"", text, err.text);
    assert_null(strchr(err.text, '\n'));
    vx_graph_free(g);
}

static void shapes_of_convolutions(void **state) {
    (void)state;
    int x;
    vx_graph *g = new_graph(2, 9, 8, 7, 3, &x);
    const size_t kernel[3] = {1, 3, 5}, stride[3] = {1, 2, 3}, pad[3] = {0, 1, 2};
    int y = vx_graph_conv(g, x, weight(16 * 3 * 15), weight(16), 16, kernel, stride, pad);
    /* floor((8 + 2 - 3) / 2) + 1 = 4, floor((7 + 4 - 5) / 3) + 1 = 3 */
    assert_shape(g, y, 2, 9, 4, 3, 16);
    assert_int_equal(g->ops[y].kernel[2], 5);
    assert_int_equal(g->ops[y].pad[2], 2);
    y = vx_graph_transposed_conv(g, y, weight(16 * 4 * 6), absent, 4, (const size_t[3]){3, 1, 2});
    assert_shape(g, y, 2, 27, 4, 6, 4);
    y = vx_graph_avg_pool(g, y, (const size_t[3]){2, 3, 4});
    assert_shape(g, y, 2, 13, 1, 1, 4);
    y = vx_graph_upsample_nearest(g, y, two);
    assert_shape(g, y, 2, 26, 2, 2, 4);
    vx_graph_output(g, y);
    assert_int_equal(vx_graph_finish(g, NULL), VX_OK);
    vx_graph_free(g);
}

static void shapes_of_token_ops(void **state) {
    (void)state;
    int x;
    vx_graph *g = new_graph(1, 4, 3, 2, 20, &x);
    int y = vx_graph_layer_norm(g, x, weight(20), weight(20), 1e-5f);
    y = vx_graph_linear(g, y, weight(20 * 5), weight(5), 5);
    assert_shape(g, y, 1, 4, 3, 2, 5);
    const int z = vx_graph_concat(g, x, y);
    assert_shape(g, z, 1, 4, 3, 2, 25);
    y = vx_graph_activation(g, y, VX_ACT_GELU, 0);
    y = vx_graph_add(g, y, y, 0.5f);
    assert_shape(g, y, 1, 4, 3, 2, 5);
    const vx_mamba mamba = {
        .order = {{2, 0, 1}, true},
        .d_inner = 40,
        .d_state = 6,
        .d_conv = 4,
        .dt_rank = 2,
        .in_proj = weight(80 * 20),
        .conv_w = weight(40 * 4),
        .conv_b = weight(40),
        .x_proj = weight((2 + 12) * 40),
        .dt_w = weight(80),
        .dt_b = weight(40),
        .a_log = weight(240),
        .d = weight(40),
        .out_proj = weight(20 * 40),
    };
    const int m = vx_graph_mamba(g, x, &mamba);
    assert_shape(g, m, 1, 4, 3, 2, 20);
    assert_true(g->ops[m].mamba.order.reverse);
    assert_true(vx_shape_tokens(g->values[m].shape) == 24);
    assert_true(vx_shape_elements(g->values[m].shape) == 480);
    vx_graph_free(g);
}

/* Each call is made on a fresh graph with a 2 x 4 x 4 x 4 x 8 input. */
static void weights_that_do_not_fit(void **state) {
    (void)state;
    int x;
    vx_graph *g = new_graph(2, 4, 4, 4, 8, &x);
    vx_graph_layer(g, "encoder.stem");
    assert_int_equal(vx_graph_conv(g, x, weight(16 * 8 * 27 - 1), absent, 16, three, one, one), -1);
    assert_failed(g, "encoder.stem: convolution: the weight has 3455 elements, 3456 are needed");
    g = new_graph(2, 4, 4, 4, 8, &x);
    vx_graph_conv(g, x, weight(16 * 8), weight(15), 16, one, one, none);
    assert_failed(g, "bias has 15 elements, 16");
    g = new_graph(2, 4, 4, 4, 8, &x);
    vx_graph_conv(g, x, absent, absent, 16, one, one, none);
    assert_failed(g, "weight is missing");
    g = new_graph(2, 4, 4, 4, 8, &x);
    vx_graph_transposed_conv(g, x, weight(16 * 8), absent, 16, two);
    assert_failed(g, "1024 are needed");
    g = new_graph(2, 4, 4, 4, 8, &x);
    vx_graph_instance_norm(g, x, weight(8), weight(9), 1e-5f);
    assert_failed(g, "instance norm: the shift has 9");
    g = new_graph(2, 4, 4, 4, 8, &x);
    vx_graph_layer_norm(g, x, absent, weight(8), 1e-5f);
    assert_failed(g, "layer norm: the scale is missing");
    g = new_graph(2, 4, 4, 4, 8, &x);
    vx_graph_linear(g, x, weight(64), absent, 7);
    assert_failed(g, "linear");
    g = new_graph(2, 4, 4, 4, 8, &x);
    vx_graph_conv(g, x, weight(0), absent, SIZE_MAX / 4, three, one, one);
    assert_failed(g, "the weight is too large");
}

static void grids_that_do_not_fit(void **state) {
    (void)state;
    int x, y;
    vx_graph *g = new_graph(1, 2, 4, 4, 8, &x);
    vx_graph_conv(g, x, weight(8 * 8 * 27), absent, 8, three, one, none);
    assert_failed(g, "kernel 3 does not fit 2 voxels along z");
    g = new_graph(1, 2, 4, 4, 8, &x);
    vx_graph_conv(g, x, weight(8 * 8 * 27), absent, 8, three, none, one);
    assert_failed(g, "stride along z is 0");
    g = new_graph(1, 2, 4, 4, 8, &x);
    vx_graph_conv(g, x, weight(0), absent, 8, none, one, none);
    assert_failed(g, "kernel along z is 0");
    g = new_graph(1, 2, 4, 4, 8, &x);
    vx_graph_conv(g, x, weight(64), absent, 8, one, one, (const size_t[3]){0, SIZE_MAX, 0});
    assert_failed(g, "padding is too large");
    g = new_graph(1, 2, 4, 4, 8, &x);
    vx_graph_avg_pool(g, x, three);
    assert_failed(g, "the output is empty (1 x 0 x 1 x 1 x 8)");
    g = new_graph(1, 2, 4, 4, 8, &x);
    y = vx_graph_avg_pool(g, x, two);
    vx_graph_add(g, x, y, 1);
    assert_failed(g, "the grids differ (2 x 4 x 4 and 1 x 2 x 2)");
    g = new_graph(1, 2, 4, 4, 8, &x);
    y = vx_graph_linear(g, x, weight(16), absent, 2);
    vx_graph_add(g, x, y, 1);
    assert_failed(g, "8 and 2 channels");
    g = new_graph(1, 2, 4, 4, 8, &x);
    vx_graph_add(g, x, 17, 1);
    assert_failed(g, "value 17 does not exist");
}

static void sizes_that_overflow(void **state) {
    (void)state;
    int x;
    vx_graph *g = new_graph((size_t)1 << 20, (size_t)1 << 20, (size_t)1 << 20, 4, 1, &x);
    assert_int_equal(x, -1);
    assert_failed(g, "too large");
    g = new_graph(1, SIZE_MAX, 1, 1, 1, &x);
    assert_failed(g, "too large");
    g = new_graph(0, 1, 1, 1, 1, &x);
    assert_failed(g, "empty");
    g = new_graph(1, (size_t)1 << 40, 1, 1, 1, &x);
    vx_graph_upsample_nearest(g, x, (const size_t[3]){(size_t)1 << 30, 1, 1});
    assert_failed(g, "too large");
    /* 2^33 elements are fine: offsets are 64-bit. */
    g = new_graph(1, 2048, 2048, 2048, 1, &x);
    assert_int_equal(x, 0);
    assert_true(vx_shape_elements(g->values[x].shape) == (size_t)1 << 33);
    vx_graph_free(g);
}

static void failure_sticks(void **state) {
    (void)state;
    int x;
    vx_error err;
    vx_graph *g = new_graph(1, 2, 2, 2, 2, &x);
    int y = vx_graph_add(g, x, 5, 1); /* the reason */
    assert_int_equal(y, -1);
    y = vx_graph_instance_norm(g, y, absent, absent, 1e-5f);
    assert_int_equal(y, -1);
    y = vx_graph_activation(g, x, VX_ACT_RELU, 0);
    assert_int_equal(y, -1);
    vx_graph_name(g, y, "gone");
    vx_graph_output(g, y);
    assert_int_equal(vx_graph_finish(g, &err), VX_ERR_MODEL);
    assert_non_null(strstr(err.text, "value 5 does not exist"));
    assert_int_equal(vx_graph_finish(g, NULL), VX_ERR_MODEL);
    vx_graph_free(g);
    g = new_graph(1, 2, 2, 2, 2, &x);
    assert_failed(g, "no output");
    assert_int_equal(vx_graph_create(&g, NULL), VX_OK);
    assert_failed(g, "no input");
    g = new_graph(1, 2, 2, 2, 2, &x);
    assert_int_equal(vx_graph_input(g, (vx_shape){1, 1, 1, 1, 1}), -1);
    assert_failed(g, "first op");
    g = new_graph(1, 2, 2, 2, 2, &x);
    vx_graph_name(g, x, "%0200d", 7);
    assert_failed(g, "too long");
    vx_graph_free(NULL);
}

static void mamba_that_does_not_fit(void **state) {
    (void)state;
    const vx_mamba good = {
        .order = {{0, 1, 2}, false},
        .d_inner = 4,
        .d_state = 3,
        .d_conv = 4,
        .dt_rank = 1,
        .in_proj = weight(16),
        .conv_w = weight(16),
        .conv_b = weight(4),
        .x_proj = weight(28),
        .dt_w = weight(4),
        .dt_b = weight(4),
        .a_log = weight(12),
        .d = weight(4),
        .out_proj = weight(8),
    };
    int x;
    vx_graph *g = new_graph(1, 1, 1, 5, 2, &x);
    assert_int_equal(vx_graph_mamba(g, x, &good), 1);
    vx_mamba bad = good;
    bad.order.axis[1] = 2;
    vx_graph_mamba(g, x, &bad);
    assert_failed(g, "scan order repeats");
    g = new_graph(1, 1, 1, 5, 2, &x);
    bad = good;
    bad.order.axis[0] = -1;
    vx_graph_mamba(g, x, &bad);
    assert_failed(g, "scan order");
    g = new_graph(1, 1, 1, 5, 2, &x);
    bad = good;
    bad.d_state = 0;
    vx_graph_mamba(g, x, &bad);
    assert_failed(g, "is 0");
    g = new_graph(1, 1, 1, 5, 2, &x);
    bad = good;
    bad.x_proj = weight(29);
    vx_graph_mamba(g, x, &bad);
    assert_failed(g, "x_proj.weight has 29 elements, 28 are needed");
    g = new_graph(1, 1, 1, 5, 2, &x);
    bad = good;
    bad.conv_b = absent;
    vx_graph_mamba(g, x, &bad);
    assert_failed(g, "conv1d.bias is missing");
    g = new_graph(1, 1, 1, 5, 2, &x);
    bad = good;
    bad.d_inner = SIZE_MAX / 2 + 1;
    vx_graph_mamba(g, x, &bad);
    assert_failed(g, "too large");
}

static void names_and_pruning(void **state) {
    (void)state;
    int x;
    vx_graph *g = new_graph(1, 4, 4, 4, 2, &x), *copy;
    vx_graph_activation(g, x, VX_ACT_GELU, 0); /* nobody reads it */
    const int kept = vx_graph_activation(g, x, VX_ACT_RELU, 0);
    const int dead = vx_graph_add(g, x, kept, 1);
    vx_graph_name(g, dead, "dead.%d", 1);
    const int out = vx_graph_add(g, kept, x, 0.25f);
    vx_graph_name(g, out, "logits");
    vx_graph_output(g, out);
    for (int i = 0; i < 100; i++) vx_graph_activation(g, out, VX_ACT_SILU, 0); /* grows */
    assert_int_equal(vx_graph_finish(g, NULL), VX_OK);
    assert_int_equal(vx_graph_find(g, "dead.1"), dead);
    assert_int_equal(vx_graph_find(g, "absent"), -1);
    assert_int_equal(vx_graph_copy(g, &copy, NULL), VX_OK);
    assert_int_equal(vx_graph_prune(g, NULL), VX_OK);
    assert_int_equal(g->op_count, 3);
    assert_int_equal(g->value_count, 3);
    assert_int_equal(vx_graph_find(g, "dead.1"), -1);
    assert_int_equal(vx_graph_find(g, "logits"), 2);
    assert_int_equal(g->ops[2].in[0], 1);
    assert_int_equal(g->ops[2].in[1], 0);
    assert_int_equal(g->ops[2].out, 2);
    assert_true(g->values[2].output && g->ops[2].scale == 0.25f);
    vx_graph_free(g);
    /* The copy is whole and can grow. */
    assert_int_equal(copy->op_count, 105);
    assert_int_equal(vx_graph_find(copy, "dead.1"), dead);
    assert_int_equal(vx_graph_activation(copy, out, VX_ACT_RELU, 0), 105);
    vx_graph_free(copy);
}

static void flops(void **state) {
    (void)state;
    int x;
    vx_graph *g = new_graph(1, 4, 4, 4, 2, &x);
    const int conv = vx_graph_conv(g, x, weight(8 * 2 * 27), absent, 8, three, two, one);
    const int up = vx_graph_transposed_conv(g, conv, weight(8 * 3 * 8), absent, 3, two);
    const int pool = vx_graph_avg_pool(g, up, two);
    const int line = vx_graph_linear(g, pool, weight(3 * 5), absent, 5);
    assert_true(vx_op_flops(g, &g->ops[conv]) == 2.0 * 8 * 8 * 2 * 27);
    assert_true(vx_op_flops(g, &g->ops[up]) == 2.0 * 64 * 3 * 8);
    assert_true(vx_op_flops(g, &g->ops[pool]) == 64.0 * 3);
    assert_true(vx_op_flops(g, &g->ops[line]) == 2.0 * 8 * 3 * 5);
    assert_true(vx_op_flops(g, &g->ops[x]) == 0);
    vx_graph_free(g);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shapes_of_convolutions),
        cmocka_unit_test(shapes_of_token_ops),
        cmocka_unit_test(weights_that_do_not_fit),
        cmocka_unit_test(grids_that_do_not_fit),
        cmocka_unit_test(sizes_that_overflow),
        cmocka_unit_test(failure_sticks),
        cmocka_unit_test(mamba_that_does_not_fit),
        cmocka_unit_test(names_and_pruning),
        cmocka_unit_test(flops),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
