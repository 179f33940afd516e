/* Convolutions through oneDNN 2.x (Debian's libdnnl, built with OpenMP).
 *
 * A convolution is cut into slabs of output planes (z). A slab's input is contiguous, so a slab is
 * a convolution of its own whose front and back padding is what the cut left of the whole one's;
 * slabs of equal shape share a primitive. Every primitive is made for one thread and run by our own
 * workers, each with its own memory objects and scratchpad: bits do not depend on the number of
 * workers.
 *
 * oneDNN reads the OpenMP thread count of the calling thread, both when a primitive is made and
 * when it runs. It is set to 1 around these calls and put back: callers who use OpenMP notice
 * nothing.
 */
#include "backend/cpu/conv.h"

#ifndef VX_HAVE_ONEDNN

vx_status vx_conv_dnnl(const vx_cpu_step *step, bool with_bias, vx_conv *out, vx_error *err) {
    (void)step, (void)with_bias, (void)out, (void)err;
    return VX_OK;
}

#else

#include <dnnl.h>
#include <omp.h>
#include <stdint.h>
#include <string.h>

#include "base/size.h"

enum { VARIANTS_MAX = 8 };

/* Slabs of one shape. */
typedef struct slab_shape {
    size_t in_planes, out_planes, front, back;
} slab_shape;

/* One worker's view of one primitive. */
typedef struct worker_memory {
    dnnl_memory_t x, y, weights, bias, scratch;
} worker_memory;

typedef struct variant {
    slab_shape shape;
    dnnl_primitive_desc_t desc;
    dnnl_primitive_t primitive;
    worker_memory *memory; /* one a worker */
} variant;

typedef struct dnnl_state {
    dnnl_engine_t engine;
    dnnl_stream_t *streams; /* one a worker */
    unsigned workers;
    size_t planes; /* of output in a slab */
    size_t variants;
    variant variant[VARIANTS_MAX];
    dnnl_memory_desc_t weights; /* oneDNN's packed form */
    size_t bias_offset;         /* in the weight block; only with_bias */
    bool with_bias;
} dnnl_state;

/* Slab number s: its shape, and the first plane of its input. False: it lies in the padding. */
static bool slab_at(const vx_cpu_step *step, size_t planes, size_t s, slab_shape *out,
                    size_t *in_first) {
    const vx_op *op = step->op;
    const size_t first = s * planes, depth = step->in.d, pad = op->pad[0];
    const size_t count = step->out.d - first < planes ? step->out.d - first : planes;
    /* In coordinates of the padded input. */
    const size_t begin = first * op->stride[0];
    const size_t end = (first + count - 1) * op->stride[0] + op->kernel[0];
    const size_t low = begin > pad ? begin : pad, high = end < pad + depth ? end : pad + depth;
    if (low >= high) return false;
    *out = (slab_shape){high - low, count, low - begin, end - high};
    *in_first = low - pad;
    return true;
}

static bool same_shape(const slab_shape *a, const slab_shape *b) {
    return a->in_planes == b->in_planes && a->out_planes == b->out_planes && a->front == b->front &&
           a->back == b->back;
}

static const variant *find_variant(const dnnl_state *state, const slab_shape *shape) {
    for (size_t i = 0; i < state->variants; i++)
        if (same_shape(&state->variant[i].shape, shape)) return &state->variant[i];
    return NULL;
}

/* Only compiled kernels: the others (gemm, ref) are slower than our own. */
static bool is_fast(const_dnnl_primitive_desc_t desc) {
    const char *name = NULL;
    return dnnl_primitive_desc_query(desc, dnnl_query_impl_info_str, 0, &name) == dnnl_success &&
           name && (strncmp(name, "jit", 3) == 0 || strncmp(name, "brg", 3) == 0);
}

static dnnl_data_type_t type_of(vx_dtype dtype) { return dtype == VX_BF16 ? dnnl_bf16 : dnnl_f32; }

