/* The same as check.h for cuDNN and cuBLASLt. */
#ifndef VX_CUDA_CHECK_LIBRARIES_H
#define VX_CUDA_CHECK_LIBRARIES_H

#include <cublasLt.h>
#include <cudnn.h>

#include "cuda/check.h"

static inline vx_status vx_cudnn_check(cudnnStatus_t code, const char *what, vx_error *err) {
    if (code == CUDNN_STATUS_SUCCESS) return VX_OK;
    return vx_fail(err, VX_ERR_RESOURCE, "cuDNN: %s: %s", what, cudnnGetErrorString(code));
}

static inline vx_status vx_cublas_check(cublasStatus_t code, const char *what, vx_error *err) {
    if (code == CUBLAS_STATUS_SUCCESS) return VX_OK;
    return vx_fail(err, VX_ERR_RESOURCE, "cuBLASLt: %s: %s", what, cublasLtGetStatusName(code));
}

#endif
