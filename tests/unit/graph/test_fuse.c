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

/* --- Mamba layers ------------------------------------------------------------------------------
 */

/* Numbered weights of a layer: the addresses tell them apart. */
static const unsigned char numbers[192];

typedef struct layer_builder {
    vx_graph *g;
    size_t next; /* number of the next weight */
    float eps;
} layer_builder;

static vx_weight numbered(layer_builder *b, size_t elements) {
    return (vx_weight){.data = &numbers[b->next++], .dtype = VX_F16, .elements = elements};
}

static int layer_norm(layer_builder *b, int x) {
    const vx_weight gamma = numbered(b, 2), beta = numbered(b, 2);
    return vx_graph_layer_norm(b->g, x, gamma, beta, b->eps);
}

/* 15 weights; the mixer's input projection is number 2, gamma2 11, beta2 12, head 13, bias 14. */
static int mamba_trans(layer_builder *b, int x, bool reverse, size_t states) {
    const int y = layer_norm(b, x);
    const size_t d = 4, r = 1;
    vx_mamba m = {
        .order = {{0, 1, 2}, reverse}, .d_inner = d, .d_state = states, .d_conv = 4, .dt_rank = r};
    m.in_proj = numbered(b, 2 * d * 2);
    m.conv_w = numbered(b, d * 4), m.conv_b = numbered(b, d);
    m.x_proj = numbered(b, (r + 2 * states) * d);
    m.dt_w = numbered(b, d * r), m.dt_b = numbered(b, d);
    m.a_log = numbered(b, d * states), m.d = numbered(b, d), m.out_proj = numbered(b, 2 * d);
    const int x1 = vx_graph_add(b->g, vx_graph_mamba(b->g, y, &m), x, 1);
    const int v = layer_norm(b, x1);
    const vx_weight head = numbered(b, 4), bias = numbered(b, 2);
    return vx_graph_add(b->g, vx_graph_linear(b->g, v, head, bias, 2), x1, 1);
}

static bool take(void *ctx, const vx_op *layer, vx_shape in) {
    assert_int_equal(layer->kind, VX_OP_MAMBA_LAYER);
    assert_int_equal(in.c, 2);
    return *(bool *)ctx;
}

static void fuse_layers(layer_builder *b, int out, bool takes) {
    vx_graph_name(b->g, out, "out");
    vx_graph_output(b->g, out);
    assert_int_equal(vx_graph_finish(b->g, NULL), VX_OK);
    assert_int_equal(vx_graph_fuse_mamba(b->g, take, &takes, NULL), VX_OK);
    const int last = (int)b->g->op_count - 1;
    assert_int_equal(vx_graph_find(b->g, "out"), last);
    assert_int_equal(b->g->ops[last].out, last);
}

static void assert_branch(const vx_mamba_branch *b, size_t first, bool reverse) {
    assert_ptr_equal(b->gamma1.data, &numbers[first]);
    assert_ptr_equal(b->beta1.data, &numbers[first + 1]);
    assert_ptr_equal(b->mamba.in_proj.data, &numbers[first + 2]);
    assert_int_equal(b->mamba.order.reverse, reverse);
    assert_ptr_equal(b->gamma2.data, &numbers[first + 11]);
    assert_ptr_equal(b->beta2.data, &numbers[first + 12]);
    assert_ptr_equal(b->head.data, &numbers[first + 13]);
    assert_ptr_equal(b->head_bias.data, &numbers[first + 14]);
}

