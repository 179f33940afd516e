#include <math.h>

#include "report/report.h"

enum { VALUES = 65536 }; /* that a mask can hold */

/* Entry of out for each value of a mask; NONE for values that the table does not name. */
enum { NONE = UINT16_MAX };

static void find_entries(const vx_label_table *labels, uint16_t entry[VALUES]) {
    for (size_t v = 0; v < VALUES; v++) entry[v] = NONE;
    /* Values are unique and never 0, so there are fewer labels than NONE. */
    for (size_t k = 0; k < labels->count; k++) entry[labels->labels[k].value] = (uint16_t)k;
}

void vx_label_statistics(const vx_volume *image, const vx_mask *mask, const vx_label_table *labels,
                         vx_label_stats *out) {
    uint16_t entry[VALUES];
    double voxel_ml = vx_voxel_mm3(&mask->geo) / 1000;
    size_t n = vx_voxels(&mask->geo);
    find_entries(labels, entry);
    for (size_t k = 0; k < labels->count; k++)
        out[k] = (vx_label_stats){.label = labels->labels[k].value};
    /* Two passes over the voxels, whatever the number of labels: sums first, then the squares about
     * the means. */
    for (size_t i = 0; i < n; i++) {
        size_t k = entry[vx_mask_get(mask, i)];
        if (k == NONE) continue;
        out[k].voxels++;
        out[k].mean += image->data[i];
    }
    for (size_t k = 0; k < labels->count; k++) out[k].mean /= (double)out[k].voxels;
    for (size_t i = 0; i < n; i++) {
        size_t k = entry[vx_mask_get(mask, i)];
        if (k == NONE) continue;
        double d = image->data[i] - out[k].mean;
        out[k].sd += d * d;
    }
    for (size_t k = 0; k < labels->count; k++) {
        vx_label_stats *s = &out[k];
        s->ml = voxel_ml * (double)s->voxels;
        s->sd = sqrt(s->sd / (double)s->voxels); /* without voxels 0 / 0: NaN, as the mean */
    }
}
