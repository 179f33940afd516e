/* Which place in memory each row has that is alive: rows live in one block of as many slots as are
 * ever needed; a row that begins takes a free slot, a row that is dropped gives it back. The block
 * itself lies with the host (infer/slab.h) or on a device (backend/sweep.h). */
#ifndef VX_INFER_SLOTS_H
#define VX_INFER_SLOTS_H

#include <stdint.h>

#include "infer/frontier.h"

typedef struct vx_slots {
    size_t width;     /* rows of one z: dims[1] */
    uint32_t *slot;   /* [z][y]: where a row lives, from its start to its drop */
    uint32_t *unused; /* slots that are free: the last of unused_count is taken next */
    size_t unused_count;
} vx_slots;

/* Bytes of the lists for so many slots; false on overflow or where slots cannot be counted. */
bool vx_slots_bytes(const vx_tiles *tiles, size_t rows, size_t *bytes);
/* rows: vx_frontier_rows. Freed with vx_slots_free, also after a failure. */
vx_status vx_slots_create(const vx_tiles *tiles, size_t rows, vx_slots *out, vx_error *err);
void vx_slots_free(vx_slots *slots);

void vx_slots_take(vx_slots *slots, const vx_rows *rows);
void vx_slots_give(vx_slots *slots, const vx_rows *rows);

#endif
