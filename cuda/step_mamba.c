/* The Mamba mixer, one launch after the other (Gu & Dao 2023, arXiv:2312.00752; ref_mamba.c has the
 * equations). Tokens stay at their voxels: only the causal convolution and the scan know the order.
 *
 *   xz    [token][2D]   = in_proj x
 *   u     [token][D]    = SiLU(causal convolution of xz's first half)
 *   dbc   [token][row]  = x_proj u: dt, padded to 8 columns; B; C; padded to 8
 *   delta [token][D]    = dt_w dt, where the scan does not do that; bias and softplus are the
 * scan's y     [token][D]    = scan, gated with xz's second half; in u's place out   [token][C] =
 * out_proj y
 *
 * This is the way for fp32, for older devices and for mixers that are in no layer which
 * step_mamba_layer.c takes.
 */
#include "base/memory.h"
#include "base/size.h"
#include "cuda/gemm.h"
#include "cuda/mamba_scan.h"
#include "cuda/ops.h"

/* The products, in the order of their run. */
enum { IN_PROJ, X_PROJ, DT_PROJ, OUT_PROJ, PRODUCTS };

typedef struct mamba_state {
    vx_cuda_gemm gemm[PRODUCTS];
    vx_mamba_scan scan;
    vx_mamba_scan_weights scan_at;
    size_t length, dt_columns, row; /* tokens of one n; columns of dbc */
    size_t matrix_at[PRODUCTS];     /* in the step's weights */
    size_t taps_at, conv_bias_at;
    size_t xz_at, u_at, dbc_at, delta_at, scratch_at, workspace_at; /* in the scratch */
} mamba_state;

/* Whether delta is a tensor of its own. */
static bool has_delta(const mamba_state *s) { return s->scan.shape.rank == 0; }

/* --- weights ---------------------------------------------------------------------------------- */

static bool place_weights(vx_cuda_step *step, mamba_state *s) {
    const vx_mamba *m = &step->op->mamba;
    const size_t D = m->d_inner, C = step->in.c;
    size_t *end = &step->weight_bytes;
    return vx_cuda_reserve(end, 2 * D, C, step->dtype, &s->matrix_at[IN_PROJ]) &&
           vx_cuda_reserve(end, s->row, D, step->dtype, &s->matrix_at[X_PROJ]) &&
           vx_cuda_reserve(end, has_delta(s) ? D : 0, s->dt_columns, step->dtype,
                           &s->matrix_at[DT_PROJ]) &&
           vx_cuda_reserve(end, C, D, step->dtype, &s->matrix_at[OUT_PROJ]) &&
           vx_cuda_reserve(end, m->d_conv, D, VX_F32, &s->taps_at) &&
           vx_cuda_reserve(end, D, 1, VX_F32, &s->conv_bias_at) &&
           vx_cuda_mamba_scan_place(step, &s->scan, &s->scan_at);
}

/* Copies a matrix of rows x columns into wider rows at to; what lies between stays zero. */
static vx_status pack_matrix(const vx_weight *w, size_t rows, size_t columns, size_t wide,
                             vx_dtype dtype, unsigned char *to, vx_error *err) {
    float *plain = vx_cuda_read_weight(w);
    if (!plain) return vx_cuda_no_memory(err);
    const size_t size = vx_dtype_size(dtype);
    for (size_t r = 0; r < rows; r++)
        vx_cuda_narrow_host(plain + r * columns, columns, dtype, to + r * wide * size);
    vx_free(plain);
    return VX_OK;
}

/* x_proj's rows dt, B, C to rows 0, dt_columns, dt_columns + N. */
static vx_status pack_x_proj(vx_cuda_step *step, unsigned char *to, vx_error *err) {
    const mamba_state *s = step->state;
    const vx_mamba *m = &step->op->mamba;
    const size_t D = m->d_inner, R = m->dt_rank, size = vx_dtype_size(step->dtype);
    float *plain = vx_cuda_read_weight(&m->x_proj);
    if (!plain) return vx_cuda_no_memory(err);
    vx_cuda_narrow_host(plain, R * D, step->dtype, to);
    vx_cuda_narrow_host(plain + R * D, 2 * m->d_state * D, step->dtype,
                        to + s->dt_columns * D * size);
    vx_free(plain);
    return VX_OK;
}

