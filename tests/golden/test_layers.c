/* Every network family against PyTorch in float64, layer by layer (layers/README.md): model file ->
 * graph -> CPU backend, as the program does it. */
#include "ops.h"

#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "model/model.h"

static const char *const nets[] = {"segmamba_skip",  "twin",       "pan_segmamba", "segmamba",
                                   "multi_segmamba", "umamba_bot", "plain",        "residual_unet"};

/* [n][c][z][y][x] to [n][z][y][x][c]. */
static float *channels_last(const vx_tensor *t) {
    assert_int_equal(t->rank, 5);
    assert_int_equal(t->dtype, VX_F32);
    const size_t channels = t->dims[1], voxels = t->dims[2] * t->dims[3] * t->dims[4];
    float *out = vx_alloc(t->bytes);
    assert_non_null(out);
    for (size_t n = 0; n < t->dims[0]; n++)
        for (size_t c = 0; c < channels; c++)
            for (size_t v = 0; v < voxels; v++)
                memcpy(&out[(n * voxels + v) * channels + c],
                       (const char *)t->data + 4 * ((n * channels + c) * voxels + v), 4);
    return out;
}

static void open_net(const char *name, vx_model **model, vx_model_file **layers) {
    char path[512];
    vx_error err;
    snprintf(path, sizeof path, "%s/tests/golden/layers/%s.safetensors", VX_SOURCE_DIR, name);
    if (vx_model_open(path, model, &err) != VX_OK) fail_msg("%s", err.text);
    snprintf(path, sizeof path, "%s/tests/golden/layers/%s.layers.safetensors", VX_SOURCE_DIR,
             name);
    if (vx_model_file_open(path, layers, &err) != VX_OK) fail_msg("%s", err.text);
}

/* Marks every layer of the golden as an output. names[k]: of output k. Returns their number. */
static size_t mark_layers(vx_graph *g, const vx_model_file *layers,
                          const vx_tensor *tensors[OPS_OUTPUTS]) {
    size_t wanted = 0, count = 0;
    for (size_t i = 0; i < vx_model_file_count(layers); i++) {
        const char *name = vx_model_file_at(layers, i)->name + strlen("golden.");
        if (strcmp(name, "input") == 0) continue;
        const int value = vx_graph_find(g, name);
        if (value < 0) fail_msg("the graph has no layer '%s'", name);
        vx_graph_output(g, value);
        wanted++;
    }
    for (size_t v = 0; v < g->value_count; v++) {
        char name[sizeof g->values[v].name + 8];
        if (!g->values[v].output) continue;
        assert_true(count < OPS_OUTPUTS);
        snprintf(name, sizeof name, "golden.%s", g->values[v].name);
        tensors[count] = vx_model_file_find(layers, name);
        if (!tensors[count]) fail_msg("no golden of '%s'", name);
        count++;
    }
    assert_int_equal(count, wanted);
    return count;
}

static void compare(const vx_graph *g, const float *x, ops_how how, const char *text,
                    const vx_tensor *const *tensors, double tolerance) {
    float *results[OPS_OUTPUTS];
    const size_t count = ops_run_all(g, x, how, results);
    printf("  %s:", text);
    for (size_t k = 0; k < count; k++) {
        float *truth = channels_last(tensors[k]);
        const double error = ops_relative(results[k], truth, tensors[k]->bytes / 4);
        printf(" %s %.1e", tensors[k]->name + strlen("golden."), error);
        if (!(error <= tolerance))
            fail_msg("%s, %s: relative L2 %.3g, allowed %.3g", text, tensors[k]->name, error,
                     tolerance);
        vx_free(truth);
        vx_free(results[k]);
    }
    printf("\n");
}

static void check_net(const char *name) {
    vx_model *model;
    vx_model_file *layers;
    vx_graph *g;
    vx_error err;
    const vx_tensor *tensors[OPS_OUTPUTS];
    open_net(name, &model, &layers);
    const vx_tensor *input = vx_model_file_find(layers, "golden.input");
    assert_non_null(input);
    if (vx_model_graph(model, 1, input->dims + 2, &g, &err) != VX_OK) fail_msg("%s", err.text);
    mark_layers(g, layers, tensors);
    float *x = channels_last(input);
    printf("%s\n", name);
    /* The contract is 1e-4; measured: the reference 1e-7, the fast ways 2e-6. */
    compare(g, x, ops_reference, "reference", tensors, 1e-6);
    for (int isa = VX_ISA_BASELINE; isa <= VX_ISA_BEST; isa++) {
        if (!ops_kernels((vx_isa)isa)) continue;
        const ops_how how = {.workers = 2, .isa = (vx_isa)isa, .own_only = isa != VX_ISA_BEST};
        compare(g, x, how, how.own_only ? ops_kernels((vx_isa)isa)->name : "best", tensors, 1e-5);
    }
    /* bfloat16 rounds a number by 2e-3, and layers add up. Measured 2.8e-2. */
    for (int isa = VX_ISA_BASELINE; isa <= VX_ISA_BEST; isa++) {
        const vx_kernels *kernels = ops_bf16_kernels((vx_isa)isa);
        if (!kernels) continue;
        const ops_how how = {
            .workers = 2, .isa = (vx_isa)isa, .own_only = isa != VX_ISA_BEST, .bf16 = true};
        compare(g, x, how, how.own_only ? kernels->name : "best, bf16", tensors, 4e-2);
    }
    vx_free(x);
    vx_graph_free(g);
    vx_model_file_close(layers);
    vx_model_close(model);
}

static void all_nets(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof nets / sizeof *nets; i++) check_net(nets[i]);
}

/* Without marked layers everything fuses: the logits must not change by more than rounding. */
static void logits_alone(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof nets / sizeof *nets; i++) {
        vx_model *model;
        vx_model_file *layers;
        vx_graph *g;
        vx_error err;
        open_net(nets[i], &model, &layers);
        const vx_tensor *input = vx_model_file_find(layers, "golden.input");
        if (vx_model_graph(model, 1, input->dims + 2, &g, &err) != VX_OK) fail_msg("%s", err.text);
        const vx_tensor *logits = vx_model_file_find(layers, "golden.logits");
        float *x = channels_last(input);
        compare(g, x, ops_fast, nets[i], &logits, 1e-5);
        vx_free(x);
        vx_graph_free(g);
        vx_model_file_close(layers);
        vx_model_close(model);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_nets),
        cmocka_unit_test(logits_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
