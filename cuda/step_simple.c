/* Ops without weights or scratch: one kernel each. */
#include "cuda/ops.h"
#include "cuda/step.h"

static vx_status launch(const vx_cuda_step *step, const vx_cuda_run *run, vx_error *err) {
    const vx_op *op = step->op;
    const void *a = run->value[op->in[0]];
    const void *b = op->in[1] >= 0 ? run->value[op->in[1]] : NULL;
    void *y = run->value[op->out];
    const size_t n = vx_shape_elements(step->out);
    switch (op->kind) {
    case VX_OP_ACTIVATION:
        return vx_cuda_activation(a, y, n, step->dtype, op->act, op->slope, run->stream, err);
    case VX_OP_ADD:
        return vx_cuda_add(a, b, y, n, step->dtype, op->scale, run->stream, err);
    case VX_OP_AVG_POOL:
        return vx_cuda_avg_pool(a, step->in, op->stride, y, step->out, step->dtype, run->stream,
                                err);
    case VX_OP_UPSAMPLE_NEAREST:
        return vx_cuda_upsample_nearest(a, op->stride, y, step->out, step->dtype, run->stream, err);
    case VX_OP_CONCAT:
        return vx_cuda_concat(a, step->in.c, b, step->in2.c, y, vx_shape_tokens(step->out),
                              step->dtype, run->stream, err);
    default:
        return vx_fail(err, VX_ERR_MODEL, "this build does not know op %d", (int)op->kind);
    }
}

vx_status vx_cuda_prepare_simple(vx_cuda_step *step, vx_error *err) {
    (void)err;
    step->out_float = false;
    step->in_place = step->op->kind == VX_OP_ACTIVATION || step->op->kind == VX_OP_ADD;
    step->launch = launch;
    return VX_OK;
}
