/* Every op of the CUDA backend against the scalar reference: odd shapes, three types, poisoned
 * memory, guard bytes, the same bits again, with and without a CUDA graph; what overflows in fp16.
 *
 *   cuda_ops [PATTERN]     PATTERN: of the names of tests, as a shell's (for compute-sanitizer) */
#include "ops.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "cuda_run.h"

static const size_t one[3] = {1, 1, 1}, three[3] = {3, 3, 3};

static const struct type {
    const char *name;
    vx_precision precision;
    double
        rounding; /* relative L2 of random numbers rounded to it once: half an ulp, evenly spread */
} types[] = {{"fp32", VX_PRECISION_FP32, 0},
             {"fp16", VX_PRECISION_FP16, OPS_BF16 / 8},
             {"bf16", VX_PRECISION_BF16, OPS_BF16}};

/* A graph of one op, or a few, and how exact it is: the relative L2 of fp32 sums, and how often a
 * number is rounded to the storage type on its way (independent roundings add in squares). */
static void check_graph(vx_graph *g, const char *what, double fp32, double roundings) {
    static const cuda_how ways[] = {{.eager = true, .separate = true}, {.eager = false}};
    vx_error err;
    float *truth[OPS_OUTPUTS];
    if (vx_graph_finish(g, &err) != VX_OK) fail_msg("%s: %s", what, err.text);
    float *x = ops_input(g, 12345);
    const size_t outputs = ops_run_all(g, x, ops_reference, truth);
    for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
        float *results[2][OPS_OUTPUTS];
        for (size_t w = 0; w < 2; w++) {
            cuda_how how = ways[w];
            how.precision = types[t].precision;
            assert_int_equal(cuda_run_all(g, x, how, results[w]), outputs);
        }
        size_t k = 0;
        for (size_t v = 0; v < g->value_count; v++) {
            if (!g->values[v].output) continue;
            const size_t n = vx_shape_elements(g->values[v].shape);
            /* Few numbers may be unlucky. */
            const double allowed = (fp32 + types[t].rounding * sqrt(roundings)) * (n < 64 ? 2 : 1);
            const double error = ops_relative(results[0][k], truth[k], n);
            printf("%-48s %s output %zu: %.2g (allowed %.2g)\n", what, types[t].name, k, error,
                   allowed);
            fflush(stdout);
            if (!(error <= allowed))
                fail_msg("%s, %s: relative L2 %.3g, allowed %.3g", what, types[t].name, error,
                         allowed);
            if (memcmp(results[0][k], results[1][k], n * sizeof(float)) != 0)
                fail_msg("%s, %s: other bits from the CUDA graph", what, types[t].name);
            vx_free(results[0][k]);
            vx_free(results[1][k]);
            k++;
        }
    }
    for (size_t k = 0; k < outputs; k++) vx_free(truth[k]);
    vx_free(x);
    vx_graph_free(g);
}

static vx_graph *begin(vx_shape shape, int *x) {
    vx_graph *g;
    vx_error err;
    assert_int_equal(vx_graph_create(&g, &err), VX_OK);
    *x = vx_graph_input(g, shape);
    return g;
}

/* Marks y as the output and checks. */
static void end(vx_graph *g, int y, ops_weights *w, const char *what, double fp32,
                double roundings) {
    vx_graph_output(g, y);
    check_graph(g, what, fp32, roundings);
    ops_weights_free(w);
}

/* --- convolutions ----------------------------------------------------------------------------- */

typedef struct conv_case {
    vx_shape in;
    size_t c_out, kernel[3], stride[3], pad[3];
} conv_case;

