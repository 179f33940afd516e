/* Memory of a case: what it will take, which of the possible plans is chosen, and how the cases
 * that run at one time share what there is.
 *
 * The normal plan keeps the image as it was read until the end, because statistics and preview want
 * its intensities. The small plan works on the image's own memory and reads the first channel again
 * when the mask is finished. Neither changes a bit of the mask. */
#include <string.h>

#include "api/pipeline.h"

static uint64_t add(uint64_t a, uint64_t b) { return a > UINT64_MAX - b ? UINT64_MAX : a + b; }
static uint64_t less(uint64_t a, uint64_t b) { return a > b ? a - b : 0; }

/* A file a label has one label. */
static vx_write_bound file_bound(const vx_geometry *geo, const vx_plan_outputs *outputs) {
    return vx_io_write_bound(outputs->format, geo, outputs->split ? 1 : outputs->labels);
}

const char *vx_plan_caution(const vx_geometry *geo, const vx_plan_outputs *outputs) {
    return file_bound(geo, outputs).caution;
}

static uint64_t output_bytes(const vx_geometry *geo, const vx_plan_outputs *outputs) {
    uint64_t one = file_bound(geo, outputs).file_bytes, all;
    uint64_t files = outputs->split ? outputs->labels : 1;
    return __builtin_mul_overflow(one, files, &all) ? UINT64_MAX : all;
}

/* The most bytes that the case holds before and after its prediction, weights aside: several
 * channels come one by one beside the whole image; image and mask are measured and written. The
 * image's bytes were checked with the prediction's plan. beside: what reading one file takes beside
 * its volume. */
static uint64_t outside_bytes(const vxm_session *session, const vx_geometry *geo, uint64_t beside,
                              const vx_plan_outputs *outputs, const vx_predict_plan *plan) {
    size_t channels = session->model->model->recipe->channel_count;
    uint64_t voxels = vx_voxels(geo), channel = voxels * sizeof(float), image = channel * channels;
    uint64_t reading = add(add(image, channels > 1 ? channel : 0), beside);
    uint64_t writing = add(add(image, plan->mask_bytes), outputs->split ? voxels : 0);
    writing = add(writing, file_bound(geo, outputs).memory_bytes);
    return reading > writing ? reading : writing;
}

/* beside: bytes that reading takes beside the image. program: resident bytes that are there without
 * the case. */
static vxm_status plan_case(const vxm_session *session, const vx_geometry *geo, uint64_t beside,
                            const vx_plan_outputs *outputs, bool consume, uint64_t program,
                            vxm_plan *out, vxm_error *error) {
    vx_error err;
    vx_predict_plan plan;
    vx_predict_wants wants = {.probabilities = outputs->probabilities,
                              .consume = consume,
                              .others = session->other_count};
    *out = (vxm_plan){0};
    vx_status s = vx_session_plan(session->session, geo, &wants, &plan, &err);
    if (s != VX_OK) return vx_api_error(error, NULL, s, &err);
    uint64_t outside = outside_bytes(session, geo, beside, outputs, &plan);
    uint64_t predicting = less(plan.peak_bytes, plan.weight_bytes);
    *out = (vxm_plan){
        .struct_size = sizeof *out,
        .tiles = plan.tiles,
        .network_bytes = plan.network_bytes,
        .accumulator_bytes = plan.accumulator_bytes,
        .volume_bytes = plan.volume_bytes > outside ? plan.volume_bytes : outside,
        /* The weights are resident already. */
        .program_bytes = less(program, plan.weight_bytes),
        .peak_bytes = add(program, predicting > outside ? predicting : outside),
        .flops = plan.flops,
        .device_network_bytes = plan.device_network_bytes,
        .device_volume_bytes = plan.device_volume_bytes,
        .device_room_bytes = plan.device_room_bytes,
        .output_bytes = output_bytes(geo, outputs),
    };
    return VXM_OK;
}

vxm_status vx_plan_volume(const vxm_session *session, const vx_geometry *geo, uint64_t beside,
                          const vx_plan_outputs *outputs, vxm_plan *out, vxm_error *error) {
    uint64_t program = vx_current_memory(), limit = session->memory_limit;
    vxm_status s = plan_case(session, geo, beside, outputs, false, program, out, error);
    if (s != VXM_OK || !limit || out->peak_bytes <= limit) return s;
    return plan_case(session, geo, beside, outputs, true, program, out, error);
}

vxm_status vx_memory_short(const char *file, uint64_t need, uint64_t room, bool limited,
                           vxm_error *error) {
    return vx_api_fail(error, file, VXM_ERR_RESOURCE,
                       "%.2f GB of memory are needed at the least, %.2f GB are %s (%s)",
                       (double)need / 1e9, (double)room / 1e9, limited ? "allowed" : "free",
                       limited ? "raise the memory limit" : "use a machine with more memory");
}

void vx_memory_begin(vx_run_state *state, uint64_t limit, uint64_t counted_twice) {
    state->memory_limit = limit;
    state->memory_fixed = less(vx_current_memory(), counted_twice);
}

/* What the process may have in all: the limit, or what it has and what is free besides. */
static uint64_t whole_room(const vx_run_state *state) {
    if (state->memory_limit) return state->memory_limit;
    return add(vx_available_memory(), vx_current_memory());
}

/* The first plan that fits beside the other cases; with state->lock. */
static bool take(vx_case_run *run, const vxm_plan *plans, size_t count, uint64_t room) {
    vx_run_state *state = run->state;
    for (size_t k = 0; k < count; k++) {
        uint64_t own = less(plans[k].peak_bytes, state->memory_fixed);
        if (add(add(state->memory_fixed, state->memory_taken), own) > room) continue;
        state->memory_taken += own;
        state->memory_holders++;
        run->memory_own = own;
        run->memory_held = true;
        run->consume = k == 1;
        return true;
    }
    return false;
}

vxm_status vx_memory_take(vx_case_run *run, const vx_geometry *geo, uint64_t beside,
                          bool can_read_again, vxm_error *error) {
    vx_run_state *state = run->state;
    const char *file = run->files ? run->files->shown : NULL;
    vxm_plan plans[2];
    size_t count = can_read_again ? 2 : 1;
    const vx_plan_outputs outputs = vx_choices_outputs(run->choices, run->target);
    for (size_t k = 0; k < count; k++) {
        vxm_status s = plan_case(run->session, geo, beside, &outputs, k == 1, state->memory_fixed,
                                 &plans[k], error);
        if (s != VXM_OK) return s;
    }
    vxm_status s = VXM_OK;
    pthread_mutex_lock(&state->lock);
    for (;;) {
        uint64_t room = whole_room(state);
        if (atomic_load(&state->cancelled))
            s = vx_api_fail(error, NULL, VXM_ERR_CANCELLED, "cancelled");
        else if (!take(run, plans, count, room) && !state->memory_holders)
            s = vx_memory_short(file, plans[count - 1].peak_bytes, room, state->memory_limit != 0,
                                error);
        if (s != VXM_OK || run->memory_held) break;
        pthread_cond_wait(&state->memory_given, &state->lock);
    }
    pthread_mutex_unlock(&state->lock);
    return s;
}

void vx_memory_give(vx_case_run *run) {
    vx_run_state *state = run->state;
    if (!run->memory_held) return;
    pthread_mutex_lock(&state->lock);
    state->memory_taken -= run->memory_own;
    state->memory_holders--;
    pthread_cond_broadcast(&state->memory_given);
    pthread_mutex_unlock(&state->lock);
    run->memory_held = false;
    run->consume = false;
}
