/* Norms that are left to a value's readers: where their numbers lie. */
#include "base/size.h"
#include "cuda/step.h"

bool vx_cuda_place_affine(const vx_cuda_step *writer, size_t *at, size_t *bytes) {
    const size_t dims[] = {writer->out.n, writer->out.c, sizeof(vx_cuda_affine)};
    size_t tail;
    *bytes = 0;
    return vx_cuda_reserve(bytes, vx_shape_elements(writer->out), 1, writer->dtype, at) &&
           vx_product(dims, 3, &tail) && vx_add_size(*at = *bytes, tail, bytes);
}

vx_cuda_affine *vx_cuda_affine_of(const vx_cuda_step *writer, const vx_cuda_run *run) {
    size_t at = 0, bytes;
    (void)vx_cuda_place_affine(writer, &at, &bytes); /* it did not overflow when it was placed */
    return (void *)((unsigned char *)run->value[writer->op->out] + at);
}

vx_cuda_pending vx_cuda_pending_of(const vx_cuda_step *reader, int k, const vx_cuda_run *run) {
    const vx_cuda_step *writer = reader->left_by[k];
    if (!writer) return (vx_cuda_pending){0};
    return (vx_cuda_pending){vx_cuda_affine_of(writer, run),
                             vx_cuda_slope_of(writer->op->act, writer->op->slope)};
}
