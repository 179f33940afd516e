/* Many cases: their list, their outcomes, and the report of both. */
#ifndef VX_API_BATCH_H
#define VX_API_BATCH_H

#include "api/cases.h"
#include "api/devices.h"
#include "api/outputs.h"
#include "api/pipeline.h"

struct vxm_batch {
    vxm_batch_options options;
    vxm_segment_options segment;
    vx_case_list list; /* all cases found */
    vx_output_rule rule;
    /* This shard's cases, in order. */
    size_t count;
    size_t *index; /* into list.cases */
    vx_target *targets;
    vxm_case *cases; /* their errors and results are owned */
    cJSON *run;      /* what the report says of the run as a whole; NULL before it */
    double started;  /* vx_seconds() */
    double finished; /* 0 before */
};

/* Grid and channels of the first case that can be read; the error of the first when none can. */
vxm_status vx_batch_first_geometry(const vxm_batch *batch, vx_geometry *geo, size_t *channels,
                                   vxm_error *error);

/* vxm_batch_run with devices from elsewhere than the machine. */
vxm_status vx_batch_run_on(vxm_batch *batch, const vxm_model *model,
                           const vxm_session_options *session, const vx_device_source *source,
                           vxm_error *error);

/* ---- run_report.c ---- */

/* Tool, model, options, device: the head of the report. session: one of all; workers: cases at a
 * time; devices: how many of them are used. */
cJSON *vx_run_json(const vxm_batch *batch, const vxm_session *session, const vx_choices *choices,
                   unsigned workers, unsigned devices);
cJSON *vx_batch_report(const vxm_batch *batch);
cJSON *vx_batch_stats(const vxm_batch *batch);

#endif
