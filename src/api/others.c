/* More devices for a session: contexts are opened beside the first device's, plans made when its
 * own is there, so that they find its choice of engines in the cache. */
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "api/devices.h"
#include "base/memory.h"

typedef struct other {
    const vx_backend *backend;
    int ordinal;
    pthread_t thread;
    bool running; /* not joined yet */
    /* The thread's until it is joined. */
    vx_device *device; /* until a session has it */
    vx_status status;
    vx_error err;
    /* Of vx_others_take. */
    const vx_model *model;
    vx_session_options options;
    vx_session *session;
} other;

struct vx_others {
    uint64_t host_free;
    unsigned workers;
    size_t count;
    other *items;
};

static void *open_device(void *arg) {
    other *o = arg;
    o->status = o->backend->open(o->ordinal, NULL, &o->device, &o->err);
    return NULL;
}

static void join(other *o) {
    if (o->running) pthread_join(o->thread, NULL);
    o->running = false;
}

vx_others *vx_others_begin(const vx_device_list *list, unsigned workers) {
    if (!list->backend->sweep || workers >= list->count) return NULL;
    vx_others *others = vx_alloc_zero(1, sizeof *others);
    if (!others) return NULL;
    others->host_free = list->host_free;
    others->workers = workers;
    others->items = vx_alloc_zero(list->count - workers, sizeof *others->items);
    if (others->items) others->count = list->count - workers;
    for (size_t i = 0; i < others->count; i++) {
        other *o = &others->items[i];
        o->backend = list->backend;
        o->ordinal = list->first + (int)(workers + i);
        o->running = pthread_create(&o->thread, NULL, open_device, o) == 0;
        if (!o->running) open_device(o);
    }
    return others;
}

static void compile(void *ctx, size_t task, unsigned worker) {
    (void)worker;
    other *o = ((other **)ctx)[task];
    o->status = vx_session_create(o->model, &o->options, &o->session, &o->err);
    o->device = NULL; /* the session's, or closed */
}

/* The first reason counts. */
static void leave_out(vxm_session *session, const other *o, const char *reason) {
    if (session->left_out[0]) return;
    snprintf(session->left_out, sizeof session->left_out, "%s:%d is not used: %s", o->backend->name,
             o->ordinal, reason);
}

/* On a device of another kind the bits might be others. */
static void keep_alike(vxm_session *session, other *o) {
    char text[sizeof session->device];
    vx_session_describe(o->session, text, sizeof text);
    if (strcmp(text, session->device) == 0) {
        session->others[session->other_count++] = o->session;
        o->session = NULL;
    } else {
        leave_out(session, o, "it is of another kind than the first one");
    }
}

/* All with a device. */
static void compile_all(const vx_others *others, vxm_session *session, other **mine, size_t count) {
    for (size_t i = 0; i < count; i++) {
        other *o = mine[i];
        o->model = session->model->model;
        o->options = vx_inner_options(session, session->precision, others->host_free);
        o->options.ordinal = o->ordinal;
        o->options.device = o->device;
        o->options.pool = NULL; /* it is busy with compiling them all */
    }
    vx_pool_run(session->pool, count, compile, mine);
    for (size_t i = 0; i < count; i++)
        if (mine[i]->status == VX_OK)
            keep_alike(session, mine[i]);
        else
            leave_out(session, mine[i], mine[i]->err.text);
}

void vx_others_take(vx_others *others, vxm_session *session, unsigned k) {
    size_t count = 0;
    if (!others) return;
    other **mine = vx_alloc_zero(others->count, sizeof(other *));
    session->others = vx_alloc_zero(others->count, sizeof(vx_session *));
    for (size_t i = k; mine && session->others && i < others->count; i += others->workers) {
        other *o = &others->items[i];
        join(o);
        if (o->status == VX_OK)
            mine[count++] = o;
        else
            leave_out(session, o, o->err.text);
    }
    if (count) compile_all(others, session, mine, count);
    vx_free(mine);
}

void vx_others_free(vx_others *others) {
    if (!others) return;
    for (size_t i = 0; i < others->count; i++) {
        other *o = &others->items[i];
        join(o);
        vx_session_free(o->session);
        if (o->device) o->backend->close(o->device);
    }
    vx_free(others->items);
    vx_free(others);
}
