#include "api/devices.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The device node of the driver on Linux, and the driver's library of WSL 2. */
static const char *const driver_files[] = {"/dev/nvidiactl", "/usr/lib/wsl/lib/libcuda.so.1", NULL};

const vx_device_source vx_machine_devices = {
    .cpu = &vx_backend_cpu, .cuda = &vx_backend_cuda, .driver_files = driver_files};

static bool seems_to_have_driver(const vx_device_source *source) {
    for (const char *const *file = source->driver_files; *file; file++)
        if (access(*file, F_OK) == 0) return true;
    return false;
}

/* CUDA where there is a device for it. A driver without a device (CUDA_VISIBLE_DEVICES is empty) is
 * as good as none: nothing is missing. */
static void find_automatic(const vx_device_source *source, vx_device_list *out) {
    vx_error err;
    int count = 0;
    out->backend = source->cpu;
    if (!seems_to_have_driver(source)) return;
    if (source->cuda->count(&count, &err) != VX_OK) {
        snprintf(out->left_aside, sizeof out->left_aside, "%s", err.text);
    } else if (count > 0) {
        out->backend = source->cuda;
        out->instead = source->cpu;
    }
}

static vxm_status find_all(const vx_device_source *source, vx_device_list *out, vxm_error *error) {
    vx_error err;
    int count = 0;
    out->backend = source->cuda;
    vx_status s = source->cuda->count(&count, &err);
    if (s != VX_OK) return vx_api_error(error, NULL, s, &err);
    if (count < 1)
        return vx_api_fail(error, NULL, VXM_ERR_RESOURCE, "no NVIDIA device (use --device cpu)");
    out->count = (unsigned)count;
    return VXM_OK;
}

/* The N of "cuda:N". A number too large for an ordinal is one that no machine has. */
static bool parse_ordinal(const char *text, int *ordinal) {
    char *end;
    if (text[0] < '0' || text[0] > '9') return false;
    const long value = strtol(text, &end, 10);
    *ordinal = value > INT_MAX ? INT_MAX : (int)value;
    return *end == '\0';
}

vxm_status vx_devices_find(const vx_device_source *source, const char *option, vx_device_list *out,
                           vxm_error *error) {
    *out = (vx_device_list){.backend = source->cpu, .count = 1};
    if (!option || strcmp(option, "auto") == 0) {
        find_automatic(source, out);
        return VXM_OK;
    }
    if (strcmp(option, "cpu") == 0) return VXM_OK;
    if (strcmp(option, "cuda:all") == 0) return find_all(source, out, error);
    out->backend = source->cuda;
    if (strcmp(option, "cuda") == 0) return VXM_OK;
    if (strncmp(option, "cuda:", 5) == 0 && parse_ordinal(option + 5, &out->first)) return VXM_OK;
    return vx_api_fail(error, NULL, VXM_ERR_USAGE,
                       "unknown device '%s' (auto, cpu, cuda, cuda:N, cuda:all)", option);
}
