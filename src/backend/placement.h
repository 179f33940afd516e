/* Which values of a graph are alive when, and places for buffers with known lifetimes in one arena.
 * The same for every backend: nothing here knows where the memory is. */
#ifndef VX_BACKEND_PLACEMENT_H
#define VX_BACKEND_PLACEMENT_H

#include <stdbool.h>
#include <stddef.h>

#include "graph/graph.h"

typedef struct vx_buffer {
    size_t bytes;       /* 0: not placed */
    size_t first, last; /* steps in which it is alive, both included */
    bool in_place;      /* a value's: its op may write over its first input */
    size_t offset;      /* result, a multiple of VX_ALIGN */
} vx_buffer;

/* Sets first and last of buffers[v] for every value v: from the op that writes it to the last one
 * that reads it. */
void vx_lifetimes(const vx_graph *g, vx_buffer *buffers);

/* An op that may work in place takes over its first input's buffer, if that has the same bytes and
 * the op is its last reader. home[v]: the value in whose buffer v lives; the others' bytes become
 * 0. */
void vx_share_buffers(const vx_graph *g, vx_buffer *buffers, size_t *home);

/* Greedy first fit, largest buffer first (Pisarchyk & Lee 2020, arXiv:2001.03288, "greedy by
 * size"): each buffer goes to the lowest offset where it meets no buffer alive at the same time.
 * guard bytes stay free behind each one. Where all bytes are multiples of a larger power of two and
 * guard is too, so are the offsets. *total: bytes of the arena. False on overflow or without
 * memory. */
bool vx_layout(vx_buffer *buffers, size_t count, size_t guard, size_t *total);

#endif