/* weights: NULL for the first variant, which lets oneDNN choose the packed form. */
static dnnl_status_t make_desc(const vx_cpu_step *step, const dnnl_state *state,
                               const slab_shape *slab, const dnnl_memory_desc_t *weights,
                               dnnl_primitive_desc_t *out) {
    const vx_op *op = step->op;
    const vx_shape in = step->in, o = step->out;
    const size_t in_size[3] = {slab->in_planes, in.h, in.w},
                 out_size[3] = {slab->out_planes, o.h, o.w};
    dnnl_dims_t x_dims = {1, (dnnl_dim_t)in.c}, y_dims = {1, (dnnl_dim_t)o.c};
    dnnl_dims_t w_dims = {(dnnl_dim_t)o.c, (dnnl_dim_t)in.c}, b_dims = {(dnnl_dim_t)o.c};
    dnnl_dims_t strides, before, after;
    for (int i = 0; i < 3; i++) {
        x_dims[2 + i] = (dnnl_dim_t)in_size[i];
        y_dims[2 + i] = (dnnl_dim_t)out_size[i];
        w_dims[2 + i] = (dnnl_dim_t)op->kernel[i];
        strides[i] = (dnnl_dim_t)op->stride[i];
        before[i] = (dnnl_dim_t)(i == 0 ? slab->front : op->pad[i]);
        /* May be negative, down to 1 - stride, where the last voxels are not reached. */
        after[i] = (y_dims[2 + i] - 1) * strides[i] + w_dims[2 + i] - x_dims[2 + i] - before[i];
    }
    /* bfloat16 products are summed as float; a sum is rounded once, when it is stored. */
    const dnnl_data_type_t type = type_of(step->kernels->stored);
    const dnnl_data_type_t y_type = step->out_float ? dnnl_f32 : type;
    dnnl_memory_desc_t x, y, w, b;
    dnnl_convolution_desc_t conv;
    dnnl_primitive_attr_t attr = NULL;
    dnnl_status_t status = dnnl_memory_desc_init_by_tag(&x, 5, x_dims, type, dnnl_ndhwc);
    if (!status) status = dnnl_memory_desc_init_by_tag(&y, 5, y_dims, y_type, dnnl_ndhwc);
    if (!status) status = dnnl_memory_desc_init_by_tag(&w, 5, w_dims, type, dnnl_format_tag_any);
    if (!status) status = dnnl_memory_desc_init_by_tag(&b, 1, b_dims, dnnl_f32, dnnl_a);
    if (!status)
        status = dnnl_convolution_forward_desc_init(
            &conv, dnnl_forward_inference, dnnl_convolution_direct, &x, weights ? weights : &w,
            state->with_bias ? &b : NULL, &y, strides, before, after);
    if (!status) status = dnnl_primitive_attr_create(&attr);
    if (!status) status = dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user);
    if (!status) status = dnnl_primitive_desc_create(out, &conv, attr, state->engine, NULL);
    dnnl_primitive_attr_destroy(attr);
    return status;
}

static const dnnl_memory_desc_t *query(const variant *v, dnnl_query_t what) {
    return dnnl_primitive_desc_query_md(v->desc, what, 0);
}

/* Memory objects without memory: the handles are set for each slab. */
static dnnl_status_t make_memory(const dnnl_state *state, const variant *v, worker_memory *m) {
    dnnl_status_t status =
        dnnl_memory_create(&m->x, query(v, dnnl_query_src_md), state->engine, DNNL_MEMORY_NONE);
    if (!status)
        status =
            dnnl_memory_create(&m->y, query(v, dnnl_query_dst_md), state->engine, DNNL_MEMORY_NONE);
    if (!status)
        status = dnnl_memory_create(&m->weights, &state->weights, state->engine, DNNL_MEMORY_NONE);
    if (!status && state->with_bias)
        status = dnnl_memory_create(&m->bias,
                                    dnnl_primitive_desc_query_md(v->desc, dnnl_query_weights_md, 1),
                                    state->engine, DNNL_MEMORY_NONE);
    if (!status)
        status = dnnl_memory_create(&m->scratch, query(v, dnnl_query_scratchpad_md), state->engine,
                                    DNNL_MEMORY_NONE);
    return status;
}

