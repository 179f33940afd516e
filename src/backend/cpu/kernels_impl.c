/* The inner loops. Compiled once for each instruction set and storage type with VX_KERNELS (the
 * table's name), VX_KERNELS_ISA, VX_KERNELS_TEXT and, for bfloat16, VX_STORED_BF16 set. */
#include <math.h>

#include "backend/cpu/kernels.h"
#include "backend/cpu/kernels_stored.h"
#include "backend/cpu/kernels_winograd.h"

#if defined(__SSE__)
#include <xmmintrin.h>
/* Subnormal numbers count as zero: a decaying state would otherwise end in them and be slow. */
VX_INLINE unsigned flush_subnormals(void) {
    const unsigned saved = _mm_getcsr();
    _mm_setcsr(saved | 0x8040u); /* FTZ, DAZ */
    return saved;
}
VX_INLINE void restore_subnormals(unsigned saved) { _mm_setcsr(saved); }
#else
VX_INLINE unsigned flush_subnormals(void) { return 0; }
VX_INLINE void restore_subnormals(unsigned saved) { (void)saved; }
#endif

/* --- matrix product --------------------------------------------------------------------------- */

/* Rows that one tile holds in registers, beside two vectors of w and one broadcast. */
#if VX_LANES == 16
enum { TILE_ROWS = 12 };
#else
enum { TILE_ROWS = 6 };
#endif

/* Numbers of y from column v * VX_LANES on that lie in this vector. */
VX_INLINE size_t lanes_left(size_t valid, size_t v) {
    return valid > v * VX_LANES ? valid - v * VX_LANES : 0;
}

VX_INLINE void gemm_store(const vx_gemm *g, size_t row, size_t column, size_t left, vf sum) {
    if (g->y_float) {
        float *y = (float *)g->y[row] + column;
        if (left >= VX_LANES)
            v_store(y, sum);
        else
            v_store_part(y, sum, left);
    } else {
        stored *y = (stored *)g->y[row] + column;
        if (left >= VX_LANES)
            s_store(y, sum);
        else
            s_store_part(y, sum, left);
    }
}

/* sum += x * w for VX_STEP numbers of the depth, or the last one of an odd depth. */
VX_INLINE void gemm_step(vf sum[TILE_ROWS][2], const stored *const x[TILE_ROWS], size_t k,
                         const bool last, const size_t rows, const size_t vecs, const float *w) {
    const vw w0 = w_load(w), w1 = vecs > 1 ? w_load(w + VX_LANES) : w0;
#pragma GCC unroll 12
    for (size_t r = 0; r < rows; r++) {
        const vw a = last ? x_splat_last(x[r] + k) : x_splat(x[r] + k);
        sum[r][0] = v_dot(sum[r][0], a, w0);
        if (vecs > 1) sum[r][1] = v_dot(sum[r][1], a, w1);
    }
}

/* rows x (vecs * VX_LANES) outputs from row `row`; w is the packed block, valid its columns. */
VX_INLINE void gemm_tile(const vx_gemm *g, const float *w, size_t row, const size_t rows,
                         const size_t vecs, const float *bias, size_t column, size_t valid) {
    vf sum[TILE_ROWS][2];
    const stored *x[TILE_ROWS];
    for (size_t v = 0; v < vecs; v++) {
        const size_t left = lanes_left(valid, v);
        vf start = v_splat(0);
        if (bias && left)
            start = left >= VX_LANES ? v_load(bias + v * VX_LANES)
                                     : v_load_part(bias + v * VX_LANES, left);
#pragma GCC unroll 12
        for (size_t r = 0; r < rows; r++) sum[r][v] = start;
    }
    for (size_t tap = 0; tap < g->taps; tap++) {
        size_t k = 0;
#pragma GCC unroll 12
        for (size_t r = 0; r < rows; r++) x[r] = g->x[tap * g->rows + row + r];
        for (; k + VX_STEP <= g->depth; k += VX_STEP, w += vecs * VX_LANES)
            gemm_step(sum, x, k, false, rows, vecs, w);
        if (VX_STEP > 1 && k < g->depth) {
            gemm_step(sum, x, k, true, rows, vecs, w);
            w += vecs * VX_LANES;
        }
    }
#pragma GCC unroll 12
    for (size_t r = 0; r < rows; r++)
        for (size_t v = 0; v < vecs; v++)
            gemm_store(g, row + r, column + v * VX_LANES, lanes_left(valid, v), sum[r][v]);
}

