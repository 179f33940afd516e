/* What itk_reader.cpp and the writers of labelled masks share. */
#ifndef VX_IO_ITK_READER_H
#define VX_IO_ITK_READER_H

#include "io/cxx_boundary.h"

namespace vx_io {

/* nrrd_meta_writer.cpp. Throws Failure. */
void write_itk_mask(const char *path, const vx_mask *mask, const vx_write_options *options);

/* nrrd_meta_writer.cpp. The entry of a value that the table does not name: it still becomes a
 * segment, so that nothing of the mask is lost. */
vx_label unnamed_label(unsigned value);

} // namespace vx_io

#endif
