#define _GNU_SOURCE
#include "measure.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/memory.h"

double bench_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* --- statistics ------------------------------------------------------------------------------- */

int bench_more(const bench_times *times, bench_limits limits, double started) {
    if (times->runs < limits.least) return 1;
    return times->runs < limits.most && times->runs < BENCH_RUNS_MAX &&
           bench_now() - started < limits.seconds;
}

void bench_add(bench_times *times, double seconds) {
    if (times->runs < BENCH_RUNS_MAX) times->seconds[times->runs++] = seconds;
}

static int ascending(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

void bench_summarise(bench_times *times) {
    double sorted[BENCH_RUNS_MAX];
    const size_t n = times->runs;
    if (!n) return;
    memcpy(sorted, times->seconds, n * sizeof *sorted);
    qsort(sorted, n, sizeof *sorted, ascending);
    times->min = sorted[0];
    times->max = sorted[n - 1];
    times->median = n % 2 ? sorted[n / 2] : (sorted[n / 2 - 1] + sorted[n / 2]) / 2;
}

/* --- memory ----------------------------------------------------------------------------------- */

/* A line "NAME:   123 kB" of /proc/self/status, in bytes; 0 where there is none. */
static size_t status_bytes(const char *name) {
    char line[256];
    unsigned long long kib = 0;
    FILE *f = fopen("/proc/self/status", "r");
    if (!f) return 0;
    const size_t length = strlen(name);
    while (fgets(line, sizeof line, f))
        if (strncmp(line, name, length) == 0 && line[length] == ':')
            kib = strtoull(line + length + 1, NULL, 10);
    fclose(f);
    return (size_t)kib * 1024;
}

size_t bench_rss(void) { return status_bytes("VmRSS"); }
size_t bench_rss_peak(void) { return status_bytes("VmHWM"); }

/* --- random numbers --------------------------------------------------------------------------- */

static uint64_t next(uint64_t *state) {
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

double bench_uniform(uint64_t *state) { return (double)(next(state) >> 11) * 0x1p-53; }

double bench_normal(uint64_t *state) { /* Box and Muller */
    const double u = 1.0 - bench_uniform(state), v = bench_uniform(state);
    return sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v);
}

void bench_fill_normal(float *x, size_t n, double scale, uint64_t seed) {
    uint64_t state = seed;
    for (size_t i = 0; i < n; i++) x[i] = (float)(scale * bench_normal(&state));
}

/* --- JSON ------------------------------------------------------------------------------------- */

void bench_json_times(cJSON *object, const bench_times *times) {
    cJSON_AddNumberToObject(object, "median_s", times->median);
    cJSON_AddNumberToObject(object, "min_s", times->min);
    cJSON_AddNumberToObject(object, "max_s", times->max);
    cJSON_AddItemToObject(object, "runs_s",
                          cJSON_CreateDoubleArray(times->seconds, (int)times->runs));
}

void bench_json_sizes(cJSON *object, const char *name, const size_t *sizes, size_t count) {
    cJSON *list = cJSON_AddArrayToObject(object, name);
    for (size_t i = 0; i < count; i++)
        cJSON_AddItemToArray(list, cJSON_CreateNumber((double)sizes[i]));
}

vx_status bench_json_write(cJSON *object, const char *path, vx_error *err) {
    vx_status status = VX_OK;
    char *text = path ? cJSON_PrintUnformatted(object) : NULL;
    cJSON_Delete(object);
    if (!path) return VX_OK;
    if (!text) return vx_fail(err, VX_ERR_RESOURCE, "out of memory");
    FILE *f = fopen(path, "a");
    const int failed = !f || fprintf(f, "%s\n", text) < 0;
    if ((f && fclose(f) != 0) || failed)
        status = vx_fail(err, VX_ERR_OUTPUT, "%s could not be written", path);
    cJSON_free(text);
    return status;
}

/* --- a graph ---------------------------------------------------------------------------------- */

vx_status bench_save(const char *prefix, const char *end, const float *x, size_t n, vx_error *err) {
    char path[1024];
    snprintf(path, sizeof path, "%s%s", prefix, end);
    FILE *f = fopen(path, "wb");
    const bool whole = f && fwrite(x, sizeof *x, n, f) == n;
    if ((f && fclose(f) != 0) || !whole)
        return vx_fail(err, VX_ERR_OUTPUT, "%s could not be written", path);
    return VX_OK;
}

enum { INPUTS = 2 };

typedef struct graph_job {
    vx_plan *plan;
    vx_arena arena;
    float *in[INPUTS];
    float *out, *own_out; /* own_out: its memory, unless that is the arena's */
    size_t in_elements, out_elements;
} graph_job;

static vx_status run_once(const bench_context *ctx, const graph_job *job, size_t k, double *seconds,
                          vx_error *err) {
    memset(job->out, 0xff, job->out_elements * sizeof *job->out); /* NaN: must be overwritten */
    float *const outputs[1] = {job->out};
    const double begin = bench_now();
    vx_status status =
        ctx->backend->run(job->plan, job->arena.base, job->in[k % INPUTS], outputs, err);
    *seconds = bench_now() - begin;
    if (status != VX_OK) return status;
    for (size_t i = 0; i < job->out_elements; i++)
        if (!isfinite(job->out[i]))
            return vx_fail(err, VX_ERR_RESOURCE, "output %zu of %zu is not a finite number", i,
                           job->out_elements);
    return VX_OK;
}

static vx_status allocate(graph_job *job, const vx_plan_info *info, vx_error *err) {
    vx_status status = vx_arena_create(info->arena_bytes, &job->arena, err);
    if (status != VX_OK) return status;
    if (info->output_in_arena)
        job->out = (float *)(void *)(job->arena.base + info->output_offset);
    else
        job->out = job->own_out = vx_alloc(job->out_elements * sizeof(float));
    bool whole = job->out != NULL;
    for (uint64_t k = 0; k < INPUTS && whole; k++) {
        job->in[k] = vx_alloc(job->in_elements * sizeof(float));
        whole = job->in[k] != NULL;
        if (whole) bench_fill_normal(job->in[k], job->in_elements, 1, BENCH_INPUT_SEED + k);
    }
    return whole ? VX_OK : vx_fail(err, VX_ERR_RESOURCE, "out of memory");
}

static vx_status measure(const bench_context *ctx, graph_job *job, const char *save, bench_run *out,
                         vx_error *err) {
    double seconds;
    vx_status status = allocate(job, &out->info, err);
    if (status == VX_OK) status = run_once(ctx, job, 0, &seconds, err); /* warm-up */
    if (status == VX_OK && save)
        status = bench_save(save, ".input.f32", job->in[0], job->in_elements, err);
    if (status == VX_OK && save)
        status = bench_save(save, ".logits.f32", job->out, job->out_elements, err);
    const double started = bench_now();
    while (status == VX_OK && bench_more(&out->times, ctx->limits, started)) {
        status = run_once(ctx, job, out->times.runs + 1, &seconds, err);
        if (status == VX_OK) bench_add(&out->times, seconds);
    }
    bench_summarise(&out->times);
    out->rss_peak = bench_rss_peak();
    return status;
}

vx_status bench_graph(const bench_context *ctx, const vx_graph *graph, const vx_model_file *model,
                      const char *save, bench_run *out, vx_error *err) {
    const vx_compile_options options = {.precision = ctx->precision, .output_in_arena = true};
    graph_job job = {.in_elements = vx_shape_elements(graph->values[0].shape)};
    *out = (bench_run){0};
    for (size_t i = 0; i < graph->value_count; i++)
        if (graph->values[i].output) job.out_elements = vx_shape_elements(graph->values[i].shape);
    const double begin = bench_now();
    vx_status status = ctx->backend->compile(ctx->device, graph, &options, &job.plan, err);
    out->compile_seconds = bench_now() - begin;
    if (status == VX_OK) {
        if (model) vx_model_file_release(model);
        ctx->backend->plan_info(job.plan, &out->info);
        status = measure(ctx, &job, save, out, err);
    }
    for (size_t k = 0; k < INPUTS; k++) vx_free(job.in[k]);
    vx_free(job.own_out);
    vx_arena_free(&job.arena);
    if (job.plan) ctx->backend->plan_free(job.plan);
    return status;
}
