/* Compiling a graph: fuse, prepare a step for each op, lay out one arena, pack the weights; and
 * running the result. */
#include "backend/cpu/plan.h"

#include <stdint.h>
#include <string.h>

#include "backend/placement.h"
#include "base/size.h"

/* With AddressSanitizer only the buffers that are alive may be touched, and each has a redzone. */
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#define VX_GUARD       VX_ALIGN
#define POISON(p, n)   ASAN_POISON_MEMORY_REGION(p, n)
#define UNPOISON(p, n) ASAN_UNPOISON_MEMORY_REGION(p, n)
#else
#define VX_GUARD       ((size_t)0)
#define POISON(p, n)   ((void)(p), (void)(n))
#define UNPOISON(p, n) ((void)(p), (void)(n))
#endif

struct vx_plan {
    vx_device *device;
    const vx_kernels *kernels; /* of the storage type: what values hold unless they are float */
    vx_graph *graph;           /* own copy; op i is step i and writes value i */
    vx_cpu_step *steps;
    vx_buffer *buffers;     /* one a value, then one a step's scratch, then the workers' */
    unsigned char *weights; /* one block for all steps */
    size_t weight_bytes, arena_bytes, worker_stride;
    void **value; /* of the current run */
    bool output_in_arena;
    size_t output; /* value, when in the arena */
    double flops;
};

/* --- compile ---------------------------------------------------------------------------------- */

/* The caller's memory holds float: the input, and outputs that no later step reads if their own
 * step can write float. In a plan of another type every other value is stored in that: the input
 * is narrowed before the first step, other outputs are widened after theirs. */
static bool is_float_plan(const vx_plan *plan) { return plan->kernels->stored == VX_F32; }

static bool writes_output(const vx_plan *plan, size_t i) {
    return plan->graph->values[i].output && (is_float_plan(plan) || plan->steps[i].out_float);
}

static bool is_read(const vx_graph *g, size_t value) {
    for (size_t i = value + 1; i < g->op_count; i++)
        if (g->ops[i].in[0] == (int)value || g->ops[i].in[1] == (int)value) return true;
    return false;
}

static void describe_steps(vx_plan *plan) {
    const vx_graph *g = plan->graph;
    for (size_t i = 0; i < g->op_count; i++) {
        const vx_op *op = &g->ops[i];
        vx_cpu_step *step = &plan->steps[i];
        step->op = op;
        step->kernels = plan->kernels;
        step->own_only = plan->device->own_only;
        step->direct_only = plan->device->direct_only;
        step->workers = vx_pool_workers(plan->device->pool);
        step->out = g->values[op->out].shape;
        step->in = op->in[0] >= 0 ? g->values[op->in[0]].shape : step->out;
        step->in2 = op->in[1] >= 0 ? g->values[op->in[1]].shape : (vx_shape){0};
        step->out_float = op->kind != VX_OP_INPUT && !is_float_plan(plan) && g->values[i].output &&
                          !is_read(g, i);
    }
}

/* A concatenation is not stored where all its readers can do without. */
static void find_views(vx_plan *plan) {
    const vx_graph *g = plan->graph;
    for (size_t i = 0; i < g->op_count; i++) {
        vx_cpu_step *step = &plan->steps[i];
        if (step->op->kind != VX_OP_TRANSPOSED_CONCAT || g->values[i].output) continue;
        step->is_view = step->op->in[0] != step->op->in[1];
        for (size_t k = i + 1; k < g->op_count; k++) {
            const int *in = g->ops[k].in;
            if (in[0] != (int)i && in[1] != (int)i) continue;
            step->is_view = step->is_view && in[1] != (int)i &&
                            vx_cpu_reads_view(&plan->steps[k], step->out.c - step->in2.c);
        }
        for (size_t k = i + 1; k < g->op_count && step->is_view; k++)
            if (g->ops[k].in[0] == (int)i) plan->steps[k].view = step;
    }
}

