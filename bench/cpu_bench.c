/* voxmamba_bench: how fast the CPU backend is, and where its time goes. See docs/benchmarks.md. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"

static const char usage[] =
    "usage: voxmamba_bench machine|ops|network|split|model [options]\n"
    "  machine   the processor, and what it reaches by itself\n"
    "  ops       single ops of the networks' shapes\n"
    "  network   one network: time and memory (one a process: peak memory is the process's)\n"
    "  split     a network's ops one by one, summed by kind\n"
    "  model     only write the network's model file, --save PREFIX\n"
    "options\n"
    "  --family NAME       segmamba_skip (default), none (the twin without Mamba), pan_segmamba,\n"
    "                      segmamba, multi_segmamba\n"
    "  --patch Z,Y,X       default 40,56,40\n"
    "  --spacing Z,Y,X     the model's, mm; default 1,1,1\n"
    "  --width N           features N, 2N, 4N, 8N; default 32\n"
    "  --channels N        input channels, default 1\n"
    "  --classes N         default 3\n"
    "  --precision P       fp32 (default), bf16\n"
    "  --threads N         default: the processors that this process may use\n"
    "  --runs N            at most this many timed runs of each (default 15, at most 64)\n"
    "  --seconds S         ... or this long, after three runs (default 2)\n"
    "  --quick             ops: the small patch's shapes only\n"
    "  --only NAME         ops: those of this name (conv, mamba, ...)\n"
    "  --save PREFIX       network, model: leave PREFIX.safetensors, .input.f32, .logits.f32\n"
    "  --json FILE         append one JSON object a row\n";

typedef struct settings {
    const char *verb;
    bench_network network;
    size_t threads, runs;
    double seconds;
    bool quick;
    vx_precision precision;
    const char *json, *save, *only;
} settings;

/* A whole number from 1 to most. */
static bool read_count(const char *text, size_t most, size_t *out) {
    char *end;
    const unsigned long long v = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end || v < 1 || v > most) return false;
    *out = (size_t)v;
    return true;
}

static bool read_patch(const char *text, size_t patch[3]) {
    char z[16], y[16], x[16], rest;
    return sscanf(text, "%15[0-9],%15[0-9],%15[0-9]%c", z, y, x, &rest) == 3 &&
           read_count(z, 4096, &patch[0]) && read_count(y, 4096, &patch[1]) &&
           read_count(x, 4096, &patch[2]);
}

static bool read_spacing(const char *text, double spacing[3]) {
    char rest;
    return sscanf(text, "%lf,%lf,%lf%c", &spacing[0], &spacing[1], &spacing[2], &rest) == 3 &&
           spacing[0] > 0 && spacing[1] > 0 && spacing[2] > 0;
}

static bool read_option(settings *s, const char *name, const char *value) {
    if (strcmp(name, "--family") == 0) return (s->network.family = value) != NULL;
    if (strcmp(name, "--patch") == 0) return read_patch(value, s->network.patch);
    if (strcmp(name, "--spacing") == 0) return read_spacing(value, s->network.spacing);
    if (strcmp(name, "--width") == 0) return read_count(value, 1024, &s->network.width);
    if (strcmp(name, "--channels") == 0)
        return read_count(value, VX_MAX_CHANNELS, &s->network.in_channels);
    if (strcmp(name, "--classes") == 0)
        return read_count(value, VX_MAX_CLASSES, &s->network.classes);
    if (strcmp(name, "--threads") == 0) return read_count(value, 4096, &s->threads);
    if (strcmp(name, "--runs") == 0) return read_count(value, BENCH_RUNS_MAX, &s->runs);
    if (strcmp(name, "--seconds") == 0) return (s->seconds = strtod(value, NULL)) >= 0;
    if (strcmp(name, "--json") == 0) return (s->json = value) != NULL;
    if (strcmp(name, "--only") == 0) return (s->only = value) != NULL;
    if (strcmp(name, "--save") == 0) return (s->save = value) != NULL;
    if (strcmp(name, "--precision") == 0) {
        s->precision = strcmp(value, "bf16") == 0 ? VX_PRECISION_BF16 : VX_PRECISION_FP32;
        return strcmp(value, "bf16") == 0 || strcmp(value, "fp32") == 0;
    }
    return false;
}

static bool read_settings(int argc, char **argv, settings *s) {
    if (argc < 2) return false;
    s->verb = argv[1];
    for (int i = 2; i < argc; i++) {
        if (strcmp(argv[i], "--quick") == 0) {
            s->quick = true;
            continue;
        }
        if (i + 1 == argc || !read_option(s, argv[i], argv[i + 1])) {
            fprintf(stderr, "voxmamba_bench: %s is not understood\n", argv[i]);
            return false;
        }
        i++;
    }
    return true;
}

static vx_status write_model(const bench_context *ctx, const settings *s, vx_error *err) {
    vx_model *model;
    vx_graph *graph = NULL;
    if (!ctx->save) return vx_fail(err, VX_ERR_USAGE, "model needs --save PREFIX");
    vx_status status = bench_open(ctx, &s->network, s->network.patch, &model, &graph, err);
    vx_graph_free(graph);
    vx_model_close(model);
    return status;
}

static vx_status dispatch(const bench_context *ctx, const settings *s, vx_error *err) {
    const size_t *patch = s->network.patch;
    if (strcmp(s->verb, "machine") == 0) return bench_machine(ctx, err);
    if (strcmp(s->verb, "ops") == 0) return bench_ops(ctx, s->quick, s->only, err);
    if (strcmp(s->verb, "network") == 0) return bench_whole(ctx, &s->network, patch, err);
    if (strcmp(s->verb, "split") == 0) return bench_split(ctx, &s->network, patch, err);
    if (strcmp(s->verb, "model") == 0) return write_model(ctx, s, err);
    fputs(usage, stderr);
    return vx_fail(err, VX_ERR_USAGE, "there is no benchmark %s", s->verb);
}

static vx_status run(const settings *s, vx_error *err) {
    bench_context ctx = {
        .backend = &vx_backend_cpu,
        .precision = s->precision,
        .limits = {.least = s->runs < 3 ? s->runs : 3, .most = s->runs, .seconds = s->seconds},
        .json = s->json,
        .save = s->save};
    vx_status status = vx_pool_create((unsigned)s->threads, &ctx.pool, err);
    if (status != VX_OK) return status;
    status = ctx.backend->open(0, ctx.pool, &ctx.device, err);
    if (status == VX_OK) {
        status = dispatch(&ctx, s, err);
        ctx.backend->close(ctx.device);
    }
    vx_pool_free(ctx.pool);
    return status;
}

int main(int argc, char **argv) {
    settings s = {.network = {.family = "segmamba_skip",
                              .shell = "residual_encoder",
                              .width = 32,
                              .stages = 4,
                              .most = SIZE_MAX,
                              .states = 256,
                              .in_channels = 1,
                              .classes = 3,
                              .patch = {40, 56, 40},
                              .spacing = {1, 1, 1}},
                  .threads = vx_cpu_count(),
                  .runs = 15,
                  .seconds = 2};
    vx_error err = {0};
    if (!read_settings(argc, argv, &s)) {
        fputs(usage, stderr);
        return VX_ERR_USAGE;
    }
    const vx_status status = run(&s, &err);
    if (status != VX_OK) fprintf(stderr, "voxmamba_bench: %s\n", err.text);
    return (int)status;
}