/* All rows of one packed block. */
VX_INLINE void gemm_block(const vx_gemm *g, const float *w, const size_t vecs, size_t column,
                          size_t valid) {
    const float *bias = g->bias ? g->bias + column : NULL;
    size_t row = 0;
    for (; row + TILE_ROWS <= g->rows; row += TILE_ROWS)
        gemm_tile(g, w, row, TILE_ROWS, vecs, bias, column, valid);
    if (row + TILE_ROWS / 2 <= g->rows) {
        gemm_tile(g, w, row, TILE_ROWS / 2, vecs, bias, column, valid);
        row += TILE_ROWS / 2;
    }
    for (; row + 2 <= g->rows; row += 2) gemm_tile(g, w, row, 2, vecs, bias, column, valid);
    if (row < g->rows) gemm_tile(g, w, row, 1, vecs, bias, column, valid);
}

static void gemm(const vx_gemm *g) {
    const size_t width = 2 * VX_LANES, steps = (g->depth + VX_STEP - 1) / VX_STEP;
    for (size_t column = g->first_column; column < g->end_column; column += width) {
        const size_t left = g->columns - column, wanted = g->end_column - column;
        const size_t valid = wanted < width ? wanted : width;
        const float *w = (const float *)g->w + column * g->taps * steps;
        if (left > VX_LANES)
            gemm_block(g, w, 2, column, valid);
        else
            gemm_block(g, w, 1, column, valid);
    }
}

/* --- element-wise ----------------------------------------------------------------------------- */

/* y[i] = f(x[i]) for a vector function f. */
#define MAP(f, x, n, y)                                                                            \
    do {                                                                                           \
        size_t i_ = 0;                                                                             \
        for (; i_ + VX_LANES <= (n); i_ += VX_LANES) v_store((y) + i_, f(v_load((x) + i_)));       \
        if (i_ < (n)) v_store_part((y) + i_, f(v_load_part((x) + i_, (n)-i_)), (n)-i_);            \
    } while (0)

static void map_exp(const float *x, size_t n, float *y) { MAP(v_exp, x, n, y); }
static void map_exp2(const float *x, size_t n, float *y) { MAP(v_exp2, x, n, y); }
static void map_softplus(const float *x, size_t n, float *y) { MAP(v_softplus, x, n, y); }

VX_INLINE vf v_leaky(vf x, vf slope) { return v_select(x > 0, x, x * slope); }
VX_INLINE vf v_relu(vf x) { return v_select(x <= 0, v_splat(0), x); } /* a NaN stays one */

/* The exact GELU has no cheap vector form yet; its only user is the original SegMamba's MLP. */
VX_INLINE vf v_gelu(vf x) {
    float part[VX_LANES];
    v_store(part, x);
    for (int i = 0; i < VX_LANES; i++) part[i] = part[i] * 0.5f * erfcf(part[i] * -0.70710678f);
    return v_load(part);
}

VX_INLINE vf v_activate(vf x, vx_activation act, vf slope) {
    switch (act) {
    case VX_ACT_RELU:
        return v_relu(x);
    case VX_ACT_LEAKY_RELU:
        return v_leaky(x, slope);
    case VX_ACT_GELU:
        return v_gelu(x);
    case VX_ACT_SILU:
        return v_silu(x);
    case VX_ACT_NONE:
        break;
    }
    return x;
}

