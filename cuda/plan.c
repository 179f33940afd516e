/* Compiling a graph for a CUDA device: fuse, prepare a step for each op, lay out one arena, run
 * once while the host packs the weights, upload them, capture the launches; and running the result.
 */
#include "cuda/plan_state.h"

#include <pthread.h>
#include <stdint.h>
#include <string.h>

#include "base/memory.h"
#include "base/size.h"
#include "cuda/capture_lock.h"
#include "cuda/check.h"
#include "cuda/ops.h"

/* --- compile ---------------------------------------------------------------------------------- */

static bool is_float(const vx_plan *plan, size_t value) {
    return plan->dtype == VX_F32 || plan->steps[value].out_float;
}

static bool is_input(const vx_plan *plan, size_t value) {
    return plan->graph->ops[value].kind == VX_OP_INPUT;
}

/* Whether value has a float copy. */
static bool is_copied(const vx_plan *plan, size_t value) {
    return !is_float(plan, value) && (is_input(plan, value) || plan->graph->values[value].output);
}

static bool is_read(const vx_graph *g, size_t value) {
    for (size_t i = value + 1; i < g->op_count; i++)
        if (g->ops[i].in[0] == (int)value || g->ops[i].in[1] == (int)value) return true;
    return false;
}

static vx_status prepare_steps(vx_plan *plan, vx_error *err) {
    const vx_graph *g = plan->graph;
    for (size_t i = 0; i < g->op_count; i++) {
        const vx_op *op = &g->ops[i];
        vx_cuda_step *step = &plan->steps[i];
        step->device = plan->device;
        step->op = op;
        step->dtype = plan->dtype;
        step->out = g->values[op->out].shape;
        step->in = op->in[0] >= 0 ? g->values[op->in[0]].shape : step->out;
        step->in2 = op->in[1] >= 0 ? g->values[op->in[1]].shape : (vx_shape){0};
        if (op->kind == VX_OP_INPUT) continue;
        step->out_float = plan->dtype != VX_F32 && g->values[i].output && !is_read(g, i);
        vx_status status = vx_cuda_prepare(step, err);
        if (status != VX_OK) {
            const char *name = g->values[op->out].name;
            return vx_fail_prefix(err, status, name[0] ? name : vx_op_name(op->kind));
        }
        plan->flops += vx_op_flops(g, op);
    }
    return VX_OK;
}

/* Whether every reader of a value can apply its norm. */
static bool is_applied(const vx_plan *plan, size_t value) {
    const vx_graph *g = plan->graph;
    for (size_t i = value + 1; i < g->op_count; i++)
        for (int k = 0; k < 2; k++)
            if (g->ops[i].in[k] == (int)value && !plan->steps[i].can_apply[k]) return false;
    return true;
}

/* Leaves norms to those who read the values, where all can apply them: a pass over memory less. */
static void leave_norms(vx_plan *plan) {
    const vx_graph *g = plan->graph;
    for (size_t v = 0; v < g->op_count; v++) {
        vx_cuda_step *writer = &plan->steps[v];
        writer->leaves_norm = writer->can_leave_norm && !g->values[v].output && is_applied(plan, v);
        for (size_t i = v + 1; writer->leaves_norm && i < g->op_count; i++)
            for (int k = 0; k < 2; k++)
                if (g->ops[i].in[k] == (int)v) plan->steps[i].left_by[k] = writer;
    }
}

static bool set_bytes(vx_plan *plan, size_t buffer, size_t exact) {
    plan->exact[buffer] = exact;
    return vx_align_size(exact, VX_CUDA_ALIGN, &plan->buffers[buffer].bytes);
}

/* Buffers of value i: its own, its step's scratch, its float copy. Outputs are read when all steps
 * have run: what holds them lives beyond the last. */
