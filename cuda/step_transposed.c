/* Transposed convolutions with kernel = stride, with the skip behind them where the graph joins
 * one: by a kernel of our own (transposed.cu); where it does not fit, one matrix product gives
 * every input voxel its kd * kh * kw output voxels, which are then put in their places. */
#include <string.h>

#include "base/memory.h"
#include "base/size.h"
#include "cuda/gemm.h"
#include "cuda/ops.h"

/* With fewer input voxels cuBLASLt's products are quicker (measured: 512 and 64). */
enum { DIRECT_VOXELS = 4096 };

typedef struct transposed_state {
    vx_cuda_transposed shape;
    bool direct; /* by transposed.cu */
    vx_cuda_gemm gemm;
    size_t taps, channels; /* that the product makes of out's */
    size_t weight_at, bias_at;
    size_t product_at, workspace_at; /* in the scratch */
} transposed_state;

static vx_status pack_direct(const vx_cuda_step *step, unsigned char *host, vx_error *err) {
    const transposed_state *s = step->state;
    const vx_op *op = step->op;
    const size_t n = op->weight.elements;
    float *plain = vx_cuda_read_weight(&op->weight), *turned = vx_alloc(n * sizeof *turned);
    const vx_status status = plain && turned ? VX_OK : vx_cuda_no_memory(err);
    if (status == VX_OK) {
        vx_cuda_transposed_pack(&s->shape, plain, turned);
        vx_cuda_narrow_host(turned, n, step->dtype, host + s->weight_at);
        if (op->bias.data) vx_read_weight(&op->bias, (float *)(void *)(host + s->bias_at));
    }
    vx_free(plain);
    vx_free(turned);
    return status;
}

/* PyTorch's (Cin, Cout, taps) to [taps][Cout][Cin]; the bias once a tap. */
static vx_status pack(vx_cuda_step *step, unsigned char *host, vx_error *err) {
    const transposed_state *s = step->state;
    if (s->direct) return pack_direct(step, host, err);
    const vx_op *op = step->op;
    const size_t c_in = step->in.c, c_out = s->channels, taps = s->taps;
    const size_t columns = taps * c_out, n = op->weight.elements;
    float *plain = vx_cuda_read_weight(&op->weight);
    float *turned = vx_alloc((n > columns ? n : columns) * sizeof *turned);
    float *bias = op->bias.data ? vx_cuda_read_weight(&op->bias) : NULL;
    vx_status status = VX_OK;
    if (plain && turned && (bias || !op->bias.data)) {
        for (size_t t = 0; t < taps; t++)
            for (size_t o = 0; o < c_out; o++)
                for (size_t i = 0; i < c_in; i++)
                    turned[(t * c_out + o) * c_in + i] = plain[(i * c_out + o) * taps + t];
        vx_cuda_narrow_host(turned, n, step->dtype, host + s->weight_at);
        for (size_t k = 0; bias && k < columns; k++) turned[k] = bias[k % c_out];
        if (bias) vx_cuda_narrow_host(turned, columns, step->dtype, host + s->bias_at);
    } else {
        status = vx_cuda_no_memory(err);
    }
    vx_free(plain);
    vx_free(turned);
    vx_free(bias);
    return status;
}

static vx_status launch(const vx_cuda_step *step, const vx_cuda_run *run, vx_error *err) {
    const transposed_state *s = step->state;
    const vx_op *op = step->op;
    const void *bias = op->bias.data ? step->weights + s->bias_at : NULL;
    const void *skip = op->in[1] >= 0 ? run->value[op->in[1]] : NULL;
    if (s->direct)
        return vx_cuda_transposed_launch(&s->shape, run->value[op->in[0]],
                                         step->weights + s->weight_at, bias, skip,
                                         run->value[op->out], run->stream, err);
    void *product = run->scratch + s->product_at;
    vx_status status = vx_cuda_gemm_launch(step->device, &s->gemm, run->value[op->in[0]],
                                           step->weights + s->weight_at, bias, NULL, product,
                                           run->scratch + s->workspace_at, run->stream, err);
    if (status != VX_OK) return status;
    return vx_cuda_scatter(product, op->stride, s->channels, skip, run->value[op->out], step->out,
                           step->dtype, run->stream, err);
}

static void destroy(vx_cuda_step *step) {
    transposed_state *s = step->state;
    if (s) vx_cuda_gemm_destroy(&s->gemm);
}

vx_status vx_cuda_prepare_transposed(vx_cuda_step *step, vx_error *err) {
    const vx_op *op = step->op;
    const size_t rows = vx_shape_tokens(step->in);
    transposed_state *s = step->state = vx_alloc_zero(1, sizeof *s);
    if (!s) return vx_cuda_no_memory(err);
    step->out_float = false;
    step->pack = pack;
    step->launch = launch;
    step->destroy = destroy;
    s->taps = op->stride[0] * op->stride[1] * op->stride[2];
    s->channels = step->out.c - step->in2.c; /* in2: what is concatenated, or none */
    s->shape = (vx_cuda_transposed){
        .in = step->in, .c_out = s->channels, .c_skip = step->in2.c, .dtype = step->dtype};
    memcpy(s->shape.stride, op->stride, sizeof s->shape.stride);
    s->direct = rows >= DIRECT_VOXELS && vx_cuda_transposed_fits(&s->shape);
    const size_t columns = s->taps * s->channels; /* a row of the output: checked by the graph */
    const size_t biases = !op->bias.data ? 0 : s->direct ? s->channels : columns;
    if (!vx_cuda_reserve(&step->weight_bytes, op->weight.elements, 1, step->dtype, &s->weight_at) ||
        !vx_cuda_reserve(&step->weight_bytes, biases, 1, s->direct ? VX_F32 : step->dtype,
                         &s->bias_at))
        return vx_cuda_overflow(err);
    if (s->direct) return VX_OK;
    if (!vx_cuda_reserve(&step->scratch_bytes, rows, columns, step->dtype, &s->product_at))
        return vx_cuda_overflow(err);
    const vx_cuda_gemm_shape shape = {.rows = rows,
                                      .columns = columns,
                                      .depth = step->in.c,
                                      .x_row = step->in.c,
                                      .y_row = columns,
                                      .type = step->dtype,
                                      .out_type = step->dtype,
                                      .bias = op->bias.data != NULL};
    vx_status status = vx_cuda_gemm_create(step->device, &shape, &s->gemm, err);
    if (status != VX_OK) return status;
    s->workspace_at = step->scratch_bytes;
    return vx_add_size(step->scratch_bytes, s->gemm.workspace_bytes, &step->scratch_bytes)
               ? VX_OK
               : vx_cuda_overflow(err);
}
