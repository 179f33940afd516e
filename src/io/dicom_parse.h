/* The parts of the helper process: a DICOM file parsed by DCMTK, its attributes, its pixels. */
#ifndef VX_IO_DICOM_PARSE_H
#define VX_IO_DICOM_PARSE_H

#include <dcmtk/config/osconfig.h>
#include <dcmtk/dcmdata/dctk.h>

#include "io/dicom_file.h"

namespace vx_io {

/* Parses path into format and fills out. False when it is no image or other object (a DICOMDIR).
 * Damage is thrown as Failure, or is out.problem where the file's series is still known. Pixels
 * stay on the disk; only their length is compared with what rows and columns promise. */
bool parse_dicom_file(const std::string &path, DcmFileFormat &format, DicomFile &out);

/* dicom_geometry.cpp: slices of f, frames of them, from the image's own attributes (one frame) or
 * from the functional groups of an enhanced object; f.problem where geometry or scale is missing or
 * cannot be. */
void read_single_slice(DcmDataset &dataset, DicomFile &f);
void read_functional_groups(DcmDataset &dataset, uint32_t frames, DicomFile &f);

/* Where the frames of a compressed file lie: found once, not for each frame anew. Belongs to one
 * data set. */
struct FrameTable {
    std::vector<DcmPixelItem *> items; /* the offset table, then the fragments */
    std::vector<size_t> starts;        /* item that each frame begins with, and one past the last */
};

/* dicom_pixels.cpp: stored values of one frame as they are in the file, frame_bytes(f) of them in
 * native byte order. table is empty at first and kept for the next frame. Throws Failure. */
std::vector<unsigned char> stored_pixels(const DicomFile &f, DcmDataset &dataset, uint32_t frame,
                                         FrameTable &table);

/* dicom_stream.cpp: throws Failure unless a compressed frame is whole and of the size that f says:
 * decoders fill what is missing with zeros. rle: else JPEG, JPEG-LS or JPEG 2000. */
void check_stream(const std::vector<unsigned char> &data, bool rle, const DicomFile &f);

/* Keeps the first problem. */
void set_problem(DicomFile &f, const char *code, const std::string &text);

} // namespace vx_io

#endif
