#include "cuda/conv_cudnn.h"

#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "cuda/check_libraries.h"
#include "cuda/conv_try.h"
#include "cuda/plan_cache.h"

/* Engines that are asked for, that are timed, and the workspace one may take: at 128^3 some want
 * more than all activations together. */
enum { CANDIDATES = 64, TIMED = 8, REPEATS = 3 };
static const size_t workspace_max = (size_t)256 << 20;

enum { UID_X = 'x', UID_W = 'w', UID_Y = 'y' };

/* --- descriptors ------------------------------------------------------------------------------ */

static vx_status make(cudnnBackendDescriptorType_t type, cudnnBackendDescriptor_t *out,
                      vx_error *err) {
    return vx_cudnn_check(cudnnBackendCreateDescriptor(type, out), "making a descriptor", err);
}

static void drop(cudnnBackendDescriptor_t *d) {
    if (*d) cudnnBackendDestroyDescriptor(*d);
    *d = NULL;
}

/* Sets attributes one after the other; after a failure the rest does nothing. */
typedef struct setter {
    cudnnBackendDescriptor_t of;
    vx_status status;
    vx_error *err;
} setter;

static void set(setter *s, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                int64_t count, const void *values) {
    char what[48];
    if (s->status != VX_OK) return;
    snprintf(what, sizeof what, "setting attribute %d", (int)name);
    s->status =
        vx_cudnn_check(cudnnBackendSetAttribute(s->of, name, type, count, values), what, s->err);
}

static vx_status finish(setter *s, const char *what) {
    if (s->status != VX_OK) return s->status;
    return vx_cudnn_check(cudnnBackendFinalize(s->of), what, s->err);
}

/* The five descriptors of one convolution as an operation graph. */
typedef struct conv_graph {
    cudnnBackendDescriptor_t x, w, y, conv, op, graph;
} conv_graph;

static void drop_graph(conv_graph *g) {
    drop(&g->graph);
    drop(&g->op);
    drop(&g->conv);
    drop(&g->y);
    drop(&g->w);
    drop(&g->x);
}

static cudnnDataType_t data_type(vx_dtype type) {
    return type == VX_F32   ? CUDNN_DATA_FLOAT
           : type == VX_F16 ? CUDNN_DATA_HALF
                            : CUDNN_DATA_BFLOAT16;
}

/* dims in cuDNN's order n, c, d, h, w; the memory is [n][d][h][w][c]. */
static vx_status make_tensor(const int64_t dims[5], int64_t uid, vx_dtype dtype,
                             cudnnBackendDescriptor_t *out, vx_error *err) {
    const int64_t align = 16;
    const cudnnDataType_t type = data_type(dtype);
    const int64_t w = dims[1], h = w * dims[4], d = h * dims[3], n = d * dims[2];
    const int64_t strides[5] = {n, 1, d, h, w};
    vx_status status = make(CUDNN_BACKEND_TENSOR_DESCRIPTOR, out, err);
    setter s = {*out, status, err};
    set(&s, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type);
    set(&s, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 5, dims);
    set(&s, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 5, strides);
    set(&s, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &uid);
    set(&s, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &align);
    return finish(&s, "describing a tensor");
}

static vx_status make_conv(const vx_cuda_conv_shape *shape, cudnnBackendDescriptor_t *out,
                           vx_error *err) {
    const cudnnDataType_t type = CUDNN_DATA_FLOAT;
    const cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
    const int64_t spatial = 3, dilation[3] = {1, 1, 1};
    int64_t stride[3], pad[3];
    for (int i = 0; i < 3; i++) {
        stride[i] = (int64_t)shape->stride[i];
        pad[i] = (int64_t)shape->pad[i];
    }
    vx_status status = make(CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR, out, err);
    setter s = {*out, status, err};
    set(&s, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, 1, &spatial);
    set(&s, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type);
    set(&s, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode);
    set(&s, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, 3, pad);
    set(&s, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, 3, pad);
    set(&s, CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, 3, dilation);
    set(&s, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, 3, stride);
    return finish(&s, "describing a convolution");
}

static vx_status make_op(const vx_device *device, conv_graph *g, vx_error *err) {
    const float alpha = 1, beta = 0;
    vx_status status = make(CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR, &g->op, err);
    setter s = {g->op, status, err};
    set(&s, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &g->x);
    set(&s, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &g->w);
    set(&s, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &g->y);
    set(&s, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
        &g->conv);
    set(&s, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, CUDNN_TYPE_FLOAT, 1, &alpha);
    set(&s, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA, CUDNN_TYPE_FLOAT, 1, &beta);
    status = finish(&s, "describing the operation");
    if (status == VX_OK) status = make(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR, &g->graph, err);
    s = (setter){g->graph, status, err};
    set(&s, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &device->cudnn);
    set(&s, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &g->op);
    return finish(&s, "describing the operation graph");
}

