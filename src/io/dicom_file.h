/* One DICOM file: what it is, where its pixels lie in the patient, and how they are stored.
 *
 * Filled by the helper process (dicom_parse.cpp), which alone touches DCMTK and GDCM, and checked
 * by dicom_wire.cpp. Lengths in mm, world LPS (DICOM's own), until dicom_series.cpp makes the RAS
 * affine. */
#ifndef VX_IO_DICOM_FILE_H
#define VX_IO_DICOM_FILE_H

#include <cstdint>
#include <string>
#include <vector>

#include "io/cxx_boundary.h"

namespace vx_io {

enum class DicomKind : uint32_t {
    slice,      /* one frame of a CT, MR or PET image: with others of its series a volume */
    multiframe, /* several frames in one file */
    other       /* a DICOM object that is no volume: SEG, SR, RTSTRUCT, secondary capture... */
};

/* One frame. Position and directions are undefined unless has_geometry (which for kind other only
 * says that the object has a position of its own). */
struct DicomSlice {
    uint32_t file = 0;  /* index of its file in the series */
    uint32_t frame = 0; /* in that file, from 0 */
    bool has_geometry = false;
    double position[3] = {};     /* centre of the first pixel */
    double along_row[3] = {};    /* unit vectors: direction of growing column index, */
    double along_column[3] = {}; /* and of growing row index */
    double spacing[2] = {};      /* between columns (along a row), between rows */
    double slope = 1, intercept = 0;
    std::string type; /* ImageType or FrameType, values separated by '\' */
    /* What tells volumes at the same positions apart, each "NAME VALUE": "EchoTime 4.6". */
    std::vector<std::string> traits;
};

struct DicomFile {
    std::string path;
    DicomKind kind = DicomKind::other;
    std::string class_name; /* "CTImageStorage" as DCMTK names it */
    std::string sop_class, sop_instance, study_uid, series_uid, frame_of_reference;
    std::string modality, description;
    int32_t series_number = 0;

    uint32_t rows = 0, columns = 0;
    uint32_t bits_allocated = 0, bits_stored = 0, high_bit = 0;
    bool is_signed = false;
    double tilt = 0;                /* GantryDetectorTilt, degrees; 0 when not given */
    std::vector<DicomSlice> slices; /* its frames in their order; one for kind other */

    /* Why the file cannot be part of a volume; "" when it can. code as in vx_series_problem. */
    std::string problem_code, problem;
};

/* Bytes of one frame of stored values; 0 unless 8, 16 or 32 bits are allocated. The product cannot
 * overflow: rows and columns are at most 65535. */
inline size_t frame_bytes(const DicomFile &f) {
    const unsigned bits = f.bits_allocated;
    const bool known = bits == 8 || bits == 16 || bits == 32;
    return known ? static_cast<size_t>(f.rows) * f.columns * (bits / 8) : 0;
}

/* The largest frame that is read: twice a digital mammogram of 8192 x 8192 pixels. */
constexpr size_t largest_frame_bytes = size_t(1) << 28;

} // namespace vx_io

#endif
