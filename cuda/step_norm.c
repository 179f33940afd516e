/* Norms that stand alone. */
#include "cuda/ops.h"
#include "cuda/step.h"

/* Where gamma and beta lie in the step's weights. */
typedef struct parameters {
    size_t gamma, beta, bytes;
} parameters;

static bool place(const vx_cuda_step *step, parameters *p) {
    p->bytes = 0;
    return vx_cuda_reserve(&p->bytes, step->in.c, 1, VX_F32, &p->gamma) &&
           vx_cuda_reserve(&p->bytes, step->in.c, 1, VX_F32, &p->beta);
}

static vx_status pack(vx_cuda_step *step, unsigned char *host, vx_error *err) {
    parameters p;
    if (!place(step, &p)) return vx_cuda_overflow(err);
    vx_read_weight(&step->op->gamma, (float *)(void *)(host + p.gamma));
    vx_read_weight(&step->op->beta, (float *)(void *)(host + p.beta));
    return VX_OK;
}

static vx_status launch(const vx_cuda_step *step, const vx_cuda_run *run, vx_error *err) {
    const vx_op *op = step->op;
    const void *x = run->value[op->in[0]];
    void *y = run->value[op->out];
    parameters p;
    if (!place(step, &p)) return vx_cuda_overflow(err);
    const float *gamma = (const float *)(const void *)(step->weights + p.gamma);
    const float *beta = (const float *)(const void *)(step->weights + p.beta);
    if (op->kind == VX_OP_LAYER_NORM)
        return vx_cuda_layer_norm(x, y, vx_shape_tokens(step->in), step->in.c, gamma, beta, op->eps,
                                  step->dtype, run->stream, err);
    const vx_cuda_norm norm = {.shape = step->in,
                               .dtype = step->dtype,
                               .gamma = gamma,
                               .beta = beta,
                               .eps = op->eps,
                               .act = VX_ACT_NONE};
    return vx_cuda_instance_norm(&norm, x, NULL, y, run->scratch, run->stream, err);
}

vx_status vx_cuda_prepare_norm(vx_cuda_step *step, vx_error *err) {
    parameters p;
    if (!place(step, &p)) return vx_cuda_overflow(err);
    if (step->op->kind == VX_OP_INSTANCE_NORM &&
        !vx_cuda_instance_norm_scratch(step->in, vx_cuda_instance_norm_parts(step->in),
                                       &step->scratch_bytes))
        return vx_cuda_overflow(err);
    step->out_float = false;
    step->in_place = true;
    step->weight_bytes = p.bytes;
    step->pack = pack;
    step->launch = launch;
    return VX_OK;
}
