/* Which chains are fused, into what, and which must stay as they are. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "graph/graph.h"

static const unsigned char bytes[4]; /* the address tells weights apart */
static const size_t one[3] = {1, 1, 1}, three[3] = {3, 3, 3};

static vx_weight weight(int which, size_t elements) {
    return (vx_weight){.data = &bytes[which], .dtype = VX_F16, .elements = elements};
}

static vx_graph *new_graph(int *x) {
    vx_graph *g;
    assert_int_equal(vx_graph_create(&g, NULL), VX_OK);
    *x = vx_graph_input(g, (vx_shape){1, 4, 5, 6, 2});
    return g;
}

static int conv(vx_graph *g, int x) {
    return vx_graph_conv(g, x, weight(0, 2 * 2 * 27), weight(1, 2), 2, three, one, one);
}

static int norm(vx_graph *g, int x) {
    return vx_graph_instance_norm(g, x, weight(2, 2), weight(3, 2), 1e-3f);
}

static int leaky(vx_graph *g, int x) { return vx_graph_activation(g, x, VX_ACT_LEAKY_RELU, 0.01f); }

static void fuse(vx_graph *g, int out) {
    vx_graph_name(g, out, "out");
    vx_graph_output(g, out);
    assert_int_equal(vx_graph_finish(g, NULL), VX_OK);
    assert_int_equal(vx_graph_fuse(g, NULL), VX_OK);
    for (size_t i = 0; i < g->op_count; i++) { /* still in order of execution */
        assert_int_equal(g->ops[i].out, i);
        assert_true(g->ops[i].in[0] < (int)i && g->ops[i].in[1] < (int)i);
    }
}

static void assert_kinds(const vx_graph *g, size_t count, const vx_op_kind *kinds) {
    assert_int_equal(g->op_count, count);
    assert_int_equal(g->value_count, count);
    for (size_t i = 0; i < count; i++) assert_int_equal(g->ops[i].kind, kinds[i]);
}
#define ASSERT_KINDS(g, ...)                                                                       \
    assert_kinds(g, sizeof((vx_op_kind[]){__VA_ARGS__}) / sizeof(vx_op_kind),                      \
                 (vx_op_kind[]){__VA_ARGS__})

static void assert_fused_attributes(const vx_op *op, vx_activation act, float slope) {
    assert_int_equal(op->act, act);
    assert_true(op->slope == slope && op->eps == 1e-3f);
    assert_int_equal(op->kernel[1], 3);
    assert_int_equal(op->stride[1], 1);
    assert_int_equal(op->pad[1], 1);
    assert_ptr_equal(op->weight.data, &bytes[0]);
    assert_ptr_equal(op->bias.data, &bytes[1]);
    assert_ptr_equal(op->gamma.data, &bytes[2]);
    assert_ptr_equal(op->beta.data, &bytes[3]);
}

static void conv_norm_act(void **state) {
    (void)state;
    int x;
    vx_graph *g = new_graph(&x);
    fuse(g, leaky(g, norm(g, conv(g, leaky(g, norm(g, conv(g, x)))))));
    ASSERT_KINDS(g, VX_OP_INPUT, VX_OP_CONV_NORM_ACT, VX_OP_CONV_NORM_ACT);
    for (int i = 1; i < 3; i++) {
        assert_fused_attributes(&g->ops[i], VX_ACT_LEAKY_RELU, 0.01f);
        assert_int_equal(g->ops[i].in[0], i - 1);
        assert_int_equal(g->ops[i].in[1], -1);
    }
    assert_int_equal(vx_graph_find(g, "out"), 2);
    assert_true(g->values[2].output);
    /* 120 voxels x 2 channels: the convolution, 7 for the norm and 1 for the activation. */
    assert_true(vx_op_flops(g, &g->ops[1]) == 240.0 * (2 * 2 * 27 + 8));
    vx_graph_free(g);
}

static void conv_norm_without_activation(void **state) {
    (void)state;
    int x;
    vx_graph *g = new_graph(&x);
    fuse(g, norm(g, conv(g, x)));
    ASSERT_KINDS(g, VX_OP_INPUT, VX_OP_CONV_NORM_ACT);
    assert_fused_attributes(&g->ops[1], VX_ACT_NONE, 0);
    vx_graph_free(g);
}

