/* Which values of a graph are alive when, and places for buffers with known lifetimes in one arena.
 * The same for every backend: nothing here knows where the memory is. */
#ifndef VX_BACKEND_PLACEMENT_H
#define VX_BACKEND_PLACEMENT_H

#include <stdbool.h>
#include <stddef.h>

#include "graph/graph.h"

/* A buffer; a value's is that of the same index. A zeroed one is a buffer by itself. */
typedef struct vx_buffer {
    size_t bytes;       /* 0: not placed */
    size_t first, last; /* steps in which it is alive, both included */

    /* Of a value, before sharing. */
    bool view;     /* never stored: whoever reads it reads its op's inputs instead */
    bool in_place; /* its op may write over the value `over` ... */
    int over;
    size_t lead; /* ... if it begins so many bytes before that, a multiple of VX_ALIGN: an op that
                    works its way through the memory writes behind what it still reads */

    /* Results. */
    bool shared;   /* lies over the value `over`, at lead bytes before it */
    size_t offset; /* a multiple of VX_ALIGN */
} vx_buffer;

/* Sets first and last of buffers[v] for every value v: from the op that writes it to the last one
 * that reads it, also through views (which are set before). */
void vx_lifetimes(const vx_graph *g, vx_buffer *buffers);

/* An op that may work in place takes over that value's memory, if both have the same bytes and the
 * op is its last reader, and reads it once. Leads add up from op to op: at half of a value it ends,
 * where two memories in turn begin to be the better. */
void vx_share_buffers(const vx_graph *g, vx_buffer *buffers);

/* Greedy first fit, largest buffer first (Pisarchyk & Lee 2020, arXiv:2001.03288, "greedy by
 * size"): each buffer, with those that share its memory, goes to the lowest offset where it meets
 * no buffer alive at the same time. Repeated with whatever reached the arena's end placed first, a
 * fixed number of times; the smallest arena is kept. guard bytes stay free behind each one. Where
 * all bytes and leads are multiples of a larger power of two and guard is too, so are the offsets.
 * *total: bytes of the arena. False on overflow or without memory. */
bool vx_layout(vx_buffer *buffers, size_t count, size_t guard, size_t *total);

#endif
