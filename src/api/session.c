/* A session: a model on a device with its own threads. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "api/devices.h"
#include "base/memory.h"
#include "base/threads.h"

/* Whether the device has it is found when the network is compiled. */
static vxm_status choose_precision(vxm_precision wanted, vxm_session *made, vxm_error *error) {
    switch (wanted) {
    case VXM_PRECISION_AUTO:
        made->precision = made->backend->automatic;
        made->may_repeat = made->precision != VX_PRECISION_FP32;
        return VXM_OK;
    case VXM_PRECISION_FP32:
        made->precision = VX_PRECISION_FP32;
        return VXM_OK;
    case VXM_PRECISION_FP16:
        made->precision = VX_PRECISION_FP16;
        return VXM_OK;
    case VXM_PRECISION_BF16:
        made->precision = VX_PRECISION_BF16;
        return VXM_OK;
    }
    return vx_api_fail(error, NULL, VXM_ERR_USAGE, "unknown precision %d", (int)wanted);
}

static vxm_status check_options(const vxm_session_options *options, vxm_error *error) {
    if (!(options->step > 0.0 && options->step <= 1.0))
        return vx_api_fail(error, NULL, VXM_ERR_USAGE,
                           "step %g (a share of the patch: above 0, at most 1)", options->step);
    if (options->threads > 4096)
        return vx_api_fail(error, NULL, VXM_ERR_USAGE, "%u threads (1 to 4096 are possible)",
                           options->threads);
    return VXM_OK;
}

vx_session_options vx_inner_options(const vxm_session *session, vx_precision precision,
                                    uint64_t host_free) {
    const uint64_t budget = session->memory_limit ? session->memory_limit
                            : host_free           ? host_free
                                                  : vx_available_memory();
    return (vx_session_options){
        .backend = session->backend,
        .ordinal = session->ordinal,
        .pool = session->pool,
        .precision = precision,
        .tta = session->tta,
        .step = session->step,
        .memory_budget = budget > SIZE_MAX / 2 ? 0 : (size_t)budget,
    };
}

static vxm_status compile(vxm_session *session, vx_precision precision, uint64_t host_free,
                          vx_session **out, vxm_error *error) {
    vx_error err;
    const vx_session_options options = vx_inner_options(session, precision, host_free);
    const vx_status s = vx_session_create(session->model->model, &options, out, &err);
    /* A device that is not there is not the model's fault. */
    const char *file = s == VX_ERR_RESOURCE ? NULL : session->model->path;
    return s == VX_OK ? VXM_OK : vx_api_error(error, file, s, &err);
}

/* The list's k-th device. */
static vxm_status open_on(const vxm_model *model, const vxm_session_options *options,
                          const vx_device_list *list, unsigned k, vxm_session **out,
                          vxm_error *error) {
    vx_error err;
    vxm_session *session = vx_alloc_zero(1, sizeof *session);
    if (!session) return vx_api_no_memory(error);
    session->model = model;
    session->backend = list->backend;
    session->ordinal = list->first + (int)(k % list->count);
    session->threads = options->threads ? options->threads : vx_cpu_count();
    session->tta = options->tta != 0;
    session->step = options->step;
    session->memory_limit = options->memory_limit;
    vxm_status s = choose_precision(options->precision, session, error);
    if (s == VXM_OK) {
        vx_status t = vx_pool_create(session->threads, &session->pool, &err);
        if (t != VX_OK) s = vx_api_error(error, NULL, t, &err);
    }
    if (s == VXM_OK)
        s = compile(session, session->precision, list->host_free, &session->session, error);
    if (s != VXM_OK) {
        vxm_session_free(session);
        return s;
    }
    vx_session_describe(session->session, session->device, sizeof session->device);
    *out = session;
    return VXM_OK;
}

vxm_status vx_open_session(const vxm_model *model, const vxm_session_options *options,
                           vx_device_list *list, unsigned k, vxm_session **out, vxm_error *error) {
    vxm_error own;
    if (!error) error = &own;
    *out = NULL;
    const vx_backend *instead = list->instead;
    list->instead = NULL;
    vxm_status s = check_options(options, error);
    if (s != VXM_OK) return s;
    s = open_on(model, options, list, k, out, error);
    if (s == VXM_ERR_RESOURCE && instead) {
        *list = (vx_device_list){.backend = instead, .count = 1, .host_free = list->host_free};
        snprintf(list->left_aside, sizeof list->left_aside, "%s", error->text);
        s = open_on(model, options, list, 0, out, error);
    }
    if (s == VXM_OK) memcpy((*out)->left_aside, list->left_aside, sizeof list->left_aside);
    return s;
}

vxm_status vxm_session_create(const vxm_model *model, const vxm_session_options *options,
                              vxm_session **out, vxm_error *error) {
    *out = NULL;
    vxm_session_options known;
    vx_device_list list;
    vxm_session_options_init(&known, sizeof known);
    vxm_status s = vx_api_options(&known, sizeof known, options, error);
    if (s == VXM_OK) s = vx_devices_find(&vx_machine_devices, known.device, &list, error);
    return s == VXM_OK ? vx_open_session(model, &known, &list, 0, out, error) : s;
}

void vxm_session_free(vxm_session *session) {
    if (!session) return;
    for (size_t i = 0; i < session->other_count; i++) vx_session_free(session->others[i]);
    vx_free(session->others);
    vx_session_free(session->exact);
    vx_session_free(session->session);
    vx_pool_free(session->pool);
    vx_free(session);
}

vxm_status vx_exact_session(vxm_session *session, vx_session **out, vxm_error *error) {
    vxm_status s = VXM_OK;
    if (!session->exact) s = compile(session, VX_PRECISION_FP32, 0, &session->exact, error);
    *out = session->exact;
    return s;
}

void vx_say_device(vxm_session *session, const vxm_callbacks *callbacks) {
    static const char *const precisions[] = {"fp32", "fp16", "bf16"};
    char line[sizeof session->left_aside + 64];
    if (!callbacks->log || session->device_said) return;
    session->device_said = true;
    if (session->left_aside[0]) {
        snprintf(line, sizeof line, "computing on the CPU: %s", session->left_aside);
        callbacks->log(callbacks->user_data, VXM_LOG_WARNING, 0, line);
    }
    snprintf(line, sizeof line, "device: %s, %s", session->device, precisions[session->precision]);
    callbacks->log(callbacks->user_data, VXM_LOG_INFO, 0, line);
}

vxm_status vxm_session_plan(const vxm_session *session, const size_t dims[3],
                            const double affine[16], vxm_plan *out, vxm_error *error) {
    vx_geometry geo;
    vxm_plan plan;
    memcpy(geo.dims, dims, sizeof geo.dims);
    memcpy(geo.affine, affine, sizeof geo.affine);
    const vx_plan_outputs in_memory = {0};
    vxm_status s = vx_plan_volume(session, &geo, 0, &in_memory, &plan, error);
    return s == VXM_OK ? vx_api_give(out, &plan, sizeof plan, error) : s;
}

vx_geometry vx_patch_geometry(const vx_recipe *recipe) {
    vx_geometry geo = {.affine = {[3] = {0, 0, 0, 1}}};
    for (int a = 0; a < 3; a++) {
        geo.dims[a] = recipe->patch[2 - a];
        geo.affine[a][a] = recipe->spacing[2 - a];
    }
    return geo;
}
