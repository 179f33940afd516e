#include "device.h"

#include <string.h>

#include "output.h"

bool cli_device_options(const cli_device *device, vxm_session_options *out) {
    static const char *const names[] = {"auto", "fp32", "fp16", "bf16"};
    vxm_session_options_init(out, sizeof *out);
    out->device = device->device;
    out->threads = device->threads;
    out->tta = device->tta;
    out->step = device->step;
    out->memory_limit = (uint64_t)device->memory;
    for (int i = 0; i < 4; i++)
        if (strcmp(device->precision, names[i]) == 0) {
            out->precision = (vxm_precision)i;
            return true;
        }
    cli_usage_error("--precision: '%s' is not auto, fp32, fp16 or bf16", device->precision);
    return false;
}