static const conv_case convs[] = {
    {{1, 1, 1, 1, 1}, 1, {1, 1, 1}, {1, 1, 1}, {0, 0, 0}},
    {{1, 3, 1, 2, 2}, 7, {3, 3, 3}, {1, 1, 1}, {1, 1, 1}},
    {{2, 5, 7, 5, 16}, 24, {3, 3, 3}, {1, 1, 1}, {1, 1, 1}},
    {{1, 16, 12, 20, 4}, 32, {3, 3, 3}, {1, 1, 1}, {1, 1, 1}},
    {{1, 5, 7, 5, 256}, 64, {3, 3, 3}, {1, 1, 1}, {1, 1, 1}},
    {{1, 6, 9, 8, 16}, 32, {3, 3, 3}, {2, 2, 2}, {1, 1, 1}},
    {{1, 7, 9, 11, 8}, 13, {1, 3, 3}, {1, 1, 1}, {0, 1, 1}},
    {{1, 8, 10, 12, 4}, 8, {1, 3, 3}, {1, 2, 2}, {0, 1, 1}},
    {{1, 12, 11, 13, 1}, 16, {7, 7, 7}, {2, 2, 2}, {3, 3, 3}},
    {{1, 13, 11, 7, 17}, 19, {3, 3, 3}, {1, 1, 1}, {1, 1, 1}},
    {{1, 5, 5, 5, 8}, 8, {1, 1, 1}, {2, 2, 2}, {0, 0, 0}},
    {{3, 17, 3, 29, 31}, 37, {1, 1, 1}, {1, 1, 1}, {0, 0, 0}},
};

static void run_conv(const conv_case *c, bool bias, bool normed, bool residual) {
    ops_weights w = {.seed = 99, .coarse = true};
    char what[160];
    int x;
    const size_t filter = c->in.c * c->kernel[0] * c->kernel[1] * c->kernel[2];
    const float scale = 1.7f / sqrtf((float)filter);
    vx_graph *g = begin(c->in, &x);
    vx_weight b = bias ? ops_weight(&w, c->c_out, 1, 0) : (vx_weight){0};
    int y = vx_graph_conv(g, x, ops_weight(&w, c->c_out * filter, scale, 0), b, c->c_out, c->kernel,
                          c->stride, c->pad);
    if (normed)
        y = vx_graph_instance_norm(g, y, ops_weight(&w, c->c_out, 0.5f, 1),
                                   ops_weight(&w, c->c_out, 1, 0), 1e-5f);
    if (residual) {
        int other = vx_graph_conv(g, x, ops_weight(&w, c->c_out * filter, scale, 0), (vx_weight){0},
                                  c->c_out, c->kernel, c->stride, c->pad);
        y = vx_graph_add(g, y, other, 1.0f);
    }
    if (normed) y = vx_graph_activation(g, y, VX_ACT_LEAKY_RELU, 0.01f);
    snprintf(what, sizeof what, "conv %zux%zux%zux%zux%zu->%zu k%zu%zu%zu s%zu%s%s%s", c->in.n,
             c->in.d, c->in.h, c->in.w, c->in.c, c->c_out, c->kernel[0], c->kernel[1], c->kernel[2],
             c->stride[2], bias ? " bias" : "", normed ? " norm" : "", residual ? " residual" : "");
    const double fp32 = 5e-7 + 2e-8 * sqrt((double)filter);
    end(g, y, &w, what, normed ? 3 * fp32 : 2 * fp32, residual ? 3 : 2);
}

static void convolutions(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof convs / sizeof *convs; i++) {
        run_conv(&convs[i], i % 2 == 0, false, false);
        const vx_shape in = convs[i].in;
        if (in.d * in.h * in.w > 64) { /* of few voxels a norm magnifies the rounding */
            run_conv(&convs[i], i % 2 == 1, true, false);
            run_conv(&convs[i], false, true, true);
        }
    }
}

static void transposed(void **state) {
    static const struct {
        vx_shape in;
        size_t c_out, stride[3];
    } cases[] = {{{1, 1, 1, 1, 1}, 1, {2, 2, 2}},      {{1, 3, 5, 4, 32}, 16, {2, 2, 2}},
                 {{2, 3, 5, 4, 9}, 7, {1, 2, 2}},      {{1, 2, 3, 1, 320}, 256, {2, 2, 2}},
                 {{2, 13, 11, 19, 48}, 96, {1, 2, 2}}, {{1, 16, 15, 18, 16}, 32, {2, 2, 2}},
                 {{2, 14, 19, 9, 64}, 32, {2, 1, 3}},  {{1, 17, 16, 16, 64}, 32, {2, 2, 2}}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ops_weights w = {.seed = 7, .coarse = true};
        const size_t *s = cases[i].stride, c = cases[i].in.c;
        char what[80];
        int x;
        vx_graph *g = begin(cases[i].in, &x);
        vx_weight weight =
            ops_weight(&w, c * cases[i].c_out * s[0] * s[1] * s[2], 1.7f / sqrtf((float)c), 0);
        vx_weight bias = i % 2 ? ops_weight(&w, cases[i].c_out, 1, 0) : (vx_weight){0};
        int y = vx_graph_transposed_conv(g, x, weight, bias, cases[i].c_out, s);
        if (i % 2) /* joined with a skip of another width, as decoders do */
            y = vx_graph_concat(g, y, vx_graph_upsample_nearest(g, x, s));
        snprintf(what, sizeof what, "transposed %zu->%zu s%zu%zu%zu", c, cases[i].c_out, s[0], s[1],
                 s[2]);
        end(g, y, &w, what, 2e-6, 1.2); /* the bias is rounded too */
    }
}

