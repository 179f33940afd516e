/* The Mamba mixer's cut, memory and packed weights. */
#include <math.h>
#include <string.h>

#include "backend/cpu/mamba.h"
#include "base/size.h"

/* A wave's arrays should stay in the last-level cache, next to the other things there. */
enum { WAVE_BYTES = 4 << 20, WAVE_BLOCKS_MIN = 4 };

/* Scan tasks that a wave should have at least, and states that a task is worth (what the kernels
 * hold in registers). Where channel groups are few, the states are dealt out too. */
enum { SCAN_TASKS = 16, PART_STATES = 4 };

/* --- scan order ------------------------------------------------------------------------------- */

vx_walk vx_walk_of(const vx_scan_order *order, vx_shape shape) {
    const size_t dims[3] = {shape.d, shape.h, shape.w};
    const ptrdiff_t strides[3] = {(ptrdiff_t)(shape.h * shape.w), (ptrdiff_t)shape.w, 1};
    vx_walk walk = {.base = 0};
    for (int i = 0; i < 3; i++) {
        walk.dims[i] = dims[order->axis[i]];
        walk.stride[i] = strides[order->axis[i]];
        if (!order->reverse) continue;
        walk.base += (ptrdiff_t)(walk.dims[i] - 1) * walk.stride[i];
        walk.stride[i] = -walk.stride[i];
    }
    return walk;
}

void vx_walk_rows(const vx_walk *walk, size_t t, size_t count, const void *x, size_t token_bytes,
                  const void **rows) {
    size_t fast = t % walk->dims[2], middle = t / walk->dims[2] % walk->dims[1];
    size_t slow = t / walk->dims[2] / walk->dims[1];
    for (size_t i = 0; i < count; i++) {
        const ptrdiff_t token = walk->base + (ptrdiff_t)slow * walk->stride[0] +
                                (ptrdiff_t)middle * walk->stride[1] +
                                (ptrdiff_t)fast * walk->stride[2];
        rows[i] = (const unsigned char *)x + (size_t)token * token_bytes;
        if (++fast < walk->dims[2]) continue;
        fast = 0;
        if (++middle < walk->dims[1]) continue;
        middle = 0;
        slow++;
    }
}

/* --- offsets ---------------------------------------------------------------------------------- */

/* Reserves the product of three sizes behind *end, rounded up to unit; *at is where it starts. */
static bool reserve(size_t *end, size_t a, size_t b, size_t c, size_t unit, size_t *at) {
    const size_t dims[] = {a, b, c};
    size_t size;
    *at = *end;
    return vx_product(dims, 3, &size) && vx_add_size(*end, size, end) &&
           vx_align_size(*end, unit, end);
}

enum { FLOATS = VX_ALIGN / sizeof(float) }; /* of one cache line */

static bool reserve_matrix(const vx_cpu_step *step, size_t *end, size_t columns, size_t depth,
                           size_t *at) {
    size_t floats;
    return vx_gemm_packed(step->kernels, columns, depth, 1, &floats) &&
           reserve(end, floats, 1, 1, FLOATS, at);
}

static bool plan_weights(const vx_cpu_step *step, const vx_mamba_step *s, vx_mamba_weights *at) {
    const vx_mamba *m = &step->op->mamba;
    const size_t c = step->in.c;
    size_t *end = &at->floats;
    return reserve_matrix(step, end, s->padded, c, &at->in_u) &&
           reserve_matrix(step, end, s->padded, c, &at->in_z) &&
           reserve(end, m->d_conv, s->padded, 1, FLOATS, &at->conv) &&
           reserve(end, s->padded, 1, 1, FLOATS, &at->conv_b) &&
           reserve_matrix(step, end, s->row, m->d_inner, &at->x_proj) &&
           reserve_matrix(step, end, s->padded, m->dt_rank, &at->dt) &&
           reserve(end, s->padded, 1, 1, FLOATS, &at->dt_b) &&
           reserve(end, s->padded, m->d_state, 1, FLOATS, &at->a) &&
           reserve(end, s->padded, 1, 1, FLOATS, &at->skip) &&
           reserve_matrix(step, end, c, m->d_inner, &at->out);
}

