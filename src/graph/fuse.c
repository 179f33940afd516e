/* conv -> norm -> act, conv -> norm -> add -> act and transposed conv -> concat become one op each.
 *
 * The last op of a chain is rewritten in place to do the whole; the ops before it are then read by
 * nobody and pruned. Order of execution stays valid because every input of a chain is computed
 * before its last op.
 */
#include <string.h>

#include "base/memory.h"
#include "graph/graph.h"

/* reader[v]: the op that reads value v if it is its only reader and v is no output; else -1. */
static int *only_readers(const vx_graph *g) {
    int *reader = vx_alloc_zero(g->op_count, sizeof *reader);
    if (!reader) return NULL;
    for (size_t v = 0; v < g->op_count; v++) reader[v] = -1;
    for (size_t i = 0; i < g->op_count; i++)
        for (int k = 0; k < 2; k++) {
            const int v = g->ops[i].in[k];
            if (v >= 0) reader[v] = reader[v] == -1 ? (int)i : -2;
        }
    for (size_t v = 0; v < g->op_count; v++)
        if (reader[v] < 0 || g->values[v].output) reader[v] = -1;
    return reader;
}

/* True when value v is instance norm(conv(.)) whose convolution nobody else reads. */
static bool is_conv_norm(const vx_graph *g, const int *reader, int v) {
    const vx_op *norm = &g->ops[v];
    return norm->kind == VX_OP_INSTANCE_NORM && g->ops[norm->in[0]].kind == VX_OP_CONV &&
           reader[norm->in[0]] == v;
}

/* The op at `last` becomes the whole chain that starts with norm's convolution. */
static void rewrite(vx_graph *g, vx_op_kind kind, const vx_op *norm, int other, int last,
                    const vx_op *act) {
    vx_op op = g->ops[norm->in[0]];
    op.kind = kind;
    op.in[1] = other;
    op.out = last;
    op.gamma = norm->gamma;
    op.beta = norm->beta;
    op.eps = norm->eps;
    op.act = act ? act->act : VX_ACT_NONE;
    op.slope = act ? act->slope : 0.0f;
    g->ops[last] = op;
}

/* The activation that is the only reader of value v, or NULL. */
static const vx_op *activation_of(const vx_graph *g, const int *reader, int v) {
    const int r = reader[v];
    return r >= 0 && g->ops[r].kind == VX_OP_ACTIVATION ? &g->ops[r] : NULL;
}

/* norm_value is conv -> norm and its only reader an addition that may swallow it. */
static bool fuse_into_addition(vx_graph *g, const int *reader, int norm_value) {
    const int a = reader[norm_value];
    if (a < 0 || g->ops[a].kind != VX_OP_ADD || g->ops[a].scale != 1.0f) return false;
    const vx_op add = g->ops[a], norm = g->ops[norm_value];
    /* Both sides end in conv -> norm: the first one is swallowed, the second stands alone. */
    if (add.in[1] == norm_value && reader[add.in[0]] == a && is_conv_norm(g, reader, add.in[0]))
        return false;
    const int other = add.in[0] == norm_value ? add.in[1] : add.in[0];
    const vx_op *act = activation_of(g, reader, a);
    rewrite(g, VX_OP_NORM_ACT_ADD, &norm, other, act ? act->out : a, act);
    return true;
}

/* The concatenation at `last` takes over the transposed convolution that is its first input. */
static void fuse_into_concat(vx_graph *g, const int *reader, int last) {
    const vx_op concat = g->ops[last];
    if (concat.kind != VX_OP_CONCAT || reader[concat.in[0]] != last ||
        g->ops[concat.in[0]].kind != VX_OP_TRANSPOSED_CONV)
        return;
    vx_op op = g->ops[concat.in[0]];
    op.kind = VX_OP_TRANSPOSED_CONCAT;
    op.in[1] = concat.in[1];
    op.out = last;
    g->ops[last] = op;
}

vx_status vx_graph_fuse(vx_graph *g, vx_error *err) {
    int *reader = only_readers(g);
    if (!reader) return vx_fail(err, VX_ERR_RESOURCE, "out of memory for the network");
    /* Backwards: an addition's second input is looked at while its first is still unfused. */
    for (size_t i = g->op_count; i-- > 0;) {
        const int v = (int)i;
        fuse_into_concat(g, reader, v);
        if (!is_conv_norm(g, reader, v) || fuse_into_addition(g, reader, v)) continue;
        const vx_op norm = g->ops[v];
        const vx_op *act = activation_of(g, reader, v);
        rewrite(g, VX_OP_CONV_NORM_ACT, &norm, -1, act ? act->out : v, act);
    }
    vx_free(reader);
    return vx_graph_prune(g, err);
}
