/* A whole Mamba layer (VX_OP_MAMBA_LAYER) in three pieces: everything before the scans in one
 * kernel (mamba_in.h), the scans with their gates (scan.h), everything behind them in one kernel
 * (mamba_out.h). Of each branch memory sees u, z, B, C, dt or delta, and the gated y, which takes
 * z's place.
 *
 * Branches share their launches, those of several parts too, so that small grids fill the device;
 * where tensors are large they follow one another, so that u and the projections exist once. Parts
 * that follow one another add up in out; those of one launch are added by one more.
 *
 * Branches are counted through all parts: branch k is branch k % branches of part k / branches.
 */
#include "base/memory.h"
#include "base/size.h"
#include "cuda/mamba_in.h"
#include "cuda/mamba_out.h"
#include "cuda/mamba_pack.h"
#include "cuda/mamba_scan.h"

/* The branches of a launch have at most so many bytes of u, unless it is but one: 128^3 tokens of
 * 64 channels have as many and fill any device. */
#define BYTES_TOGETHER ((size_t)256 << 20)

enum { BRANCHES = VX_MAMBA_PARTS * VX_MAMBA_BRANCHES };

/* From this rank on the scan is quicker with a tensor of delta than with dt. */
#define DELTA_RANK 4

/* Bytes in the step's weights. */
typedef struct branch_weights {
    size_t gamma1, beta1, conv, conv_bias, in; /* mamba_in's */
    vx_mamba_scan_weights scan;
    size_t out_proj, head, head_bias, gamma2, beta2; /* mamba_out's */
} branch_weights;

typedef struct layer_state {
    vx_mamba_in_shape in;
    vx_mamba_out_shape out;
    vx_mamba_scan scan;
    size_t columns;  /* of the projections */
    size_t dt_row;   /* of dt */
    size_t all;      /* branches of all parts */
    size_t together; /* branches of a launch: of one, or of whole parts */
    branch_weights at[BRANCHES];
    struct {
        size_t before_gamma, before_beta, after_gamma, after_beta;
    } norms[VX_MAMBA_PARTS];
    /* In the scratch: of branches that follow one another u, the projections and delta take over
     * each other's memory, of parts z too. */
    size_t u_at[BRANCHES], z_at[BRANCHES], projections_at[BRANCHES], dt_at[BRANCHES];
    size_t delta_at[BRANCHES];
    size_t terms_at; /* out of each part, where all are made by one launch */
    size_t scan_at;
} layer_state;

static const vx_mamba_branch *branch_of(const vx_cuda_step *step, size_t k) {
    const vx_mamba_layer_op *l = &step->op->layer;
    return &l->part[k / l->branches].branch[k % l->branches];
}

/* Whether there are several parts, and all share their launches. */
static bool is_one_launch(const vx_cuda_step *step) {
    const layer_state *s = step->state;
    return step->op->layer.parts > 1 && s->together == s->all;
}

static vx_mamba_in_shape in_shape(const vx_op *op, vx_shape in, vx_dtype dtype) {
    const vx_mamba *m = &op->layer.part[0].branch[0].mamba;
    return (vx_mamba_in_shape){.length = (uint32_t)(in.d * in.h * in.w),
                               .features = (uint32_t)in.c,
                               .channels = (uint32_t)m->d_inner,
                               .states = (uint32_t)m->d_state,
                               .rank = (uint32_t)m->dt_rank,
                               .delta = m->dt_rank >= DELTA_RANK && m->dt_rank <= 32 &&
                                        m->d_state % 16 == 0,
                               .dtype = dtype,
                               .eps = op->eps};
}

static vx_mamba_out_shape out_shape(const vx_op *op, vx_shape in, vx_dtype dtype) {
    return (vx_mamba_out_shape){.tokens = vx_shape_tokens(in),
                                .features = (uint32_t)in.c,
                                .channels = (uint32_t)op->layer.part[0].branch[0].mamba.d_inner,
                                .dtype = dtype,
                                .eps = op->eps};
}

bool vx_cuda_takes_mamba_layer(const vx_op *op, vx_shape in, vx_dtype dtype) {
    const vx_mamba *m = &op->layer.part[0].branch[0].mamba;
    const size_t limit = UINT16_MAX; /* above all of theirs: what the casts below may not cut */
    if (m->d_conv != 4 || vx_shape_tokens(in) > INT32_MAX || in.c > limit || m->d_inner > limit ||
        m->d_state > limit || m->dt_rank > limit)
        return false;
    const vx_mamba_in_shape first = in_shape(op, in, dtype);
    const vx_mamba_out_shape second = out_shape(op, in, dtype);
    const vx_scan_shape scan = {.states = first.states, .dtype = dtype};
    return vx_cuda_mamba_in_takes(&first) && vx_cuda_mamba_out_takes(&second) &&
           (first.delta || first.rank <= vx_cuda_scan_rank_max(&scan));
}

