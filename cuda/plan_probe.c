/* What tests and benchmarks look at: poisoned memory and guard bytes, times of runs and steps. */
#include <stdlib.h>

#include "base/memory.h"
#include "cuda/check.h"
#include "cuda/plan_state.h"

enum { GUARD_BYTE = 0x5a, POISON_BYTE = 0xff };

/* --- tests ------------------------------------------------------------------------------------ */

/* Where the guard behind a buffer lies: from its exact end to the next buffer. */
static size_t guard_of(const vx_plan *plan, size_t k, size_t *offset) {
    const vx_buffer *b = &plan->buffers[k];
    *offset = b->offset + plan->exact[k];
    return b->bytes ? b->bytes - plan->exact[k] + vx_cuda_guard_bytes(plan) : 0;
}

vx_status vx_cuda_poison(vx_plan *plan, vx_error *err) {
    size_t offset;
    vx_status status = vx_cuda_enter(plan->device, err);
    if (status == VX_OK)
        status =
            vx_cuda_check(cudaMemset(plan->arena, POISON_BYTE, plan->arena_bytes), "poison", err);
    for (size_t k = 0; k < 3 * plan->graph->op_count && plan->device->separate; k++) {
        const size_t bytes = guard_of(plan, k, &offset);
        if (status == VX_OK && bytes)
            status =
                vx_cuda_check(cudaMemset(plan->arena + offset, GUARD_BYTE, bytes), "guards", err);
    }
    /* Memsets of the default stream do not wait for a stream of ours, nor it for them. */
    return status == VX_OK ? vx_cuda_check(cudaDeviceSynchronize(), "poison", err) : status;
}

vx_status vx_cuda_check_guards(const vx_plan *plan, vx_error *err) {
    unsigned char bytes[2 * 256];
    size_t offset;
    for (size_t k = 0; k < 3 * plan->graph->op_count; k++) {
        const size_t count = guard_of(plan, k, &offset);
        if (!count || count > sizeof bytes) continue;
        vx_status status = vx_cuda_check(
            cudaMemcpy(bytes, plan->arena + offset, count, cudaMemcpyDeviceToHost), "guards", err);
        if (status != VX_OK) return status;
        for (size_t i = 0; i < count; i++)
            if (bytes[i] != GUARD_BYTE)
                return vx_fail(err, VX_ERR_RESOURCE, "byte %zu behind buffer %zu was written", i,
                               k);
    }
    return VX_OK;
}

/* --- benchmarks ------------------------------------------------------------------------------- */

const vx_graph *vx_cuda_plan_graph(const vx_plan *plan) { return plan->graph; }

static vx_status make_events(cudaEvent_t *events, size_t count, vx_error *err) {
    for (size_t i = 0; i < count; i++) {
        vx_status status = vx_cuda_check(cudaEventCreate(&events[i]), "making an event", err);
        if (status != VX_OK) return status;
    }
    return VX_OK;
}

static void drop_events(cudaEvent_t *events, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (events[i]) cudaEventDestroy(events[i]);
}

static vx_status wait(const vx_plan *plan, vx_error *err) {
    return vx_cuda_check(cudaStreamSynchronize(plan->device->stream), "the network", err);
}

vx_status vx_cuda_time_run(const vx_plan *plan, const float *in, float *ms, vx_error *err) {
    const cudaStream_t stream = plan->device->stream;
    cudaEvent_t events[2] = {NULL, NULL};
    vx_status status = vx_cuda_enter(plan->device, err);
    if (status == VX_OK) status = make_events(events, 2, err);
    if (status == VX_OK) status = vx_cuda_queue_input(plan, in, err);
    if (status == VX_OK) status = vx_cuda_check(cudaEventRecord(events[0], stream), "timing", err);
    if (status == VX_OK) status = vx_cuda_plan_launch(plan, err);
    if (status == VX_OK) status = vx_cuda_check(cudaEventRecord(events[1], stream), "timing", err);
    if (status == VX_OK) status = wait(plan, err);
    if (status == VX_OK)
        status = vx_cuda_check(cudaEventElapsedTime(ms, events[0], events[1]), "timing", err);
    drop_events(events, 2);
    return status;
}

