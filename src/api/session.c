/* A session: a model on a device with its own threads. */
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/internal.h"
#include "base/memory.h"
#include "base/threads.h"

/* auto is the CPU: the CUDA backend has not been verified on a device yet. */
static vxm_status choose_backend(const char *device, vxm_session *made, vxm_error *error) {
    made->backend = &vx_backend_cpu;
    if (!device || strcmp(device, "auto") == 0 || strcmp(device, "cpu") == 0) return VXM_OK;
    made->backend = &vx_backend_cuda;
    if (strcmp(device, "cuda") == 0) return VXM_OK;
    if (strcmp(device, "cuda:all") == 0)
        return vx_api_fail(error, NULL, VXM_ERR_RESOURCE,
                           "device cuda:all is not available yet (use cuda:0)");
    if (strncmp(device, "cuda:", 5) == 0 && device[5] >= '0' && device[5] <= '9') {
        char *end;
        const long ordinal = strtol(device + 5, &end, 10);
        made->ordinal = ordinal > INT_MAX ? INT_MAX : (int)ordinal;
        if (*end == '\0') return VXM_OK;
    }
    return vx_api_fail(error, NULL, VXM_ERR_USAGE,
                       "unknown device '%s' (auto, cpu, cuda, cuda:N, cuda:all)", device);
}

/* Whether the device has it is found when the network is compiled. */
static vxm_status choose_precision(vxm_precision wanted, vx_precision *out, vxm_error *error) {
    switch (wanted) {
    case VXM_PRECISION_AUTO:
    case VXM_PRECISION_FP32:
        *out = VX_PRECISION_FP32;
        return VXM_OK;
    case VXM_PRECISION_FP16:
        *out = VX_PRECISION_FP16;
        return VXM_OK;
    case VXM_PRECISION_BF16:
        *out = VX_PRECISION_BF16;
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

static vxm_status open_session(vxm_session *session, vxm_error *error) {
    vx_error err;
    vx_status s = vx_pool_create(session->threads, &session->pool, &err);
    if (s != VX_OK) return vx_api_error(error, NULL, s, &err);
    uint64_t budget = session->memory_limit ? session->memory_limit : vx_available_memory();
    vx_session_options internal = {
        .backend = session->backend,
        .ordinal = session->ordinal,
        .pool = session->pool,
        .precision = session->precision,
        .tta = session->tta,
        .step = session->step,
        .memory_budget = budget > SIZE_MAX / 2 ? 0 : (size_t)budget,
    };
    s = vx_session_create(session->model->model, &internal, &session->session, &err);
    if (s != VX_OK) return vx_api_error(error, session->model->path, s, &err);
    vx_session_describe(session->session, session->device, sizeof session->device);
    return VXM_OK;
}

vxm_status vxm_session_create(const vxm_model *model, const vxm_session_options *options,
                              vxm_session **out, vxm_error *error) {
    *out = NULL;
    vxm_session_options known;
    vxm_session_options_init(&known, sizeof known);
    vxm_session made = {.model = model};
    vxm_status s = vx_api_options(&known, sizeof known, options, error);
    if (s == VXM_OK) s = check_options(&known, error);
    if (s == VXM_OK) s = choose_backend(known.device, &made, error);
    if (s == VXM_OK) s = choose_precision(known.precision, &made.precision, error);
    if (s != VXM_OK) return s;
    vxm_session *session = vx_alloc(sizeof *session);
    if (!session) return vx_api_no_memory(error);
    *session = made;
    session->threads = known.threads ? known.threads : vx_cpu_count();
    session->tta = known.tta != 0;
    session->step = known.step;
    session->memory_limit = known.memory_limit;
    s = open_session(session, error);
    if (s != VXM_OK) {
        vxm_session_free(session);
        return s;
    }
    *out = session;
    return VXM_OK;
}

void vxm_session_free(vxm_session *session) {
    if (!session) return;
    if (session->session) vx_session_free(session->session);
    vx_pool_free(session->pool);
    vx_free(session);
}

vxm_status vxm_session_plan(const vxm_session *session, const size_t dims[3],
                            const double affine[16], vxm_plan *out, vxm_error *error) {
    vx_geometry geo;
    memcpy(geo.dims, dims, sizeof geo.dims);
    memcpy(geo.affine, affine, sizeof geo.affine);
    return vx_plan_volume(session, &geo, NULL, out, error);
}

vx_geometry vx_patch_geometry(const vx_recipe *recipe) {
    vx_geometry geo = {.affine = {[3] = {0, 0, 0, 1}}};
    for (int a = 0; a < 3; a++) {
        geo.dims[a] = recipe->patch[2 - a];
        geo.affine[a][a] = recipe->spacing[2 - a];
    }
    return geo;
}
