/* Whole networks: time, memory, and the files that PyTorch compares itself with. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench.h"

double bench_state_updates(const vx_graph *graph) {
    double updates = 0;
    for (size_t i = 0; i < graph->op_count; i++) {
        const vx_op *op = &graph->ops[i];
        if (op->kind == VX_OP_MAMBA)
            updates += (double)vx_shape_tokens(graph->values[op->out].shape) *
                       (double)op->mamba.d_inner * (double)op->mamba.d_state;
    }
    return updates;
}

/* "PREFIX.safetensors", or a new temporary file. */
static vx_status model_path(const bench_context *ctx, char *path, size_t bytes, vx_error *err) {
    const char *folder = getenv("TMPDIR");
    const int n = ctx->save ? snprintf(path, bytes, "%s.safetensors", ctx->save)
                            : snprintf(path, bytes, "%s/voxmamba-bench-XXXXXX",
                                       folder && *folder ? folder : "/tmp");
    if (n < 0 || (size_t)n >= bytes) return vx_fail(err, VX_ERR_USAGE, "the path is too long");
    if (ctx->save) return VX_OK;
    const int fd = mkstemp(path);
    if (fd < 0) return vx_fail(err, VX_ERR_OUTPUT, "%s could not be made", path);
    close(fd);
    return VX_OK;
}

vx_status bench_open(const bench_context *ctx, const bench_network *network, const size_t patch[3],
                     vx_model **model, vx_graph **graph, vx_error *err) {
    char path[1024];
    *model = NULL;
    vx_status status = model_path(ctx, path, sizeof path, err);
    if (status == VX_OK) status = bench_random_model(network, path, ctx->save, model, err);
    if (status == VX_OK) status = vx_model_graph(*model, 1, patch, graph, err);
    if (status != VX_OK) {
        vx_model_close(*model);
        *model = NULL;
    }
    return status;
}

static cJSON *whole_json(const bench_context *ctx, const bench_network *net, const size_t patch[3],
                         const bench_run *run, double updates, size_t rss_start) {
    char device[160];
    ctx->backend->describe(ctx->device, device, sizeof device);
    cJSON *j = cJSON_CreateObject();
    cJSON_AddStringToObject(j, "kind", "network");
    cJSON_AddStringToObject(j, "engine", "voxmamba");
    cJSON_AddStringToObject(j, "variant", device);
    cJSON_AddStringToObject(j, "family", net->family);
    cJSON_AddNumberToObject(j, "width", (double)net->width);
    cJSON_AddNumberToObject(j, "classes", (double)net->classes);
    bench_json_sizes(j, "patch", patch, 3);
    cJSON_AddStringToObject(j, "precision", ctx->precision == VX_PRECISION_BF16 ? "bf16" : "fp32");
    cJSON_AddNumberToObject(j, "threads", vx_pool_workers(ctx->pool));
    cJSON_AddNumberToObject(j, "gflop", run->info.flops * 1e-9);
    cJSON_AddNumberToObject(j, "state_updates", updates);
    cJSON_AddNumberToObject(j, "compile_s", run->compile_seconds);
    cJSON_AddNumberToObject(j, "arena_bytes", (double)run->info.arena_bytes);
    cJSON_AddNumberToObject(j, "weight_bytes", (double)run->info.weight_bytes);
    cJSON_AddNumberToObject(j, "rss_peak_bytes", (double)(run->rss_peak - rss_start));
    bench_json_times(j, &run->times);
    return j;
}

static void print_whole(const bench_context *ctx, const bench_network *net, const size_t patch[3],
                        const bench_run *run, double updates, size_t rss_start) {
    printf("%s, width %zu, %zu classes, %zux%zux%zu, %s: %.3f s (%.3f to %.3f, %zu runs), "
           "%.1f GFLOP, %.1f GFLOP/s",
           net->family, net->width, net->classes, patch[0], patch[1], patch[2],
           ctx->precision == VX_PRECISION_BF16 ? "bf16" : "fp32", run->times.median, run->times.min,
           run->times.max, run->times.runs, run->info.flops * 1e-9,
           run->info.flops / run->times.median * 1e-9);
    if (updates > 0) printf(", %.2f G states", updates * 1e-9);
    printf("\n  arena %.1f MB, packed weights %.1f MB, peak memory less that before the model "
           "%.1f MB, compiled in %.2f s\n",
           (double)run->info.arena_bytes * 1e-6, (double)run->info.weight_bytes * 1e-6,
           (double)(run->rss_peak - rss_start) * 1e-6, run->compile_seconds);
}

vx_status bench_whole(const bench_context *ctx, const bench_network *network, const size_t patch[3],
                      vx_error *err) {
    const size_t rss_start = bench_rss();
    vx_model *model;
    vx_graph *graph = NULL;
    bench_run run;
    vx_status status = bench_open(ctx, network, patch, &model, &graph, err);
    if (status != VX_OK) return status;
    status = bench_graph(ctx, graph, model->file, ctx->save, &run, err);
    if (status == VX_OK) {
        const double updates = bench_state_updates(graph);
        print_whole(ctx, network, patch, &run, updates, rss_start);
        status = bench_json_write(whole_json(ctx, network, patch, &run, updates, rss_start),
                                  ctx->json, err);
    }
    vx_graph_free(graph);
    vx_model_close(model);
    return status;
}
