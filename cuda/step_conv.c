/* Convolutions through cuDNN, alone or with the instance norm, residual and activation behind them.
 */
#include "base/memory.h"
#include "cuda/conv_cudnn.h"
#include "cuda/ops.h"

typedef struct conv_state {
    vx_cuda_conv conv;
    bool normed, bias; /* a bias before an instance norm cancels: it is dropped */
    size_t weight_at, bias_at, gamma_at, beta_at; /* in the step's weights */
} conv_state;

/* PyTorch's (Cout, Cin, kd, kh, kw) to [Cout][kd][kh][kw][Cin]. */
static void permute(const float *from, size_t c_out, size_t c_in, size_t taps, float *to) {
    for (size_t o = 0; o < c_out; o++)
        for (size_t t = 0; t < taps; t++)
            for (size_t i = 0; i < c_in; i++) *to++ = from[(o * c_in + i) * taps + t];
}

static vx_status pack(vx_cuda_step *step, unsigned char *host, vx_error *err) {
    const conv_state *s = step->state;
    const vx_op *op = step->op;
    const size_t taps = op->kernel[0] * op->kernel[1] * op->kernel[2], n = op->weight.elements;
    float *plain = vx_cuda_read_weight(&op->weight), *turned = vx_alloc(n * sizeof *turned);
    if (!plain || !turned) {
        vx_free(plain);
        vx_free(turned);
        return vx_cuda_no_memory(err);
    }
    permute(plain, step->out.c, step->in.c, taps, turned);
    vx_cuda_narrow_host(turned, n, step->dtype, host + s->weight_at);
    vx_free(plain);
    vx_free(turned);
    if (s->bias) vx_read_weight(&op->bias, (float *)(void *)(host + s->bias_at));
    if (s->normed) {
        vx_read_weight(&op->gamma, (float *)(void *)(host + s->gamma_at));
        vx_read_weight(&op->beta, (float *)(void *)(host + s->beta_at));
    }
    return VX_OK;
}

static vx_status launch(const vx_cuda_step *step, const vx_cuda_run *run, vx_error *err) {
    const conv_state *s = step->state;
    const vx_op *op = step->op;
    void *y = run->value[op->out];
    vx_status status = vx_cuda_conv_launch(step->device, &s->conv, run->value[op->in[0]],
                                           step->weights + s->weight_at, y, run->scratch, err);
    if (status != VX_OK) return status;
    if (s->bias)
        return vx_cuda_bias(y, (const float *)(const void *)(step->weights + s->bias_at), y,
                            vx_shape_tokens(step->out), step->out.c, step->dtype, run->stream, err);
    if (!s->normed) return VX_OK;
    const vx_cuda_norm norm = {.shape = step->out,
                               .dtype = step->dtype,
                               .gamma = (const float *)(const void *)(step->weights + s->gamma_at),
                               .beta = (const float *)(const void *)(step->weights + s->beta_at),
                               .eps = op->eps,
                               .act = op->act,
                               .slope = op->slope};
    const void *residual = op->kind == VX_OP_NORM_ACT_ADD ? run->value[op->in[1]] : NULL;
    return vx_cuda_instance_norm(&norm, y, residual, y, run->scratch, run->stream, err);
}

static void destroy(vx_cuda_step *step) {
    conv_state *s = step->state;
    if (s) vx_cuda_conv_destroy(&s->conv);
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
    if (!vx_cuda_reserve(&step->weight_bytes, op->weight.elements, 1, step->dtype, &s->weight_at) ||
        !vx_cuda_reserve(&step->weight_bytes, s->bias ? step->out.c : 0, 1, VX_F32, &s->bias_at) ||
        !vx_cuda_reserve(&step->weight_bytes, s->normed ? step->out.c : 0, 1, VX_F32,
                         &s->gamma_at) ||
        !vx_cuda_reserve(&step->weight_bytes, s->normed ? step->out.c : 0, 1, VX_F32, &s->beta_at))
        return vx_cuda_overflow(err);
    vx_cuda_conv_shape shape = {.in = step->in, .out = step->out, .dtype = step->dtype};
    for (int i = 0; i < 3; i++) {
        shape.kernel[i] = op->kernel[i];
        shape.stride[i] = op->stride[i];
        shape.pad[i] = op->pad[i];
    }
    vx_status status = vx_cuda_conv_create(step->device, &shape, &s->conv, err);
    if (status != VX_OK) return status;
    /* The convolution's workspace is free when the norm begins. */
    size_t norm_bytes = 0;
    if (s->normed && !vx_cuda_instance_norm_scratch(step->out, &norm_bytes))
        return vx_cuda_overflow(err);
    step->scratch_bytes =
        s->conv.workspace_bytes > norm_bytes ? s->conv.workspace_bytes : norm_bytes;
    return VX_OK;
}
