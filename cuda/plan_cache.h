/* Chosen cuDNN plans kept on disk, under $XDG_CACHE_HOME/voxmamba or ~/.cache/voxmamba. A file a
 * plan: the first line is its key, the rest cuDNN's own JSON. A cache that cannot be read or
 * written is no error. Files appear whole, and the first one of a key stays: of processes that
 * write it at once all then read the same. */
#ifndef VX_CUDA_PLAN_CACHE_H
#define VX_CUDA_PLAN_CACHE_H

#include <stdbool.h>
#include <stddef.h>

/* The stored text of a key (one line, no newline in it), or NULL; free with vx_free. */
char *vx_plan_cache_read(const char *key, size_t *bytes);
/* Keeps a text unless there is one of this key already. Returns whether one is there now. */
bool vx_plan_cache_write(const char *key, const char *text, size_t bytes);
/* Forgets this text, which is of no use; not another one that has taken its place. */
void vx_plan_cache_forget(const char *key, const char *text);
/* Whether there is a folder that can be written to; makes it if need be. */
bool vx_plan_cache_writable(void);

#endif
