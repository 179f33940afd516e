/* Pixels of one DICOM slice. Uncompressed ones come from DCMTK, which gives exactly the bytes that
 * are there; compressed ones are decoded by GDCM (ITK's own decoder), after the shape of the stream
 * was checked: GDCM fills what a cut stream lacks with zeros and says nothing.
 *
 * stored_pixels() is the only place where a decoder runs: it can move to a child process. */
#include <dcmtk/config/osconfig.h>
#include <dcmtk/dcmdata/dcpixel.h>
#include <dcmtk/dcmdata/dcpixseq.h>
#include <dcmtk/dcmdata/dcpxitem.h>
#include <dcmtk/dcmdata/dctk.h>
#include <gdcmFragment.h>
#include <gdcmImage.h>
#include <gdcmSequenceOfFragments.h>
#include <gdcmTrace.h>

#include <cmath>
#include <cstring>

#include "io/dicom_series.h"

namespace vx_io {

namespace {

size_t slice_bytes(const DicomFile &f) {
    return static_cast<size_t>(f.rows) * f.columns * (f.bits_allocated / 8);
}

DcmPixelData &pixel_data(DcmDataset &dataset) {
    DcmElement *element = nullptr;
    DcmPixelData *pixels = nullptr;
    if (dataset.findAndGetElement(DCM_PixelData, element).good())
        pixels = dynamic_cast<DcmPixelData *>(element);
    if (!pixels) fail(VX_ERR_INPUT, "no pixel data");
    return *pixels;
}

/* All fragments one after the other (a single frame may be cut into several). */
std::vector<unsigned char> joined_fragments(DcmDataset &dataset) {
    DcmPixelSequence *sequence = nullptr;
    if (pixel_data(dataset)
            .getEncapsulatedRepresentation(dataset.getOriginalXfer(), nullptr, sequence)
            .bad() ||
        !sequence || sequence->card() < 2)
        fail(VX_ERR_INPUT, "the compressed pixels have no fragment");
    std::vector<unsigned char> out;
    for (unsigned long i = 1; i < sequence->card(); i++) { /* item 0 is the offset table */
        DcmPixelItem *item = nullptr;
        Uint8 *bytes = nullptr;
        if (sequence->getItem(item, i).bad() || !item || item->getUint8Array(bytes).bad() ||
            (!bytes && item->getLength() > 0))
            fail(VX_ERR_INPUT, "the compressed pixels are cut short");
        out.insert(out.end(), bytes, bytes + item->getLength());
    }
    return out;
}

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
        if (made < want || at > end)
            fail(VX_ERR_INPUT, "the run-length data is cut short: %zu of %zu bytes", made, want);
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
        const bool plain = u16(d, 2) == 0xff51 && d.size() > 42 && u16(d, 8) == 0 &&
                           u16(d, 12) == 0 && u16(d, 16) == 0 && u16(d, 18) == 0 &&
                           u16(d, 20) == 0 && u16(d, 22) == 0;
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

/* GDCM gets the checked stream, never the file: its parser aborts on damaged ones. */
void decode_compressed(const DicomFile &f, DcmDataset &dataset, std::vector<unsigned char> &out) {
    std::vector<unsigned char> stream = joined_fragments(dataset);
    if (dataset.getOriginalXfer() == EXS_RLELossless)
        check_rle(stream, f);
    else
        check_jpeg(stream, f);
    if (stream.size() % 2) stream.push_back(0);
    if (stream.size() > UINT32_MAX) fail(VX_ERR_INPUT, "the compressed pixels exceed 4 GiB");
    gdcm::Trace::WarningOff();
    gdcm::Trace::ErrorOff();
    gdcm::Trace::DebugOff();
    const auto syntax =
        gdcm::TransferSyntax::GetTSType(DcmXfer(dataset.getOriginalXfer()).getXferID());
    if (syntax == gdcm::TransferSyntax::TS_END)
        fail(VX_ERR_INPUT, "transfer syntax %s is not supported",
             DcmXfer(dataset.getOriginalXfer()).getXferName());
    const auto u = [](unsigned v) { return static_cast<unsigned short>(v); };
    gdcm::Image image;
    image.SetNumberOfDimensions(2);
    image.SetDimension(0, f.columns);
    image.SetDimension(1, f.rows);
    image.SetPixelFormat(gdcm::PixelFormat(1, u(f.bits_allocated), u(f.bits_stored), u(f.high_bit),
                                           f.is_signed ? 1 : 0));
    image.SetPhotometricInterpretation(gdcm::PhotometricInterpretation::MONOCHROME2);
    image.SetTransferSyntax(syntax);
    gdcm::Fragment fragment;
    fragment.SetByteValue(reinterpret_cast<const char *>(stream.data()),
                          static_cast<uint32_t>(stream.size()));
    auto fragments = gdcm::SequenceOfFragments::New();
    fragments->AddFragment(fragment);
    gdcm::DataElement element(gdcm::Tag(0x7fe0, 0x0010));
    element.SetValue(*fragments);
    image.SetDataElement(element);
    if (image.GetBufferLength() != out.size() ||
        !image.GetBuffer(reinterpret_cast<char *>(out.data())))
        fail(VX_ERR_INPUT, "the compressed pixels cannot be decoded");
}

void copy_uncompressed(const DicomFile &f, DcmDataset &dataset, std::vector<unsigned char> &out) {
    DcmPixelData &pixels = pixel_data(dataset);
    const unsigned long have = pixels.getLength(dataset.getOriginalXfer());
    if (have != out.size() + out.size() % 2)
        fail(VX_ERR_INPUT, "%lu bytes of pixels, %zu are needed", have, out.size());
    /* OW is kept as 16-bit words in native order, OB as bytes. */
    Uint16 *w = nullptr;
    Uint8 *b = nullptr;
    const bool as_words = f.bits_allocated > 8 || pixels.getVR() == EVR_OW;
    const bool good = as_words ? pixels.getUint16Array(w).good() : pixels.getUint8Array(b).good();
    const void *bytes = as_words ? static_cast<const void *>(w) : b;
    if (!good || !bytes) fail(VX_ERR_INPUT, "the pixels are cut short (copy the file again)");
    std::memcpy(out.data(), bytes, out.size());
}

/* Stored values as they are in the file, native byte order. */
std::vector<unsigned char> stored_pixels(const DicomFile &f) {
    DcmFileFormat format;
    const OFCondition loaded = format.loadFile(OFFilename(f.path.c_str()));
    if (loaded.bad()) fail(VX_ERR_INPUT, "damaged DICOM file: %s", loaded.text());
    std::vector<unsigned char> out(slice_bytes(f));
    if (f.compressed)
        decode_compressed(f, *format.getDataset(), out);
    else
        copy_uncompressed(f, *format.getDataset(), out);
    return out;
}

/* Bits above the high bit may hold overlays: only the stored ones count, with their sign. */
template <typename T>
void scale_values(const std::vector<unsigned char> &raw, const DicomFile &f, float *out) {
    const size_t n = static_cast<size_t>(f.rows) * f.columns;
    const unsigned shift = f.high_bit + 1 - f.bits_stored;
    const uint64_t mask = (uint64_t(1) << f.bits_stored) - 1;
    const uint64_t sign = f.is_signed ? uint64_t(1) << (f.bits_stored - 1) : 0;
    for (size_t i = 0; i < n; i++) {
        T word;
        std::memcpy(&word, raw.data() + i * sizeof(T), sizeof(T));
        const uint64_t bits = (static_cast<uint64_t>(word) >> shift) & mask;
        const int64_t value = static_cast<int64_t>(bits ^ sign) - static_cast<int64_t>(sign);
        out[i] = static_cast<float>(static_cast<double>(value) * f.slope + f.intercept);
    }
}

} // namespace

void read_slice(const DicomFile &f, float *out) {
    const std::vector<unsigned char> raw = stored_pixels(f);
    switch (f.bits_allocated) {
    case 8:
        scale_values<uint8_t>(raw, f, out);
        break;
    case 16:
        scale_values<uint16_t>(raw, f, out);
        break;
    default:
        scale_values<uint32_t>(raw, f, out);
        break;
    }
    const size_t n = static_cast<size_t>(f.rows) * f.columns;
    for (size_t i = 0; i < n; i++)
        if (!std::isfinite(out[i]))
            fail(VX_ERR_INPUT, "voxels are not finite after slope %g and intercept %g", f.slope,
                 f.intercept);
}

} // namespace vx_io
