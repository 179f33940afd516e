/* Single ops against PyTorch in float64 (layers/README.md): the reference and every fast way. */
#include "ops.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "model/model.h"

typedef struct golden_case {
    const vx_model_file *file;
    const cJSON *json;
    const char *name, *op;
} golden_case;

static const vx_tensor *tensor(const golden_case *c, const char *part) {
    char name[200];
    snprintf(name, sizeof name, "%s.%s", c->name, part);
    const vx_tensor *t = vx_model_file_find(c->file, name);
    if (!t) fail_msg("no tensor %s", name);
    assert_int_equal(t->dtype, VX_F32);
    return t;
}

static vx_weight weight(const golden_case *c, const char *part) {
    const vx_tensor *t = tensor(c, part);
    return (vx_weight){t->data, VX_F32, t->bytes / 4};
}

static double number(const golden_case *c, const char *key) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(c->json, key);
    if (!cJSON_IsNumber(item)) fail_msg("%s has no %s", c->name, key);
    return item->valuedouble;
}

static void triple(const golden_case *c, const char *key, size_t out[3]) {
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(c->json, key);
    assert_int_equal(cJSON_GetArraySize(list), 3);
    for (int i = 0; i < 3; i++) out[i] = (size_t)cJSON_GetArrayItem(list, i)->valuedouble;
}

/* (n, c, voxels) to (n, voxels, c). */
static float *channels_last(const vx_tensor *t) {
    const size_t n = t->dims[0], c = t->dims[1], voxels = t->bytes / 4 / n / c;
    float *out = vx_alloc(t->bytes);
    assert_non_null(out);
    for (size_t i = 0; i < n * c * voxels; i++)
        memcpy(&out[(i / c / voxels * voxels + i % voxels) * c + i / voxels % c],
               (const char *)t->data + 4 * i, 4);
    return out;
}

static int build_mamba(const golden_case *c, vx_graph *g, int x) {
    const size_t c_in = g->values[x].shape.c;
    size_t axis[3];
    triple(c, "axis", axis);
    vx_mamba m = {
        .order = {{(int)axis[0], (int)axis[1], (int)axis[2]},
                  cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(c->json, "reverse")) != 0},
        .d_inner = c_in * (size_t)number(c, "expand"),
        .d_state = (size_t)number(c, "d_state"),
        .d_conv = (size_t)number(c, "d_conv"),
        .dt_rank = (c_in + 15) / 16,
        .in_proj = weight(c, "in_proj.weight"),
        .conv_w = weight(c, "conv1d.weight"),
        .conv_b = weight(c, "conv1d.bias"),
        .x_proj = weight(c, "x_proj.weight"),
        .dt_w = weight(c, "dt_proj.weight"),
        .dt_b = weight(c, "dt_proj.bias"),
        .a_log = weight(c, "A_log"),
        .d = weight(c, "D"),
        .out_proj = weight(c, "out_proj.weight")};
    return vx_graph_mamba(g, x, &m);
}

/* The op on value x, or -2 when it is no op of the graph. */
static int build(const golden_case *c, vx_graph *g, int x) {
    static const struct {
        const char *name;
        vx_activation act;
    } acts[] = {{"relu", VX_ACT_RELU},
                {"leaky_relu", VX_ACT_LEAKY_RELU},
                {"gelu", VX_ACT_GELU},
                {"silu", VX_ACT_SILU}};
    size_t a[3], b[3];
    for (size_t i = 0; i < 4; i++)
        if (strcmp(c->op, acts[i].name) == 0) return vx_graph_activation(g, x, acts[i].act, 0.01f);
    if (strcmp(c->op, "conv") == 0) {
        const vx_tensor *w = tensor(c, "weight");
        triple(c, "stride", a);
        triple(c, "pad", b);
        return vx_graph_conv(g, x, weight(c, "weight"), weight(c, "bias"), w->dims[0], w->dims + 2,
                             a, b);
    }
    if (strcmp(c->op, "transposed_conv") == 0) {
        triple(c, "stride", a);
        return vx_graph_transposed_conv(g, x, weight(c, "weight"), weight(c, "bias"),
                                        tensor(c, "weight")->dims[1], a);
    }
    if (strcmp(c->op, "instance_norm") == 0)
        return vx_graph_instance_norm(g, x, weight(c, "gamma"), weight(c, "beta"),
                                      (float)number(c, "eps"));
    if (strcmp(c->op, "layer_norm") == 0)
        return vx_graph_layer_norm(g, x, weight(c, "gamma"), weight(c, "beta"),
                                   (float)number(c, "eps"));
    if (strcmp(c->op, "linear") == 0)
        return vx_graph_linear(g, x, weight(c, "weight"), weight(c, "bias"),
                               tensor(c, "weight")->dims[0]);
    if (strcmp(c->op, "avg_pool") == 0) {
        triple(c, "stride", a);
        return vx_graph_avg_pool(g, x, a);
    }
    if (strcmp(c->op, "upsample_nearest") == 0) {
        triple(c, "factor", a);
        return vx_graph_upsample_nearest(g, x, a);
    }
    if (strcmp(c->op, "mamba") == 0) return build_mamba(c, g, x);
    return -2;
}

