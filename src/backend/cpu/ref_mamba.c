/* The Mamba mixer as a recurrence over tokens (Gu & Dao 2023, arXiv:2312.00752, section 3 and
 * algorithm 2; the numbers are those of state-spaces/mamba's selective_scan_ref):
 *
 *   [u|z]    = in_proj x                               2D from C channels
 *   u_t      = SiLU(bias + sum_k conv[k] u_{t-K+1+k})  causal along the scan order, zeros before it
 *   [dt|B|C] = x_proj u                                R, N, N
 *   delta    = softplus(dt_w dt + dt_b)                D; the identity above 20
 *   h_t      = exp(delta A) h_{t-1} + delta B_t u_t    D x N, A = -exp(A_log)  (Euler for B)
 *   y        = out_proj ((C_t . h_t + D u) SiLU(z))
 */
#include <math.h>
#include <string.h>

#include "backend/cpu/ref.h"
#include "base/size.h"

size_t vx_scan_token(const vx_scan_order *order, vx_shape shape, size_t t) {
    const size_t dims[3] = {shape.d, shape.h, shape.w};
    const size_t strides[3] = {shape.h * shape.w, shape.w, 1};
    const int *axis = order->axis;
    if (order->reverse) t = shape.d * shape.h * shape.w - 1 - t;
    const size_t fast = t % dims[axis[2]], rest = t / dims[axis[2]];
    return rest / dims[axis[1]] * strides[axis[0]] + rest % dims[axis[1]] * strides[axis[1]] +
           fast * strides[axis[2]];
}

/* Where one token's numbers live inside the scratch. */
typedef struct token_scratch {
    double *window;                /* d_conv rows of u before the convolution, oldest first */
    double *u, *z, *delta, *gated; /* D each */
    double *dbc;                   /* R + 2N */
    double *h;                     /* D x N */
} token_scratch;

bool vx_ref_mamba_scratch(const vx_mamba *m, size_t *bytes) {
    size_t window, state, rows, doubles;
    return vx_mul_size(m->d_inner, m->d_conv, &window) &&
           vx_mul_size(m->d_inner, m->d_state, &state) && vx_mul_size(m->d_inner, 4, &rows) &&
           vx_mul_size(m->d_state, 2, &doubles) && vx_add_size(doubles, m->dt_rank, &doubles) &&
           vx_add_size(doubles, window, &doubles) && vx_add_size(doubles, state, &doubles) &&
           vx_add_size(doubles, rows, &doubles) && vx_mul_size(doubles, sizeof(double), bytes);
}

static token_scratch divide_scratch(const vx_mamba *m, void *scratch) {
    token_scratch s;
    s.window = scratch;
    s.u = s.window + m->d_conv * m->d_inner;
    s.z = s.u + m->d_inner;
    s.delta = s.z + m->d_inner;
    s.gated = s.delta + m->d_inner;
    s.dbc = s.gated + m->d_inner;
    s.h = s.dbc + m->dt_rank + 2 * m->d_state;
    return s;
}

static double dot_float(const float *w, const float *x, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += (double)w[i] * (double)x[i];
    return sum;
}

static double dot_double(const float *w, const double *x, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += (double)w[i] * x[i];
    return sum;
}

static double softplus(double x) { return x > 20 ? x : log1p(exp(x)); }

static double silu(double x) { return vx_ref_activate(x, VX_ACT_SILU, 0); }

/* in_proj and the causal convolution: fills u (after SiLU) and z. */
static void project_in(const float *x, size_t c, const vx_mamba *m, const vx_ref_mamba_weights *w,
                       const token_scratch *s) {
    const size_t D = m->d_inner, K = m->d_conv;
    double *newest = s->window + (K - 1) * D;
    memmove(s->window, s->window + D, (K - 1) * D * sizeof *s->window);
    for (size_t i = 0; i < D; i++) {
        newest[i] = dot_float(w->in_proj + i * c, x, c);
        s->z[i] = dot_float(w->in_proj + (D + i) * c, x, c);
    }
    for (size_t i = 0; i < D; i++) {
        double sum = (double)w->conv_b[i];
        for (size_t k = 0; k < K; k++) sum += (double)w->conv_w[i * K + k] * s->window[k * D + i];
        s->u[i] = silu(sum);
    }
}

/* delta, B and C from u, then one step of the state; fills gated. */
static void scan_token(const vx_mamba *m, const vx_ref_mamba_weights *w, const token_scratch *s) {
    const size_t D = m->d_inner, N = m->d_state, R = m->dt_rank;
    for (size_t j = 0; j < R + 2 * N; j++) s->dbc[j] = dot_double(w->x_proj + j * D, s->u, D);
    const double *B = s->dbc + R, *C = B + N;
    for (size_t i = 0; i < D; i++) {
        const double delta = softplus(dot_double(w->dt_w + i * R, s->dbc, R) + (double)w->dt_b[i]);
        double y = (double)w->d[i] * s->u[i];
        for (size_t n = 0; n < N; n++) {
            const double A = -exp((double)w->a_log[i * N + n]);
            double *h = &s->h[i * N + n];
            *h = exp(delta * A) * *h + delta * B[n] * s->u[i];
            y += C[n] * *h;
        }
        s->gated[i] = y * silu(s->z[i]);
    }
}

void vx_ref_mamba(const float *x, vx_shape shape, const vx_mamba *m, const vx_ref_mamba_weights *w,
                  void *scratch, float *y) {
    const token_scratch s = divide_scratch(m, scratch);
    const size_t tokens = shape.d * shape.h * shape.w, c = shape.c;
    for (size_t n = 0; n < shape.n; n++, x += tokens * c, y += tokens * c) {
        memset(s.window, 0, m->d_conv * m->d_inner * sizeof *s.window);
        memset(s.h, 0, m->d_inner * m->d_state * sizeof *s.h);
        for (size_t t = 0; t < tokens; t++) {
            const size_t token = vx_scan_token(&m->order, shape, t);
            project_in(x + token * c, c, m, w, &s);
            scan_token(m, w, &s);
            for (size_t k = 0; k < c; k++)
                y[token * c + k] =
                    (float)dot_double(w->out_proj + k * m->d_inner, s.gated, m->d_inner);
        }
    }
}
