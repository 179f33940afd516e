/* Convolutions alone or with the instance norm, residual and activation behind them. */
#include "base/memory.h"
#include "base/size.h"
#include "cuda/conv_cudnn.h"
#include "cuda/ops.h"

typedef struct conv_state {
    vx_cuda_conv_shape shape; /* of the widened input */
    size_t taps;              /* neighbours along x that a voxel of it holds */
    vx_cuda_conv conv;
    bool normed, bias; /* a bias before an instance norm cancels: it is dropped */
    size_t weight_at, bias_at, gamma_at, beta_at; /* in the step's weights */
    size_t parts;                                 /* of the norm's moments, for each n */
    size_t wide_at, rest_at; /* in the scratch: the padded input; workspace, then moments */
} conv_state;

/* Matrix units take 8 channels of 2 bytes at a time, our own kernel 16. An input of few channels
 * (the first layer's) is widened to that by its neighbours along x, whose taps then are input
 * channels: of a 3x3x3 filter 9 taps are left. Else zeros fill up what is missing. */
static void widen_input(conv_state *s, vx_dtype dtype) {
    vx_cuda_conv_shape *shape = &s->shape;
    const size_t c = shape->in.c, taps = shape->kernel[2];
    s->taps = 1;
    if (dtype == VX_F32) return;
    if (taps > 1 && taps % 2 && taps * c <= 16 && shape->stride[2] == 1 &&
        shape->pad[2] == taps / 2) {
        s->taps = taps;
        shape->kernel[2] = 1;
        shape->pad[2] = 0;
    }
    shape->in.c = c < 16 ? 16 : (c + 7) / 8 * 8;
}

/* (Cout, Cin, kd, kh, kw) to the filter of the widened input: (Cout, wide, kd, kh, kw / taps). */
static void widen_filter(const conv_state *s, const vx_op *op, size_t c_in, const float *from,
                         float *to) {
    const size_t planes = op->kernel[0] * op->kernel[1], rest = op->kernel[2] / s->taps;
    for (size_t o = 0; o < s->shape.out.c; o++)
        for (size_t i = 0; i < c_in; i++)
            for (size_t p = 0; p < planes; p++)
                for (size_t k = 0; k < op->kernel[2]; k++) {
                    /* One of taps and rest is 1. */
                    const size_t channel = k / rest * c_in + i, tap = p * rest + k % rest;
                    to[(o * s->shape.in.c + channel) * planes * rest + tap] = *from++;
                }
}

static vx_status pack_filter(const vx_cuda_step *step, unsigned char *to, vx_error *err) {
    const conv_state *s = step->state;
    const vx_op *op = step->op;
    const size_t *kernel = s->shape.kernel;
    const size_t n = step->out.c * s->shape.in.c * kernel[0] * kernel[1] * kernel[2];
    float *plain = vx_cuda_read_weight(&op->weight), *wide = vx_alloc_zero(n, sizeof *wide);
    float *turned = vx_alloc(n * sizeof *turned);
    vx_status status = plain && wide && turned ? VX_OK : vx_cuda_no_memory(err);
    if (status == VX_OK) {
        widen_filter(s, op, step->in.c, plain, wide);
        vx_cuda_conv_pack(&s->conv, &s->shape, wide, turned);
        vx_cuda_narrow_host(turned, n, step->dtype, to);
    }
    vx_free(plain);
    vx_free(wide);
    vx_free(turned);
    return status;
}

static vx_status pack(vx_cuda_step *step, unsigned char *host, vx_error *err) {
    const conv_state *s = step->state;
    const vx_op *op = step->op;
    vx_status status = pack_filter(step, host + s->weight_at, err);
    if (status != VX_OK) return status;
    if (s->bias) vx_read_weight(&op->bias, (float *)(void *)(host + s->bias_at));
    if (s->normed) {
        vx_read_weight(&op->gamma, (float *)(void *)(host + s->gamma_at));
        vx_read_weight(&op->beta, (float *)(void *)(host + s->beta_at));
    }
    return VX_OK;
}

static vx_status norm(const vx_cuda_step *step, const vx_cuda_run *run, vx_error *err) {
    const conv_state *s = step->state;
    const vx_op *op = step->op;
    void *y = run->value[op->out];
    vx_cuda_moments *moments = (void *)(run->scratch + s->rest_at);
    const vx_cuda_norm norm = {.shape = step->out,
                               .dtype = step->dtype,
                               .gamma = vx_cuda_floats(step, s->gamma_at),
                               .beta = vx_cuda_floats(step, s->beta_at),
                               .eps = op->eps,
                               .act = op->act,
                               .slope = op->slope};
    const void *residual = op->kind == VX_OP_NORM_ACT_ADD ? run->value[op->in[1]] : NULL;
    if (!s->conv.parts && vx_cuda_instance_norm_small(step->out))
        return vx_cuda_instance_norm(&norm, y, residual, y, moments, run->stream, err);
    vx_cuda_affine *affine = step->leaves_norm
                                 ? vx_cuda_affine_of(step, run)
                                 : (void *)(moments + step->out.n * s->parts * step->out.c);
    vx_status status = VX_OK;
    if (!s->conv.parts) status = vx_cuda_instance_norm_moments(&norm, y, moments, run->stream, err);
    if (status == VX_OK)
        status = vx_cuda_instance_norm_join(&norm, s->parts, moments, affine, run->stream, err);
    if (status != VX_OK || step->leaves_norm) return status;
    return vx_cuda_instance_norm_apply(&norm, affine, y, residual, vx_cuda_pending_of(step, 1, run),
                                       y, run->stream, err);
}

