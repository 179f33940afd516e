/* The headers of NRRD and MetaImage files, read and checked before ITK opens the file.
 *
 * ITK decodes the voxels; what it would trust blindly is settled here: sizes against the bytes that
 * are there, the name of the data file, and the geometry (ITK 5.2.1 drops or rejects what its own
 * model of an image cannot hold, e.g. non-orthonormal directions). */
#ifndef VX_IO_ITK_HEADER_H
#define VX_IO_ITK_HEADER_H

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "io/cxx_boundary.h"

namespace vx_io {

enum class Scalar { i8, u8, i16, u16, i32, u32, i64, u64, f32, f64 };
size_t scalar_bytes(Scalar type);
const char *scalar_name(Scalar type); /* numpy's */

enum class Encoding { raw, text, hex, gzip, zlib };

struct ImageHeader {
    vx_geometry geo;
    Scalar type;
    Encoding encoding;
    std::string data_path; /* the header's own path when the data follows it */
    uint64_t data_offset;  /* of the (compressed) voxels in data_path */
    size_t data_bytes;     /* voxels * scalar_bytes, checked */
    uint64_t packed_bytes; /* of a compressed stream, where the header says so; else 0 */
};

/* Both throw Failure (VX_ERR_INPUT) for everything but one 3D scalar grid. */
ImageHeader read_nrrd_header(const char *path, const vx_log *log);
ImageHeader read_meta_header(const char *path, const vx_log *log);

/* VX_ERR_INPUT where data_path is too small for what the header claims, whatever is in it. */
void check_size(const ImageHeader &header);
/* After check_size. VX_ERR_INPUT unless data_path holds exactly what the header claims: for gzip
 * and zlib the stream is inflated to its end (length and checksum); nothing of the claimed size is
 * allocated. */
void check_data(const ImageHeader &header, const vx_log *log);

/* Shared by the two readers. */

/* The first bytes of a file, until a header's end is in them; never more than 16 MiB. */
class HeaderText {
  public:
    explicit HeaderText(const char *path);
    /* One line without its end ("\n" or "\r\n"); false at the end of the file. */
    bool line(std::string_view &out);
    uint64_t offset() const { return pos_; } /* just behind the last line */
  private:
    std::string text_;
    size_t pos_ = 0;
    bool whole_;
};

std::string_view trim(std::string_view s);
std::vector<std::string_view> words(std::string_view s);
std::string lower(std::string_view s);
/* Independent of the locale; throw with the field's name. */
double parse_double(std::string_view s, const char *field);
long long parse_integer(std::string_view s, const char *field);
/* For messages: printable, short. */
std::string shown(std::string_view s);
/* name as the header gives it -> a path beside the header. Absolute names, "..", lists and patterns
 * are refused: a header must not make us read elsewhere. */
std::string data_beside(const char *header_path, std::string_view name);
uint64_t file_size(const std::string &path);
/* dims (checked >= 1) and type -> data_bytes. */
void set_data_bytes(ImageHeader &header);

} // namespace vx_io

#endif
