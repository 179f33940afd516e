/* The Mamba mixer against its sequential reference. */
#include "ops.h"

#include <math.h>
#include <stdio.h>

#include "base/memory.h"

typedef struct mamba_case {
    vx_shape in;
    size_t d_inner, d_state, d_conv, dt_rank;
} mamba_case;

/* In bfloat16 u, dt, z, the gated y and the output are rounded; dt reaches the output through an
 * exponential of a softplus, which damps it. Measured 4.0e-3. */
#define MAMBA_BF16 (2 * OPS_BF16)

/* Relative error of the fast mixer on one case and order; fails beyond tolerance. */
static double run_case(const mamba_case *c, vx_scan_order order, double tolerance) {
    ops_weights w = {.seed = 4711, .coarse = true};
    vx_graph *g;
    vx_error err;
    char what[200];
    assert_int_equal(vx_graph_create(&g, &err), VX_OK);
    const vx_mamba m = ops_mamba(&w, c->in.c, c->d_inner, c->d_state, c->d_conv, c->dt_rank, order);
    vx_graph_output(g, vx_graph_mamba(g, vx_graph_input(g, c->in), &m));
    if (vx_graph_finish(g, &err) != VX_OK) fail_msg("%s", err.text);
    snprintf(what, sizeof what,
             "Mamba %zux%zux%zux%zux%zu D %zu N %zu conv %zu R %zu order %d%d%d%s", c->in.n,
             c->in.d, c->in.h, c->in.w, c->in.c, c->d_inner, c->d_state, c->d_conv, c->dt_rank,
             order.axis[0], order.axis[1], order.axis[2], order.reverse ? " reversed" : "");
    const double error = ops_check(g, what, tolerance);
    printf("%s: %.2g, bf16 %.2g\n", what, error, ops_check_bf16(g, what, MAMBA_BF16));
    vx_graph_free(g);
    ops_weights_free(&w);
    return error;
}

static const vx_scan_order raster = {{0, 1, 2}, false};

/* Sizes that meet no multiple of anything. Measured: 5e-7. */
static void shapes(void **state) {
    (void)state;
    static const mamba_case cases[] = {
        {{1, 1, 1, 1, 1}, 1, 1, 1, 1},        {{1, 1, 1, 1, 4}, 8, 16, 4, 1},
        {{1, 3, 1, 2, 3}, 5, 7, 4, 2},        {{2, 3, 5, 7, 8}, 16, 16, 4, 1},
        {{1, 5, 7, 5, 256}, 512, 256, 4, 16}, {{1, 5, 7, 11, 17}, 34, 64, 4, 3},
        {{1, 5, 9, 14, 32}, 64, 32, 4, 2},    {{1, 5, 7, 10, 128}, 256, 128, 4, 8},
        {{1, 2, 2, 13, 6}, 20, 300, 2, 5},    {{1, 4, 4, 4, 16}, 32, 16, 1, 1},
        {{1, 1, 7, 9, 8}, 24, 4, 9, 40},      {{1, 1, 1, 53, 4}, 16, 4, 60, 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) run_case(&cases[i], raster, 2e-6);
}

static void states(void **state) {
    (void)state;
    static const size_t sizes[] = {1, 4, 16, 64, 256};
    for (size_t i = 0; i < 5; i++) {
        const mamba_case c = {{1, 4, 5, 6, 16}, 32, sizes[i], 4, 1};
        run_case(&c, raster, 2e-6);
    }
}

static void scan_orders(void **state) {
    (void)state;
    static const int axes[6][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2},
                                   {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
    const mamba_case c = {{2, 3, 5, 7, 8}, 16, 8, 4, 1};
    for (int i = 0; i < 6; i++)
        for (int reverse = 0; reverse < 2; reverse++)
            run_case(&c, (vx_scan_order){{axes[i][0], axes[i][1], axes[i][2]}, reverse != 0}, 2e-6);
}

/* One wave and several, the states in one part and several, last ones short. */
static void long_sequences(void **state) {
    (void)state;
    static const mamba_case cases[] = {
        {{1, 17, 19, 23, 4}, 8, 4, 4, 1},     /* one wave, one part */
        {{1, 31, 29, 37, 4}, 8, 4, 4, 1},     /* several waves */
        {{1, 11, 13, 17, 64}, 128, 64, 4, 4}, /* 2 parts of 32 states */
        {{2, 13, 11, 7, 16}, 32, 16, 4, 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) run_case(&cases[i], raster, 3e-6);
}

/* Slow decay: a state that remembers the whole sequence must survive every cut. A = -exp(a_log)
 * with a_log = -12, so that over 30,000 tokens it hardly decays. */
static void slow_decay(void **state) {
    (void)state;
    ops_weights w = {.seed = 31, .coarse = true};
    vx_graph *g;
    vx_error err;
    assert_int_equal(vx_graph_create(&g, &err), VX_OK);
    vx_mamba m = ops_mamba(&w, 4, 8, 4, 4, 1, raster);
    m.a_log = ops_weight(&w, 8 * 4, 0.5f, -12);
    vx_graph_output(g, vx_graph_mamba(g, vx_graph_input(g, (vx_shape){1, 31, 29, 37, 4}), &m));
    if (vx_graph_finish(g, &err) != VX_OK) fail_msg("%s", err.text);
    /* exp(delta A) = 1 - 1e-6 is a float with 6e-8 of rounding: 33,000 of them. */
    printf("slow decay: %.2g\n", ops_check(g, "slow decay", 5e-4));
    printf("slow decay, bf16: %.2g\n", ops_check_bf16(g, "slow decay", MAMBA_BF16));
    vx_graph_free(g);
    ops_weights_free(&w);
}

/* Large steps: softplus beyond 20 is the identity, decay underflows to nothing, no NaN. */
static void large_steps(void **state) {
    (void)state;
    ops_weights w = {.seed = 32, .coarse = true};
    vx_graph *g;
    vx_error err;
    assert_int_equal(vx_graph_create(&g, &err), VX_OK);
    vx_mamba m = ops_mamba(&w, 8, 16, 16, 4, 1, raster);
    m.dt_b = ops_weight(&w, 16, 20, 15);
    vx_graph_output(g, vx_graph_mamba(g, vx_graph_input(g, (vx_shape){1, 9, 11, 13, 8}), &m));
    if (vx_graph_finish(g, &err) != VX_OK) fail_msg("%s", err.text);
    ops_check(g, "large steps", 3e-6);
    printf("large steps, bf16: %.2g\n", ops_check_bf16(g, "large steps", 1.5 * MAMBA_BF16));
    vx_graph_free(g);
    ops_weights_free(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shapes),      cmocka_unit_test(states),
        cmocka_unit_test(scan_orders), cmocka_unit_test(long_sequences),
        cmocka_unit_test(slow_decay),  cmocka_unit_test(large_steps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
