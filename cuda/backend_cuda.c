/* A CUDA device: its stream and the libraries' handles. */
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "cuda/capture_lock.h"
#include "cuda/check_libraries.h"
#include "cuda/plan.h"
#include "cuda/plan_cache.h"
#include "cuda/sweep.h"

vx_status vx_cuda_enter(const vx_device *device, vx_error *err) {
    return vx_cuda_check(cudaSetDevice(device->ordinal), "choosing the device", err);
}

static void close_device(vx_device *device) {
    if (!device) return;
    (void)vx_cuda_enter(device, NULL);
    vx_cuda_capture_lock();
    if (device->blas) cublasLtDestroy(device->blas);
    if (device->cudnn) cudnnDestroy(device->cudnn);
    if (device->stream) cudaStreamDestroy(device->stream);
    vx_cuda_capture_unlock();
    vx_free(device);
}

static vx_status count_devices(int *out, vx_error *err) {
    *out = 0;
    const cudaError_t code = cudaGetDeviceCount(out);
    if (code == cudaErrorNoDevice) return VX_OK;
    if (code == cudaErrorInsufficientDriver) /* also without any */
        return vx_fail(err, VX_ERR_RESOURCE,
                       "no NVIDIA driver, or one that is too old (use --device cpu)");
    return vx_cuda_check(code, "looking for devices", err);
}

/* Which device it is, or why there is none. */
static vx_status find_device(int ordinal, vx_device *device, vx_error *err) {
    struct cudaDeviceProp properties;
    int count;
    vx_status status = count_devices(&count, err);
    if (status != VX_OK) return status;
    if (count == 0) return vx_fail(err, VX_ERR_RESOURCE, "no NVIDIA device (use --device cpu)");
    if (ordinal < 0 || ordinal >= count)
        return vx_fail(err, VX_ERR_RESOURCE, "there is no cuda:%d (%d device%s)", ordinal, count,
                       count == 1 ? "" : "s");
    device->ordinal = ordinal;
    status = vx_cuda_enter(device, err);
    if (status == VX_OK)
        status = vx_cuda_check(cudaGetDeviceProperties(&properties, ordinal),
                               "asking for the device's properties", err);
    if (status != VX_OK) return status;
    device->major = properties.major;
    device->minor = properties.minor;
    device->multiprocessors = properties.multiProcessorCount;
    snprintf(device->name, sizeof device->name, "%.*s", (int)sizeof device->name - 1,
             properties.name);
    if (properties.major * 10 + properties.minor < 75)
        return vx_fail(err, VX_ERR_RESOURCE,
                       "%s has compute capability %d.%d (7.5 is needed; use --device cpu)",
                       device->name, properties.major, properties.minor);
    return VX_OK;
}

static vx_status open_handles(vx_device *device, vx_error *err) {
    vx_status status = vx_cuda_check(
        cudaStreamCreateWithFlags(&device->stream, cudaStreamNonBlocking), "making a stream", err);
    if (status == VX_OK) status = vx_cudnn_check(cudnnCreate(&device->cudnn), "starting", err);
    if (status == VX_OK)
        status = vx_cudnn_check(cudnnSetStream(device->cudnn, device->stream), "starting", err);
    if (status == VX_OK) status = vx_cublas_check(cublasLtCreate(&device->blas), "starting", err);
    return status;
}

static vx_status open_device(int ordinal, vx_pool *pool, vx_device **out, vx_error *err) {
    *out = NULL;
    vx_device *device = vx_alloc_zero(1, sizeof *device);
    if (!device) return vx_cuda_no_memory(err);
    device->pool = pool;
    vx_status status = find_device(ordinal, device, err);
    if (status == VX_OK) status = open_handles(device, err);
    if (status == VX_OK)
        *out = device;
    else
        close_device(device);
    return status;
}

/* What of the kept plans people have to know. */
static const char *cache_text(void) {
    switch (vx_plan_cache_state()) {
    case VX_PLAN_CACHE_OURS:
        return "";
    case VX_PLAN_CACHE_FOREIGN:
        return ", the cache folder is not used, others own it or may write to it: fp32 "
               "convolutions not timed";
    default:
        return ", no cache folder: fp32 convolutions not timed";
    }
}

static void describe(const vx_device *device, char *text, size_t bytes) {
    const size_t version = cudnnGetVersion(); /* 10000 major + 100 minor + patch */
    snprintf(text, bytes, "%s, compute capability %d.%d, cuDNN %zu.%zu.%zu%s", device->name,
             device->major, device->minor, version / 10000, version / 100 % 100, version % 100,
             cache_text());
}

const vx_backend vx_cuda_backend = {.name = "cuda",
                                    .automatic = VX_PRECISION_FP16,
                                    .count = count_devices,
                                    .open = open_device,
                                    .close = close_device,
                                    .describe = describe,
                                    .compile = vx_cuda_compile,
                                    .plan_free = vx_cuda_plan_free,
                                    .plan_info = vx_cuda_plan_info,
                                    .run = vx_cuda_run_plan,
                                    .sweep = &vx_cuda_sweep};
