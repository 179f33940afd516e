/* NaN and infinity in an input or a weight are never swallowed: where the reference's output is not
 * finite, that of every fast way is not either. The run then ends with an error (src/infer/slab.c)
 * instead of a mask that looks like one. */
#include "ops.h"

#include <math.h>
#include <stdio.h>

#include "base/memory.h"

static const vx_shape grid = {1, 5, 6, 7, 16};
static const size_t one[3] = {1, 1, 1}, two[3] = {1, 2, 2}, three[3] = {3, 3, 3};

/* Every output number that must not be finite. */
static void check_way(const vx_graph *g, const float *x, const float *truth, ops_how how,
                      const char *what) {
    const size_t n = vx_shape_elements(g->values[g->value_count - 1].shape);
    float *y = ops_run(g, x, how, 0);
    for (size_t i = 0; i < n; i++)
        if (!isfinite(truth[i]) && isfinite(y[i]))
            fail_msg("%s, isa %d%s%s%s: output %zu is %g, the reference's is %g", what,
                     (int)how.isa, how.own_only ? ", own" : "", how.direct_only ? ", direct" : "",
                     how.bf16 ? ", bf16" : "", i, (double)y[i], (double)truth[i]);
    vx_free(y);
}

/* Returns whether the reference gave anything that is not finite. */
static bool check_ways(const vx_graph *g, const float *x, const char *what) {
    const size_t n = vx_shape_elements(g->values[g->value_count - 1].shape);
    float *truth = ops_run(g, x, ops_reference, 0);
    bool spoilt = false;
    for (size_t i = 0; i < n; i++) spoilt = spoilt || !isfinite(truth[i]);
    for (int bf16 = 0; bf16 < 2; bf16++) {
        ops_how ways[OPS_WAYS];
        const size_t count = ops_ways(bf16 != 0, ways);
        for (size_t i = 0; i < count; i++) check_way(g, x, truth, ways[i], what);
    }
    vx_free(truth);
    return spoilt;
}

/* Spoils one number of the input, then of each weight of g, whose last value is its output. */
static void check_graph(vx_graph *g, ops_weights *w, const char *name) {
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    vx_error err;
    char what[120];
    vx_graph_output(g, (int)g->value_count - 1);
    if (vx_graph_finish(g, &err) != VX_OK) fail_msg("%s: %s", name, err.text);
    float *x = ops_input(g, 3);
    for (size_t i = 0; i <= w->count; i++) {
        float *at = i < w->count ? w->blocks[i] : x + vx_shape_elements(g->values[0].shape) / 2;
        for (size_t k = 0; k < sizeof bad / sizeof *bad; k++) {
            const float good = *at;
            *at = bad[k];
            snprintf(what, sizeof what, "%s, %g in %s %zu", name, (double)bad[k],
                     i < w->count ? "weight" : "the input, number", i);
            const bool spoilt = check_ways(g, x, what);
            if (isnan(bad[k]) && !spoilt) fail_msg("%s: the reference swallows it", what);
            *at = good;
        }
    }
    vx_free(x);
    vx_graph_free(g);
    ops_weights_free(w);
}

static vx_graph *begin(int *x) {
    vx_graph *g;
    vx_error err;
    assert_int_equal(vx_graph_create(&g, &err), VX_OK);
    *x = vx_graph_input(g, grid);
    return g;
}

static int convolve(vx_graph *g, ops_weights *w, int x, size_t c_out, const size_t kernel[3],
                    const size_t stride[3], const size_t pad[3]) {
    const size_t filter = grid.c * kernel[0] * kernel[1] * kernel[2];
    return vx_graph_conv(g, x, ops_weight(w, c_out * filter, 0.1f, 0), ops_weight(w, c_out, 1, 0),
                         c_out, kernel, stride, pad);
}

