/* Distances between the surfaces of two masks. */
#ifndef VX_METRICS_SURFACE_H
#define VX_METRICS_SURFACE_H

#include "volume/volume.h"

typedef struct vx_surface_distances {
    double hd95;         /* the larger of the two area-weighted 95 % quantiles, mm */
    double assd;         /* area-weighted mean over both surfaces, mm */
    double surface_dice; /* share of both surfaces within the tolerance of the other */
} vx_surface_distances;

/* Surfaces of pred == label and ref == label; both must hold the label and share dims. Distances
 * run between the corners where eight voxels meet, as in DeepMind's surface-distance 0.1 on an
 * array [x][y][z]. room: as vx_score_label's. */
vx_status vx_surface_compare(const vx_mask *pred, const vx_mask *ref, unsigned label,
                             double tolerance_mm, uint64_t room, vx_surface_distances *out,
                             vx_error *err);

#endif
