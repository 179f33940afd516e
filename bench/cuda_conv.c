/* Convolutions of the networks' shapes on a GPU: cuDNN's quickest engine beside each of our own
 * variants (cuda/conv_tiled.h), as a plan times them when it chooses.
 *
 *   voxmamba_cuda_conv [fp16|bf16|fp32] [JSON_FILE]
 *
 * The memory holds one number all over, as when a plan is made: a clock is not held down by it as
 * by random data, so that times are up to a tenth below those inside a network. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda/conv_cudnn.h"
#include "cuda/plan.h"
#include "measure.h"

static const struct layer {
    size_t grid, c_in, c_out, kernel, stride;
    bool flat; /* the kernel is 3 x 3 x 1 */
} layers[] = {
    {128, 8, 32, 3, 1, false},   {128, 16, 32, 3, 1, false},  {128, 16, 32, 3, 1, true},
    {128, 32, 32, 3, 1, false},  {128, 64, 32, 3, 1, false},  {128, 64, 32, 1, 1, false},
    {128, 32, 64, 3, 2, false},  {64, 64, 64, 3, 1, false},   {64, 128, 64, 3, 1, false},
    {64, 64, 128, 3, 2, false},  {32, 128, 128, 3, 1, false}, {32, 256, 128, 3, 1, false},
    {32, 128, 256, 3, 2, false}, {16, 256, 256, 3, 1, false}, {16, 512, 256, 3, 1, false},
    {16, 256, 320, 3, 2, false}, {8, 320, 320, 3, 1, false},  {8, 640, 320, 3, 1, false},
    {8, 320, 320, 3, 2, false},  {4, 320, 320, 3, 1, false},
};

static vx_cuda_conv_shape shape_of(const struct layer *l, vx_dtype dtype) {
    const size_t out = l->grid / l->stride;
    vx_cuda_conv_shape s = {.in = {1, l->grid, l->grid, l->grid, l->c_in},
                            .out = {1, out, out, out, l->c_out},
                            .dtype = dtype,
                            .normed = true};
    for (int i = 0; i < 3; i++) {
        s.kernel[i] = l->flat && i == 2 ? 1 : l->kernel;
        s.stride[i] = l->stride;
        s.pad[i] = (s.kernel[i] - 1) / 2;
    }
    return s;
}

static vx_status time_layer(vx_device *device, const struct layer *l, vx_dtype dtype,
                            const char *json, vx_error *err) {
    const vx_cuda_conv_shape s = shape_of(l, dtype);
    vx_cuda_conv conv = {0};
    char name[64];
    const double gflop = 2e-9 * (double)vx_shape_elements(s.out) * (double)l->c_in *
                         (double)(s.kernel[0] * s.kernel[1] * s.kernel[2]);
    const double begin = bench_now();
    vx_status status = vx_cuda_conv_create(device, &s, &conv, err);
    if (status != VX_OK) return status;
    snprintf(name, sizeof name, "%zu^3 %zu->%zu k%zu%zu%zu s%zu", l->grid, l->c_in, l->c_out,
             s.kernel[0], s.kernel[1], s.kernel[2], l->stride);
    printf("%-28s cuDNN %8.4f ms (%6.1f TFLOP/s)  tiled", name, (double)conv.timed[0],
           gflop / (double)conv.timed[0]);
    cJSON *o = cJSON_CreateObject();
    cJSON_AddStringToObject(o, "kind", "cuda_conv");
    cJSON_AddStringToObject(o, "device", device->name);
    cJSON_AddStringToObject(o, "layer", name);
    cJSON_AddNumberToObject(o, "gflop", gflop);
    cJSON_AddNumberToObject(o, "cudnn_ms", (double)conv.timed[0]);
    cJSON *list = cJSON_AddArrayToObject(o, "tiled_ms");
    for (int v = 1; v <= VX_CUDA_TILED_VARIANTS; v++) {
        printf(" %8.4f", (double)conv.timed[v]);
        cJSON_AddItemToArray(list, cJSON_CreateNumber((double)conv.timed[v]));
    }
    printf("  chosen %u, workspace %.1f MB, in %.2f s\n", conv.tiled.variant,
           (double)conv.workspace_bytes * 1e-6, bench_now() - begin);
    fflush(stdout);
    vx_cuda_conv_destroy(&conv);
    return bench_json_write(o, json, err);
}

int main(int argc, char **argv) {
    const char *type = argc > 1 ? argv[1] : "fp16";
    const vx_dtype dtype = strcmp(type, "bf16") == 0   ? VX_BF16
                           : strcmp(type, "fp32") == 0 ? VX_F32
                                                       : VX_F16;
    vx_device *device = NULL;
    vx_error err = {0};
    /* No folder to keep plans in: everything is timed. */
    unsetenv("XDG_CACHE_HOME");
    unsetenv("HOME");
    vx_status status = vx_cuda_backend.open(0, NULL, &device, &err);
    for (size_t i = 0; i < sizeof layers / sizeof *layers && status == VX_OK; i++)
        status = time_layer(device, &layers[i], dtype, argc > 2 ? argv[2] : NULL, &err);
    if (status != VX_OK) fprintf(stderr, "voxmamba_cuda_conv: %s\n", err.text);
    if (device) vx_cuda_backend.close(device);
    return (int)status;
}