/* --- one op on one tensor --------------------------------------------------------------------- */

static const vx_shape shapes[] = {{1, 1, 1, 1, 1},    {1, 3, 5, 7, 1},  {2, 3, 5, 7, 6},
                                  {1, 13, 11, 9, 17}, {1, 7, 9, 8, 32}, {3, 4, 4, 6, 320},
                                  {1, 35, 33, 29, 4}, {1, 2, 2, 2, 7}};
enum { SHAPES = sizeof shapes / sizeof *shapes };

static void norms(void **state) {
    (void)state;
    for (int i = 0; i < SHAPES; i++) {
        const vx_shape s = shapes[i];
        ops_weights w = {.seed = 5, .coarse = true};
        char what[80];
        int x;
        vx_graph *g = begin(s, &x);
        int y = vx_graph_layer_norm(g, x, ops_weight(&w, s.c, 0.5f, 1), ops_weight(&w, s.c, 1, 0),
                                    1e-5f);
        snprintf(what, sizeof what, "layer norm %zu channels", s.c);
        end(g, y, &w, what, 2e-6, 1);
        if (s.d * s.h * s.w < 2) continue;
        g = begin(s, &x);
        y = vx_graph_instance_norm(g, x, ops_weight(&w, s.c, 0.5f, 1), ops_weight(&w, s.c, 1, 0),
                                   1e-5f);
        snprintf(what, sizeof what, "instance norm %zux%zux%zux%zux%zu", s.n, s.d, s.h, s.w, s.c);
        end(g, y, &w, what, 2e-6, 1);
    }
}

/* A mean of a thousand deviations: the statistics must not cancel. */
static void norm_far_from_zero(void **state) {
    (void)state;
    ops_weights w = {.seed = 5, .coarse = true};
    const vx_shape s = {1, 24, 20, 28, 12};
    int x;
    vx_error err;
    vx_graph *g = begin(s, &x);
    vx_graph_output(g, vx_graph_instance_norm(g, x, ops_weight(&w, s.c, 0.5f, 1),
                                              ops_weight(&w, s.c, 1, 0), 1e-5f));
    if (vx_graph_finish(g, &err) != VX_OK) fail_msg("%s", err.text);
    float *in = ops_input(g, 3), *truth = NULL, *result[OPS_OUTPUTS];
    for (size_t i = 0; i < vx_shape_elements(s); i++) in[i] += 900;
    truth = ops_run(g, in, ops_reference, 0);
    cuda_run_all(g, in, (cuda_how){.precision = VX_PRECISION_FP32}, result);
    const double error = ops_relative(result[0], truth, vx_shape_elements(s));
    printf("instance norm about 900: %.2g\n", error);
    /* An ulp of 900 is 6e-5, which the mean is rounded to; the deviation is 0.9. */
    assert_true(error < 1e-4);
    vx_free(result[0]);
    vx_free(truth);
    vx_free(in);
    vx_graph_free(g);
    ops_weights_free(&w);
}

static void activations(void **state) {
    static const vx_activation acts[] = {VX_ACT_RELU, VX_ACT_LEAKY_RELU, VX_ACT_GELU, VX_ACT_SILU};
    (void)state;
    for (int i = 0; i < SHAPES; i++)
        for (int a = 0; a < 4; a++) {
            ops_weights w = {0};
            char what[40];
            int x;
            vx_graph *g = begin(shapes[i], &x);
            int y = vx_graph_activation(g, x, acts[a], 0.01f);
            snprintf(what, sizeof what, "activation %d", (int)acts[a]);
            end(g, y, &w, what, 1e-6, 1);
        }
}

