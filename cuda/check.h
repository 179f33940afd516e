/* The CUDA runtime's return codes as the project's status: every call goes through one of these.
 * what: the step in words, for the message. */
#ifndef VX_CUDA_CHECK_H
#define VX_CUDA_CHECK_H

#include <cuda_runtime_api.h>

#ifdef __cplusplus
extern "C" {
#endif

#include "base/status.h"

#ifdef __cplusplus
}
#endif

static inline vx_status vx_cuda_check(cudaError_t code, const char *what, vx_error *err) {
    if (code == cudaSuccess) return VX_OK;
    (void)cudaGetLastError(); /* a failed launch must not be reported again by the next one */
    return vx_fail(err, VX_ERR_RESOURCE, "CUDA: %s: %s", what, cudaGetErrorString(code));
}

/* After a kernel launch. */
static inline vx_status vx_cuda_launched(const char *what, vx_error *err) {
    return vx_cuda_check(cudaGetLastError(), what, err);
}

/* Before one: a shape that a launch cannot take. */
static inline vx_status vx_cuda_too_large(const char *what, vx_error *err) {
    return vx_fail(err, VX_ERR_RESOURCE, "%s: the tensor is larger than the CUDA backend takes",
                   what);
}

#endif