static vx_status prepare_steps(vx_plan *plan, bool reference, vx_error *err) {
    const vx_graph *g = plan->graph;
    describe_steps(plan);
    find_views(plan);
    for (size_t i = 0; i < g->op_count; i++) {
        const vx_op *op = &g->ops[i];
        vx_cpu_step *step = &plan->steps[i];
        if (op->kind == VX_OP_INPUT) continue;
        vx_status status = reference ? vx_cpu_prepare_ref(step, err) : vx_cpu_prepare(step, err);
        if (status != VX_OK) {
            const char *name = g->values[op->out].name;
            return vx_fail_prefix(err, status, name[0] ? name : vx_op_name(op->kind));
        }
        plan->flops += vx_op_flops(g, op);
    }
    return VX_OK;
}

/* An output in the arena lives to the end. What the caller's memory holds has no buffer, nor has a
 * view. */
static vx_status place_values(vx_plan *plan, vx_error *err) {
    const vx_graph *g = plan->graph;
    for (size_t i = 0; i < g->op_count; i++) plan->buffers[i].view = plan->steps[i].is_view;
    vx_lifetimes(g, plan->buffers);
    for (size_t i = 0; i < g->op_count; i++) {
        const vx_cpu_step *step = &plan->steps[i];
        vx_buffer *b = &plan->buffers[i];
        b->in_place = step->in_place;
        b->over = step->view ? step->view->op->in[1] : step->op->in[0];
        b->lead = step->lead;
        if (step->is_view || (g->ops[i].kind == VX_OP_INPUT && is_float_plan(plan))) continue;
        const bool direct = writes_output(plan, i);
        if (direct && !plan->output_in_arena) continue;
        if (!vx_mul_size(vx_shape_elements(g->values[i].shape),
                         vx_dtype_size(direct ? VX_F32 : plan->kernels->stored), &b->bytes))
            return vx_cpu_overflow(err);
    }
    if (plan->output_in_arena) plan->buffers[plan->output].last = g->op_count - 1;
    return VX_OK;
}

/* Whether the graph has one output, and that written by a step. */
static bool find_output(vx_plan *plan) {
    size_t count = 0;
    for (size_t i = 0; i < plan->graph->op_count; i++) {
        if (!plan->graph->values[i].output) continue;
        plan->output = i;
        count++;
    }
    return count == 1 && plan->output > 0 && writes_output(plan, plan->output);
}

static vx_status lay_out(vx_plan *plan, vx_error *err) {
    const size_t ops = plan->graph->op_count, workers = vx_pool_workers(plan->device->pool);
    size_t worker_max = 0;
    vx_status status = place_values(plan, err);
    if (status != VX_OK) return status;
    vx_share_buffers(plan->graph, plan->buffers);
    for (size_t i = 0; i < ops; i++) {
        plan->steps[i].took_over = plan->buffers[i].shared;
        plan->buffers[ops + i] =
            (vx_buffer){.bytes = plan->steps[i].scratch_bytes, .first = i, .last = i};
        if (plan->steps[i].worker_bytes > worker_max) worker_max = plan->steps[i].worker_bytes;
    }
    /* An odd number of cache lines: workers' scratch does not alias in the caches' sets. */
    if (!vx_align_size(worker_max, VX_ALIGN, &plan->worker_stride)) return vx_cpu_overflow(err);
    if (worker_max) plan->worker_stride |= VX_ALIGN;
    vx_buffer *shared = &plan->buffers[2 * ops];
    *shared = (vx_buffer){.first = 0, .last = ops - 1};
    if (!vx_mul_size(plan->worker_stride, workers, &shared->bytes) ||
        !vx_layout(plan->buffers, 2 * ops + 1, VX_GUARD, &plan->arena_bytes))
        return vx_cpu_overflow(err);
    return VX_OK;
}

static vx_status sum_weights(vx_plan *plan, vx_error *err) {
    for (size_t i = 0; i < plan->graph->op_count; i++) {
        size_t bytes;
        if (!vx_align_size(plan->steps[i].weight_bytes, VX_ALIGN, &bytes) ||
            !vx_add_size(plan->weight_bytes, bytes, &plan->weight_bytes))
            return vx_cpu_overflow(err);
    }
    return VX_OK;
}