/* Values that are used twice, outputs that are read again, the input as an output. */
static void sums_and_joins(void **state) {
    (void)state;
    for (int i = 0; i < SHAPES; i++) {
        ops_weights w = {.seed = 3, .coarse = true};
        int x;
        vx_graph *g = begin(shapes[i], &x);
        int a = vx_graph_activation(g, x, VX_ACT_RELU, 0);
        int b = vx_graph_add(g, x, a, 0.5f);
        vx_graph_output(g, x);
        vx_graph_output(g, b);
        int c = vx_graph_concat(g, b, a);
        c = vx_graph_concat(g, c, x);
        c = vx_graph_add(g, c, c, 1.0f);
        end(g, c, &w, "sums and joins", 1e-6, 2);
    }
}

static void pool_and_upsample(void **state) {
    static const size_t steps[][3] = {{1, 1, 1}, {2, 2, 2}, {1, 2, 3}};
    (void)state;
    for (int i = 1; i < SHAPES - 1; i++)
        for (int k = 0; k < 3; k++) {
            ops_weights w = {0};
            int x;
            vx_graph *g = begin(shapes[i], &x);
            end(g, vx_graph_upsample_nearest(g, x, steps[k]), &w, "upsample", 1e-7, 1);
            g = begin(shapes[i], &x);
            end(g, vx_graph_avg_pool(g, x, steps[k]), &w, "average pool", 1e-6, 1);
        }
}

static void linear(void **state) {
    static const size_t c_out[] = {1, 3, 16, 65, 4, 8};
    (void)state;
    for (int i = 0; i < SHAPES; i++)
        for (size_t k = 0; k < sizeof c_out / sizeof *c_out; k++) {
            ops_weights w = {.seed = 3, .coarse = true};
            const size_t c = shapes[i].c;
            char what[60];
            int x;
            vx_graph *g = begin(shapes[i], &x);
            vx_weight bias = k % 2 ? ops_weight(&w, c_out[k], 1, 0) : (vx_weight){0};
            int y = vx_graph_linear(g, x, ops_weight(&w, c_out[k] * c, 1.7f / sqrtf((float)c), 0),
                                    bias, c_out[k]);
            snprintf(what, sizeof what, "linear %zu->%zu", c, c_out[k]);
            end(g, y, &w, what, 2e-6, 1);
        }
}

/* --- Mamba ------------------------------------------------------------------------------------ */

