/* Every golden network on the CUDA device against PyTorch in float64: layer by layer in fp32, the
 * logits in all types. */
#include "golden_nets.h"

#include <stdio.h>

#include "base/memory.h"
#include "cuda_run.h"

typedef struct net {
    vx_model *model;
    vx_model_file *layers;
    vx_graph *graph;
    float *input;
} net;

static net open_net(const char *name) {
    net n;
    vx_error err;
    golden_open(name, &n.model, &n.layers);
    const vx_tensor *input = vx_model_file_find(n.layers, "golden.input");
    assert_non_null(input);
    if (vx_model_graph(n.model, 1, input->dims + 2, &n.graph, &err) != VX_OK)
        fail_msg("%s", err.text);
    n.input = golden_channels_last(input);
    return n;
}

static void close_net(net *n) {
    vx_free(n->input);
    vx_graph_free(n->graph);
    vx_model_file_close(n->layers);
    vx_model_close(n->model);
}

static void compare(const net *n, const char *text, cuda_how how, const vx_tensor *const *tensors,
                    double tolerance) {
    float *results[OPS_OUTPUTS];
    const size_t count = cuda_run_all(n->graph, n->input, how, results);
    printf("%s:", text);
    for (size_t k = 0; k < count; k++) {
        float *truth = golden_channels_last(tensors[k]);
        const double error = ops_relative(results[k], truth, tensors[k]->bytes / 4);
        printf(" %s %.1e", tensors[k]->name, error);
        fflush(stdout);
        if (!(error <= tolerance))
            fail_msg("%s, %s: relative L2 %.3g, allowed %.3g", text, tensors[k]->name, error,
                     tolerance);
        vx_free(truth);
        vx_free(results[k]);
    }
    printf("\n");
}

/* The contract for fp32 holds for every layer. */
static void layers(void **state) {
    (void)state;
    for (size_t i = 0; i < GOLDEN_NETS; i++) {
        const vx_tensor *tensors[OPS_OUTPUTS];
        net n = open_net(golden_nets[i]);
        golden_mark_layers(n.graph, n.layers, tensors);
        compare(&n, golden_nets[i], (cuda_how){.precision = VX_PRECISION_FP32}, tensors, 1e-4);
        close_net(&n);
    }
}

/* As the program runs them: everything fused, memory reused, one CUDA graph. */
static void logits(void **state) {
    static const struct {
        const char *name;
        vx_precision precision;
        double tolerance; /* the contract */
    } types[] = {{"fp32", VX_PRECISION_FP32, 1e-4},
                 {"fp16", VX_PRECISION_FP16, 5e-3},
                 {"bf16", VX_PRECISION_BF16, 5e-2}};
    (void)state;
    for (size_t i = 0; i < GOLDEN_NETS; i++)
        for (size_t t = 0; t < 3; t++) {
            char text[64];
            net n = open_net(golden_nets[i]);
            const vx_tensor *tensor = vx_model_file_find(n.layers, "golden.logits");
            snprintf(text, sizeof text, "%s %s", golden_nets[i], types[t].name);
            compare(&n, text, (cuda_how){.precision = types[t].precision}, &tensor,
                    types[t].tolerance);
            close_net(&n);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(layers),
        cmocka_unit_test(logits),
    };
    if (!cuda_there()) return 77;
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    cuda_done();
    return failed;
}
