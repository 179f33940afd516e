#include "api/order.h"

#include <string.h>

#include "base/memory.h"

vxm_status vx_order_create(const vxm_case *cases, size_t count, vx_order *out, vxm_error *error) {
    *out = (vx_order){.count = count};
    out->cases = vx_alloc_zero(count, sizeof *out->cases);
    if (!out->cases) return vx_api_no_memory(error);
    for (size_t i = 0; i < count; i++) {
        out->cases[i].shown = &cases[i];
        out->cases[i].last = &out->cases[i].first;
    }
    return VXM_OK;
}

static void say_now(const vx_order *order, size_t i, vxm_log_level level, const char *text) {
    if (order->log) order->log(order->log_data, level, order->cases[i].shown->number, text);
}

/* What was held of case i. */
static void say_held(const vx_order *order, size_t i) {
    vx_order_case *c = &order->cases[i];
    for (vx_order_line *line = c->first, *next; line; line = next) {
        next = line->next;
        say_now(order, i, line->level, line->text);
        vx_free(line);
    }
    c->first = NULL;
    c->last = &c->first;
}

static void say_end(const vx_order *order, size_t i) {
    const vx_order_case *c = &order->cases[i];
    if (c->ended && order->on_case) order->on_case(order->on_case_data, c->shown);
}

void vx_order_say(vx_order *order, size_t i, vxm_log_level level, const char *text) {
    if (!order->log) return;
    const size_t bytes = strlen(text) + 1;
    vx_order_line *line = i == order->turn ? NULL : vx_alloc(sizeof *line + bytes);
    if (!line) {
        say_now(order, i, level, text);
        return;
    }
    line->next = NULL;
    line->level = level;
    memcpy(line->text, text, bytes);
    *order->cases[i].last = line;
    order->cases[i].last = &line->next;
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
