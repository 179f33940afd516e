/* Steps that call the scalar reference (vx_compile_options.reference). Single-threaded. */
#include <string.h>

#include "backend/cpu/cpu.h"
#include "backend/cpu/ref.h"
#include "base/size.h"

/* The op's weights in the order in which they are unpacked. */
enum { WEIGHT_MAX = 9 };

static size_t list_weights(const vx_op *op, const vx_weight *list[WEIGHT_MAX]) {
    const vx_mamba *m = &op->mamba;
    if (op->kind == VX_OP_MAMBA) {
        const vx_weight *all[] = {&m->in_proj, &m->conv_w, &m->conv_b, &m->x_proj,  &m->dt_w,
                                  &m->dt_b,    &m->a_log,  &m->d,      &m->out_proj};
        memcpy(list, all, sizeof all);
        return 9;
    }
    const vx_weight *all[] = {&op->weight, &op->bias, &op->gamma, &op->beta};
    memcpy(list, all, sizeof all);
    return 4;
}

/* Where each weight landed; NULL for absent ones. */
static void find_weights(const vx_cpu_step *step, float *at[WEIGHT_MAX]) {
    const vx_weight *list[WEIGHT_MAX];
    const size_t count = list_weights(step->op, list);
    float *next = step->weights;
    for (size_t i = 0; i < count; i++) {
        at[i] = list[i]->data ? next : NULL;
        if (list[i]->data) next += list[i]->elements;
    }
}

static vx_status pack(vx_cpu_step *step, vx_error *err) {
    const vx_weight *list[WEIGHT_MAX];
    float *at[WEIGHT_MAX];
    const size_t count = list_weights(step->op, list);
    (void)err;
    find_weights(step, at);
    for (size_t i = 0; i < count; i++)
        if (at[i]) vx_read_weight(list[i], at[i]);
    return VX_OK;
}

/* conv -> instance norm (-> + other) -> activation, in y. */
static void run_fused(const vx_cpu_step *step, float *const w[WEIGHT_MAX], const float *x,
                      const float *other, float *y) {
    const vx_op *op = step->op;
    const size_t elements = vx_shape_elements(step->out);
    vx_ref_conv(x, step->in, w[0], w[1], op->kernel, op->stride, op->pad, y, step->out);
    vx_ref_instance_norm(y, step->out, w[2], w[3], op->eps, y);
    if (other) vx_ref_add(y, other, elements, 1.0f, y);
    vx_ref_activation(y, elements, op->act, op->slope, y);
}

/* The transposed convolution at the end of y, then, from the first token on, every token's two
 * halves to their place: what is written never reaches what is still to be read. */
static void run_transposed_concat(const vx_cpu_step *step, float *const w[WEIGHT_MAX],
                                  const float *x, const float *other, float *y) {
    const size_t tokens = vx_shape_tokens(step->out), c = step->out.c, c_other = step->in2.c;
    const size_t c_up = c - c_other;
    float *up = y + tokens * c_other;
    vx_shape shape = step->out;
    shape.c = c_up;
    vx_ref_transposed_conv(x, step->in, w[0], w[1], step->op->stride, up, shape);
    for (size_t t = 0; t < tokens; t++) {
        memmove(y + t * c, up + t * c_up, c_up * sizeof *y);
        memcpy(y + t * c + c_up, other + t * c_other, c_other * sizeof *y);
    }
}

static void run_mamba(const vx_cpu_step *step, float *const w[WEIGHT_MAX], const float *x,
                      void *scratch, float *y) {
    const vx_ref_mamba_weights weights = {.in_proj = w[0],
                                          .conv_w = w[1],
                                          .conv_b = w[2],
                                          .x_proj = w[3],
                                          .dt_w = w[4],
                                          .dt_b = w[5],
                                          .a_log = w[6],
                                          .d = w[7],
                                          .out_proj = w[8]};
    vx_ref_mamba(x, step->in, &step->op->mamba, &weights, scratch, y);
}

static vx_status run(const vx_cpu_step *step, const vx_cpu_run *run, vx_error *err) {
    const vx_op *op = step->op;
    const float *x = run->value[op->in[0]];
    const float *other = op->in[1] >= 0 ? run->value[op->in[1]] : NULL;
    float *y = run->value[op->out], *w[WEIGHT_MAX];
    const size_t tokens = vx_shape_tokens(step->out), elements = vx_shape_elements(step->out);
    find_weights(step, w);
    switch (op->kind) {
    case VX_OP_INPUT:
        break;
    case VX_OP_CONV:
        vx_ref_conv(x, step->in, w[0], w[1], op->kernel, op->stride, op->pad, y, step->out);
        break;
    case VX_OP_TRANSPOSED_CONV:
        vx_ref_transposed_conv(x, step->in, w[0], w[1], op->stride, y, step->out);
        break;
    case VX_OP_INSTANCE_NORM:
        vx_ref_instance_norm(x, step->in, w[2], w[3], op->eps, y);
        break;
    case VX_OP_LAYER_NORM:
        vx_ref_layer_norm(x, tokens, step->in.c, w[2], w[3], op->eps, y);
        break;
    case VX_OP_ACTIVATION:
        vx_ref_activation(x, elements, op->act, op->slope, y);
        break;
    case VX_OP_LINEAR:
        vx_ref_linear(x, tokens, step->in.c, step->out.c, w[0], w[1], y);
        break;
    case VX_OP_AVG_POOL:
        vx_ref_avg_pool(x, step->in, op->stride, y, step->out);
        break;
    case VX_OP_UPSAMPLE_NEAREST:
        vx_ref_upsample_nearest(x, step->in, op->stride, y, step->out);
        break;
    case VX_OP_ADD:
        vx_ref_add(x, other, elements, op->scale, y);
        break;
    case VX_OP_CONCAT:
        vx_ref_concat(x, step->in.c, other, step->in2.c, tokens, y);
        break;
    case VX_OP_MAMBA:
        run_mamba(step, w, x, run->scratch, y);
        break;
    case VX_OP_TRANSPOSED_CONCAT:
        run_transposed_concat(step, w, x, other, y);
        break;
    case VX_OP_CONV_NORM_ACT:
        run_fused(step, w, x, NULL, y);
        break;
    case VX_OP_NORM_ACT_ADD:
        run_fused(step, w, x, other, y);
        break;
    default:
        return vx_fail(err, VX_ERR_MODEL, "this build does not know op %d", (int)op->kind);
    }
    return VX_OK;
}

vx_status vx_cpu_prepare_ref(vx_cpu_step *step, vx_error *err) {
    const vx_weight *list[WEIGHT_MAX];
    const size_t count = list_weights(step->op, list);
    size_t elements = 0;
    for (size_t i = 0; i < count; i++)
        if (list[i]->data && !vx_add_size(elements, list[i]->elements, &elements))
            return vx_cpu_overflow(err);
    if (!vx_mul_size(elements, sizeof(float), &step->weight_bytes)) return vx_cpu_overflow(err);
    if (step->op->kind == VX_OP_MAMBA &&
        !vx_ref_mamba_scratch(&step->op->mamba, &step->scratch_bytes))
        return vx_cpu_overflow(err);
    step->pack = elements ? pack : NULL;
    step->run = run;
    return VX_OK;
}
