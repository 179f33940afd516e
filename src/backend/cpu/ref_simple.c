/* Element-wise ops, linear layers, pooling, upsampling, concatenation. */
#include <math.h>
#include <string.h>

#include "backend/cpu/ref.h"

double vx_ref_activate(double x, vx_activation act, float slope) {
    switch (act) {
    case VX_ACT_NONE:
        return x;
    case VX_ACT_RELU:
        return x > 0 || isnan(x) ? x : 0;
    case VX_ACT_LEAKY_RELU:
        return x > 0 ? x : x * (double)slope;
    case VX_ACT_GELU: /* Hendrycks & Gimpel 2016, arXiv:1606.08415, the exact form */
        return x * 0.5 * erfc(-x * 0.70710678118654752440);
    case VX_ACT_SILU: /* Elfwing et al. 2017, arXiv:1702.03118 */
        return x / (1 + exp(-x));
    }
    return x;
}

void vx_ref_activation(const float *x, size_t elements, vx_activation act, float slope, float *y) {
    for (size_t i = 0; i < elements; i++) y[i] = (float)vx_ref_activate((double)x[i], act, slope);
}

void vx_ref_linear(const float *x, size_t tokens, size_t c_in, size_t c_out, const float *weight,
                   const float *bias, float *y) {
    for (size_t t = 0; t < tokens; t++)
        for (size_t co = 0; co < c_out; co++) {
            double sum = bias ? (double)bias[co] : 0.0;
            for (size_t ci = 0; ci < c_in; ci++)
                sum += (double)x[t * c_in + ci] * (double)weight[co * c_in + ci];
            y[t * c_out + co] = (float)sum;
        }
}

void vx_ref_avg_pool(const float *x, vx_shape in, const size_t stride[3], float *y, vx_shape out) {
    const double share = 1.0 / (double)(stride[0] * stride[1] * stride[2]);
    for (size_t n = 0; n < out.n; n++)
        for (size_t oz = 0; oz < out.d; oz++)
            for (size_t oy = 0; oy < out.h; oy++)
                for (size_t ox = 0; ox < out.w; ox++)
                    for (size_t k = 0; k < out.c; k++) {
                        double sum = 0;
                        for (size_t z = oz * stride[0]; z < (oz + 1) * stride[0]; z++)
                            for (size_t r = oy * stride[1]; r < (oy + 1) * stride[1]; r++)
                                for (size_t v = ox * stride[2]; v < (ox + 1) * stride[2]; v++)
                                    sum += (double)
                                        x[(((n * in.d + z) * in.h + r) * in.w + v) * in.c + k];
                        *y++ = (float)(sum * share);
                    }
}

void vx_ref_upsample_nearest(const float *x, vx_shape in, const size_t factor[3], float *y,
                             vx_shape out) {
    for (size_t n = 0; n < out.n; n++)
        for (size_t oz = 0; oz < out.d; oz++)
            for (size_t oy = 0; oy < out.h; oy++)
                for (size_t ox = 0; ox < out.w; ox++, y += out.c) {
                    const size_t token =
                        ((n * in.d + oz / factor[0]) * in.h + oy / factor[1]) * in.w +
                        ox / factor[2];
                    memcpy(y, x + token * in.c, in.c * sizeof *y);
                }
}

void vx_ref_add(const float *a, const float *b, size_t elements, float scale, float *y) {
    for (size_t i = 0; i < elements; i++) y[i] = scale * (a[i] + b[i]);
}

void vx_ref_concat(const float *a, size_t c_a, const float *b, size_t c_b, size_t tokens,
                   float *y) {
    for (size_t t = 0; t < tokens; t++, y += c_a + c_b) {
        memcpy(y, a + t * c_a, c_a * sizeof *y);
        memcpy(y + c_a, b + t * c_b, c_b * sizeof *y);
    }
}
