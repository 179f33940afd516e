/* Chosen cuDNN plans kept on disk, under $XDG_CACHE_HOME/voxmamba or ~/.cache/voxmamba. A file a
 * plan: the first line is its key, the rest cuDNN's own JSON. A cache that cannot be read or
 * written is no error: plans are then chosen again. */
#ifndef VX_CUDA_PLAN_CACHE_H
#define VX_CUDA_PLAN_CACHE_H

#include <stddef.h>

/* The stored text of a key (one line, no newline in it), or NULL; free with vx_free. */
char *vx_plan_cache_read(const char *key, size_t *bytes);
void vx_plan_cache_write(const char *key, const char *text, size_t bytes);

#endif
