/* Chosen cuDNN plans kept on disk, under $XDG_CACHE_HOME/voxmamba or ~/.cache/voxmamba. A file a
 * plan: the first line is its key, the rest cuDNN's own JSON. A cache that cannot be read or
 * written is no error. Files appear whole, and the first one of a key stays: of processes that
 * write it at once all then read the same.
 *
 * cuDNN is given what a file holds, so that only the user's own word counts: a folder or a file
 * that is another's, or that a group or everybody may write to, is as if it were not there. A
 * folder that is made gets the mode 0700, a file 0600. */
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
typedef enum vx_plan_cache_kind {
    VX_PLAN_CACHE_NONE,     /* no folder, and none can be made */
    VX_PLAN_CACHE_FOREIGN,  /* one that others own or may write to: not used */
    VX_PLAN_CACHE_READABLE, /* ours, but nothing can be written to it */
    VX_PLAN_CACHE_OURS
} vx_plan_cache_kind;
/* Of the folder; makes it if need be. */
vx_plan_cache_kind vx_plan_cache_state(void);

#endif
