/* Linear layers on tokens, and 1x1x1 convolutions, which are the same: one matrix product with the
 * bias in its epilogue, or for few output channels a kernel of our own. */
#include "base/memory.h"
#include "cuda/gemm.h"
#include "cuda/ops.h"

typedef struct linear_state {
    vx_cuda_gemm gemm;
    bool narrow; /* our own kernel, with weights and bias as float */
    vx_dtype out_type;
    size_t weight_at, bias_at;
} linear_state;

static vx_status pack_as(const vx_weight *w, vx_dtype dtype, unsigned char *to, vx_error *err) {
    float *plain = vx_cuda_read_weight(w);
    if (!plain) return vx_cuda_no_memory(err);
    vx_cuda_narrow_host(plain, w->elements, dtype, to);
    vx_free(plain);
    return VX_OK;
}

static vx_status pack(vx_cuda_step *step, unsigned char *host, vx_error *err) {
    const linear_state *s = step->state;
    const vx_op *op = step->op;
    if (s->narrow) {
        vx_read_weight(&op->weight, (float *)(void *)(host + s->weight_at));
        if (op->bias.data) vx_read_weight(&op->bias, (float *)(void *)(host + s->bias_at));
        return VX_OK;
    }
    vx_status status = pack_as(&op->weight, step->dtype, host + s->weight_at, err);
    if (status == VX_OK && op->bias.data)
        status = pack_as(&op->bias, s->out_type, host + s->bias_at, err);
    return status;
}

static vx_status launch(const vx_cuda_step *step, const vx_cuda_run *run, vx_error *err) {
    const linear_state *s = step->state;
    const vx_op *op = step->op;
    const void *bias = op->bias.data ? step->weights + s->bias_at : NULL;
    if (s->narrow)
        return vx_cuda_narrow(run->value[op->in[0]], vx_cuda_pending_of(step, 0, run), step->in.c,
                              (const float *)(const void *)(step->weights + s->weight_at), bias,
                              step->out.c, run->value[op->out], vx_shape_tokens(step->in),
                              step->dtype, step->out_float, run->stream, err);
    return vx_cuda_gemm_launch(step->device, &s->gemm, run->value[op->in[0]],
                               step->weights + s->weight_at, bias, NULL, run->value[op->out],
                               run->scratch, run->stream, err);
}

static void destroy(vx_cuda_step *step) {
    linear_state *s = step->state;
    if (s) vx_cuda_gemm_destroy(&s->gemm);
}

vx_status vx_cuda_prepare_linear(vx_cuda_step *step, vx_error *err) {
    const vx_op *op = step->op;
    linear_state *s = step->state = vx_alloc_zero(1, sizeof *s);
    if (!s) return vx_cuda_no_memory(err);
    step->pack = pack;
    step->launch = launch;
    step->destroy = destroy;
    s->out_type = step->out_float ? VX_F32 : step->dtype;
    s->narrow = vx_cuda_narrow_fits(step->in.c, step->out.c);
    step->can_apply[0] = s->narrow && step->in.n == 1;
    if (!vx_cuda_reserve(&step->weight_bytes, op->weight.elements, 1,
                         s->narrow ? VX_F32 : step->dtype, &s->weight_at) ||
        !vx_cuda_reserve(&step->weight_bytes, op->bias.data ? step->out.c : 0, 1,
                         s->narrow ? VX_F32 : s->out_type, &s->bias_at))
        return vx_cuda_overflow(err);
    if (s->narrow) return VX_OK;
    const vx_cuda_gemm_shape shape = {.rows = vx_shape_tokens(step->in),
                                      .columns = step->out.c,
                                      .depth = step->in.c,
                                      .x_row = step->in.c,
                                      .y_row = step->out.c,
                                      .type = step->dtype,
                                      .out_type = s->out_type,
                                      .bias = op->bias.data != NULL};
    vx_status status = vx_cuda_gemm_create(step->device, &shape, &s->gemm, err);
    step->scratch_bytes = s->gemm.workspace_bytes;
    return status;
}
