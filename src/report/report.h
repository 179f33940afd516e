/* Pictures and statistics of a result; JSON text. */
#ifndef VX_REPORT_REPORT_H
#define VX_REPORT_REPORT_H

#include <stdbool.h>

#include "base/out_file.h"
#include "base/threads.h"
#include "volume/labels.h"
#include "volume/volume.h"

/* Three planes (axial, coronal, sagittal) through the label's centre with the mask's outline and
 * fill, radiological convention, true aspect ratio, as PNG (libpng). replace, keep: as
 * vx_out_finish has them (base/out_file.h). */
vx_status vx_preview_write(const char *path, const vx_volume *image, const vx_mask *mask,
                           const vx_label_table *labels, bool replace, vx_out_file **keep,
                           vx_error *err);

/* The labels as BIDS wants them beside a label map (its specification 1.10, "Common image-derived
 * labels"): tab-separated, columns index, name and color ("#rrggbb"), a line a label in the table's
 * order; control characters of a name become blanks. replace, keep: as above. VX_ERR_OUTPUT. */
vx_status vx_label_table_write(const char *path, const vx_label_table *labels, bool replace,
                               vx_out_file **keep, vx_error *err);

typedef struct vx_label_stats {
    unsigned label;
    size_t voxels;
    double ml;
    double mean, sd; /* of the first channel; NaN without voxels */
} vx_label_stats;
/* One entry a label of the table, its order. out has labels->count entries. The same bits for any
 * pool, which may be NULL. */
vx_status vx_label_statistics(const vx_volume *image, const vx_mask *mask,
                              const vx_label_table *labels, vx_pool *pool, vx_label_stats *out,
                              vx_error *err);

#endif
