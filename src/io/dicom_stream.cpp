/* The shape of one compressed frame, before a decoder sees it. */
#include "io/dicom_parse.h"

namespace vx_io {

namespace {

/* PS3.5 annex G: a header of 16 offsets, then one run-length segment for each byte of a pixel. */
void check_rle(const std::vector<unsigned char> &data, const DicomFile &f) {
    const auto u32 = [&](size_t at) {
        return static_cast<uint32_t>(data[at]) | static_cast<uint32_t>(data[at + 1]) << 8 |
               static_cast<uint32_t>(data[at + 2]) << 16 |
               static_cast<uint32_t>(data[at + 3]) << 24;
    };
    const size_t segments = f.bits_allocated / 8;
    if (data.size() < 64 || u32(0) != segments)
        fail(VX_ERR_INPUT, "the run-length header does not fit %u bits", f.bits_allocated);
    for (size_t s = 0; s < segments; s++) {
        size_t at = u32(4 + 4 * s), made = 0;
        const size_t end = s + 1 < segments ? u32(8 + 4 * s) : data.size();
        const size_t want = static_cast<size_t>(f.rows) * f.columns;
        if (at < 64 || end > data.size() || at > end)
            fail(VX_ERR_INPUT, "the run-length offsets lie outside the data");
        while (at < end && made < want) {
            const int code = static_cast<signed char>(data[at++]);
            if (code == -128) continue;
            const size_t run = static_cast<size_t>(code >= 0 ? code : -code) + 1;
            at += code >= 0 ? run : 1;
            made += run;
        }
        if (made != want || at > end || end - at > 1) /* one byte makes the length even */
            fail(VX_ERR_INPUT, "the run-length data makes %zu bytes, %zu are needed", made, want);
    }
}

unsigned u16(const std::vector<unsigned char> &d, size_t at) {
    return at + 1 < d.size() ? static_cast<unsigned>(d[at] << 8 | d[at + 1]) : 0;
}

struct StreamShape {
    unsigned columns = 0, rows = 0, components = 0, bits = 0;
};

/* What a JPEG, JPEG-LS (frame header SOF) or JPEG 2000 (SIZ) stream says of itself. */
StreamShape shape_of(const std::vector<unsigned char> &d) {
    StreamShape shape;
    if (u16(d, 0) == 0xff4f) { /* JPEG 2000: SIZ comes first; sizes of 4 bytes, high halves 0 */
        const bool plain = u16(d, 2) == 0xff51 && d.size() > 44 && u16(d, 43) == 0x0101 &&
                           u16(d, 8) == 0 && u16(d, 12) == 0 && u16(d, 16) == 0 &&
                           u16(d, 18) == 0 && u16(d, 20) == 0 && u16(d, 22) == 0;
        if (plain) shape = {u16(d, 10), u16(d, 14), u16(d, 40), (d[42] & 0x7fu) + 1};
        return shape;
    }
    size_t at = 2;
    while (at + 9 < d.size() && d[at] == 0xff) {
        const unsigned marker = d[at + 1];
        const bool frame = marker == 0xf7 || (marker >= 0xc0 && marker <= 0xcf && marker != 0xc4 &&
                                              marker != 0xc8 && marker != 0xcc);
        if (frame) return {u16(d, at + 7), u16(d, at + 5), d[at + 9], d[at + 4]};
        at += marker == 0xff ? 1 : 2 + u16(d, at + 2);
    }
    return shape;
}

/* The stream must be whole (all three formats end with FF D9) and of the size that the header
 * says: the decoders fill what is missing with zeros. */
void check_jpeg(const std::vector<unsigned char> &data, const DicomFile &f) {
    size_t n = data.size();
    if (n > 2 && u16(data, n - 2) != 0xffd9) n--; /* padding to an even length, 00 or FF */
    if (n < 4 || data[0] != 0xff || data[n - 2] != 0xff || data[n - 1] != 0xd9)
        fail(VX_ERR_INPUT, "the compressed pixels are cut short (no end marker)");
    const StreamShape shape = shape_of(data);
    if (shape.columns != f.columns || shape.rows != f.rows || shape.components != 1 ||
        shape.bits < f.bits_stored || shape.bits > f.bits_allocated)
        fail(VX_ERR_INPUT,
             "the compressed pixels are %u x %u of %u bits, the header says %u x %u of %u",
             shape.columns, shape.rows, shape.bits, f.columns, f.rows, f.bits_stored);
}

} // namespace

void check_stream(const std::vector<unsigned char> &data, bool rle, const DicomFile &f) {
    if (rle)
        check_rle(data, f);
    else
        check_jpeg(data, f);
}

} // namespace vx_io
