/* Convolutions of every kind against the reference. */
#include "ops.h"

#include <math.h>
#include <stdio.h>

#include "base/memory.h"

typedef struct conv_case {
    vx_shape in;
    size_t c_out, kernel[3], stride[3], pad[3];
} conv_case;

static const conv_case cases[] = {
    {{1, 1, 1, 1, 1}, 1, {1, 1, 1}, {1, 1, 1}, {0, 0, 0}},
    {{1, 1, 1, 1, 3}, 5, {3, 3, 3}, {1, 1, 1}, {1, 1, 1}},
    {{1, 3, 1, 2, 2}, 7, {3, 3, 3}, {1, 1, 1}, {1, 1, 1}},
    {{2, 5, 7, 5, 16}, 24, {3, 3, 3}, {1, 1, 1}, {1, 1, 1}},
    {{1, 5, 7, 5, 256}, 64, {3, 3, 3}, {1, 1, 1}, {1, 1, 1}},
    {{1, 5, 7, 5, 256}, 256, {3, 3, 3}, {1, 1, 1}, {1, 1, 1}},
    {{1, 10, 14, 10, 128}, 64, {3, 3, 3}, {1, 1, 1}, {1, 1, 1}},
    {{1, 35, 9, 13, 16}, 33, {3, 3, 3}, {1, 1, 1}, {1, 1, 1}},  /* pieces of 2 planes and 1 */
    {{1, 33, 19, 26, 16}, 16, {3, 3, 3}, {1, 1, 1}, {1, 1, 1}}, /* strips of 3 rows of tiles, 2 */
    {{1, 70, 5, 5, 16}, 16, {3, 3, 3}, {1, 1, 1}, {1, 1, 1}},   /* pieces of 4 planes and 2 */
    {{1, 3, 9, 1, 16}, 17, {3, 3, 3}, {1, 1, 1}, {1, 1, 1}},
    {{1, 3, 2, 11, 17}, 16, {3, 3, 3}, {1, 1, 1}, {1, 1, 1}},
    {{1, 2, 5, 3, 16}, 24, {3, 3, 3}, {1, 1, 1}, {3, 6, 9}}, /* tiles in the padding alone */
    {{2, 3, 3, 4, 16}, 16, {1, 3, 3}, {1, 1, 1}, {0, 0, 0}},
    {{1, 4, 6, 5, 20}, 16, {5, 3, 3}, {1, 1, 1}, {1, 2, 2}},
    {{1, 6, 9, 8, 16}, 32, {3, 3, 3}, {2, 2, 2}, {1, 1, 1}},
    {{1, 7, 9, 11, 8}, 16, {3, 3, 3}, {1, 2, 2}, {1, 1, 1}},
    {{1, 7, 9, 11, 8}, 13, {1, 3, 3}, {1, 1, 1}, {0, 1, 1}},
    {{1, 8, 10, 12, 4}, 8, {1, 3, 3}, {1, 2, 2}, {0, 1, 1}},
    {{1, 9, 6, 7, 12}, 20, {5, 5, 5}, {1, 1, 1}, {2, 2, 2}},
    {{1, 12, 11, 13, 1}, 16, {7, 7, 7}, {2, 2, 2}, {3, 3, 3}},
    {{1, 12, 9, 9, 32}, 32, {3, 3, 3}, {1, 1, 1}, {1, 1, 1}},
    {{1, 13, 11, 7, 17}, 19, {3, 3, 3}, {1, 1, 1}, {1, 1, 1}},
    {{1, 4, 5, 6, 8}, 8, {3, 3, 3}, {1, 1, 1}, {0, 0, 0}},
    {{1, 4, 5, 6, 8}, 8, {2, 2, 2}, {2, 2, 2}, {0, 0, 0}},
    {{1, 5, 5, 5, 8}, 8, {1, 1, 1}, {2, 2, 2}, {0, 0, 0}},
    {{1, 2, 3, 3, 8}, 8, {3, 3, 3}, {1, 1, 1}, {4, 2, 1}}, /* windows in the padding alone */
    {{1, 3, 3, 3, 8}, 16, {5, 1, 3}, {3, 1, 2}, {4, 0, 2}},
    {{3, 17, 3, 29, 31}, 37, {1, 1, 1}, {1, 1, 1}, {0, 0, 0}},
};

