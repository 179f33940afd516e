/* Whole Mamba layers become one op: layer norm, one or two MambaTrans, their sum, layer norm; then
 * the scaled sum of several of them (MultiSegMamba's mean over four orders).
 *
 * A MambaTrans is   x1 = a + mamba(norm1(a)),   out = x1 + head(norm2(x1)).
 * The layer's last op is rewritten in place to do the whole; what it replaces is pruned.
 */
#include <string.h>

#include "base/memory.h"
#include "graph/graph.h"

typedef struct search {
    vx_graph *g;
    size_t *reads; /* of each value; an output counts as one more */
} search;

static bool count_reads(search *s) {
    const vx_graph *g = s->g;
    s->reads = vx_alloc_zero(g->op_count, sizeof *s->reads);
    if (!s->reads) return false;
    for (size_t i = 0; i < g->op_count; i++) {
        s->reads[i] += g->values[i].output;
        for (int k = 0; k < 2; k++)
            if (g->ops[i].in[k] >= 0) s->reads[g->ops[i].in[k]]++;
    }
    return true;
}

/* The op of value v if it is of this kind and v is read `reads` times; else NULL. */
static const vx_op *op_of(const search *s, int v, vx_op_kind kind, size_t reads) {
    return v >= 0 && s->g->ops[v].kind == kind && s->reads[v] == reads ? &s->g->ops[v] : NULL;
}

/* The two inputs of a plain addition: `first` is the one whose op is of this kind. */
static bool terms(const search *s, int v, vx_op_kind kind, int *first, int *second) {
    const vx_op *add = &s->g->ops[v];
    if (add->kind != VX_OP_ADD || add->scale != 1.0f) return false;
    const int k = s->g->ops[add->in[0]].kind == kind ? 0 : 1;
    *first = add->in[k];
    *second = add->in[1 - k];
    return s->g->ops[*first].kind == kind && *first != *second;
}

/* Whether value v is a MambaTrans of value *a. */
static bool match_branch(const search *s, int v, vx_mamba_branch *b, float eps, int *a) {
    int y, x1, m, from;
    if (!terms(s, v, VX_OP_LINEAR, &y, &x1)) return false;
    const vx_op *head = op_of(s, y, VX_OP_LINEAR, 1);
    const vx_op *norm2 = head ? op_of(s, head->in[0], VX_OP_LAYER_NORM, 1) : NULL;
    if (!norm2 || norm2->in[0] != x1 || s->reads[x1] != 2 || !terms(s, x1, VX_OP_MAMBA, &m, &from))
        return false;
    const vx_op *mixer = op_of(s, m, VX_OP_MAMBA, 1);
    const vx_op *norm1 = mixer ? op_of(s, mixer->in[0], VX_OP_LAYER_NORM, 1) : NULL;
    if (!norm1 || norm1->in[0] != from || norm1->eps != eps || norm2->eps != eps) return false;
    *b = (vx_mamba_branch){.gamma1 = norm1->gamma,
                           .beta1 = norm1->beta,
                           .mamba = mixer->mamba,
                           .gamma2 = norm2->gamma,
                           .beta2 = norm2->beta,
                           .head = head->weight,
                           .head_bias = head->bias};
    *a = from;
    return true;
}

static bool same_sizes(const vx_mamba *a, const vx_mamba *b) {
    return a->d_inner == b->d_inner && a->d_state == b->d_state && a->d_conv == b->d_conv &&
           a->dt_rank == b->dt_rank;
}

/* Whether value v is one MambaTrans of *a, or the sum of two. */
static bool match_branches(const search *s, int v, vx_mamba_branch *branch, size_t *branches,
                           float eps, int *a) {
    const vx_op *add = &s->g->ops[v];
    if (add->kind != VX_OP_ADD) return false;
    *branches = 1;
    if (match_branch(s, v, &branch[0], eps, a)) return true;
    int other;
    *branches = 2;
    return add->scale == 1.0f && op_of(s, add->in[0], VX_OP_ADD, 1) &&
           op_of(s, add->in[1], VX_OP_ADD, 1) && match_branch(s, add->in[0], &branch[0], eps, a) &&
           match_branch(s, add->in[1], &branch[1], eps, &other) && *a == other &&
           same_sizes(&branch[0].mamba, &branch[1].mamba);
}

