/* The sweeps of a CUDA device (backend/sweep.h has the contract). */
#ifndef VX_CUDA_SWEEP_H
#define VX_CUDA_SWEEP_H

#include "backend/sweep.h"

extern const vx_sweep_ops vx_cuda_sweep;

/* Tests: fills everything that a sweep writes before it reads it with 0xff (NaN, slots that do not
 * exist), and what lies between its parts with guard bytes; there is more of that where the device
 * was set to `separate`. */
vx_status vx_cuda_sweep_poison(vx_sweep *sweep, vx_error *err);
/* Tests: VX_ERR_RESOURCE when a guard byte was written since. */
vx_status vx_cuda_sweep_check_guards(const vx_sweep *sweep, vx_error *err);
/* Tests: the sums of the row that lives in slot, [x][class]. */
vx_status vx_cuda_sweep_row(const vx_sweep *sweep, uint32_t slot, float *row, vx_error *err);
/* Tests: all places, [place][voxel][class]. */
vx_status vx_cuda_sweep_places(const vx_sweep *sweep, float *places, vx_error *err);

#endif
