/* What a device does: compile a graph to a plan, run the plan; and, where it has memory of its own,
 * take a whole volume (backend/sweep.h).
 *
 * A plan owns packed weights and vendor objects. Activations live in an arena that the caller makes
 * with the plan's exact size. A plan is used by one thread at a time; the device's pool spreads the
 * work.
 */
#ifndef VX_BACKEND_BACKEND_H
#define VX_BACKEND_BACKEND_H

#include "backend/sweep.h"
#include "base/memory.h"
#include "base/threads.h"
#include "graph/graph.h"

typedef enum vx_precision { VX_PRECISION_FP32, VX_PRECISION_FP16, VX_PRECISION_BF16 } vx_precision;

typedef struct vx_compile_options {
    vx_precision precision;
    size_t memory_budget; /* bytes of the host's memory for arena + weights; 0: no limit */
    bool reference;       /* CPU: the scalar reference instead of the fast ops (tests) */
    bool eager;           /* CUDA: launch step by step, not a captured graph (tests, profiles) */
    bool output_in_arena; /* place the graph's only output in the arena too, among buffers that are
                             free by then, where the backend can: see vx_plan_info */
} vx_compile_options;

typedef struct vx_plan_info {
    size_t arena_bytes;  /* activations and scratch: what run needs */
    size_t weight_bytes; /* packed weights held by the plan */
    size_t device_bytes; /* held on a device with memory of its own: weights, activations, scratch
                          */
    double flops;        /* of one run */
    size_t steps;
    bool output_in_arena; /* run writes the output at output_offset of the arena; its out is not
                             read and may be NULL. The output lasts until the next run. */
    size_t output_offset; /* bytes */
} vx_plan_info;

typedef struct vx_backend {
    const char *name;       /* "cpu", "cuda" */
    vx_precision automatic; /* what --precision auto means here (docs/decisions/0004) */
    /* How many devices there are; 0 is no error. VX_ERR_RESOURCE when something is missing that
     * even the answer needs. */
    vx_status (*count)(int *out, vx_error *err);
    /* pool: borrowed, outlives the device. */
    vx_status (*open)(int ordinal, vx_pool *pool, vx_device **out, vx_error *err);
    void (*close)(vx_device *device);
    /* One line for people: processor, instruction set. */
    void (*describe)(const vx_device *device, char *text, size_t bytes);
    /* graph must be finished (fusing is the backend's business); its weights must stay mapped until
     * compile returns. VX_ERR_RESOURCE with the two numbers when the budget is too small. */
    vx_status (*compile)(vx_device *device, const vx_graph *graph,
                         const vx_compile_options *options, vx_plan **out, vx_error *err);
    void (*plan_free)(vx_plan *plan);
    void (*plan_info)(const vx_plan *plan, vx_plan_info *out);
    /* in: the graph's input, [n][d][h][w][c] float32. out[k]: the k-th output value in value order,
     * float32, caller's memory. arena: >= plan's arena_bytes, VX_ALIGN aligned. */
    vx_status (*run)(vx_plan *plan, void *arena, const float *in, float *const *out, vx_error *err);
    const vx_sweep_ops *sweep; /* NULL: the device's memory is the host's */
} vx_backend;

extern const vx_backend vx_backend_cpu;
/* Loads the CUDA module when a device is opened; see cuda_loader.c. */
extern const vx_backend vx_backend_cuda;

#endif
