/* Stored pixels of one frame, in the helper process. Uncompressed ones come from DCMTK, which gives
 * exactly the bytes that are there; compressed ones are decoded by GDCM (ITK's own decoder), after
 * the shape of the stream was checked: GDCM fills what a cut stream lacks with zeros. */
#include <dcmtk/dcmdata/dcpixel.h>
#include <dcmtk/dcmdata/dcpixseq.h>
#include <dcmtk/dcmdata/dcpxitem.h>
#include <gdcmFragment.h>
#include <gdcmImage.h>
#include <gdcmSequenceOfFragments.h>

#include <cstring>

#include "io/dicom_parse.h"

namespace vx_io {

namespace {

DcmPixelData &pixel_data(DcmDataset &dataset) {
    DcmElement *element = nullptr;
    DcmPixelData *pixels = nullptr;
    if (dataset.findAndGetElement(DCM_PixelData, element).good())
        pixels = dynamic_cast<DcmPixelData *>(element);
    if (!pixels) fail(VX_ERR_INPUT, "no pixel data");
    return *pixels;
}

/* Item 0 of a pixel sequence is the offset table, the others are fragments. */
std::vector<DcmPixelItem *> items_of(DcmDataset &dataset) {
    std::vector<DcmPixelItem *> out;
    DcmPixelSequence *sequence = nullptr;
    if (pixel_data(dataset)
            .getEncapsulatedRepresentation(dataset.getOriginalXfer(), nullptr, sequence)
            .good() &&
        sequence)
        for (DcmObject *e = sequence->nextInContainer(nullptr); e; e = sequence->nextInContainer(e))
            if (auto *item = dynamic_cast<DcmPixelItem *>(e)) out.push_back(item);
    if (out.size() < 2) fail(VX_ERR_INPUT, "the compressed pixels have no fragment");
    return out;
}

void append_bytes(DcmPixelItem &item, std::vector<unsigned char> &out) {
    const uint32_t length = item.getLength();
    const size_t before = out.size();
    out.resize(before + length);
    if (length > 0 && item.getPartialValue(out.data() + before, 0, length).bad())
        fail(VX_ERR_INPUT, "the compressed pixels are cut short");
}

/* Number of the item that each frame begins with, and one past the last. The offset table, where
 * there is one, must agree; without it frames and fragments pair up, or one frame has all. */
std::vector<size_t> frame_starts(const std::vector<DcmPixelItem *> &items, size_t frames) {
    std::vector<unsigned char> table;
    append_bytes(*items[0], table);
    std::vector<size_t> starts;
    if (table.empty() && items.size() - 1 == frames)
        for (size_t i = 1; i < items.size(); i++) starts.push_back(i);
    if (table.empty() && frames == 1) starts.assign(1, 1);
    if (!table.empty()) {
        uint64_t offset = 0;
        for (size_t i = 1; i < items.size(); i++) {
            const size_t k = starts.size();
            uint64_t next = UINT64_MAX;
            if (4 * k + 4 <= table.size())
                next = table[4 * k] | table[4 * k + 1] << 8 | table[4 * k + 2] << 16 |
                       static_cast<uint64_t>(table[4 * k + 3]) << 24;
            if (offset == next) starts.push_back(i);
            offset += 8 + items[i]->getLength();
        }
        if (table.size() != 4 * frames || starts.empty() || starts[0] != 1) starts.clear();
    }
    if (starts.size() != frames)
        fail(VX_ERR_INPUT,
             "%zu compressed fragments and an offset table of %zu bytes do not make "
             "%zu frames",
             items.size() - 1, table.size(), frames);
    starts.push_back(items.size());
    return starts;
}

/* All fragments of a frame one after the other. */
std::vector<unsigned char> compressed_frame(const DicomFile &f, DcmDataset &dataset, uint32_t frame,
                                            FrameTable &table) {
    if (table.starts.empty()) {
        table.items = items_of(dataset);
        table.starts = frame_starts(table.items, f.slices.size());
    }
    std::vector<unsigned char> out;
    for (size_t i = table.starts[frame]; i < table.starts[frame + 1]; i++)
        append_bytes(*table.items[i], out);
    return out;
}

gdcm::TransferSyntax::TSType syntax_of(DcmDataset &dataset) {
    const DcmXfer xfer(dataset.getOriginalXfer());
    const auto syntax = gdcm::TransferSyntax::GetTSType(xfer.getXferID());
    if (syntax == gdcm::TransferSyntax::TS_END)
        fail(VX_ERR_INPUT, "transfer syntax %s is not supported", xfer.getXferName());
    return syntax;
}

/* GDCM gets the checked stream, never the file: its parser aborts on damaged ones. */
void decode(const DicomFile &f, DcmDataset &dataset, std::vector<unsigned char> &stream,
            std::vector<unsigned char> &out) {
    if (stream.size() % 2) stream.push_back(0);
    if (stream.size() > UINT32_MAX) fail(VX_ERR_INPUT, "the compressed pixels exceed 4 GiB");
    const auto u = [](unsigned v) { return static_cast<unsigned short>(v); };
    gdcm::Image image;
    image.SetNumberOfDimensions(2);
    image.SetDimension(0, f.columns);
    image.SetDimension(1, f.rows);
    image.SetPixelFormat(gdcm::PixelFormat(1, u(f.bits_allocated), u(f.bits_stored), u(f.high_bit),
                                           f.is_signed ? 1 : 0));
    image.SetPhotometricInterpretation(gdcm::PhotometricInterpretation::MONOCHROME2);
    image.SetTransferSyntax(syntax_of(dataset));
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

/* DCMTK reads this frame's bytes alone and gives words in native order. */
void copy_uncompressed(DcmDataset &dataset, uint32_t frame, std::vector<unsigned char> &out) {
    const uint64_t offset = static_cast<uint64_t>(frame) * out.size();
    /* Words are read whole: frames of an odd number of bytes begin inside one. */
    const uint64_t begin = offset & ~uint64_t(1), end = (offset + out.size() + 1) & ~uint64_t(1);
    if (end > UINT32_MAX) fail(VX_ERR_INPUT, "the pixels exceed 4 GiB");
    std::vector<unsigned char> words(end - begin);
    if (pixel_data(dataset)
            .getPartialValue(words.data(), static_cast<uint32_t>(begin),
                             static_cast<uint32_t>(words.size()))
            .bad())
        fail(VX_ERR_INPUT, "the pixels are cut short (copy the file again)");
    std::memcpy(out.data(), words.data() + (offset - begin), out.size());
}

} // namespace

std::vector<unsigned char> stored_pixels(const DicomFile &f, DcmDataset &dataset, uint32_t frame,
                                         FrameTable &table) {
    if (!f.problem.empty()) fail(VX_ERR_INPUT, "%s", f.problem.c_str());
    if (frame >= f.slices.size()) fail(VX_ERR_INPUT, "there is no frame %u", frame + 1);
    if (!DcmXfer(dataset.getOriginalXfer()).isEncapsulated()) {
        std::vector<unsigned char> out(frame_bytes(f));
        copy_uncompressed(dataset, frame, out);
        return out;
    }
    std::vector<unsigned char> stream = compressed_frame(f, dataset, frame, table);
    check_stream(stream, dataset.getOriginalXfer() == EXS_RLELossless, f);
    std::vector<unsigned char> out(frame_bytes(f));
    decode(f, dataset, stream, out);
    return out;
}

} // namespace vx_io
