#include "fake_model.h"
#include "fake_plan.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "model/arch.h"

/* ---- Model file ---- */

static const char * or (const char *text, const char *otherwise) { return text ? text : otherwise; }

static size_t write_recipe(const fake_settings *s, char *text, size_t room) {
    size_t channels = s->channels ? s->channels : 1, labels = s->labels ? s->labels : 3;
    const double *mm = s->spacing;
    const size_t *patch = s->patch;
    size_t n = 0;
#define PUT(...) n += (size_t)snprintf(text + n, room - n, __VA_ARGS__)
    PUT("{\"format\": 1, \"name\": \"fake\", \"version\": \"1\", \"licence\": \"none\", ");
    PUT("\"channels\": [");
    for (size_t c = 0; c < channels; c++)
        PUT("%s{\"name\": \"c%zu\", \"normalisation\": {\"kind\": \"%s\"}}", c ? ", " : "", c,
            or (s->normalise, "none"));
    PUT("], \"labels\": [");
    for (size_t k = 1; k <= labels; k++) {
        PUT("%s{\"value\": %zu, \"name\": \"l%zu\", \"rgb\": [1, 2, 3]", k > 1 ? ", " : "", 10 * k,
            k);
        if (s->regions) PUT(", \"members\": [%zu]", k);
        PUT("}");
    }
    PUT("], \"orientation\": \"%s\", \"crop\": \"%s\", ", or (s->orientation, "as-stored"),
        or (s->crop, "nonzero"));
    PUT("\"spacing_zyx_mm\": [%g, %g, %g], ", mm[0] > 0 ? mm[0] : 1, mm[1] > 0 ? mm[1] : 1,
        mm[2] > 0 ? mm[2] : 1);
    PUT("\"patch_zyx\": [%zu, %zu, %zu], ", patch[0] ? patch[0] : 4, patch[1] ? patch[1] : 6,
        patch[2] ? patch[2] : 4);
    PUT("\"resampling\": {\"image_order\": %d, \"logits_order\": %d, \"separate_axis\": \"auto\", "
        "\"separate_axis_order\": 0}, ",
        s->image_order, s->logits_order);
    PUT("\"mirror_axes\": [%s], ", s->mirror ? "0, 1, 2" : "");
    if (s->field_of_view) PUT("\"field_of_view_mm\": %s, ", s->field_of_view);
    PUT("\"network\": {\"shell\": \"plain\", \"in_channels\": %zu, \"classes\": %zu, "
        "\"features\": [1, 1], \"kernels_zyx\": [[1, 1, 1], [1, 1, 1]], "
        "\"strides_zyx\": [[1, 1, 1], [2, 2, 2]], \"encoder_blocks\": [1, 1], "
        "\"decoder_blocks\": [1]}}",
        channels, labels + (s->regions ? 0 : 1));
#undef PUT
    assert_true(n < room);
    return n;
}

static void write_file(int fd, const void *data, size_t bytes) {
    assert_int_equal(write(fd, data, bytes), (ssize_t)bytes);
}

/* safetensors: header length, header, zeros. */
static void write_model(int fd, const char *recipe_text, const vx_recipe *recipe) {
    size_t count, offset = 0, n = 0, room = 1 << 16;
    vx_tensor_spec *specs;
    assert_int_equal(vx_network_tensors(&recipe->network, &specs, &count, NULL), VX_OK);
    char *header = malloc(room);
#define PUT(...) n += (size_t)snprintf(header + n, room - n, __VA_ARGS__)
    PUT("{\"__metadata__\": {\"voxmamba\": \"");
    for (const char *p = recipe_text; *p; p++) PUT("%s%c", *p == '"' ? "\\" : "", *p);
    PUT("\"}");
    for (size_t i = 0; i < count; i++) {
        if (specs[i].optional) continue;
        size_t bytes = sizeof(float);
        PUT(", \"%s\": {\"dtype\": \"F32\", \"shape\": [", specs[i].name);
        for (int k = 0; k < specs[i].rank; k++) {
            PUT("%s%zu", k ? ", " : "", specs[i].dims[k]);
            bytes *= specs[i].dims[k];
        }
        PUT("], \"data_offsets\": [%zu, %zu]}", offset, offset + bytes);
        offset += bytes;
    }
    PUT("}");
#undef PUT
    assert_true(n < room);
    uint64_t length = n;
    write_file(fd, &length, sizeof length);
    write_file(fd, header, n);
    char *zeros = calloc(offset, 1);
    write_file(fd, zeros, offset);
    free(zeros);
    free(header);
    vx_free(specs);
}

