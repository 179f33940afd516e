/* Winograd's F(4, 3) along y and x, for kernels_impl.c (Lavin & Gray 2016, arXiv:1509.09308).
 *
 * Interpolation points 0, +-a, +-b and infinity. a = 3/4 and b = 3/2 instead of the usual 1 and 2:
 * all constants are exact, and the rounding error is half as large (it is twice that of the direct
 * sum; how points matter: Barabasz et al. 2020, arXiv:1803.10986). */
#ifndef VX_BACKEND_CPU_KERNELS_WINOGRAD_H
#define VX_BACKEND_CPU_KERNELS_WINOGRAD_H

#include "backend/cpu/kernels.h"
#include "backend/cpu/kernels_stored.h"

#define WINOGRAD_A 0.75f
#define WINOGRAD_B 1.5f

enum { IN = VX_WINOGRAD_IN, OUT = VX_WINOGRAD_OUT };

/* v = B^T d. */
VX_INLINE void winograd_forward(const vf d[IN], vf v[IN]) {
    const vf a = v_splat(WINOGRAD_A), b = v_splat(WINOGRAD_B), aa = a * a, bb = b * b;
    const vf sum = aa + bb, product = aa * bb;
    const vf even_a = d[4] - bb * d[2], odd_a = a * (d[3] - bb * d[1]);
    const vf even_b = d[4] - aa * d[2], odd_b = b * (d[3] - aa * d[1]);
    v[0] = (d[4] - sum * d[2]) + product * d[0];
    v[1] = even_a + odd_a;
    v[2] = even_a - odd_a;
    v[3] = even_b + odd_b;
    v[4] = even_b - odd_b;
    v[5] = (d[5] - sum * d[3]) + product * d[1];
}

/* y = A^T m. */
VX_INLINE void winograd_back(const vf m[IN], vf y[OUT]) {
    const vf a = v_splat(WINOGRAD_A), b = v_splat(WINOGRAD_B), aa = a * a, bb = b * b;
    const vf even_a = m[1] + m[2], odd_a = a * (m[1] - m[2]);
    const vf even_b = m[3] + m[4], odd_b = b * (m[3] - m[4]);
    y[0] = m[0] + even_a + even_b;
    y[1] = odd_a + odd_b;
    y[2] = aa * even_a + bb * even_b;
    y[3] = aa * odd_a + bb * odd_b + m[5];
}

/* v = G f: the polynomial f at each point, over the product of the point's distances to the others;
 * at infinity its last coefficient. */
VX_INLINE void winograd_filter(const vf f[3], vf v[IN]) {
    const float aa = WINOGRAD_A * WINOGRAD_A, bb = WINOGRAD_B * WINOGRAD_B;
    const vf by_0 = v_splat(1 / (aa * bb));
    const vf by_a = v_splat(1 / (2 * aa * (aa - bb))), by_b = v_splat(1 / (2 * bb * (bb - aa)));
    const vf even_a = f[0] + aa * f[2], odd_a = WINOGRAD_A * f[1];
    const vf even_b = f[0] + bb * f[2], odd_b = WINOGRAD_B * f[1];
    v[0] = by_0 * f[0];
    v[1] = by_a * (even_a + odd_a);
    v[2] = by_a * (even_a - odd_a);
    v[3] = by_b * (even_b + odd_b);
    v[4] = by_b * (even_b - odd_b);
    v[5] = f[2];
}

/* n numbers; n = VX_LANES but at the end of the channels. */
VX_INLINE vf load_lanes(const float *p, size_t n) {
    return n == VX_LANES ? v_load(p) : v_load_part(p, n);
}

VX_INLINE vf load_stored(const stored *p, size_t n) {
    return n == VX_LANES ? s_load(p) : s_load_part(p, n);
}

