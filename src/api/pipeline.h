/* One case, and what it reports. */
#ifndef VX_API_PIPELINE_H
#define VX_API_PIPELINE_H

#include <pthread.h>
#include <stdatomic.h>

#include "api/cases.h"
#include "api/internal.h"
#include "api/outputs.h"

/* What all cases of a run share: the caller's callbacks, one at a time, and the wish to stop. */
typedef struct vx_run_state {
    pthread_mutex_t lock;
    vxm_callbacks callbacks;
    size_t case_count;
    size_t cases_done; /* guarded by lock */
    atomic_bool cancelled;
    /* memory.c */
    uint64_t memory_limit; /* 0: what the machine has free */
    uint64_t memory_fixed; /* resident before the first case: program, weights */
    uint64_t memory_taken; /* by the cases that run; this and the next two guarded by lock */
    unsigned memory_holders;
    pthread_cond_t memory_given;
} vx_run_state;
void vx_run_state_init(vx_run_state *state, const vxm_callbacks *callbacks, size_t case_count);
void vx_run_state_destroy(vx_run_state *state);

/* A result under construction; its warnings are gathered from the log. */
typedef struct vx_result {
    vxm_result pub; /* first: a vxm_result * is a vx_result * */
    size_t warning_room;
    char **warnings;
    vxm_label_result *labels;
    vx_geometry geo;
    cJSON *outputs; /* vx_outputs_json, once they are written */
} vx_result;

/* One case on its way. */
typedef struct vx_case_run {
    vxm_session *session;
    const vx_choices *choices;
    const vx_case_files *files;
    const vx_target *target;
    size_t number;
    bool resume;
    vx_run_state *state;
    struct vx_read_ahead *ahead; /* has hashed and read the input already; NULL: nobody has */
    /* Made by vx_case_begin. */
    vx_log log;
    vx_result *result;
    double from, share;  /* progress of the part that runs now: from + share * fraction */
    bool memory_held;    /* between vx_memory_take and vx_memory_give */
    uint64_t memory_own; /* what was taken */
    bool repeated;       /* in fp32: it had overflown in half precision */
    bool consume;        /* the plan that was taken: the image is used up and read again */
} vx_case_run;

/* result NULL afterwards only without memory (VXM_ERR_RESOURCE). */
vxm_status vx_case_begin(vx_case_run *run, vxm_error *error);
void vx_case_end(vx_case_run *run);

/* Reads, predicts, cleans up, writes. *out also after a failure (geometry, warnings, times); free
 * it with vxm_result_free. */
vxm_status vx_segment_case(vx_case_run *run, vxm_result **out, vxm_error *error);
/* Tells the caller how far the part of the case is; true: it wants to stop. */
bool vx_say_progress(const vx_case_run *run, const char *stage, double fraction);

/* ---- memory.c ---- */

/* Before the first case. counted_twice: bytes of an image that is in memory already and that the
 * plan counts too. */
void vx_memory_begin(vx_run_state *state, uint64_t limit, uint64_t counted_twice);
/* beside: bytes that reading takes beside the image. Takes the case's share by the largest plan
 * that fits, which run->consume then names; waits for other cases to give theirs back.
 * VXM_ERR_RESOURCE when no plan fits alone. */
vxm_status vx_memory_take(vx_case_run *run, const vx_geometry *geo, uint64_t beside,
                          bool can_read_again, vxm_error *error);
/* Also by vx_case_end. */
void vx_memory_give(vx_case_run *run);

/* ---- input.c ---- */

/* The files in the model's channel order: index k of order[] is the k-th channel's file.
 * VXM_ERR_USAGE for a channel name that the model does not have, VXM_ERR_INPUT for a wrong number.
 * order: files->channel_count entries. */
vxm_status vx_channel_order(const vx_case_files *files, const vx_recipe *recipe, size_t *order,
                            vxm_error *error);
/* Names and number of the channels; channels: those of all files together. */
vxm_status vx_check_channels(const vx_case_files *files, const vx_recipe *recipe, size_t channels,
                             vxm_error *error);
/* Into run->result. */
vxm_status vx_hash_inputs(vx_case_run *run, vxm_error *error);
/* Who says whether a volume of a grid may be read, before a voxel of it is. beside: bytes that
 * reading a file takes beside its volume. */
typedef struct vx_admission {
    vxm_status (*ask)(void *data, const vx_geometry *geo, uint64_t beside, vxm_error *error);
    void *data;
} vx_admission;
/* Admits the grid that the case had when it was read before; geo is borrowed. */
vx_admission vx_admit_unchanged(const vx_geometry *geo);
/* All channels of the case on one grid, which is asked about once. */
vxm_status vx_read_inputs(vx_case_run *run, vx_pool *pool, vx_admission admission, vx_volume **out,
                          vxm_error *error);
/* The file of the model's first channel once more, for its intensities; it must still have this
 * grid. */
vxm_status vx_read_again(vx_case_run *run, const vx_geometry *geo, vx_volume **out,
                         vxm_error *error);
/* Headers only: the channels of all files, all else of the first. */
vxm_status vx_inspect_inputs(const vx_case_files *files, const vxm_segment_options *options,
                             vx_image_info *out, vxm_error *error);

/* ---- result.c ---- */

vx_result *vx_result_create(void);
void vx_result_warn(vx_result *result, const char *text);
vxm_status vx_result_measure(vx_result *result, const vx_volume *image, const vx_mask *mask,
                             const vx_choices *choices, vx_pool *pool, vxm_error *error);
/* The labels of a case that an earlier run did, from its sidecar. */
void vx_result_restore(vx_result *result, const cJSON *labels);
void vx_result_geometry(vx_result *result, const vx_geometry *geo);
/* [{"value", "name", "voxels", "ml", "mean", "sd"}]; intensities only where asked for. */
cJSON *vx_result_labels_json(const vxm_result *result, bool intensities);

#endif
