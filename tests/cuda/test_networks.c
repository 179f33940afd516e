/* Every golden network on the CUDA device against PyTorch in float64: layer by layer in fp32, the
 * logits in all types; and the classes that half precision chooses against the CPU's. */
#include "golden_nets.h"

#include <math.h>
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

/* The largest of c logits, and how far the next one lies below it. */
static size_t top(const float *v, size_t c, float *margin) {
    size_t best = 0;
    *margin = INFINITY;
    for (size_t k = 1; k < c; k++) {
        const size_t loser = v[k] > v[best] ? best : k;
        const float gap = fabsf(v[k] - v[best]);
        *margin = loser == k ? fminf(*margin, gap) : gap;
        if (loser == best) best = k;
    }
    return best;
}

static double rms_error(const float *a, const float *b, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += pow((double)a[i] - (double)b[i], 2);
    return sqrt(sum / (double)n);
}

/* [voxel][class]: where the CPU's two largest logits lie further apart than four times the RMS
 * error, the class is the CPU's. */
static void agree(const char *text, const float *ours, const float *cpu, size_t voxels,
                  size_t classes) {
    const double limit = 4 * rms_error(ours, cpu, voxels * classes);
    size_t clear = 0, other = 0;
    for (size_t v = 0; v < voxels; v++) {
        float margin, ignored;
        const size_t best = top(cpu + v * classes, classes, &margin);
        if (!((double)margin > limit)) continue;
        clear++;
        other += top(ours + v * classes, classes, &ignored) != best;
    }
    printf("%s: %zu of %zu voxels are clear, %zu of them another class\n", text, clear, voxels,
           other);
    assert_true(clear > 0);
    if (other) fail_msg("%s: another class in %zu voxels", text, other);
}

/* The contract for masks of half precision. */
static void clear_voxels(void **state) {
    static const struct {
        const char *name;
        vx_precision precision;
    } types[] = {{"fp16", VX_PRECISION_FP16}, {"bf16", VX_PRECISION_BF16}};
    (void)state;
    for (size_t i = 0; i < GOLDEN_NETS; i++) {
        net n = open_net(golden_nets[i]);
        const vx_tensor *tensor = vx_model_file_find(n.layers, "golden.logits");
        const size_t classes = tensor->dims[1], voxels = tensor->bytes / 4 / classes;
        float *cpu = ops_run(n.graph, n.input, ops_fast, 0);
        for (size_t t = 0; t < 2; t++) {
            char text[64];
            float *results[OPS_OUTPUTS];
            snprintf(text, sizeof text, "%s %s", golden_nets[i], types[t].name);
            assert_int_equal(cuda_run_all(n.graph, n.input,
                                          (cuda_how){.precision = types[t].precision}, results),
                             1);
            agree(text, results[0], cpu, voxels, classes);
            vx_free(results[0]);
        }
        vx_free(cpu);
        close_net(&n);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(layers),
        cmocka_unit_test(logits),
        cmocka_unit_test(clear_voxels),
    };
    if (!cuda_there()) return 77;
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    cuda_done();
    return failed;
}
