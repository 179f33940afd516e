/* Single ops on random data. */
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "bench.h"

typedef enum op_kind {
    CONV,
    CONV_NORM_ACT,
    TRANSPOSED_CONV,
    INSTANCE_NORM,
    LAYER_NORM,
    LINEAR,
    MAMBA
} op_kind;

static const char *const op_names[] = {
    "conv", "conv_norm_act", "transposed_conv", "instance_norm", "layer_norm", "linear", "mamba"};

typedef struct op_case {
    op_kind kind;
    size_t grid[3]; /* of the input; z, y, x */
    size_t c_in, c_out;
    size_t d_state;
    bool large; /* left out when quick */
} op_case;

static const op_case cases[] = {
    /* The convolutions that docs/performance.md compares libraries with. */
    {CONV, {64, 64, 64}, 32, 32, 0, false},
    {CONV, {64, 64, 64}, 64, 32, 0, false},
    {CONV, {32, 32, 32}, 64, 64, 0, false},
    {CONV, {16, 16, 16}, 128, 128, 0, false},
    {CONV, {64, 64, 64}, 1, 32, 0, false},
    {CONV, {5, 7, 5}, 256, 256, 0, false},
    {CONV_NORM_ACT, {64, 64, 64}, 32, 32, 0, false},
    {CONV_NORM_ACT, {64, 64, 64}, 1, 32, 0, false},
    {TRANSPOSED_CONV, {20, 28, 20}, 64, 32, 0, false},
    {INSTANCE_NORM, {64, 64, 64}, 32, 32, 0, false},
    {LAYER_NORM, {64, 64, 64}, 32, 32, 0, false},
    {LINEAR, {40, 56, 40}, 32, 32, 0, false},
    /* SegMambaSkip's stages: one direction of each. */
    {MAMBA, {40, 56, 40}, 32, 32, 32, false},
    {MAMBA, {20, 28, 20}, 64, 64, 64, false},
    {MAMBA, {10, 14, 10}, 128, 128, 128, false},
    {MAMBA, {5, 7, 5}, 256, 256, 256, false},
    {MAMBA, {40, 56, 40}, 32, 32, 16, false}, /* Mamba's own default N */
    {MAMBA, {96, 96, 96}, 32, 32, 32, true},
    {MAMBA, {48, 48, 48}, 64, 64, 64, true},
    {MAMBA, {24, 24, 24}, 128, 128, 128, true},
    {MAMBA, {12, 12, 12}, 256, 256, 256, true},
};

/* Weights of one op. */
typedef struct weight_bag {
    float *data[16];
    size_t count;
    bool failed;
} weight_bag;

static vx_weight weight(weight_bag *bag, const char *name, int rank, const size_t dims[5]) {
    size_t n = 1;
    for (int i = 0; i < rank; i++) n *= dims[i];
    float *data = vx_alloc(n * sizeof *data);
    if (!data) {
        bag->failed = true;
        return (vx_weight){0};
    }
    bag->data[bag->count++] = data;
    bench_fill_tensor(name, rank, dims, data);
    return (vx_weight){.data = data, .dtype = VX_F32, .elements = n};
}
#define WEIGHT(name, rank, ...) weight(bag, name, rank, (const size_t[5]){__VA_ARGS__})

static int add_mamba(vx_graph *g, int x, const op_case *o, weight_bag *bag) {
    const size_t c = o->c_in, d = 2 * c, n = o->d_state, r = (c + 15) / 16;
    const vx_mamba mamba = {.order = {.axis = {0, 1, 2}},
                            .d_inner = d,
                            .d_state = n,
                            .d_conv = 4,
                            .dt_rank = r,
                            .in_proj = WEIGHT("in_proj.weight", 2, 2 * d, c),
                            .conv_w = WEIGHT("conv1d.weight", 3, d, 1, 4),
                            .conv_b = WEIGHT("conv1d.bias", 1, d),
                            .x_proj = WEIGHT("x_proj.weight", 2, r + 2 * n, d),
                            .dt_w = WEIGHT("dt_proj.weight", 2, d, r),
                            .dt_b = WEIGHT("dt_proj.bias", 1, d),
                            .a_log = WEIGHT("A_log", 2, d, n),
                            .d = WEIGHT("mamba.D", 1, d),
                            .out_proj = WEIGHT("out_proj.weight", 2, c, d)};
    return vx_graph_mamba(g, x, &mamba);
}