static void compare(const golden_case *c, const char *way, const float *got, const float *truth,
                    size_t n, double tolerance) {
    const double error = ops_relative(got, truth, n);
    printf("  %s %.1e", way, error);
    if (!(error <= tolerance))
        fail_msg("%s, %s: relative L2 %.3g, allowed %.3g", c->name, way, error, tolerance);
}

static void check_graph_op(const golden_case *c, vx_graph *g) {
    const vx_tensor *output = tensor(c, "output");
    const size_t n = output->bytes / 4;
    float *x = channels_last(tensor(c, "input")), *truth = channels_last(output);
    float *y = ops_run(g, x, ops_reference, 0);
    compare(c, "reference", y, truth, n, 1e-7);
    vx_free(y);
    for (int isa = VX_ISA_BASELINE; isa <= VX_ISA_BEST; isa++) {
        if (!ops_kernels((vx_isa)isa)) continue;
        const ops_how how = {.workers = 2, .isa = (vx_isa)isa, .own_only = isa != VX_ISA_BEST};
        y = ops_run(g, x, how, 0);
        compare(c, how.own_only ? ops_kernels((vx_isa)isa)->name : "best", y, truth, n, 2e-6);
        vx_free(y);
    }
    vx_free(x);
    vx_free(truth);
}

/* u, z, ... (n, D, L) of one n: token rows of VX_SCAN_GROUP channels from channel `first`, zeros
 * beside. */
static void group_rows(const vx_tensor *t, size_t n, size_t first, float *rows) {
    const size_t d = t->dims[1], tokens = t->dims[2];
    for (size_t i = 0; i < VX_SCAN_GROUP; i++)
        for (size_t k = 0; k < tokens; k++) {
            rows[k * VX_SCAN_GROUP + i] = 0;
            if (first + i < d)
                memcpy(&rows[k * VX_SCAN_GROUP + i],
                       (const char *)t->data + 4 * ((n * d + first + i) * tokens + k), 4);
        }
}

static float at(const vx_tensor *t, size_t i) {
    float value;
    memcpy(&value, (const char *)t->data + 4 * i, 4);
    return value;
}

/* The scan's kernels on one group of channels of one n; y: two times SCAN_TOKENS rows of
 * VX_SCAN_GROUP, the result in the first. */
enum { SCAN_TOKENS = 320 };
static void scan_group(const golden_case *c, const vx_kernels *k, size_t n, size_t first,
                       float *y) {
    enum { L = SCAN_TOKENS, N = 64, G = VX_SCAN_GROUP };
    static float raw[L * G], u[L * G], z[L * G], delta[L * G], du[L * G], bc[L * 2 * N], a[N * G];
    static float h[N * G];
    const vx_tensor *a_log = tensor(c, "A_log"), *b = tensor(c, "B"), *cc = tensor(c, "C");
    const size_t tokens = tensor(c, "u")->dims[2], d = tensor(c, "u")->dims[1];
    const size_t states = a_log->dims[1];
    float skip[G] = {0};
    assert_true(tokens <= L && states <= N);
    group_rows(tensor(c, "delta"), n, first, raw);
    group_rows(tensor(c, "u"), n, first, u);
    group_rows(tensor(c, "z"), n, first, z);
    memset(a, 0, sizeof a);
    memset(h, 0, sizeof h);
    memset(y, 0xff, 2 * L * G * sizeof *y);
    for (size_t i = 0; i < G && first + i < d; i++) {
        skip[i] = at(tensor(c, "D"), first + i);
        for (size_t t = 0; t < tokens; t++)
            raw[t * G + i] += at(tensor(c, "delta_bias"), first + i);
        for (size_t s = 0; s < states; s++)
            a[s * G + i] = (float)(-exp((double)at(a_log, (first + i) * states + s)) / log(2));
    }
    for (size_t t = 0; t < tokens; t++)
        for (size_t s = 0; s < states; s++) {
            bc[t * 2 * states + s] = at(b, (n * states + s) * tokens + t);
            bc[t * 2 * states + states + s] = at(cc, (n * states + s) * tokens + t);
        }
    k->scan_inputs(raw, u, G, tokens, skip, delta, du, y);
    /* In two parts, as the mixer deals out states; the second one's y starts as garbage. */
    for (size_t part = 0; part < 2; part++) {
        const size_t first_state = part ? states / 2 : 0;
        const vx_scan scan = {.tokens = tokens,
                              .states = part ? states - states / 2 : states / 2,
                              .delta = delta,
                              .du = du,
                              .b = bc + first_state,
                              .c = bc + states + first_state,
                              .bc_row = 2 * states,
                              .a = a + first_state * G,
                              .h = h + first_state * G,
                              .y = y + part * L * G,
                              .fresh = part > 0};
        k->scan(&scan);
    }
    k->gate(y, 2, L * G, z, G, tokens, y);
}