/* All steps with an event before each and one behind the last. */
static vx_status queue_with_events(const vx_plan *plan, void *context, vx_error *err) {
    cudaEvent_t *events = context;
    const size_t ops = plan->graph->op_count;
    for (size_t i = 0; i <= ops; i++) {
        vx_status status = vx_cuda_check(
            cudaEventRecordWithFlags(events[i], plan->device->stream, cudaEventRecordExternal),
            "timing", err);
        if (status == VX_OK && i < ops) status = vx_cuda_queue_step(plan, i, err);
        if (status != VX_OK) return status;
    }
    return VX_OK;
}

static vx_status queue_one(const vx_plan *plan, void *context, vx_error *err) {
    return vx_cuda_queue_step(plan, *(const size_t *)context, err);
}

static vx_status count_launches(const vx_plan *plan, size_t i, size_t *launches, vx_error *err) {
    cudaGraph_t graph;
    vx_status status = vx_cuda_capture(plan, queue_one, &i, &graph, err);
    if (status != VX_OK) return status;
    status = vx_cuda_check(cudaGraphGetNodes(graph, NULL, launches), "counting launches", err);
    cudaGraphDestroy(graph);
    return status;
}

static int ascending(const void *a, const void *b) {
    const float x = *(const float *)a, y = *(const float *)b;
    return x < y ? -1 : x > y;
}

/* Medians over the runs of all [run][op] times. */
static void summarise(float *all, size_t runs, size_t ops, vx_cuda_step_time *out) {
    float sorted[VX_CUDA_STEP_RUNS_MAX];
    for (size_t i = 0; i < ops; i++) {
        for (size_t r = 0; r < runs; r++) sorted[r] = all[r * ops + i];
        qsort(sorted, runs, sizeof *sorted, ascending);
        out[i].ms = sorted[runs / 2];
    }
}

static vx_status time_with(const vx_plan *plan, const float *in, size_t runs, cudaGraphExec_t exec,
                           const cudaEvent_t *events, vx_cuda_step_time *out, vx_error *err) {
    const size_t ops = plan->graph->op_count;
    vx_status status = VX_OK;
    float *all = vx_alloc_zero(runs * ops, sizeof *all);
    if (!all) return vx_cuda_no_memory(err);
    for (size_t run = 0; run <= runs && status == VX_OK; run++) { /* the first does not count */
        status = vx_cuda_queue_input(plan, in, err);
        if (status == VX_OK)
            status = vx_cuda_check(cudaGraphLaunch(exec, plan->device->stream), "the network", err);
        if (status == VX_OK) status = wait(plan, err);
        for (size_t i = 0; i < ops && run && status == VX_OK; i++)
            status = vx_cuda_check(
                cudaEventElapsedTime(&all[(run - 1) * ops + i], events[i], events[i + 1]), "timing",
                err);
    }
    if (status == VX_OK) summarise(all, runs, ops, out);
    vx_free(all);
    return status;
}

vx_status vx_cuda_time_steps(const vx_plan *plan, const float *in, size_t runs,
                             vx_cuda_step_time *out, vx_error *err) {
    const size_t ops = plan->graph->op_count;
    cudaGraph_t graph = NULL;
    cudaGraphExec_t exec = NULL;
    if (!runs || runs > VX_CUDA_STEP_RUNS_MAX)
        return vx_fail(err, VX_ERR_USAGE, "%zu timed runs", runs);
    cudaEvent_t *events = vx_alloc_zero(ops + 1, sizeof *events);
    if (!events) return vx_cuda_no_memory(err);
    vx_status status = vx_cuda_enter(plan->device, err);
    for (size_t i = 0; i < ops && status == VX_OK; i++)
        status = count_launches(plan, i, &out[i].launches, err);
    if (status == VX_OK) status = make_events(events, ops + 1, err);
    if (status == VX_OK) status = vx_cuda_capture(plan, queue_with_events, events, &graph, err);
    if (status == VX_OK)
        status = vx_cuda_check(cudaGraphInstantiate(&exec, graph, 0), "making a CUDA graph", err);
    if (status == VX_OK) status = time_with(plan, in, runs, exec, events, out, err);
    if (exec) cudaGraphExecDestroy(exec);
    if (graph) cudaGraphDestroy(graph);
    drop_events(events, ops + 1);
    vx_free(events);
    return status;
}
