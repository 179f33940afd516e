/* voxmamba_cuda_bench: whole networks on a GPU, and the time of each of their steps. See
 * docs/benchmarks.md.
 *
 * Times are the device's, between events, from the first launch to the end of the last: the copies
 * from and to the host are left out, as they are in the peers (bench/peers/cuda_torch.py). */
#define _GNU_SOURCE
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/memory.h"
#include "cuda/plan.h"
#include "measure.h"
#include "random_model.h"

static const char usage[] =
    "usage: voxmamba_cuda_bench NETWORK [options]\n"
    "  NETWORK             SegMambaSkip, PanSegMamba, MultiSegMamba, SegMamba, U-MambaBot,\n"
    "                      PlainConvUNet, ResidualEncoderUNet-M: 4 channels, 4 classes, features\n"
    "                      32 to 320 in 6 stages\n"
    "options\n"
    "  --precision P,P     fp16 (default), bf16, fp32: one plan each\n"
    "  --patch Z,Y,X       default 128,128,128\n"
    "  --runs N            timed runs, 1 to 64; default 15\n"
    "  --steps             also the time of each step\n"
    "  --model FILE        the model: made there if it is not there yet, and left there\n"
    "  --save PREFIX       leave PREFIX.input.f32 and PREFIX.fp16.logits.f32, ... ([z][y][x][c])\n"
    "  --json FILE         append one JSON object a row\n";

static const struct known {
    const char *name;
    bench_network network;
} known[] = {
    {"SegMambaSkip", {.family = "segmamba_skip", .shell = "residual_encoder", .states = 256}},
    {"PanSegMamba", {.family = "pan_segmamba", .shell = "residual_encoder", .states = 256}},
    {"MultiSegMamba", {.family = "multi_segmamba", .shell = "residual_encoder", .states = 64}},
    {"SegMamba", {.family = "segmamba", .shell = "residual_encoder", .states = 256}},
    {"U-MambaBot", {.family = "umamba_bot", .shell = "residual_encoder", .states = 16}},
    {"PlainConvUNet", {.family = "none", .shell = "plain", .states = 16}},
    {"ResidualEncoderUNet-M",
     {.family = "none",
      .shell = "residual_unet",
      .states = 16,
      .encoder_blocks = {1, 3, 4, 6, 6, 6},
      .decoder_blocks = 1}},
};

enum { PRECISIONS = 3, INPUTS = 3 };
static const char *const precision_names[PRECISIONS] = {
    [VX_PRECISION_FP32] = "fp32", [VX_PRECISION_FP16] = "fp16", [VX_PRECISION_BF16] = "bf16"};

typedef struct settings {
    const char *name;
    bench_network network;
    vx_precision precisions[PRECISIONS];
    size_t precision_count, runs;
    bool steps;
    const char *model, *save, *json;
} settings;

/* --- options ---------------------------------------------------------------------------------- */

static bool read_precisions(const char *text, settings *s) {
    char copy[64], *rest = NULL;
    if (strlen(text) >= sizeof copy) return false;
    memcpy(copy, text, strlen(text) + 1);
    s->precision_count = 0;
    for (char *p = strtok_r(copy, ",", &rest); p; p = strtok_r(NULL, ",", &rest)) {
        int k = 0;
        while (k < PRECISIONS && strcmp(precision_names[k], p) != 0) k++;
        if (k == PRECISIONS || s->precision_count == PRECISIONS) return false;
        s->precisions[s->precision_count++] = (vx_precision)k;
    }
    return s->precision_count > 0;
}

static bool read_patch(const char *text, size_t patch[3]) {
    char rest;
    return sscanf(text, "%5zu,%5zu,%5zu%c", &patch[0], &patch[1], &patch[2], &rest) == 3 &&
           patch[0] && patch[1] && patch[2];
}

static bool read_option(settings *s, const char *name, const char *value) {
    char rest;
    if (strcmp(name, "--precision") == 0) return read_precisions(value, s);
    if (strcmp(name, "--patch") == 0) return read_patch(value, s->network.patch);
    if (strcmp(name, "--runs") == 0)
        return sscanf(value, "%2zu%c", &s->runs, &rest) == 1 && s->runs &&
               s->runs <= BENCH_RUNS_MAX;
    if (strcmp(name, "--model") == 0) return (s->model = value) != NULL;
    if (strcmp(name, "--save") == 0) return (s->save = value) != NULL;
    if (strcmp(name, "--json") == 0) return (s->json = value) != NULL;
    return false;
}

