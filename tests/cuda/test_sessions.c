/* Whole sessions on the device. A network in which one of our own half-precision kernels overflows
 * is refused, as fp32 is not; and two threads may open sessions at once. The session's model is a
 * fake one: the backend compiles the test's network in its place. */
#include "ops.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "cuda_run.h"
#include "infer/session.h"
#include "unit/infer/fake_model.h"

enum { CLASSES = 4 }; /* of the fake model */

static const size_t one[3] = {1, 1, 1}, two[3] = {2, 2, 2}, three[3] = {3, 3, 3};

/* --- networks --------------------------------------------------------------------------------- */

/* From one channel, 1 .. 4, to c about as large; and to the classes. */
static int begin(vx_graph *g, ops_weights *w, size_t patch, size_t c) {
    int x = vx_graph_input(g, (vx_shape){1, patch, patch, patch, 1});
    return vx_graph_linear(g, x, ops_weight(w, c, 0.5f, 1), (vx_weight){0}, c);
}
static void end(vx_graph *g, ops_weights *w, int x) {
    const size_t c = g->values[x].shape.c;
    x = vx_graph_linear(g, x, ops_weight(w, CLASSES * c, 0.1f, 0), (vx_weight){0}, CLASSES);
    vx_graph_output(g, x);
}

static int layer_norm(vx_graph *g, ops_weights *w, int x) {
    const size_t c = g->values[x].shape.c;
    return vx_graph_layer_norm(g, x, ops_weight(w, c, 0.5f, 1), ops_weight(w, c, 0.5f, 0), 1e-5f);
}

/* Of one branch, without the outer norms. z_scale: of z; bias: of the head, all of it. */
static int mamba_layer(vx_graph *g, ops_weights *w, int x, float z_scale, float bias) {
    const size_t c = g->values[x].shape.c;
    const vx_mamba m =
        ops_mamba(w, c, 2 * c, 16, 4, (c + 15) / 16, (vx_scan_order){{2, 0, 1}, true});
    float *z = (float *)(uintptr_t)m.in_proj.data + 2 * c * c;
    for (size_t i = 0; i < 2 * c * c; i++) z[i] *= z_scale;
    x = vx_graph_add(g, vx_graph_mamba(g, layer_norm(g, w, x), &m), x, 1.0f);
    const vx_weight head = ops_weight(w, c * c, 1 / sqrtf((float)c), 0);
    return vx_graph_add(
        g, vx_graph_linear(g, layer_norm(g, w, x), head, ops_weight(w, c, 0, bias), c), x, 1.0f);
}

/* Each value of what the network is named for is above 65504, or in mamba_in many of z are. */
static void tiled_convolution(vx_graph *g, ops_weights *w) {
    int x = begin(g, w, 64, 32);
    x = vx_graph_conv(g, x, ops_weight(w, 32 * 32 * 27, 0, 400), (vx_weight){0}, 32, three, one,
                      one);
    x = vx_graph_instance_norm(g, x, ops_weight(w, 32, 0.5f, 1), ops_weight(w, 32, 1, 0), 1e-5f);
    end(g, w, vx_graph_activation(g, x, VX_ACT_LEAKY_RELU, 0.01f));
}
static void transposed_convolution(vx_graph *g, ops_weights *w) {
    int x = begin(g, w, 16, 32);
    x = vx_graph_transposed_conv(g, x, ops_weight(w, 32 * 32 * 8, 0, 5000), (vx_weight){0}, 32,
                                 two);
    end(g, w, vx_graph_avg_pool(g, x, two));
}
static void mamba_in(vx_graph *g, ops_weights *w) {
    end(g, w, mamba_layer(g, w, begin(g, w, 16, 32), 1e5f, 0));
}
static void mamba_out(vx_graph *g, ops_weights *w) {
    end(g, w, mamba_layer(g, w, begin(g, w, 16, 32), 1, 1e5f));
}

/* Nothing overflows; of two widths, whose kernels need unlike amounts of shared memory. */
static void narrow(vx_graph *g, ops_weights *w) {
    end(g, w, mamba_layer(g, w, begin(g, w, 8, 96), 1, 0));
}
static void wide(vx_graph *g, ops_weights *w) {
    end(g, w, mamba_layer(g, w, begin(g, w, 8, 320), 1, 0));
}

/* --- sessions --------------------------------------------------------------------------------- */

typedef struct bench {
    vx_graph *graph;
    ops_weights weights;
    vx_pool *pool;
    vx_model *model;
    vx_volume *volume;
} bench;

static _Thread_local const vx_graph *network; /* that the thread's sessions compile */

static vx_status compile_network(vx_device *device, const vx_graph *graph,
                                 const vx_compile_options *options, vx_plan **out, vx_error *err) {
    (void)graph;
    return cuda_backend()->compile(device, network, options, out, err);
}

