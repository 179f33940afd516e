/* Normalisations: Ulyanov et al. 2016 (arXiv:1607.08022) for instance norm, Ba et al. 2016
 * (arXiv:1607.06450) for layer norm. Two passes: mean first, then the variance about it. */
#include <math.h>

#include "backend/cpu/ref.h"

/* Mean and 1 / sqrt(biased variance + eps) of count numbers that stand step apart. */
static void moments(const float *x, size_t count, size_t step, double eps, double *mean_out,
                    double *inv_out) {
    double mean = 0, variance = 0;
    for (size_t i = 0; i < count; i++) mean += (double)x[i * step];
    mean /= (double)count;
    for (size_t i = 0; i < count; i++) {
        const double e = (double)x[i * step] - mean;
        variance += e * e;
    }
    variance /= (double)count;
    *mean_out = mean;
    *inv_out = 1.0 / sqrt(variance + eps);
}

void vx_ref_instance_norm(const float *x, vx_shape shape, const float *gamma, const float *beta,
                          float eps, float *y) {
    const size_t voxels = shape.d * shape.h * shape.w, c = shape.c;
    for (size_t n = 0; n < shape.n; n++)
        for (size_t k = 0; k < c; k++) {
            const float *from = x + n * voxels * c + k;
            float *to = y + n * voxels * c + k;
            double mean, inv;
            moments(from, voxels, c, (double)eps, &mean, &inv);
            for (size_t i = 0; i < voxels; i++)
                to[i * c] = (float)(((double)from[i * c] - mean) * inv * (double)gamma[k] +
                                    (double)beta[k]);
        }
}

void vx_ref_layer_norm(const float *x, size_t tokens, size_t c, const float *gamma,
                       const float *beta, float eps, float *y) {
    for (size_t t = 0; t < tokens; t++) {
        const float *from = x + t * c;
        float *to = y + t * c;
        double mean, inv;
        moments(from, c, 1, (double)eps, &mean, &inv);
        for (size_t k = 0; k < c; k++)
            to[k] = (float)(((double)from[k] - mean) * inv * (double)gamma[k] + (double)beta[k]);
    }
}
