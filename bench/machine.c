/* What this processor reaches by itself: results are read against these, never against another
 * machine's. */
#include <stdio.h>
#include <string.h>

#include "backend/cpu/kernels.h"
#include "base/memory.h"
#include "measure.h"

enum { COPY_BYTES = 64 << 20, PIECES = 64, EXP_FLOATS = 4096, EXP_REPEATS = 64 };
enum { GEMM_ROWS = 48, GEMM_DEPTH = 128, GEMM_COLUMNS = 64, GEMM_REPEATS = 16 };

typedef struct speed_job {
    const vx_kernels *kernels;
    unsigned char *from, *to; /* COPY_BYTES */
    float *local;             /* a stretch of floats for each worker */
    size_t local_floats;
    const float *packed; /* matrix of the product */
} speed_job;

static void copy_task(void *ctx, size_t task, unsigned worker) {
    const speed_job *job = ctx;
    const size_t bytes = COPY_BYTES / PIECES;
    (void)worker;
    memcpy(job->to + task * bytes, job->from + task * bytes, bytes);
}

static void exp_task(void *ctx, size_t task, unsigned worker) {
    const speed_job *job = ctx;
    float *x = job->local + worker * job->local_floats;
    (void)task;
    for (int i = 0; i < EXP_REPEATS; i++) job->kernels->exp2(x, EXP_FLOATS, x + EXP_FLOATS);
}

static void gemm_task(void *ctx, size_t task, unsigned worker) {
    const speed_job *job = ctx;
    float *x = job->local + worker * job->local_floats, *y = x + GEMM_ROWS * GEMM_DEPTH;
    const void *x_rows[GEMM_ROWS];
    void *y_rows[GEMM_ROWS];
    (void)task;
    for (size_t i = 0; i < GEMM_ROWS; i++) {
        x_rows[i] = x + i * GEMM_DEPTH;
        y_rows[i] = y + i * GEMM_COLUMNS;
    }
    const vx_gemm gemm = {.rows = GEMM_ROWS,
                          .taps = 1,
                          .depth = GEMM_DEPTH,
                          .x = x_rows,
                          .y = y_rows,
                          .w = job->packed,
                          .columns = GEMM_COLUMNS,
                          .end_column = GEMM_COLUMNS};
    for (int i = 0; i < GEMM_REPEATS; i++) job->kernels->gemm(&gemm);
}

/* Fastest of some runs over all pieces: what the machine can, not what it did on average. */
static double fastest(const bench_context *ctx, vx_task_fn task, speed_job *job) {
    double best = 1e30;
    const double started = bench_now();
    for (int i = 0; i < 3 || (i < 40 && bench_now() - started < 0.5); i++) {
        const double begin = bench_now();
        vx_pool_run(ctx->pool, PIECES, task, job);
        const double seconds = bench_now() - begin;
        if (seconds < best) best = seconds;
    }
    return best;
}

/* The first "model name" of /proc/cpuinfo. */
static void processor_name(char *name, size_t bytes) {
    char line[512];
    snprintf(name, bytes, "unknown");
    FILE *f = fopen("/proc/cpuinfo", "r");
    if (!f) return;
    while (fgets(line, sizeof line, f)) {
        const char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) != 0 || !colon) continue;
        line[strcspn(line, "\n")] = '\0';
        snprintf(name, bytes, "%s", colon + 2);
        break;
    }
    fclose(f);
}

static vx_status prepare(const bench_context *ctx, speed_job *job, float *packed, vx_error *err) {
    const size_t floats = job->local_floats * vx_pool_workers(ctx->pool);
    job->from = vx_alloc(COPY_BYTES);
    job->to = vx_alloc(COPY_BYTES);
    job->local = vx_alloc(floats * sizeof *job->local);
    if (!job->from || !job->to || !job->local || !packed)
        return vx_fail(err, VX_ERR_RESOURCE, "out of memory");
    memset(job->from, 1, COPY_BYTES);
    memset(job->to, 2, COPY_BYTES);
    bench_fill_normal(job->local, floats, 1, 1);
    bench_fill_normal(packed, GEMM_DEPTH * GEMM_COLUMNS, 1, 2);
    job->packed = packed;
    return VX_OK;
}

vx_status bench_machine(const bench_context *ctx, vx_error *err) {
    speed_job job = {.kernels = vx_kernels_for(VX_ISA_BEST, VX_F32),
                     .local_floats = GEMM_ROWS * (GEMM_DEPTH + GEMM_COLUMNS) + 2 * EXP_FLOATS};
    float *packed = vx_alloc(GEMM_DEPTH * GEMM_COLUMNS * sizeof *packed);
    char processor[256], device[160];
    vx_status status = prepare(ctx, &job, packed, err);
    if (status == VX_OK) {
        const double copy = 2.0 * COPY_BYTES / fastest(ctx, copy_task, &job) * 1e-9;
        const double exps =
            (double)PIECES * EXP_REPEATS * EXP_FLOATS / fastest(ctx, exp_task, &job) * 1e-9;
        const double flops = 2.0 * GEMM_ROWS * GEMM_DEPTH * GEMM_COLUMNS * GEMM_REPEATS * PIECES;
        const double gemm = flops / fastest(ctx, gemm_task, &job) * 1e-9;
        processor_name(processor, sizeof processor);
        ctx->backend->describe(ctx->device, device, sizeof device);
        printf("%s; %s\ncopy %.1f GB/s (read + write), %.2f G exponentials/s, "
               "matrix product %.0f GFLOP/s\n",
               processor, device, copy, exps, gemm);
        cJSON *o = cJSON_CreateObject();
        cJSON_AddStringToObject(o, "kind", "machine");
        cJSON_AddStringToObject(o, "engine", "voxmamba");
        cJSON_AddStringToObject(o, "processor", processor);
        cJSON_AddStringToObject(o, "device", device);
        cJSON_AddNumberToObject(o, "threads", vx_pool_workers(ctx->pool));
        cJSON_AddNumberToObject(o, "copy_gb_s", copy);
        cJSON_AddNumberToObject(o, "exp_g_s", exps);
        cJSON_AddNumberToObject(o, "gemm_gflop_s", gemm);
        status = bench_json_write(o, ctx->json, err);
    }
    vx_free(packed);
    vx_free(job.from);
    vx_free(job.to);
    vx_free(job.local);
    return status;
}
