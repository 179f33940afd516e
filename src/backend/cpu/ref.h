/* The scalar truth: every op of the graph, written to be read, not to be fast.
 *
 * Pure functions of (inputs, parameters). Tensors are float32, channels last [n][d][h][w][c];
 * weights are float32 in PyTorch's layout. Sums run in double and are rounded once, at the end.
 * y never overlaps an input unless a comment says so. bias may be NULL. The fast ops are tested
 * against these.
 */
#ifndef VX_BACKEND_CPU_REF_H
#define VX_BACKEND_CPU_REF_H

#include "graph/graph.h"

/* Cross-correlation with zero padding, as torch.nn.Conv3d. weight (Cout, Cin, kd, kh, kw). */
void vx_ref_conv(const float *x, vx_shape in, const float *weight, const float *bias,
                 const size_t kernel[3], const size_t stride[3], const size_t pad[3], float *y,
                 vx_shape out);

/* torch.nn.ConvTranspose3d with kernel = stride and no padding: every output voxel has exactly one
 * input voxel. weight (Cin, Cout, sd, sh, sw); out = in * stride. */
void vx_ref_transposed_conv(const float *x, vx_shape in, const float *weight, const float *bias,
                            const size_t stride[3], float *y, vx_shape out);

/* torch.nn.InstanceNorm3d: mean and biased variance over the voxels of one n and channel.
 * y may be x. */
void vx_ref_instance_norm(const float *x, vx_shape shape, const float *gamma, const float *beta,
                          float eps, float *y);

/* torch.nn.LayerNorm over the channels of each token. y may be x. */
void vx_ref_layer_norm(const float *x, size_t tokens, size_t c, const float *gamma,
                       const float *beta, float eps, float *y);

/* One number through an activation. GELU is the exact one, x * Phi(x) (torch's default). */
double vx_ref_activate(double x, vx_activation act, float slope);

/* y may be x. */
void vx_ref_activation(const float *x, size_t elements, vx_activation act, float slope, float *y);

/* torch.nn.Linear on each token. weight (Cout, Cin). */
void vx_ref_linear(const float *x, size_t tokens, size_t c_in, size_t c_out, const float *weight,
                   const float *bias, float *y);

/* torch.nn.AvgPool3d(stride, stride): voxels beyond the last whole window are not read. */
void vx_ref_avg_pool(const float *x, vx_shape in, const size_t stride[3], float *y, vx_shape out);

/* torch.nn.Upsample(mode="nearest") by whole factors. */
void vx_ref_upsample_nearest(const float *x, vx_shape in, const size_t factor[3], float *y,
                             vx_shape out);

/* y = scale * (a + b). y may be a or b. */
void vx_ref_add(const float *a, const float *b, size_t elements, float scale, float *y);

/* y[t] = a[t] followed by b[t]. */
void vx_ref_concat(const float *a, size_t c_a, const float *b, size_t c_b, size_t tokens, float *y);

/* The mixer's weights as float32; shapes as in vx_mamba. */
typedef struct vx_ref_mamba_weights {
    const float *in_proj, *conv_w, *conv_b, *x_proj, *dt_w, *dt_b, *a_log, *d, *out_proj;
} vx_ref_mamba_weights;

/* Bytes of scratch of vx_ref_mamba; false on overflow. */
bool vx_ref_mamba_scratch(const vx_mamba *m, size_t *bytes);

/* The Mamba mixer, one token after the other (ref_mamba.c has the equations). Each n is a sequence
 * of its own. scratch is aligned for double. */
void vx_ref_mamba(const float *x, vx_shape shape, const vx_mamba *m, const vx_ref_mamba_weights *w,
                  void *scratch, float *y);

/* Token (index into the grid's memory order) that stands at position t of the scan. */
size_t vx_scan_token(const vx_scan_order *order, vx_shape shape, size_t t);

#endif