static vx_status make_graph(const vx_device *device, const vx_cuda_conv_shape *c, conv_graph *g,
                            vx_error *err) {
    const size_t sizes[3][5] = {
        {c->in.n, c->in.c, c->in.d, c->in.h, c->in.w},
        {c->out.c, c->in.c, c->kernel[0], c->kernel[1], c->kernel[2]},
        {c->out.n, c->out.c, c->out.d, c->out.h, c->out.w},
    };
    cudnnBackendDescriptor_t *const tensors[3] = {&g->x, &g->w, &g->y};
    const int64_t uids[3] = {UID_X, UID_W, UID_Y};
    for (int t = 0; t < 3; t++) {
        int64_t dims[5];
        for (int i = 0; i < 5; i++) dims[i] = (int64_t)sizes[t][i];
        vx_status status = make_tensor(dims, uids[t], c->dtype, tensors[t], err);
        if (status != VX_OK) return status;
    }
    vx_status status = make_conv(c, &g->conv, err);
    return status == VX_OK ? make_op(device, g, err) : status;
}

/* --- engines ---------------------------------------------------------------------------------- */

typedef struct engine_list {
    cudnnBackendDescriptor_t configs[CANDIDATES];
    int64_t count;
} engine_list;

static void drop_engines(engine_list *list) {
    for (size_t i = 0; i < CANDIDATES; i++) drop(&list->configs[i]);
    list->count = 0;
}

/* Engine configurations in the heuristic's order of expected time. */
static vx_status list_engines(const conv_graph *g, cudnnBackendHeurMode_t mode, engine_list *list,
                              vx_error *err) {
    cudnnBackendDescriptor_t heuristic = NULL;
    vx_status status = make(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, &heuristic, err);
    setter s = {heuristic, status, err};
    set(&s, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &g->graph);
    set(&s, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
    status = finish(&s, "asking for engines");
    for (size_t i = 0; i < CANDIDATES && status == VX_OK; i++)
        status = make(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, &list->configs[i], err);
    if (status == VX_OK)
        status = vx_cudnn_check(cudnnBackendGetAttribute(heuristic, CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                                         CUDNN_TYPE_BACKEND_DESCRIPTOR, CANDIDATES,
                                                         &list->count, list->configs),
                                "listing engines", err);
    if (status != VX_OK) list->count = 0;
    if (list->count > CANDIDATES) list->count = CANDIDATES; /* it counts those without room too */
    drop(&heuristic);
    return status;
}

/* Whether every run of this engine gives the same bits, with fp32 arithmetic as asked for. An
 * engine that does not say, or says more than this library knows, is not taken. */
static bool is_allowed(cudnnBackendDescriptor_t config, vx_dtype dtype) {
    cudnnBackendNumericalNote_t notes[CUDNN_NUMERICAL_NOTE_TYPE_COUNT];
    cudnnBackendDescriptor_t engine = NULL;
    int64_t count = 0, engines = 0;
    bool allowed =
        cudnnBackendCreateDescriptor(CUDNN_BACKEND_ENGINE_DESCRIPTOR, &engine) ==
            CUDNN_STATUS_SUCCESS &&
        cudnnBackendGetAttribute(config, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                                 1, &engines, &engine) == CUDNN_STATUS_SUCCESS &&
        cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE,
                                 CUDNN_TYPE_NUMERICAL_NOTE, CUDNN_NUMERICAL_NOTE_TYPE_COUNT, &count,
                                 notes) == CUDNN_STATUS_SUCCESS &&
        count <= CUDNN_NUMERICAL_NOTE_TYPE_COUNT;
    for (int64_t i = 0; i < count && allowed; i++)
        allowed = notes[i] != CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC &&
                  notes[i] != CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION &&
                  notes[i] != CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS &&
                  (dtype != VX_F32 || notes[i] != CUDNN_NUMERICAL_NOTE_TENSOR_CORE);
    drop(&engine);
    return allowed;
}