static vx_status check_budget(const vx_plan *plan, size_t budget, vx_error *err) {
    size_t needed;
    if (!vx_add_size(plan->arena_bytes, plan->weight_bytes, &needed)) return vx_cpu_overflow(err);
    if (!budget || needed <= budget) return VX_OK;
    return vx_fail(err, VX_ERR_RESOURCE,
                   "the network needs %zu bytes, %zu are allowed (raise the memory limit)", needed,
                   budget);
}

static vx_status pack_weights(vx_plan *plan, vx_error *err) {
    unsigned char *next = plan->weights = vx_alloc(plan->weight_bytes);
    if (!next)
        return vx_fail(err, VX_ERR_RESOURCE, "out of memory (%zu MB of weights are needed)",
                       plan->weight_bytes / 1000000);
    for (size_t i = 0; i < plan->graph->op_count; i++) {
        vx_cpu_step *step = &plan->steps[i];
        step->weights = next;
        next += (step->weight_bytes + VX_ALIGN - 1) & ~(VX_ALIGN - 1);
        if (!step->pack) continue;
        vx_status status = step->pack(step, err);
        if (status != VX_OK) return status;
    }
    return VX_OK;
}

static vx_status fill_plan(vx_plan *plan, const vx_graph *graph, const vx_compile_options *options,
                           vx_error *err) {
    vx_status status = vx_graph_copy(graph, &plan->graph, err);
    /* The reference runs the ops as they were written. */
    if (status == VX_OK && !options->reference) status = vx_graph_fuse(plan->graph, err);
    if (status != VX_OK) return status;
    const size_t ops = plan->graph->op_count;
    plan->steps = vx_alloc_zero(ops, sizeof *plan->steps);
    plan->buffers = vx_alloc_zero(2 * ops + 1, sizeof *plan->buffers);
    plan->value = vx_alloc_zero(ops, sizeof *plan->value);
    if (!plan->steps || !plan->buffers || !plan->value)
        return vx_fail(err, VX_ERR_RESOURCE, "out of memory");
    if ((status = prepare_steps(plan, options->reference, err)) != VX_OK) return status;
    plan->output_in_arena = options->output_in_arena && find_output(plan);
    if ((status = lay_out(plan, err)) != VX_OK) return status;
    if ((status = sum_weights(plan, err)) != VX_OK) return status;
    if ((status = check_budget(plan, options->memory_budget, err)) != VX_OK) return status;
    return pack_weights(plan, err);
}

static vx_status choose_kernels(const vx_device *device, const vx_compile_options *options,
                                const vx_kernels **out, vx_error *err) {
    switch (options->precision) {
    case VX_PRECISION_FP32:
        *out = device->kernels;
        return VX_OK;
    case VX_PRECISION_BF16:
        *out = device->bf16_kernels;
        if (*out && options->reference)
            return vx_fail(err, VX_ERR_RESOURCE, "the reference computes in fp32 only");
        if (*out) return VX_OK;
        return vx_fail(err, VX_ERR_RESOURCE,
                       "precision bf16 is not available on this processor, which lacks "
                       "AVX512_BF16 (use --precision fp32)");
    case VX_PRECISION_FP16:
        break;
    }
    return vx_fail(err, VX_ERR_RESOURCE,
                   "precision fp16 is not available on the CPU (use --precision fp32)");
}

vx_status vx_cpu_compile(vx_device *device, const vx_graph *graph,
                         const vx_compile_options *options, vx_plan **out, vx_error *err) {
    *out = NULL;
    const vx_kernels *kernels = NULL;
    vx_status status = choose_kernels(device, options, &kernels, err);
    if (status != VX_OK) return status;
    vx_plan *plan = vx_alloc_zero(1, sizeof *plan);
    if (!plan) return vx_fail(err, VX_ERR_RESOURCE, "out of memory");
    plan->device = device;
    plan->kernels = kernels;
    status = fill_plan(plan, graph, options, err);
    if (status == VX_OK)
        *out = plan;
    else
        vx_cpu_plan_free(plan);
    return status;
}

