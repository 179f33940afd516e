/* Networks: parameter counts of the published code, tensor names and shapes, the graph's structure,
 * and models whose tensors do not fit their recipe. */
#define _GNU_SOURCE /* memmem */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/memory.h"
#include "model_writer.h"

/* nnU-Net's 128^3 plan: 6 stages 32..320, 4 channels, 4 classes, kernels 3. */
static vx_network big(vx_shell shell, vx_mamba_family family, size_t d_state_max) {
    static const size_t features[6] = {32, 64, 128, 256, 320, 320};
    vx_network n = {.shell = shell,
                    .in_channels = 4,
                    .classes = 4,
                    .stages = 6,
                    .conv_bias = true,
                    .family = family,
                    .d_state_max = d_state_max,
                    .d_conv = 4,
                    .expand = 2};
    for (size_t s = 0; s < 6; s++) {
        n.features[s] = features[s];
        n.encoder_blocks[s] = n.decoder_blocks[s] = 2;
        for (int i = 0; i < 3; i++) {
            n.kernels[s][i] = 3;
            n.strides[s][i] = s ? 2 : 1;
        }
    }
    return n;
}

static size_t parameters(const vx_network *network) {
    vx_tensor_spec *specs;
    size_t count, sum = 0;
    assert_int_equal(vx_network_tensors(network, &specs, &count, NULL), VX_OK);
    for (size_t i = 0; i < count; i++) {
        size_t n = 1;
        for (int k = 0; k < specs[i].rank; k++) n *= specs[i].dims[k];
        sum += n;
        for (size_t k = 0; k < i; k++) assert_string_not_equal(specs[k].name, specs[i].name);
    }
    vx_free(specs);
    return sum;
}

/* Counted by PyTorch on the published classes: TamingMambas' nets and
 * dynamic_network_architectures 0.4.4. */
static void parameter_counts(void **state) {
    (void)state;
    vx_network n = big(VX_SHELL_RESIDUAL_ENCODER, VX_MAMBA_SEGMAMBA, 256);
    assert_int_equal(parameters(&n), 61379764);
    n = big(VX_SHELL_RESIDUAL_ENCODER, VX_MAMBA_PAN_SEGMAMBA, 256);
    assert_int_equal(parameters(&n), 65024404);
    n = big(VX_SHELL_RESIDUAL_ENCODER, VX_MAMBA_SEGMAMBA_SKIP, 256);
    assert_int_equal(parameters(&n), 65024404);
    n = big(VX_SHELL_RESIDUAL_ENCODER, VX_MAMBA_MULTI_SEGMAMBA, 64);
    assert_int_equal(parameters(&n), 78232532);
    n = big(VX_SHELL_PLAIN, VX_MAMBA_NONE, 0);
    assert_int_equal(parameters(&n), 31199796);
    static const size_t blocks[6] = {1, 3, 4, 6, 6, 6};
    n = big(VX_SHELL_RESIDUAL_UNET, VX_MAMBA_NONE, 0);
    for (size_t s = 0; s < 6; s++) {
        n.encoder_blocks[s] = blocks[s];
        n.decoder_blocks[s] = 1;
    }
    assert_int_equal(parameters(&n), 102353972);
}

/* name in the list with this shape (up to the first 0). */
static void assert_tensor(const vx_tensor_spec *specs, size_t count, const char *name,
                          const size_t shape[5]) {
    for (size_t i = 0; i < count; i++) {
        if (strcmp(specs[i].name, name) != 0) continue;
        for (int k = 0; k < specs[i].rank; k++) assert_int_equal(specs[i].dims[k], shape[k]);
        assert_true(specs[i].rank == 5 || shape[specs[i].rank] == 0);
        return;
    }
    fail_msg("%s is missing", name);
}
#define TENSOR(name, ...) assert_tensor(specs, count, name, (const size_t[5]){__VA_ARGS__})

