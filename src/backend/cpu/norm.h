/* Instance norm in three passes: moments of each piece (a stretch of tokens, while it is in
 * cache), their combination in fixed order, then norm + residual + activation in one sweep. */
#ifndef VX_BACKEND_CPU_NORM_H
#define VX_BACKEND_CPU_NORM_H

#include "backend/cpu/cpu.h"

typedef struct vx_norm {
    size_t n, tokens, c;         /* tokens: of one n */
    size_t pieces, piece_tokens; /* of one n; the last piece may be shorter */
    float eps, slope;
    vx_activation act;
} vx_norm;

/* Bytes shared by the step, and of one worker; false on overflow. */
bool vx_norm_scratch(const vx_norm *norm, size_t *shared, size_t *worker);
/* Moments of piece p of number n of y (the whole tensor). */
void vx_norm_piece(const vx_norm *norm, const vx_cpu_run *run, const void *y, size_t n, size_t p,
                   void *worker_scratch);
/* After all pieces: y = act(norm(x) + residual); residual may be NULL; y may be x. */
void vx_norm_apply(const vx_norm *norm, const vx_cpu_run *run, const float *gamma,
                   const float *beta, const void *x, const void *residual, void *y);

#endif
