/* Instance norm in three passes: moments of each cell (a stretch of tokens, while it is in
 * cache), their combination in fixed order, then norm + residual + activation in one sweep. */
#ifndef VX_BACKEND_CPU_NORM_H
#define VX_BACKEND_CPU_NORM_H

#include "backend/cpu/cpu.h"
#include "backend/cpu/cut.h"

typedef struct vx_norm {
    size_t n, c;
    vx_cut cut; /* of one n */
    float eps, slope;
    vx_activation act;
} vx_norm;

/* Bytes shared by the step (the first of its scratch), and of one worker; false on overflow. */
bool vx_norm_scratch(const vx_norm *norm, size_t *shared, size_t *worker);
/* Moments of one cell of number n of y (the whole tensor). */
void vx_norm_cell(const vx_norm *norm, const vx_cpu_run *run, const void *y, size_t n, size_t plane,
                  size_t cell, void *worker_scratch);
/* After all cells: y = act(norm(x) + residual); residual may be NULL; y may be x. */
void vx_norm_apply(const vx_norm *norm, const vx_cpu_run *run, const float *gamma,
                   const float *beta, const void *x, const void *residual, void *y);

#endif