VX_INLINE void activate_as(const stored *x, size_t n, vx_activation act, float slope, stored *y) {
    const vf s = v_splat(slope);
    size_t i = 0;
    for (; i + VX_LANES <= n; i += VX_LANES) s_store(y + i, v_activate(s_load(x + i), act, s));
    if (i < n) s_store_part(y + i, v_activate(s_load_part(x + i, n - i), act, s), n - i);
}

/* Calls f with act as a constant, so that its loop holds no switch. */
#define WITH_ACT(f, act, ...)                                                                      \
    switch (act) {                                                                                 \
    case VX_ACT_NONE:                                                                              \
        f(VX_ACT_NONE, __VA_ARGS__);                                                               \
        break;                                                                                     \
    case VX_ACT_RELU:                                                                              \
        f(VX_ACT_RELU, __VA_ARGS__);                                                               \
        break;                                                                                     \
    case VX_ACT_LEAKY_RELU:                                                                        \
        f(VX_ACT_LEAKY_RELU, __VA_ARGS__);                                                         \
        break;                                                                                     \
    case VX_ACT_GELU:                                                                              \
        f(VX_ACT_GELU, __VA_ARGS__);                                                               \
        break;                                                                                     \
    case VX_ACT_SILU:                                                                              \
        f(VX_ACT_SILU, __VA_ARGS__);                                                               \
        break;                                                                                     \
    }

#define ACTIVATE(act, x, n, slope, y) activate_as(x, n, act, slope, y)
static void activate(const void *x, size_t n, vx_activation act, float slope, void *y) {
    WITH_ACT(ACTIVATE, act, x, n, slope, y)
}

static void add(const void *a_in, const void *b_in, size_t n, float scale, void *y_out) {
    const stored *a = a_in, *b = b_in;
    stored *y = y_out;
    size_t i = 0;
    for (; i + VX_LANES <= n; i += VX_LANES)
        s_store(y + i, scale * (s_load(a + i) + s_load(b + i)));
    if (i < n)
        s_store_part(y + i, scale * (s_load_part(a + i, n - i) + s_load_part(b + i, n - i)), n - i);
}

static void narrow(const float *x, size_t n, void *y_out) {
    stored *y = y_out;
    size_t i = 0;
    for (; i + VX_LANES <= n; i += VX_LANES) s_store(y + i, v_load(x + i));
    if (i < n) s_store_part(y + i, v_load_part(x + i, n - i), n - i);
}

static void widen(const void *x_in, size_t n, float *y) {
    const stored *x = x_in;
    size_t i = 0;
    for (; i + VX_LANES <= n; i += VX_LANES) v_store(y + i, s_load(x + i));
    if (i < n) v_store_part(y + i, s_load_part(x + i, n - i), n - i);
}

/* VX_LANES channels, or the n that are left. */
VX_INLINE vf pool_lanes(const stored *x, const size_t window[3], size_t row, size_t plane, size_t c,
                        size_t n) {
    vf sum = v_splat(0);
    for (size_t i = 0; i < window[0]; i++)
        for (size_t k = 0; k < window[1]; k++)
            for (size_t v = 0; v < window[2]; v++) {
                const stored *at = x + i * plane + k * row + v * c;
                sum += n >= VX_LANES ? s_load(at) : s_load_part(at, n);
            }
    return sum * (1.0f / (float)(window[0] * window[1] * window[2]));
}

static void pool(const void *x, const size_t window[3], size_t row, size_t plane, size_t c,
                 void *y) {
    size_t k = 0;
    for (; k + VX_LANES <= c; k += VX_LANES)
        s_store((stored *)y + k,
                pool_lanes((const stored *)x + k, window, row, plane, c, VX_LANES));
    if (k < c)
        s_store_part((stored *)y + k,
                     pool_lanes((const stored *)x + k, window, row, plane, c, c - k), c - k);
}

/* --- norms ------------------------------------------------------------------------------------ */

/* Tokens whose float sums are added up before they go to double. */
enum { SUM_RUN = 32 };