static void mamba_layer(void **state) {
    (void)state;
    for (int way = 0; way < 8; way++) {
        const bool before = way & 1, after = way & 2, two = way & 4;
        layer_builder b = {.eps = 1e-3f};
        int x;
        b.g = new_graph(&x);
        const int a = before ? layer_norm(&b, x) : x;
        const size_t first = b.next;
        int y = mamba_trans(&b, a, false, 3);
        if (two) y = vx_graph_add(b.g, y, mamba_trans(&b, a, true, 3), 1);
        const size_t last = b.next;
        if (after) y = layer_norm(&b, y);
        fuse_layers(&b, y, true);
        ASSERT_KINDS(b.g, VX_OP_INPUT, VX_OP_MAMBA_LAYER);
        const vx_op *op = &b.g->ops[1];
        const vx_mamba_layer_op *l = &op->layer;
        assert_int_equal(op->in[0], 0);
        assert_int_equal(op->in[1], -1);
        assert_true(op->eps == 1e-3f);
        assert_true(op->scale == 1.0f);
        assert_int_equal(l->parts, 1);
        assert_int_equal(l->branches, two ? 2 : 1);
        const vx_mamba_part *p = &l->part[0];
        assert_branch(&p->branch[0], first, false);
        if (two) assert_branch(&p->branch[1], first + 15, true);
        assert_ptr_equal(p->in_gamma.data, before ? &numbers[0] : NULL);
        assert_ptr_equal(p->in_beta.data, before ? &numbers[1] : NULL);
        assert_ptr_equal(p->out_gamma.data, after ? &numbers[last] : NULL);
        assert_ptr_equal(p->out_beta.data, after ? &numbers[last + 1] : NULL);
        /* A token's mixer: four projections, convolution, recurrence; then two norms, two sums and
         * the head; the norms outside. */
        const double mixer = 2 * (2 * 8 + 4 * 7 + 4 + 8) + 2 * 4 * 4 + 7 * 4 * 3;
        assert_true(vx_op_flops(b.g, op) == 120 * ((two ? 2 : 1) * (mixer + 2 * (2 * 2 + 17)) +
                                                   2 * 7.0 * ((before ? 1 : 0) + (after ? 1 : 0))));
        vx_graph_free(b.g);
    }
}

/* Two to four layers of both directions and a last norm, 32 weights each, and their scaled sum;
 * five are one too many: the last one is added to the others. */
static void sum_of_mamba_layers(void **state) {
    (void)state;
    for (size_t parts = 2; parts <= 5; parts++) {
        layer_builder b = {.eps = 1e-3f};
        int x, sum = -1;
        b.g = new_graph(&x);
        for (size_t k = 0; k < parts; k++) {
            const int f = mamba_trans(&b, x, false, 3), r = mamba_trans(&b, x, true, 3);
            const int y = layer_norm(&b, vx_graph_add(b.g, f, r, 1));
            sum = k ? vx_graph_add(b.g, sum, y, k + 1 == parts ? 0.25f : 1.0f) : y;
        }
        fuse_layers(&b, sum, true);
        if (parts == 5)
            ASSERT_KINDS(b.g, VX_OP_INPUT, VX_OP_MAMBA_LAYER, VX_OP_MAMBA_LAYER, VX_OP_ADD);
        else
            ASSERT_KINDS(b.g, VX_OP_INPUT, VX_OP_MAMBA_LAYER);
        const vx_op *op = &b.g->ops[1];
        assert_int_equal(op->in[0], 0);
        assert_true(op->eps == 1e-3f);
        assert_true(op->scale == (parts == 5 ? 1.0f : 0.25f));
        assert_int_equal(op->layer.parts, parts == 5 ? 4 : parts);
        assert_int_equal(op->layer.branches, 2);
        for (size_t k = 0; k < op->layer.parts; k++) {
            const vx_mamba_part *p = &op->layer.part[k];
            assert_branch(&p->branch[0], 32 * k, false);
            assert_branch(&p->branch[1], 32 * k + 15, true);
            assert_null(p->in_gamma.data);
            assert_ptr_equal(p->out_gamma.data, &numbers[32 * k + 30]);
            assert_ptr_equal(p->out_beta.data, &numbers[32 * k + 31]);
        }
        /* As one by one, and the additions. */
        const double mixer = 2 * (2 * 8 + 4 * 7 + 4 + 8) + 2 * 4 * 4 + 7 * 4 * 3;
        const double part = 2 * (mixer + 2 * (2 * 2 + 17)) + 2 * 7.0;
        const double n = (double)op->layer.parts;
        assert_true(vx_op_flops(b.g, op) == 120 * (n * part + 2 * (n - 1)));
        vx_graph_free(b.g);
    }
}

