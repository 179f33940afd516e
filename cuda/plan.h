/* The CUDA backend's compile and run (backend.h has the contracts), and what its tests look at. */
#ifndef VX_CUDA_PLAN_H
#define VX_CUDA_PLAN_H

#include "cuda/step.h"

#ifdef __cplusplus
extern "C" {
#endif

extern const vx_backend vx_cuda_backend;

vx_status vx_cuda_compile(vx_device *device, const vx_graph *graph,
                          const vx_compile_options *options, vx_plan **out, vx_error *err);
void vx_cuda_plan_free(vx_plan *plan);
void vx_cuda_plan_info(const vx_plan *plan, vx_plan_info *out);
vx_status vx_cuda_run_plan(vx_plan *plan, void *arena, const float *in, float *const *out,
                           vx_error *err);

/* For a caller that has its numbers on the device (sweep.c): where the input is put and where the
 * last output lies, float32 and channels last, and a run between them, queued on the device's
 * stream. */
vx_device *vx_cuda_plan_device(const vx_plan *plan);
float *vx_cuda_plan_input(const vx_plan *plan);
const float *vx_cuda_plan_output(const vx_plan *plan);
vx_status vx_cuda_plan_launch(const vx_plan *plan, vx_error *err);

/* Tests: fills the device arena with 0xff (NaN in every type), and the guard bytes behind every
 * buffer with another byte, if the device was set to `separate`. */
vx_status vx_cuda_poison(vx_plan *plan, vx_error *err);
/* Tests: VX_ERR_RESOURCE when a guard byte was written since. */
vx_status vx_cuda_check_guards(const vx_plan *plan, vx_error *err);

/* Benchmarks: the graph that the plan runs (fused; op i is step i), the plan's. */
const vx_graph *vx_cuda_plan_graph(const vx_plan *plan);
/* Benchmarks: one run on `in` (as in vx_backend.run); *ms: the device's time from its first launch
 * to the end of its last, without the copies to and from the host. */
vx_status vx_cuda_time_run(const vx_plan *plan, const float *in, float *ms, vx_error *err);
/* Benchmarks: out [steps]: what each step takes inside a whole run, median of `runs`, and how many
 * kernels it launches. An event lies between the steps, so that their sum is above vx_cuda_time_run
 * by about a microsecond a step. */
enum { VX_CUDA_STEP_RUNS_MAX = 64 };
typedef struct vx_cuda_step_time {
    float ms;
    size_t launches;
} vx_cuda_step_time;
vx_status vx_cuda_time_steps(const vx_plan *plan, const float *in, size_t runs,
                             vx_cuda_step_time *out, vx_error *err);

#ifdef __cplusplus
}
#endif

#endif