static bool plan_wave(const vx_mamba *m, size_t c, const vx_mamba_step *s, vx_mamba_wave *w) {
    const size_t tokens = s->wave_tokens;
    size_t *end = &w->floats;
    return reserve(end, tokens, s->padded, 1, FLOATS, &w->z) &&
           reserve(end, tokens, s->padded, 1, FLOATS, &w->delta) &&
           reserve(end, tokens, s->padded, 1, FLOATS, &w->du) &&
           reserve(end, tokens, s->padded, s->parts, FLOATS, &w->y) &&
           reserve(end, tokens, s->row, 1, FLOATS, &w->dbc) &&
           reserve(end, s->padded, m->d_state, 1, FLOATS, &w->state) &&
           reserve(end, m->d_conv - 1, c, 1, FLOATS, &w->halo);
}

static bool plan_local(const vx_mamba *m, const vx_mamba_step *s, vx_mamba_local *l) {
    const size_t rows = VX_MAMBA_BLOCK + m->d_conv - 1;
    size_t *end = &l->bytes;
    return reserve(end, rows, sizeof(void *), 1, VX_ALIGN, &l->x_rows) &&
           reserve(end, rows, sizeof(void *), 1, VX_ALIGN, &l->y_rows) &&
           reserve(end, rows, s->padded, sizeof(float), VX_ALIGN, &l->raw) &&
           reserve(end, VX_MAMBA_BLOCK, s->padded, sizeof(float), VX_ALIGN, &l->u) &&
           reserve(end, VX_MAMBA_BLOCK, m->dt_rank, sizeof(float), VX_ALIGN, &l->dt);
}

/* Parts of the states and length of the waves, from the shapes alone. False on overflow. */
static bool cut(const vx_cpu_step *step, vx_mamba_step *s) {
    const vx_mamba *m = &step->op->mamba;
    size_t token_bytes, rows;
    if (!vx_align_size(m->d_inner, VX_SCAN_GROUP, &s->padded)) return false;
    s->groups = s->padded / VX_SCAN_GROUP;
    const size_t wanted = (SCAN_TASKS + s->groups - 1) / s->groups;
    if (!vx_align_size((m->d_state + wanted - 1) / wanted, PART_STATES, &s->part_states))
        return false;
    s->parts = (m->d_state + s->part_states - 1) / s->part_states;
    if (!vx_mul_size(s->padded, (3 + s->parts) * sizeof(float), &token_bytes) ||
        !vx_mul_size(m->d_state, 2, &s->row) || !vx_add_size(s->row, m->dt_rank, &s->row) ||
        !vx_mul_size(s->row, sizeof(float), &rows) ||
        !vx_add_size(token_bytes, rows, &token_bytes) ||
        !vx_add_size(m->d_conv, VX_MAMBA_BLOCK, &rows))
        return false;
    size_t blocks = WAVE_BYTES / token_bytes / VX_MAMBA_BLOCK;
    if (blocks < WAVE_BLOCKS_MIN) blocks = WAVE_BLOCKS_MIN;
    s->wave_tokens = blocks * VX_MAMBA_BLOCK;
    if (s->wave_tokens > s->tokens) s->wave_tokens = s->tokens;
    return true;
}

bool vx_mamba_plan(const vx_cpu_step *step, vx_mamba_step *out) {
    const vx_mamba *m = &step->op->mamba;
    *out = (vx_mamba_step){.walk = vx_walk_of(&m->order, step->in),
                           .tokens = step->in.d * step->in.h * step->in.w};
    return cut(step, out) && plan_weights(step, out, &out->at) &&
           plan_wave(m, step->in.c, out, &out->wave) && plan_local(m, out, &out->local);
}

