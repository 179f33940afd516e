#include "volume/foreground.h"

#include <stdbool.h>
#include <string.h>

#include "base/memory.h"
#include "base/size.h"

enum { UNKNOWN = 0, FOREGROUND = 1, OUTSIDE = 2 };

/* Voxels from which the outside is still to be spread. */
typedef struct seeds {
    size_t *at;
    size_t count, room;
} seeds;

static bool push(seeds *s, size_t voxel) {
    if (s->count == s->room) {
        size_t room = s->room ? s->room * 2 : 1024, bytes;
        if (!vx_mul_size(room, sizeof *s->at, &bytes)) return false;
        size_t *bigger = vx_alloc(bytes);
        if (!bigger) return false;
        if (s->count) memcpy(bigger, s->at, s->count * sizeof *s->at);
        vx_free(s->at);
        s->at = bigger;
        s->room = room;
    }
    s->at[s->count++] = voxel;
    return true;
}

/* One seed for each run of unknown voxels in [from, to] of the row that begins at row. */
static bool push_runs(seeds *s, const unsigned char *state, size_t row, size_t from, size_t to) {
    for (size_t x = from; x <= to; x++)
        if (state[row + x] == UNKNOWN && (x == to || state[row + x + 1] != UNKNOWN) &&
            !push(s, row + x))
            return false;
    return true;
}

/* Spreads OUTSIDE from all seeds through face neighbours, a run along x at a time: the stack holds
 * runs, not voxels. */
static bool spread(seeds *s, unsigned char *state, const size_t n[3]) {
    while (s->count) {
        size_t voxel = s->at[--s->count];
        if (state[voxel] != UNKNOWN) continue;
        size_t x = voxel % n[0], row = voxel - x, y = row / n[0] % n[1], z = row / n[0] / n[1];
        size_t from = x, to = x;
        while (from > 0 && state[row + from - 1] == UNKNOWN) from--;
        while (to + 1 < n[0] && state[row + to + 1] == UNKNOWN) to++;
        memset(state + row + from, OUTSIDE, to - from + 1);
        size_t plane = n[0] * n[1];
        if ((y > 0 && !push_runs(s, state, row - n[0], from, to)) ||
            (y + 1 < n[1] && !push_runs(s, state, row + n[0], from, to)) ||
            (z > 0 && !push_runs(s, state, row - plane, from, to)) ||
            (z + 1 < n[2] && !push_runs(s, state, row + plane, from, to)))
            return false;
    }
    return true;
}

vx_status vx_filled_foreground(const vx_volume *volume, unsigned char **out, vx_error *err) {
    const size_t *n = volume->geo.dims;
    size_t voxels = vx_voxels(&volume->geo);
    *out = NULL;
    unsigned char *state = vx_alloc_zero(voxels, 1);
    if (!state) return vx_fail(err, VX_ERR_RESOURCE, "out of memory (%zu MB)", voxels / 1000000);
    for (size_t c = 0; c < volume->channels; c++)
        for (size_t i = 0; i < voxels; i++)
            if (volume->data[c * voxels + i] != 0) state[i] = FOREGROUND;

    seeds s = {0};
    bool ok = true;
    for (size_t z = 0; ok && z < n[2]; z++)
        for (size_t y = 0; ok && y < n[1]; y++) {
            size_t row = (z * n[1] + y) * n[0];
            bool face = z == 0 || z + 1 == n[2] || y == 0 || y + 1 == n[1];
            ok = face ? push_runs(&s, state, row, 0, n[0] - 1)
                      : push_runs(&s, state, row, 0, 0) &&
                            push_runs(&s, state, row, n[0] - 1, n[0] - 1);
            ok = ok && spread(&s, state, n);
        }
    vx_free(s.at);
    if (!ok) {
        vx_free(state);
        return vx_fail(err, VX_ERR_RESOURCE, "out of memory");
    }
    for (size_t i = 0; i < voxels; i++) state[i] = state[i] != OUTSIDE;
    *out = state;
    return VX_OK;
}
