/* Allocation: 64-byte aligned blocks (a cache line, an AVX-512 register) and an arena of planned
 * size. */
#ifndef VX_BASE_MEMORY_H
#define VX_BASE_MEMORY_H

#include <stddef.h>

#include "base/status.h"

#define VX_ALIGN ((size_t)64)

/* n bytes aligned to VX_ALIGN, uninitialised; NULL when memory is short. Free with vx_free. */
void *vx_alloc(size_t n);
/* count * size bytes, zeroed; NULL on overflow or when memory is short. Free with vx_free. */
void *vx_alloc_zero(size_t count, size_t size);
void vx_free(void *p);
/* A copy of s, or NULL. Free with vx_free. */
char *vx_strdup(const char *s);

/* One block whose size was planned beforehand; parts are handed out by offset and never freed
 * alone. */
typedef struct vx_arena {
    unsigned char *base;
    size_t size;
} vx_arena;

/* Fails with VX_ERR_RESOURCE and a line that names the bytes. */
vx_status vx_arena_create(size_t size, vx_arena *out, vx_error *err);
void vx_arena_free(vx_arena *arena);

#endif