/* A plan of this engine, with its workspace; false where the engine cannot do it after all. */
static bool make_plan(const vx_device *device, cudnnBackendDescriptor_t config,
                      vx_cuda_conv *conv) {
    int64_t workspace = 0, count = 0;
    vx_error ignored;
    vx_status status = make(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, &conv->plan, &ignored);
    setter s = {conv->plan, status, &ignored};
    set(&s, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, &device->cudnn);
    set(&s, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &config);
    if (finish(&s, "making a plan") == VX_OK &&
        cudnnBackendGetAttribute(conv->plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE,
                                 CUDNN_TYPE_INT64, 1, &count, &workspace) == CUDNN_STATUS_SUCCESS &&
        workspace >= 0) {
        conv->workspace_bytes = (size_t)workspace;
        return true;
    }
    vx_cuda_conv_destroy(conv);
    return false;
}

/* --- choosing --------------------------------------------------------------------------------- */

/* The plans of the first engines of a list that may be taken, `most` at most. */
static vx_status plan_engines(const vx_device *device, const engine_list *list,
                              const vx_cuda_conv_shape *shape, vx_cuda_conv *plans, size_t most,
                              size_t *count, vx_error *err) {
    vx_status status = VX_OK;
    *count = 0;
    for (int64_t i = 0; i < list->count && *count < most && status == VX_OK; i++) {
        vx_cuda_conv *plan = &plans[*count];
        if (!is_allowed(list->configs[i], shape->dtype) ||
            !make_plan(device, list->configs[i], plan))
            continue;
        bool good = plan->workspace_bytes <= workspace_max;
        if (good && shape->dtype == VX_F16)
            status = vx_cuda_conv_overflows(device, shape, plan, &good, err);
        if (status == VX_OK && good)
            ++*count;
        else
            vx_cuda_conv_destroy(plan);
    }
    return status;
}

/* Memory and events to time in. The memory holds one number all over, 1.04 as a half: enough to
 * compare engines by, not to quote a time. */
typedef struct bench {
    vx_cuda_conv_memory memory;
    cudaEvent_t start, stop;
} bench;

/* False where it cannot be had, for want of memory above all: then nothing is timed. */
static bool open_bench(const vx_device *device, const vx_cuda_conv_shape *c, size_t workspace,
                       bench *b) {
    const vx_cuda_conv_memory *m = &b->memory;
    if (!vx_cuda_conv_memory_open(c, workspace, &b->memory)) return false;
    if (cudaMemsetAsync(m->all, 0x3c, m->x_bytes + m->w_bytes + m->y_bytes, device->stream) !=
            cudaSuccess ||
        cudaEventCreate(&b->start) != cudaSuccess || cudaEventCreate(&b->stop) != cudaSuccess) {
        (void)cudaGetLastError(); /* or the next launch would be blamed for it */
        return false;
    }
    return true;
}

static void close_bench(bench *b) {
    if (b->start) cudaEventDestroy(b->start);
    if (b->stop) cudaEventDestroy(b->stop);
    vx_cuda_conv_memory_close(&b->memory);
}

/* The shortest of some runs after one that does not count, in milliseconds; false when it fails. */
static bool time_plan(const vx_device *device, const vx_cuda_conv *conv, const bench *b,
                      float *best) {
    const vx_cuda_conv_memory *m = &b->memory;
    vx_error ignored;
    for (int run = -1; run < REPEATS; run++) {
        float ms = 0;
        if (cudaEventRecord(b->start, device->stream) != cudaSuccess ||
            vx_cuda_conv_launch(device, conv, m->x, (vx_cuda_pending){0}, m->w, m->y, m->workspace,
                                NULL, &ignored) != VX_OK ||
            cudaEventRecord(b->stop, device->stream) != cudaSuccess ||
            cudaEventSynchronize(b->stop) != cudaSuccess ||
            cudaEventElapsedTime(&ms, b->start, b->stop) != cudaSuccess)
            return false;
        if (run == 0 || (run > 0 && ms < *best)) *best = ms;
    }
    return true;
}

/* The quickest of some plans to conv; conv->plan stays NULL if none could be timed. The plans are
 * gone then. */
static void keep_quickest(const vx_device *device, const vx_cuda_conv_shape *shape,
                          vx_cuda_conv *plans, size_t count, vx_cuda_conv *conv) {
    bench b = {0};
    float best = 0;
    size_t workspace = 0;
    for (size_t i = 0; i < count; i++)
        if (plans[i].workspace_bytes > workspace) workspace = plans[i].workspace_bytes;
    const bool open = count && open_bench(device, shape, workspace, &b);
    for (size_t i = 0; i < count; i++) {
        float ms = 0;
        if (open && time_plan(device, &plans[i], &b, &ms) && (!conv->plan || ms < best)) {
            const vx_cuda_conv slower = *conv;
            best = ms;
            *conv = plans[i];
            plans[i] = slower;
        }
        vx_cuda_conv_destroy(&plans[i]);
    }
    close_bench(&b);
}

