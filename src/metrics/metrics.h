/* Agreement of two masks on one grid. */
#ifndef VX_METRICS_METRICS_H
#define VX_METRICS_METRICS_H

#include "volume/volume.h"

typedef struct vx_label_score {
    unsigned label;
    size_t pred_voxels, ref_voxels, both_voxels;
    double pred_ml, ref_ml;
    double dice, iou;  /* NaN when both are empty, 0 when one is */
    double hd95, assd; /* mm; NaN when both are empty, infinity when one is */
    double nsd;        /* surface Dice at the tolerance */
} vx_label_score;

/* Surface distances as DeepMind's surface-distance 0.1 defines them (marching-cubes neighbour
 * codes, area-weighted surface elements; HD95 = the larger of the two 95 % quantiles; ASSD = the
 * area-weighted mean over both surfaces). distances false: Dice and IoU only. room: bytes that
 * distances may take; VX_ERR_RESOURCE where that is too little (27 a voxel of the box that holds
 * the label in either mask). VX_ERR_INPUT when the grids differ (dims, or corners by > 0.1 mm). */
vx_status vx_score_label(const vx_mask *pred, const vx_mask *ref, unsigned label,
                         double tolerance_mm, int distances, uint64_t room, vx_label_score *out,
                         vx_error *err);

#endif
