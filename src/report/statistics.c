#include <math.h>

#include "report/report.h"

void vx_label_statistics(const vx_volume *image, const vx_mask *mask, const vx_label_table *labels,
                         vx_label_stats *out) {
    double voxel_ml = vx_voxel_mm3(&mask->geo) / 1000;
    size_t n = vx_voxels(&mask->geo);
    for (size_t k = 0; k < labels->count; k++) {
        vx_label_stats *s = &out[k];
        s->label = labels->labels[k].value;
        s->voxels = 0;
        double sum = 0;
        for (size_t i = 0; i < n; i++)
            if (vx_mask_get(mask, i) == s->label) {
                s->voxels++;
                sum += image->data[i];
            }
        s->ml = voxel_ml * (double)s->voxels;
        s->mean = s->voxels ? sum / (double)s->voxels : NAN;
        double squares = 0;
        for (size_t i = 0; i < n; i++)
            if (vx_mask_get(mask, i) == s->label) {
                double d = image->data[i] - s->mean;
                squares += d * d;
            }
        s->sd = s->voxels ? sqrt(squares / (double)s->voxels) : NAN;
    }
}