/* The taps that our own kernel has: of 3x3x3, 3x3x1 or 1x1x1, on the same grid; 0 for others. */
static size_t tiled_taps(const vx_cuda_conv_shape *s) {
    const size_t *k = s->kernel;
    for (int i = 0; i < 3; i++)
        if (s->stride[i] != 1 || s->pad[i] != k[i] / 2) return 0;
    if (k[0] == 1 && k[1] == 1 && k[2] == 1) return 1;
    return k[0] == 3 && k[1] == 3 && (k[2] == 1 || k[2] == 3) ? 9 * k[2] : 0;
}

bool vx_cuda_conv_variant(const vx_cuda_conv_shape *shape, unsigned variant, vx_cuda_conv *conv) {
    size_t bytes;
    vx_cuda_tiled *tiled = &conv->tiled;
    *tiled = (vx_cuda_tiled){.in = shape->in,
                             .c_out = shape->out.c,
                             .dtype = shape->dtype,
                             .taps = tiled_taps(shape),
                             .variant = variant};
    if (shape->normed && tiled->taps && vx_cuda_tiled_fits(tiled)) {
        conv->parts = vx_cuda_tiled_parts(tiled);
        if (vx_cuda_instance_norm_scratch(shape->out, conv->parts, &bytes) &&
            bytes <= workspace_max)
            return true;
    }
    *conv = (vx_cuda_conv){0};
    return false;
}

/* The first engine, or the quickest; conv->plan stays NULL if there is none. */
static vx_status find_engine(const vx_device *device, const vx_cuda_conv_shape *shape, bool timed,
                             vx_cuda_conv *conv, vx_error *err) {
    static const cudnnBackendHeurMode_t modes[] = {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_FALLBACK};
    conv_graph graph = {0};
    vx_status status = make_graph(device, shape, &graph, err);
    for (size_t i = 0; i < 2 && status == VX_OK && !conv->plan; i++) {
        engine_list list = {.count = 0};
        vx_cuda_conv plans[TIMED] = {{0}};
        size_t count = 0;
        status = list_engines(&graph, modes[i], &list, err);
        if (status == VX_OK)
            status = plan_engines(device, &list, shape, timed ? plans : conv, timed ? TIMED : 1,
                                  &count, err);
        if (timed) keep_quickest(device, shape, plans, count, conv);
        drop_engines(&list);
    }
    drop_graph(&graph);
    return status;
}

/* Our own kernel where it was the quicker one on an H100 and an H200: to 32 channels, and with
 * enough tiles for all multiprocessors. Also where cuDNN has no engine. */
static vx_status choose_by_shape(const vx_device *device, const vx_cuda_conv_shape *shape,
                                 vx_cuda_conv *conv, vx_error *err) {
    enum { TILES = 512 };
    if (shape->out.c == 32 && vx_cuda_conv_variant(shape, 1, conv)) {
        if (conv->parts * shape->in.n >= TILES) return VX_OK;
        vx_cuda_conv_destroy(conv);
    }
    vx_status status = find_engine(device, shape, false, conv, err);
    if (status != VX_OK || conv->plan) return status;
    for (unsigned variant = 1; variant <= VX_CUDA_TILED_VARIANTS; variant++)
        if (vx_cuda_conv_variant(shape, variant, conv)) return VX_OK;
    return vx_fail(err, VX_ERR_RESOURCE,
                   "cuDNN has no repeatable engine%s for a %zux%zux%zu convolution of %zu to %zu "
                   "channels on this device",
                   shape->dtype == VX_F16 ? " that stores infinities (use --precision fp32)" : "",
                   shape->kernel[0], shape->kernel[1], shape->kernel[2], shape->in.c, shape->out.c);
}

/* --- kept plans ------------------------------------------------------------------------------- */

static void make_key(const vx_device *device, const vx_cuda_conv_shape *c, char *key,
                     size_t bytes) {
    snprintf(
        key, bytes,
        "3 conv %s sm_%d%d x%d cudnn %zu type %d in %zu %zu %zu %zu %zu out %zu kernel %zu %zu "
        "%zu stride %zu %zu %zu pad %zu %zu %zu",
        device->name, device->major, device->minor, device->multiprocessors, cudnnGetVersion(),
        (int)c->dtype, c->in.n, c->in.d, c->in.h, c->in.w, c->in.c, c->out.c, c->kernel[0],
        c->kernel[1], c->kernel[2], c->stride[0], c->stride[1], c->stride[2], c->pad[0], c->pad[1],
        c->pad[2]);
}

