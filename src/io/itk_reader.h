/* What itk_reader.cpp and nrrd_meta_writer.cpp share. */
#ifndef VX_IO_ITK_READER_H
#define VX_IO_ITK_READER_H

#include "io/cxx_boundary.h"

namespace vx_io {

/* nrrd_meta_writer.cpp. Throws Failure. */
void write_itk_mask(const char *path, const vx_mask *mask, const vx_write_options *options);

} // namespace vx_io

#endif
