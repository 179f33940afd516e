/* Series of a DICOM folder: which slices belong together, their order, the grid they form, and
 * everything that is wrong with it. */
#ifndef VX_IO_DICOM_SERIES_H
#define VX_IO_DICOM_SERIES_H

#include "io/dicom_file.h"

namespace vx_io {

struct DicomSeries {
    std::vector<DicomFile> files; /* along the slice normal where the geometry is known */
    vx_geometry geo{};            /* RAS; the best description when there are problems */
    struct Problem {
        std::string code, message;
    };
    std::vector<Problem> problems;
    /* Made of slices or frames (rather than of SEG, SR, ...). */
    bool is_volume() const { return files.front().kind != DicomKind::other; }
};

/* Grouped by SeriesInstanceUID, ordered by series number, then UID. Damaged files are a problem of
 * every series: nobody knows whose slice is missing. */
std::vector<DicomSeries> group_series(DicomFolder &&folder);
/* The one that wanted (UID or number; NULL: the only volume) names. Throws Failure with a list. */
DicomSeries &choose_series(std::vector<DicomSeries> &series, const char *wanted);
/* Throws Failure with all problems in one line. */
void refuse_problems(const DicomSeries &series);

/* dicom_pixels.cpp: rows * columns values of one file, slope and intercept applied. Throws. */
void read_slice(const DicomFile &file, float *out);

} // namespace vx_io

#endif
