/* Where a network's time goes: its fused ops, one by one.
 *
 * Equal ops (same kind, shapes and attributes) are timed once, as graphs of their own, and counted.
 * Their sum differs a little from the whole network's time (nothing is left in cache from the op
 * before, or more is), so both are printed.
 */
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "bench.h"

typedef struct op_group {
    const vx_op *op; /* the first of them */
    vx_shape in, out;
    size_t count;
    double seconds, flops; /* of one */
} op_group;

static bool same_shape(vx_shape a, vx_shape b) {
    return a.n == b.n && a.d == b.d && a.h == b.h && a.w == b.w && a.c == b.c;
}

static bool same_work(const op_group *group, const vx_graph *g, const vx_op *op) {
    const vx_op *o = group->op;
    return o->kind == op->kind && same_shape(group->in, g->values[op->in[0]].shape) &&
           same_shape(group->out, g->values[op->out].shape) &&
           memcmp(o->kernel, op->kernel, sizeof o->kernel) == 0 &&
           memcmp(o->stride, op->stride, sizeof o->stride) == 0 && o->act == op->act &&
           o->mamba.d_state == op->mamba.d_state &&
           o->mamba.order.reverse == op->mamba.order.reverse;
}

/* Groups of equal ops, inputs left out; *out is the caller's (vx_free). */
static vx_status group_ops(const vx_graph *g, op_group **out, size_t *count, vx_error *err) {
    op_group *groups = vx_alloc_zero(g->op_count, sizeof *groups);
    if (!groups) return vx_fail(err, VX_ERR_RESOURCE, "out of memory");
    *count = 0;
    for (size_t i = 0; i < g->op_count; i++) {
        const vx_op *op = &g->ops[i];
        size_t k = 0;
        if (op->kind == VX_OP_INPUT) continue;
        while (k < *count && !same_work(&groups[k], g, op)) k++;
        if (k == *count)
            groups[(*count)++] = (op_group){.op = op,
                                            .in = g->values[op->in[0]].shape,
                                            .out = g->values[op->out].shape,
                                            .flops = vx_op_flops(g, op)};
        groups[k].count++;
    }
    *out = groups;
    return VX_OK;
}

/* The op by itself on x; a second input is x again. */
static int repeat_op(vx_graph *g, int x, const op_group *group) {
    const vx_op *op = group->op;
    const size_t c = group->out.c;
    switch (op->kind) {
    case VX_OP_CONV:
        return vx_graph_conv(g, x, op->weight, op->bias, c, op->kernel, op->stride, op->pad);
    case VX_OP_CONV_NORM_ACT:
    case VX_OP_NORM_ACT_ADD: {
        int y = vx_graph_conv(g, x, op->weight, op->bias, c, op->kernel, op->stride, op->pad);
        y = vx_graph_instance_norm(g, y, op->gamma, op->beta, op->eps);
        if (op->kind == VX_OP_NORM_ACT_ADD) y = vx_graph_add(g, y, x, 1.0f);
        return op->act == VX_ACT_NONE ? y : vx_graph_activation(g, y, op->act, op->slope);
    }
    case VX_OP_TRANSPOSED_CONCAT: { /* unfused: x has not the other input's shape */
        const size_t taps = op->stride[0] * op->stride[1] * op->stride[2];
        const size_t c_up = op->weight.elements / taps / group->in.c;
        x = vx_graph_transposed_conv(g, x, op->weight, op->bias, c_up, op->stride);
        return vx_graph_concat(g, x, x);
    }
    case VX_OP_TRANSPOSED_CONV:
        return vx_graph_transposed_conv(g, x, op->weight, op->bias, c, op->stride);
    case VX_OP_INSTANCE_NORM:
        return vx_graph_instance_norm(g, x, op->gamma, op->beta, op->eps);
    case VX_OP_LAYER_NORM:
        return vx_graph_layer_norm(g, x, op->gamma, op->beta, op->eps);
    case VX_OP_ACTIVATION:
        return vx_graph_activation(g, x, op->act, op->slope);
    case VX_OP_LINEAR:
        return vx_graph_linear(g, x, op->weight, op->bias, c);
    case VX_OP_AVG_POOL:
        return vx_graph_avg_pool(g, x, op->stride);
    case VX_OP_ADD:
        return vx_graph_add(g, x, x, op->scale);
    case VX_OP_CONCAT:
        return vx_graph_concat(g, x, x);
    case VX_OP_MAMBA:
        return vx_graph_mamba(g, x, &op->mamba);
    case VX_OP_INPUT:
    case VX_OP_UPSAMPLE_NEAREST: /* no family of the benchmark has one */
    case VX_OP_MAMBA_LAYER:      /* not on the CPU */
        break;
    }
    return -1;
}

