/* Which step runs which op. */
#include "cuda/step.h"

/* A 1x1x1 convolution that takes every voxel. */
static bool is_linear(const vx_op *op) {
    for (int i = 0; i < 3; i++)
        if (op->kernel[i] != 1 || op->stride[i] != 1 || op->pad[i] != 0) return false;
    return true;
}

vx_status vx_cuda_prepare(vx_cuda_step *step, vx_error *err) {
    switch (step->op->kind) {
    case VX_OP_CONV:
        return is_linear(step->op) ? vx_cuda_prepare_linear(step, err)
                                   : vx_cuda_prepare_conv(step, err);
    case VX_OP_CONV_NORM_ACT:
    case VX_OP_NORM_ACT_ADD:
        return vx_cuda_prepare_conv(step, err);
    case VX_OP_TRANSPOSED_CONV:
    case VX_OP_TRANSPOSED_CONCAT:
        return vx_cuda_prepare_transposed(step, err);
    case VX_OP_LINEAR:
        return vx_cuda_prepare_linear(step, err);
    case VX_OP_INSTANCE_NORM:
    case VX_OP_LAYER_NORM:
        return vx_cuda_prepare_norm(step, err);
    case VX_OP_ACTIVATION:
    case VX_OP_ADD:
    case VX_OP_AVG_POOL:
    case VX_OP_UPSAMPLE_NEAREST:
    case VX_OP_CONCAT:
        return vx_cuda_prepare_simple(step, err);
    case VX_OP_MAMBA:
        return vx_cuda_prepare_mamba(step, err);
    case VX_OP_MAMBA_LAYER:
        return vx_cuda_prepare_mamba_layer(step, err);
    case VX_OP_INPUT:
        break;
    }
    return vx_fail(err, VX_ERR_MODEL, "this build does not know op %d", (int)step->op->kind);
}
