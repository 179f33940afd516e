#define _GNU_SOURCE
#include "base/threads.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/memory.h"

typedef struct worker_start {
    vx_pool *pool;
    unsigned index;
} worker_start;

/* A network is hundreds of short jobs one after the other: waking a sleeper takes longer than many
 * of them. So a worker looks for the next job for some 50 microseconds before it sleeps, unless
 * there are more workers than processors. */
enum { SPINS = 2000 };

static void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
}

struct vx_pool {
    unsigned workers;
    pthread_t *threads; /* workers - 1 */
    worker_start *starts;
    unsigned started;
    unsigned spins; /* looks at a counter before sleeping */
    pthread_mutex_t lock;
    pthread_cond_t work, done; /* for those who sleep; counters move on under lock */
    atomic_ulong generation;   /* of jobs, and one more to stop */
    atomic_uint busy;          /* workers that have not finished the current job */
    atomic_bool stop;
    /* The current job: written before generation moves on, read after. */
    vx_task_fn fn;
    void *ctx;
    size_t count;
    atomic_size_t next;
};

static void run_tasks(vx_pool *pool, unsigned worker) {
    for (;;) {
        size_t task = atomic_fetch_add_explicit(&pool->next, 1, memory_order_relaxed);
        if (task >= pool->count) return;
        pool->fn(pool->ctx, task, worker);
    }
}

/* The first generation that is not `seen`. */
static unsigned long await_job(vx_pool *pool, unsigned long seen) {
    unsigned long now = seen;
    for (unsigned i = 0; i < pool->spins; i++) {
        now = atomic_load_explicit(&pool->generation, memory_order_acquire);
        if (now != seen) return now;
        relax();
    }
    pthread_mutex_lock(&pool->lock);
    while ((now = atomic_load(&pool->generation)) == seen)
        pthread_cond_wait(&pool->work, &pool->lock);
    pthread_mutex_unlock(&pool->lock);
    return now;
}

static void await_workers(vx_pool *pool) {
    for (unsigned i = 0; i < pool->spins; i++) {
        if (atomic_load_explicit(&pool->busy, memory_order_acquire) == 0) return;
        relax();
    }
    pthread_mutex_lock(&pool->lock);
    while (atomic_load(&pool->busy)) pthread_cond_wait(&pool->done, &pool->lock);
    pthread_mutex_unlock(&pool->lock);
}

static void *worker_main(void *arg) {
    worker_start *start = arg;
    vx_pool *pool = start->pool;
    unsigned long seen = 0;
    for (;;) {
        seen = await_job(pool, seen);
        if (atomic_load(&pool->stop)) return NULL;
        run_tasks(pool, start->index);
        if (atomic_fetch_sub(&pool->busy, 1) > 1) continue;
        /* Under lock: the caller must not fall asleep between its look at busy and this signal. */
        pthread_mutex_lock(&pool->lock);
        pthread_cond_signal(&pool->done);
        pthread_mutex_unlock(&pool->lock);
    }
}

vx_status vx_pool_create(unsigned workers, vx_pool **out, vx_error *err) {
    *out = NULL;
    if (workers < 1 || workers > 4096)
        return vx_fail(err, VX_ERR_USAGE, "%u threads (1 to 4096 are possible)", workers);
    vx_pool *pool = vx_alloc_zero(1, sizeof *pool);
    if (!pool) return vx_fail(err, VX_ERR_RESOURCE, "out of memory");
    pool->workers = workers;
    pool->spins = workers > vx_cpu_count() ? 0 : SPINS;
    atomic_init(&pool->generation, 0);
    atomic_init(&pool->busy, 0);
    atomic_init(&pool->stop, false);
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->work, NULL);
    pthread_cond_init(&pool->done, NULL);
    pool->threads = vx_alloc_zero(workers, sizeof *pool->threads);
    pool->starts = vx_alloc_zero(workers, sizeof *pool->starts);
    if (!pool->threads || !pool->starts) {
        vx_pool_free(pool);
        return vx_fail(err, VX_ERR_RESOURCE, "out of memory");
    }
    for (unsigned i = 1; i < workers; i++) {
        pool->starts[i] = (worker_start){pool, i};
        if (pthread_create(&pool->threads[i], NULL, worker_main, &pool->starts[i]) != 0) {
            vx_pool_free(pool);
            return vx_fail(err, VX_ERR_RESOURCE,
                           "thread %u could not be started (use fewer threads)", i);
        }
        pool->started++;
    }
    *out = pool;
    return VX_OK;
}

void vx_pool_free(vx_pool *pool) {
    if (!pool) return;
    pthread_mutex_lock(&pool->lock);
    atomic_store(&pool->stop, true);
    atomic_fetch_add(&pool->generation, 1);
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->lock);
    for (unsigned i = 1; i <= pool->started; i++) pthread_join(pool->threads[i], NULL);
    pthread_cond_destroy(&pool->done);
    pthread_cond_destroy(&pool->work);
    pthread_mutex_destroy(&pool->lock);
    vx_free(pool->threads);
    vx_free(pool->starts);
    vx_free(pool);
}

unsigned vx_pool_workers(const vx_pool *pool) { return pool ? pool->workers : 1; }

void vx_pool_run(vx_pool *pool, size_t count, vx_task_fn fn, void *ctx) {
    if (count == 0) return;
    if (!pool || pool->workers == 1 || count == 1) {
        for (size_t i = 0; i < count; i++) fn(ctx, i, 0);
        return;
    }
    pthread_mutex_lock(&pool->lock);
    pool->fn = fn;
    pool->ctx = ctx;
    pool->count = count;
    atomic_store_explicit(&pool->next, 0, memory_order_relaxed);
    atomic_store(&pool->busy, pool->started);
    atomic_fetch_add_explicit(&pool->generation, 1, memory_order_release);
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->lock);
    run_tasks(pool, 0);
    await_workers(pool);
}

/* Quota of cgroup v2 or v1 in whole processors, rounded up; 0 when there is none. */
static unsigned cgroup_quota(void) {
    long long quota = 0, period = 0;
    char word[32];
    FILE *f = fopen("/sys/fs/cgroup/cpu.max", "r");
    if (f) {
        if (fscanf(f, "%31s %lld", word, &period) == 2 && strcmp(word, "max") != 0)
            (void)!sscanf(word, "%lld", &quota);
        fclose(f);
    } else if ((f = fopen("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "r"))) {
        (void)!fscanf(f, "%lld", &quota);
        fclose(f);
        if ((f = fopen("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "r"))) {
            (void)!fscanf(f, "%lld", &period);
            fclose(f);
        }
    }
    if (quota <= 0 || period <= 0) return 0;
    long long n = (quota + period - 1) / period;
    return n > 4096 ? 4096 : (unsigned)n;
}

unsigned vx_cpu_count(void) {
    cpu_set_t set;
    unsigned n = 1;
    if (sched_getaffinity(0, sizeof set, &set) == 0) {
        int c = CPU_COUNT(&set);
        if (c > 0) n = (unsigned)c;
    }
    unsigned quota = cgroup_quota();
    return quota && quota < n ? quota : n;
}