static void tensor_names(void **state) {
    (void)state;
    vx_tensor_spec *specs;
    size_t count;
    vx_network n = big(VX_SHELL_RESIDUAL_ENCODER, VX_MAMBA_SEGMAMBA_SKIP, 48);
    assert_int_equal(vx_network_tensors(&n, &specs, &count, NULL), VX_OK);
    TENSOR("encoder.stem.convs.0.conv.weight", 32, 4, 3, 3, 3);
    TENSOR("encoder.stages.0.blocks.1.conv2.norm.bias", 32);
    TENSOR("encoder.stages.1.blocks.0.skip.1.conv.weight", 64, 32, 1, 1, 1);
    TENSOR("encoder.stages.1.blocks.0.skip.1.norm.weight", 64);
    TENSOR("encoder.mamba_layers.1.norm.weight", 64);
    TENSOR("encoder.mamba_layers.1.mamba.norm.bias", 64);
    TENSOR("encoder.mamba_layers.1.mamba.fwd_mamba.norm1.weight", 64);
    TENSOR("encoder.mamba_layers.1.mamba.bwd_mamba.head.weight", 64, 64);
    TENSOR("encoder.mamba_layers.1.mamba.bwd_mamba.mamba.in_proj.weight", 256, 64);
    TENSOR("encoder.mamba_layers.1.mamba.fwd_mamba.mamba.conv1d.weight", 128, 1, 4);
    TENSOR("encoder.mamba_layers.1.mamba.fwd_mamba.mamba.x_proj.weight", 4 + 2 * 48, 128);
    TENSOR("encoder.mamba_layers.0.mamba.fwd_mamba.mamba.A_log", 64, 32); /* N = min(32, 48) */
    TENSOR("encoder.mamba_layers.1.mamba.fwd_mamba.mamba.A_log", 128, 48);
    TENSOR("encoder.mamba_layers.1.mamba.fwd_mamba.mamba.dt_proj.weight", 128, 4);
    TENSOR("encoder.mamba_layers.1.mamba.fwd_mamba.mamba.D", 128);
    TENSOR("encoder.mamba_layers.1.mamba.fwd_mamba.mamba.out_proj.weight", 64, 128);
    TENSOR("decoder.transpconvs.4.weight", 64, 32, 2, 2, 2);
    TENSOR("decoder.stages.4.blocks.0.skip.0.conv.weight", 32, 64, 1, 1, 1);
    TENSOR("decoder.seg_layers.4.weight", 4, 32, 1, 1, 1);
    TENSOR("decoder.seg_layers.0.bias", 4);
    for (size_t i = 0; i < count; i++) {
        /* All heads but the last one may be left out, and nothing else. */
        const bool early =
            strncmp(specs[i].name, "decoder.seg_layers.", 19) == 0 && specs[i].name[19] != '4';
        assert_int_equal(specs[i].optional, early);
        assert_null(strstr(specs[i].name, "skip.0.conv.bias"));
    }
    vx_free(specs);
    n = big(VX_SHELL_PLAIN, VX_MAMBA_NONE, 0);
    assert_int_equal(vx_network_tensors(&n, &specs, &count, NULL), VX_OK);
    TENSOR("encoder.stages.5.0.convs.1.conv.weight", 320, 320, 3, 3, 3);
    TENSOR("decoder.stages.0.convs.0.conv.weight", 320, 640, 3, 3, 3);
    vx_free(specs);
    n = big(VX_SHELL_RESIDUAL_ENCODER, VX_MAMBA_MULTI_SEGMAMBA, 64);
    assert_int_equal(vx_network_tensors(&n, &specs, &count, NULL), VX_OK);
    TENSOR("encoder.mamba_layers.5.mambas.3.bwd_mamba.mamba.A_log", 640, 64);
    TENSOR("encoder.mamba_layers.5.mambas.0.norm.weight", 320);
    vx_free(specs);
    n = big(VX_SHELL_RESIDUAL_ENCODER, VX_MAMBA_UMAMBA_BOT, 16);
    assert_int_equal(vx_network_tensors(&n, &specs, &count, NULL), VX_OK);
    TENSOR("encoder.mamba_layers.5.mamba.A_log", 640, 16);
    for (size_t i = 0; i < count; i++) assert_null(strstr(specs[i].name, "encoder.mamba_layers.4"));
    vx_free(specs);
}

static vx_model *open_bytes(bytes b, vx_error *err) {
    char path[64];
    vx_model *model = NULL;
    write_temporary(b.data, b.size, path);
    const vx_status status = vx_model_open(path, &model, err);
    unlink(path);
    assert_int_equal(status == VX_OK, model != NULL);
    if (status) assert_true(status == VX_ERR_MODEL && strncmp(err->text, path, strlen(path)) == 0);
    return model;
}

static void assert_shape(const vx_graph *g, const char *name, size_t d, size_t h, size_t w,
                         size_t c) {
    const int v = vx_graph_find(g, name);
    if (v < 0) fail_msg("%s is missing", name);
    const vx_shape s = g->values[v].shape;
    if (s.d != d || s.h != h || s.w != w || s.c != c)
        fail_msg("%s is %zu %zu %zu %zu", name, s.d, s.h, s.w, s.c);
}

static size_t count_kind(const vx_graph *g, vx_op_kind kind) {
    size_t n = 0;
    for (size_t i = 0; i < g->op_count; i++) n += g->ops[i].kind == kind;
    return n;
}

