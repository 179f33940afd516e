/* Masks as DICOM Segmentation: one segment a label, one bit a voxel, one frame for each slice that
 * holds the label. dicom_seg_plan.cpp decides what is in the object, the helper process makes its
 * header, and its pixels are written here. */
#include "io/dicom_seg_plan.h"
#include "io/dicom_source.h"
#include "io/dicom_worker.h"

namespace vx_io {

namespace {

class File {
  public:
    explicit File(const char *path) {
        vx_error err;
        check(vx_out_open(path, &file_, &err), err);
    }
    File(const File &) = delete;
    File &operator=(const File &) = delete;
    ~File() { vx_out_discard(file_); }
    void write(const void *data, size_t bytes) {
        vx_error err;
        check(vx_out_write(file_, data, bytes, &err), err);
    }
    void finish(const vx_write_options *options) {
        vx_out_file *done = file_;
        vx_error err;
        file_ = nullptr;
        check(vx_out_finish(done, options->replace, options->keep, &err), err);
    }

  private:
    vx_out_file *file_ = nullptr;
};

/* Bits one after the other, the first in the lowest place; frames are not padded (PS3.5 8.1.1). */
class BitPacker {
  public:
    explicit BitPacker(File &file) : file_(file) { bytes_.reserve(room); }
    template <typename Label> void put(const Label *labels, size_t count, unsigned value) {
        const Label wanted = static_cast<Label>(value);
        size_t i = 0;
        for (; i < count && filled_ > 0; i++) bit(labels[i] == wanted);
        for (; i + 8 <= count; i += 8) {
            unsigned byte = 0;
            for (unsigned k = 0; k < 8; k++) byte |= unsigned(labels[i + k] == wanted) << k;
            whole(byte);
        }
        for (; i < count; i++) bit(labels[i] == wanted);
    }
    void finish(uint64_t total) {
        if (filled_ > 0) whole(partial_);
        if ((written_ + bytes_.size()) % 2 != 0) bytes_.push_back(0);
        flush();
        if (written_ != total) fail(VX_ERR_OUTPUT, "the pixels are not as many as planned");
    }

  private:
    static constexpr size_t room = size_t(1) << 20;
    void bit(bool on) {
        partial_ |= unsigned(on) << filled_;
        if (++filled_ < 8) return;
        whole(partial_);
        partial_ = filled_ = 0;
    }
    void whole(unsigned byte) {
        bytes_.push_back(static_cast<unsigned char>(byte));
        if (bytes_.size() == room) flush();
    }
    void flush() {
        file_.write(bytes_.data(), bytes_.size());
        written_ += bytes_.size();
        bytes_.clear();
    }
    File &file_;
    std::vector<unsigned char> bytes_;
    unsigned partial_ = 0, filled_ = 0;
    uint64_t written_ = 0;
};

void write_pixels(const PlannedSeg &planned, const vx_mask *mask, const vx_log *log, File &file) {
    const uint64_t total = seg_pixel_bytes(planned.plan);
    unsigned char head[12] = {0xe0, 0x7f, 0x10, 0x00, 'O', 'B', 0, 0};
    for (unsigned i = 0; i < 4; i++) head[8 + i] = static_cast<unsigned char>(total >> (8 * i));
    file.write(head, sizeof head);
    BitPacker bits(file);
    const size_t slice = mask->geo.dims[0] * mask->geo.dims[1], frames = planned.plan.frames.size();
    for (size_t k = 0; k < frames; k++) {
        const SegFrame &frame = planned.plan.frames[k];
        const unsigned value = planned.values[frame.segment];
        const size_t at = frame.slice * slice;
        if (vx_log_progress(log, "write", static_cast<double>(k) / static_cast<double>(frames)))
            fail(VX_ERR_CANCELLED, "cancelled");
        if (mask->bytes == 2)
            bits.put(static_cast<const uint16_t *>(mask->data) + at, slice, value);
        else if (value < 256)
            bits.put(static_cast<const uint8_t *>(mask->data) + at, slice, value);
        else /* the one empty frame of a label that 8 bits do not hold */
            bits.put(std::vector<uint8_t>(slice, 0).data(), slice, 1);
    }
    bits.finish(total);
}

void write_seg(const char *path, const vx_mask *mask, const vx_write_options *options) {
    const PlannedSeg planned = plan_seg(mask, options);
    const auto *source = reinterpret_cast<const DicomSource *>(mask->source);
    std::string header;
    {
        DicomWorker worker(options->log); /* its process ends before the pixels are written */
        header = worker.seg_header(planned.plan, source->slices.front().path);
    }
    File file(path);
    file.write(header.data(), header.size());
    write_pixels(planned, mask, options->log, file);
    file.finish(options);
}

} // namespace

} // namespace vx_io

using namespace vx_io;

extern "C" {

static vx_status dicom_seg_write(const char *path, const vx_mask *mask,
                                 const vx_write_options *options, vx_error *err) {
    return guarded(VX_ERR_OUTPUT, err, [&] { write_seg(path, mask, options); });
}

static vx_write_bound dicom_seg_bound(const vx_geometry *geo, size_t labels) {
    return seg_bound(geo, labels);
}

const vx_format_ops vx_dicom_seg_ops = {nullptr,         nullptr, nullptr,
                                        dicom_seg_write, nullptr, dicom_seg_bound};
}