static bool place_value(vx_plan *plan, size_t i) {
    const size_t ops = plan->graph->op_count, end = ops;
    vx_buffer *own = &plan->buffers[i], *scratch = own + ops, *copy = scratch + ops;
    const bool output = plan->graph->values[i].output;
    size_t bytes, affine_at, elements = vx_shape_elements(plan->graph->values[i].shape);
    own->in_place = plan->steps[i].in_place;
    own->over = plan->graph->ops[i].in[0];
    scratch->first = scratch->last = i;
    copy->first = i;
    copy->last = output ? end : i;
    if (output && is_float(plan, i)) own->last = end;
    if (!vx_mul_size(elements, vx_dtype_size(is_float(plan, i) ? VX_F32 : plan->dtype), &bytes) ||
        (plan->steps[i].leaves_norm &&
         !vx_cuda_place_affine(&plan->steps[i], &affine_at, &bytes)) ||
        !set_bytes(plan, i, bytes) || !set_bytes(plan, ops + i, plan->steps[i].scratch_bytes))
        return false;
    return !is_copied(plan, i) ||
           (vx_mul_size(elements, sizeof(float), &bytes) && set_bytes(plan, 2 * ops + i, bytes));
}

/* For tests: everything lives all the time, so nothing is reused and guard bytes stay. */
static void separate(vx_plan *plan) {
    for (size_t k = 0; k < 3 * plan->graph->op_count; k++) {
        plan->buffers[k].first = 0;
        plan->buffers[k].last = plan->graph->op_count;
        plan->buffers[k].in_place = false;
    }
}

static vx_status lay_out(vx_plan *plan, vx_error *err) {
    const size_t ops = plan->graph->op_count;
    vx_lifetimes(plan->graph, plan->buffers);
    for (size_t i = 0; i < ops; i++)
        if (!place_value(plan, i)) return vx_cuda_overflow(err);
    if (plan->device->separate) separate(plan);
    vx_share_buffers(plan->graph, plan->buffers);
    if (!vx_layout(plan->buffers, 3 * ops, vx_cuda_guard_bytes(plan), &plan->arena_bytes))
        return vx_cuda_overflow(err);
    for (size_t i = 0; i < ops; i++) {
        size_t bytes;
        if (!vx_align_size(plan->steps[i].weight_bytes, VX_CUDA_ALIGN, &bytes) ||
            !vx_add_size(plan->weight_bytes, bytes, &plan->weight_bytes))
            return vx_cuda_overflow(err);
    }
    return VX_OK;
}

static vx_status allocate(vx_plan *plan, vx_error *err) {
    size_t needed, available = 0, total = 0;
    if (!vx_add_size(plan->arena_bytes, plan->weight_bytes, &needed)) return vx_cuda_overflow(err);
    vx_status status =
        vx_cuda_check(cudaMemGetInfo(&available, &total), "asking for free memory", err);
    if (status != VX_OK) return status;
    if (needed > available)
        return vx_fail(err, VX_ERR_RESOURCE,
                       "the network needs %zu bytes of the GPU's memory, %zu are free (use "
                       "--device cpu)",
                       needed, available);
    status = vx_cuda_check(cudaMalloc((void **)&plan->arena, plan->arena_bytes ? needed : 1),
                           "memory for the network", err);
    if (status == VX_OK) plan->weights = plan->arena + plan->arena_bytes;
    return status;
}

/* --- launching -------------------------------------------------------------------------------- */

static void *copy_of(const vx_plan *plan, size_t value) {
    return plan->arena + plan->buffers[2 * plan->graph->op_count + value].offset;
}

/* Where the caller's numbers of a value go to or come from: float. */
static void *float_of(const vx_plan *plan, size_t value) {
    return is_copied(plan, value) ? copy_of(plan, value) : plan->value[value];
}

static size_t weight_room(const vx_cuda_step *step) {
    return (step->weight_bytes + VX_CUDA_ALIGN - 1) & ~(VX_CUDA_ALIGN - 1);
}

static void find_places(vx_plan *plan) {
    size_t at = 0;
    for (size_t i = 0; i < plan->graph->op_count; i++) {
        plan->value[i] = plan->arena + plan->buffers[i].offset;
        plan->steps[i].weights = plan->weights + at;
        at += weight_room(&plan->steps[i]);
    }
}