/* total[k] += sum over tokens of (x - centre), or of its square. */
VX_INLINE void add_up(const stored *x, size_t tokens, size_t c, const float *centre,
                      const bool squared, float *sum, double *total) {
    for (size_t t = 0; t < tokens;) {
        const size_t end = tokens - t < SUM_RUN ? tokens : t + SUM_RUN;
        memset(sum, 0, c * sizeof *sum);
        for (; t < end; t++)
            for (size_t k = 0; k < c; k++) {
                const float e = s_value(x[t * c + k]) - centre[k];
                sum[k] += squared ? e * e : e;
            }
        for (size_t k = 0; k < c; k++) total[k] += (double)sum[k];
    }
}

static void moments(const void *x_in, size_t tokens, size_t c, float *scratch, double *mean,
                    double *m2) {
    const stored *x = x_in;
    float *sum = scratch, *centre = scratch + c;
    for (size_t k = 0; k < c; k++) {
        mean[k] = m2[k] = 0;
        centre[k] = s_value(x[k]); /* any value of the right size keeps the sums small */
    }
    add_up(x, tokens, c, centre, false, sum, mean);
    for (size_t k = 0; k < c; k++) {
        mean[k] = (double)centre[k] + mean[k] / (double)tokens;
        centre[k] = (float)mean[k];
    }
    add_up(x, tokens, c, centre, true, sum, m2);
    for (size_t k = 0; k < c; k++) { /* about the mean instead of its float */
        const double off = mean[k] - (double)centre[k];
        m2[k] -= off * off * (double)tokens;
        if (m2[k] < 0) m2[k] = 0;
    }
}

VX_INLINE vf norm_lanes(vf x, vf mean, vf scale, vf shift) { return (x - mean) * scale + shift; }

VX_INLINE void normalise_as(const stored *x, size_t tokens, size_t c, const float *mean,
                            const float *scale, const float *shift, const stored *residual,
                            const bool residual_too, const vx_activation act, float slope,
                            stored *y) {
    const vf s = v_splat(slope);
    for (size_t t = 0; t < tokens; t++) {
        size_t k = 0;
        for (; k + VX_LANES <= c; k += VX_LANES) {
            vf v =
                norm_lanes(s_load(x + k), v_load(mean + k), v_load(scale + k), v_load(shift + k));
            if (residual_too) v += s_load(residual + k);
            s_store(y + k, v_activate(v, act, s));
        }
        if (k < c) {
            const size_t n = c - k;
            vf v = norm_lanes(s_load_part(x + k, n), v_load_part(mean + k, n),
                              v_load_part(scale + k, n), v_load_part(shift + k, n));
            if (residual_too) v += s_load_part(residual + k, n);
            s_store_part(y + k, v_activate(v, act, s), n);
        }
        x += c;
        y += c;
        if (residual_too) residual += c;
    }
}

#define NORMALISE(act, residual_too)                                                               \
    normalise_as(x, tokens, c, mean, scale, shift, residual, residual_too, act, slope, y)
static void normalise(const void *x, size_t tokens, size_t c, const float *mean, const float *scale,
                      const float *shift, const void *residual, vx_activation act, float slope,
                      void *y) {
    if (residual)
        WITH_ACT(NORMALISE, act, true)
    else
        WITH_ACT(NORMALISE, act, false)
}

static void layer_norm(const void *x_in, size_t tokens, size_t c, const float *gamma,
                       const float *beta, float eps, void *y_out) {
    const size_t whole = c - c % VX_LANES, rest = c - whole;
    const float share = 1.0f / (float)c;
    const stored *x = x_in;
    stored *y = y_out;
    for (size_t t = 0; t < tokens; t++, x += c, y += c) {
        vf sum = v_splat(0), squares = v_splat(0);
        for (size_t k = 0; k < whole; k += VX_LANES) sum += s_load(x + k);
        if (rest) sum += s_load_part(x + whole, rest);
        const float mean = v_sum(sum) * share;
        for (size_t k = 0; k < whole; k += VX_LANES) {
            const vf e = s_load(x + k) - mean;
            squares += e * e;
        }
        if (rest) {
            float part[VX_LANES] = {0};
            for (size_t k = 0; k < rest; k++) part[k] = s_value(x[whole + k]) - mean;
            squares += v_load(part) * v_load(part);
        }
        const vf inv = v_splat(1.0f / sqrtf(v_sum(squares) * share + eps));
        for (size_t k = 0; k < whole; k += VX_LANES)
            s_store(y + k, (s_load(x + k) - mean) * inv * v_load(gamma + k) + v_load(beta + k));
        if (rest)
            s_store_part(y + whole,
                         (s_load_part(x + whole, rest) - mean) * inv *
                                 v_load_part(gamma + whole, rest) +
                             v_load_part(beta + whole, rest),
                         rest);
    }
}

