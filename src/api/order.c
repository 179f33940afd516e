#include "api/order.h"

#include "base/memory.h"

vxm_status vx_order_create(const vxm_case *cases, size_t count, vx_order *out, vxm_error *error) {
    *out = (vx_order){.count = count};
    out->cases = vx_alloc_zero(count, sizeof *out->cases);
    if (!out->cases) return vx_api_no_memory(error);
    for (size_t i = 0; i < count; i++) out->cases[i].shown = &cases[i];
    return VXM_OK;
}

/* A case that speaks. */
typedef struct speaker {
    const vx_order *order;
    size_t number;
} speaker;

static void say_now(void *user_data, vx_log_level level, const char *text) {
    const speaker *s = user_data;
    if (s->order->log) s->order->log(s->order->log_data, (vxm_log_level)level, s->number, text);
}

/* What was held of case i. */
static void say_held(const vx_order *order, size_t i) {
    speaker s = {order, order->cases[i].shown->number};
    vx_lines_end(&order->cases[i].held, say_now, &s);
}

static void say_end(const vx_order *order, size_t i) {
    const vx_order_case *c = &order->cases[i];
    if (c->ended && order->on_case) order->on_case(order->on_case_data, c->shown);
}

void vx_order_say(vx_order *order, size_t i, vxm_log_level level, const char *text) {
    vx_order_case *c = &order->cases[i];
    speaker s = {order, c->shown->number};
    if (!order->log) return;
    if (i == order->turn || !vx_lines_add(&c->held, (vx_log_level)level, text))
        say_now(&s, (vx_log_level)level, text);
}

void vx_order_end(vx_order *order, size_t i) {
    order->cases[i].ended = true;
    while (order->turn < order->count && order->cases[order->turn].ended) {
        say_end(order, order->turn);
        order->turn++;
        if (order->turn < order->count) say_held(order, order->turn);
    }
}

void vx_order_free(vx_order *order) {
    for (size_t i = order->turn; order->cases && i < order->count; i++) {
        say_held(order, i);
        say_end(order, i);
    }
    vx_free(order->cases);
    order->cases = NULL;
}
