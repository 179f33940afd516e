/* More devices for a session. They are opened when the first one is there: then they find its
 * choice of engines in the cache, and the driver opens one after the other anyway. */
#include <stdio.h>
#include <string.h>

#include "api/devices.h"
#include "base/memory.h"

typedef struct other {
    vx_session_options options;
    vx_session *session;
    vx_status status;
    vx_error err;
} other;

typedef struct others {
    const vx_model *model;
    other *items;
} others;

static void open_other(void *ctx, size_t task, unsigned worker) {
    (void)worker;
    const others *all = ctx;
    other *o = &all->items[task];
    o->status = vx_session_create(all->model, &o->options, &o->session, &o->err);
}

/* The first reason counts. */
static void leave_out(vxm_session *session, const other *o, const char *reason) {
    if (session->left_out[0]) return;
    snprintf(session->left_out, sizeof session->left_out, "%s:%d is not used: %s",
             session->backend->name, o->options.ordinal, reason);
}

/* On a device of another kind the bits might be others. */
static void keep_alike(vxm_session *session, other *o) {
    char text[sizeof session->device];
    vx_session_describe(o->session, text, sizeof text);
    if (strcmp(text, session->device) == 0) {
        session->others[session->other_count++] = o->session;
    } else {
        leave_out(session, o, "it is of another kind than the first one");
        vx_session_free(o->session);
    }
}

void vx_open_others(vxm_session *session, const vx_device_list *list, unsigned k,
                    unsigned workers) {
    if (!session->backend->sweep || k + workers >= list->count) return;
    const size_t count = (list->count - 1 - k) / workers;
    others all = {session->model->model, vx_alloc_zero(count, sizeof *all.items)};
    session->others = vx_alloc_zero(count, sizeof(vx_session *));
    if (!all.items || !session->others) {
        snprintf(session->left_out, sizeof session->left_out, "one device is used: out of memory");
        vx_free(all.items);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        other *o = &all.items[i];
        o->options = vx_inner_options(session, session->precision, list->host_free);
        o->options.ordinal = list->first + (int)(k + (i + 1) * workers);
        o->options.pool = NULL; /* it is busy with opening them */
    }
    vx_pool_run(session->pool, count, open_other, &all);
    for (size_t i = 0; i < count; i++)
        if (all.items[i].status == VX_OK)
            keep_alike(session, &all.items[i]);
        else
            leave_out(session, &all.items[i], all.items[i].err.text);
    vx_free(all.items);
}