/* y = leaky(norm(conv(leaky(norm(conv x)))) + x), nnU-Net's block without projection. */
static void residual_tail(void **state) {
    (void)state;
    for (int swapped = 0; swapped < 2; swapped++) {
        int x;
        vx_graph *g = new_graph(&x);
        const int y = norm(g, conv(g, leaky(g, norm(g, conv(g, x)))));
        fuse(g, leaky(g, swapped ? vx_graph_add(g, x, y, 1) : vx_graph_add(g, y, x, 1)));
        ASSERT_KINDS(g, VX_OP_INPUT, VX_OP_CONV_NORM_ACT, VX_OP_NORM_ACT_ADD);
        assert_fused_attributes(&g->ops[2], VX_ACT_LEAKY_RELU, 0.01f);
        assert_int_equal(g->ops[2].in[0], 1);
        assert_int_equal(g->ops[2].in[1], 0);
        assert_int_equal(vx_graph_find(g, "out"), 2);
        vx_graph_free(g);
    }
}

/* Both sides of the addition end in conv -> norm: in[0] is swallowed, in[1] stands alone. */
static void residual_tail_with_projection(void **state) {
    (void)state;
    for (int later_first = 0; later_first < 2; later_first++) {
        int x;
        vx_graph *g = new_graph(&x);
        const int a = norm(g, conv(g, x)), in = leaky(g, x), b = norm(g, conv(g, in));
        fuse(g, leaky(g, later_first ? vx_graph_add(g, b, a, 1) : vx_graph_add(g, a, b, 1)));
        if (later_first) {
            ASSERT_KINDS(g, VX_OP_INPUT, VX_OP_CONV_NORM_ACT, VX_OP_ACTIVATION, VX_OP_NORM_ACT_ADD);
            assert_int_equal(g->ops[1].act, VX_ACT_NONE);
            assert_int_equal(g->ops[3].in[0], 2);
            assert_int_equal(g->ops[3].in[1], 1);
        } else {
            ASSERT_KINDS(g, VX_OP_INPUT, VX_OP_ACTIVATION, VX_OP_CONV_NORM_ACT, VX_OP_NORM_ACT_ADD);
            assert_int_equal(g->ops[2].in[0], 1);
            assert_int_equal(g->ops[3].in[0], 0);
            assert_int_equal(g->ops[3].in[1], 2);
        }
        vx_graph_free(g);
    }
}

static void addition_without_activation(void **state) {
    (void)state;
    int x;
    vx_graph *g = new_graph(&x);
    const int sum = vx_graph_add(g, norm(g, conv(g, x)), x, 1);
    leaky(g, sum); /* would follow, but the sum is an output */
    fuse(g, sum);
    ASSERT_KINDS(g, VX_OP_INPUT, VX_OP_NORM_ACT_ADD);
    assert_fused_attributes(&g->ops[1], VX_ACT_NONE, 0);
    vx_graph_free(g);
    /* Both inputs conv -> norm and nothing after. */
    g = new_graph(&x);
    const int b = norm(g, conv(g, x)), a = norm(g, conv(g, x));
    fuse(g, vx_graph_add(g, a, b, 1));
    ASSERT_KINDS(g, VX_OP_INPUT, VX_OP_CONV_NORM_ACT, VX_OP_NORM_ACT_ADD);
    vx_graph_free(g);
}