static int normalise(vx_graph *g, ops_weights *w, int x, size_t c) {
    return vx_graph_instance_norm(g, x, ops_weight(w, c, 0.5f, 1), ops_weight(w, c, 1, 0), 1e-5f);
}

static void convolutions(void **state) {
    (void)state;
    ops_weights w = {.seed = 8};
    int x;
    vx_graph *g = begin(&x);
    convolve(g, &w, x, 19, three, one, one);
    check_graph(g, &w, "convolution, 3x3x3");
    g = begin(&x);
    convolve(g, &w, x, 5, three, two, one);
    check_graph(g, &w, "convolution, stride 2");
    g = begin(&x);
    convolve(g, &w, x, 5, one, one, (const size_t[3]){0});
    check_graph(g, &w, "convolution, pointwise");
    g = begin(&x);
    vx_graph_transposed_conv(g, x, ops_weight(&w, grid.c * 5 * 4, 0.3f, 0), ops_weight(&w, 5, 1, 0),
                             5, two);
    check_graph(g, &w, "transposed convolution");
    g = begin(&x);
    vx_graph_linear(g, x, ops_weight(&w, grid.c * 5, 0.3f, 0), ops_weight(&w, 5, 1, 0), 5);
    check_graph(g, &w, "linear");
}

/* A bias before a norm has no effect and is left out, a bad one too: no bias here. */
static void norms(void **state) {
    (void)state;
    ops_weights w = {.seed = 8};
    int x, y;
    vx_graph *g = begin(&x);
    normalise(g, &w, x, grid.c);
    check_graph(g, &w, "instance norm");
    g = begin(&x);
    vx_graph_layer_norm(g, x, ops_weight(&w, grid.c, 0.5f, 1), ops_weight(&w, grid.c, 1, 0), 1e-5f);
    check_graph(g, &w, "layer norm");
    for (int residual = 0; residual < 2; residual++)
        for (int act = VX_ACT_RELU; act <= VX_ACT_SILU; act++) {
            g = begin(&x);
            y = vx_graph_conv(g, x, ops_weight(&w, grid.c * grid.c * 27, 0.1f, 0), (vx_weight){0},
                              grid.c, three, one, one);
            y = normalise(g, &w, y, grid.c);
            if (residual) y = vx_graph_add(g, y, x, 1.0f);
            vx_graph_activation(g, y, (vx_activation)act, 0.01f);
            check_graph(g, &w, residual ? "convolution, norm, residual" : "convolution, norm");
        }
}

static void mixers(void **state) {
    (void)state;
    static const size_t sizes[][4] = {{32, 16, 4, 1}, {24, 5, 3, 2}, {256, 4, 2, 1}};
    const vx_scan_order order = {{2, 0, 1}, true};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        ops_weights w = {.seed = 8};
        int x;
        vx_graph *g = begin(&x);
        const size_t *s = sizes[i];
        const vx_mamba m = ops_mamba(&w, grid.c, s[0], s[1], s[2], s[3], order);
        vx_graph_mamba(g, x, &m);
        check_graph(g, &w, "mixer");
    }
}

static void simple_ops(void **state) {
    (void)state;
    ops_weights w = {.seed = 8};
    int x;
    for (int act = VX_ACT_RELU; act <= VX_ACT_SILU; act++) {
        vx_graph *g = begin(&x);
        vx_graph_activation(g, x, (vx_activation)act, 0.01f);
        check_graph(g, &w, "activation");
    }
    vx_graph *g = begin(&x);
    vx_graph_add(g, x, x, 0.5f);
    check_graph(g, &w, "addition");
    g = begin(&x);
    vx_graph_concat(g, x, x);
    check_graph(g, &w, "concatenation");
    g = begin(&x);
    vx_graph_upsample_nearest(g, x, two);
    check_graph(g, &w, "upsampling");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(convolutions),
        cmocka_unit_test(norms),
        cmocka_unit_test(mixers),
        cmocka_unit_test(simple_ops),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