static void check_scan(const golden_case *c) {
    const vx_tensor *output = tensor(c, "output");
    const size_t d = output->dims[1], tokens = output->dims[2], n = output->bytes / 4;
    float *y = vx_alloc(2 * SCAN_TOKENS * VX_SCAN_GROUP * 4), *got = vx_alloc(n * 4),
          *truth = vx_alloc(n * 4);
    memcpy(truth, output->data, n * 4);
    for (int isa = VX_ISA_BASELINE; isa < VX_ISA_BEST; isa++) {
        const vx_kernels *k = ops_kernels((vx_isa)isa);
        if (!k) continue;
        for (size_t i = 0; i < output->dims[0]; i++)
            for (size_t first = 0; first < d; first += VX_SCAN_GROUP) {
                scan_group(c, k, i, first, y);
                for (size_t ch = first; ch < d && ch < first + VX_SCAN_GROUP; ch++)
                    for (size_t t = 0; t < tokens; t++)
                        got[(i * d + ch) * tokens + t] = y[t * VX_SCAN_GROUP + ch - first];
            }
        compare(c, k->name, got, truth, n, 1e-6);
    }
    vx_free(y);
    vx_free(got);
    vx_free(truth);
}

static void check_causal_conv(const golden_case *c) {
    enum { ROOM = 64, G = VX_SCAN_GROUP };
    const vx_tensor *output = tensor(c, "output"), *w = tensor(c, "weight");
    const size_t d = output->dims[1], tokens = output->dims[2], taps = w->dims[2];
    float rows[ROOM * G], u[ROOM * G], taps_w[8 * G] = {0}, bias[G] = {0};
    assert_true(d <= G && taps <= 8 && tokens + taps <= ROOM);
    for (size_t i = 0; i < d; i++) {
        bias[i] = at(tensor(c, "bias"), i);
        for (size_t k = 0; k < taps; k++) taps_w[k * G + i] = at(w, i * taps + k);
    }
    for (int isa = VX_ISA_BASELINE; isa < VX_ISA_BEST; isa++) {
        const vx_kernels *k = ops_kernels((vx_isa)isa);
        double error = 0, norm = 0;
        if (!k) continue;
        for (size_t n = 0; n < output->dims[0]; n++) {
            memset(rows, 0, (taps - 1) * G * sizeof *rows);
            group_rows(tensor(c, "u"), n, 0, rows + (taps - 1) * G);
            k->causal_conv(rows, tokens, G, taps, taps_w, bias, u);
            for (size_t i = 0; i < d * tokens; i++) {
                const double want = (double)at(output, n * d * tokens + i);
                const double e = (double)u[i % tokens * G + i / tokens] - want;
                error += e * e;
                norm += want * want;
            }
        }
        printf("  %s %.1e", k->name, sqrt(error / norm));
        assert_true(sqrt(error / norm) <= 5e-7);
    }
}

static void all_ops(void **state) {
    char path[512];
    vx_error err;
    vx_model_file *file;
    size_t bytes;
    (void)state;
    snprintf(path, sizeof path, "%s/tests/golden/layers/ops.safetensors", VX_SOURCE_DIR);
    if (vx_model_file_open(path, &file, &err) != VX_OK) fail_msg("%s", err.text);
    cJSON *list = cJSON_Parse(vx_model_file_metadata(file, "golden", &bytes));
    assert_true(cJSON_GetArraySize(list) > 20);
    const cJSON *item;
    cJSON_ArrayForEach(item, list) {
        const golden_case c = {file, item,
                               cJSON_GetObjectItemCaseSensitive(item, "case")->valuestring,
                               cJSON_GetObjectItemCaseSensitive(item, "op")->valuestring};
        printf("%s:", c.name);
        if (strcmp(c.op, "selective_scan") == 0) {
            check_scan(&c);
        } else if (strcmp(c.op, "causal_conv_silu") == 0) {
            check_causal_conv(&c);
        } else {
            const vx_tensor *t = tensor(&c, "input");
            vx_graph *g;
            assert_int_equal(vx_graph_create(&g, &err), VX_OK);
            const int y = build(&c, g,
                                vx_graph_input(g, (vx_shape){t->dims[0], t->dims[2], t->dims[3],
                                                             t->dims[4], t->dims[1]}));
            if (y == -2) fail_msg("unknown op %s", c.op);
            vx_graph_output(g, y);
            if (vx_graph_finish(g, &err) != VX_OK) fail_msg("%s: %s", c.name, err.text);
            check_graph_op(&c, g);
            vx_graph_free(g);
        }
        printf("\n");
    }
    cJSON_Delete(list);
    vx_model_file_close(file);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(all_ops)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
