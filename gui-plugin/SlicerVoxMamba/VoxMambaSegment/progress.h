/* How far a run is, as Slicer reads it from stdout: lines with tags of its execution model. */
#ifndef VX_SLICER_PROGRESS_H
#define VX_SLICER_PROGRESS_H

#include <stdbool.h>

#include "api/voxmamba.h"

typedef struct module_progress {
    double started, last; /* seconds; last: of the newest progress line */
    double fraction;      /* the largest said so far */
    char stage[32];       /* the newest */
} module_progress;

/* <filter-start>, once. */
void progress_start(module_progress *progress);
/* A vxm_callbacks.progress for user_data module_progress: says a stage when it begins, and the
 * fraction, which never falls, at most ten times a second. Non-zero where the run is to stop: after
 * a signal, or when nobody reads stdout any more. */
int progress_say(void *user_data, const vxm_progress *p);
/* Fraction 1 if the run succeeded, and <filter-end>. */
void progress_end(module_progress *progress, bool success);

#endif
