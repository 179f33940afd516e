/* DCMTK, made ready for this process. */
#ifndef VX_IO_DICOM_LIBRARY_H
#define VX_IO_DICOM_LIBRARY_H

namespace vx_io {

/* Silent, and its dictionary loaded (else Failure, VX_ERR_RESOURCE). Call before using DCMTK; any
 * thread, any number of times. */
void prepare_dicom();

} // namespace vx_io

#endif