/* --- Mamba ------------------------------------------------------------------------------------ */

enum { VECS = VX_SCAN_GROUP / VX_LANES };

/* Channels [i, i + VX_SCAN_GROUP) of one token. */
VX_INLINE void conv_group(const float *x, size_t d, size_t taps, const float *w, const float *bias,
                          stored *u) {
    vf sum[VECS];
#pragma GCC unroll 4
    for (size_t v = 0; v < VECS; v++) sum[v] = v_load(bias + v * VX_LANES);
    for (size_t k = 0; k < taps; k++)
#pragma GCC unroll 4
        for (size_t v = 0; v < VECS; v++)
            sum[v] += v_load(w + k * d + v * VX_LANES) * v_load(x + k * d + v * VX_LANES);
    v_silu_all(sum, VECS);
#pragma GCC unroll 4
    for (size_t v = 0; v < VECS; v++) s_store(u + v * VX_LANES, sum[v]);
}

static void causal_conv(const float *x, size_t tokens, size_t d, size_t taps, const float *w,
                        const float *bias, void *u_out) {
    stored *u = u_out;
    for (size_t t = 0; t < tokens; t++, x += d, u += d)
        for (size_t i = 0; i < d; i += VX_SCAN_GROUP)
            conv_group(x + i, d, taps, w + i, bias + i, u + i);
}

static void scan_inputs(const float *raw, const void *u_in, size_t ld, size_t tokens,
                        const float *skip, float *delta, float *du, float *y) {
    const stored *u = u_in;
    for (size_t t = 0; t < tokens; t++, raw += ld, u += ld) {
        vf step[VECS];
#pragma GCC unroll 4
        for (size_t v = 0; v < VECS; v++) step[v] = v_load(raw + v * VX_LANES);
        v_softplus_all(step, VECS);
#pragma GCC unroll 4
        for (size_t v = 0; v < VECS; v++) {
            const vf input = s_load(u + v * VX_LANES);
            const size_t at = t * VX_SCAN_GROUP + v * VX_LANES;
            v_store(delta + at, v_min(step[v], v_splat(VX_TIME_STEP_MAX)));
            v_store(du + at, step[v] * input);
            v_store(y + at, v_load(skip + v * VX_LANES) * input);
        }
    }
}

static void gate(const float *y, size_t parts, size_t part, const void *z_in, size_t ld,
                 size_t tokens, void *gated_out) {
    const stored *z = z_in;
    stored *out = gated_out;
    for (size_t t = 0; t < tokens; t++, y += VX_SCAN_GROUP, z += ld, out += ld) {
        vf open[VECS], sum[VECS];
#pragma GCC unroll 4
        for (size_t v = 0; v < VECS; v++) {
            open[v] = s_load(z + v * VX_LANES);
            sum[v] = v_load(y + v * VX_LANES);
        }
        for (size_t p = 1; p < parts; p++)
#pragma GCC unroll 4
            for (size_t v = 0; v < VECS; v++) sum[v] += v_load(y + p * part + v * VX_LANES);
        v_silu_all(open, VECS);
#pragma GCC unroll 4
        for (size_t v = 0; v < VECS; v++) s_store(out + v * VX_LANES, sum[v] * open[v]);
    }
}

