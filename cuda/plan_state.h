/* A plan's inside, for plan.c and plan_probe.c alone. */
#ifndef VX_CUDA_PLAN_STATE_H
#define VX_CUDA_PLAN_STATE_H

#include "backend/placement.h"
#include "cuda/plan.h"

struct vx_plan {
    vx_device *device;
    vx_dtype dtype;  /* what values hold unless they are float */
    vx_graph *graph; /* own copy; op i is step i and writes value i */
    vx_cuda_step *steps;
    /* One a value, then one a step's scratch, then one a value's float copy: of the input and of
     * outputs that their step cannot write as float. Bytes are rounded up to VX_CUDA_ALIGN. */
    vx_buffer *buffers;
    size_t *exact;                  /* bytes of each buffer before rounding */
    void **value;                   /* where each value lives */
    unsigned char *arena, *weights; /* device memory */
    size_t arena_bytes, weight_bytes;
    cudaGraphExec_t launches; /* NULL: eager */
    double flops;
};

/* Bytes that stay free behind each buffer: tests only. */
static inline size_t vx_cuda_guard_bytes(const vx_plan *plan) {
    return plan->device->separate ? VX_CUDA_ALIGN : 0;
}

/* Each queues work on the device's stream: the upload of the caller's input, one step
 * (with the casts of an input or an output). */
vx_status vx_cuda_queue_input(const vx_plan *plan, const float *in, vx_error *err);
vx_status vx_cuda_queue_step(const vx_plan *plan, size_t i, vx_error *err);

/* What `queue` queues, as a graph instead. *out: the caller's, NULL after a failure. */
typedef vx_status (*vx_cuda_queue_fn)(const vx_plan *plan, void *context, vx_error *err);
vx_status vx_cuda_capture(const vx_plan *plan, vx_cuda_queue_fn queue, void *context,
                          cudaGraph_t *out, vx_error *err);

#endif
