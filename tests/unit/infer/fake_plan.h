/* What the fake backend's two halves share. */
#ifndef VX_TESTS_FAKE_PLAN_H
#define VX_TESTS_FAKE_PLAN_H

#include <stdatomic.h>

#include "backend/backend.h"

vx_status fake_run(vx_plan *plan, void *arena, const float *in, float *const *out, vx_error *err);

/* The network of fake_sweep's plans: fake_run, unless a test has plans of its own. */
extern vx_status (*fake_sweep_network)(vx_plan *plan, void *arena, const float *in,
                                       float *const *out, vx_error *err);
/* A number that depends on which tiles have been added, and in which order. */
extern atomic_size_t fake_sweep_order;
extern const vx_sweep_ops fake_sweep;

#endif
