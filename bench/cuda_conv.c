/* Convolutions of the networks' shapes on a GPU: cuDNN's engine that a plan takes beside each of
 * our own variants (cuda/conv_tiled.h), the shortest of some runs.
 *
 *   voxmamba_cuda_conv [fp16|bf16|fp32] [JSON_FILE]
 *
 * The memory holds one number all over: a clock is not held down by it as by random data, so that
 * times are up to a tenth below those inside a network. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda/check.h"
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
    {64, 128, 64, 1, 1, false},  {64, 32, 64, 1, 1, false},   {64, 64, 128, 3, 2, false},
    {32, 128, 128, 3, 1, false}, {32, 256, 128, 3, 1, false}, {32, 128, 256, 3, 2, false},
    {16, 256, 256, 3, 1, false}, {16, 512, 256, 3, 1, false}, {16, 256, 320, 3, 2, false},
    {8, 320, 320, 3, 1, false},  {8, 640, 320, 3, 1, false},  {8, 320, 320, 3, 2, false},
    {4, 320, 320, 3, 1, false},
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

/* Device memory for x, w, y, workspace and moments of the largest layer. */
enum { REPEATS = 5 };
static const size_t memory_of[] = {(size_t)1 << 29, (size_t)1 << 26, (size_t)1 << 29,
                                   (size_t)1 << 28, (size_t)1 << 26};
typedef struct memory {
    void *of[5];
    cudaEvent_t start, stop;
} memory;

static vx_status open_memory(memory *m, vx_error *err) {
    vx_status status = vx_cuda_check(cudaEventCreate(&m->start), "making an event", err);
    if (status == VX_OK) status = vx_cuda_check(cudaEventCreate(&m->stop), "making an event", err);
    for (size_t i = 0; i < 5 && status == VX_OK; i++) {
        status = vx_cuda_check(cudaMalloc(&m->of[i], memory_of[i]), "memory", err);
        if (status == VX_OK)
            status = vx_cuda_check(cudaMemset(m->of[i], 0x3c, memory_of[i]), "filling", err);
    }
    return status;
}

/* The shortest of some runs after one that does not count, in milliseconds. */
static vx_status time_conv(const vx_device *device, const vx_cuda_conv *conv, const memory *m,
                           double *best, vx_error *err) {
    for (int run = -1; run < REPEATS; run++) {
        float ms = 0;
        cudaEventRecord(m->start, device->stream);
        vx_status status =
            vx_cuda_conv_launch(device, conv, m->of[0], (vx_cuda_pending){0}, m->of[1], m->of[2],
                                m->of[3], conv->parts ? m->of[4] : NULL, err);
        cudaEventRecord(m->stop, device->stream);
        if (status == VX_OK)
            status = vx_cuda_check(cudaEventSynchronize(m->stop), "a convolution", err);
        if (status == VX_OK)
            status = vx_cuda_check(cudaEventElapsedTime(&ms, m->start, m->stop), "timing", err);
        if (status != VX_OK) return status;
        if (run == 0 || (run > 0 && (double)ms < *best)) *best = (double)ms;
    }
    return VX_OK;
}

static vx_status time_layer(vx_device *device, const struct layer *l, vx_dtype dtype,
                            const memory *m, const char *json, vx_error *err) {
    vx_cuda_conv_shape s = shape_of(l, dtype);
    double times[1 + VX_CUDA_TILED_VARIANTS] = {0};
    char name[64];
    const double gflop = 2e-9 * (double)vx_shape_elements(s.out) * (double)l->c_in *
                         (double)(s.kernel[0] * s.kernel[1] * s.kernel[2]);
    vx_status status = VX_OK;
    size_t workspace = 0;
    for (unsigned v = 0; v <= VX_CUDA_TILED_VARIANTS && status == VX_OK; v++) {
        vx_cuda_conv conv = {0};
        s.normed = v > 0; /* without a norm it is cuDNN */
        if (v == 0)
            status = vx_cuda_conv_create(device, &s, &conv, err);
        else if (!vx_cuda_conv_variant(&s, v, &conv))
            continue;
        if (v == 0) workspace = conv.workspace_bytes;
        if (status == VX_OK) status = time_conv(device, &conv, m, &times[v], err);
        vx_cuda_conv_destroy(&conv);
    }
    if (status != VX_OK) return status;
    snprintf(name, sizeof name, "%zu^3 %zu->%zu k%zu%zu%zu s%zu", l->grid, l->c_in, l->c_out,
             s.kernel[0], s.kernel[1], s.kernel[2], l->stride);
    printf("%-28s cuDNN %8.4f ms (%6.1f TFLOP/s, workspace %.1f MB)  tiled", name, times[0],
           gflop / times[0], (double)workspace * 1e-6);
    cJSON *o = cJSON_CreateObject();
    cJSON_AddStringToObject(o, "kind", "cuda_conv");
    cJSON_AddStringToObject(o, "device", device->name);
    cJSON_AddStringToObject(o, "layer", name);
    cJSON_AddNumberToObject(o, "gflop", gflop);
    cJSON_AddNumberToObject(o, "cudnn_ms", times[0]);
    cJSON *list = cJSON_AddArrayToObject(o, "tiled_ms");
    for (int v = 1; v <= VX_CUDA_TILED_VARIANTS; v++) {
        printf(" %8.4f", times[v]);
        cJSON_AddItemToArray(list, cJSON_CreateNumber(times[v]));
    }
    printf("\n");
    fflush(stdout);
    return bench_json_write(o, json, err);
}

int main(int argc, char **argv) {
    const char *type = argc > 1 ? argv[1] : "fp16";
    const vx_dtype dtype = strcmp(type, "bf16") == 0   ? VX_BF16
                           : strcmp(type, "fp32") == 0 ? VX_F32
                                                       : VX_F16;
    vx_device *device = NULL;
    vx_error err = {0};
    memory m = {0};
    vx_status status = vx_cuda_backend.open(0, NULL, &device, &err);
    if (status == VX_OK) status = open_memory(&m, &err);
    for (size_t i = 0; i < sizeof layers / sizeof *layers && status == VX_OK; i++)
        status = time_layer(device, &layers[i], dtype, &m, argc > 2 ? argv[2] : NULL, &err);
    if (status != VX_OK) fprintf(stderr, "voxmamba_cuda_conv: %s\n", err.text);
    for (size_t i = 0; i < 5; i++) cudaFree(m.of[i]);
    if (device) vx_cuda_backend.close(device);
    return (int)status;
}
