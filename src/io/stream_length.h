/* How long a deflated stream of a file is, before anything believes in it. */
#ifndef VX_IO_STREAM_LENGTH_H
#define VX_IO_STREAM_LENGTH_H

#include <cstdint>
#include <string>

namespace vx_io {

enum class Deflated { raw, gzip, zlib_or_gzip };

struct StreamLength {
    uint64_t packed, inflated; /* bytes */
};

/* Inflates the stream at offset to its end without keeping it. Stops early, with an inflated
 * length above limit, when there is more than limit. Throws Failure (VX_ERR_INPUT) for a file that
 * cannot be read, and for a stream that is damaged or cut short. */
StreamLength stream_length(const std::string &path, uint64_t offset, Deflated form, uint64_t limit);

} // namespace vx_io

#endif
