/* The selective scans of a step's mixers: their weights as the scan wants them, and one launch for
 * several of them. The mixers of a step differ in weights and order only. */
#ifndef VX_CUDA_MAMBA_SCAN_H
#define VX_CUDA_MAMBA_SCAN_H

#include "cuda/scan.h"
#include "cuda/step.h"

typedef struct vx_mamba_scan {
    vx_scan_shape shape;
    size_t scratch_bytes; /* for as many items as were asked for; a multiple of VX_CUDA_ALIGN */
} vx_mamba_scan;

/* Where the weights of one mixer lie in the step's weights, bytes. */
typedef struct vx_mamba_scan_weights {
    size_t a, skip, dt_bias;
    size_t dt_w;       /* with a rank */
    size_t rates, fit; /* with a fit */
} vx_mamba_scan_weights;

/* Chooses how the mixers' scans are made: with a fit where it pays, and from dt where they take it
 * (scan->shape.rank is then their rank, else 0) and `delta` does not say that they get delta.
 * items: sequences of a launch, at most VX_SCAN_MAX_ITEMS. VX_ERR_RESOURCE where they have more
 * tokens, channels or states than the scan takes. */
vx_status vx_cuda_mamba_scan_prepare(const vx_cuda_step *step, const vx_mamba *const *mixers,
                                     size_t count, bool delta, size_t items, vx_mamba_scan *scan,
                                     vx_error *err);

/* Reserves a mixer's weights in step->weight_bytes; false on overflow. */
bool vx_cuda_mamba_scan_place(vx_cuda_step *step, const vx_mamba_scan *scan,
                              vx_mamba_scan_weights *at);
/* host: the copy of the step's weights. */
vx_status vx_cuda_mamba_scan_pack(const vx_mamba_scan *scan, const vx_mamba *m,
                                  const vx_mamba_scan_weights *at, unsigned char *host,
                                  vx_error *err);

/* An item with its weights and walk; tensors and rows are the caller's. */
vx_scan_item vx_cuda_mamba_scan_item(const vx_cuda_step *step, const vx_mamba_scan *scan,
                                     const vx_mamba *m, const vx_mamba_scan_weights *at);

/* The scan order as a walk over one n of the step's input. */
vx_scan_walk vx_cuda_mamba_walk(const vx_scan_order *order, vx_shape shape);

#endif
