/* What the ITK reader and writer share. */
#ifndef VX_IO_ITK_READER_H
#define VX_IO_ITK_READER_H

#include "io/cxx_boundary.h"

namespace vx_io {

/* ITK prints warnings on stderr unless told otherwise; a library must not. */
void silence_itk();

/* itk_writer.cpp. Throws Failure. */
void write_itk_mask(const char *path, const vx_mask *mask, const vx_write_options *options);

} // namespace vx_io

#endif
