/* The inner loops. Compiled once for each instruction set with VX_KERNELS (the table's name),
 * VX_KERNELS_ISA and VX_KERNELS_TEXT set. */
#include <math.h>

#include "backend/cpu/kernels.h"
#include "backend/cpu/kernels_vector.h"

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

/* rows x (vecs * VX_LANES) outputs from row `row`; w is the packed block, valid its columns. */
VX_INLINE void gemm_tile(const vx_gemm *g, const float *w, size_t row, const size_t rows,
                         const size_t vecs, const float *bias, size_t column, size_t valid) {
    vf sum[TILE_ROWS][2];
    const float *x[TILE_ROWS];
    for (size_t v = 0; v < vecs; v++) {
        const size_t left = valid > v * VX_LANES ? valid - v * VX_LANES : 0;
        vf start = v_splat(0);
        if (bias && left)
            start = left >= VX_LANES ? v_load(bias + v * VX_LANES)
                                     : v_load_part(bias + v * VX_LANES, left);
#pragma GCC unroll 12
        for (size_t r = 0; r < rows; r++) sum[r][v] = start;
    }
    for (size_t tap = 0; tap < g->taps; tap++) {
#pragma GCC unroll 12
        for (size_t r = 0; r < rows; r++) x[r] = g->x[tap * g->rows + row + r];
        for (size_t k = 0; k < g->depth; k++, w += vecs * VX_LANES) {
            const vf w0 = v_load(w), w1 = vecs > 1 ? v_load(w + VX_LANES) : w0;
#pragma GCC unroll 12
            for (size_t r = 0; r < rows; r++) {
                const vf a = v_splat(x[r][k]);
                sum[r][0] += a * w0;
                if (vecs > 1) sum[r][1] += a * w1;
            }
        }
    }
#pragma GCC unroll 12
    for (size_t r = 0; r < rows; r++)
        for (size_t v = 0; v < vecs; v++) {
            float *y = g->y[row + r] + column + v * VX_LANES;
            const size_t left = valid > v * VX_LANES ? valid - v * VX_LANES : 0;
            if (left >= VX_LANES)
                v_store(y, sum[r][v]);
            else
                v_store_part(y, sum[r][v], left);
        }
}

/* All rows of one packed block. */
VX_INLINE void gemm_block(const vx_gemm *g, const float *w, const size_t vecs, size_t column,
                          size_t valid) {
    const float *bias = g->bias ? g->bias + column : NULL;
    size_t row = 0;
    for (; row + TILE_ROWS <= g->rows; row += TILE_ROWS)
        gemm_tile(g, w, row, TILE_ROWS, vecs, bias, column, valid);
    for (; row + 3 <= g->rows; row += 3) gemm_tile(g, w, row, 3, vecs, bias, column, valid);
    for (; row < g->rows; row++) gemm_tile(g, w, row, 1, vecs, bias, column, valid);
}