/* --- weights ---------------------------------------------------------------------------------- */

static bool place_branch(vx_cuda_step *step, const layer_state *s, branch_weights *at) {
    const size_t C = step->in.c, D = s->in.channels;
    size_t *end = &step->weight_bytes;
    return vx_cuda_reserve(end, C, 1, VX_F32, &at->gamma1) &&
           vx_cuda_reserve(end, C, 1, VX_F32, &at->beta1) &&
           vx_cuda_reserve(end, D, 4, VX_F32, &at->conv) &&
           vx_cuda_reserve(end, D, 1, VX_F32, &at->conv_bias) &&
           vx_cuda_reserve(end, vx_mamba_in_packed_bytes(&s->in) / 2, 1, step->dtype, &at->in) &&
           vx_cuda_mamba_scan_place(step, &s->scan, &at->scan) &&
           vx_cuda_reserve(end, C, D, step->dtype, &at->out_proj) &&
           vx_cuda_reserve(end, C, C, step->dtype, &at->head) &&
           vx_cuda_reserve(end, C, 1, VX_F32, &at->head_bias) &&
           vx_cuda_reserve(end, C, 1, VX_F32, &at->gamma2) &&
           vx_cuda_reserve(end, C, 1, VX_F32, &at->beta2);
}

static bool place_weights(vx_cuda_step *step, layer_state *s) {
    const size_t C = step->in.c;
    size_t *end = &step->weight_bytes;
    for (size_t k = 0; k < s->all; k++)
        if (!place_branch(step, s, &s->at[k])) return false;
    for (size_t p = 0; p < step->op->layer.parts; p++)
        if (!vx_cuda_reserve(end, C, 1, VX_F32, &s->norms[p].before_gamma) ||
            !vx_cuda_reserve(end, C, 1, VX_F32, &s->norms[p].before_beta) ||
            !vx_cuda_reserve(end, C, 1, VX_F32, &s->norms[p].after_gamma) ||
            !vx_cuda_reserve(end, C, 1, VX_F32, &s->norms[p].after_beta))
            return false;
    return true;
}

/* A weight as float, or zeros where it is absent. */
static void read_to(const vx_weight *w, unsigned char *host, size_t at) {
    if (w->data) vx_read_weight(w, (float *)(void *)(host + at));
}

static vx_status pack_in(const layer_state *s, const vx_mamba *m, void *to, float *conv_to,
                         vx_error *err) {
    float *in_proj = vx_cuda_read_weight(&m->in_proj), *x_proj = vx_cuda_read_weight(&m->x_proj);
    float *dt_proj = vx_cuda_read_weight(&m->dt_w), *conv = vx_cuda_read_weight(&m->conv_w);
    const bool read = in_proj && x_proj && dt_proj && conv;
    if (read) vx_mamba_in_pack(&s->in, in_proj, x_proj, dt_proj, to);
    if (read) vx_mamba_in_pack_conv(&s->in, conv, conv_to);
    vx_free(in_proj);
    vx_free(x_proj);
    vx_free(dt_proj);
    vx_free(conv);
    return read ? VX_OK : vx_cuda_no_memory(err);
}

/* A matrix with C rows. */
static vx_status pack_out(const vx_cuda_step *step, const vx_weight *w, void *to, vx_error *err) {
    float *plain = vx_cuda_read_weight(w);
    void *narrow = vx_alloc_zero(w->elements, sizeof(uint16_t));
    const bool read = plain && narrow;
    if (read) {
        vx_cuda_narrow_host(plain, w->elements, step->dtype, narrow);
        vx_cuda_pack_blocks(narrow, step->in.c, w->elements / step->in.c, to);
    }
    vx_free(plain);
    vx_free(narrow);
    return read ? VX_OK : vx_cuda_no_memory(err);
}