static void mamba(void **state) {
    static const vx_scan_order orders[] = {{{0, 1, 2}, false}, {{0, 1, 2}, true},
                                           {{2, 1, 0}, false}, {{1, 2, 0}, true},
                                           {{2, 0, 1}, false}, {{1, 0, 2}, true}};
    static const struct {
        vx_shape shape;
        size_t d_inner, d_state, d_conv, dt_rank;
    } cases[] = {{{1, 1, 1, 1, 1}, 1, 1, 1, 1},        {{1, 3, 5, 7, 4}, 8, 16, 4, 1},
                 {{2, 3, 2, 5, 7}, 14, 5, 4, 3},       {{1, 9, 7, 11, 32}, 64, 32, 4, 2},
                 {{1, 4, 4, 5, 160}, 320, 160, 4, 10}, {{9, 2, 3, 2, 16}, 32, 16, 3, 1}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (size_t k = 0; k < sizeof orders / sizeof *orders; k++) {
            ops_weights w = {.seed = 11 + i, .coarse = true};
            char what[100];
            int x;
            if (i > 3 && k > 1) continue;
            vx_graph *g = begin(cases[i].shape, &x);
            const vx_mamba m = ops_mamba(&w, cases[i].shape.c, cases[i].d_inner, cases[i].d_state,
                                         cases[i].d_conv, cases[i].dt_rank, orders[k]);
            int y = vx_graph_mamba(g, x, &m);
            snprintf(what, sizeof what, "mamba C%zu D%zu N%zu K%zu R%zu order %d%d%d%s",
                     cases[i].shape.c, m.d_inner, m.d_state, m.d_conv, m.dt_rank, orders[k].axis[0],
                     orders[k].axis[1], orders[k].axis[2], orders[k].reverse ? " reverse" : "");
            /* Rounded on the way: u before and after the convolution, z, dt, B, C, delta, y, out.
             */
            end(g, y, &w, what, 5e-6, 9);
        }
}

/* --- Mamba layers ------------------------------------------------------------------------------
 */

typedef struct layer_case {
    vx_shape shape;
    size_t d_inner, d_state, dt_rank, branches;
    bool before, after, bias;
    bool whole; /* there is a step for all of it, in half types */
} layer_case;

static int layer_norm(vx_graph *g, ops_weights *w, int x) {
    const size_t c = g->values[x].shape.c;
    return vx_graph_layer_norm(g, x, ops_weight(w, c, 0.5f, 1), ops_weight(w, c, 0.5f, 0), 1e-5f);
}

/* MambaTrans: its equations are at vx_mamba_branch. */
static int mamba_trans(vx_graph *g, ops_weights *w, int x, const layer_case *c,
                       vx_scan_order order) {
    const size_t width = c->shape.c;
    const vx_mamba m = ops_mamba(w, width, c->d_inner, c->d_state, 4, c->dt_rank, order);
    x = vx_graph_add(g, vx_graph_mamba(g, layer_norm(g, w, x), &m), x, 1.0f);
    const vx_weight bias = c->bias ? ops_weight(w, width, 0.5f, 0) : (vx_weight){0};
    const vx_weight head = ops_weight(w, width * width, 1.7f / sqrtf((float)width), 0);
    return vx_graph_add(g, vx_graph_linear(g, layer_norm(g, w, x), head, bias, width), x, 1.0f);
}

/* Whether the backend makes one step of the graph. */
static void check_steps(vx_graph *g, bool one_step) {
    vx_error err;
    if (vx_graph_finish(g, &err) != VX_OK) fail_msg("%s", err.text);
    if (cuda_has_matrix_units()) assert_int_equal(cuda_steps(g, VX_PRECISION_FP16) == 1, one_step);
}

/* Layers of several orders and their mean. */
static void sums_of_mamba_layers(void **state) {
    static const vx_scan_order orders[] = {
        {{0, 1, 2}, false}, {{0, 2, 1}, true}, {{1, 0, 2}, false}, {{2, 0, 1}, true}};
    static const struct {
        layer_case layer;
        size_t parts;
    } cases[] = {
        {{{1, 9, 7, 11, 32}, 64, 32, 2, 2, false, true, true, true}, 4},
        {{{2, 5, 6, 7, 64}, 128, 64, 4, 2, false, true, true, true}, 4}, /* 16 scans */
        {{{1, 4, 3, 5, 96}, 192, 48, 6, 1, true, false, false, true}, 3},
        {{{3, 3, 2, 3, 320}, 640, 64, 20, 2, false, true, true, true}, 2},
        {{{1, 5, 4, 3, 24}, 48, 24, 2, 2, false, true, true, false}, 4}, /* 24 features */
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const layer_case *c = &cases[i].layer;
        ops_weights w = {.seed = 41 + i, .coarse = true};
        char what[100];
        int x, sum = -1;
        vx_graph *g = begin(c->shape, &x);
        for (size_t k = 0; k < cases[i].parts; k++) {
            const float scale = k + 1 == cases[i].parts ? 0.25f : 1.0f;
            const int a = c->before ? layer_norm(g, &w, x) : x;
            int y = mamba_trans(g, &w, a, c, orders[k]);
            if (c->branches == 2)
                y = vx_graph_add(g, y, mamba_trans(g, &w, a, c, orders[3 - k]), 1);
            if (c->after) y = layer_norm(g, &w, y);
            sum = k ? vx_graph_add(g, sum, y, scale) : y;
        }
        vx_graph_output(g, sum);
        check_steps(g, c->whole);
        snprintf(what, sizeof what, "%zu Mamba layers C%zu D%zu N%zu R%zu, %zu branches",
                 cases[i].parts, c->shape.c, c->d_inner, c->d_state, c->dt_rank, c->branches);
        /* As of one layer, and each partial sum. */
        check_graph(g, what, 5e-6, 9);
        ops_weights_free(&w);
    }
}

static void mamba_layers(void **state) {
    static const layer_case cases[] = {
        {{2, 4, 5, 3, 32}, 64, 32, 2, 2, true, true, true, true},
        {{1, 9, 7, 11, 32}, 64, 32, 2, 2, true, false, false, true},
        {{5, 2, 3, 7, 32}, 64, 16, 2, 2, false, true, true, true}, /* more scans than in a launch */
        {{1, 5, 6, 7, 64}, 128, 64, 4, 2, true, true, true, true},
        {{3, 3, 5, 4, 96}, 192, 48, 6, 1, true, false, true, true},
        {{1, 4, 3, 5, 160}, 320, 160, 10, 2, true, true, false, true},
        {{1, 2, 3, 3, 320}, 640, 256, 20, 2, false, false, true, true},
        {{1, 5, 4, 3, 24}, 48, 24, 2, 2, true, true, true, false}, /* 24 features */
        {{2, 5, 4, 3, 64}, 128, 16, 4, 2, true, true, true, true},
        {{1, 5, 4, 3, 64}, 128, 8, 4, 2, true, true, true, false}, /* rank 4 for 8 states */
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const layer_case *c = &cases[i];
        ops_weights w = {.seed = 21 + i, .coarse = true};
        char what[100];
        int x;
        vx_graph *g = begin(c->shape, &x);
        if (c->before) x = layer_norm(g, &w, x);
        int y = mamba_trans(g, &w, x, c, (vx_scan_order){{0, 1, 2}, false});
        if (c->branches == 2)
            y = vx_graph_add(g, y, mamba_trans(g, &w, x, c, (vx_scan_order){{2, 0, 1}, true}), 1);
        if (c->after) y = layer_norm(g, &w, y);
        vx_graph_output(g, y);
        check_steps(g, c->whole);
        snprintf(what, sizeof what, "Mamba layer C%zu D%zu N%zu R%zu, %zu branches", c->shape.c,
                 c->d_inner, c->d_state, c->dt_rank, c->branches);
        /* Rounded on the way: a, v, u, z, dt, B, C, y, the head's input, out; without a layer of
         * one step also x1 and the sums. */
        check_graph(g, what, 5e-6, 6);
        ops_weights_free(&w);
    }
}

/* --- norms left to the readers ---------------------------------------------------------------- */

static int conv_norm(vx_graph *g, ops_weights *w, int x, size_t c_in, size_t c_out, bool wide) {
    const size_t *kernel = wide ? three : one, taps = wide ? 27 : 1;
    static const size_t none[3] = {0, 0, 0};
    x = vx_graph_conv(g, x,
                      ops_weight(w, c_out * c_in * taps, 1.7f / sqrtf((float)(c_in * taps)), 0),
                      (vx_weight){0}, c_out, kernel, one, wide ? one : none);
    return vx_graph_instance_norm(g, x, ops_weight(w, c_out, 0.5f, 1), ops_weight(w, c_out, 1, 0),
                                  1e-5f);
}

/* Two residual blocks, one with a convolution beside it, and a head. Values that a norm could be
 * left in are outputs, or none is. */
static vx_graph *residual_blocks(ops_weights *w, vx_activation act, bool outputs) {
    int x;
    vx_graph *g = begin((vx_shape){1, 11, 13, 17, 32}, &x);
    int stem = conv_norm(g, w, x, 32, 32, true);
    stem = vx_graph_activation(g, stem, act, 0.01f);
    int a = vx_graph_activation(g, conv_norm(g, w, stem, 32, 32, true), act, 0.01f);
    int y = vx_graph_add(g, conv_norm(g, w, a, 32, 32, true), stem, 1.0f);
    y = vx_graph_activation(g, y, act, 0.01f);
    int b = vx_graph_activation(g, conv_norm(g, w, y, 32, 64, true), act, 0.01f);
    int side = conv_norm(g, w, y, 32, 64, false);
    if (outputs) {
        vx_graph_output(g, stem);
        vx_graph_output(g, a);
        vx_graph_output(g, b);
        vx_graph_output(g, side);
    }
    y = vx_graph_activation(g, vx_graph_add(g, conv_norm(g, w, b, 64, 64, true), side, 1.0f), act,
                            0.01f);
    y = vx_graph_activation(g, conv_norm(g, w, y, 64, 32, true), act, 0.01f);
    vx_graph_output(
        g, vx_graph_linear(g, y, ops_weight(w, 3 * 32, 0.3f, 0), ops_weight(w, 3, 1, 0), 3));
    return g;
}

/* The same bits whether a norm is applied at once or by the readers. */
static void norms_left_to_readers(void **state) {
    static const vx_activation acts[] = {VX_ACT_LEAKY_RELU, VX_ACT_RELU, VX_ACT_SILU};
    (void)state;
    for (size_t i = 0; i < sizeof acts / sizeof *acts; i++)
        for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
            float *results[2][OPS_OUTPUTS];
            size_t count[2], n = 0;
            for (int outputs = 0; outputs < 2; outputs++) {
                ops_weights w = {.seed = 7, .coarse = true};
                vx_error err;
                vx_graph *g = residual_blocks(&w, acts[i], outputs);
                if (vx_graph_finish(g, &err) != VX_OK) fail_msg("%s", err.text);
                float *x = ops_input(g, 12345);
                const cuda_how how = {.precision = types[t].precision};
                count[outputs] = cuda_run_all(g, x, how, results[outputs]);
                n = vx_shape_elements(g->values[g->value_count - 1].shape);
                vx_free(x);
                vx_graph_free(g);
                ops_weights_free(&w);
            }
            assert_int_equal(count[0], 1);
            assert_int_equal(count[1], 5);
            for (size_t k = 0; k < n; k++) /* numbers, not bytes: a ReLU's zero may have a sign */
                if (results[0][0][k] != results[1][4][k])
                    fail_msg("%s: other numbers with norms left to readers", types[t].name);
            vx_free(results[0][0]);
            for (size_t k = 0; k < 5; k++) vx_free(results[1][k]);
        }
    ops_weights w = {.seed = 7, .coarse = true};
    check_graph(residual_blocks(&w, VX_ACT_LEAKY_RELU, false), "residual blocks", 2e-5, 14);
    ops_weights_free(&w);
}

