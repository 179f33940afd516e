#include "backend/placement.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/size.h"

/* Orders that a layout is tried in. */
enum { ATTEMPTS = 32 };

void vx_lifetimes(const vx_graph *g, vx_buffer *buffers) {
    for (size_t i = 0; i < g->op_count; i++) buffers[i].first = buffers[i].last = i;
    /* Backwards: when an op is reached, the last reader of its value is known. */
    for (size_t i = g->op_count; i-- > 0;) {
        const size_t last = buffers[i].view ? buffers[i].last : i;
        for (int k = 0; k < 2; k++) {
            const int v = g->ops[i].in[k];
            if (v >= 0 && buffers[v].last < last) buffers[v].last = last;
        }
    }
}

/* Bytes by which the values that lie over each other, down to v, are apart. */
static size_t leads_to(const vx_buffer *buffers, const vx_buffer *v) {
    size_t sum = 0;
    for (; v->shared; v = &buffers[v->over]) sum += v->lead;
    return sum;
}

void vx_share_buffers(const vx_graph *g, vx_buffer *buffers) {
    for (size_t i = 0; i < g->op_count; i++) {
        const vx_op *op = &g->ops[i];
        vx_buffer *to = &buffers[i];
        if (!to->in_place || to->over < 0 || op->in[0] == op->in[1]) continue;
        const vx_buffer *from = &buffers[to->over];
        if (!from->bytes || from->bytes != to->bytes || from->last != i) continue;
        to->shared = to->lead + leads_to(buffers, from) <= to->bytes / 2;
    }
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

/* A cluster: a buffer and those that share its memory, each over the one before; their distances
 * are fixed. */
typedef struct cluster {
    vx_buffer **member;
    size_t count;
} cluster;

static void move(const cluster *c, size_t up) {
    for (size_t i = 0; i < c->count; i++) c->member[i]->offset += up;
}

/* By how much c has to move up not to meet p; 0: it does not meet it. */
static size_t distance(const cluster *c, const vx_buffer *p, size_t guard) {
    for (size_t i = 0; i < c->count; i++) {
        const vx_buffer *b = c->member[i];
        if (alive_together(b, p) && b->offset < end_of(p, guard) && p->offset < end_of(b, guard))
            return end_of(p, guard) - b->offset;
    }
    return 0;
}

/* Its lowest member at 0. */
static void put_down(const cluster *c) {
    size_t below = 0; /* of the members so far, the last is the lowest */
    for (size_t i = c->count; i-- > 0;) {
        c->member[i]->offset = below;
        below += c->member[i]->lead;
    }
}

/* Moves c up past every member of the clusters before it that it meets, until it meets none. */
static void place(const cluster *clusters, const cluster *c, size_t guard) {
    put_down(c);
    for (bool moved = true; moved;) {
        moved = false;
        for (const cluster *p = clusters; p < c; p++)
            for (size_t i = 0; i < p->count; i++) {
                const size_t up = distance(c, p->member[i], guard);
                move(c, up);
                moved |= up > 0;
            }
    }
}

/* Lists the members of the clusters, largest first member first; returns their number. */
static size_t gather(vx_buffer *buffers, size_t count, vx_buffer **members, cluster *clusters) {
    size_t n = 0, next = 0;
    vx_buffer **firsts = members + count;
    for (size_t i = 0; i < count; i++)
        if (buffers[i].bytes && !buffers[i].shared) firsts[n++] = &buffers[i];
    qsort(firsts, n, sizeof *firsts, by_size);
    for (size_t k = 0; k < n; k++) {
        cluster *c = &clusters[k];
        c->member = members + next;
        c->member[c->count++] = firsts[k];
        for (vx_buffer *b = firsts[k]; b < buffers + count; b++)
            if (b->shared && &buffers[b->over] == c->member[c->count - 1])
                c->member[c->count++] = b;
        next += c->count;
    }
    return n;
}

/* Places all in their order; returns the arena's bytes, *top: the cluster that reaches its end. */
static size_t place_all(const cluster *clusters, size_t n, size_t guard, size_t *top) {
    size_t end = 0;
    for (size_t k = 0; k < n; k++) {
        place(clusters, &clusters[k], guard);
        for (size_t i = 0; i < clusters[k].count; i++) {
            const size_t reach = end_of(clusters[k].member[i], guard);
            if (reach <= end) continue;
            end = reach;
            *top = k;
        }
    }
    return end;
}

static void to_front(cluster *clusters, size_t k) {
    const cluster c = clusters[k];
    memmove(clusters + 1, clusters, k * sizeof *clusters);
    clusters[0] = c;
}

/* No offset can pass the sum of all sizes: checked once, here. */
static bool is_addressable(const vx_buffer *buffers, size_t count, size_t guard) {
    size_t sum = 0, padded;
    for (size_t i = 0; i < count; i++)
        if (!vx_add_size(buffers[i].bytes, guard + VX_ALIGN, &padded) ||
            !vx_add_size(padded, buffers[i].lead, &padded) || !vx_add_size(sum, padded, &sum))
            return false;
    return true;
}

bool vx_layout(vx_buffer *buffers, size_t count, size_t guard, size_t *total) {
    vx_buffer **members = vx_alloc_zero(2 * count, sizeof *members);
    cluster *clusters = vx_alloc_zero(count, sizeof *clusters);
    size_t *best = vx_alloc_zero(count, sizeof *best), top = 0;
    const bool able = members && clusters && best && is_addressable(buffers, count, guard);
    const size_t n = able ? gather(buffers, count, members, clusters) : 0;
    *total = able && n ? SIZE_MAX : 0;
    for (size_t attempt = 0; n && attempt < ATTEMPTS; attempt++) {
        const size_t end = place_all(clusters, n, guard, &top);
        for (size_t i = 0; i < count && end < *total; i++) best[i] = buffers[i].offset;
        if (end < *total) *total = end;
        to_front(clusters, top);
    }
    for (size_t i = 0; able && i < count; i++) buffers[i].offset = best[i];
    vx_free(members);
    vx_free(clusters);
    vx_free(best);
    return able;
}