vx_status vx_cuda_queue_step(const vx_plan *plan, size_t i, vx_error *err) {
    const size_t ops = plan->graph->op_count;
    const size_t elements = vx_shape_elements(plan->graph->values[i].shape);
    const cudaStream_t stream = plan->device->stream;
    const vx_cuda_step *step = &plan->steps[i];
    const vx_cuda_run run = {.value = plan->value,
                             .scratch = plan->arena + plan->buffers[ops + i].offset,
                             .stream = stream};
    if (is_input(plan, i))
        return is_copied(plan, i) ? vx_cuda_cast(copy_of(plan, i), VX_F32, plan->value[i],
                                                 plan->dtype, elements, stream, err)
                                  : VX_OK;
    vx_status status = step->launch(step, &run, err);
    if (status != VX_OK || !is_copied(plan, i)) return status;
    return vx_cuda_cast(plan->value[i], plan->dtype, copy_of(plan, i), VX_F32, elements, stream,
                        err);
}

/* All steps, from the uploaded input to outputs that are ready to be copied out. */
static vx_status launch_all(const vx_plan *plan, vx_error *err) {
    for (size_t i = 0; i < plan->graph->op_count; i++) {
        vx_status status = vx_cuda_queue_step(plan, i, err);
        if (status != VX_OK) {
            const char *name = plan->graph->values[i].name;
            return vx_fail_prefix(err, status,
                                  name[0] ? name : vx_op_name(plan->graph->ops[i].kind));
        }
    }
    return VX_OK;
}

/* One run on zeros, weights too: what the libraries load at first use cannot be loaded while
 * capturing, and a step that fails says so here. */
static vx_status warm_up(vx_plan *plan, vx_error *err) {
    const cudaStream_t stream = plan->device->stream;
    vx_status status = vx_cuda_enter(plan->device, err); /* this may be a thread of the pool */
    if (status == VX_OK)
        status = vx_cuda_check(
            cudaMemsetAsync(plan->arena, 0, plan->arena_bytes + plan->weight_bytes, stream),
            "clearing the network's memory", err);
    if (status == VX_OK) status = launch_all(plan, err);
    if (status != VX_OK) return status;
    return vx_cuda_check(cudaStreamSynchronize(stream), "the network's first run", err);
}

/* Enough to be done before the first run is. More would leave more memory behind (measured: 20
 * MB with 4, 80 MB with 32). */
enum { PACKERS = 4 };

/* The first run beside the packing of weights on the host. */
typedef struct first_run {
    vx_plan *plan;
    unsigned char *host; /* weight_bytes */
    pthread_mutex_t lock;
    size_t failed; /* the first step that could not be packed, or op_count: the run; more: none */
    vx_status status;
    vx_error err;
} first_run;

static vx_status pack_step(const first_run *f, size_t i, vx_error *err) {
    vx_cuda_step *step = &f->plan->steps[i];
    unsigned char *to = f->host + (step->weights - f->plan->weights);
    memset(to, 0, weight_room(step));
    return step->pack ? step->pack(step, to, err) : VX_OK;
}

/* order: of a step, or op_count. Which failure counts does not depend on the threads. */
static void note(first_run *f, size_t order, vx_status status, const vx_error *err) {
    if (status == VX_OK) return;
    pthread_mutex_lock(&f->lock);
    if (order < f->failed) {
        f->failed = order;
        f->status = status;
        f->err = *err;
    }
    pthread_mutex_unlock(&f->lock);
}

/* Task 0: the run; the others: every PACKERS-th step each. */
static void first_task(void *ctx, size_t task, unsigned worker) {
    (void)worker;
    first_run *f = ctx;
    const size_t ops = f->plan->graph->op_count;
    vx_error err;
    if (task == 0) {
        note(f, ops, warm_up(f->plan, &err), &err);
        return;
    }
    for (size_t i = task - 1; i < ops; i += PACKERS) note(f, i, pack_step(f, i, &err), &err);
}

static vx_status upload(const vx_plan *plan, const unsigned char *host, vx_error *err) {
    const cudaStream_t stream = plan->device->stream;
    vx_status status = vx_cuda_check(
        cudaMemcpyAsync(plan->weights, host, plan->weight_bytes, cudaMemcpyHostToDevice, stream),
        "uploading weights", err);
    if (status != VX_OK) return status;
    return vx_cuda_check(cudaStreamSynchronize(stream), "uploading weights", err);
}