/* --- overflows -------------------------------------------------------------------------------- */

/* In fp16 the output of g is infinite where it is too large, finite where it is not; both happen.
 * Numbers within a percent of the limit may be either. */
static void check_overflow(vx_graph *g, int y, ops_weights *w, const char *what) {
    const float limit = 65520; /* rounds to infinity */
    vx_error err;
    float *result[OPS_OUTPUTS];
    size_t infinite = 0, finite = 0;
    vx_graph_output(g, y);
    if (vx_graph_finish(g, &err) != VX_OK) fail_msg("%s: %s", what, err.text);
    float *x = ops_input(g, 12345), *truth = ops_run(g, x, ops_reference, 0);
    assert_int_equal(
        cuda_run_all(g, x, (cuda_how){.precision = VX_PRECISION_FP16, .separate = true}, result),
        1);
    const size_t n = vx_shape_elements(g->values[y].shape);
    for (size_t i = 0; i < n; i++) {
        const float is = result[0][i], right = truth[i];
        if (fabsf(right) > limit * 1.01f) {
            if (!isinf(is) || signbit(is) != signbit(right))
                fail_msg("%s: number %zu is %g, should be %g", what, i, (double)is, (double)right);
            infinite++;
        } else if (fabsf(right) < limit * 0.99f) {
            if (!isfinite(is))
                fail_msg("%s: number %zu is %g, should be %g", what, i, (double)is, (double)right);
            finite++;
        }
    }
    printf("%s: %zu numbers overflow, %zu do not\n", what, infinite, finite);
    assert_true(infinite > 0 && finite > 0);
    vx_free(result[0]);
    vx_free(truth);
    vx_free(x);
    vx_graph_free(g);
    ops_weights_free(w);
}