static void graph_of_a_model(void **state) {
    (void)state;
    for (int dtype = 0; dtype < 3; dtype++) {
        bytes b = model_bytes(small_recipe, (vx_dtype)dtype, true);
        vx_error err = {0};
        vx_model *m = open_bytes(b, &err);
        vx_graph *g;
        if (!m) fail_msg("%s", err.text);
        assert_int_equal(strlen(m->sha256), 64);
        assert_int_equal(m->parameters, parameters(&m->recipe->network));
        const size_t patch[3] = {5, 8, 12};
        assert_int_equal(vx_model_graph(m, 2, patch, &g, &err), VX_OK);
        assert_shape(g, "encoder.stem", 5, 8, 12, 2);
        assert_shape(g, "encoder.stages.0", 5, 8, 12, 2);
        assert_shape(g, "encoder.mamba_layers.0", 5, 8, 12, 2);
        assert_shape(g, "encoder.stages.1", 5, 4, 6, 4);
        assert_shape(g, "encoder.mamba_layers.1", 5, 4, 6, 4);
        assert_shape(g, "decoder.transpconvs.0", 5, 8, 12, 2);
        assert_shape(g, "decoder.stages.0", 5, 8, 12, 2);
        assert_shape(g, "logits", 5, 8, 12, 3);
        const int logits = vx_graph_find(g, "logits");
        assert_true(g->values[logits].output && g->values[logits].shape.n == 2);
        assert_int_equal(g->ops[logits].weight.dtype, dtype);
        assert_int_equal(count_kind(g, VX_OP_MAMBA), 4);
        /* Stage 1 reads stage 0's convolutions, not its Mamba layer. */
        const int stage0 = vx_graph_find(g, "encoder.stages.0");
        const int mamba0 = vx_graph_find(g, "encoder.mamba_layers.0");
        for (size_t i = 0; i < g->op_count; i++)
            if (g->ops[i].kind == VX_OP_CONV && g->ops[i].stride[1] == 2)
                assert_int_equal(g->ops[i].in[0], stage0);
            else if (g->ops[i].kind == VX_OP_CONCAT)
                assert_int_equal(g->ops[i].in[1], mamba0);
        assert_int_equal(vx_graph_fuse(g, &err), VX_OK);
        /* Stem, 4 blocks: conv1 each, tail each, and 2 projections. */
        assert_int_equal(count_kind(g, VX_OP_CONV_NORM_ACT), 1 + 4 + 2);
        assert_int_equal(count_kind(g, VX_OP_NORM_ACT_ADD), 4);
        assert_int_equal(count_kind(g, VX_OP_CONV), 1); /* the head */
        assert_int_equal(count_kind(g, VX_OP_INSTANCE_NORM), 0);
        vx_graph_free(g);
        /* A patch that the strides do not divide. */
        assert_int_equal(vx_model_graph(m, 1, (const size_t[3]){5, 7, 12}, &g, &err), VX_ERR_MODEL);
        assert_non_null(strstr(err.text, "multiple"));
        assert_int_equal(vx_model_graph(m, 1, (const size_t[3]){5, 8, SIZE_MAX / 2 - 1}, &g, &err),
                         VX_ERR_MODEL);
        assert_int_equal(vx_model_graph(m, 0, patch, &g, &err), VX_ERR_MODEL);
        vx_model_close(m);
        free(b.data);
    }
    vx_model_close(NULL);
}

/* MultiSegMamba: the scan orders of its 8 mixers, slowest axis first, and the mean. */
static void scan_orders(void **state) {
    (void)state;
    static const int axes[4][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {2, 0, 1}};
    char *recipe = replaced(small_recipe, "segmamba_skip", "multi_segmamba");
    bytes b = model_bytes(recipe, VX_F32, false);
    vx_error err = {0};
    vx_model *m = open_bytes(b, &err);
    vx_graph *g;
    if (!m) fail_msg("%s", err.text);
    assert_int_equal(vx_model_graph(m, 1, m->recipe->patch, &g, &err), VX_OK);
    size_t k = 0;
    for (size_t i = 0; i < g->op_count; i++) {
        if (g->ops[i].kind != VX_OP_MAMBA) continue;
        const vx_scan_order *order = &g->ops[i].mamba.order;
        for (int a = 0; a < 3; a++) assert_int_equal(order->axis[a], axes[k / 2 % 4][a]);
        assert_int_equal(order->reverse, k % 2);
        k++;
    }
    assert_int_equal(k, 16);
    const int out = vx_graph_find(g, "encoder.mamba_layers.0");
    assert_true(g->ops[out].kind == VX_OP_ADD && g->ops[out].scale == 0.25f);
    vx_graph_free(g);
    vx_model_close(m);
    free(b.data);
    free(recipe);
}

