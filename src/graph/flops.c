#include "graph/graph.h"

/* Elements of one kernel. */
static double kernel_volume(const vx_op *op) {
    return (double)op->kernel[0] * (double)op->kernel[1] * (double)op->kernel[2];
}

/* A token's four projections, the convolution along the sequence, and 7 operations a state: decay's
 * exponent, exponential, input, update (2), output (2). */
static double mamba_flops(const vx_mamba *m, double tokens, double c) {
    const double d = (double)m->d_inner, n = (double)m->d_state, r = (double)m->dt_rank;
    const double projections = 2 * (c * 2 * d + d * (r + 2 * n) + r * d + d * c);
    return tokens * (projections + 2 * (double)m->d_conv * d + 7 * d * n);
}

/* Of each branch the mixer, two norms, two sums and the head; two norms outside; the sums of parts.
 */
static double layer_flops(const vx_mamba_layer_op *l, double tokens, double c) {
    double sum = (double)(l->parts - 1) * tokens * c;
    for (size_t i = 0; i < l->parts; i++) {
        const vx_mamba_part *p = &l->part[i];
        sum += ((p->in_gamma.data ? 7 : 0) + (p->out_gamma.data ? 7 : 0)) * tokens * c;
        for (size_t k = 0; k < l->branches; k++)
            sum += mamba_flops(&p->branch[k].mamba, tokens, c) + (2 * c + 17) * tokens * c;
    }
    return sum;
}

double vx_op_flops(const vx_graph *g, const vx_op *op) {
    const vx_shape out = g->values[op->out].shape;
    const vx_shape in = op->in[0] >= 0 ? g->values[op->in[0]].shape : out;
    const double out_elements = (double)vx_shape_elements(out);
    const double in_elements = (double)vx_shape_elements(in);
    const double conv = 2 * out_elements * (double)in.c * kernel_volume(op);
    switch (op->kind) {
    case VX_OP_INPUT:
    case VX_OP_CONCAT:
    case VX_OP_UPSAMPLE_NEAREST:
        return 0;
    case VX_OP_CONV:
        return conv;
    case VX_OP_TRANSPOSED_CONV: /* kernel = stride: each output voxel has one input voxel */
        return 2 * out_elements * (double)in.c;
    case VX_OP_TRANSPOSED_CONCAT: /* the same, without the other input's channels */
        return 2 * (out_elements - (double)vx_shape_elements(g->values[op->in[1]].shape)) *
               (double)in.c;
    case VX_OP_INSTANCE_NORM:
    case VX_OP_LAYER_NORM:
        return 7 * out_elements;
    case VX_OP_ACTIVATION:
    case VX_OP_ADD:
        return out_elements;
    case VX_OP_LINEAR:
        return 2 * out_elements * (double)in.c;
    case VX_OP_AVG_POOL:
        return in_elements;
    case VX_OP_MAMBA:
        return mamba_flops(&op->mamba, (double)vx_shape_tokens(in), (double)in.c);
    case VX_OP_MAMBA_LAYER:
        return layer_flops(&op->layer, (double)vx_shape_tokens(in), (double)in.c);
    case VX_OP_CONV_NORM_ACT:
        return conv + 8 * out_elements;
    case VX_OP_NORM_ACT_ADD:
        return conv + 9 * out_elements;
    }
    return 0;
}
