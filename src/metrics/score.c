#include <math.h>
#include <string.h>

#include "metrics/metrics.h"
#include "metrics/surface.h"

/* Masks of one scan written by different programs differ by rounding only. */
#define SAME_GRID_MM 0.1

static vx_status check_grids(const vx_mask *pred, const vx_mask *ref, vx_error *err) {
    const size_t *a = pred->geo.dims, *b = ref->geo.dims;
    if (memcmp(a, b, sizeof pred->geo.dims) != 0)
        return vx_fail(
            err, VX_ERR_INPUT,
            "the grids differ: %zux%zux%zu voxels against %zux%zux%zu (resample one of them)", a[0],
            a[1], a[2], b[0], b[1], b[2]);
    double mm = vx_geometry_distance(&pred->geo, &ref->geo);
    if (!(mm <= SAME_GRID_MM))
        return vx_fail(err, VX_ERR_INPUT,
                       "the grids lie up to %.3g mm apart (resample one of them)", mm);
    return VX_OK;
}

vx_status vx_score_label(const vx_mask *pred, const vx_mask *ref, unsigned label,
                         double tolerance_mm, int distances, uint64_t room, vx_label_score *out,
                         vx_error *err) {
    vx_status status = check_grids(pred, ref, err);
    if (status != VX_OK) return status;
    memset(out, 0, sizeof *out);
    out->label = label;
    size_t n = vx_voxels(&ref->geo);
    for (size_t i = 0; i < n; i++) {
        int p = vx_mask_get(pred, i) == label, r = vx_mask_get(ref, i) == label;
        out->pred_voxels += (size_t)p;
        out->ref_voxels += (size_t)r;
        out->both_voxels += (size_t)(p & r);
    }
    double ml = vx_voxel_mm3(&ref->geo) / 1000;
    out->pred_ml = ml * (double)out->pred_voxels;
    out->ref_ml = ml * (double)out->ref_voxels;
    out->hd95 = out->assd = out->nsd = NAN;
    if (!out->pred_voxels && !out->ref_voxels) {
        out->dice = out->iou = NAN;
        return VX_OK;
    }
    double both = (double)out->both_voxels,
           sum = (double)out->pred_voxels + (double)out->ref_voxels;
    out->dice = 2 * both / sum;
    out->iou = both / (sum - both);
    if (!distances) return VX_OK;
    if (!out->pred_voxels || !out->ref_voxels) {
        out->hd95 = out->assd = INFINITY;
        out->nsd = 0;
        return VX_OK;
    }
    vx_surface_distances d;
    status = vx_surface_compare(pred, ref, label, tolerance_mm, room, &d, err);
    if (status != VX_OK) return status;
    out->hd95 = d.hd95;
    out->assd = d.assd;
    out->nsd = d.surface_dice;
    return VX_OK;
}
