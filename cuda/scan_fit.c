#include "cuda/scan_fit.h"

#include <math.h>
#include <string.h>

#define MOST_RATES 24
#define RIDGE      1e-9 /* added to the Gram matrix's diagonal of 1: bounds the weights */

/* The inverse, in effect, of the Gram matrix of K unit exponentials with rates 2^(k/2). */
typedef struct gram {
    uint32_t k;
    double node[MOST_RATES];               /* the rates: 2^(k/2) */
    double factor[MOST_RATES][MOST_RATES]; /* Cholesky, lower triangle */
} gram;

/* Inner product of the exponentials with rates a and b, both scaled to norm 1. */
static double inner(double a, double b) { return 2 * sqrt(a * b) / (a + b); }

static void gram_make(gram *g, uint32_t k) {
    g->k = k;
    for (uint32_t i = 0; i < k; i++) g->node[i] = exp2(0.5 * i);
    for (uint32_t i = 0; i < k; i++)
        for (uint32_t j = 0; j <= i; j++) {
            double sum = inner(g->node[i], g->node[j]) + (i == j ? RIDGE : 0);
            for (uint32_t m = 0; m < j; m++) sum -= g->factor[i][m] * g->factor[j][m];
            g->factor[i][j] = i == j ? sqrt(sum) : sum / g->factor[j][j];
        }
}

/* Weights, for unit exponentials, of the unit exponential with rate a (in units of the first node);
 * b: its inner products with the nodes. */
static void solve(const gram *g, double a, double b[MOST_RATES], double w[MOST_RATES]) {
    const uint32_t k = g->k;
    for (uint32_t i = 0; i < k; i++) {
        b[i] = inner(g->node[i], a);
        double sum = b[i];
        for (uint32_t j = 0; j < i; j++) sum -= g->factor[i][j] * w[j];
        w[i] = sum / g->factor[i][i];
    }
    for (uint32_t i = k; i-- > 0;) {
        for (uint32_t j = i + 1; j < k; j++) w[i] -= g->factor[j][i] * w[j];
        w[i] /= g->factor[i][i];
    }
}

/* The L2 norm of what the best weights for rate a leave. */
static double left_over(const gram *g, double a) {
    double b[MOST_RATES], w[MOST_RATES];
    solve(g, a, b, w);
    double left = 1;
    for (uint32_t i = 0; i < g->k; i++) {
        left -= 2 * w[i] * b[i];
        for (uint32_t j = 0; j < g->k; j++) left += w[i] * w[j] * inner(g->node[i], g->node[j]);
    }
    return left > 0 ? sqrt(left) : 0;
}

/* The rates between which every fit is good enough, in units of the first node: outwards from the
 * middle, in steps of 2^(1/32). */
static void good_range(const gram *g, double *low, double *high) {
    const double middle = g->node[g->k - 1] / 2;
    *low = *high = middle;
    for (double a = middle; left_over(g, a) <= VX_SCAN_FIT_ERROR; a *= exp2(-1.0 / 32)) *low = a;
    for (double a = middle; left_over(g, a) <= VX_SCAN_FIT_ERROR; a *= exp2(1.0 / 32)) *high = a;
}

static void channel_range(const float *a, uint32_t states, double *low, double *high) {
    *low = INFINITY, *high = 0;
    for (uint32_t n = 0; n < states; n++) {
        const double v = -(double)a[n];
        *low = v < *low ? v : *low, *high = v > *high ? v : *high;
    }
}

/* The rate counts that scan_ends is built for (scan.cu, launch_fitted). */
static uint32_t next_rates(uint32_t states, uint32_t k) {
    static const struct {
        uint32_t states, k[3];
    } built[] = {{16, {10, 20}}, {32, {12, 18, 24}}, {64, {16, 24}}};
    size_t row = 0;
    while (row < 3 && built[row].states < states) row++;
    if (row == 3) return 0;
    for (int i = 0; i < 3; i++)
        if (built[row].k[i] > k) return built[row].k[i];
    return 0;
}

uint32_t vx_scan_fit_rates(const vx_scan_shape *shape, const float *a) {
    if (shape->dtype == VX_F32) return 0;
    double widest = 1;
    for (uint32_t d = 0; d < shape->channels; d++) {
        double low, high;
        channel_range(a + (size_t)d * shape->states, shape->states, &low, &high);
        if (!(low > 0) || !(high < INFINITY)) return 0;
        if (high / low > widest) widest = high / low;
    }
    for (uint32_t k = next_rates(shape->states, 0); k; k = next_rates(shape->states, k)) {
        gram g;
        double low, high;
        gram_make(&g, k);
        good_range(&g, &low, &high);
        if (high / low >= widest) return k;
    }
    return 0;
}

size_t vx_scan_fit_weights(const vx_scan_shape *shape, uint32_t k) {
    const size_t octets = ((size_t)shape->channels + 7) / 8, tiles = (shape->states + 7) / 8;
    return octets * tiles * 64 * k;
}

/* Where the weight of channel d, state n and rate i lies. */
static size_t place(const vx_scan_shape *shape, uint32_t k, size_t d, size_t n, size_t i) {
    const size_t halves = (shape->states + 7) / 8 * 4; /* pairs of states */
    const size_t pair = ((d / 8) * (k / 2) + i / 2) * halves + n / 2;
    return (pair * 8 + d % 8) * 4 + n % 2 * 2 + i % 2;
}

void vx_scan_fit_fill(const vx_scan_shape *shape, const float *a, uint32_t k, float *rates,
                      float *weights) {
    gram g;
    double low, high, b[MOST_RATES], w[MOST_RATES];
    gram_make(&g, k);
    good_range(&g, &low, &high);
    memset(weights, 0, vx_scan_fit_weights(shape, k) * sizeof(float));
    for (uint32_t d = 0; d < shape->channels; d++) {
        const float *row = a + (size_t)d * shape->states;
        double least, most;
        channel_range(row, shape->states, &least, &most);
        /* The channel's range in the middle of the good one. */
        const double first = sqrt(least * most / (low * high));
        for (uint32_t i = 0; i < k; i++) rates[(size_t)d * k + i] = (float)(-first * g.node[i]);
        for (uint32_t n = 0; n < shape->states; n++) {
            const double rate = -(double)row[n] / first;
            solve(&g, rate, b, w);
            for (uint32_t i = 0; i < k; i++) /* back from unit exponentials */
                weights[place(shape, k, d, n, i)] = (float)(w[i] * sqrt(g.node[i] / rate));
        }
    }
}
