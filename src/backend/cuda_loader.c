/* The CUDA backend as the library sees it: a table that loads the module when a device is opened
 * and hands everything on. Without the module, or without what the module needs (driver, device,
 * cuDNN, cuBLAS), open fails with VX_ERR_RESOURCE and one line that says what is missing.
 *
 * The module is never unmapped again (RTLD_NODELETE): the CUDA libraries that come with it do not
 * stand that.
 */
#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "backend/module.h"
#include "base/self.h"

struct vx_device {
    void *handle; /* of dlopen */
    const vx_backend *module;
    vx_device *inner;
};

struct vx_plan {
    const vx_backend *module;
    vx_plan *inner;
};

struct vx_sweep {
    const vx_sweep_ops *module;
    vx_sweep *inner;
};

/* Where the module may lie, seen from the folder of the library or, when that is linked in, of the
 * program. */
static const char *const places[] = {
    "libvoxmamba_cuda.so",
    "voxmamba/libvoxmamba_cuda.so",                      /* of the library */
    VX_BINDIR_TO_LIBDIR "/voxmamba/libvoxmamba_cuda.so", /* of the installed program */
    "../libvoxmamba_cuda.so",                            /* of the installed Slicer module */
    "../lib/voxmamba/libvoxmamba_cuda.so",               /* of the program in its build folder */
};

/* dlopen's reason: the name of a library that is missing, or something rarer. */
static vx_status cannot_load(const char *reason, vx_error *err) {
    const char *missing = strstr(reason, ": cannot open shared object file");
    if (missing)
        return vx_fail(err, VX_ERR_RESOURCE,
                       "the CUDA module needs %.*s, which is not found (docs/install.md says where "
                       "it is looked for; or use --device cpu)",
                       (int)(missing - reason), reason);
    return vx_fail(err, VX_ERR_RESOURCE, "the CUDA module does not load: %s", reason);
}

static vx_status load_module(void **handle, vx_error *err) {
    char folder[PATH_MAX], path[PATH_MAX + 64];
    if (!vx_self_folder(folder))
        return vx_fail(err, VX_ERR_RESOURCE, "the program's own folder is unknown");
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        snprintf(path, sizeof path, "%s%s", folder, places[i]);
        if (access(path, F_OK) != 0) continue;
        *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
        if (*handle) return VX_OK;
        const char *reason = dlerror();
        return cannot_load(reason ? reason : path, err);
    }
    return vx_fail(err, VX_ERR_RESOURCE, "the CUDA module is not installed (use --device cpu)");
}

static vx_status find_backend(void *handle, const vx_backend **out, vx_error *err) {
    /* POSIX has dlsym return functions as void *; ISO C has no cast for it. */
    vx_module_entry entry = NULL;
    void *symbol = dlsym(handle, VX_MODULE_SYMBOL);
    memcpy(&entry, &symbol, sizeof entry);
    *out = entry ? entry(VX_MODULE_ABI) : NULL;
    if (*out) return VX_OK;
    return vx_fail(err, VX_ERR_RESOURCE,
                   "the CUDA module is of another build than this program (install both again)");
}

static vx_status find_module(void **handle, const vx_backend **out, vx_error *err) {
    vx_status status = load_module(handle, err);
    if (status == VX_OK) status = find_backend(*handle, out, err);
    return status == VX_OK ? status : vx_fail_prefix(err, status, "CUDA is not available");
}

static vx_status count_devices(int *out, vx_error *err) {
    void *handle = NULL;
    const vx_backend *module;
    *out = 0;
    vx_status status = find_module(&handle, &module, err);
    if (status == VX_OK) {
        status = module->count(out, err);
        if (status != VX_OK) vx_fail_prefix(err, status, "CUDA is not available");
    }
    if (handle) dlclose(handle);
    return status;
}

static void close_device(vx_device *device) {
    if (!device) return;
    if (device->inner) device->module->close(device->inner);
    if (device->handle) dlclose(device->handle);
    vx_free(device);
}

static vx_status open_device(int ordinal, vx_pool *pool, vx_device **out, vx_error *err) {
    *out = NULL;
    vx_device *device = vx_alloc_zero(1, sizeof *device);
    if (!device) return vx_fail(err, VX_ERR_RESOURCE, "out of memory");
    vx_status status = find_module(&device->handle, &device->module, err);
    if (status == VX_OK) {
        status = device->module->open(ordinal, pool, &device->inner, err);
        if (status != VX_OK) vx_fail_prefix(err, status, "CUDA is not available");
    }
    if (status == VX_OK)
        *out = device;
    else
        close_device(device);
    return status;
}