/* *usable false: oneDNN has no compiled kernel for this slab. */
static dnnl_status_t make_variant(const vx_cpu_step *step, dnnl_state *state,
                                  const slab_shape *shape, bool *usable) {
    variant *v = &state->variant[state->variants];
    const bool first = state->variants == 0;
    *usable = true;
    v->shape = *shape;
    dnnl_status_t status = make_desc(step, state, shape, first ? NULL : &state->weights, &v->desc);
    state->variants++;
    if (status == dnnl_unimplemented || (status == dnnl_success && !is_fast(v->desc))) {
        *usable = false;
        return dnnl_success;
    }
    if (status != dnnl_success) return status;
    if (first) state->weights = *query(v, dnnl_query_weights_md);
    status = dnnl_primitive_create(&v->primitive, v->desc);
    if (status != dnnl_success) return status;
    v->memory = vx_alloc_zero(state->workers, sizeof *v->memory);
    if (!v->memory) return dnnl_out_of_memory;
    for (unsigned w = 0; w < state->workers && !status; w++)
        status = make_memory(state, v, &v->memory[w]);
    return status;
}

/* oneDNN's compiled kernels hold some offsets in 32 bits: its slabs stay below that. */
static bool is_addressable(const vx_cpu_step *step, const slab_shape *shape) {
    const vx_shape in = step->in, out = step->out;
    const size_t x[] = {shape->in_planes, in.h, in.w, in.c, sizeof(float)};
    const size_t y[] = {shape->out_planes, out.h, out.w, out.c, sizeof(float)};
    size_t x_bytes = 0, y_bytes = 0;
    return vx_product(x, 5, &x_bytes) && vx_product(y, 5, &y_bytes) && x_bytes <= INT32_MAX &&
           y_bytes <= INT32_MAX;
}

static dnnl_status_t make_all(const vx_cpu_step *step, dnnl_state *state, size_t slabs,
                              bool *usable) {
    slab_shape shape;
    size_t in_first;
    dnnl_status_t status = dnnl_engine_create(&state->engine, dnnl_cpu, 0);
    for (unsigned w = 0; w < state->workers && !status; w++)
        status = dnnl_stream_create(&state->streams[w], state->engine, dnnl_stream_default_flags);
    for (size_t s = 0; s < slabs && *usable && !status; s++) {
        *usable = slab_at(step, state->planes, s, &shape, &in_first);
        *usable = *usable && is_addressable(step, &shape);
        if (!*usable || find_variant(state, &shape)) continue;
        *usable = state->variants < VARIANTS_MAX;
        if (*usable) status = make_variant(step, state, &shape, usable);
    }
    return status;
}

static void destroy(vx_conv *conv) {
    dnnl_state *state = conv->state;
    if (!state) return;
    for (size_t i = 0; i < state->variants; i++) {
        variant *v = &state->variant[i];
        for (unsigned w = 0; v->memory && w < state->workers; w++) {
            worker_memory *m = &v->memory[w];
            dnnl_memory_destroy(m->x);
            dnnl_memory_destroy(m->y);
            dnnl_memory_destroy(m->weights);
            dnnl_memory_destroy(m->bias);
            dnnl_memory_destroy(m->scratch);
        }
        vx_free(v->memory);
        dnnl_primitive_destroy(v->primitive);
        dnnl_primitive_desc_destroy(v->desc);
    }
    for (unsigned w = 0; state->streams && w < state->workers; w++)
        dnnl_stream_destroy(state->streams[w]);
    vx_free(state->streams);
    dnnl_engine_destroy(state->engine);
    vx_free(state);
    conv->state = NULL;
}

