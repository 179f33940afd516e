/* What a session is made of: for session.c and session_plan.c. */
#ifndef VX_INFER_SESSION_IMPL_H
#define VX_INFER_SESSION_IMPL_H

#include "infer/prepare.h"
#include "infer/session.h"

struct vx_session {
    const vx_model *model;
    vx_session_options options;
    vx_device *device;
    vx_graph *graph;
    vx_plan *plan;
    vx_plan_info info;
    size_t classes;
    unsigned *values; /* label value of each class */
    unsigned mask_bytes;
    size_t pass_count; /* mirrored passes over a tile */
    unsigned passes[8];
};

#endif
