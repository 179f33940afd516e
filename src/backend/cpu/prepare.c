/* Which step runs which op. */
#include "backend/cpu/cpu.h"

size_t vx_cpu_block(size_t c) {
    const size_t tokens = 16384 / c;
    return tokens < 16 ? 16 : tokens;
}

vx_status vx_cpu_prepare(vx_cpu_step *step, vx_error *err) {
    switch (step->op->kind) {
    case VX_OP_CONV:
    case VX_OP_LINEAR:
    case VX_OP_INSTANCE_NORM:
    case VX_OP_CONV_NORM_ACT:
    case VX_OP_NORM_ACT_ADD:
        return vx_cpu_prepare_conv(step, err);
    case VX_OP_TRANSPOSED_CONV:
    case VX_OP_TRANSPOSED_CONCAT:
        return vx_cpu_prepare_transposed(step, err);
    case VX_OP_ACTIVATION:
    case VX_OP_ADD:
    case VX_OP_CONCAT:
    case VX_OP_LAYER_NORM:
    case VX_OP_AVG_POOL:
    case VX_OP_UPSAMPLE_NEAREST:
        return vx_cpu_prepare_simple(step, err);
    case VX_OP_MAMBA:
        return vx_cpu_prepare_mamba(step, err);
    case VX_OP_INPUT:
    case VX_OP_MAMBA_LAYER: /* this backend does not ask for it */
        break;
    }
    return vx_fail(err, VX_ERR_MODEL, "this build does not know op %d", (int)step->op->kind);
}
