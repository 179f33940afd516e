#include "backend/placement.h"

#include <stdlib.h>

#include "base/memory.h"
#include "base/size.h"

void vx_lifetimes(const vx_graph *g, vx_buffer *buffers) {
    for (size_t i = 0; i < g->op_count; i++) {
        buffers[i].first = buffers[i].last = i;
        for (int k = 0; k < 2; k++)
            if (g->ops[i].in[k] >= 0) buffers[g->ops[i].in[k]].last = i;
    }
}

void vx_share_buffers(const vx_graph *g, vx_buffer *buffers, size_t *home) {
    for (size_t i = 0; i < g->op_count; i++) {
        const vx_op *op = &g->ops[i];
        vx_buffer *to = &buffers[i];
        home[i] = i;
        if (!to->in_place || op->in[0] < 0 || op->in[0] == op->in[1]) continue;
        const size_t root = home[op->in[0]];
        vx_buffer *from = &buffers[root];
        if (!from->bytes || from->bytes != to->bytes || from->last != i) continue;
        home[i] = root;
        from->last = to->last;
        to->bytes = 0;
    }
    /* Later sharers prolong a root: its last use is known only now, which is fine, because a value
     * is shared at its own last use only. */
}

/* Larger first; equal sizes in the order of their first use, so that the result is unique. */
static int by_size(const void *a, const void *b) {
    const vx_buffer *x = *(vx_buffer *const *)a, *y = *(vx_buffer *const *)b;
    if (x->bytes != y->bytes) return x->bytes < y->bytes ? 1 : -1;
    if (x->first != y->first) return x->first < y->first ? -1 : 1;
    return x < y ? -1 : x > y;
}

static bool alive_together(const vx_buffer *a, const vx_buffer *b) {
    return a->first <= b->last && b->first <= a->last;
}

static size_t end_of(const vx_buffer *b, size_t guard) {
    return (b->offset + b->bytes + guard + VX_ALIGN - 1) & ~(VX_ALIGN - 1);
}

/* Moves b up past every placed buffer that it meets, until it meets none. */
static void place(vx_buffer *b, vx_buffer *const *placed, size_t count, size_t guard) {
    b->offset = 0;
    for (bool moved = true; moved;) {
        moved = false;
        for (size_t i = 0; i < count; i++) {
            const vx_buffer *p = placed[i];
            if (!alive_together(b, p) || b->offset >= end_of(p, guard) ||
                end_of(b, guard) <= p->offset)
                continue;
            b->offset = end_of(p, guard);
            moved = true;
        }
    }
}

bool vx_layout(vx_buffer *buffers, size_t count, size_t guard, size_t *total) {
    size_t sum = 0, placed = 0, end = 0;
    vx_buffer **order = vx_alloc_zero(count, sizeof *order);
    if (!order) return false;
    for (size_t i = 0; i < count; i++) {
        size_t padded;
        if (!buffers[i].bytes) continue;
        order[placed++] = &buffers[i];
        /* No offset can pass the sum of all sizes: checked once, here. */
        if (!vx_add_size(buffers[i].bytes, guard + VX_ALIGN, &padded) ||
            !vx_add_size(sum, padded, &sum)) {
            vx_free(order);
            return false;
        }
    }
    qsort(order, placed, sizeof *order, by_size);
    for (size_t i = 0; i < placed; i++) {
        place(order[i], order, i, guard);
        if (end_of(order[i], guard) > end) end = end_of(order[i], guard);
    }
    vx_free(order);
    *total = end;
    return true;
}