static vx_status launch(const vx_cuda_step *step, const vx_cuda_run *run, vx_error *err) {
    const conv_state *s = step->state;
    const vx_op *op = step->op;
    const void *x = run->value[op->in[0]];
    void *y = run->value[op->out], *rest = run->scratch + s->rest_at;
    const vx_cuda_pending pending = vx_cuda_pending_of(step, 0, run);
    vx_status status = VX_OK;
    if (s->shape.in.c != step->in.c) {
        void *wide = run->scratch + s->wide_at;
        status = vx_cuda_widen(x, step->in.c, s->taps, step->in.w, wide, s->shape.in.c,
                               vx_shape_tokens(step->in), step->dtype, run->stream, err);
        x = wide;
    }
    if (status == VX_OK)
        status = vx_cuda_conv_launch(step->device, &s->conv, x, pending,
                                     step->weights + s->weight_at, y, rest, rest, err);
    if (status != VX_OK) return status;
    if (s->bias)
        return vx_cuda_bias(y, vx_cuda_floats(step, s->bias_at), y, vx_shape_tokens(step->out),
                            step->out.c, step->dtype, run->stream, err);
    return s->normed ? norm(step, run, err) : VX_OK;
}

static void destroy(vx_cuda_step *step) {
    conv_state *s = step->state;
    if (s) vx_cuda_conv_destroy(&s->conv);
}

static bool place_weights(vx_cuda_step *step, conv_state *s) {
    const size_t c_out = step->out.c, normed = s->normed ? c_out : 0, *kernel = s->shape.kernel;
    const size_t dims[] = {s->shape.in.c, kernel[0], kernel[1], kernel[2]};
    size_t filter;
    return vx_product(dims, 4, &filter) &&
           vx_cuda_reserve(&step->weight_bytes, c_out, filter, step->dtype, &s->weight_at) &&
           vx_cuda_reserve(&step->weight_bytes, s->bias ? c_out : 0, 1, VX_F32, &s->bias_at) &&
           vx_cuda_reserve(&step->weight_bytes, normed, 1, VX_F32, &s->gamma_at) &&
           vx_cuda_reserve(&step->weight_bytes, normed, 1, VX_F32, &s->beta_at);
}

/* The convolution's workspace is free when the norm begins. */
static bool place_scratch(vx_cuda_step *step, conv_state *s) {
    const bool wide = s->shape.in.c != step->in.c;
    size_t moments = 0, rest = s->conv.workspace_bytes;
    s->parts = s->conv.parts ? s->conv.parts : vx_cuda_instance_norm_parts(step->out);
    if (s->normed && !vx_cuda_instance_norm_scratch(step->out, s->parts, &moments)) return false;
    if (moments > rest) rest = moments;
    if (!vx_cuda_reserve(&step->scratch_bytes, wide ? vx_shape_tokens(step->in) : 0, s->shape.in.c,
                         step->dtype, &s->wide_at))
        return false;
    s->rest_at = step->scratch_bytes;
    return vx_add_size(step->scratch_bytes, rest, &step->scratch_bytes);
}

vx_status vx_cuda_prepare_conv(vx_cuda_step *step, vx_error *err) {
    const vx_op *op = step->op;
    conv_state *s = step->state = vx_alloc_zero(1, sizeof *s);
    if (!s) return vx_cuda_no_memory(err);
    step->out_float = false;
    step->pack = pack;
    step->launch = launch;
    step->destroy = destroy;
    s->normed = op->kind != VX_OP_CONV;
    s->bias = !s->normed && op->bias.data;
    s->shape = (vx_cuda_conv_shape){
        .in = step->in, .out = step->out, .dtype = step->dtype, .normed = s->normed};
    for (int i = 0; i < 3; i++) {
        s->shape.kernel[i] = op->kernel[i];
        s->shape.stride[i] = op->stride[i];
        s->shape.pad[i] = op->pad[i];
    }
    widen_input(s, step->dtype);
    vx_status status = vx_cuda_conv_create(step->device, &s->shape, &s->conv, err);
    if (status != VX_OK) return status;
    const bool alone = !s->conv.parts && vx_cuda_instance_norm_small(step->out);
    step->can_leave_norm =
        op->kind == VX_OP_CONV_NORM_ACT && !alone && vx_cuda_slope_of(op->act, op->slope) >= 0;
    step->can_apply[0] = s->conv.tiled.variant && s->shape.in.c == step->in.c &&
                         vx_cuda_tiled_applies(&s->conv.tiled);
    step->can_apply[1] = op->kind == VX_OP_NORM_ACT_ADD && !alone;
    return place_weights(step, s) && place_scratch(step, s) ? VX_OK : vx_cuda_overflow(err);
}
