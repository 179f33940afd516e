/* Resampling of lines along one axis: the building block of resample.c. Equal to one axis of
 * scipy.ndimage.zoom(mode="nearest", grid_mode=True), which scikit-image's resize calls. */
#ifndef VX_VOLUME_RESAMPLE_AXIS_H
#define VX_VOLUME_RESAMPLE_AXIS_H

#include <stddef.h>

#include "base/status.h"

/* Lines that are worked on together, so that the recursive filter runs in vector registers. */
enum { VX_LANES = 16 };
/* Voxels that are repeated beyond each edge before the cubic prefilter (scipy's choice). */
enum { VX_SPLINE_PAD = 12 };

/* Where each output voxel takes its values: order + 1 neighbours from first[k] on. For order 3,
 * first counts within the padded line and never leaves it; else indices beyond the line mean its
 * end voxels. */
typedef struct vx_axis_map {
    size_t in, out;
    int order; /* 0, 1, 3 */
    ptrdiff_t *first;
    double *weights; /* [out][order + 1] */
} vx_axis_map;

/* Voxel centre k of out lies at (k + 0.5) * in / out - 0.5 of in: both grids share their edges. */
vx_status vx_axis_map_create(size_t in, size_t out, int order, vx_axis_map *map, vx_error *err);
void vx_axis_map_free(vx_axis_map *map);

/* Clamped source index of neighbour i of output voxel k, for orders 0 and 1. */
static inline size_t vx_axis_index(const vx_axis_map *map, size_t k, int i) {
    ptrdiff_t j = map->first[k] + i;
    return j < 0 ? 0 : (size_t)j >= map->in ? map->in - 1 : (size_t)j;
}

/* Lines in memory: voxel i of lane l is at data[i * step + l * lane]. */
typedef struct vx_lines {
    size_t step, lane;
} vx_lines;

/* Doubles of scratch that vx_resample_lines needs. */
static inline size_t vx_lines_scratch(const vx_axis_map *map) {
    return (map->in + 2 * VX_SPLINE_PAD) * VX_LANES;
}

/* Resamples lanes (<= VX_LANES) lines; results are clipped to [low, high]. in and out must not
 * overlap. */
void vx_resample_lines(const vx_axis_map *map, const float *in, vx_lines in_lines, float *out,
                       vx_lines out_lines, size_t lanes, float low, float high, double *scratch);

#endif