vx_model *fake_model(const fake_settings *settings) {
    char text[8192], path[] = "/tmp/voxmamba-fake-XXXXXX";
    vx_error err = {0};
    vx_recipe *recipe = NULL;
    vx_model *model = NULL;
    size_t n = write_recipe(settings, text, sizeof text);
    if (vx_recipe_parse(text, n, &recipe, &err) != VX_OK) fail_msg("%s", err.text);
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    write_model(fd, text, recipe);
    close(fd);
    if (vx_model_open(path, &model, &err) != VX_OK) fail_msg("%s", err.text);
    unlink(path);
    vx_recipe_free(recipe);
    return model;
}

/* ---- Backend ---- */

fake_rule fake_backend_rule = FAKE_LABELS;
size_t fake_backend_runs = 0;

struct vx_device {
    int unused;
};

struct vx_plan {
    vx_shape in, out;
};

static vx_status fake_open(int ordinal, vx_pool *pool, vx_device **out, vx_error *err) {
    (void)ordinal;
    (void)pool;
    *out = vx_alloc_zero(1, sizeof **out);
    return *out ? VX_OK : vx_fail(err, VX_ERR_RESOURCE, "out of memory");
}

static void fake_close(vx_device *device) { vx_free(device); }

static void fake_describe(const vx_device *device, char *text, size_t bytes) {
    (void)device;
    snprintf(text, bytes, "fake");
}

static vx_status fake_compile(vx_device *device, const vx_graph *graph,
                              const vx_compile_options *options, vx_plan **out, vx_error *err) {
    (void)device;
    (void)options;
    *out = vx_alloc_zero(1, sizeof **out);
    if (!*out) return vx_fail(err, VX_ERR_RESOURCE, "out of memory");
    (*out)->in = graph->values[0].shape;
    for (size_t i = 0; i < graph->value_count; i++)
        if (graph->values[i].output) (*out)->out = graph->values[i].shape;
    return VX_OK;
}

static void fake_plan_free(vx_plan *plan) { vx_free(plan); }

static void fake_plan_info(const vx_plan *plan, vx_plan_info *out) {
    (void)plan;
    *out = (vx_plan_info){.arena_bytes = 100, .weight_bytes = 23, .flops = 7, .steps = 1};
}

vx_status fake_run(vx_plan *plan, void *arena, const float *in, float *const *out, vx_error *err) {
    (void)arena;
    size_t voxels = vx_shape_tokens(plan->in), classes = plan->out.c, channels = plan->in.c;
    fake_backend_runs++;
    if (fake_backend_rule == FAKE_FAIL) return vx_fail(err, VX_ERR_RESOURCE, "fake failure");
    for (size_t v = 0; v < voxels; v++)
        for (size_t k = 0; k < classes; k++) {
            bool regions = fake_backend_rule == FAKE_REGIONS;
            float d = in[v * channels] - (float)(regions ? k + 1 : k);
            out[0][v * classes + k] = (regions ? 0.25f : 0.0f) - d * d;
        }
    if (fake_backend_rule == FAKE_NAN) out[0][voxels / 2 * classes] = NAN;
    return VX_OK;
}

const vx_backend fake_backend = {.name = "fake",
                                 .open = fake_open,
                                 .close = fake_close,
                                 .describe = fake_describe,
                                 .compile = fake_compile,
                                 .plan_free = fake_plan_free,
                                 .plan_info = fake_plan_info,
                                 .run = fake_run};

static void device_plan_info(const vx_plan *plan, vx_plan_info *out) {
    (void)plan;
    *out = (vx_plan_info){.device_bytes = 123, .flops = 7, .steps = 1};
}

const vx_backend fake_device_backend = {.name = "fake device",
                                        .open = fake_open,
                                        .close = fake_close,
                                        .describe = fake_describe,
                                        .compile = fake_compile,
                                        .plan_free = fake_plan_free,
                                        .plan_info = device_plan_info,
                                        .run = fake_run,
                                        .sweep = &fake_sweep};