static void run_case(const conv_case *c, bool bias, bool normed, bool residual, bool bf16) {
    ops_weights w = {.seed = 99, .coarse = bf16};
    vx_graph *g;
    vx_error err;
    char what[200];
    const size_t filter = c->in.c * c->kernel[0] * c->kernel[1] * c->kernel[2];
    assert_int_equal(vx_graph_create(&g, &err), VX_OK);
    const int x = vx_graph_input(g, c->in);
    vx_weight b = bias ? ops_weight(&w, c->c_out, 1, 0) : (vx_weight){0};
    int y = vx_graph_conv(g, x, ops_weight(&w, c->c_out * filter, 1.7f / sqrtf((float)filter), 0),
                          b, c->c_out, c->kernel, c->stride, c->pad);
    if (normed)
        y = vx_graph_instance_norm(g, y, ops_weight(&w, c->c_out, 0.5f, 1),
                                   ops_weight(&w, c->c_out, 1, 0), 1e-5f);
    if (residual) {
        /* Any tensor of the right shape: another convolution of the input. */
        int other =
            vx_graph_conv(g, x, ops_weight(&w, c->c_out * filter, 1.7f / sqrtf((float)filter), 0),
                          (vx_weight){0}, c->c_out, c->kernel, c->stride, c->pad);
        y = vx_graph_add(g, y, other, 1.0f);
    }
    if (normed) y = vx_graph_activation(g, y, VX_ACT_LEAKY_RELU, 0.01f);
    vx_graph_output(g, y);
    if (vx_graph_finish(g, &err) != VX_OK) fail_msg("%s", err.text);
    snprintf(what, sizeof what, "conv %zux%zux%zux%zux%zu -> %zu kernel %zu,%zu,%zu%s%s%s", c->in.n,
             c->in.d, c->in.h, c->in.w, c->in.c, c->c_out, c->kernel[0], c->kernel[1], c->kernel[2],
             normed ? " norm" : "", residual ? " residual" : "", bf16 ? " bf16" : "");
    /* Float sums of `filter` terms; measured 3e-7 for small ones, 1.5e-6 for 6912 terms. A norm
     * over few voxels magnifies the rounding of what it is given. */
    double tolerance = 5e-7 + 2e-8 * sqrt((double)filter);
    /* Winograd's algorithm rounds up to twice as much as a direct sum: measured 1.75e-6 for 3456
     * terms without fused multiply-adds, 1.4e-6 with them. */
    if (c->kernel[1] == 3 && c->kernel[2] == 3 && c->in.c >= 16) tolerance *= 1.3;
    double error;
    if (!bf16)
        error = ops_check(g, what, normed ? 3 * tolerance : tolerance);
    else /* the convolution's result and what becomes of it are rounded; logits are not */
        error = ops_check_bf16(g, what, normed ? OPS_BF16 * sqrt(residual ? 3 : 2) : tolerance);
    printf("%s: %.2g\n", what, error);
    vx_graph_free(g);
    ops_weights_free(&w);
}

static void plain(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int bf16 = 0; bf16 < 2; bf16++)
            run_case(&cases[i], i % 3 != 0, false, false, bf16 != 0);
}

static size_t voxels_out(const conv_case *c) {
    const size_t in[3] = {c->in.d, c->in.h, c->in.w};
    size_t n = 1;
    for (int i = 0; i < 3; i++) n *= (in[i] + 2 * c->pad[i] - c->kernel[i]) / c->stride[i] + 1;
    return n;
}

/* The fused forms. A norm over a few voxels is left to the norm's own test: there rounding noise
 * becomes the output. */
static void fused(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (voxels_out(&cases[i]) < 16 || cases[i].pad[0] == 4) continue;
        for (int k = 0; k < 4; k++) run_case(&cases[i], true, true, k % 2 != 0, k / 2 != 0);
    }
}

static void transposed(void **state) {
    (void)state;
    static const conv_case list[] = {
        {{1, 1, 1, 1, 1}, 1, {0}, {1, 1, 1}, {0}},  {{1, 1, 1, 1, 5}, 3, {0}, {2, 2, 2}, {0}},
        {{2, 3, 5, 7, 16}, 8, {0}, {2, 2, 2}, {0}}, {{1, 5, 7, 5, 64}, 32, {0}, {1, 2, 2}, {0}},
        {{1, 2, 3, 4, 7}, 17, {0}, {3, 1, 2}, {0}},
    };
    /* Alone and before a concatenation, in both types. */
    for (size_t i = 0; i < 4 * (sizeof list / sizeof *list); i++) {
        const bool bf16 = i % 2 != 0, concat = i / 2 % 2 != 0;
        ops_weights w = {.seed = 5, .coarse = bf16};
        vx_graph *g;
        vx_error err;
        const conv_case *c = &list[i / 4];
        const size_t taps = c->stride[0] * c->stride[1] * c->stride[2];
        assert_int_equal(vx_graph_create(&g, &err), VX_OK);
        const int x = vx_graph_input(g, c->in);
        int y = vx_graph_transposed_conv(
            g, x, ops_weight(&w, c->in.c * c->c_out * taps, 1.7f / sqrtf((float)c->in.c), 0),
            i / 4 % 2 ? ops_weight(&w, c->c_out, 1, 0) : (vx_weight){0}, c->c_out, c->stride);
        if (concat) y = vx_graph_concat(g, y, vx_graph_upsample_nearest(g, x, c->stride));
        vx_graph_output(g, y);
        if (vx_graph_finish(g, &err) != VX_OK) fail_msg("%s", err.text);
        if (bf16)
            ops_check_bf16(g, "transposed convolution", OPS_BF16);
        else
            ops_check(g, "transposed convolution", 1e-6);
        vx_graph_free(g);
        ops_weights_free(&w);
    }
}

static void linear(void **state) {
    (void)state;
    static const size_t widths[][2] = {{1, 1}, {3, 2}, {16, 48}, {65, 33}, {256, 256}};
    static const vx_shape grids[] = {{1, 1, 1, 1, 0}, {2, 3, 5, 7, 0}, {1, 7, 13, 11, 0}};
    for (size_t i = 0; i < 5; i++)
        for (size_t k = 0; k < 3; k++) {
            ops_weights w = {.seed = 6, .coarse = true};
            vx_graph *g;
            vx_error err;
            vx_shape in = grids[k];
            in.c = widths[i][0];
            assert_int_equal(vx_graph_create(&g, &err), VX_OK);
            int y = vx_graph_linear(
                g, vx_graph_input(g, in),
                ops_weight(&w, in.c * widths[i][1], 1.7f / sqrtf((float)in.c), 0),
                k ? ops_weight(&w, widths[i][1], 1, 0) : (vx_weight){0}, widths[i][1]);
            vx_graph_output(g, y);
            if (vx_graph_finish(g, &err) != VX_OK) fail_msg("%s", err.text);
            ops_check(g, "linear", 1e-6);
            ops_check_bf16(g, "linear", 1e-6);
            vx_graph_free(g);
            ops_weights_free(&w);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain),
        cmocka_unit_test(fused),
        cmocka_unit_test(transposed),
        cmocka_unit_test(linear),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
