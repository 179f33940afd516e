/* What every benchmark needs: a clock, statistics of runs, memory, random numbers, and the
 * machine's own speed to hold results against. */
#ifndef VX_BENCH_MEASURE_H
#define VX_BENCH_MEASURE_H

#include <stddef.h>
#include <stdint.h>

#include <cjson/cJSON.h>

#include "backend/backend.h"
#include "model/model.h"

double bench_now(void); /* seconds of the monotonic clock */

/* When to stop repeating: after `most` runs, or after `seconds` once `least` runs are done. */
typedef struct bench_limits {
    size_t least, most;
    double seconds;
} bench_limits;

enum { BENCH_RUNS_MAX = 64 };

typedef struct bench_times {
    size_t runs;
    double seconds[BENCH_RUNS_MAX]; /* in the order they were taken */
    double median, min, max;
} bench_times;

/* Starts with runs = 0. True while another run is wanted. */
int bench_more(const bench_times *times, bench_limits limits, double started);
void bench_add(bench_times *times, double seconds);
void bench_summarise(bench_times *times);

/* Resident memory of this process in bytes: now, and its highest value so far (VmRSS, VmHWM). */
size_t bench_rss(void);
size_t bench_rss_peak(void);

/* A counter-based generator (splitmix64): the same numbers on every machine. */
double bench_uniform(uint64_t *state); /* [0, 1) */
double bench_normal(uint64_t *state);
void bench_fill_normal(float *x, size_t n, double scale, uint64_t seed);

/* Adds times (median_s, min_s, max_s, runs_s) to a JSON object. */
void bench_json_times(cJSON *object, const bench_times *times);
/* A list of sizes. */
void bench_json_sizes(cJSON *object, const char *name, const size_t *sizes, size_t count);
/* Appends one line to path (NULL: nothing) and frees the object. */
vx_status bench_json_write(cJSON *object, const char *path, vx_error *err);

/* A graph on random input, with rotated inputs and a poisoned output. */
typedef struct bench_run {
    bench_times times;
    vx_plan_info info;
    double compile_seconds;
    size_t rss_peak; /* of the process, after the last run */
} bench_run;

typedef struct bench_context {
    const vx_backend *backend;
    vx_device *device;
    vx_pool *pool;
    vx_precision precision;
    bench_limits limits;
    const char *json; /* file of results, or NULL */
    const char *save; /* where to leave the model, an input and its logits, or NULL */
} bench_context;

/* Floats, as they are, to the file "PREFIXEND". */
vx_status bench_save(const char *prefix, const char *end, const float *x, size_t n, vx_error *err);

/* As the program runs a graph: its output lies in the arena, and once the weights are packed the
 * pages of `model`, the file that they lie in (NULL: none), are given back. The first input is
 * bench_fill_normal(x, n, 1, BENCH_INPUT_SEED). save: NULL, or a prefix: PREFIX.input.f32 and
 * PREFIX.logits.f32 become the first input and its output. */
#define BENCH_INPUT_SEED 7u
vx_status bench_graph(const bench_context *ctx, const vx_graph *graph, const vx_model_file *model,
                      const char *save, bench_run *out, vx_error *err);

/* {"kind": "machine"}: processor, and what it reaches in a copy, in exponentials and in a matrix
 * product out of the first caches. Printed, and written as one line. */
vx_status bench_machine(const bench_context *ctx, vx_error *err);

#endif
