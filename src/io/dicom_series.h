/* Series of a DICOM folder: which slices belong together, their order, the grid they form, and
 * everything that is wrong with it. */
#ifndef VX_IO_DICOM_SERIES_H
#define VX_IO_DICOM_SERIES_H

#include "io/dicom_scan.h"

namespace vx_io {

/* Positions are written as decimal text, often with two or three digits; a real fault is larger. */
constexpr double same_position = 0.01; /* mm */

/* One volume, or what was meant to be one. */
struct DicomSeries {
    std::vector<DicomFile> files;   /* their own slices are empty: */
    std::vector<DicomSlice> slices; /* all are here, along the normal where the geometry is known */
    /* A series may hold several volumes at the same positions: its part from 1, and what sets it
     * apart ("EchoTime 4.6"). 0 and "" for the only one. */
    int part = 0;
    std::string contents;
    vx_geometry geo{}; /* RAS; the best description when there are problems */
    struct Problem {
        std::string code, message;
    };
    std::vector<Problem> problems;
    /* Made of slices or frames (rather than of SEG, SR, ...). */
    bool is_volume() const {
        for (const DicomFile &f : files)
            if (f.kind != DicomKind::other) return true;
        return false;
    }
    const DicomFile &file_of(const DicomSlice &slice) const { return files[slice.file]; }
    const char *noun() const { return files.size() == slices.size() ? "file" : "frame"; }
};

/* Grouped by SeriesInstanceUID and, where positions are held several times, by what sets the
 * volumes apart (dicom_parts.cpp); ordered by series number, then UID, then part. Damaged files are
 * a problem of every series: nobody knows whose slice is missing. */
std::vector<DicomSeries> group_series(DicomFolder &&folder);
/* dicom_parts.cpp: the volumes of a series whose positions are held several times, when one
 * attribute (or all of them) splits it into parts that hold each of their positions once, all
 * equally many and at least two; else the series itself, alone. */
std::vector<DicomSeries> split_parts(DicomSeries &&series);
/* The one that wanted (UID or NUMBER, or UID/PART, NUMBER/PART; NULL: the only volume that is no
 * localizer) names. Throws Failure with a list. */
DicomSeries &choose_series(std::vector<DicomSeries> &series, const char *wanted);
/* Leaves those that wanted names (NULL: all). Throws Failure with a list when none is left. */
void keep_named(std::vector<DicomSeries> &series, const char *wanted);
/* Throws Failure with all problems in one line; with tolerate only if resampling does not help. */
void refuse_problems(const DicomSeries &series, bool tolerate);

/* Right-handed: along_row x along_column. */
void slice_normal(const DicomSlice &slice, double normal[3]);
double along(const double direction[3], const double position[3]);
/* The affine of slices that lie step (LPS mm) apart, the first one's at position. */
void set_affine(const DicomSlice &slice, const double position[3], const double step[3],
                vx_geometry &geo);

/* dicom_values.cpp: rows * columns values of one slice, slope and intercept applied. Throws. */
void read_slice(DicomWorker &worker, const DicomFile &file, const DicomSlice &slice, float *out);

/* dicom_straighten.cpp: the straight, even grid that covers a tilted, uneven or shifted stack. Its
 * slices are a whole number of steps apart, near the usual distance; its pixels are the first
 * slice's, more where slices shift. Throws when it would be out of proportion. */
vx_geometry straight_grid(const DicomSeries &series);
/* The volume on that grid: linear between slices and pixels; what no slice covers has the lowest
 * value of all. out: vx_voxels(geo) floats. */
void read_straightened(DicomWorker &worker, const DicomSeries &series, const vx_geometry &geo,
                       float *out);

} // namespace vx_io

#endif
