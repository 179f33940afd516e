#include "graph/graph.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "base/size.h"
#include "graph/append.h"

size_t vx_dtype_size(vx_dtype dtype) { return dtype == VX_F32 ? 4 : 2; }

size_t vx_shape_tokens(vx_shape shape) { return shape.n * shape.d * shape.h * shape.w; }

size_t vx_shape_elements(vx_shape shape) { return vx_shape_tokens(shape) * shape.c; }

const char *vx_op_name(vx_op_kind kind) {
    switch (kind) {
    case VX_OP_INPUT:
        return "input";
    case VX_OP_CONV:
        return "convolution";
    case VX_OP_TRANSPOSED_CONV:
        return "transposed convolution";
    case VX_OP_INSTANCE_NORM:
        return "instance norm";
    case VX_OP_LAYER_NORM:
        return "layer norm";
    case VX_OP_ACTIVATION:
        return "activation";
    case VX_OP_LINEAR:
        return "linear";
    case VX_OP_AVG_POOL:
        return "average pooling";
    case VX_OP_UPSAMPLE_NEAREST:
        return "nearest upsampling";
    case VX_OP_ADD:
        return "addition";
    case VX_OP_CONCAT:
        return "concatenation";
    case VX_OP_MAMBA:
        return "Mamba";
    case VX_OP_MAMBA_LAYER:
        return "Mamba layer";
    case VX_OP_CONV_NORM_ACT:
        return "convolution + norm + activation";
    case VX_OP_TRANSPOSED_CONCAT:
        return "transposed convolution + concatenation";
    case VX_OP_NORM_ACT_ADD:
        return "convolution + norm + addition + activation";
    }
    return "unknown op";
}

vx_status vx_graph_create(vx_graph **out, vx_error *err) {
    *out = vx_alloc_zero(1, sizeof **out);
    return *out ? VX_OK : vx_fail(err, VX_ERR_RESOURCE, "out of memory for the network");
}

void vx_graph_free(vx_graph *graph) {
    if (!graph) return;
    vx_free(graph->ops);
    vx_free(graph->values);
    vx_free(graph);
}

vx_status vx_graph_copy(const vx_graph *graph, vx_graph **out, vx_error *err) {
    vx_graph *copy = vx_alloc(sizeof *copy);
    *out = NULL;
    if (!copy) return vx_fail(err, VX_ERR_RESOURCE, "out of memory for the network");
    *copy = *graph;
    copy->op_room = graph->op_count;
    copy->value_room = graph->value_count;
    copy->ops = vx_alloc_zero(copy->op_room, sizeof *copy->ops);
    copy->values = vx_alloc_zero(copy->value_room, sizeof *copy->values);
    if (!copy->ops || !copy->values) {
        vx_graph_free(copy);
        return vx_fail(err, VX_ERR_RESOURCE, "out of memory for the network");
    }
    if (graph->op_count) memcpy(copy->ops, graph->ops, graph->op_count * sizeof *copy->ops);
    if (graph->value_count)
        memcpy(copy->values, graph->values, graph->value_count * sizeof *copy->values);
    *out = copy;
    return VX_OK;
}

int vx_graph_fail(vx_graph *g, vx_status code, const char *format, ...) {
    char text[sizeof g->error.text];
    va_list args;
    if (g->failed) return -1;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    g->failed = true;
    vx_fail(&g->error, code, "%s", text);
    if (g->layer[0]) vx_fail_prefix(&g->error, code, g->layer);
    return -1;
}

void vx_graph_layer(vx_graph *g, const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(g->layer, sizeof g->layer, format, args);
    va_end(args);
}

/* Room for one more of size bytes; the block may move. */
static bool grow(void **items, size_t count, size_t *room, size_t size) {
    if (count < *room) return true;
    size_t wanted = *room ? 2 * *room : 64;
    void *block = vx_alloc_zero(wanted, size);
    if (!block) return false;
    if (count) memcpy(block, *items, count * size);
    vx_free(*items);
    *items = block;
    *room = wanted;
    return true;
}

bool vx_graph_is_value(vx_graph *g, int x) {
    if (g->failed) return false;
    if (x >= 0 && (size_t)x < g->value_count) return true;
    vx_graph_fail(g, VX_ERR_MODEL, "value %d does not exist", x);
    return false;
}

