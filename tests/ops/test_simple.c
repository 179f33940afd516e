/* Norms and the ops that touch each number once, against the reference. */
#include "ops.h"

#include <math.h>
#include <stdio.h>

#include "base/memory.h"

static const vx_shape shapes[] = {{1, 1, 1, 1, 1},  {1, 3, 1, 2, 3},   {2, 5, 7, 5, 16},
                                  {1, 5, 7, 5, 33}, {1, 11, 13, 9, 8}, {1, 2, 3, 5, 256},
                                  {1, 9, 31, 33, 4}};
enum { SHAPES = sizeof shapes / sizeof *shapes };

typedef int (*build_fn)(vx_graph *g, ops_weights *w, int x, int variant);

/* rounded: the relative error that bfloat16 may leave, in units of OPS_BF16. */
static void check_all(const char *what, build_fn build, int variants, double tolerance,
                      double rounded) {
    double worst = 0, worst_bf16 = 0;
    for (size_t i = 0; i < SHAPES; i++)
        for (int variant = 0; variant < variants; variant++) {
            ops_weights w = {.seed = 77, .coarse = true};
            vx_graph *g;
            vx_error err;
            char text[100];
            assert_int_equal(vx_graph_create(&g, &err), VX_OK);
            const int x = vx_graph_input(g, shapes[i]);
            const int y = build(g, &w, x, variant);
            if (y >= 0) {
                vx_graph_output(g, y);
                if (vx_graph_finish(g, &err) != VX_OK) fail_msg("%s: %s", what, err.text);
                snprintf(text, sizeof text, "%s, shape %zu, variant %d", what, i, variant);
                const double error = ops_check(g, text, tolerance);
                const double bf16 = ops_check_bf16(g, text, rounded * OPS_BF16);
                if (error > worst) worst = error;
                if (bf16 > worst_bf16) worst_bf16 = bf16;
            }
            vx_graph_free(g);
            ops_weights_free(&w);
        }
    printf("%s: relative L2 %.2g at most, bf16 %.2g\n", what, worst, worst_bf16);
}

static int build_activation(vx_graph *g, ops_weights *w, int x, int variant) {
    (void)w;
    return vx_graph_activation(g, x, (vx_activation)(variant + 1), 0.01f);
}

static void activations(void **state) {
    (void)state;
    check_all("activation", build_activation, 4, 5e-7, 1);
}

static int build_instance_norm(vx_graph *g, ops_weights *w, int x, int variant) {
    const size_t c = g->values[x].shape.c;
    (void)variant;
    return vx_graph_instance_norm(g, x, ops_weight(w, c, 0.5f, 1), ops_weight(w, c, 1, 0), 1e-5f);
}

static int build_layer_norm(vx_graph *g, ops_weights *w, int x, int variant) {
    const size_t c = g->values[x].shape.c;
    (void)variant;
    return vx_graph_layer_norm(g, x, ops_weight(w, c, 0.5f, 1), ops_weight(w, c, 1, 0), 1e-5f);
}

static void norms(void **state) {
    (void)state;
    check_all("instance norm", build_instance_norm, 1, 1e-6, 1);
    check_all("layer norm", build_layer_norm, 1, 1e-6, 1);
}

static int build_pool(vx_graph *g, ops_weights *w, int x, int variant) {
    static const size_t strides[][3] = {{2, 2, 2}, {1, 2, 2}, {3, 1, 2}};
    const vx_shape in = g->values[x].shape;
    const size_t *k = strides[variant];
    (void)w;
    if (in.d < k[0] || in.h < k[1] || in.w < k[2]) return -1;
    return vx_graph_avg_pool(g, x, k);
}

static int build_upsample(vx_graph *g, ops_weights *w, int x, int variant) {
    static const size_t factors[][3] = {{2, 2, 2}, {1, 2, 2}, {3, 1, 2}};
    (void)w;
    return vx_graph_upsample_nearest(g, x, factors[variant]);
}

static int build_add(vx_graph *g, ops_weights *w, int x, int variant) {
    (void)w;
    const int y = vx_graph_activation(g, x, VX_ACT_RELU, 0);
    return variant ? vx_graph_add(g, y, x, 0.25f) : vx_graph_add(g, x, y, 1.0f);
}

static int build_concat(vx_graph *g, ops_weights *w, int x, int variant) {
    const size_t c = g->values[x].shape.c;
    const int y = vx_graph_linear(g, x, ops_weight(w, 5 * c, 1, 0), (vx_weight){0}, 5);
    return variant ? vx_graph_concat(g, y, x) : vx_graph_concat(g, x, y);
}

static void rest(void **state) {
    (void)state;
    check_all("average pooling", build_pool, 3, 2e-7, 1);
    check_all("upsampling", build_upsample, 3, 0, 0);
    check_all("addition", build_add, 2, 0, 1);
    check_all("concatenation", build_concat, 2, 1e-6, 1);
}

/* Instance norm where a careless one loses everything: a mean 1000 times the spread, and a constant
 * channel. */
static void norm_far_from_zero(void **state) {
    (void)state;
    enum { T = 5000, C = 16 };
    float *x = vx_alloc(T * C * sizeof *x), scratch[2 * C];
    double mean[C], m2[C];
    uint64_t seed = 3;
    for (size_t i = 0; i < T * C; i++) x[i] = i % C == 3 ? 7.1f : 1000.0f + ops_random(&seed);
    for (int isa = VX_ISA_BASELINE; isa < VX_ISA_BEST; isa++) {
        const vx_kernels *k = ops_kernels((vx_isa)isa);
        if (!k) continue;
        k->moments(x, T, C, scratch, mean, m2);
        for (size_t c = 0; c < C; c++) {
            double sum = 0, squares = 0;
            for (size_t t = 0; t < T; t++) sum += (double)x[t * C + c];
            sum /= T;
            for (size_t t = 0; t < T; t++)
                squares += ((double)x[t * C + c] - sum) * ((double)x[t * C + c] - sum);
            assert_true(fabs(mean[c] - sum) < 1e-6);
            assert_true(fabs(m2[c] - squares) <= 1e-5 * squares + 1e-7);
        }
    }
    vx_free(x);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(activations),
        cmocka_unit_test(norms),
        cmocka_unit_test(rest),
        cmocka_unit_test(norm_far_from_zero),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
