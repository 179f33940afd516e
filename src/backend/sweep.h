/* A volume's way through a device that has memory of its own: tiles are cut there, their logits are
 * weighted and added up there, and what comes back are labels.
 *
 * The caller keeps the order of things (infer/frontier.h): it says which rows begin, are finished,
 * are made into labels, and in which slot of the device's memory each row lives. A row is all x and
 * all classes of one (z, y) of the network's grid. Triples are in tensor order z, y, x, pairs z, y.
 *
 * The arithmetic is that of infer/slab.c and infer/finalise.c, operation by operation in float32
 * without contraction, and a voxel gets its tiles in the order in which they are added: from the
 * same logits come the same labels, to the bit, as on a host that rounds every operation.
 *
 * Several devices may share the tiles of a volume (infer/team.h): one keeps the rows, and logits
 * that others made are added from places in its memory.
 */
#ifndef VX_BACKEND_SWEEP_H
#define VX_BACKEND_SWEEP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

typedef struct vx_device vx_device;
typedef struct vx_plan vx_plan;

/* The rows z in [from[0], end[0]) and y in [from[1], end[1]); empty when end <= from along either
 * axis. */
typedef struct vx_rows {
    size_t from[2], end[2];
} vx_rows;

static inline size_t vx_rows_count(const vx_rows *rows) {
    bool empty = rows->end[0] <= rows->from[0] || rows->end[1] <= rows->from[1];
    return empty ? 0 : (rows->end[0] - rows->from[0]) * (rows->end[1] - rows->from[1]);
}

/* What a sweep's bytes depend on. */
typedef struct vx_sweep_size {
    size_t dims[3];  /* the network's grid */
    size_t patch[3]; /* one tile: the plan's input and output */
    size_t out[3];   /* the labels' grid */
    size_t channels, classes;
    size_t rows;          /* slots: the most rows that live at a time; 0: tiles are only run */
    size_t places;        /* for logits of whole tiles; 0: only the plan's own output is added */
    size_t made_rows;     /* the most rows of labels that are made at a time */
    unsigned label_bytes; /* of one label: 1 or 2 */
} vx_sweep_size;

/* Lists are borrowed until create returns. */
typedef struct vx_sweep_shape {
    vx_sweep_size size;
    const float *profile[3]; /* patch entries: a tile's weights are their products */
    const float *total[3];   /* dims entries: the products are the sums of all tiles' weights */
    /* out entries: label voxel i comes from (1 - weight[i]) * row[low[i]] + weight[i] * row[low[i]
     * + 1], from row[low[i]] alone where weight[i] is 0. */
    const size_t *low[3];
    const float *weight[3];
    bool regions;           /* the last class above 0, or 0; else the first of the largest */
    const unsigned *values; /* label of each class */
} vx_sweep_shape;

typedef struct vx_sweep vx_sweep;

/* What `add` adds: the plan's own output, instead of a place. */
#define VX_SWEEP_OWN SIZE_MAX

/* Each call returns when its work is done. One thread at a time uses a sweep; but where all is
 * added from places, one may cut and run while another one starts, adds, finishes and makes. Where
 * a status is not VX_OK it is VX_ERR_RESOURCE. */
typedef struct vx_sweep_ops {
    /* Memory of the device that nobody holds now. */
    vx_status (*free_bytes)(vx_device *device, size_t *bytes, vx_error *err);
    /* Memory of the device that a sweep takes besides the plan's; false on overflow. */
    bool (*bytes)(const vx_device *device, const vx_sweep_size *size, size_t *bytes);
    /* Takes the memory and uploads image, [channel][z][y][x] of dims. The plan (one input, one
     * output of `classes` channels, n = 1) is used by this sweep alone until free. VX_ERR_RESOURCE
     * with the two numbers when the device has too little. */
    vx_status (*create)(vx_plan *plan, const vx_sweep_shape *shape, const float *image,
                        vx_sweep **out, vx_error *err);
    void (*free)(vx_sweep *sweep); /* NULL is fine */
    /* Rows begin with zeros. slot: [z][y] of dims, the place of every row that is alive; other
     * entries are not used. Read before start returns. */
    vx_status (*start)(vx_sweep *sweep, const uint32_t *slot, const vx_rows *rows, vx_error *err);
    /* The plan's input: a patch of the volume whose position 0 is voxel at (negative in the
     * padding, which is zero), mirrored along the axes of flips (1 z, 2 y, 4 x). */
    vx_status (*cut)(vx_sweep *sweep, const ptrdiff_t at[3], unsigned flips, vx_error *err);
    vx_status (*run)(vx_sweep *sweep, vx_error *err);
    /* Copies the output of the plan of `from`, a sweep of the same patch and classes on the same or
     * another device of this backend, to a place. By the thread that runs `from`; any other calls
     * but an `add` from this place may run meanwhile. */
    vx_status (*take)(vx_sweep *sweep, size_t place, vx_sweep *from, vx_error *err);
    /* Adds logits of a place, mirrored back, times profile, times scale, to their rows. */
    vx_status (*add)(vx_sweep *sweep, size_t place, const ptrdiff_t at[3], unsigned flips,
                     float scale, vx_error *err);
    /* Divides rows by their total. *finite: no sum is NaN or infinite. */
    vx_status (*finish)(vx_sweep *sweep, const vx_rows *rows, bool *finite, vx_error *err);
    /* Labels of rows of the labels' grid: [z][y][x] of label_bytes, all x. */
    vx_status (*make)(vx_sweep *sweep, const vx_rows *rows, void *labels, vx_error *err);
} vx_sweep_ops;

#endif
