/* The bytes of a DICOM SEG up to its pixels. Helper process only. */
#ifndef VX_IO_DICOM_SEG_HEADER_H
#define VX_IO_DICOM_SEG_HEADER_H

#include <dcmtk/config/osconfig.h>
#include <dcmtk/dcmdata/dctk.h>

#include "io/cxx_boundary.h"
#include "io/dicom_seg.h"

namespace vx_io {

/* A whole file in explicit little endian but for its last element, PixelData, which the caller
 * appends. source: a file of the series that plan refers to; patient and study are taken from it.
 * NULL for an anonymous plan. Throws Failure. */
std::string seg_header(const SegPlan &plan, DcmDataset *source);

} // namespace vx_io

#endif