static vx_status pack_conv(const vx_mamba *m, const mamba_state *s, unsigned char *host,
                           vx_error *err) {
    float *plain = vx_cuda_read_weight(&m->conv_w);
    if (!plain) return vx_cuda_no_memory(err);
    float *taps = (float *)(void *)(host + s->taps_at);
    for (size_t i = 0; i < m->d_inner; i++)
        for (size_t k = 0; k < m->d_conv; k++) taps[k * m->d_inner + i] = plain[i * m->d_conv + k];
    vx_free(plain);
    vx_read_weight(&m->conv_b, (float *)(void *)(host + s->conv_bias_at));
    return VX_OK;
}

static vx_status pack(vx_cuda_step *step, unsigned char *host, vx_error *err) {
    const mamba_state *s = step->state;
    const vx_mamba *m = &step->op->mamba;
    const size_t D = m->d_inner, C = step->in.c;
    vx_status status =
        pack_matrix(&m->in_proj, 2 * D, C, C, step->dtype, host + s->matrix_at[IN_PROJ], err);
    if (status == VX_OK) status = pack_x_proj(step, host + s->matrix_at[X_PROJ], err);
    if (status == VX_OK && has_delta(s))
        status = pack_matrix(&m->dt_w, D, m->dt_rank, s->dt_columns, step->dtype,
                             host + s->matrix_at[DT_PROJ], err);
    if (status == VX_OK)
        status =
            pack_matrix(&m->out_proj, C, D, D, step->dtype, host + s->matrix_at[OUT_PROJ], err);
    if (status == VX_OK) status = pack_conv(m, s, host, err);
    return status == VX_OK ? vx_cuda_mamba_scan_pack(&s->scan, m, &s->scan_at, host, err) : status;
}

/* --- scratch and products --------------------------------------------------------------------- */

static bool place_scratch(vx_cuda_step *step, mamba_state *s) {
    const size_t tokens = vx_shape_tokens(step->in), D = step->op->mamba.d_inner;
    size_t *end = &step->scratch_bytes, workspace = 0;
    for (int i = 0; i < PRODUCTS; i++)
        if (s->gemm[i].workspace_bytes > workspace) workspace = s->gemm[i].workspace_bytes;
    if (!vx_cuda_reserve(end, tokens, 2 * D, step->dtype, &s->xz_at) ||
        !vx_cuda_reserve(end, tokens, D, step->dtype, &s->u_at) ||
        !vx_cuda_reserve(end, tokens, s->row, step->dtype, &s->dbc_at) ||
        !vx_cuda_reserve(end, has_delta(s) ? tokens : 0, D, step->dtype, &s->delta_at))
        return false;
    s->scratch_at = *end; /* its bytes are a multiple of VX_CUDA_ALIGN */
    if (!vx_add_size(*end, s->scan.scratch_bytes, end)) return false;
    s->workspace_at = *end;
    return vx_add_size(*end, workspace, end);
}

static vx_status make_products(vx_cuda_step *step, mamba_state *s, vx_error *err) {
    const vx_mamba *m = &step->op->mamba;
    const size_t D = m->d_inner, C = step->in.c, rows = vx_shape_tokens(step->in);
    const vx_dtype t = step->dtype;
    const vx_cuda_gemm_shape shapes[PRODUCTS] = {
        [IN_PROJ] = {rows, 2 * D, C, C, 2 * D, t, t, false, false},
        [X_PROJ] = {rows, s->row, D, D, s->row, t, t, false, false},
        [DT_PROJ] = {rows, D, s->dt_columns, s->row, D, t, t, false, false},
        [OUT_PROJ] = {rows, C, D, D, C, t, t, false, false},
    };
    for (int i = 0; i < PRODUCTS; i++) {
        if (i == DT_PROJ && !has_delta(s)) continue;
        vx_status status = vx_cuda_gemm_create(step->device, &shapes[i], &s->gemm[i], err);
        if (status != VX_OK) return status;
    }
    return VX_OK;
}

/* --- run -------------------------------------------------------------------------------------- */

static vx_status product(const vx_cuda_step *step, const vx_cuda_run *run, int which, const void *x,
                         void *y, vx_error *err) {
    const mamba_state *s = step->state;
    return vx_cuda_gemm_launch(step->device, &s->gemm[which], x,
                               step->weights + s->matrix_at[which], NULL, NULL, y,
                               run->scratch + s->workspace_at, run->stream, err);
}

