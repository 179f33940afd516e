#include "infer/team.h"

#include <pthread.h>
#include <stdio.h>

#include "base/memory.h"

typedef struct member {
    vx_team *team;
    size_t index;
    vx_sweep *sweep; /* home's for member 0, else the team's own */
    pthread_t thread;
    bool started;
    /* Guarded by the team's lock. */
    bool full; /* its place holds logits, or status says why it never will */
    vx_status status;
    vx_error err;
} member;

struct vx_team {
    const vx_accumulator_setup *setup;
    const vx_sweep_ops *ops;
    vx_sweep *home;
    size_t passes, next; /* next: number that home adds next */
    size_t count;
    member *members;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool stop; /* guarded by lock */
};

size_t vx_team_count(const vx_tiles *tiles, size_t pass_count, size_t other_count) {
    const size_t passes = vx_tiles_total(tiles) * pass_count;
    return passes < 1 + other_count ? passes : 1 + other_count;
}

/* ---- A member's thread ---- */

/* Pass number k in the session's order: lines of tiles, tiles along x, mirrored passes. */
static unsigned find_pass(const vx_accumulator_setup *s, size_t k, ptrdiff_t at[3]) {
    const size_t tile = k / s->pass_count, along = s->tiles->count[2];
    vx_step step;
    vx_frontier_step(s->frontier, tile / along, false, &step);
    step.tile[2] = tile % along;
    for (int a = 0; a < 3; a++) at[a] = vx_tile_start(s->tiles, a, step.tile[a]);
    return s->passes[k % s->pass_count];
}

static vx_status compute(const member *m, size_t k, vx_error *err) {
    const vx_team *t = m->team;
    ptrdiff_t at[3];
    const unsigned flips = find_pass(t->setup, k, at);
    vx_status status = t->ops->cut(m->sweep, at, flips, err);
    return status == VX_OK ? t->ops->run(m->sweep, err) : status;
}

/* False when the team stops. */
static bool wait_for_place(member *m) {
    vx_team *t = m->team;
    pthread_mutex_lock(&t->lock);
    while (m->full && !t->stop) pthread_cond_wait(&t->changed, &t->lock);
    const bool stop = t->stop;
    pthread_mutex_unlock(&t->lock);
    return !stop;
}

static void fill_place(member *m, vx_status status, const vx_error *err) {
    vx_team *t = m->team;
    pthread_mutex_lock(&t->lock);
    m->full = true;
    m->status = status;
    if (status != VX_OK) m->err = *err;
    pthread_cond_broadcast(&t->changed);
    pthread_mutex_unlock(&t->lock);
}

static void *work(void *arg) {
    member *m = arg;
    const vx_team *t = m->team;
    for (size_t k = m->index; k < t->passes; k += t->count) {
        vx_error err;
        vx_status status = compute(m, k, &err);
        if (!wait_for_place(m)) return NULL;
        if (status == VX_OK) status = t->ops->take(t->home, m->index, m->sweep, &err);
        fill_place(m, status, &err);
        if (status != VX_OK) return NULL;
    }
    return NULL;
}

/* ---- Home's side ---- */

vx_status vx_team_next(vx_team *team, size_t *place, vx_error *err) {
    member *m = &team->members[team->next++ % team->count];
    *place = m->index;
    pthread_mutex_lock(&team->lock);
    while (!m->full) pthread_cond_wait(&team->changed, &team->lock);
    const vx_status status = m->status;
    pthread_mutex_unlock(&team->lock);
    if (status != VX_OK && err) *err = m->err; /* it has ended */
    return status;
}

void vx_team_added(vx_team *team, size_t place) {
    pthread_mutex_lock(&team->lock);
    team->members[place].full = false;
    pthread_cond_broadcast(&team->changed);
    pthread_mutex_unlock(&team->lock);
}

/* ---- Making ---- */

typedef struct making {
    vx_team *team;
    const vx_sweep_shape *shape;
} making;

/* The sweep of member 1 + task. */
static void make_sweep(void *ctx, size_t task, unsigned worker) {
    (void)worker;
    const making *job = ctx;
    vx_team *t = job->team;
    member *m = &t->members[1 + task];
    m->status = t->ops->create(t->setup->other_plans[task], job->shape, t->setup->image, &m->sweep,
                               &m->err);
}

/* Each device gets the image. */
static vx_status make_sweeps(vx_team *t, const vx_sweep_shape *shape, vx_error *err) {
    vx_sweep_shape runs = *shape;
    runs.size.rows = runs.size.made_rows = runs.size.places = 0;
    making job = {t, &runs};
    vx_pool_run(t->setup->pool, t->count - 1, make_sweep, &job);
    for (size_t i = 1; i < t->count; i++)
        if (t->members[i].status != VX_OK) {
            char which[64];
            if (err) *err = t->members[i].err;
            snprintf(which, sizeof which, "device %zu of %zu", i + 1, t->count);
            return vx_fail_prefix(err, t->members[i].status, which);
        }
    return VX_OK;
}

static vx_status start_threads(vx_team *t, vx_error *err) {
    for (size_t i = 0; i < t->count; i++) {
        member *m = &t->members[i];
        m->started = pthread_create(&m->thread, NULL, work, m) == 0;
        if (!m->started) return vx_fail(err, VX_ERR_RESOURCE, "a thread could not be started");
    }
    return VX_OK;
}

vx_status vx_team_create(const vx_accumulator_setup *setup, const vx_sweep_shape *shape,
                         vx_sweep *home, vx_team **out, vx_error *err) {
    *out = NULL;
    vx_team *t = vx_alloc_zero(1, sizeof *t);
    if (!t) return vx_fail(err, VX_ERR_RESOURCE, "out of memory");
    t->setup = setup;
    t->ops = setup->backend->sweep;
    t->home = home;
    t->passes = vx_tiles_total(setup->tiles) * setup->pass_count;
    t->count = vx_team_count(setup->tiles, setup->pass_count, setup->other_count);
    pthread_mutex_init(&t->lock, NULL);
    pthread_cond_init(&t->changed, NULL);
    t->members = vx_alloc_zero(t->count, sizeof *t->members);
    for (size_t i = 0; t->members && i < t->count; i++)
        t->members[i] = (member){.team = t, .index = i, .sweep = i ? NULL : home};
    vx_status status = t->members ? VX_OK : vx_fail(err, VX_ERR_RESOURCE, "out of memory");
    if (status == VX_OK) status = make_sweeps(t, shape, err);
    if (status == VX_OK) status = start_threads(t, err);
    if (status == VX_OK)
        *out = t;
    else
        vx_team_free(t);
    return status;
}

void vx_team_free(vx_team *team) {
    if (!team) return;
    pthread_mutex_lock(&team->lock);
    team->stop = true;
    pthread_cond_broadcast(&team->changed);
    pthread_mutex_unlock(&team->lock);
    for (size_t i = 0; team->members && i < team->count; i++)
        if (team->members[i].started) pthread_join(team->members[i].thread, NULL);
    for (size_t i = 1; team->members && i < team->count; i++)
        team->ops->free(team->members[i].sweep);
    pthread_cond_destroy(&team->changed);
    pthread_mutex_destroy(&team->lock);
    vx_free(team->members);
    vx_free(team);
}