/* The epsilon that all norms of the layer have to share: that of the last one before value v. */
static float epsilon_before(const vx_graph *g, int v) {
    for (int i = v; i >= 0; i--)
        if (g->ops[i].kind == VX_OP_LAYER_NORM) return g->ops[i].eps;
    return 0;
}

/* Whether a layer ends in value v; fills the op that does it all. */
static bool match_layer(const search *s, int v, vx_op *out) {
    const vx_op *last = &s->g->ops[v];
    *out = (vx_op){.kind = VX_OP_MAMBA_LAYER, .in = {-1, -1}, .out = v, .scale = 1.0f};
    vx_mamba_layer_op *l = &out->layer;
    vx_mamba_part *p = &l->part[0];
    int sum = v, a;
    l->parts = 1;
    if (last->kind == VX_OP_LAYER_NORM) {
        sum = last->in[0];
        p->out_gamma = last->gamma;
        p->out_beta = last->beta;
        if (s->reads[sum] != 1) return false;
    }
    out->eps = epsilon_before(s->g, v);
    if (!match_branches(s, sum, p->branch, &l->branches, out->eps, &a)) return false;
    const vx_op *norm = op_of(s, a, VX_OP_LAYER_NORM, 2 * l->branches);
    out->in[0] = a;
    if (norm && norm->eps == out->eps) {
        p->in_gamma = norm->gamma;
        p->in_beta = norm->beta;
        out->in[0] = norm->in[0];
    }
    return true;
}

/* Whether a layer of one part can be a part of `whole` too. */
static bool same_layers(const vx_op *whole, const vx_op *layer) {
    const vx_mamba_layer_op *a = &whole->layer, *b = &layer->layer;
    return whole->in[0] == layer->in[0] && whole->eps == layer->eps && a->branches == b->branches &&
           same_sizes(&a->part[0].branch[0].mamba, &b->part[0].branch[0].mamba);
}

/* The layers whose sum value v is, added one after the other, the last first; their number, 0 where
 * they are too many. A term that is no layer is NULL. */
static size_t list_terms(const search *s, int v, const vx_op *layer[VX_MAMBA_PARTS]) {
    for (size_t count = 0; count + 2 <= VX_MAMBA_PARTS; v = s->g->ops[v].in[0]) {
        const vx_op *add = &s->g->ops[v];
        const vx_op *rest = op_of(s, add->in[0], VX_OP_ADD, 1);
        layer[count++] = op_of(s, add->in[1], VX_OP_MAMBA_LAYER, 1);
        if (rest && rest->scale == 1.0f) continue;
        layer[count++] = op_of(s, add->in[0], VX_OP_MAMBA_LAYER, 1);
        return count;
    }
    return 0;
}

/* Whether value v is the scaled sum of layers of one part; fills the op that does it all. */
static bool match_sum(const search *s, int v, vx_op *out) {
    const vx_op *add = &s->g->ops[v], *layer[VX_MAMBA_PARTS];
    const size_t parts = add->kind == VX_OP_ADD ? list_terms(s, v, layer) : 0;
    for (size_t k = 0; k < parts; k++)
        if (!layer[k] || layer[k]->layer.parts != 1 || !same_layers(layer[0], layer[k]))
            return false;
    if (!parts) return false;
    *out = *layer[parts - 1];
    out->out = v;
    out->scale = add->scale;
    out->layer.parts = parts;
    for (size_t k = 1; k < parts; k++) out->layer.part[k] = layer[parts - 1 - k]->layer.part[0];
    return true;
}

vx_status vx_graph_fuse_mamba(vx_graph *g, vx_mamba_layer_takes *takes, void *ctx, vx_error *err) {
    search s = {.g = g};
    vx_status status = VX_OK;
    if (!count_reads(&s)) status = vx_fail(err, VX_ERR_RESOURCE, "out of memory for the network");
    /* Backwards: the whole of a layer is met before its branches, which nobody reads from then on;
     * and a sum of layers before the sums inside it. */
    for (int round = 0; status == VX_OK && round < 2; round++)
        for (size_t i = g->op_count; i-- > 0;) {
            vx_op layer;
            const bool match =
                round == 0 ? match_layer(&s, (int)i, &layer) : match_sum(&s, (int)i, &layer);
            if (match && takes(ctx, &layer, g->values[layer.in[0]].shape)) g->ops[i] = layer;
        }
    vx_free(s.reads);
    return status == VX_OK ? vx_graph_prune(g, err) : status;
}
