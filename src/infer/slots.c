#include "infer/slots.h"

#include "base/memory.h"
#include "base/size.h"

static bool list_bytes(const vx_tiles *tiles, size_t rows, size_t *slots, size_t *unused) {
    return rows < UINT32_MAX && vx_mul_size(tiles->dims[0], tiles->dims[1], slots) &&
           vx_mul_size(*slots, sizeof(uint32_t), slots) &&
           vx_mul_size(rows, sizeof(uint32_t), unused);
}

bool vx_slots_bytes(const vx_tiles *tiles, size_t rows, size_t *bytes) {
    size_t slots, unused;
    return list_bytes(tiles, rows, &slots, &unused) && vx_add_size(slots, unused, bytes);
}

vx_status vx_slots_create(const vx_tiles *tiles, size_t rows, vx_slots *out, vx_error *err) {
    size_t slots, unused;
    *out = (vx_slots){.width = tiles->dims[1]};
    if (!list_bytes(tiles, rows, &slots, &unused))
        return vx_fail(err, VX_ERR_RESOURCE, "the volume has too many rows");
    out->slot = vx_alloc(slots);
    out->unused = vx_alloc(unused);
    if (!out->slot || !out->unused) {
        vx_slots_free(out);
        return vx_fail(err, VX_ERR_RESOURCE, "out of memory");
    }
    out->unused_count = rows;
    for (size_t i = 0; i < rows; i++) out->unused[i] = (uint32_t)(rows - 1 - i);
    return VX_OK;
}

void vx_slots_free(vx_slots *slots) {
    vx_free(slots->slot);
    vx_free(slots->unused);
    slots->slot = slots->unused = NULL;
}

void vx_slots_take(vx_slots *slots, const vx_rows *rows) {
    for (size_t z = rows->from[0]; z < rows->end[0]; z++)
        for (size_t y = rows->from[1]; y < rows->end[1]; y++)
            slots->slot[z * slots->width + y] = slots->unused[--slots->unused_count];
}

void vx_slots_give(vx_slots *slots, const vx_rows *rows) {
    for (size_t z = rows->from[0]; z < rows->end[0]; z++)
        for (size_t y = rows->from[1]; y < rows->end[1]; y++)
            slots->unused[slots->unused_count++] = slots->slot[z * slots->width + y];
}
