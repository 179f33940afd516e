#include "cuda/gemm.h"

#include "cuda/check_libraries.h"

/* Scratch that a product may take: what NVIDIA recommends for Hopper. */
enum { WORKSPACE_MAX = 32 << 20 };

static cudaDataType_t data_type(vx_dtype type) {
    return type == VX_F32 ? CUDA_R_32F : type == VX_F16 ? CUDA_R_16F : CUDA_R_16BF;
}

static vx_status set(cublasLtMatmulDesc_t product, cublasLtMatmulDescAttributes_t attribute,
                     const void *value, size_t bytes, vx_error *err) {
    return vx_cublas_check(cublasLtMatmulDescSetAttribute(product, attribute, value, bytes),
                           "describing a matrix product", err);
}

/* cuBLAS is column-major: row-major y is its y^T = (w^T)^T x^T, so w comes first. */
static vx_status describe(const vx_cuda_gemm_shape *s, vx_cuda_gemm *gemm, vx_error *err) {
    const cublasOperation_t transpose = CUBLAS_OP_T;
    const cublasLtEpilogue_t epilogue =
        s->bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
    const cudaDataType_t bias_type = data_type(s->out_type);
    /* The real one is set at each launch; the heuristic only asks how it is aligned. */
    const void *bias = (const void *)VX_CUDA_ALIGN;
    vx_status status =
        vx_cublas_check(cublasLtMatmulDescCreate(&gemm->product, CUBLAS_COMPUTE_32F, CUDA_R_32F),
                        "describing a matrix product", err);
    if (status == VX_OK)
        status = set(gemm->product, CUBLASLT_MATMUL_DESC_TRANSA, &transpose, sizeof transpose, err);
    if (status == VX_OK)
        status = set(gemm->product, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue, err);
    if (status == VX_OK && s->bias)
        status = set(gemm->product, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &bias_type,
                     sizeof bias_type, err);
    if (status == VX_OK && s->bias)
        status = set(gemm->product, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof bias, err);
    if (status != VX_OK) return status;
    cublasStatus_t code = cublasLtMatrixLayoutCreate(&gemm->w, data_type(s->type), s->depth,
                                                     s->columns, (int64_t)s->depth);
    if (code == CUBLAS_STATUS_SUCCESS)
        code = cublasLtMatrixLayoutCreate(&gemm->x, data_type(s->type), s->depth, s->rows,
                                          (int64_t)s->x_row);
    if (code == CUBLAS_STATUS_SUCCESS)
        code = cublasLtMatrixLayoutCreate(&gemm->y, data_type(s->out_type), s->columns, s->rows,
                                          (int64_t)s->y_row);
    return vx_cublas_check(code, "describing a matrix", err);
}

static vx_status choose(const vx_device *device, const vx_cuda_gemm_shape *s, vx_cuda_gemm *gemm,
                        vx_error *err) {
    const size_t workspace = WORKSPACE_MAX;
    const uint32_t schemes =
        CUBLASLT_REDUCTION_SCHEME_NONE | CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    cublasLtMatmulPreference_t preference = NULL;
    cublasLtMatmulHeuristicResult_t result;
    int found = 0;
    cublasStatus_t code = cublasLtMatmulPreferenceCreate(&preference);
    if (code == CUBLAS_STATUS_SUCCESS)
        code = cublasLtMatmulPreferenceSetAttribute(
            preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace);
    if (code == CUBLAS_STATUS_SUCCESS)
        code = cublasLtMatmulPreferenceSetAttribute(
            preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &schemes, sizeof schemes);
    if (code == CUBLAS_STATUS_SUCCESS)
        code = cublasLtMatmulAlgoGetHeuristic(device->blas, gemm->product, gemm->w, gemm->x,
                                              gemm->y, gemm->y, preference, 1, &result, &found);
    if (preference) cublasLtMatmulPreferenceDestroy(preference);
    if (code == CUBLAS_STATUS_SUCCESS && found > 0 && result.state == CUBLAS_STATUS_SUCCESS) {
        gemm->algorithm = result.algo;
        gemm->workspace_bytes = result.workspaceSize;
        return VX_OK;
    }
    return vx_fail(err, VX_ERR_RESOURCE,
                   "cuBLASLt has no product of %zu x %zu and %zu x %zu for this device: %s",
                   s->rows, s->depth, s->depth, s->columns, cublasLtGetStatusName(code));
}

vx_status vx_cuda_gemm_create(const vx_device *device, const vx_cuda_gemm_shape *shape,
                              vx_cuda_gemm *gemm, vx_error *err) {
    gemm->add = shape->add;
    vx_status status = describe(shape, gemm, err);
    return status == VX_OK ? choose(device, shape, gemm, err) : status;
}

void vx_cuda_gemm_destroy(vx_cuda_gemm *gemm) {
    if (gemm->product) cublasLtMatmulDescDestroy(gemm->product);
    if (gemm->w) cublasLtMatrixLayoutDestroy(gemm->w);
    if (gemm->x) cublasLtMatrixLayoutDestroy(gemm->x);
    if (gemm->y) cublasLtMatrixLayoutDestroy(gemm->y);
    *gemm = (vx_cuda_gemm){0};
}

vx_status vx_cuda_gemm_launch(const vx_device *device, const vx_cuda_gemm *gemm, const void *x,
                              const void *w, const void *bias, const void *c, void *y,
                              void *workspace, cudaStream_t stream, vx_error *err) {
    const float one = 1, beta = gemm->add ? 1 : 0;
    if (bias) {
        vx_status status =
            set(gemm->product, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof(void *), err);
        if (status != VX_OK) return status;
    }
    return vx_cublas_check(cublasLtMatmul(device->blas, gemm->product, &one, w, gemm->w, x, gemm->x,
                                          &beta, gemm->add ? c : y, gemm->y, y, gemm->y,
                                          &gemm->algorithm, workspace, gemm->workspace_bytes,
                                          stream),
                           "a matrix product", err);
}