static void open_bench(bench *b, void (*fill)(vx_graph *, ops_weights *)) {
    vx_error err = {0};
    *b = (bench){.weights = {.seed = 17}};
    assert_int_equal(vx_graph_create(&b->graph, &err), VX_OK);
    fill(b->graph, &b->weights);
    if (vx_graph_finish(b->graph, &err) != VX_OK) fail_msg("%s", err.text);
    const size_t patch = b->graph->values[0].shape.w;
    const fake_settings settings = {.patch = {patch, patch, patch}};
    const vx_geometry geo = {.dims = {patch, patch, patch},
                             .affine = {{1}, {0, 1}, {0, 0, 1}, {0, 0, 0, 1}}};
    b->model = fake_model(&settings);
    assert_int_equal(vx_pool_create(2, &b->pool, &err), VX_OK);
    assert_int_equal(vx_volume_create(&geo, 1, &b->volume, &err), VX_OK);
    for (size_t i = 0; i < vx_voxels(&geo); i++)
        b->volume->data[i] = (float)(1 + (i ^ i / 7 ^ i / 61) % 4);
}

static void close_bench(bench *b) {
    vx_volume_free(b->volume);
    vx_model_close(b->model);
    vx_pool_free(b->pool);
    vx_graph_free(b->graph);
    ops_weights_free(&b->weights);
}

/* A session is opened, predicts a mask and is closed. */
static vx_status predict(bench *b, vx_precision precision, bool *overflow, vx_mask **mask,
                         vx_error *err) {
    vx_backend backend = *cuda_backend();
    backend.compile = compile_network;
    network = b->graph;
    const vx_session_options options = {
        .backend = &backend, .pool = b->pool, .precision = precision, .step = 0.5};
    const vx_predict_options wants = {.overflow = overflow};
    vx_session *session;
    vx_status status = vx_session_create(b->model, &options, &session, err);
    if (status != VX_OK) return status;
    status = vx_session_predict(session, b->volume, &wants, mask, NULL, err);
    vx_session_free(session);
    return status;
}

/* --- tests ------------------------------------------------------------------------------------ */

static void overflows_are_refused(void **state) {
    static const struct {
        const char *name;
        void (*fill)(vx_graph *, ops_weights *);
        size_t steps; /* that say that the kernel in question is the one */
    } cases[] = {{"tiled convolution", tiled_convolution, 3},
                 {"transposed convolution", transposed_convolution, 4},
                 {"mamba_in", mamba_in, 3},
                 {"mamba_out", mamba_out, 3}};
    (void)state;
    if (!cuda_has_matrix_units()) skip();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bench b;
        vx_mask *mask = NULL;
        vx_error err = {0};
        bool overflow = false;
        open_bench(&b, cases[i].fill);
        assert_int_equal(cuda_steps(b.graph, VX_PRECISION_FP16), cases[i].steps);
        if (predict(&b, VX_PRECISION_FP32, &overflow, &mask, &err) != VX_OK)
            fail_msg("%s, fp32: %s", cases[i].name, err.text);
        assert_false(overflow);
        vx_mask_free(mask);
        mask = NULL;
        const vx_status status = predict(&b, VX_PRECISION_FP16, &overflow, &mask, &err);
        printf("%s: %s\n", cases[i].name, status == VX_OK ? "not found" : err.text);
        assert_int_equal(status, VX_ERR_MODEL);
        assert_true(overflow);
        assert_null(mask);
        assert_string_equal(err.text, "the network gave NaN or infinite values (check the input's "
                                      "intensities, or use --precision fp32)");
        close_bench(&b);
    }
}

typedef struct worker {
    bench bench;
    const vx_mask *expected;
    bool failed;
    vx_error err;
} worker;

static void *open_and_predict(void *context) {
    enum { TIMES = 10 };
    worker *w = context;
    bool overflow;
    for (int i = 0; i < TIMES && !w->failed; i++) {
        vx_mask *mask = NULL;
        w->failed = predict(&w->bench, VX_PRECISION_FP16, &overflow, &mask, &w->err) != VX_OK;
        if (w->failed) break;
        if (memcmp(mask->data, w->expected->data, vx_voxels(&mask->geo) * mask->bytes) != 0)
            w->failed = vx_fail(&w->err, VX_ERR_MODEL, "another mask") != VX_OK;
        vx_mask_free(mask);
    }
    return NULL;
}

static void two_threads_open_sessions(void **state) {
    worker workers[2] = {{.failed = false}};
    vx_mask *expected[2];
    pthread_t other;
    bool overflow;
    (void)state;
    for (int k = 0; k < 2; k++) {
        open_bench(&workers[k].bench, k ? wide : narrow);
        if (predict(&workers[k].bench, VX_PRECISION_FP16, &overflow, &expected[k],
                    &workers[k].err) != VX_OK)
            fail_msg("%s", workers[k].err.text);
        workers[k].expected = expected[k];
    }
    assert_int_equal(pthread_create(&other, NULL, open_and_predict, &workers[1]), 0);
    open_and_predict(&workers[0]);
    pthread_join(other, NULL);
    for (int k = 0; k < 2; k++) {
        if (workers[k].failed) fail_msg("thread %d: %s", k, workers[k].err.text);
        vx_mask_free(expected[k]);
        close_bench(&workers[k].bench);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(overflows_are_refused),
        cmocka_unit_test(two_threads_open_sessions),
    };
    if (!cuda_there()) return 77;
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    cuda_done();
    return failed;
}
