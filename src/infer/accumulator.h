/* How the tiles of a volume become its labels: in the host's memory (host_accumulator.c) or in that
 * of the device (device_accumulator.c). The session drives both alike, line by line of tiles. */
#ifndef VX_INFER_ACCUMULATOR_H
#define VX_INFER_ACCUMULATOR_H

#include "backend/backend.h"
#include "infer/finalise.h"
#include "infer/frontier.h"

/* Seconds, added to. */
typedef struct vx_tile_times {
    double network, accumulate;
} vx_tile_times;

typedef struct vx_accumulator vx_accumulator;
typedef struct vx_accumulator_ops {
    vx_status (*start)(vx_accumulator *accumulator, const vx_rows *rows, vx_error *err);
    /* One pass over a tile, in the order of frontier and passes: cut it, mirrored by flips, run the
     * network, add its logits times scale (1 / number of passes). */
    vx_status (*tile)(vx_accumulator *accumulator, const size_t tile[3], unsigned flips,
                      float scale, vx_tile_times *times, vx_error *err);
    /* Divides rows that no later tile touches. *finite: no logit is NaN or infinite. */
    vx_status (*finish)(vx_accumulator *accumulator, const vx_rows *rows, bool *finite,
                        vx_error *err);
    /* Labels of rows of the output, into the finaliser's target. probabilities: NULL, or what else
     * gets one slice of them (the host only). */
    vx_status (*make)(vx_accumulator *accumulator, const vx_rows *rows,
                      const vx_probability_slice *probabilities, vx_error *err);
    void (*drop)(vx_accumulator *accumulator, const vx_rows *rows);
    void (*free)(vx_accumulator *accumulator);
} vx_accumulator_ops;

/* The first member of each kind. */
struct vx_accumulator {
    const vx_accumulator_ops *ops;
    size_t device_bytes; /* of a device's memory of its own, besides the plan's */
};

/* Everything is borrowed and outlives the accumulator. */
typedef struct vx_accumulator_setup {
    const vx_backend *backend;
    vx_device *device;
    vx_plan *plan;
    /* The same network on more devices of this kind, which share the tiles: the device's way only.
     */
    vx_plan *const *other_plans;
    size_t other_count;
    const vx_plan_info *info;
    vx_pool *pool;
    const float *image; /* [channel][z][y][x] of tiles->dims */
    size_t channels;
    const vx_tiles *tiles;
    const vx_frontier *frontier;
    const unsigned *passes; /* mirrored ones over each tile */
    size_t pass_count;
    vx_finaliser *finaliser;
    size_t rows;      /* the most that live at a time */
    size_t made_rows; /* the most that are made at a time; the device's only */
} vx_accumulator_setup;

vx_status vx_host_accumulator(const vx_accumulator_setup *setup, vx_accumulator **out,
                              vx_error *err);
/* Bytes of one tile in and out in the host's memory; none for an output that lies in the plan's
 * arena. False on overflow. */
bool vx_host_tile_bytes(const size_t patch[3], size_t channels, size_t classes,
                        const vx_plan_info *info, size_t *in, size_t *out);

/* setup->backend has sweeps. VX_ERR_RESOURCE with the two numbers when a device has too little
 * memory. */
vx_status vx_device_accumulator(const vx_accumulator_setup *setup, vx_accumulator **out,
                                vx_error *err);
/* What it takes: of the host's memory (lists, and labels on their way) for size; false on overflow.
 * The device's is the backend's to say. */
bool vx_device_accumulator_bytes(const vx_tiles *tiles, const vx_sweep_size *size, size_t *host);

#endif