/* Tokens whose delta, du and y stay in the first-level cache while all states pass over them, and
 * states that are worked off together. */
enum { SCAN_TILE = 64, SCAN_STATES = VX_LANES == 16 ? 4 : 2 };

/* One tile for `count` neighbouring states, held in registers with their decay rates. */
VX_INLINE void scan_states(const vx_scan *s, size_t begin, size_t end, size_t state,
                           const size_t count) {
    vf h[SCAN_STATES * VECS], a[SCAN_STATES * VECS], e[SCAN_STATES * VECS];
    float *const restrict h_at = s->h + state * VX_SCAN_GROUP;
#pragma GCC unroll 16
    for (size_t i = 0; i < count * VECS; i++) {
        h[i] = v_load(h_at + i * VX_LANES);
        a[i] = v_load(s->a + state * VX_SCAN_GROUP + i * VX_LANES);
    }
    const size_t row = s->bc_row;
    const float *b = s->b + begin * row + state, *c = s->c + begin * row + state;
    const float *delta = s->delta + begin * VX_SCAN_GROUP, *du = s->du + begin * VX_SCAN_GROUP;
    float *restrict y = s->y + begin * VX_SCAN_GROUP;
    for (size_t t = begin; t < end; t++) {
#pragma GCC unroll 16
        for (size_t i = 0; i < count * VECS; i++) e[i] = v_load(delta + i % VECS * VX_LANES) * a[i];
        v_exp2_all(e, count * VECS);
#pragma GCC unroll 16
        for (size_t i = 0; i < count * VECS; i++)
            h[i] = e[i] * h[i] + v_load(du + i % VECS * VX_LANES) * v_splat(b[i / VECS]);
#pragma GCC unroll 16
        for (size_t v = 0; v < VECS; v++) {
            vf sum = v_load(y + v * VX_LANES);
#pragma GCC unroll 16
            for (size_t n = 0; n < count; n++) sum += h[n * VECS + v] * v_splat(c[n]);
            v_store(y + v * VX_LANES, sum);
        }
        b += row;
        c += row;
        delta += VX_SCAN_GROUP;
        du += VX_SCAN_GROUP;
        y += VX_SCAN_GROUP;
    }
#pragma GCC unroll 16
    for (size_t i = 0; i < count * VECS; i++) v_store(h_at + i * VX_LANES, h[i]);
}

static void scan(const vx_scan *s) {
    const unsigned saved = flush_subnormals();
    for (size_t begin = 0; begin < s->tokens; begin += SCAN_TILE) {
        const size_t end = s->tokens - begin < SCAN_TILE ? s->tokens : begin + SCAN_TILE;
        size_t state = 0;
        if (s->fresh)
            memset(s->y + begin * VX_SCAN_GROUP, 0, (end - begin) * VX_SCAN_GROUP * sizeof(float));
        for (; state + SCAN_STATES <= s->states; state += SCAN_STATES)
            scan_states(s, begin, end, state, SCAN_STATES);
        for (; state < s->states; state++) scan_states(s, begin, end, state, 1);
    }
    restore_subnormals(saved);
}

const vx_kernels VX_KERNELS = {.isa = VX_KERNELS_ISA,
                               .stored = VX_STORED,
                               .name = VX_KERNELS_TEXT,
                               .gemm_lanes = VX_LANES,
                               .gemm_width = 2 * VX_LANES,
                               .gemm = gemm,
                               .winograd_filters = winograd_filters,
                               .winograd_in = winograd_in,
                               .winograd_out = winograd_out,
                               .exp = map_exp,
                               .exp2 = map_exp2,
                               .softplus = map_softplus,
                               .activate = activate,
                               .add = add,
                               .narrow = narrow,
                               .widen = widen,
                               .pool = pool,
                               .moments = moments,
                               .normalise = normalise,
                               .layer_norm = layer_norm,
                               .causal_conv = causal_conv,
                               .scan_inputs = scan_inputs,
                               .scan = scan,
                               .gate = gate};
