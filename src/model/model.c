#include "model/model.h"

#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "base/size.h"
#include "model/arch.h"

/* ---- A source that lists ---- */

typedef struct recorder {
    vx_tensor_spec *specs;
    size_t count, room;
} recorder;

static vx_status record(void *context, const vx_tensor_spec *spec, vx_weight *out, vx_error *err) {
    static const unsigned char placeholder; /* weights of a listing graph are never read */
    recorder *r = context;
    size_t elements;
    if (!vx_product(spec->dims, (size_t)spec->rank, &elements))
        return vx_fail(err, VX_ERR_MODEL, "tensor %s would be too large", spec->name);
    if (r->count == r->room) {
        const size_t room = r->room ? 2 * r->room : 256;
        vx_tensor_spec *specs = vx_alloc_zero(room, sizeof *specs);
        if (!specs) return vx_fail(err, VX_ERR_RESOURCE, "out of memory for the tensor list");
        if (r->count) memcpy(specs, r->specs, r->count * sizeof *specs);
        vx_free(r->specs);
        r->specs = specs;
        r->room = room;
    }
    r->specs[r->count++] = *spec;
    *out = (vx_weight){.data = &placeholder, .dtype = VX_F32, .elements = elements};
    return VX_OK;
}

/* ---- A source that reads from a file ---- */

typedef struct file_source {
    const vx_model_file *file;
    bool *used; /* a flag a tensor, or NULL */
} file_source;

/* "(32, 1, 3, 3, 3)" */
static void print_shape(char *out, size_t room, int rank, const size_t *dims) {
    size_t n = 0;
    for (int i = 0; i < rank && n < room; i++)
        n += (size_t)snprintf(out + n, room - n, "%s%zu", i ? ", " : "(", dims[i]);
    if (n < room) snprintf(out + n, room - n, rank ? ")" : "()");
}

static vx_status find_in_file(void *context, const vx_tensor_spec *spec, vx_weight *out,
                              vx_error *err) {
    const file_source *source = context;
    const vx_tensor *t = vx_model_file_find(source->file, spec->name);
    if (!t && spec->optional) return VX_OK;
    if (!t) return vx_fail(err, VX_ERR_MODEL, "tensor %s is missing", spec->name);
    const size_t bytes = (size_t)spec->rank * sizeof *spec->dims;
    if (t->rank != spec->rank || memcmp(t->dims, spec->dims, bytes) != 0) {
        char has[176], needs[176];
        print_shape(has, sizeof has, t->rank, t->dims);
        print_shape(needs, sizeof needs, spec->rank, spec->dims);
        return vx_fail(err, VX_ERR_MODEL, "tensor %s: shape is %s, the recipe needs %s", t->name,
                       has, needs);
    }
    if (source->used) source->used[t - vx_model_file_at(source->file, 0)] = true;
    out->data = t->data;
    out->dtype = t->dtype;
    out->elements = t->bytes / vx_dtype_size(t->dtype);
    return VX_OK;
}

/* ---- Graphs ---- */

static vx_status build(const vx_network *network, vx_weight_source source, size_t n,
                       const size_t patch[3], vx_graph **out, vx_error *err) {
    vx_builder b = {.network = network, .source = source};
    *out = NULL;
    vx_status status = vx_graph_create(&b.graph, err);
    if (status) return status;
    const vx_shape shape = {n, patch[0], patch[1], patch[2], network->in_channels};
    const int logits = vx_unet(&b, vx_graph_input(b.graph, shape));
    vx_graph_output(b.graph, logits);
    status = vx_graph_finish(b.graph, err);
    if (status) {
        vx_graph_free(b.graph);
        return status;
    }
    *out = b.graph;
    return VX_OK;
}

/* The strides' products: the smallest patch that passes. Tensor names and shapes do not depend on
 * the patch. */