static bool choose_network(settings *s, const char *name) {
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (strcmp(known[i].name, name) != 0) continue;
        s->name = name;
        s->network = known[i].network;
        s->network.width = 32;
        s->network.most = 320;
        s->network.stages = 6;
        s->network.in_channels = s->network.classes = 4;
        for (int a = 0; a < 3; a++) {
            s->network.patch[a] = 128;
            s->network.spacing[a] = 1;
        }
        return true;
    }
    return false;
}

static bool read_settings(int argc, char **argv, settings *s) {
    if (argc < 2 || !choose_network(s, argv[1])) return false;
    for (int i = 2; i < argc; i++) {
        if (strcmp(argv[i], "--steps") == 0) {
            s->steps = true;
            continue;
        }
        if (i + 1 == argc || !read_option(s, argv[i], argv[i + 1])) {
            fprintf(stderr, "voxmamba_cuda_bench: %s is not understood\n", argv[i]);
            return false;
        }
        i++;
    }
    return true;
}

/* --- one network ------------------------------------------------------------------------------ */

typedef struct job {
    const settings *s;
    vx_device *device;
    const vx_graph *graph;
    const vx_model *model;
    float *in[INPUTS], *out;
    size_t in_elements, out_elements;
    vx_precision precision;
    vx_plan *plan;
    vx_plan_info info;
    bench_times times;
    double compile_seconds;
    size_t process_bytes; /* of the GPU's memory, all that this process holds; 0: not known */
} job;

/* What the driver counts for this process, context and libraries' code included. */
static size_t process_bytes(void) {
    unsigned long long pid, mib, found = 0;
    FILE *f = popen("nvidia-smi --query-compute-apps=pid,used_memory --format=csv,noheader,nounits"
                    " 2> /dev/null",
                    "r");
    if (!f) return 0;
    while (fscanf(f, "%llu, %llu", &pid, &mib) == 2)
        if (pid == (unsigned long long)getpid()) found = mib;
    pclose(f);
    return (size_t)found << 20;
}

/* One run through the backend's own interface: the output is poisoned before and checked after. */
static vx_status check_output(job *j, vx_error *err) {
    float *const outputs[1] = {j->out};
    memset(j->out, 0xff, j->out_elements * sizeof *j->out);
    vx_status status = vx_cuda_backend.run(j->plan, NULL, j->in[0], outputs, err);
    for (size_t i = 0; i < j->out_elements && status == VX_OK; i++)
        if (!isfinite(j->out[i]))
            status = vx_fail(err, VX_ERR_RESOURCE, "output %zu of %zu is not a finite number", i,
                             j->out_elements);
    return status;
}

static vx_status time_runs(job *j, vx_error *err) {
    enum { WARM_UP = 3 };
    for (size_t k = 0; k < WARM_UP + j->s->runs; k++) {
        float ms = 0;
        vx_status status = vx_cuda_time_run(j->plan, j->in[k % INPUTS], &ms, err);
        if (status != VX_OK) return status;
        if (k >= WARM_UP) bench_add(&j->times, ms * 1e-3);
    }
    bench_summarise(&j->times);
    return VX_OK;
}

static vx_status save_floats(const char *path, const float *x, size_t n, vx_error *err) {
    FILE *f = fopen(path, "wb");
    const bool whole = f && fwrite(x, sizeof *x, n, f) == n;
    if ((f && fclose(f) != 0) || !whole)
        return vx_fail(err, VX_ERR_OUTPUT, "%s could not be written", path);
    return VX_OK;
}

static vx_status save(const job *j, vx_error *err) {
    char path[1024];
    snprintf(path, sizeof path, "%s.input.f32", j->s->save);
    vx_status status = save_floats(path, j->in[0], j->in_elements, err);
    snprintf(path, sizeof path, "%s.%s.logits.f32", j->s->save, precision_names[j->precision]);
    return status == VX_OK ? save_floats(path, j->out, j->out_elements, err) : status;
}

/* --- results ---------------------------------------------------------------------------------- */