static vx_status pack_branch(const vx_cuda_step *step, const vx_mamba_branch *b,
                             const branch_weights *at, unsigned char *host, vx_error *err) {
    const layer_state *s = step->state;
    read_to(&b->gamma1, host, at->gamma1);
    read_to(&b->beta1, host, at->beta1);
    read_to(&b->mamba.conv_b, host, at->conv_bias);
    read_to(&b->gamma2, host, at->gamma2);
    read_to(&b->beta2, host, at->beta2);
    read_to(&b->head_bias, host, at->head_bias);
    vx_status status =
        pack_in(s, &b->mamba, host + at->in, (float *)(void *)(host + at->conv), err);
    if (status == VX_OK)
        status = vx_cuda_mamba_scan_pack(&s->scan, &b->mamba, &at->scan, host, err);
    if (status == VX_OK) status = pack_out(step, &b->mamba.out_proj, host + at->out_proj, err);
    return status == VX_OK ? pack_out(step, &b->head, host + at->head, err) : status;
}

static vx_status pack(vx_cuda_step *step, unsigned char *host, vx_error *err) {
    const layer_state *s = step->state;
    for (size_t p = 0; p < step->op->layer.parts; p++) {
        const vx_mamba_part *part = &step->op->layer.part[p];
        read_to(&part->in_gamma, host, s->norms[p].before_gamma);
        read_to(&part->in_beta, host, s->norms[p].before_beta);
        read_to(&part->out_gamma, host, s->norms[p].after_gamma);
        read_to(&part->out_beta, host, s->norms[p].after_beta);
    }
    vx_status status = VX_OK;
    for (size_t k = 0; status == VX_OK && k < s->all; k++)
        status = pack_branch(step, branch_of(step, k), &s->at[k], host, err);
    return status;
}

/* --- scratch ---------------------------------------------------------------------------------- */

static bool place_scratch(vx_cuda_step *step, layer_state *s) {
    const size_t tokens = vx_shape_tokens(step->in), D = s->in.channels;
    const size_t deltas = s->in.delta ? D : 0, branches = step->op->layer.branches;
    const size_t kept = s->together > branches ? s->together : branches; /* y is, of a part */
    size_t *end = &step->scratch_bytes;
    for (size_t k = 0; k < s->all; k++) {
        const size_t from = k % s->together;
        s->z_at[k] = s->z_at[k % kept];
        s->u_at[k] = s->u_at[from];
        s->projections_at[k] = s->projections_at[from];
        s->dt_at[k] = s->dt_at[from];
        s->delta_at[k] = s->delta_at[from];
        if (k < kept && !vx_cuda_reserve(end, tokens, D, step->dtype, &s->z_at[k])) return false;
        if (k < s->together &&
            (!vx_cuda_reserve(end, tokens, D, step->dtype, &s->u_at[k]) ||
             !vx_cuda_reserve(end, tokens, s->columns, step->dtype, &s->projections_at[k]) ||
             !vx_cuda_reserve(end, tokens, s->dt_row, step->dtype, &s->dt_at[k]) ||
             !vx_cuda_reserve(end, tokens, deltas, step->dtype, &s->delta_at[k])))
            return false;
    }
    const size_t terms = is_one_launch(step) ? step->op->layer.parts : 0;
    if (!vx_cuda_reserve(end, terms, vx_shape_elements(step->out), step->dtype, &s->terms_at))
        return false;
    s->scan_at = *end;
    return vx_add_size(*end, s->scan.scratch_bytes, end);
}

/* --- run -------------------------------------------------------------------------------------- */

/* A tensor of branch k and sequence n, of rows of `row`, in the scratch. */
static unsigned char *tensor(const vx_cuda_step *step, const vx_cuda_run *run, size_t at, size_t n,
                             size_t row) {
    const layer_state *s = step->state;
    return run->scratch + at + n * s->in.length * row * vx_dtype_size(step->dtype);
}

/* Numbers of a norm in the step's weights; NULL where there is none. */
static const float *norm_of(const vx_cuda_step *step, bool there, size_t at) {
    return there ? vx_cuda_floats(step, at) : NULL;
}