static vx_status fill_memory(vx_plan *plan, vx_error *err) {
    first_run f = {
        .plan = plan, .host = vx_alloc(plan->weight_bytes), .failed = SIZE_MAX, .status = VX_OK};
    if (!f.host) return vx_cuda_no_memory(err);
    pthread_mutex_init(&f.lock, NULL);
    vx_pool_run(plan->device->pool, 1 + PACKERS, first_task, &f);
    pthread_mutex_destroy(&f.lock);
    if (f.status != VX_OK && err) *err = f.err;
    const vx_status status = f.status == VX_OK ? upload(plan, f.host, err) : f.status;
    vx_free(f.host);
    return status;
}

vx_status vx_cuda_capture(const vx_plan *plan, vx_cuda_queue_fn queue, void *context,
                          cudaGraph_t *out, vx_error *err) {
    const cudaStream_t stream = plan->device->stream;
    *out = NULL;
    vx_cuda_capture_lock();
    vx_status status =
        vx_cuda_check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal),
                      "capturing the network's launches", err);
    if (status == VX_OK) {
        status = queue(plan, context, err);
        const cudaError_t code = cudaStreamEndCapture(stream, out); /* also after a failure */
        if (status == VX_OK) status = vx_cuda_check(code, "capturing the network's launches", err);
    }
    vx_cuda_capture_unlock();
    if (status == VX_OK) return VX_OK;
    (void)cudaGetLastError();
    if (*out) cudaGraphDestroy(*out);
    *out = NULL;
    return status;
}

static vx_status queue_all(const vx_plan *plan, void *context, vx_error *err) {
    (void)context;
    return launch_all(plan, err);
}

static vx_status capture(vx_plan *plan, vx_error *err) {
    cudaGraph_t graph;
    vx_status status = vx_cuda_capture(plan, queue_all, NULL, &graph, err);
    if (status != VX_OK) return status;
    status =
        vx_cuda_check(cudaGraphInstantiate(&plan->launches, graph, 0), "making a CUDA graph", err);
    cudaGraphDestroy(graph);
    return status;
}

static bool takes_layer(void *ctx, const vx_op *layer, vx_shape in) {
    const vx_plan *plan = ctx;
    return vx_cuda_takes_mamba_layer(layer, in, plan->dtype);
}

static vx_status fill_plan(vx_plan *plan, const vx_graph *graph, const vx_compile_options *options,
                           vx_error *err) {
    vx_status status = vx_graph_copy(graph, &plan->graph, err);
    if (status == VX_OK) status = vx_graph_fuse(plan->graph, err);
    if (status == VX_OK) status = vx_graph_fuse_mamba(plan->graph, takes_layer, plan, err);
    if (status != VX_OK) return status;
    const size_t ops = plan->graph->op_count;
    plan->steps = vx_alloc_zero(ops, sizeof *plan->steps);
    plan->buffers = vx_alloc_zero(3 * ops, sizeof *plan->buffers);
    plan->exact = vx_alloc_zero(3 * ops, sizeof *plan->exact);
    plan->value = vx_alloc_zero(ops, sizeof *plan->value);
    if (!plan->steps || !plan->buffers || !plan->exact || !plan->value)
        return vx_cuda_no_memory(err);
    if ((status = prepare_steps(plan, err)) != VX_OK) return status;
    leave_norms(plan);
    if ((status = lay_out(plan, err)) != VX_OK) return status;
    if ((status = allocate(plan, err)) != VX_OK) return status;
    find_places(plan);
    if ((status = fill_memory(plan, err)) != VX_OK) return status;
    return options->eager ? VX_OK : capture(plan, err);
}

static vx_status choose_type(const vx_device *device, const vx_compile_options *options,
                             vx_dtype *out, vx_error *err) {
    if (options->reference)
        return vx_fail(err, VX_ERR_USAGE, "the scalar reference runs on the CPU");
    *out = options->precision == VX_PRECISION_FP32   ? VX_F32
           : options->precision == VX_PRECISION_FP16 ? VX_F16
                                                     : VX_BF16;
    if (*out == VX_BF16 && device->major < 8)
        return vx_fail(err, VX_ERR_RESOURCE,
                       "precision bf16 is not available on %s, which has compute capability %d.%d "
                       "(8.0 is needed; use --precision fp16)",
                       device->name, device->major, device->minor);
    return VX_OK;
}