static cJSON *json_row(const job *j, const char *kind) {
    char device[160];
    cJSON *o = cJSON_CreateObject();
    vx_cuda_backend.describe(j->device, device, sizeof device);
    cJSON_AddStringToObject(o, "kind", kind);
    cJSON_AddStringToObject(o, "engine", "voxmamba");
    cJSON_AddStringToObject(o, "device", device);
    cJSON_AddStringToObject(o, "network", j->s->name);
    cJSON_AddStringToObject(o, "precision", precision_names[j->precision]);
    bench_json_sizes(o, "patch", j->s->network.patch, 3);
    return o;
}

static vx_status report(const job *j, vx_error *err) {
    const vx_plan_info *info = &j->info;
    printf("%-22s %s %zux%zux%zu %8.3f ms (%.3f to %.3f, %zu runs)  %7.1f GFLOP  plan %.0f MB, "
           "process %.0f MB, compiled in %.1f s\n",
           j->s->name, precision_names[j->precision], j->s->network.patch[0],
           j->s->network.patch[1], j->s->network.patch[2], 1e3 * j->times.median,
           1e3 * j->times.min, 1e3 * j->times.max, j->times.runs, info->flops * 1e-9,
           (double)info->device_bytes * 1e-6, (double)j->process_bytes * 1e-6, j->compile_seconds);
    fflush(stdout);
    cJSON *o = json_row(j, "cuda_network");
    cJSON_AddNumberToObject(o, "parameters", (double)j->model->parameters);
    cJSON_AddNumberToObject(o, "gflop", info->flops * 1e-9);
    cJSON_AddNumberToObject(o, "plan_bytes", (double)info->device_bytes);
    cJSON_AddNumberToObject(o, "process_bytes", (double)j->process_bytes);
    cJSON_AddNumberToObject(o, "compile_s", j->compile_seconds);
    bench_json_times(o, &j->times);
    return bench_json_write(o, j->s->json, err);
}

static void shape_text(char *text, size_t bytes, const vx_graph *g, const vx_op *op) {
    const vx_shape in = g->values[op->in[0]].shape, out = g->values[op->out].shape;
    snprintf(text, bytes, "%zux%zux%zu %zu->%zu k%zu%zu%zu s%zu", out.d, out.h, out.w, in.c, out.c,
             op->kernel[0], op->kernel[1], op->kernel[2], op->stride[2]);
    if (op->kind == VX_OP_MAMBA)
        snprintf(text, bytes, "%zux%zux%zu C%zu D%zu N%zu", out.d, out.h, out.w, in.c,
                 op->mamba.d_inner, op->mamba.d_state);
}

static cJSON *step_json(const char *name, const char *kind, const char *shape,
                        const vx_cuda_step_time *time, double flops) {
    cJSON *o = cJSON_CreateObject();
    cJSON_AddStringToObject(o, "step", name);
    cJSON_AddStringToObject(o, "op", kind);
    cJSON_AddStringToObject(o, "shape", shape);
    cJSON_AddNumberToObject(o, "ms", time->ms);
    cJSON_AddNumberToObject(o, "launches", (double)time->launches);
    cJSON_AddNumberToObject(o, "gflop", flops * 1e-9);
    return o;
}

static vx_status report_steps(const job *j, const vx_cuda_step_time *times, vx_error *err) {
    const vx_graph *g = vx_cuda_plan_graph(j->plan);
    double sum = 0;
    size_t launches = 0;
    cJSON *row = json_row(j, "cuda_steps"), *list = cJSON_AddArrayToObject(row, "steps");
    for (size_t i = 0; i < g->op_count; i++) {
        const vx_op *op = &g->ops[i];
        char shape[96] = "";
        if (op->kind != VX_OP_INPUT) shape_text(shape, sizeof shape, g, op);
        const double flops = vx_op_flops(g, op);
        printf("%4zu %-36.36s %-24s %-32s %8.4f ms %2zu launches %7.1f TFLOP/s\n", i,
               g->values[i].name, vx_op_name(op->kind), shape, (double)times[i].ms,
               times[i].launches, flops / (double)times[i].ms * 1e-9);
        cJSON_AddItemToArray(
            list, step_json(g->values[i].name, vx_op_name(op->kind), shape, &times[i], flops));
        sum += (double)times[i].ms;
        launches += times[i].launches;
    }
    printf("     sum of the steps %.3f ms, %zu launches\n", sum, launches);
    return bench_json_write(row, j->s->json, err);
}