static vx_mamba_in_item in_item(const vx_cuda_step *step, const vx_cuda_run *run, size_t k,
                                size_t n) {
    const layer_state *s = step->state;
    const branch_weights *at = &s->at[k];
    const size_t part = k / step->op->layer.branches;
    const size_t C = step->in.c, D = s->in.channels, columns = s->columns;
    const unsigned char *x = run->value[step->op->in[0]];
    const bool before = step->op->layer.part[part].in_gamma.data != NULL;
    return (vx_mamba_in_item){
        .x = x + n * s->in.length * C * vx_dtype_size(step->dtype),
        .u = tensor(step, run, s->u_at[k], n, D),
        .z = tensor(step, run, s->z_at[k], n, D),
        .projections = tensor(step, run, s->projections_at[k], n, columns),
        .dt = s->in.delta ? NULL : tensor(step, run, s->dt_at[k], n, s->dt_row),
        .delta = tensor(step, run, s->delta_at[k], n, D),
        .x_row = C,
        .u_row = D,
        .z_row = D,
        .projections_row = columns,
        .dt_row = s->dt_row,
        .delta_row = D,
        .before_gamma = norm_of(step, before, s->norms[part].before_gamma),
        .before_beta = norm_of(step, before, s->norms[part].before_beta),
        .gamma = vx_cuda_floats(step, at->gamma1),
        .beta = vx_cuda_floats(step, at->beta1),
        .conv = vx_cuda_floats(step, at->conv),
        .conv_bias = vx_cuda_floats(step, at->conv_bias),
        .weights = step->weights + at->in,
        .walk = vx_cuda_mamba_walk(&branch_of(step, k)->mamba.order, step->in)};
}

static vx_scan_item scan_item(const vx_cuda_step *step, const vx_cuda_run *run, size_t k,
                              size_t n) {
    const layer_state *s = step->state;
    const size_t D = s->in.channels, N = s->in.states, size = vx_dtype_size(step->dtype);
    const unsigned char *projections = tensor(step, run, s->projections_at[k], n, s->columns);
    vx_scan_item item =
        vx_cuda_mamba_scan_item(step, &s->scan, &branch_of(step, k)->mamba, &s->at[k].scan);
    item.u = tensor(step, run, s->u_at[k], n, D);
    item.z = item.y = tensor(step, run, s->z_at[k], n, D);
    item.b = projections;
    item.c = projections + N * size;
    item.dt = tensor(step, run, s->dt_at[k], n, s->dt_row);
    item.delta = tensor(step, run, s->delta_at[k], n, D);
    item.u_row = item.z_row = item.y_row = item.delta_row = D;
    item.b_row = item.c_row = s->columns;
    item.dt_row = s->dt_row;
    return item;
}

/* Branches first .. first + together of all sequences, up to the gated y. */
static vx_status launch_branches(const vx_cuda_step *step, const vx_cuda_run *run, size_t first,
                                 vx_error *err) {
    const layer_state *s = step->state;
    const size_t all = s->together * step->in.n;
    for (size_t begin = 0; begin < all; begin += VX_SCAN_MAX_ITEMS) {
        vx_mamba_in_item in[VX_SCAN_MAX_ITEMS];
        vx_scan_item scan[VX_SCAN_MAX_ITEMS];
        size_t count = 0;
        for (; count < VX_SCAN_MAX_ITEMS && begin + count < all; count++) {
            const size_t k = first + (begin + count) % s->together;
            const size_t n = (begin + count) / s->together;
            in[count] = in_item(step, run, k, n);
            scan[count] = scan_item(step, run, k, n);
        }
        vx_status status = vx_cuda_mamba_in(&s->in, in, count, run->stream, err);
        if (status == VX_OK)
            status = vx_cuda_scan(&s->scan.shape, scan, count, run->scratch + s->scan_at,
                                  s->scan.scratch_bytes, run->stream, err);
        if (status != VX_OK) return status;
    }
    return VX_OK;
}

/* What makes part p from its branches' y; where the output goes is the caller's. */
static vx_mamba_out out_job(const vx_cuda_step *step, const vx_cuda_run *run, size_t p) {
    const layer_state *s = step->state;
    const vx_mamba_layer_op *l = &step->op->layer;
    const bool before = l->part[p].in_gamma.data != NULL;
    const bool after = l->part[p].out_gamma.data != NULL;
    vx_mamba_out job = {.x = run->value[step->op->in[0]],
                        .scale = 1.0f,
                        .before_gamma = norm_of(step, before, s->norms[p].before_gamma),
                        .before_beta = norm_of(step, before, s->norms[p].before_beta),
                        .after_gamma = norm_of(step, after, s->norms[p].after_gamma),
                        .after_beta = norm_of(step, after, s->norms[p].after_beta),
                        .branches = l->branches};
    for (size_t i = 0; i < l->branches; i++) {
        const size_t k = p * l->branches + i;
        const branch_weights *at = &s->at[k];
        job.branch[i] = (vx_mamba_out_branch){.y = run->scratch + s->z_at[k],
                                              .out_proj = step->weights + at->out_proj,
                                              .head = step->weights + at->head,
                                              .gamma = vx_cuda_floats(step, at->gamma2),
                                              .beta = vx_cuda_floats(step, at->beta2),
                                              .head_bias = vx_cuda_floats(step, at->head_bias)};
    }
    return job;
}

