/* Matrix products through cuBLASLt: y = x w^T (+ bias) (+ c), on rows of tokens.
 *
 *   x [rows][depth]      row stride x_row elements, type `type`
 *   w [columns][depth]   packed, type `type` (PyTorch's Linear)
 *   y [rows][columns]    row stride y_row elements, type `out_type` (`type` or float)
 *   bias [columns]       out_type
 *   c [rows][columns]    as y; may be y
 *
 * Sums are fp32; with fp32 storage no TF32. Split sums are added in fp32 in a fixed order, so runs
 * repeat to the bit.
 */
#ifndef VX_CUDA_GEMM_H
#define VX_CUDA_GEMM_H

#include "cuda/step.h"

typedef struct vx_cuda_gemm_shape {
    size_t rows, columns, depth, x_row, y_row;
    vx_dtype type, out_type;
    bool bias, add; /* add: c is given */
} vx_cuda_gemm_shape;

typedef struct vx_cuda_gemm {
    cublasLtMatmulDesc_t product;
    cublasLtMatrixLayout_t w, x, y;
    cublasLtMatmulAlgo_t algorithm;
    size_t workspace_bytes; /* of device scratch, VX_CUDA_ALIGN aligned; may be 0 */
    bool add;
} vx_cuda_gemm;

/* Chooses the algorithm by cuBLASLt's heuristic. gemm: zeroed; vx_cuda_gemm_destroy also after a
 * failure. VX_ERR_RESOURCE when cuBLASLt has none. */
vx_status vx_cuda_gemm_create(const vx_device *device, const vx_cuda_gemm_shape *shape,
                              vx_cuda_gemm *gemm, vx_error *err);
void vx_cuda_gemm_destroy(vx_cuda_gemm *gemm);

/* Queues the product. Pointers VX_CUDA_ALIGN aligned; bias and c are not read unless asked for. */
vx_status vx_cuda_gemm_launch(const vx_device *device, const vx_cuda_gemm *gemm, const void *x,
                              const void *w, const void *bias, const void *c, void *y,
                              void *workspace, cudaStream_t stream, vx_error *err);

#endif