static void values_that_others_read_stay(void **state) {
    (void)state;
    int x;
    /* The convolution is read twice. */
    vx_graph *g = new_graph(&x);
    int c = conv(g, x);
    fuse(g, vx_graph_concat(g, leaky(g, norm(g, c)), c));
    ASSERT_KINDS(g, VX_OP_INPUT, VX_OP_CONV, VX_OP_INSTANCE_NORM, VX_OP_ACTIVATION, VX_OP_CONCAT);
    vx_graph_free(g);
    /* The norm is read twice: fused up to it. */
    g = new_graph(&x);
    int n = norm(g, conv(g, x));
    fuse(g, vx_graph_concat(g, leaky(g, n), n));
    ASSERT_KINDS(g, VX_OP_INPUT, VX_OP_CONV_NORM_ACT, VX_OP_ACTIVATION, VX_OP_CONCAT);
    vx_graph_free(g);
    /* The norm is added to itself. */
    g = new_graph(&x);
    n = norm(g, conv(g, x));
    fuse(g, vx_graph_add(g, n, n, 1));
    ASSERT_KINDS(g, VX_OP_INPUT, VX_OP_CONV_NORM_ACT, VX_OP_ADD);
    vx_graph_free(g);
    /* The convolution, then the norm, is an output. */
    g = new_graph(&x);
    c = conv(g, x);
    vx_graph_output(g, c);
    fuse(g, leaky(g, norm(g, c)));
    ASSERT_KINDS(g, VX_OP_INPUT, VX_OP_CONV, VX_OP_INSTANCE_NORM, VX_OP_ACTIVATION);
    vx_graph_free(g);
    g = new_graph(&x);
    n = norm(g, conv(g, x));
    vx_graph_output(g, n);
    fuse(g, leaky(g, n));
    ASSERT_KINDS(g, VX_OP_INPUT, VX_OP_CONV_NORM_ACT, VX_OP_ACTIVATION);
    vx_graph_free(g);
    /* A scaled sum is no residual tail; a sum that is read twice is fused without its activation.
     */
    g = new_graph(&x);
    fuse(g, leaky(g, vx_graph_add(g, norm(g, conv(g, x)), x, 0.5f)));
    ASSERT_KINDS(g, VX_OP_INPUT, VX_OP_CONV_NORM_ACT, VX_OP_ADD, VX_OP_ACTIVATION);
    vx_graph_free(g);
    g = new_graph(&x);
    const int sum = vx_graph_add(g, norm(g, conv(g, x)), x, 1);
    fuse(g, vx_graph_concat(g, leaky(g, sum), sum));
    ASSERT_KINDS(g, VX_OP_INPUT, VX_OP_NORM_ACT_ADD, VX_OP_ACTIVATION, VX_OP_CONCAT);
    vx_graph_free(g);
}

static void other_norms_stay(void **state) {
    (void)state;
    int x;
    vx_graph *g = new_graph(&x);
    int y = vx_graph_layer_norm(g, conv(g, x), weight(2, 2), weight(3, 2), 1e-5f);
    fuse(g, leaky(g, norm(g, y)));
    ASSERT_KINDS(g, VX_OP_INPUT, VX_OP_CONV, VX_OP_LAYER_NORM, VX_OP_INSTANCE_NORM,
                 VX_OP_ACTIVATION);
    assert_int_equal(vx_graph_fuse(g, NULL), VX_OK); /* nothing more to do */
    assert_int_equal(g->op_count, 5);
    vx_graph_free(g);
}

/* A transposed convolution before a concatenation: as its first input, read by nobody else. */
static void transposed_concat(void **state) {
    (void)state;
    const vx_weight w = weight(0, 2 * 2), bias = weight(1, 2);
    int x;
    vx_graph *g = new_graph(&x);
    fuse(g, vx_graph_concat(g, vx_graph_transposed_conv(g, x, w, bias, 2, one), leaky(g, x)));
    ASSERT_KINDS(g, VX_OP_INPUT, VX_OP_ACTIVATION, VX_OP_TRANSPOSED_CONCAT);
    const vx_op *op = &g->ops[2];
    assert_int_equal(op->in[0], 0);
    assert_int_equal(op->in[1], 1);
    assert_true(op->weight.data == w.data && op->bias.data == bias.data && op->stride[2] == 1);
    assert_int_equal(g->values[2].shape.c, 4);
    /* 2 channels of 120 voxels from 2 channels each. */
    assert_true(vx_op_flops(g, op) == 2 * 2 * 120 * 2);
    vx_graph_free(g);
    g = new_graph(&x);
    fuse(g, vx_graph_concat(g, x, vx_graph_transposed_conv(g, x, w, bias, 2, one)));
    ASSERT_KINDS(g, VX_OP_INPUT, VX_OP_TRANSPOSED_CONV, VX_OP_CONCAT);
    vx_graph_free(g);
    g = new_graph(&x);
    const int up = vx_graph_transposed_conv(g, x, w, bias, 2, one);
    fuse(g, vx_graph_concat(g, up, up));
    ASSERT_KINDS(g, VX_OP_INPUT, VX_OP_TRANSPOSED_CONV, VX_OP_CONCAT);
    vx_graph_free(g);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(conv_norm_act),
        cmocka_unit_test(conv_norm_without_activation),
        cmocka_unit_test(residual_tail),
        cmocka_unit_test(residual_tail_with_projection),
        cmocka_unit_test(addition_without_activation),
        cmocka_unit_test(values_that_others_read_stay),
        cmocka_unit_test(other_norms_stay),
        cmocka_unit_test(transposed_concat),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