/* Part p into out, to the parts before it. */
static vx_status launch_part(const vx_cuda_step *step, const vx_cuda_run *run, size_t p,
                             vx_error *err) {
    const layer_state *s = step->state;
    vx_mamba_out job = out_job(step, run, p);
    job.out = run->value[step->op->out];
    if (p > 0) job.added = job.out;
    if (p + 1 == step->op->layer.parts) job.scale = step->op->scale;
    return vx_cuda_mamba_out(&s->out, &job, 1, run->stream, err);
}

/* All parts at once, then their sum. */
static vx_status launch_parts(const vx_cuda_step *step, const vx_cuda_run *run, vx_error *err) {
    const layer_state *s = step->state;
    const size_t parts = step->op->layer.parts, elements = vx_shape_elements(step->out);
    unsigned char *terms = run->scratch + s->terms_at;
    vx_mamba_out jobs[VX_MAMBA_PARTS];
    for (size_t p = 0; p < parts; p++) {
        jobs[p] = out_job(step, run, p);
        jobs[p].out = terms + p * elements * vx_dtype_size(step->dtype);
    }
    vx_status status = vx_cuda_mamba_out(&s->out, jobs, parts, run->stream, err);
    if (status != VX_OK) return status;
    return vx_cuda_sum(terms, parts, run->value[step->op->out], elements, step->dtype,
                       step->op->scale, run->stream, err);
}

static vx_status launch(const vx_cuda_step *step, const vx_cuda_run *run, vx_error *err) {
    const layer_state *s = step->state;
    const size_t branches = step->op->layer.branches;
    vx_status status = VX_OK;
    size_t part = 0; /* the next one to be made */
    for (size_t k = 0; k < s->all; k += s->together) {
        status = launch_branches(step, run, k, err);
        if (status == VX_OK && is_one_launch(step)) return launch_parts(step, run, err);
        for (; status == VX_OK && (part + 1) * branches <= k + s->together; part++)
            status = launch_part(step, run, part, err);
        if (status != VX_OK) return status;
    }
    return status;
}

/* Branches of a launch: of as many parts as the limit allows, in equal shares; or one. Tests see
 * both ways. */
static size_t choose_together(const vx_cuda_step *step, size_t D) {
    const vx_mamba_layer_op *l = &step->op->layer;
    const size_t bytes = vx_shape_tokens(step->in) * D * vx_dtype_size(step->dtype);
    if (step->device->separate) return 1;
    for (size_t parts = l->parts; parts > 0; parts--)
        if (l->parts % parts == 0 && parts * l->branches * bytes <= BYTES_TOGETHER)
            return parts * l->branches;
    return 1;
}

vx_status vx_cuda_prepare_mamba_layer(vx_cuda_step *step, vx_error *err) {
    const vx_mamba_layer_op *l = &step->op->layer;
    layer_state *s = step->state = vx_alloc_zero(1, sizeof *s);
    if (!s) return vx_cuda_no_memory(err);
    step->out_float = false;
    step->pack = pack;
    step->launch = launch;
    const vx_mamba *mixers[BRANCHES];
    s->all = l->parts * l->branches;
    for (size_t k = 0; k < s->all; k++) mixers[k] = &branch_of(step, k)->mamba;
    s->in = in_shape(step->op, step->in, step->dtype);
    s->out = out_shape(step->op, step->in, step->dtype);
    s->columns = vx_mamba_in_columns(&s->in);
    s->dt_row = vx_mamba_in_dt_columns(&s->in);
    s->together = choose_together(step, s->in.channels);
    /* With one part each token of x is read before the same token of out is written, with parts of
     * one launch all of x before out; else x is read again for the next part. */
    step->in_place = l->parts == 1 || is_one_launch(step);
    const size_t sequences = s->together * step->in.n;
    const size_t items = sequences < VX_SCAN_MAX_ITEMS ? sequences : VX_SCAN_MAX_ITEMS;
    vx_status status =
        vx_cuda_mamba_scan_prepare(step, mixers, s->all, s->in.delta, items, &s->scan, err);
    if (status != VX_OK) return status;
    return place_weights(step, s) && place_scratch(step, s) ? VX_OK : vx_cuda_overflow(err);
}
