/* The order in which the kernels of a Mamba layer want their weights (mamba_rows.cuh). */
#ifndef VX_CUDA_MAMBA_PACK_H
#define VX_CUDA_MAMBA_PACK_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Packs a matrix [outputs][inputs] of 16-bit numbers (multiples of 32; host memory) into as many
 * bytes: [outputs / 32][inputs / 32][tile: 4][lane: 32] pieces of 8 inputs of one output. */
void vx_cuda_pack_blocks(const void *matrix, size_t outputs, size_t inputs, void *packed);

#ifdef __cplusplus
}
#endif

#endif