static dnnl_status_t reorder_weights(const vx_cpu_step *step, dnnl_state *state, float *plain,
                                     void *packed) {
    const vx_op *op = step->op;
    dnnl_dims_t dims = {(dnnl_dim_t)step->out.c, (dnnl_dim_t)step->in.c, (dnnl_dim_t)op->kernel[0],
                        (dnnl_dim_t)op->kernel[1], (dnnl_dim_t)op->kernel[2]};
    dnnl_memory_desc_t desc;
    dnnl_memory_t from = NULL, to = NULL;
    dnnl_primitive_desc_t reorder_desc = NULL;
    dnnl_primitive_t reorder = NULL;
    dnnl_status_t status = dnnl_memory_desc_init_by_tag(&desc, 5, dims, dnnl_f32, dnnl_oidhw);
    if (!status) status = dnnl_memory_create(&from, &desc, state->engine, plain);
    if (!status) status = dnnl_memory_create(&to, &state->weights, state->engine, packed);
    if (!status)
        status = dnnl_reorder_primitive_desc_create(&reorder_desc, &desc, state->engine,
                                                    &state->weights, state->engine, NULL);
    if (!status) status = dnnl_primitive_create(&reorder, reorder_desc);
    const dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, to}};
    if (!status) status = dnnl_primitive_execute(reorder, state->streams[0], 2, args);
    if (!status) status = dnnl_stream_wait(state->streams[0]);
    dnnl_primitive_destroy(reorder);
    dnnl_primitive_desc_destroy(reorder_desc);
    dnnl_memory_destroy(from);
    dnnl_memory_destroy(to);
    return status;
}

/* The handles that never change. */
static dnnl_status_t bind_weights(dnnl_state *state, void *packed, void *bias) {
    dnnl_status_t status = dnnl_success;
    for (size_t i = 0; i < state->variants; i++)
        for (unsigned w = 0; w < state->workers && !status; w++) {
            worker_memory *m = &state->variant[i].memory[w];
            status = dnnl_memory_set_data_handle(m->weights, packed);
            if (!status && m->bias) status = dnnl_memory_set_data_handle(m->bias, bias);
        }
    return status;
}

static vx_status pack(vx_conv *conv, const vx_cpu_step *step, void *weights, vx_error *err) {
    dnnl_state *state = conv->state;
    float *plain = vx_alloc(step->op->weight.elements * sizeof *plain);
    if (!plain) return vx_fail(err, VX_ERR_RESOURCE, "out of memory");
    vx_read_weight(&step->op->weight, plain);
    float *bias = (float *)(void *)((unsigned char *)weights + state->bias_offset);
    if (state->with_bias) vx_read_weight(&step->op->bias, bias);
    const int threads = omp_get_max_threads();
    omp_set_num_threads(1);
    dnnl_status_t status = reorder_weights(step, state, plain, weights);
    if (!status) status = bind_weights(state, weights, bias);
    omp_set_num_threads(threads);
    vx_free(plain);
    return status ? vx_fail(err, VX_ERR_RESOURCE, "oneDNN could not pack weights (status %d)",
                            (int)status)
                  : VX_OK;
}