static vx_status time_group(const bench_context *ctx, op_group *group, vx_error *err) {
    vx_graph *g;
    bench_run run;
    vx_status status = vx_graph_create(&g, err);
    if (status != VX_OK) return status;
    vx_graph_output(g, repeat_op(g, vx_graph_input(g, group->in), group));
    status = vx_graph_finish(g, err);
    if (status == VX_OK) status = bench_graph(ctx, g, NULL, NULL, &run, err);
    if (status == VX_OK) group->seconds = run.times.median;
    vx_graph_free(g);
    return status;
}

/* What a reader thinks in. */
static const char *const kinds[] = {"Mamba mixers",       "3x3x3 convolutions with norm",
                                    "other convolutions", "layer norms",
                                    "linear layers",      "additions, concatenations, pooling"};
enum { KINDS = sizeof kinds / sizeof *kinds };

static size_t kind_of(const vx_op *op) {
    switch (op->kind) {
    case VX_OP_MAMBA:
        return 0;
    case VX_OP_CONV_NORM_ACT:
    case VX_OP_NORM_ACT_ADD:
        return op->kernel[0] * op->kernel[1] * op->kernel[2] > 1 ? 1 : 2;
    case VX_OP_CONV:
    case VX_OP_TRANSPOSED_CONV:
    case VX_OP_TRANSPOSED_CONCAT:
        return 2;
    case VX_OP_LAYER_NORM:
        return 3;
    case VX_OP_LINEAR:
        return 4;
    default:
        return 5;
    }
}

static void print_groups(const op_group *groups, size_t count, double total) {
    printf("%-24s %-26s %6s %10s %9s %7s\n", "op", "input and output", "count", "ms each",
           "GFLOP/s", "share");
    for (size_t i = 0; i < count; i++) {
        const op_group *o = &groups[i];
        char shape[64];
        snprintf(shape, sizeof shape, "%zux%zux%zux%zu -> %zu", o->in.d, o->in.h, o->in.w, o->in.c,
                 o->out.c);
        printf("%-24s %-26s %6zu %10.3f %9.1f %6.1f%%\n", vx_op_name(o->op->kind), shape, o->count,
               o->seconds * 1e3, o->flops / o->seconds * 1e-9,
               100 * o->seconds * (double)o->count / total);
    }
}

static cJSON *split_json(const bench_context *ctx, const bench_network *net, const size_t patch[3],
                         const double by_kind[KINDS], double total) {
    cJSON *j = cJSON_CreateObject();
    cJSON_AddStringToObject(j, "kind", "split");
    cJSON_AddStringToObject(j, "engine", "voxmamba");
    cJSON_AddStringToObject(j, "family", net->family);
    cJSON_AddNumberToObject(j, "width", (double)net->width);
    bench_json_sizes(j, "patch", patch, 3);
    cJSON_AddNumberToObject(j, "threads", vx_pool_workers(ctx->pool));
    cJSON_AddNumberToObject(j, "sum_s", total);
    cJSON *parts = cJSON_AddObjectToObject(j, "by_kind_s");
    for (size_t k = 0; k < KINDS; k++) cJSON_AddNumberToObject(parts, kinds[k], by_kind[k]);
    return j;
}

static vx_status split_graph(const bench_context *ctx, const bench_network *network,
                             const size_t patch[3], vx_graph *fused, vx_error *err) {
    op_group *groups = NULL;
    size_t count = 0;
    double total = 0, by_kind[KINDS] = {0};
    vx_status status = group_ops(fused, &groups, &count, err);
    for (size_t i = 0; i < count && status == VX_OK; i++) {
        status = time_group(ctx, &groups[i], err);
        const double seconds = groups[i].seconds * (double)groups[i].count;
        by_kind[kind_of(groups[i].op)] += seconds;
        total += seconds;
    }
    if (status == VX_OK) {
        print_groups(groups, count, total);
        for (size_t k = 0; k < KINDS; k++)
            printf("%-36s %8.1f ms %6.1f%%\n", kinds[k], by_kind[k] * 1e3,
                   100 * by_kind[k] / total);
        printf("%-36s %8.1f ms\n", "sum (compare with the whole network)", total * 1e3);
        status = bench_json_write(split_json(ctx, network, patch, by_kind, total), ctx->json, err);
    }
    vx_free(groups);
    return status;
}

vx_status bench_split(const bench_context *ctx, const bench_network *network, const size_t patch[3],
                      vx_error *err) {
    vx_model *model;
    vx_graph *graph;
    vx_status status = bench_open(ctx, network, patch, &model, &graph, err);
    if (status != VX_OK) return status;
    status = vx_graph_fuse(graph, err);
    if (status == VX_OK) status = split_graph(ctx, network, patch, graph, err);
    vx_graph_free(graph);
    vx_model_close(model);
    return status;
}
