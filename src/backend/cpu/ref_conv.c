/* Convolutions by their definition (torch.nn.Conv3d, torch.nn.ConvTranspose3d). */
#include "backend/cpu/ref.h"

/* Offset of token (n, z, y, x). */
static size_t token_at(vx_shape s, size_t n, size_t z, size_t y, size_t x) {
    return ((n * s.d + z) * s.h + y) * s.w + x;
}

/* Input coordinate under tap k of output coordinate o; false when it lies in the padding. */
static bool tap(size_t o, size_t stride, size_t k, size_t pad, size_t size, size_t *i) {
    const size_t padded = o * stride + k;
    if (padded < pad || padded - pad >= size) return false;
    *i = padded - pad;
    return true;
}

/* One output number: sum over taps and input channels. w points at weight[co]. */
static double conv_at(const float *x, vx_shape in, const float *w, const size_t kernel[3],
                      const size_t stride[3], const size_t pad[3], size_t n, const size_t o[3]) {
    const size_t taps = kernel[0] * kernel[1] * kernel[2];
    double sum = 0;
    size_t i[3];
    for (size_t kz = 0; kz < kernel[0]; kz++) {
        if (!tap(o[0], stride[0], kz, pad[0], in.d, &i[0])) continue;
        for (size_t ky = 0; ky < kernel[1]; ky++) {
            if (!tap(o[1], stride[1], ky, pad[1], in.h, &i[1])) continue;
            for (size_t kx = 0; kx < kernel[2]; kx++) {
                if (!tap(o[2], stride[2], kx, pad[2], in.w, &i[2])) continue;
                const float *voxel = x + token_at(in, n, i[0], i[1], i[2]) * in.c;
                const float *at = w + (kz * kernel[1] + ky) * kernel[2] + kx;
                for (size_t ci = 0; ci < in.c; ci++)
                    sum += (double)voxel[ci] * (double)at[ci * taps];
            }
        }
    }
    return sum;
}

void vx_ref_conv(const float *x, vx_shape in, const float *weight, const float *bias,
                 const size_t kernel[3], const size_t stride[3], const size_t pad[3], float *y,
                 vx_shape out) {
    const size_t filter = in.c * kernel[0] * kernel[1] * kernel[2];
    size_t o[3];
    for (size_t n = 0; n < out.n; n++)
        for (o[0] = 0; o[0] < out.d; o[0]++)
            for (o[1] = 0; o[1] < out.h; o[1]++)
                for (o[2] = 0; o[2] < out.w; o[2]++)
                    for (size_t co = 0; co < out.c; co++) {
                        double sum =
                            conv_at(x, in, weight + co * filter, kernel, stride, pad, n, o);
                        *y++ = (float)(sum + (bias ? (double)bias[co] : 0.0));
                    }
}

void vx_ref_transposed_conv(const float *x, vx_shape in, const float *weight, const float *bias,
                            const size_t stride[3], float *y, vx_shape out) {
    const size_t taps = stride[0] * stride[1] * stride[2];
    for (size_t n = 0; n < out.n; n++)
        for (size_t oz = 0; oz < out.d; oz++)
            for (size_t oy = 0; oy < out.h; oy++)
                for (size_t ox = 0; ox < out.w; ox++) {
                    const float *voxel =
                        x + token_at(in, n, oz / stride[0], oy / stride[1], ox / stride[2]) * in.c;
                    const size_t k =
                        (oz % stride[0] * stride[1] + oy % stride[1]) * stride[2] + ox % stride[2];
                    for (size_t co = 0; co < out.c; co++) {
                        double sum = bias ? (double)bias[co] : 0.0;
                        for (size_t ci = 0; ci < in.c; ci++)
                            sum += (double)voxel[ci] * (double)weight[(ci * out.c + co) * taps + k];
                        *y++ = (float)sum;
                    }
                }
}