/* --- packing ---------------------------------------------------------------------------------- */

/* A matrix of `columns` rows of `depth` (PyTorch's Linear) whose packed form has `padded` columns:
 * the missing ones are zero. */
static void pack_matrix(const vx_cpu_step *step, const float *w, size_t columns, size_t depth,
                        size_t padded, float *zeroed, float *out) {
    memcpy(zeroed, w, columns * depth * sizeof *w);
    memset(zeroed + columns * depth, 0, (padded - columns) * depth * sizeof *w);
    vx_pack_gemm(step->kernels, zeroed, padded, depth, 1, depth, 1, 0, out);
}

/* The base of the logarithm changes to 2, as the kernels want it. Kept finite, also when multiplied
 * by the longest time step (VX_TIME_STEP_MAX); but a NaN stays one, or a broken model would give a
 * mask. */
static float decay_of(float a_log) {
    const double rate = -exp((double)a_log) * 1.44269504088896340736;
    return isnan(rate) ? NAN : (float)fmax(rate, -1e18);
}

/* [group][N][VX_SCAN_GROUP]. */
static void pack_decay(const vx_mamba *m, const float *a_log, float *out) {
    for (size_t i = 0; i < m->d_inner; i++)
        for (size_t n = 0; n < m->d_state; n++)
            out[(i / VX_SCAN_GROUP * m->d_state + n) * VX_SCAN_GROUP + i % VX_SCAN_GROUP] =
                decay_of(a_log[i * m->d_state + n]);
}

static size_t most(size_t a, size_t b) { return a > b ? a : b; }

vx_status vx_mamba_pack(vx_cpu_step *step, vx_error *err) {
    const vx_mamba_step *s = step->state;
    const vx_mamba *m = &step->op->mamba;
    const size_t c = step->in.c, D = m->d_inner, R = m->dt_rank;
    float *w = step->weights;
    /* Every stored weight and every zero-padded matrix is at most this large; the padded sizes
     * were checked by plan_weights. */
    size_t room = most(2 * s->padded * most(c, most(R, m->d_conv)), m->x_proj.elements);
    room = most(room, most(m->out_proj.elements, m->a_log.elements));
    float *plain = vx_alloc(room * sizeof *plain), *zeroed = vx_alloc(room * sizeof *zeroed);
    if (!plain || !zeroed) {
        vx_free(plain);
        vx_free(zeroed);
        return vx_fail(err, VX_ERR_RESOURCE, "out of memory");
    }
    memset(w, 0, s->at.floats * sizeof *w); /* padding channels do nothing */
    vx_read_weight(&m->in_proj, plain);
    pack_matrix(step, plain, D, c, s->padded, zeroed, w + s->at.in_u);
    pack_matrix(step, plain + D * c, D, c, s->padded, zeroed, w + s->at.in_z);
    vx_read_weight(&m->conv_w, plain);
    for (size_t i = 0; i < D; i++)
        for (size_t k = 0; k < m->d_conv; k++)
            w[s->at.conv + k * s->padded + i] = plain[i * m->d_conv + k];
    vx_read_weight(&m->conv_b, w + s->at.conv_b);
    vx_read_weight(&m->x_proj, plain);
    vx_pack_gemm(step->kernels, plain, s->row, D, 1, D, 1, 0, w + s->at.x_proj);
    vx_read_weight(&m->dt_w, plain);
    pack_matrix(step, plain, D, R, s->padded, zeroed, w + s->at.dt);
    vx_read_weight(&m->dt_b, w + s->at.dt_b);
    vx_read_weight(&m->a_log, plain);
    pack_decay(m, plain, w + s->at.a);
    vx_read_weight(&m->d, w + s->at.skip);
    vx_read_weight(&m->out_proj, plain);
    vx_pack_gemm(step->kernels, plain, c, D, 1, D, 1, 0, w + s->at.out);
    vx_free(plain);
    vx_free(zeroed);
    return VX_OK;
}