static void describe(const vx_device *device, char *text, size_t bytes) {
    device->module->describe(device->inner, text, bytes);
}

static vx_status compile(vx_device *device, const vx_graph *graph,
                         const vx_compile_options *options, vx_plan **out, vx_error *err) {
    *out = NULL;
    vx_plan *plan = vx_alloc_zero(1, sizeof *plan);
    if (!plan) return vx_fail(err, VX_ERR_RESOURCE, "out of memory");
    plan->module = device->module;
    vx_status status = device->module->compile(device->inner, graph, options, &plan->inner, err);
    if (status == VX_OK)
        *out = plan;
    else
        vx_free(plan);
    return status;
}

static void plan_free(vx_plan *plan) {
    if (!plan) return;
    plan->module->plan_free(plan->inner);
    vx_free(plan);
}

static void plan_info(const vx_plan *plan, vx_plan_info *out) {
    plan->module->plan_info(plan->inner, out);
}

static vx_status run(vx_plan *plan, void *arena, const float *in, float *const *out,
                     vx_error *err) {
    return plan->module->run(plan->inner, arena, in, out, err);
}

/* ---- Sweeps ---- */

static vx_status free_bytes(vx_device *device, size_t *bytes, vx_error *err) {
    return device->module->sweep->free_bytes(device->inner, bytes, err);
}

static bool sweep_bytes(const vx_device *device, const vx_sweep_size *size, size_t *bytes) {
    return device->module->sweep->bytes(device->inner, size, bytes);
}

static vx_status sweep_create(vx_plan *plan, const vx_sweep_shape *shape, const float *image,
                              vx_sweep **out, vx_error *err) {
    *out = NULL;
    vx_sweep *sweep = vx_alloc_zero(1, sizeof *sweep);
    if (!sweep) return vx_fail(err, VX_ERR_RESOURCE, "out of memory");
    sweep->module = plan->module->sweep;
    vx_status status = sweep->module->create(plan->inner, shape, image, &sweep->inner, err);
    if (status == VX_OK)
        *out = sweep;
    else
        vx_free(sweep);
    return status;
}

static void sweep_free(vx_sweep *sweep) {
    if (!sweep) return;
    sweep->module->free(sweep->inner);
    vx_free(sweep);
}

static vx_status sweep_start(vx_sweep *sweep, const uint32_t *slot, const vx_rows *rows,
                             vx_error *err) {
    return sweep->module->start(sweep->inner, slot, rows, err);
}

static vx_status sweep_cut(vx_sweep *sweep, const ptrdiff_t at[3], unsigned flips, vx_error *err) {
    return sweep->module->cut(sweep->inner, at, flips, err);
}

static vx_status sweep_run(vx_sweep *sweep, vx_error *err) {
    return sweep->module->run(sweep->inner, err);
}

static vx_status sweep_take(vx_sweep *sweep, size_t place, vx_sweep *from, vx_error *err) {
    return sweep->module->take(sweep->inner, place, from->inner, err);
}

static vx_status sweep_add(vx_sweep *sweep, size_t place, const ptrdiff_t at[3], unsigned flips,
                           float scale, vx_error *err) {
    return sweep->module->add(sweep->inner, place, at, flips, scale, err);
}

static vx_status sweep_finish(vx_sweep *sweep, const vx_rows *rows, bool *finite, vx_error *err) {
    return sweep->module->finish(sweep->inner, rows, finite, err);
}

static vx_status sweep_make(vx_sweep *sweep, const vx_rows *rows, void *labels, vx_error *err) {
    return sweep->module->make(sweep->inner, rows, labels, err);
}

static const vx_sweep_ops sweep_ops = {.free_bytes = free_bytes,
                                       .bytes = sweep_bytes,
                                       .create = sweep_create,
                                       .free = sweep_free,
                                       .start = sweep_start,
                                       .cut = sweep_cut,
                                       .run = sweep_run,
                                       .take = sweep_take,
                                       .add = sweep_add,
                                       .finish = sweep_finish,
                                       .make = sweep_make};

const vx_backend vx_backend_cuda = {.name = "cuda",
                                    .automatic = VX_PRECISION_FP16,
                                    .count = count_devices,
                                    .open = open_device,
                                    .close = close_device,
                                    .describe = describe,
                                    .compile = compile,
                                    .plan_free = plan_free,
                                    .plan_info = plan_info,
                                    .run = run,
                                    .sweep = &sweep_ops};
