#include "golden_nets.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

const char *const golden_nets[GOLDEN_NETS] = {"segmamba_skip", "twin",           "pan_segmamba",
                                              "segmamba",      "multi_segmamba", "umamba_bot",
                                              "plain",         "residual_unet"};

float *golden_channels_last(const vx_tensor *t) {
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

void golden_open(const char *name, vx_model **model, vx_model_file **layers) {
    char path[512];
    vx_error err;
    const char *moved = getenv("VOXMAMBA_TEST_SOURCE"); /* the sources' folder, built elsewhere */
    const char *root = moved ? moved : VX_SOURCE_DIR;
    snprintf(path, sizeof path, "%s/tests/golden/layers/%s.safetensors", root, name);
    if (vx_model_open(path, model, &err) != VX_OK) fail_msg("%s", err.text);
    snprintf(path, sizeof path, "%s/tests/golden/layers/%s.layers.safetensors", root, name);
    if (vx_model_file_open(path, layers, &err) != VX_OK) fail_msg("%s", err.text);
}

size_t golden_mark_layers(vx_graph *g, const vx_model_file *layers,
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
