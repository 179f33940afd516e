/* The DICOM files of a folder. */
#ifndef VX_IO_DICOM_SCAN_H
#define VX_IO_DICOM_SCAN_H

#include "io/dicom_worker.h"

namespace vx_io {

struct DicomFolder {
    std::vector<DicomFile> files;
    std::vector<std::string>
        damaged; /* "NAME: reason" of files that are DICOM by name or magic, or cannot be opened */
};

/* False when the file is no DICOM at all; damage is thrown as Failure (VX_ERR_INPUT). */
bool read_dicom_file(DicomWorker &worker, const std::string &path, DicomFile &out);
/* All files under a folder (deep), or next to each other in it; links are followed, and no file is
 * there twice. Hidden ones and those that are no DICOM are passed over. Throws Failure. */
DicomFolder scan_dicom_folder(DicomWorker &worker, const std::string &folder, bool deep);

} // namespace vx_io

#endif