static int add_op(vx_graph *g, int x, const op_case *o, weight_bag *bag) {
    static const size_t three[3] = {3, 3, 3}, two[3] = {2, 2, 2}, one[3] = {1, 1, 1};
    const vx_weight none = {0};
    const size_t c = o->c_out;
    switch (o->kind) {
    case CONV:
    case CONV_NORM_ACT:
        x = vx_graph_conv(g, x, WEIGHT("conv.weight", 5, c, o->c_in, 3, 3, 3), none, c, three, one,
                          one);
        if (o->kind == CONV) return x;
        x = vx_graph_instance_norm(g, x, WEIGHT("norm.weight", 1, c), WEIGHT("norm.bias", 1, c),
                                   1e-5f);
        return vx_graph_activation(g, x, VX_ACT_LEAKY_RELU, 0.01f);
    case TRANSPOSED_CONV:
        return vx_graph_transposed_conv(g, x, WEIGHT("up.weight", 5, o->c_in, c, 2, 2, 2),
                                        WEIGHT("up.bias", 1, c), c, two);
    case INSTANCE_NORM:
        return vx_graph_instance_norm(g, x, WEIGHT("norm.weight", 1, c), WEIGHT("norm.bias", 1, c),
                                      1e-5f);
    case LAYER_NORM:
        return vx_graph_layer_norm(g, x, WEIGHT("norm.weight", 1, c), WEIGHT("norm.bias", 1, c),
                                   1e-5f);
    case LINEAR:
        return vx_graph_linear(g, x, WEIGHT("head.weight", 2, c, o->c_in),
                               WEIGHT("head.bias", 1, c), c);
    case MAMBA:
        return add_mamba(g, x, o, bag);
    }
    return -1;
}

static vx_status op_graph(const op_case *o, weight_bag *bag, vx_graph **out, vx_error *err) {
    vx_graph *g;
    vx_status status = vx_graph_create(&g, err);
    if (status != VX_OK) return status;
    const vx_shape shape = {1, o->grid[0], o->grid[1], o->grid[2], o->c_in};
    vx_graph_output(g, add_op(g, vx_graph_input(g, shape), o, bag));
    status = bag->failed ? vx_fail(err, VX_ERR_RESOURCE, "out of memory") : vx_graph_finish(g, err);
    if (status != VX_OK) {
        vx_graph_free(g);
        return status;
    }
    *out = g;
    return VX_OK;
}

static void print_op(const op_case *o, const bench_run *run, double updates) {
    char what[64], grid[32];
    snprintf(grid, sizeof grid, "%zux%zux%zu", o->grid[0], o->grid[1], o->grid[2]);
    snprintf(what, sizeof what, "%zu->%zu", o->c_in, o->c_out);
    printf("%-16s %-11s %-9s", op_names[o->kind], grid, what);
    if (o->kind == MAMBA)
        printf(" N=%-4zu", o->d_state);
    else
        printf("       ");
    printf(" %9.2f %9.2f %9.2f %9.1f", run->times.median * 1e3, run->times.min * 1e3,
           run->times.max * 1e3, run->info.flops / run->times.median * 1e-9);
    if (updates > 0)
        printf(" %10.2f\n", updates / run->times.median * 1e-9);
    else
        printf("\n");
}

static cJSON *op_json(const bench_context *ctx, const op_case *o, const bench_run *run,
                      double updates) {
    cJSON *j = cJSON_CreateObject();
    cJSON_AddStringToObject(j, "kind", "op");
    cJSON_AddStringToObject(j, "engine", "voxmamba");
    cJSON_AddStringToObject(j, "op", op_names[o->kind]);
    bench_json_sizes(j, "grid", o->grid, 3);
    cJSON_AddNumberToObject(j, "c_in", (double)o->c_in);
    cJSON_AddNumberToObject(j, "c_out", (double)o->c_out);
    cJSON_AddNumberToObject(j, "d_state", (double)o->d_state);
    cJSON_AddStringToObject(j, "precision", ctx->precision == VX_PRECISION_BF16 ? "bf16" : "fp32");
    cJSON_AddNumberToObject(j, "threads", vx_pool_workers(ctx->pool));
    cJSON_AddNumberToObject(j, "gflop", run->info.flops * 1e-9);
    cJSON_AddNumberToObject(j, "state_updates", updates);
    bench_json_times(j, &run->times);
    return j;
}

vx_status bench_ops(const bench_context *ctx, bool quick, const char *only, vx_error *err) {
    printf("%-16s %-11s %-9s %-6s %9s %9s %9s %9s %10s\n", "op", "grid", "channels", "", "ms",
           "min", "max", "GFLOP/s", "G states/s");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (quick && cases[i].large) continue;
        if (only && strcmp(only, op_names[cases[i].kind]) != 0) continue;
        weight_bag bag = {0};
        vx_graph *graph = NULL;
        bench_run run;
        vx_status status = op_graph(&cases[i], &bag, &graph, err);
        if (status == VX_OK) status = bench_graph(ctx, graph, NULL, NULL, &run, err);
        if (status == VX_OK) {
            const double updates = bench_state_updates(graph);
            print_op(&cases[i], &run, updates);
            status = bench_json_write(op_json(ctx, &cases[i], &run, updates), ctx->json, err);
        }
        vx_graph_free(graph);
        for (size_t k = 0; k < bag.count; k++) vx_free(bag.data[k]);
        if (status != VX_OK) return vx_fail_prefix(err, status, op_names[cases[i].kind]);
    }
    return VX_OK;
}
