#define _GNU_SOURCE
#include "pretend_devices.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/memory.h"
#include "infer/fake_plan.h"

pretend_settings pretend;
pretend_seen pretend_seen_so_far;

struct vx_device {
    int ordinal; /* -1: the CPU */
};

struct vx_plan {
    const vx_device *device;
    vx_precision precision;
    vx_shape in, out;
};

static vx_status run(vx_plan *plan, void *arena, const float *in, float *const *out, vx_error *err);

void pretend_reset(void) {
    fake_sweep_network = run;
    pretend = (pretend_settings){.count = 2, .closed = -1, .odd = -1, .breaks = -1};
    memset(&pretend_seen_so_far, 0, sizeof pretend_seen_so_far);
}

static vx_status count_devices(int *out, vx_error *err) {
    atomic_fetch_add(&pretend_seen_so_far.counted, 1);
    *out = pretend.count;
    return pretend.count_fails ? vx_fail(err, VX_ERR_RESOURCE, "a library is missing (get it)")
                               : VX_OK;
}

static vx_status make_device(int ordinal, vx_device **out, vx_error *err) {
    *out = vx_alloc_zero(1, sizeof **out);
    if (!*out) return vx_fail(err, VX_ERR_RESOURCE, "out of memory");
    (*out)->ordinal = ordinal;
    return VX_OK;
}

/* What comes with opening any device. */
static void enter_open(void) {
    if (pretend.open_microseconds) usleep(pretend.open_microseconds);
    if (pretend.remove_at_open) (void)!unlink(pretend.remove_at_open);
}

static vx_status open_device(int ordinal, vx_pool *pool, vx_device **out, vx_error *err) {
    (void)pool;
    *out = NULL;
    enter_open();
    if (ordinal >= pretend.count || ordinal == pretend.closed)
        return vx_fail(err, VX_ERR_RESOURCE, "device %d is closed (use another)", ordinal);
    return make_device(ordinal, out, err);
}

static vx_status open_cpu(int ordinal, vx_pool *pool, vx_device **out, vx_error *err) {
    (void)ordinal, (void)pool;
    enter_open();
    return make_device(-1, out, err);
}

static void close_device(vx_device *device) { vx_free(device); }

static void describe(const vx_device *device, char *text, size_t bytes) {
    snprintf(text, bytes, "%s",
             device->ordinal < 0              ? "pretended CPU"
             : device->ordinal == pretend.odd ? "odd device"
                                              : "pretended device");
}

static vx_status compile(vx_device *device, const vx_graph *graph,
                         const vx_compile_options *options, vx_plan **out, vx_error *err) {
    *out = NULL;
    if (device->ordinal < 0 && options->precision != VX_PRECISION_FP32)
        return vx_fail(err, VX_ERR_RESOURCE, "fp32 only");
    vx_plan *plan = vx_alloc_zero(1, sizeof *plan);
    if (!plan) return vx_fail(err, VX_ERR_RESOURCE, "out of memory");
    *plan =
        (vx_plan){.device = device, .precision = options->precision, .in = graph->values[0].shape};
    for (size_t i = 0; i < graph->value_count; i++)
        if (graph->values[i].output) plan->out = graph->values[i].shape;
    *out = plan;
    return VX_OK;
}

static void plan_free(vx_plan *plan) { vx_free(plan); }

static void plan_info(const vx_plan *plan, vx_plan_info *out) {
    (void)plan;
    *out = (vx_plan_info){.arena_bytes = 64, .weight_bytes = 64, .flops = 1, .steps = 1};
}

/* Notes that a run began, and waits for what the test wants it to wait for. */
static void enter(void) {
    pretend_seen *seen = &pretend_seen_so_far;
    const int now = atomic_fetch_add(&seen->running, 1) + 1;
    int most = atomic_load(&seen->most_running);
    while (now > most && !atomic_compare_exchange_weak(&seen->most_running, &most, now)) continue;
    if (pretend.microseconds) usleep(pretend.microseconds);
    for (int ms = 0; pretend.wait_for_two && atomic_load(&seen->most_running) < 2 && ms < 2000;
         ms++)
        usleep(1000);
}

static vx_status run(vx_plan *plan, void *arena, const float *in, float *const *out,
                     vx_error *err) {
    (void)arena;
    const size_t voxels = vx_shape_tokens(plan->in), classes = plan->out.c, channels = plan->in.c;
    const bool overflows = pretend.overflows && plan->precision == VX_PRECISION_FP16;
    enter();
    for (size_t v = 0; v < voxels; v++)
        for (size_t k = 0; k < classes; k++) {
            const float d = in[v * channels] - (float)k;
            out[0][v * classes + k] = overflows && in[v * channels] >= 3 ? INFINITY : -d * d;
        }
    const int ordinal = plan->device->ordinal;
    int before = 0;
    if (ordinal >= 0) before = atomic_fetch_add(&pretend_seen_so_far.runs[ordinal], 1);
    atomic_fetch_sub(&pretend_seen_so_far.running, 1);
    if (ordinal >= 0 && ordinal == pretend.breaks && before == 2)
        return vx_fail(err, VX_ERR_RESOURCE, "device %d broke", ordinal);
    return VX_OK;
}

static const vx_backend cuda = {.name = "cuda",
                                .automatic = VX_PRECISION_FP16,
                                .count = count_devices,
                                .open = open_device,
                                .close = close_device,
                                .describe = describe,
                                .compile = compile,
                                .plan_free = plan_free,
                                .plan_info = plan_info,
                                .run = run};
static const vx_backend own_memory = {.name = "cuda",
                                      .automatic = VX_PRECISION_FP16,
                                      .count = count_devices,
                                      .open = open_device,
                                      .close = close_device,
                                      .describe = describe,
                                      .compile = compile,
                                      .plan_free = plan_free,
                                      .plan_info = plan_info,
                                      .run = run,
                                      .sweep = &fake_sweep};
static const vx_backend cpu = {.name = "cpu",
                               .automatic = VX_PRECISION_FP32,
                               .open = open_cpu,
                               .close = close_device,
                               .describe = describe,
                               .compile = compile,
                               .plan_free = plan_free,
                               .plan_info = plan_info,
                               .run = run};

static const char *const there[] = {"/nowhere/at/all", "/proc/self/exe", NULL};
static const char *const nowhere[] = {"/nowhere/at/all", NULL};

const vx_device_source pretend_source = {.cpu = &cpu, .cuda = &cuda, .driver_files = there};
const vx_device_source pretend_own_memory = {
    .cpu = &cpu, .cuda = &own_memory, .driver_files = there};
const vx_device_source pretend_no_driver = {.cpu = &cpu, .cuda = &cuda, .driver_files = nowhere};
