/* A pool of worker threads that runs numbered tasks.
 *
 * Determinism rule: how work is cut into tasks depends on shapes only, never on the number of
 * workers, and no task adds to another task's result. Then any number of workers gives the same
 * bits.
 */
#ifndef VX_BASE_THREADS_H
#define VX_BASE_THREADS_H

#include <stddef.h>

#include "base/status.h"

typedef struct vx_pool vx_pool;

/* task: 0..count-1; worker: 0..workers-1, the same for all tasks of one thread (index of its
 * scratch). */
typedef void (*vx_task_fn)(void *ctx, size_t task, unsigned worker);

/* workers >= 1; the calling thread is worker 0, so one worker starts no thread. */
vx_status vx_pool_create(unsigned workers, vx_pool **out, vx_error *err);
void vx_pool_free(vx_pool *pool);
/* pool NULL: the calling thread alone. */
unsigned vx_pool_workers(const vx_pool *pool);
/* Runs fn for every task and returns when all are done. Not re-entrant: one caller at a time. pool
 * NULL: the calling thread alone. */
void vx_pool_run(vx_pool *pool, size_t count, vx_task_fn fn, void *ctx);

/* Processors that this process may use: CPU affinity and the cgroup's quota, at least 1. */
unsigned vx_cpu_count(void);

#endif