static bool run_piece(const vx_conv *conv, const vx_cpu_step *step, const vx_piece *p) {
    const dnnl_state *state = conv->state;
    const vx_shape in = step->in, out = step->out;
    slab_shape shape;
    size_t in_first;
    if (!slab_at(step, state->planes, p->cell, &shape, &in_first)) return false;
    const variant *v = find_variant(state, &shape);
    const worker_memory *m = &v->memory[p->worker];
    /* oneDNN's handles are not const; it only reads x. */
    const size_t y_first = p->cell * state->planes * out.h * out.w * out.c;
    void *from = (void *)(uintptr_t)vx_stored_from(step->kernels, p->x->part[0].x,
                                                   in_first * in.h * in.w * in.c);
    void *to = (unsigned char *)p->y + y_first * vx_conv_out_size(step);
    const int threads = omp_get_max_threads();
    omp_set_num_threads(1);
    dnnl_status_t status = dnnl_memory_set_data_handle(m->x, from);
    if (!status) status = dnnl_memory_set_data_handle(m->y, to);
    if (!status) status = dnnl_memory_set_data_handle(m->scratch, p->scratch);
    const dnnl_exec_arg_t args[] = {{DNNL_ARG_SRC, m->x},
                                    {DNNL_ARG_WEIGHTS, m->weights},
                                    {DNNL_ARG_DST, m->y},
                                    {DNNL_ARG_SCRATCHPAD, m->scratch},
                                    {DNNL_ARG_BIAS, m->bias}};
    if (!status)
        status = dnnl_primitive_execute(v->primitive, state->streams[p->worker],
                                        state->with_bias ? 5 : 4, args);
    if (!status) status = dnnl_stream_wait(state->streams[p->worker]);
    omp_set_num_threads(threads);
    return status == dnnl_success;
}

/* Work of a slab below which cutting finer costs more than it balances. */
#define SLAB_FLOPS 2e6

static size_t choose_planes(const vx_cpu_step *step) {
    const vx_op *op = step->op;
    const double plane = 2.0 * (double)(step->out.h * step->out.w) * (double)step->out.c *
                         (double)step->in.c *
                         (double)(op->kernel[0] * op->kernel[1] * op->kernel[2]);
    const double planes = SLAB_FLOPS / plane;
    if (planes <= 1) return 1;
    return planes >= (double)step->out.d ? step->out.d : (size_t)planes;
}

static size_t max_scratch(const dnnl_state *state) {
    size_t most = 0;
    for (size_t i = 0; i < state->variants; i++) {
        const size_t bytes =
            dnnl_memory_desc_get_size(query(&state->variant[i], dnnl_query_scratchpad_md));
        if (bytes > most) most = bytes;
    }
    return most;
}

vx_status vx_conv_dnnl(const vx_cpu_step *step, bool with_bias, vx_conv *out, vx_error *err) {
    bool usable = true;
    dnnl_state *state = vx_alloc_zero(1, sizeof *state);
    if (!state) return vx_fail(err, VX_ERR_RESOURCE, "out of memory");
    out->state = state;
    state->workers = step->workers;
    state->with_bias = with_bias && step->op->bias.data;
    state->planes = choose_planes(step);
    const size_t slabs = (step->out.d + state->planes - 1) / state->planes;
    state->streams = vx_alloc_zero(state->workers, sizeof(dnnl_stream_t));
    dnnl_status_t status = dnnl_out_of_memory;
    if (state->streams) {
        const int threads = omp_get_max_threads();
        omp_set_num_threads(1);
        status = make_all(step, state, slabs, &usable);
        omp_set_num_threads(threads);
    }
    if (status != dnnl_success || !usable) {
        destroy(out);
        return status == dnnl_success
                   ? VX_OK
                   : vx_fail(err, VX_ERR_RESOURCE,
                             "oneDNN could not plan a convolution (status %d)", (int)status);
    }
    if (!vx_align_size(dnnl_memory_desc_get_size(&state->weights), VX_ALIGN, &state->bias_offset) ||
        !vx_add_size(state->bias_offset, step->out.c * sizeof(float), &out->weight_bytes)) {
        destroy(out);
        return vx_cpu_overflow(err);
    }
    out->worker_bytes = max_scratch(state);
    const size_t plane = step->out.h * step->out.w;
    out->cut = (vx_cut){.planes = 1,
                        .plane_tokens = step->out.d * plane,
                        .cells = slabs,
                        .cell_tokens = state->planes * plane};
    out->piece_planes = out->band_planes = 1;
    out->pack = pack;
    out->piece = run_piece;
    out->destroy = destroy;
    return VX_OK;
}

#endif