static void smallest_patch(const vx_network *network, size_t patch[3]) {
    for (int i = 0; i < 3; i++) {
        patch[i] = 1;
        for (size_t s = 0; s < network->stages; s++) patch[i] *= network->strides[s][i];
    }
}

vx_status vx_network_tensors(const vx_network *network, vx_tensor_spec **out, size_t *count,
                             vx_error *err) {
    recorder r = {0};
    vx_graph *graph;
    size_t patch[3];
    *out = NULL;
    *count = 0;
    smallest_patch(network, patch);
    vx_status status = build(network, (vx_weight_source){record, &r}, 1, patch, &graph, err);
    if (status) {
        vx_free(r.specs);
        return status;
    }
    vx_graph_free(graph);
    *out = r.specs;
    *count = r.count;
    return VX_OK;
}

vx_status vx_model_graph(const vx_model *model, size_t n, const size_t patch[3], vx_graph **out,
                         vx_error *err) {
    static const char axes[3] = {'z', 'y', 'x'};
    file_source source = {.file = model->file};
    size_t step[3];
    *out = NULL;
    smallest_patch(&model->recipe->network, step);
    for (int i = 0; i < 3; i++)
        if (patch[i] % step[i])
            return vx_fail(err, VX_ERR_MODEL,
                           "a patch of %zu voxels along %c is no multiple of the strides' product "
                           "%zu",
                           patch[i], axes[i], step[i]);
    return build(&model->recipe->network, (vx_weight_source){find_in_file, &source}, n, patch, out,
                 err);
}

/* ---- The model ---- */

static vx_status read_recipe(vx_model *model, vx_error *err) {
    size_t bytes;
    const char *text = vx_model_file_metadata(model->file, "voxmamba", &bytes);
    if (!text)
        return vx_fail(err, VX_ERR_MODEL,
                       "the file holds no recipe (__metadata__ has no \"voxmamba\"): it is not a "
                       "VoxMamba model");
    return vx_recipe_parse(text, bytes, &model->recipe, err);
}

/* Every tensor that the network needs is there, and no other. */
static vx_status check_tensors(vx_model *model, vx_error *err) {
    const size_t count = vx_model_file_count(model->file);
    file_source source = {.file = model->file, .used = vx_alloc_zero(count, sizeof(bool))};
    vx_graph *graph = NULL;
    size_t patch[3];
    if (!source.used) return vx_fail(err, VX_ERR_RESOURCE, "out of memory for the model");
    smallest_patch(&model->recipe->network, patch);
    vx_status status = build(&model->recipe->network, (vx_weight_source){find_in_file, &source}, 1,
                             patch, &graph, err);
    for (size_t i = 0; i < count && !status; i++) {
        const vx_tensor *t = vx_model_file_at(model->file, i);
        model->parameters += t->bytes / vx_dtype_size(t->dtype);
        if (!source.used[i])
            status = vx_fail(err, VX_ERR_MODEL, "tensor %.100s: the recipe's network has none such",
                             t->name);
    }
    vx_graph_free(graph);
    vx_free(source.used);
    return status;
}

vx_status vx_model_open(const char *path, vx_model **out, vx_error *err) {
    *out = NULL;
    vx_model *model = vx_alloc_zero(1, sizeof *model);
    if (!model) return vx_fail(err, VX_ERR_RESOURCE, "out of memory for the model");
    vx_status status = vx_model_file_open(path, &model->file, err);
    if (!status) {
        status = read_recipe(model, err);
        if (!status) status = check_tensors(model, err);
        if (status) vx_fail_prefix(err, status, path);
    }
    if (status) {
        vx_model_close(model);
        return status;
    }
    vx_model_file_sha256(model->file, model->sha256);
    *out = model;
    return VX_OK;
}

void vx_model_close(vx_model *model) {
    if (!model) return;
    vx_recipe_free(model->recipe);
    vx_model_file_close(model->file);
    vx_free(model);
}
