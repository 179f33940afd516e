/* What a DICOM SEG will hold, decided from a finished mask; and the most that it could hold,
 * decided before there is one. */
#ifndef VX_IO_DICOM_SEG_PLAN_H
#define VX_IO_DICOM_SEG_PLAN_H

#include "io/cxx_boundary.h"
#include "io/dicom_seg.h"

namespace vx_io {

struct PlannedSeg {
    SegPlan plan;
    std::vector<unsigned> values; /* of the mask, for each of the plan's segments */
};

/* mask->source must be a DICOM volume's, else VX_ERR_USAGE. More frames or bytes of pixels than an
 * object holds are VX_ERR_INPUT. Throws Failure. */
PlannedSeg plan_seg(const vx_mask *mask, const vx_write_options *options);

/* Length of PixelData: one bit a voxel and frame, padded to an even number of bytes. */
uint64_t seg_pixel_bytes(const SegPlan &plan);

/* Of a mask on geo with so many labels. */
vx_write_bound seg_bound(const vx_geometry *geo, size_t labels);

} // namespace vx_io

#endif