/* Sums that stay: of another value's layer, of other sizes, of a layer that is an output or read
 * twice, of a scaled sum. */
static void no_sum_of_mamba_layers(void **state) {
    (void)state;
    for (int way = 0; way < 5; way++) {
        layer_builder b = {.eps = 1e-3f};
        int x;
        b.g = new_graph(&x);
        const int first = layer_norm(&b, mamba_trans(&b, x, false, 3));
        const int from = way == 0 ? leaky(b.g, x) : x;
        const int second = layer_norm(&b, mamba_trans(&b, from, true, way == 1 ? 5 : 3));
        if (way == 2) vx_graph_output(b.g, first);
        int sum = vx_graph_add(b.g, first, second, way == 4 ? 0.5f : 1.0f);
        if (way == 3) sum = vx_graph_add(b.g, sum, second, 1.0f);
        if (way == 4) sum = vx_graph_add(b.g, sum, layer_norm(&b, mamba_trans(&b, x, true, 3)), 1);
        fuse_layers(&b, sum, true);
        size_t layers = 0, whole = 0;
        for (size_t i = 0; i < b.g->op_count; i++) {
            const vx_op *op = &b.g->ops[i];
            layers += op->kind == VX_OP_MAMBA_LAYER && op->layer.parts == 1;
            whole += op->kind == VX_OP_MAMBA_LAYER && op->layer.parts > 1;
        }
        /* Of a scaled sum the inner one is a layer by itself. */
        assert_int_equal(layers, way == 4 ? 1 : 2);
        assert_int_equal(whole, way == 4);
        assert_int_equal(b.g->ops[b.g->op_count - 1].kind, VX_OP_ADD);
        vx_graph_free(b.g);
    }
}

/* What must stay as it is: a backend that has no such step, other epsilons, values between that are
 * outputs or have other readers, branches of other sizes or of other values. */
static void no_mamba_layer(void **state) {
    (void)state;
    for (int way = 0; way < 6; way++) {
        layer_builder b = {.eps = 1e-3f};
        int x;
        b.g = new_graph(&x);
        const int f = mamba_trans(&b, x, false, 3);
        const int from = way == 1 ? leaky(b.g, x) : x;
        const int r = mamba_trans(&b, from, true, way == 2 ? 5 : 3);
        int sum = vx_graph_add(b.g, f, r, way == 3 ? 0.5f : 1.0f);
        if (way == 4) vx_graph_output(b.g, sum);
        if (way == 5) b.eps = 1e-5f;
        const int y = layer_norm(&b, sum);
        fuse_layers(&b, y, way != 0);
        size_t layers = 0, whole = 0;
        for (size_t i = 0; i < b.g->op_count; i++) {
            layers += b.g->ops[i].kind == VX_OP_MAMBA_LAYER;
            whole += b.g->ops[i].kind == VX_OP_MAMBA_LAYER && b.g->ops[i].layer.branches == 2;
        }
        /* Each branch by itself, with another scale as two layers of one branch; or, where only the
         * last norm does not fit, both without it. */
        assert_int_equal(layers, way == 0 ? 0 : way <= 2 ? 2 : 1);
        assert_int_equal(whole, way >= 4);
        assert_int_equal(b.g->ops[b.g->op_count - 1].kind, VX_OP_LAYER_NORM);
        vx_graph_free(b.g);
    }
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
        cmocka_unit_test(mamba_layer),
        cmocka_unit_test(no_mamba_layer),
        cmocka_unit_test(sum_of_mamba_layers),
        cmocka_unit_test(no_sum_of_mamba_layers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