/* Channels [k, k + n) of a row of tiles. */
VX_INLINE void winograd_in_lanes(const vx_winograd_in *w, size_t k, const size_t n) {
    const size_t columns = w->tiles * OUT + IN - OUT;
    float *const temp = w->temp;
    vf d[IN], v[IN];
    for (size_t x = 0; x < columns; x++) { /* along y, once a column */
        const size_t at = x - w->left;     /* wraps to a huge number in the left padding */
#pragma GCC unroll 6
        for (size_t i = 0; i < IN; i++)
            d[i] = at < w->width ? load_stored((const stored *)w->row[i] + at * w->step[i] + k, n)
                                 : v_splat(0);
        winograd_forward(d, v);
#pragma GCC unroll 6
        for (size_t i = 0; i < IN; i++) v_store(temp + (i * columns + x) * VX_LANES, v[i]);
    }
    for (size_t tile = 0; tile < w->tiles; tile++)
        for (size_t i = 0; i < IN; i++) {
            const float *line = temp + (i * columns + tile * OUT) * VX_LANES;
            float *out = w->v + i * IN * w->point + tile * w->tile + k;
#pragma GCC unroll 6
            for (size_t j = 0; j < IN; j++) d[j] = v_load(line + j * VX_LANES);
            winograd_forward(d, v);
#pragma GCC unroll 6
            for (size_t j = 0; j < IN; j++)
                if (n == VX_LANES)
                    v_store(out + j * w->point, v[j]);
                else
                    v_store_part(out + j * w->point, v[j], n);
        }
}

static void winograd_in(const vx_winograd_in *w) {
    size_t k = 0;
    for (; k + VX_LANES <= w->c; k += VX_LANES) winograd_in_lanes(w, k, VX_LANES);
    if (k < w->c) winograd_in_lanes(w, k, w->c - k);
}

/* Channels [k, k + n) of one tile; width: columns of it that lie in the grid. */
VX_INLINE void winograd_out_lanes(const vx_winograd_out *w, size_t tile, size_t width, size_t k,
                                  const size_t n) {
    const vf bias = w->bias ? load_lanes(w->bias + k, n) : v_splat(0);
    vf m[IN], y[OUT], part[IN][OUT];
#pragma GCC unroll 6
    for (size_t j = 0; j < IN; j++) { /* along y */
#pragma GCC unroll 6
        for (size_t i = 0; i < IN; i++)
            m[i] = load_lanes(w->m + (i * IN + j) * w->point + tile * w->c + k, n);
        winograd_back(m, part[j]);
    }
#pragma GCC unroll 4
    for (size_t i = 0; i < OUT; i++) {
        if (i >= w->rows) break;
#pragma GCC unroll 6
        for (size_t j = 0; j < IN; j++) m[j] = part[j][i];
        winograd_back(m, y);
        stored *row = (stored *)w->y + i * w->y_row + tile * OUT * w->c + k;
#pragma GCC unroll 4
        for (size_t j = 0; j < OUT; j++) {
            if (j >= width) break;
            if (n == VX_LANES)
                s_store(row + j * w->c, y[j] + bias);
            else
                s_store_part(row + j * w->c, y[j] + bias, n);
        }
    }
}

static void winograd_out(const vx_winograd_out *w) {
    for (size_t tile = 0; tile < w->tiles; tile++) {
        const size_t left = w->width - tile * OUT, width = left < OUT ? left : OUT;
        size_t k = 0;
        for (; k + VX_LANES <= w->c; k += VX_LANES) winograd_out_lanes(w, tile, width, k, VX_LANES);
        if (k < w->c) winograd_out_lanes(w, tile, width, k, w->c - k);
    }
}

static void winograd_filters(const float *taps, size_t tap, size_t n, float *out, size_t point) {
    for (size_t i = 0; i < n; i += VX_LANES) {
        vf part[IN][3], column[3], v[IN];
#pragma GCC unroll 3
        for (size_t x = 0; x < 3; x++) { /* along y */
#pragma GCC unroll 3
            for (size_t y = 0; y < 3; y++) column[y] = v_load(taps + (3 * y + x) * tap + i);
            winograd_filter(column, v);
#pragma GCC unroll 6
            for (size_t k = 0; k < IN; k++) part[k][x] = v[k];
        }
#pragma GCC unroll 6
        for (size_t k = 0; k < IN; k++) {
            winograd_filter(part[k], v);
#pragma GCC unroll 6
            for (size_t j = 0; j < IN; j++) v_store(out + (k * IN + j) * point + i, v[j]);
        }
    }
}

#endif
