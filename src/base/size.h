/* Checked size_t arithmetic: every product of dimensions and every size from a file goes through
 * it. */
#ifndef VX_BASE_SIZE_H
#define VX_BASE_SIZE_H

#include <stdbool.h>
#include <stddef.h>

/* Each returns false on overflow and leaves *out untouched. */
static inline bool vx_mul_size(size_t a, size_t b, size_t *out) {
    size_t r;
    if (__builtin_mul_overflow(a, b, &r)) return false;
    *out = r;
    return true;
}

static inline bool vx_add_size(size_t a, size_t b, size_t *out) {
    size_t r;
    if (__builtin_add_overflow(a, b, &r)) return false;
    *out = r;
    return true;
}

/* *out = dims[0] * ... * dims[n-1]; 1 for n = 0. */
static inline bool vx_product(const size_t *dims, size_t n, size_t *out) {
    size_t r = 1;
    for (size_t i = 0; i < n; i++)
        if (!vx_mul_size(r, dims[i], &r)) return false;
    *out = r;
    return true;
}

/* Rounds up to a multiple of align (a power of two); false on overflow. */
static inline bool vx_align_size(size_t a, size_t align, size_t *out) {
    size_t r;
    if (!vx_add_size(a, align - 1, &r)) return false;
    *out = r & ~(align - 1);
    return true;
}

#endif
