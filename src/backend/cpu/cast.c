/* Between the plan's boundary, which is float, and its storage type. */
#include "backend/cpu/cpu.h"

typedef struct cast_job {
    const vx_kernels *kernels;
    const void *x;
    void *y;
    size_t elements;
    bool widen;
} cast_job;

enum { BLOCK = 16384 };

static void cast_block(void *ctx, size_t task, unsigned worker) {
    const cast_job *job = ctx;
    const vx_kernels *k = job->kernels;
    const size_t first = task * BLOCK, left = job->elements - first;
    const size_t count = left < BLOCK ? left : BLOCK;
    (void)worker;
    if (job->widen)
        k->widen(vx_stored_from(k, job->x, first), count, (float *)job->y + first);
    else
        k->narrow((const float *)job->x + first, count, vx_stored_at(k, job->y, first));
}

static void cast(vx_pool *pool, cast_job *job) {
    vx_pool_run(pool, job->elements / BLOCK + (job->elements % BLOCK != 0), cast_block, job);
}

void vx_cpu_narrow(vx_pool *pool, const vx_kernels *kernels, const float *x, size_t elements,
                   void *y) {
    cast_job job = {kernels, x, y, elements, false};
    cast(pool, &job);
}

void vx_cpu_widen(vx_pool *pool, const vx_kernels *kernels, const void *x, size_t elements,
                  float *y) {
    cast_job job = {kernels, x, y, elements, true};
    cast(pool, &job);
}