static bool restore_plan(const vx_device *device, const char *text, size_t bytes,
                         vx_cuda_conv *conv) {
    int64_t workspace = -1, count = 0;
    vx_error ignored;
    vx_status status = make(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, &conv->plan, &ignored);
    setter s = {conv->plan, status, &ignored};
    set(&s, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, &device->cudnn);
    set(&s, CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, (int64_t)bytes, text);
    if (finish(&s, "restoring a plan") == VX_OK)
        (void)cudnnBackendGetAttribute(conv->plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE,
                                       CUDNN_TYPE_INT64, 1, &count, &workspace);
    if (workspace >= 0 && (size_t)workspace <= workspace_max) {
        conv->workspace_bytes = (size_t)workspace;
        return true;
    }
    vx_cuda_conv_destroy(conv);
    return false;
}

static bool restore(const vx_device *device, const char *key, vx_cuda_conv *conv) {
    size_t bytes;
    char *text = vx_plan_cache_read(key, &bytes);
    if (!text) return false;
    const bool ok = restore_plan(device, text, bytes, conv);
    if (!ok) vx_plan_cache_forget(key, text);
    vx_free(text);
    return ok;
}

/* Whether it, or what another process chose meanwhile, is there now. */
static bool keep(const char *key, const vx_cuda_conv *conv) {
    int64_t bytes = 0, got = 0;
    if (cudnnBackendGetAttribute(conv->plan, CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION,
                                 CUDNN_TYPE_CHAR, 0, &bytes, NULL) != CUDNN_STATUS_SUCCESS ||
        bytes <= 0)
        return false;
    char *text = vx_alloc((size_t)bytes);
    const bool kept =
        text &&
        cudnnBackendGetAttribute(conv->plan, CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION,
                                 CUDNN_TYPE_CHAR, bytes, &got, text) == CUDNN_STATUS_SUCCESS &&
        vx_plan_cache_write(key, text, (size_t)got);
    vx_free(text);
    return kept;
}

/* --- what conv_cudnn.h promises --------------------------------------------------------------- */

vx_status vx_cuda_conv_create(const vx_device *device, const vx_cuda_conv_shape *shape,
                              vx_cuda_conv *conv, vx_error *err) {
    char key[512];
    if (shape->dtype != VX_F32) return choose_by_shape(device, shape, conv, err);
    make_key(device, shape, key, sizeof key);
    if (restore(device, key, conv)) return VX_OK;
    if (vx_plan_cache_state() == VX_PLAN_CACHE_OURS) {
        vx_status status = find_engine(device, shape, true, conv, err);
        if (status != VX_OK) return status;
        const bool kept = conv->plan && keep(key, conv);
        vx_cuda_conv_destroy(conv);
        if (kept && restore(device, key, conv)) return VX_OK; /* as every later run does */
    }
    return choose_by_shape(device, shape, conv, err);
}

void vx_cuda_conv_destroy(vx_cuda_conv *conv) {
    drop(&conv->plan);
    *conv = (vx_cuda_conv){0};
}

void vx_cuda_conv_pack(const vx_cuda_conv *conv, const vx_cuda_conv_shape *shape, const float *w,
                       float *to) {
    const size_t c_in = shape->in.c, taps = shape->kernel[0] * shape->kernel[1] * shape->kernel[2];
    if (conv->tiled.variant) {
        vx_cuda_tiled_pack(&conv->tiled, w, to);
        return;
    }
    for (size_t o = 0; o < shape->out.c; o++)
        for (size_t t = 0; t < taps; t++)
            for (size_t i = 0; i < c_in; i++) *to++ = w[(o * c_in + i) * taps + t];
}

vx_status vx_cuda_conv_launch(const vx_device *device, const vx_cuda_conv *conv, const void *x,
                              vx_cuda_pending pending, const void *w, void *y, void *workspace,
                              vx_cuda_moments *moments, vx_error *err) {
    if (conv->tiled.variant)
        return vx_cuda_tiled_launch(&conv->tiled, x, pending, w, y, moments, device->stream, err);
    const int64_t uids[3] = {UID_X, UID_W, UID_Y};
    const void *pointers[3] = {x, w, y};
    cudnnBackendDescriptor_t pack = NULL;
    vx_status status = make(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, &pack, err);
    setter s = {pack, status, err};
    set(&s, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, 3, uids);
    set(&s, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, 3, pointers);
    set(&s, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &workspace);
    status = finish(&s, "naming a convolution's tensors");
    if (status == VX_OK)
        status = vx_cudnn_check(cudnnBackendExecute(device->cudnn, conv->plan, pack),
                                "a convolution", err);
    drop(&pack);
    return status;
}
