/* Exponentials as sums of few: for all rates a of a channel,
 *
 *   exp(a R) = sum_k w[k] exp(r[k] R)   for every R >= 0, with r[k] = r[0] 2^(k/2)
 *
 * to a relative L2 error over R of VX_SCAN_FIT_ERROR. exp(a R) is an analytic function of log a, so
 * that few rates suffice (K = 2 log2(max a / min a) + 2, about). The weights are the least-squares
 * ones; the Gram matrix of exponentials is a Cauchy matrix, 1 / (r[i] + r[j]), and with geometric
 * rates it is the same for every channel. The selective scan uses them where it needs a chunk's end
 * state only (scan_ends.cuh).
 */
#ifndef VX_CUDA_SCAN_FIT_H
#define VX_CUDA_SCAN_FIT_H

#include "cuda/scan.h"

#ifdef __cplusplus
extern "C" {
#endif

#define VX_SCAN_FIT_ERROR 2e-4

/* The K that suffices for this shape and a ([D][N], negative, host memory), as shape->rates; 0: the
 * storage is fp32, N is above 64 or the range of some channel's a is too wide, and the scan works
 * without a fit. Whether a fit is worth it says vx_cuda_scan_fit_pays. Items of one launch need the
 * same K: the largest of theirs. */
uint32_t vx_scan_fit_rates(const vx_scan_shape *shape, const float *a);

/* Floats of the weights for K = k. */
size_t vx_scan_fit_weights(const vx_scan_shape *shape, uint32_t k);

/* Fills rates [D][K] and the weights, host memory, for a K of at least vx_scan_fit_rates(shape, a)
 * that this function returned for the same N. The weights lie as the lanes of scan_ends hold them,
 * [D / 8][K / 2][N / 2][8 channels][2 states][2 rates], D and N rounded up to multiples of 8 with
 * zeros. */
void vx_scan_fit_fill(const vx_scan_shape *shape, const float *a, uint32_t k, float *rates,
                      float *weights);

#ifdef __cplusplus
}
#endif

#endif