/* Nothing behind it: an overflow reaches a mask. Some of cuDNN's engines store 0 for these shapes.
 */
static void overflowing_conv(vx_shape in, size_t c_out, float scale, bool bias) {
    ops_weights w = {.seed = 3, .coarse = true};
    char what[80];
    int x;
    vx_graph *g = begin(in, &x);
    const vx_weight b = bias ? ops_weight(&w, c_out, 1, 0) : (vx_weight){0};
    const int y =
        vx_graph_conv(g, x, ops_weight(&w, in.c * c_out * 27, scale, 0), b, c_out, three, one, one);
    snprintf(what, sizeof what, "convolution of %zu to %zu channels%s", in.c, c_out,
             bias ? " and bias" : "");
    check_overflow(g, y, &w, what);
}

/* By cuBLASLt; the sum behind it makes it store halves, as an output it would be float. */
static void overflowing_linear(size_t c, size_t c_out, float scale) {
    ops_weights w = {.seed = 3, .coarse = true};
    char what[80];
    int x;
    vx_graph *g = begin((vx_shape){1, 5, 6, 7, c}, &x);
    int y = vx_graph_linear(g, x, ops_weight(&w, c * c_out, scale, 0), (vx_weight){0}, c_out);
    y = vx_graph_add(g, y, y, 0.5f);
    snprintf(what, sizeof what, "linear layer of %zu to %zu channels", c, c_out);
    check_overflow(g, y, &w, what);
}