static void every_shell_and_family_opens(void **state) {
    (void)state;
    static const char *const shells[] = {"residual_encoder", "plain", "residual_unet"};
    static const char *const families[] = {"none",     "segmamba_skip",  "pan_segmamba",
                                           "segmamba", "multi_segmamba", "umamba_bot"};
    for (size_t s = 0; s < 3; s++)
        for (size_t f = 0; f < 6; f++) {
            char *with_shell = replaced(small_recipe, "residual_encoder", shells[s]);
            char *recipe = replaced(with_shell, "segmamba_skip", families[f]);
            bytes b = model_bytes(recipe, VX_BF16, f % 2);
            vx_error err = {0};
            vx_model *m = open_bytes(b, &err);
            vx_graph *g;
            if (!m) fail_msg("%s %s: %s", shells[s], families[f], err.text);
            assert_int_equal(vx_model_graph(m, 1, m->recipe->patch, &g, &err), VX_OK);
            assert_shape(g, "logits", 4, 8, 12, 3);
            assert_int_equal(vx_graph_find(g, "encoder.stem") >= 0, s != 1);
            vx_graph_free(g);
            vx_model_close(m);
            free(b.data);
            free(with_shell);
            free(recipe);
        }
}

/* A good model with one piece of its header replaced by one of the same length. */
static void check(const char *from, const char *to, const char *expected) {
    bytes b = model_bytes(small_recipe, VX_F32, true);
    vx_error err = {0};
    assert_int_equal(strlen(from), strlen(to));
    unsigned char *at = memmem(b.data, b.size, from, strlen(from));
    assert_non_null(at);
    memcpy(at, to, strlen(to));
    vx_model *m = open_bytes(b, &err);
    assert_null(m);
    if (!strstr(err.text, expected)) fail_msg("\"%s\" is not in \"%s\"", expected, err.text);
    free(b.data);
}

static void tensors_that_do_not_fit(void **state) {
    (void)state;
    check("\"encoder.stem.convs.0.conv.weight\"", "\"encoder.stem.convs.0.conv.weighT\"",
          "tensor encoder.stem.convs.0.conv.weight is missing");
    check("\"decoder.seg_layers.0.bias\"", "\"decoder.seg_layers.0.biaz\"",
          "tensor decoder.seg_layers.0.bias is missing");
    check("[2,1,1,3,3]", "[1,2,1,3,3]",
          "tensor encoder.stem.convs.0.conv.weight: shape is (1, 2, 1, 3, 3), the recipe needs (2, "
          "1, "
          "1, 3, 3)");
    check("[2,1,1,3,3]", "[3,1,3,2,1]", "shape is (3, 1, 3, 2, 1)");
    check("\\\"features\\\": [2, 4]", "\\\"features\\\": [2, 5]", "the recipe needs (5");
    check("\\\"encoder_blocks\\\": [1, 2]", "\\\"encoder_blocks\\\": [1, 1]",
          "tensor encoder.stages.1.blocks.1.conv1.conv.weight: the recipe's network has none such");
    check("\\\"classes\\\": 3", "\\\"classes\\\": 2", "recipe: network.classes");
    check("\"voxmamba\"", "\"voxmambA\"", "it is not a VoxMamba model");
}

static void hostile_shapes_in_the_recipe(void **state) {
    (void)state;
    vx_network n = big(VX_SHELL_RESIDUAL_ENCODER, VX_MAMBA_SEGMAMBA, 256);
    vx_tensor_spec *specs;
    size_t count;
    vx_error err;
    /* The largest network that a recipe can name: sizes stay far from overflow. */
    for (size_t s = 0; s < n.stages; s++) {
        n.features[s] = 8192;
        n.encoder_blocks[s] = n.decoder_blocks[s] = 64;
        for (int i = 0; i < 3; i++) {
            n.kernels[s][i] = 31;
            n.strides[s][i] = s ? 16 : 1;
        }
    }
    n.expand = 8;
    n.d_state_max = 1024;
    const vx_status status = vx_network_tensors(&n, &specs, &count, &err);
    if (status) assert_int_equal(status, VX_ERR_MODEL);
    vx_free(specs);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parameter_counts),
        cmocka_unit_test(tensor_names),
        cmocka_unit_test(graph_of_a_model),
        cmocka_unit_test(scan_orders),
        cmocka_unit_test(every_shell_and_family_opens),
        cmocka_unit_test(tensors_that_do_not_fit),
        cmocka_unit_test(hostile_shapes_in_the_recipe),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
