#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

#include "base/size.h"

void *vx_alloc(size_t n) {
    size_t rounded;
    if (!vx_align_size(n ? n : 1, VX_ALIGN, &rounded)) return NULL;
    return aligned_alloc(VX_ALIGN, rounded);
}

void *vx_alloc_zero(size_t count, size_t size) {
    size_t n;
    if (!vx_mul_size(count, size, &n)) return NULL;
    void *p = vx_alloc(n);
    if (p) memset(p, 0, n);
    return p;
}

void vx_free(void *p) { free(p); }

char *vx_strdup(const char *s) {
    size_t n = strlen(s) + 1;
    char *p = vx_alloc(n);
    if (p) memcpy(p, s, n);
    return p;
}

vx_status vx_arena_create(size_t size, vx_arena *out, vx_error *err) {
    out->base = vx_alloc(size);
    if (!out->base) {
        out->size = 0;
        return vx_fail(err, VX_ERR_RESOURCE, "out of memory (%zu MB are needed)", size / 1000000);
    }
    out->size = size;
    return VX_OK;
}

void vx_arena_free(vx_arena *arena) {
    vx_free(arena->base);
    arena->base = NULL;
    arena->size = 0;
}