int vx_graph_append(vx_graph *g, const vx_op *op, vx_shape shape) {
    const size_t dims[] = {shape.n, shape.d, shape.h, shape.w, shape.c};
    size_t elements, bytes;
    if (g->failed) return -1;
    /* 8 bytes an element: so that float and double buffers of it can be addressed. */
    if (!vx_product(dims, 5, &elements) || !vx_mul_size(elements, 8, &bytes) || bytes > PTRDIFF_MAX)
        return vx_graph_fail(g, VX_ERR_MODEL, "%s: %zu x %zu x %zu x %zu x %zu is too large",
                             vx_op_name(op->kind), dims[0], dims[1], dims[2], dims[3], dims[4]);
    if (elements == 0)
        return vx_graph_fail(g, VX_ERR_MODEL,
                             "%s: the output is empty (%zu x %zu x %zu x %zu x "
                             "%zu)",
                             vx_op_name(op->kind), dims[0], dims[1], dims[2], dims[3], dims[4]);
    if (g->op_count >= INT32_MAX / 2)
        return vx_graph_fail(g, VX_ERR_MODEL, "the network has too many layers");
    void *ops = g->ops, *values = g->values;
    bool roomy = grow(&ops, g->op_count, &g->op_room, sizeof *g->ops);
    g->ops = ops;
    roomy = roomy && grow(&values, g->value_count, &g->value_room, sizeof *g->values);
    g->values = values;
    if (!roomy) return vx_graph_fail(g, VX_ERR_RESOURCE, "out of memory for the network");
    int value = (int)g->value_count;
    g->ops[g->op_count] = *op;
    g->ops[g->op_count++].out = value;
    g->values[g->value_count] = (vx_value){.shape = shape};
    g->value_count++;
    return value;
}

void vx_graph_name(vx_graph *g, int value, const char *format, ...) {
    if (!vx_graph_is_value(g, value)) return;
    vx_value *v = &g->values[value];
    va_list args;
    va_start(args, format);
    int length = vsnprintf(v->name, sizeof v->name, format, args);
    va_end(args);
    if (length < 0 || (size_t)length >= sizeof v->name)
        vx_graph_fail(g, VX_ERR_MODEL, "the name '%s...' is too long", v->name);
}

void vx_graph_output(vx_graph *g, int value) {
    if (vx_graph_is_value(g, value)) g->values[value].output = true;
}

int vx_graph_find(const vx_graph *g, const char *name) {
    for (size_t i = 0; i < g->value_count; i++)
        if (strcmp(g->values[i].name, name) == 0) return (int)i;
    return -1;
}

vx_status vx_graph_finish(vx_graph *g, vx_error *err) {
    g->layer[0] = '\0';
    size_t outputs = 0;
    for (size_t i = 0; i < g->value_count; i++) outputs += g->values[i].output;
    if (g->op_count == 0)
        vx_graph_fail(g, VX_ERR_MODEL, "the network has no input");
    else if (outputs == 0)
        vx_graph_fail(g, VX_ERR_MODEL, "the network has no output");
    if (!g->failed) return VX_OK;
    if (err) *err = g->error;
    return g->error.code;
}

/* map[i]: the new number of value i, or -1. Moves ops and values down in place. */
static void renumber(vx_graph *g, const int *map) {
    size_t count = 0;
    for (size_t i = 0; i < g->op_count; i++) {
        if (map[i] < 0) continue;
        vx_op op = g->ops[i];
        for (int k = 0; k < 2; k++)
            if (op.in[k] >= 0) op.in[k] = map[op.in[k]];
        op.out = (int)count;
        g->ops[count] = op;
        g->values[count] = g->values[i];
        count++;
    }
    g->op_count = g->value_count = count;
}

vx_status vx_graph_prune(vx_graph *g, vx_error *err) {
    int *map = vx_alloc_zero(g->op_count, sizeof *map);
    if (!map) return vx_fail(err, VX_ERR_RESOURCE, "out of memory for the network");
    for (size_t i = g->op_count; i-- > 0;) {
        if (g->values[i].output || g->ops[i].kind == VX_OP_INPUT) map[i] = 1;
        if (!map[i]) continue;
        for (int k = 0; k < 2; k++)
            if (g->ops[i].in[k] >= 0) map[g->ops[i].in[k]] = 1;
    }
    int next = 0;
    for (size_t i = 0; i < g->op_count; i++) map[i] = map[i] ? next++ : -1;
    renumber(g, map);
    vx_free(map);
    return VX_OK;
}