vx_status vx_cuda_compile(vx_device *device, const vx_graph *graph,
                          const vx_compile_options *options, vx_plan **out, vx_error *err) {
    *out = NULL;
    vx_dtype dtype = VX_F32;
    vx_status status = choose_type(device, options, &dtype, err);
    if (status == VX_OK) status = vx_cuda_enter(device, err);
    if (status != VX_OK) return status;
    vx_plan *plan = vx_alloc_zero(1, sizeof *plan);
    if (!plan) return vx_cuda_no_memory(err);
    plan->device = device;
    plan->dtype = dtype;
    status = fill_plan(plan, graph, options, err);
    if (status == VX_OK)
        *out = plan;
    else
        vx_cuda_plan_free(plan);
    return status;
}

void vx_cuda_plan_free(vx_plan *plan) {
    if (!plan) return;
    (void)vx_cuda_enter(plan->device, NULL);
    if (plan->launches) cudaGraphExecDestroy(plan->launches);
    for (size_t i = 0; plan->steps && i < plan->graph->op_count; i++) {
        vx_cuda_step *step = &plan->steps[i];
        if (step->destroy) step->destroy(step);
        vx_free(step->state);
    }
    vx_cuda_free_memory(plan->arena); /* the weights are its end */
    vx_free(plan->steps);
    vx_free(plan->buffers);
    vx_free(plan->exact);
    vx_free(plan->value);
    vx_graph_free(plan->graph);
    vx_free(plan);
}

void vx_cuda_plan_info(const vx_plan *plan, vx_plan_info *out) {
    *out = (vx_plan_info){.device_bytes = plan->arena_bytes + plan->weight_bytes,
                          .flops = plan->flops,
                          .steps = plan->graph->op_count - 1};
}

/* --- run -------------------------------------------------------------------------------------- */

static size_t float_bytes(const vx_plan *plan, size_t value) {
    return vx_shape_elements(plan->graph->values[value].shape) * sizeof(float);
}

static vx_status copy_out(const vx_plan *plan, float *const *out, vx_error *err) {
    for (size_t i = 0; i < plan->graph->op_count; i++) {
        if (!plan->graph->values[i].output) continue;
        vx_status status =
            vx_cuda_check(cudaMemcpyAsync(*out++, float_of(plan, i), float_bytes(plan, i),
                                          cudaMemcpyDeviceToHost, plan->device->stream),
                          "copying the result", err);
        if (status != VX_OK) return status;
    }
    return VX_OK;
}

vx_device *vx_cuda_plan_device(const vx_plan *plan) { return plan->device; }

float *vx_cuda_plan_input(const vx_plan *plan) { return float_of(plan, 0); }

const float *vx_cuda_plan_output(const vx_plan *plan) {
    for (size_t i = plan->graph->op_count; i-- > 0;)
        if (plan->graph->values[i].output) return float_of(plan, i);
    return NULL; /* no finished graph is without one */
}

vx_status vx_cuda_queue_input(const vx_plan *plan, const float *in, vx_error *err) {
    return vx_cuda_check(cudaMemcpyAsync(float_of(plan, 0), in, float_bytes(plan, 0),
                                         cudaMemcpyHostToDevice, plan->device->stream),
                         "copying the input", err);
}

vx_status vx_cuda_plan_launch(const vx_plan *plan, vx_error *err) {
    return plan->launches ? vx_cuda_check(cudaGraphLaunch(plan->launches, plan->device->stream),
                                          "the network", err)
                          : launch_all(plan, err);
}

vx_status vx_cuda_run_plan(vx_plan *plan, void *arena, const float *in, float *const *out,
                           vx_error *err) {
    (void)arena; /* of no bytes: activations live on the device */
    vx_status status = vx_cuda_enter(plan->device, err);
    if (status == VX_OK) status = vx_cuda_queue_input(plan, in, err);
    if (status == VX_OK) status = vx_cuda_plan_launch(plan, err);
    if (status == VX_OK) status = copy_out(plan, out, err);
    /* Also after a failure: nothing may still write to the caller's memory. */
    const cudaError_t ended = cudaStreamSynchronize(plan->device->stream);
    return status == VX_OK ? vx_cuda_check(ended, "the network", err) : status;
}