void vx_cpu_plan_free(vx_plan *plan) {
    if (!plan) return;
    for (size_t i = 0; plan->steps && i < plan->graph->op_count; i++) {
        vx_cpu_step *step = &plan->steps[i];
        if (step->destroy) step->destroy(step);
        vx_free(step->state);
    }
    vx_free(plan->steps);
    vx_free(plan->buffers);
    vx_free(plan->value);
    vx_free(plan->weights);
    vx_graph_free(plan->graph);
    vx_free(plan);
}

void vx_cpu_plan_info(const vx_plan *plan, vx_plan_info *out) {
    *out = (vx_plan_info){.arena_bytes = plan->arena_bytes,
                          .weight_bytes = plan->weight_bytes,
                          .flops = plan->flops,
                          .steps = plan->graph->op_count - 1,
                          .output_in_arena = plan->output_in_arena};
    if (plan->output_in_arena) out->output_offset = plan->buffers[plan->output].offset;
}

/* --- run -------------------------------------------------------------------------------------- */

/* Lets AddressSanitizer see exactly the buffers that are alive in step i. */
static void open_buffers(const vx_plan *plan, unsigned char *arena, size_t i) {
    const size_t count = 2 * plan->graph->op_count + 1;
    POISON(arena, plan->arena_bytes);
    for (size_t k = 0; k < count; k++) {
        const vx_buffer *b = &plan->buffers[k];
        if (b->bytes && b->first <= i && i <= b->last) UNPOISON(arena + b->offset, b->bytes);
    }
}

/* in, out: as of vx_backend.run. */
static vx_status run_steps(vx_plan *plan, unsigned char *arena, const float *in, float *const *out,
                           vx_error *err) {
    const vx_graph *g = plan->graph;
    const size_t ops = g->op_count;
    vx_pool *pool = plan->device->pool;
    vx_cpu_run run = {.pool = pool,
                      .kernels = plan->kernels,
                      .value = plan->value,
                      .worker_scratch = arena + plan->buffers[2 * ops].offset,
                      .worker_stride = plan->worker_stride};
    for (size_t i = 0; i < ops; i++) {
        const vx_cpu_step *step = &plan->steps[i];
        const size_t elements = vx_shape_elements(g->values[i].shape);
        if (VX_GUARD) open_buffers(plan, arena, i);
        run.scratch = arena + plan->buffers[ops + i].offset;
        if (g->ops[i].kind == VX_OP_INPUT && !is_float_plan(plan))
            vx_cpu_narrow(pool, plan->kernels, in, elements, plan->value[i]);
        vx_status status = step->run ? step->run(step, &run, err) : VX_OK;
        if (status != VX_OK) return status;
        /* An input that is an output too has no step that writes it. */
        if (g->values[i].output && g->ops[i].kind == VX_OP_INPUT)
            memcpy(*out, in, elements * sizeof *in);
        else if (g->values[i].output && !writes_output(plan, i))
            vx_cpu_widen(pool, plan->kernels, plan->value[i], elements, *out);
        if (g->values[i].output && !plan->output_in_arena) out++;
    }
    return VX_OK;
}

static void find_values(vx_plan *plan, unsigned char *arena, const float *in, float *const *out) {
    const vx_graph *g = plan->graph;
    for (size_t i = 0; i < g->op_count; i++) {
        plan->value[i] = arena + plan->buffers[i].offset;
        if (g->ops[i].kind == VX_OP_INPUT && is_float_plan(plan))
            plan->value[i] = (void *)(uintptr_t)in; /* no step writes its input */
        if (!g->values[i].output || plan->output_in_arena) continue;
        if (g->ops[i].kind != VX_OP_INPUT && writes_output(plan, i)) plan->value[i] = *out;
        out++;
    }
}

vx_status vx_cpu_run_plan(vx_plan *plan, void *arena, const float *in, float *const *out,
                          vx_error *err) {
    unsigned char *base = arena;
    find_values(plan, base, in, out);
    vx_status status = run_steps(plan, base, in, out, err);
    UNPOISON(arena, plan->arena_bytes);
    return status;
}
