/* Places buffers with known lifetimes in one arena. */
#ifndef VX_BACKEND_CPU_LAYOUT_H
#define VX_BACKEND_CPU_LAYOUT_H

#include <stdbool.h>
#include <stddef.h>

typedef struct vx_buffer {
    size_t bytes;       /* 0: not placed */
    size_t first, last; /* steps in which it is alive, both included */
    size_t offset;      /* result, a multiple of VX_ALIGN */
} vx_buffer;

/* Greedy first fit, largest buffer first (Pisarchyk & Lee 2020, arXiv:2001.03288, "greedy by
 * size"): each buffer goes to the lowest offset where it meets no buffer alive at the same time.
 * guard bytes stay free behind each one. *total: bytes of the arena. False on overflow or without
 * memory. */
bool vx_layout(vx_buffer *buffers, size_t count, size_t guard, size_t *total);

#endif