static vx_status time_steps(const job *j, vx_error *err) {
    vx_cuda_step_time *times = vx_alloc_zero(vx_cuda_plan_graph(j->plan)->op_count, sizeof *times);
    if (!times) return vx_fail(err, VX_ERR_RESOURCE, "out of memory");
    vx_status status = vx_cuda_time_steps(j->plan, j->in[0], j->s->runs, times, err);
    if (status == VX_OK) status = report_steps(j, times, err);
    vx_free(times);
    return status;
}

/* --- the program ------------------------------------------------------------------------------ */

static vx_status run_precision(job *j, vx_error *err) {
    const vx_compile_options options = {.precision = j->precision};
    const double begin = bench_now();
    vx_status status = vx_cuda_backend.compile(j->device, j->graph, &options, &j->plan, err);
    if (status != VX_OK) return status;
    j->compile_seconds = bench_now() - begin;
    j->times = (bench_times){0};
    vx_cuda_backend.plan_info(j->plan, &j->info);
    status = check_output(j, err);
    if (status == VX_OK) status = time_runs(j, err);
    j->process_bytes = process_bytes();
    if (status == VX_OK) status = report(j, err);
    if (status == VX_OK && j->s->steps) status = time_steps(j, err);
    if (status == VX_OK && j->s->save) status = save(j, err);
    vx_cuda_backend.plan_free(j->plan);
    j->plan = NULL;
    return status;
}

static vx_status make_buffers(job *j, vx_error *err) {
    j->in_elements = vx_shape_elements(j->graph->values[0].shape);
    for (size_t i = 0; i < j->graph->value_count; i++)
        if (j->graph->values[i].output)
            j->out_elements = vx_shape_elements(j->graph->values[i].shape);
    j->out = vx_alloc(j->out_elements * sizeof *j->out);
    if (!j->out) return vx_fail(err, VX_ERR_RESOURCE, "out of memory");
    for (uint64_t k = 0; k < INPUTS; k++) {
        j->in[k] = vx_alloc(j->in_elements * sizeof(float));
        if (!j->in[k]) return vx_fail(err, VX_ERR_RESOURCE, "out of memory");
        bench_fill_normal(j->in[k], j->in_elements, 1, BENCH_INPUT_SEED + k);
    }
    return VX_OK;
}

static vx_status open_model(const settings *s, vx_model **model, vx_error *err) {
    char path[] = "/tmp/voxmamba-bench-XXXXXX";
    if (s->model && access(s->model, R_OK) == 0) return vx_model_open(s->model, model, err);
    if (s->model) return bench_random_model(&s->network, s->model, true, model, err);
    const int fd = mkstemp(path);
    if (fd < 0) return vx_fail(err, VX_ERR_OUTPUT, "%s could not be made", path);
    close(fd);
    return bench_random_model(&s->network, path, false, model, err);
}

static vx_status run(const settings *s, vx_error *err) {
    vx_model *model = NULL;
    vx_graph *graph = NULL;
    vx_device *device = NULL;
    vx_status status = open_model(s, &model, err);
    if (status == VX_OK) status = vx_model_graph(model, 1, s->network.patch, &graph, err);
    if (status == VX_OK) status = vx_cuda_backend.open(0, NULL, &device, err);
    job j = {.s = s, .device = device, .graph = graph, .model = model};
    if (status == VX_OK) status = make_buffers(&j, err);
    for (size_t i = 0; i < s->precision_count && status == VX_OK; i++) {
        j.precision = s->precisions[i];
        status = run_precision(&j, err);
    }
    for (size_t k = 0; k < INPUTS; k++) vx_free(j.in[k]);
    vx_free(j.out);
    if (device) vx_cuda_backend.close(device);
    vx_graph_free(graph);
    vx_model_close(model);
    return status;
}

int main(int argc, char **argv) {
    settings s = {.precisions = {VX_PRECISION_FP16}, .precision_count = 1, .runs = 15};
    vx_error err = {0};
    if (!read_settings(argc, argv, &s)) {
        fputs(usage, stderr);
        return VX_ERR_USAGE;
    }
    const vx_status status = run(&s, &err);
    if (status != VX_OK) fprintf(stderr, "voxmamba_cuda_bench: %s: %s\n", s.name, err.text);
    return (int)status;
}
