/* What the library and its helper process voxmamba-dicom say to each other over a socket.
 *
 * The helper greets once; then every request has one reply. Both are a fixed head and a bounded
 * body, in the machine's own byte order (both ends are one build on one machine). The library
 * believes nothing: lengths are limited before anything is allocated, and unpack_file() checks
 * every value that later decides a size or an index. */
#ifndef VX_IO_DICOM_WIRE_H
#define VX_IO_DICOM_WIRE_H

#include "io/dicom_file.h"

namespace vx_io {

constexpr uint32_t dicom_magic = 0x4d445856; /* "VXDM" */

enum class DicomAsk : uint32_t {
    parse = 1,  /* body of the reply: pack_file() */
    pixels = 2, /* stored values of one frame, frame_bytes() of them, native byte order */
    seg = 3     /* body of the request: pack_plan(); of the reply: seg_header() of it and the file,
                   which     an anonymous plan has none of (its path is empty) */
};
struct DicomRequest {
    uint32_t magic, ask, frame, path_bytes;
    uint64_t body_bytes; /* the path follows, then the body */
};

enum class DicomAnswer : uint32_t {
    ok = 0,
    not_dicom = 1, /* no body */
    refused = 2,   /* body: one line that says what is wrong with the file */
    unusable = 3   /* body: one line; the helper itself cannot work */
};
struct DicomReply {
    uint32_t magic, answer;
    uint64_t bytes; /* of the body */
};

constexpr size_t dicom_path_limit = 4096, dicom_text_limit = 400;
constexpr size_t dicom_file_limit = size_t(64) << 20; /* of a packed file */
constexpr size_t dicom_plan_limit = size_t(64) << 20;
constexpr size_t dicom_header_limit = size_t(256) << 20; /* of a SEG without its pixels */
constexpr uint32_t dicom_frame_limit = 1u << 17;

std::string pack_file(const DicomFile &file);
/* Everything but path, which stays. Throws Failure unless bytes are one well-formed file whose
 * values can be: counts and sizes within their limits, numbers finite. */
void unpack_file(const char *bytes, size_t count, DicomFile &out);

} // namespace vx_io

#endif