static void gemm(const vx_gemm *g) {
    const size_t width = 2 * VX_LANES;
    for (size_t column = g->first_column; column < g->end_column; column += width) {
        const size_t left = g->columns - column, wanted = g->end_column - column;
        const size_t valid = wanted < width ? wanted : width;
        const float *w = g->w + column * g->taps * g->depth;
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

VX_INLINE void activate_as(const float *x, size_t n, vx_activation act, float slope, float *y) {
    const vf s = v_splat(slope);
    size_t i = 0;
    for (; i + VX_LANES <= n; i += VX_LANES) v_store(y + i, v_activate(v_load(x + i), act, s));
    if (i < n) v_store_part(y + i, v_activate(v_load_part(x + i, n - i), act, s), n - i);
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
static void activate(const float *x, size_t n, vx_activation act, float slope, float *y) {
    WITH_ACT(ACTIVATE, act, x, n, slope, y)
}

static void add(const float *a, const float *b, size_t n, float scale, float *y) {
    for (size_t i = 0; i < n; i++) y[i] = scale * (a[i] + b[i]);
}

/* --- norms ------------------------------------------------------------------------------------ */

/* Tokens whose float sums are added up before they go to double. */
enum { SUM_RUN = 32 };

/* total[k] += sum over tokens of (x - centre), or of its square. */
VX_INLINE void add_up(const float *x, size_t tokens, size_t c, const float *centre,
                      const bool squared, float *sum, double *total) {
    for (size_t t = 0; t < tokens;) {
        const size_t end = tokens - t < SUM_RUN ? tokens : t + SUM_RUN;
        memset(sum, 0, c * sizeof *sum);
        for (; t < end; t++)
            for (size_t k = 0; k < c; k++) {
                const float e = x[t * c + k] - centre[k];
                sum[k] += squared ? e * e : e;
            }
        for (size_t k = 0; k < c; k++) total[k] += (double)sum[k];
    }
}

static void moments(const float *x, size_t tokens, size_t c, float *scratch, double *mean,
                    double *m2) {
    float *sum = scratch, *centre = scratch + c;
    for (size_t k = 0; k < c; k++) {
        mean[k] = m2[k] = 0;
        centre[k] = x[k]; /* any value of the right size keeps the sums small */
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

VX_INLINE void normalise_as(const float *x, size_t tokens, size_t c, const float *mean,
                            const float *scale, const float *shift, const float *residual,
                            const bool residual_too, const vx_activation act, float slope,
                            float *y) {
    const vf s = v_splat(slope);
    for (size_t t = 0; t < tokens; t++) {
        size_t k = 0;
        for (; k + VX_LANES <= c; k += VX_LANES) {
            vf v =
                norm_lanes(v_load(x + k), v_load(mean + k), v_load(scale + k), v_load(shift + k));
            if (residual_too) v += v_load(residual + k);
            v_store(y + k, v_activate(v, act, s));
        }
        if (k < c) {
            const size_t n = c - k;
            vf v = norm_lanes(v_load_part(x + k, n), v_load_part(mean + k, n),
                              v_load_part(scale + k, n), v_load_part(shift + k, n));
            if (residual_too) v += v_load_part(residual + k, n);
            v_store_part(y + k, v_activate(v, act, s), n);
        }
        x += c;
        y += c;
        if (residual_too) residual += c;
    }
}

#define NORMALISE(act, residual_too)                                                               \
    normalise_as(x, tokens, c, mean, scale, shift, residual, residual_too, act, slope, y)
static void normalise(const float *x, size_t tokens, size_t c, const float *mean,
                      const float *scale, const float *shift, const float *residual,
                      vx_activation act, float slope, float *y) {
    if (residual)
        WITH_ACT(NORMALISE, act, true)
    else
        WITH_ACT(NORMALISE, act, false)
}

static void layer_norm(const float *x, size_t tokens, size_t c, const float *gamma,
                       const float *beta, float eps, float *y) {
    const size_t whole = c - c % VX_LANES, rest = c - whole;
    const float share = 1.0f / (float)c;
    for (size_t t = 0; t < tokens; t++, x += c, y += c) {
        vf sum = v_splat(0), squares = v_splat(0);
        for (size_t k = 0; k < whole; k += VX_LANES) sum += v_load(x + k);
        if (rest) sum += v_load_part(x + whole, rest);
        const float mean = v_sum(sum) * share;
        for (size_t k = 0; k < whole; k += VX_LANES) {
            const vf e = v_load(x + k) - mean;
            squares += e * e;
        }
        if (rest) {
            float part[VX_LANES] = {0};
            for (size_t k = 0; k < rest; k++) part[k] = x[whole + k] - mean;
            squares += v_load(part) * v_load(part);
        }
        const float inv = 1.0f / sqrtf(v_sum(squares) * share + eps);
        for (size_t k = 0; k < c; k++) y[k] = (x[k] - mean) * inv * gamma[k] + beta[k];
    }
}

/* --- Mamba ------------------------------------------------------------------------------------ */

enum { VECS = VX_SCAN_GROUP / VX_LANES };

/* Channels [i, i + VX_SCAN_GROUP) of one token. */
VX_INLINE void conv_group(const float *x, size_t d, size_t taps, const float *w, const float *bias,
                          float *u) {
    vf sum[VECS];
#pragma GCC unroll 4
    for (size_t v = 0; v < VECS; v++) sum[v] = v_load(bias + v * VX_LANES);
    for (size_t k = 0; k < taps; k++)
#pragma GCC unroll 4
        for (size_t v = 0; v < VECS; v++)
            sum[v] += v_load(w + k * d + v * VX_LANES) * v_load(x + k * d + v * VX_LANES);
    v_silu_all(sum, VECS);
#pragma GCC unroll 4
    for (size_t v = 0; v < VECS; v++) v_store(u + v * VX_LANES, sum[v]);
}

static void causal_conv(const float *x, size_t tokens, size_t d, size_t taps, const float *w,
                        const float *bias, float *u) {
    for (size_t t = 0; t < tokens; t++, x += d, u += d)
        for (size_t i = 0; i < d; i += VX_SCAN_GROUP)
            conv_group(x + i, d, taps, w + i, bias + i, u + i);
}

static void scan_inputs(const float *raw, const float *u, size_t ld, size_t tokens,
                        const float *skip, float *delta, float *du, float *y) {
    for (size_t t = 0; t < tokens; t++, raw += ld, u += ld) {
        vf step[VECS];
#pragma GCC unroll 4
        for (size_t v = 0; v < VECS; v++) step[v] = v_load(raw + v * VX_LANES);
        v_softplus_all(step, VECS);
#pragma GCC unroll 4
        for (size_t v = 0; v < VECS; v++) {
            const vf input = v_load(u + v * VX_LANES);
            const size_t at = t * VX_SCAN_GROUP + v * VX_LANES;
            v_store(delta + at, step[v]);
            v_store(du + at, step[v] * input);
            v_store(y + at, v_load(skip + v * VX_LANES) * input);
        }
    }
}

static void gate(const float *y, const float *z, size_t ld, size_t tokens, float *out) {
    for (size_t t = 0; t < tokens; t++, y += VX_SCAN_GROUP, z += ld, out += ld) {
        vf open[VECS];
#pragma GCC unroll 4
        for (size_t v = 0; v < VECS; v++) open[v] = v_load(z + v * VX_LANES);
        v_silu_all(open, VECS);
#pragma GCC unroll 4
        for (size_t v = 0; v < VECS; v++)
            v_store(out + v * VX_LANES, v_load(y + v * VX_LANES) * open[v]);
    }
}

/* Tokens whose delta, du and y stay in the first-level cache while all states pass over them. */
enum { SCAN_TILE = 64 };

/* One tile for `count` neighbouring states, held in registers with their decay rates. */
VX_INLINE void scan_states(const vx_scan *s, size_t begin, size_t end, size_t state,
                           const size_t count) {
    vf h[4 * VECS], a[4 * VECS], e[4 * VECS];
    float *const restrict h_at = s->h + state * VX_SCAN_GROUP;
#pragma GCC unroll 16
    for (size_t i = 0; i < count * VECS; i++) {
        h[i] = v_load(h_at + i * VX_LANES);
        a[i] = v_load(s->a + state * VX_SCAN_GROUP + i * VX_LANES);
    }
    const float *b = s->bc + begin * s->bc_row + state, *c = b + s->states;
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
        b += s->bc_row;
        c += s->bc_row;
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
        for (; state + 2 <= s->states; state += 2) scan_states(s, begin, end, state, 2);
        if (state < s->states) scan_states(s, begin, end, state, 1);
    }
    restore_subnormals(saved);
}

/* Below this power of two what is left of the incoming state is beneath float's rounding of it. */
#define CARRY_END -30.0f

/* Tokens between two looks at whether anything is left. */
enum { CARRY_RUN = 16 };

/* True when any lane of x is above limit (or NaN). */
VX_INLINE bool any_above(vf x, float limit) {
    const vi above = ~(x <= limit);
    int32_t any = 0, part[VX_LANES];
    memcpy(part, &above, sizeof part);
    for (int i = 0; i < VX_LANES; i++) any |= part[i];
    return any != 0;
}

/* For `count` neighbouring states until they have decayed. */
VX_INLINE void carry_states(const vx_scan *s, size_t state, const size_t count) {
    vf h[4 * VECS], a[4 * VECS], e[4 * VECS], time[VECS];
#pragma GCC unroll 16
    for (size_t i = 0; i < count * VECS; i++) {
        h[i] = v_load(s->h + state * VX_SCAN_GROUP + i * VX_LANES);
        a[i] = v_load(s->a + state * VX_SCAN_GROUP + i * VX_LANES);
    }
#pragma GCC unroll 4
    for (size_t v = 0; v < VECS; v++) time[v] = v_splat(0);
    const float *c = s->bc + s->states + state, *delta = s->delta;
    float *restrict y = s->y;
    for (size_t t = 0; t < s->tokens; t++) {
#pragma GCC unroll 4
        for (size_t v = 0; v < VECS; v++) time[v] += v_load(delta + v * VX_LANES);
#pragma GCC unroll 16
        for (size_t i = 0; i < count * VECS; i++) e[i] = time[i % VECS] * a[i];
        if (t % CARRY_RUN == 0) {
            bool alive = false;
#pragma GCC unroll 16
            for (size_t i = 0; i < count * VECS; i++) alive |= any_above(e[i], CARRY_END);
            if (!alive) return;
        }
        v_exp2_all(e, count * VECS);
#pragma GCC unroll 4
        for (size_t v = 0; v < VECS; v++) {
            vf sum = v_load(y + v * VX_LANES);
#pragma GCC unroll 16
            for (size_t n = 0; n < count; n++)
                sum += e[n * VECS + v] * (h[n * VECS + v] * v_splat(c[n]));
            v_store(y + v * VX_LANES, sum);
        }
        c += s->bc_row;
        delta += VX_SCAN_GROUP;
        y += VX_SCAN_GROUP;
    }
}

static void scan_carry(const vx_scan *s) {
    const unsigned saved = flush_subnormals();
    size_t state = 0;
    for (; state + 2 <= s->states; state += 2) carry_states(s, state, 2);
    if (state < s->states) carry_states(s, state, 1);
    restore_subnormals(saved);
}

static void scan_elapsed(const float *delta, size_t tokens, float *elapsed) {
    memset(elapsed, 0, VX_SCAN_GROUP * sizeof *elapsed);
    for (size_t t = 0; t < tokens; t++)
        for (size_t i = 0; i < VX_SCAN_GROUP; i++) elapsed[i] += delta[t * VX_SCAN_GROUP + i];
}

static void scan_fold(const float *a, const float *elapsed, const float *end, size_t states,
                      float *h) {
    const unsigned saved = flush_subnormals();
    for (size_t n = 0; n < states; n++)
        for (size_t i = 0; i < VX_SCAN_GROUP; i += VX_LANES) {
            const size_t at = n * VX_SCAN_GROUP + i;
            const vf decay = v_exp2(v_load(a + at) * v_load(elapsed + i));
            v_store(h + at, decay * v_load(h + at) + v_load(end + at));
        }
    restore_subnormals(saved);
}

const vx_kernels VX_KERNELS = {.isa = VX_KERNELS_ISA,
                               .name = VX_KERNELS_TEXT,
                               .gemm_lanes = VX_LANES,
                               .gemm_width = 2 * VX_LANES,
                               .gemm = gemm,
                               .exp = map_exp,
                               .exp2 = map_exp2,
                               .softplus = map_softplus,
                               .activate = activate,
                               .add = add,
                               .moments = moments,
                               .normalise = normalise,
                               .layer_norm = layer_norm,
                               .causal_conv = causal_conv,
                               .scan_inputs = scan_inputs,
                               .scan = scan,
                               .scan_elapsed = scan_elapsed,
                               .scan_fold = scan_fold,
                               .scan_carry = scan_carry,
                               .gate = gate};
