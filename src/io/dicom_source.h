/* What a DICOM volume remembers of its files, for outputs that refer to them (DICOM SEG). */
#ifndef VX_IO_DICOM_SOURCE_H
#define VX_IO_DICOM_SOURCE_H

#include <cstdint>
#include <string>
#include <vector>

#include "io/cxx_boundary.h"

namespace vx_io {

struct DicomSource {
    vx_source base; /* first: a vx_source of kind VX_FORMAT_DICOM is a DicomSource */
    vx_geometry geo;
    std::string study_uid, series_uid, frame_of_reference;
    struct Slice {
        std::string path, sop_class, sop_instance;
        uint32_t frame; /* from 1; 0: the file has one */
    };
    std::vector<Slice> slices; /* slice k of geo, unless straightened */
    /* geo is a straight grid that the slices, in their order along it, were resampled to. */
    bool straightened = false;
};

} // namespace vx_io

#endif
