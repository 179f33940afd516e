/* The CPU as a device. */
#include <stdio.h>

#include "backend/cpu/plan.h"

vx_status vx_cpu_open_isa(vx_isa isa, vx_pool *pool, vx_device **out, vx_error *err) {
    *out = NULL;
    const vx_kernels *kernels = vx_kernels_for(isa, VX_F32);
    if (!kernels)
        return vx_fail(err, VX_ERR_RESOURCE, "this processor lacks the instruction set asked for");
    vx_device *device = vx_alloc_zero(1, sizeof *device);
    if (!device) return vx_fail(err, VX_ERR_RESOURCE, "out of memory");
    device->pool = pool;
    device->kernels = kernels;
    device->bf16_kernels = vx_kernels_for(isa, VX_BF16);
    *out = device;
    return VX_OK;
}

static vx_status count_devices(int *out, vx_error *err) {
    (void)err;
    *out = 1;
    return VX_OK;
}

static vx_status open_device(int ordinal, vx_pool *pool, vx_device **out, vx_error *err) {
    *out = NULL;
    if (ordinal != 0) return vx_fail(err, VX_ERR_RESOURCE, "there is no cpu:%d (use cpu)", ordinal);
    return vx_cpu_open_isa(VX_ISA_BEST, pool, out, err);
}

static void close_device(vx_device *device) { vx_free(device); }

static void describe(const vx_device *device, char *text, size_t bytes) {
    const vx_kernels *best = device->bf16_kernels ? device->bf16_kernels : device->kernels;
    snprintf(text, bytes, "CPU, %u thread%s, %s%s", vx_pool_workers(device->pool),
             vx_pool_workers(device->pool) == 1 ? "" : "s", best->name,
#ifdef VX_HAVE_ONEDNN
             ", oneDNN"
#else
             ""
#endif
    );
}

const vx_backend vx_backend_cpu = {.name = "cpu",
                                   .automatic = VX_PRECISION_FP32,
                                   .count = count_devices,
                                   .open = open_device,
                                   .close = close_device,
                                   .describe = describe,
                                   .compile = vx_cpu_compile,
                                   .plan_free = vx_cpu_plan_free,
                                   .plan_info = vx_cpu_plan_info,
                                   .run = vx_cpu_run_plan};
