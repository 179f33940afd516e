/* What the kernels of a Mamba layer share (mamba_in.cu, mamba_out.cu): products of tokens whose
 * numbers pass from load to norm to product to store in the same registers.
 *
 * The order of a product's inputs and outputs is free as long as the weights are packed in it
 * (mamba_pack.h). Of a warp's 32 tokens and a block of 32 features, lane 4g + q holds, of four
 * rows, the features 8q .. 8q + 7: sixteen bytes of a row as they lie in memory. Rows 0 and 1 are
 * rows g and g + 8 of the first product of 16 rows, rows 2 and 3 of the second; which tokens they
 * are is the kernel's choice. As outputs, features 8q + 2j and 8q + 2j + 1 are columns 2q and 2q +
 * 1 of the product's tile j; as inputs, features 8q + 4s .. 8q + 4s + 3 are columns 2q, 2q + 1, 2q
 * + 8 and 2q + 9 of step s.
 */
#ifndef VX_CUDA_MAMBA_ROWS_CUH
#define VX_CUDA_MAMBA_ROWS_CUH

#include "cuda/device.cuh"

namespace vx_cuda {

template <typename T> __device__ inline void widen8(uint4 from, float (&to)[8]) {
    const uint32_t v[4] = {from.x, from.y, from.z, from.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const float2 w = pair<T>::wide(v[i]);
        to[2 * i] = w.x, to[2 * i + 1] = w.y;
    }
}
template <typename T> __device__ inline uint4 narrow8(const float (&from)[8]) {
    return make_uint4(pair<T>::pack(from[0], from[1]), pair<T>::pack(from[2], from[3]),
                      pair<T>::pack(from[4], from[5]), pair<T>::pack(from[6], from[7]));
}
__device__ inline void load8(const float *from, float (&to)[8]) {
    const float4 a = *(const float4 *)from, b = *(const float4 *)(from + 4);
    to[0] = a.x, to[1] = a.y, to[2] = a.z, to[3] = a.w;
    to[4] = b.x, to[5] = b.y, to[6] = b.z, to[7] = b.w;
}

/* Of each of four numbers the sum over the four lanes that share rows. */
__device__ inline void sum_lanes(float (&part)[4]) {
#pragma unroll
    for (int r = 0; r < 4; r++) {
        part[r] += __shfl_xor_sync(ALL_LANES, part[r], 1);
        part[r] += __shfl_xor_sync(ALL_LANES, part[r], 2);
    }
}

/* LayerNorm in place of rows of 1 / inverse numbers, of which a lane has v, of BLOCKS blocks in
 * sequence, gamma and beta from its first on. sum(part) makes of its part of each row's sum the
 * whole, the same in every lane. */
template <int BLOCKS, typename SUM>
__device__ inline void normalise_rows(float (&v)[BLOCKS][4][8], const float *gamma,
                                      const float *beta, float inverse, float eps, const SUM &sum) {
    float mean[4], scale[4], g[8], b[8];
#pragma unroll
    for (int r = 0; r < 4; r++) {
        mean[r] = 0;
#pragma unroll
        for (int k = 0; k < BLOCKS; k++)
#pragma unroll
            for (int i = 0; i < 8; i++) mean[r] += v[k][r][i];
    }
    sum(mean);
#pragma unroll
    for (int r = 0; r < 4; r++) {
        mean[r] *= inverse;
        scale[r] = 0;
#pragma unroll
        for (int k = 0; k < BLOCKS; k++)
#pragma unroll
            for (int i = 0; i < 8; i++) {
                v[k][r][i] -= mean[r];
                scale[r] = fmaf(v[k][r][i], v[k][r][i], scale[r]);
            }
    }
    sum(scale);
#pragma unroll
    for (int r = 0; r < 4; r++) scale[r] = rsqrtf(fmaf(scale[r], inverse, eps));
#pragma unroll
    for (int k = 0; k < BLOCKS; k++) {
        load8(gamma + 32 * k, g), load8(beta + 32 * k, b);
#pragma unroll
        for (int r = 0; r < 4; r++)
#pragma unroll
            for (int i = 0; i < 8; i++) v[k][r][i] = fmaf(v[k][r][i] * scale[r], g[i], b[i]);
    }
}

/* A lane's 8 inputs of four rows as operands of the product: [first or last two rows][step]. */
__device__ inline void operands(const uint4 (&rows)[4], uint4 (&a)[4]) {
#pragma unroll
    for (int m = 0; m < 2; m++) {
        const uint4 lo = rows[2 * m], hi = rows[2 * m + 1];
        a[2 * m] = make_uint4(lo.x, hi.x, lo.y, hi.y);
        a[2 * m + 1] = make_uint4(lo.z, hi.z, lo.w, hi.w);
    }
}

/* sum [row][8] of one block of outputs += 32 inputs, of which a lane has operands, times packed
 * weights: `weights` is this lane's first piece of these inputs and outputs, in shared or in global
 * memory. */
template <typename T, bool SHARED = false>
__device__ inline void multiply_block(const uint4 (&in)[4], const uint4 *weights,
                                      float (&sum)[4][8]) {
    uint32_t a[4][4];
#pragma unroll
    for (int i = 0; i < 4; i++)
        a[i][0] = in[i].x, a[i][1] = in[i].y, a[i][2] = in[i].z, a[i][3] = in[i].w;
#pragma unroll
    for (int j = 0; j < 4; j++) {
        const uint4 w = SHARED ? weights[32 * j] : __ldg(weights + 32 * j);
#pragma unroll
        for (int m = 0; m < 2; m++) {
            float *lo = &sum[2 * m][2 * j], *hi = &sum[2 * m + 1][2 * j];
            float c[4] = {lo[0], lo[1], hi[0], hi[1]};
            multiply_add<T>(c, a[2 * m], w.x, w.y);
            multiply_add<T>(c, a[2 * m + 1], w.z, w.w);
            lo[0] = c[0], lo[1] = c[1], hi[0] = c[2], hi[1] = c[3];
        }
    }
}

/* This lane's first piece of packed weights with `inputs` inputs, for a block of outputs; the next
 * 32 inputs are 128 pieces further. */
__device__ inline const uint4 *weights_of(const void *packed, uint32_t inputs, uint32_t block,
                                          uint32_t lane) {
    return (const uint4 *)packed + (size_t)block * (inputs / 32) * 128 + lane;
}

} // namespace vx_cuda

#endif
