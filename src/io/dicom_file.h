/* One DICOM file: what it is, where its pixels lie in the patient, and how they are stored.
 *
 * DCMTK parses; this header names no DCMTK type. Lengths in mm, world LPS (DICOM's own), until
 * dicom_series.cpp makes the RAS affine. */
#ifndef VX_IO_DICOM_FILE_H
#define VX_IO_DICOM_FILE_H

#include <cstdint>
#include <string>
#include <vector>

#include "io/cxx_boundary.h"

namespace vx_io {

enum class DicomKind {
    slice, /* one frame of a CT, MR or PET image (or of no named class): can be part of a volume */
    multiframe, /* several frames in one file */
    other       /* a DICOM object that is no volume: SEG, SR, RTSTRUCT, secondary capture... */
};

struct DicomFile {
    std::string path;
    DicomKind kind;
    std::string class_name; /* "CTImageStorage" as DCMTK names it */
    std::string sop_class, sop_instance, study_uid, series_uid, frame_of_reference;
    std::string modality, description, image_type;
    /* What tells volumes of one series apart: echo time, time point, b-value, as "EchoTime 4.6". */
    std::string moment;
    int series_number = 0;
    long frames = 1;

    unsigned rows = 0, columns = 0;
    unsigned bits_allocated = 0, bits_stored = 0, high_bit = 0;
    bool is_signed = false, compressed = false;
    double slope = 1, intercept = 0;

    bool has_geometry = false; /* position, orientation and spacing are all there */
    double position[3];        /* centre of the first pixel */
    double along_row[3];       /* unit vectors: direction of growing column index, */
    double along_column[3];    /* and of growing row index */
    double spacing[2];         /* between columns (along a row), between rows */
    double tilt = 0;           /* GantryDetectorTilt, degrees; 0 when not given */

    /* Why the file cannot be part of a volume; "" when it can. code as in vx_series_problem. */
    std::string problem_code, problem;
};

struct DicomFolder {
    std::vector<DicomFile> files;
    std::vector<std::string> damaged; /* "NAME: reason" of files that are DICOM by name or magic */
    size_t ignored = 0;               /* files that are no DICOM */
};

/* Prepares DCMTK: silent, dictionary loaded (else Failure). Call before anything below. */
void prepare_dicom();
/* All files under a folder (deep), or next to each other in it. Throws Failure. */
DicomFolder scan_dicom_folder(const std::string &folder, bool deep, const vx_log *log);
/* False when the file is no DICOM at all. Damage is thrown as Failure. */
bool parse_dicom_file(const std::string &path, DicomFile &out);

} // namespace vx_io

#endif
