/* What the cases of a batch say, in the order of the cases, whatever the order they run in.
 *
 * The first case that has not ended speaks at once. What later ones say is held until it is their
 * turn, so that the lines of a run are the same for any number of jobs and devices.
 */
#ifndef VX_API_ORDER_H
#define VX_API_ORDER_H

#include "api/internal.h"
#include "api/lines.h"

typedef struct vx_order_case {
    const vxm_case *shown; /* borrowed */
    bool ended;
    vx_lines held;
} vx_order_case;

/* Not locked: the caller sees to it that one thread at a time is in these functions. */
typedef struct vx_order {
    size_t count, turn; /* case turn speaks at once */
    vx_order_case *cases;
    void (*log)(void *user_data, vxm_log_level level, size_t case_number, const char *text);
    void *log_data;
    void (*on_case)(void *user_data, const vxm_case *ended);
    void *on_case_data;
} vx_order;

/* cases: in their order, borrowed. The caller sets the four callback members; each may stay NULL.
 */
vxm_status vx_order_create(const vxm_case *cases, size_t count, vx_order *out, vxm_error *error);
/* Also says what is still held: of the cases behind one that never ended, in a run that was
 * stopped. */
void vx_order_free(vx_order *order);
/* A line of case i of the list; without memory it is said at once. */
void vx_order_say(vx_order *order, size_t i, vxm_log_level level, const char *text);
/* Case i has its outcome. */
void vx_order_end(vx_order *order, size_t i);

#endif