static void overflows_are_infinite(void **state) {
    static const size_t two[3] = {2, 2, 2};
    const vx_shape small = {1, 5, 6, 7, 16}, large = {1, 16, 16, 17, 16};
    (void)state;
    for (int k = 0; k < 2; k++) { /* a matrix product, our own kernel */
        ops_weights w = {.seed = 3, .coarse = true};
        int x;
        vx_graph *g = begin(k ? large : small, &x);
        int y = vx_graph_transposed_conv(g, x, ops_weight(&w, 16 * 32 * 8, 5e4f, 0),
                                         ops_weight(&w, 32, 1, 0), 32, two);
        check_overflow(g, y, &w, k ? "transposed, large" : "transposed");
    }
    overflowing_conv(small, 24, 1e4f, false);
    overflowing_conv(small, 24, 1e4f, true);
    overflowing_conv(small, 32, 1e4f, false);
    overflowing_conv((vx_shape){1, 24, 24, 24, 1}, 32, 4e4f, false);
    overflowing_conv((vx_shape){1, 16, 16, 16, 32}, 32, 7e3f, false);
    overflowing_linear(32, 32, 3e4f);
    overflowing_linear(64, 128, 2e4f);
}

/* --- a whole net ------------------------------------------------------------------------------ */

static void whole_net(void **state) {
    (void)state;
    ops_weights w = {.seed = 1234, .coarse = true};
    int x;
    vx_graph *g = begin((vx_shape){2, 6, 7, 9, 2}, &x);
    int a = vx_graph_conv(g, x, ops_weight(&w, 16 * 2 * 27, 0.2f, 0), ops_weight(&w, 16, 1, 0), 16,
                          three, one, one);
    a = vx_graph_instance_norm(g, a, ops_weight(&w, 16, 0.2f, 1), ops_weight(&w, 16, 1, 0), 1e-5f);
    a = vx_graph_activation(g, a, VX_ACT_LEAKY_RELU, 0.01f);
    int m = vx_graph_layer_norm(g, a, ops_weight(&w, 16, 0.2f, 1), ops_weight(&w, 16, 1, 0), 1e-5f);
    const vx_mamba mixer = ops_mamba(&w, 16, 32, 16, 4, 1, (vx_scan_order){{2, 0, 1}, true});
    int sum = vx_graph_add(g, m, vx_graph_mamba(g, m, &mixer), 0.5f);
    vx_graph_output(g, sum);
    int y = vx_graph_concat(g, sum, a);
    y = vx_graph_linear(g, y, ops_weight(&w, 5 * 32, 0.3f, 0), ops_weight(&w, 5, 1, 0), 5);
    end(g, y, &w, "net", 5e-6, 12);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(activations),
        cmocka_unit_test(sums_and_joins),
        cmocka_unit_test(pool_and_upsample),
        cmocka_unit_test(norms),
        cmocka_unit_test(norm_far_from_zero),
        cmocka_unit_test(linear),
        cmocka_unit_test(transposed),
        cmocka_unit_test(convolutions),
        cmocka_unit_test(mamba),
        cmocka_unit_test(mamba_layers),
        cmocka_unit_test(sums_of_mamba_layers),
        cmocka_unit_test(norms_left_to_readers),
        cmocka_unit_test(overflows_are_infinite),
        cmocka_unit_test(whole_net),
    };
    if (!cuda_there()) return 77;
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    cuda_done();
    return failed;
}