/* The scan of sequence n. */
static vx_scan_item item_of(const vx_cuda_step *step, const vx_cuda_run *run, size_t n) {
    const mamba_state *s = step->state;
    const vx_mamba *m = &step->op->mamba;
    const size_t D = m->d_inner, size = vx_dtype_size(step->dtype), token = n * s->length;
    const unsigned char *dbc = run->scratch + s->dbc_at + token * s->row * size;
    unsigned char *u = run->scratch + s->u_at + token * D * size;
    vx_scan_item item = vx_cuda_mamba_scan_item(step, &s->scan, m, &s->scan_at);
    item.u = item.y = u;
    item.z = run->scratch + s->xz_at + (token * 2 + 1) * D * size;
    item.b = dbc + s->dt_columns * size;
    item.c = dbc + (s->dt_columns + m->d_state) * size;
    if (has_delta(s))
        item.delta = run->scratch + s->delta_at + token * D * size;
    else
        item.dt = dbc;
    item.u_row = item.y_row = item.delta_row = D;
    item.z_row = 2 * D;
    item.b_row = item.c_row = item.dt_row = s->row;
    return item;
}

/* All n sequences, VX_SCAN_MAX_ITEMS a launch. */
static vx_status scan(const vx_cuda_step *step, const vx_cuda_run *run, vx_error *err) {
    const mamba_state *s = step->state;
    for (size_t first = 0; first < step->in.n; first += VX_SCAN_MAX_ITEMS) {
        vx_scan_item items[VX_SCAN_MAX_ITEMS];
        size_t count = 0;
        for (; count < VX_SCAN_MAX_ITEMS && first + count < step->in.n; count++)
            items[count] = item_of(step, run, first + count);
        vx_status status = vx_cuda_scan(&s->scan.shape, items, count, run->scratch + s->scratch_at,
                                        s->scan.scratch_bytes, run->stream, err);
        if (status != VX_OK) return status;
    }
    return VX_OK;
}

static vx_status launch(const vx_cuda_step *step, const vx_cuda_run *run, vx_error *err) {
    const mamba_state *s = step->state;
    const vx_op *op = step->op;
    const vx_cuda_causal_conv conv = {.n = step->in.n,
                                      .channels = op->mamba.d_inner,
                                      .x_row = 2 * op->mamba.d_inner,
                                      .taps = (unsigned)op->mamba.d_conv,
                                      .walk = vx_cuda_mamba_walk(&op->mamba.order, step->in),
                                      .dtype = step->dtype};
    unsigned char *xz = run->scratch + s->xz_at, *u = run->scratch + s->u_at;
    unsigned char *dbc = run->scratch + s->dbc_at;
    vx_status status = product(step, run, IN_PROJ, run->value[op->in[0]], xz, err);
    if (status == VX_OK)
        status =
            vx_cuda_causal_conv_silu(&conv, xz, vx_cuda_floats(step, s->taps_at),
                                     vx_cuda_floats(step, s->conv_bias_at), u, run->stream, err);
    if (status == VX_OK) status = product(step, run, X_PROJ, u, dbc, err);
    if (status == VX_OK && has_delta(s))
        status = product(step, run, DT_PROJ, dbc, run->scratch + s->delta_at, err);
    if (status == VX_OK) status = scan(step, run, err);
    if (status == VX_OK) status = product(step, run, OUT_PROJ, u, run->value[op->out], err);
    return status;
}

static void destroy(vx_cuda_step *step) {
    mamba_state *s = step->state;
    for (int i = 0; s && i < PRODUCTS; i++) vx_cuda_gemm_destroy(&s->gemm[i]);
}

vx_status vx_cuda_prepare_mamba(vx_cuda_step *step, vx_error *err) {
    const vx_mamba *m = &step->op->mamba;
    mamba_state *s = step->state = vx_alloc_zero(1, sizeof *s);
    if (!s) return vx_cuda_no_memory(err);
    step->out_float = false;
    step->in_place = true; /* x is read by the first launch, out written by the last */
    step->pack = pack;
    step->launch = launch;
    step->destroy = destroy;
    s->length = step->in.d * step->in.h * step->in.w;
    if (m->dt_rank > INT32_MAX || m->d_conv > 1024)
        return vx_fail(err, VX_ERR_RESOURCE, "a Mamba mixer of rank %zu with a kernel of %zu",
                       m->dt_rank, m->d_conv);
    const size_t items = step->in.n < VX_SCAN_MAX_ITEMS ? step->in.n : VX_SCAN_MAX_ITEMS;
    vx_status status = vx_cuda_mamba_scan_prepare(step, &m, 1, false, items, &s->scan, err);
    if (status != VX_OK) return status;
    /* Rows of 16 bytes in every type: what the matrix units load best. */
    s->dt_columns = (m->dt_rank + 7) / 8 * 8;
    s->row = (s->dt_columns + 2 * m->d_state + 7) / 8 * 8;
    status = make_products(step, s, err);
    if (status != VX_OK) return status;
    return place_weights(step, s) && place_scratch(step, s) ? VX_OK : vx_cuda_overflow(err);
}
