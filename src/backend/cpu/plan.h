/* The CPU backend's compile and run (backend.h has the contracts). */
#ifndef VX_BACKEND_CPU_PLAN_H
#define VX_BACKEND_CPU_PLAN_H

#include "backend/cpu/cpu.h"

vx_status vx_cpu_compile(vx_device *device, const vx_graph *graph,
                         const vx_compile_options *options, vx_plan **out, vx_error *err);
void vx_cpu_plan_free(vx_plan *plan);
void vx_cpu_plan_info(const vx_plan *plan, vx_plan_info *out);
vx_status vx_cpu_run_plan(vx_plan *plan, void *arena, const float *in, float *const *out,
                          vx_error *err);

#endif
