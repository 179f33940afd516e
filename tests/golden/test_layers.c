/* Every network family against PyTorch in float64, layer by layer (layers/README.md): model file ->
 * graph -> CPU backend, as the program does it. */
#include "golden_nets.h"

#include <stdio.h>
#include <string.h>

#include "base/memory.h"

static void compare(const vx_graph *g, const float *x, ops_how how, const char *text,
                    const vx_tensor *const *tensors, double tolerance) {
    float *results[OPS_OUTPUTS];
    const size_t count = ops_run_all(g, x, how, results);
    printf("  %s:", text);
    for (size_t k = 0; k < count; k++) {
        float *truth = golden_channels_last(tensors[k]);
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
    golden_open(name, &model, &layers);
    const vx_tensor *input = vx_model_file_find(layers, "golden.input");
    assert_non_null(input);
    if (vx_model_graph(model, 1, input->dims + 2, &g, &err) != VX_OK) fail_msg("%s", err.text);
    golden_mark_layers(g, layers, tensors);
    float *x = golden_channels_last(input);
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
    for (size_t i = 0; i < GOLDEN_NETS; i++) check_net(golden_nets[i]);
}

/* Without marked layers everything fuses: the logits must not change by more than rounding. */
static void logits_alone(void **state) {
    (void)state;
    for (size_t i = 0; i < GOLDEN_NETS; i++) {
        vx_model *model;
        vx_model_file *layers;
        vx_graph *g;
        vx_error err;
        golden_open(golden_nets[i], &model, &layers);
        const vx_tensor *input = vx_model_file_find(layers, "golden.input");
        if (vx_model_graph(model, 1, input->dims + 2, &g, &err) != VX_OK) fail_msg("%s", err.text);
        const vx_tensor *logits = vx_model_file_find(layers, "golden.logits");
        float *x = golden_channels_last(input);
        compare(g, x, ops_fast, golden_nets[i], &logits, 1e-5);
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
