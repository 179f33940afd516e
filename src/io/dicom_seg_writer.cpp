/* Masks as DICOM Segmentation: one segment a label, one bit a voxel, one frame for each slice that
 * holds the label (PS3.3 A.51, C.8.20). */
#include <sys/random.h>

#include <cmath>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <map>

#include "io/dicom_seg.h"
#include "io/dicom_source.h"
#include "io/dicom_worker.h"
#include "io/itk_reader.h"

extern "C" {
#include "base/out_file.h"
}

namespace vx_io {

namespace {

/* The length of PixelData is 32 bits and even. */
constexpr uint64_t pixel_limit = 0xfffffffe;

/* "2.25." and a random number of 122 bits: a UUID as UID (PS3.5 B.2), which names no machine. */
std::string new_uid() {
    unsigned char r[16];
    if (getrandom(r, sizeof r, 0) != sizeof r) fail(VX_ERR_RESOURCE, "no random numbers");
    r[6] = static_cast<unsigned char>((r[6] & 0x0f) | 0x40);
    r[8] = static_cast<unsigned char>((r[8] & 0x3f) | 0x80);
    std::string digits;
    for (bool more = true; more;) { /* divides the number by ten */
        unsigned rest = 0;
        more = false;
        for (unsigned char &byte : r) {
            const unsigned value = rest * 256 + byte;
            byte = static_cast<unsigned char>(value / 10);
            rest = value % 10;
            more = more || byte != 0;
        }
        digits.insert(digits.begin(), static_cast<char>('0' + rest));
    }
    return "2.25." + digits;
}

uint16_t scaled(double value, double low, double high) {
    const double share = (value - low) / (high - low);
    return static_cast<uint16_t>(std::lround(65535 * std::fmin(1, std::fmax(0, share))));
}

/* sRGB to CIELab under D50 (ICC's connection space, which DICOM names). */
void set_lab(const uint8_t rgb[3], uint16_t lab[3]) {
    static const double m[3][3] = {{0.4360747, 0.3850649, 0.1430804},
                                   {0.2225045, 0.7168786, 0.0606169},
                                   {0.0139322, 0.0971045, 0.7141733}};
    static const double white[3] = {0.9642200, 1.0, 0.8252100};
    double linear[3], f[3];
    for (int i = 0; i < 3; i++) {
        const double c = rgb[i] / 255.0;
        linear[i] = c <= 0.04045 ? c / 12.92 : std::pow((c + 0.055) / 1.055, 2.4);
    }
    for (int i = 0; i < 3; i++) {
        const double t =
            (m[i][0] * linear[0] + m[i][1] * linear[1] + m[i][2] * linear[2]) / white[i];
        f[i] = t > 216.0 / 24389 ? std::cbrt(t) : (24389.0 / 27 * t + 16) / 116;
    }
    lab[0] = scaled(116 * f[1] - 16, 0, 100);
    lab[1] = scaled(500 * (f[0] - f[1]), -128, 127);
    lab[2] = scaled(200 * (f[1] - f[2]), -128, 127);
}

SegCode code_of(const vx_code &code) { return {code.scheme, code.value, code.meaning}; }

SegSegment segment_of(const vx_label &label) {
    SegSegment out;
    out.name = label.name;
    const bool coded = label.type.scheme[0] != 0;
    const SegCode tissue = {"SCT", "85756007", "Tissue"};
    const SegCode structure = {"SCT", "123037004", "Anatomical Structure"};
    out.type = coded ? code_of(label.type) : tissue;
    out.category = label.category.scheme[0] ? code_of(label.category) : coded ? structure : tissue;
    if (coded) out.modifier = code_of(label.modifier);
    set_lab(label.rgb, out.lab);
    return out;
}

/* Which slices each value has: present[value * depth + slice]. */
std::vector<bool> slices_of_values(const vx_mask *mask) {
    const size_t depth = mask->geo.dims[2], slice = mask->geo.dims[0] * mask->geo.dims[1];
    const size_t values = mask->bytes == 1 ? 256 : 65536;
    std::vector<bool> present(values * depth);
    std::vector<unsigned char> seen(values);
    for (size_t z = 0; z < depth; z++) {
        std::fill(seen.begin(), seen.end(), 0);
        for (size_t i = 0; i < slice; i++) seen[vx_mask_get(mask, z * slice + i)] = 1;
        for (size_t v = 1; v < values; v++)
            if (seen[v]) present[v * depth + z] = true;
    }
    return present;
}

struct Planned {
    SegPlan plan;
    std::vector<unsigned> values; /* of the plan's segments */
};

/* The table's labels in its order, then values of the mask that it does not name. */
void plan_segments(const vx_mask *mask, const vx_label_table *table, Planned &out) {
    const size_t depth = mask->geo.dims[2];
    const std::vector<bool> present = slices_of_values(mask);
    const auto holds = [&](unsigned value, size_t z) {
        const size_t at = value * depth + z;
        return at < present.size() && present[at];
    };
    std::vector<vx_label> labels;
    for (size_t i = 0; table && i < table->count; i++) labels.push_back(table->labels[i]);
    for (unsigned v = 1; v < present.size() / depth; v++) {
        bool any = false;
        for (size_t z = 0; z < depth && !any; z++) any = holds(v, z);
        if (any && !(table && vx_label_find(table, v))) labels.push_back(unnamed_label(v));
    }
    if (labels.empty()) labels.push_back(unnamed_label(1));
    for (const vx_label &label : labels) {
        const auto number = static_cast<uint32_t>(out.plan.segments.size());
        out.plan.segments.push_back(segment_of(label));
        out.values.push_back(label.value);
        for (size_t z = 0; z < depth; z++)
            if (holds(label.value, z))
                out.plan.frames.push_back({number, static_cast<uint32_t>(z)});
    }
    /* An object without frames is no image: one empty frame says that nothing was found. */
    if (out.plan.frames.empty()) out.plan.frames.push_back({0, 0});
}

void plan_grid(const vx_geometry &geo, SegPlan &plan) {
    double spacing[3];
    vx_spacing(&geo, spacing);
    plan.columns = static_cast<uint32_t>(geo.dims[0]);
    plan.rows = static_cast<uint32_t>(geo.dims[1]);
    plan.spacing[0] = spacing[1];
    plan.spacing[1] = spacing[0];
    for (int r = 0; r < 3; r++) {
        const double sign = r < 2 ? -1 : 1; /* RAS to LPS */
        plan.along_row[r] = sign * geo.affine[r][0] / spacing[0];
        plan.along_column[r] = sign * geo.affine[r][1] / spacing[1];
        plan.step[r] = sign * geo.affine[r][2];
        plan.origin[r] = sign * geo.affine[r][3];
    }
}

void plan_source(const DicomSource &source, const vx_geometry &geo, SegPlan &plan) {
    plan.study_uid = source.study_uid.empty() ? new_uid() : source.study_uid;
    plan.series_uid = source.series_uid;
    plan.frame_of_reference =
        source.frame_of_reference.empty() ? new_uid() : source.frame_of_reference;
    for (const DicomSource::Slice &s : source.slices)
        plan.sources.push_back({s.sop_class, s.sop_instance, s.frame});
    plan.sources_are_slices = !source.straightened && plan.sources.size() == geo.dims[2] &&
                              vx_geometry_distance(&geo, &source.geo) < 1e-3;
}

void plan_time(SegPlan &plan) {
    const std::time_t now = std::time(nullptr);
    std::tm local;
    char text[32];
    localtime_r(&now, &local);
    plan.date.assign(text, std::strftime(text, sizeof text, "%Y%m%d", &local));
    plan.time.assign(text, std::strftime(text, sizeof text, "%H%M%S", &local));
}

uint64_t pixel_bytes(const SegPlan &plan) { /* frames <= 2^17, rows and columns <= 2^16 */
    const uint64_t bits = uint64_t(plan.rows) * plan.columns * plan.frames.size();
    return (bits + 15) / 16 * 2;
}

void check_size(const SegPlan &plan) {
    if (plan.frames.size() > dicom_frame_limit)
        fail(VX_ERR_INPUT,
             "the DICOM SEG would have %zu frames, at most %u are written (keep fewer "
             "labels with --labels, or take --format seg.nrrd)",
             plan.frames.size(), dicom_frame_limit);
    if (pixel_bytes(plan) > pixel_limit)
        fail(VX_ERR_INPUT,
             "the DICOM SEG would have %llu bytes of pixels, the format holds %llu "
             "(keep fewer labels with --labels, or take --format seg.nrrd)",
             static_cast<unsigned long long>(pixel_bytes(plan)),
             static_cast<unsigned long long>(pixel_limit));
}

Planned make_plan(const vx_mask *mask, const vx_write_options *options) {
    const bool dicom = mask->source && mask->source->kind == VX_FORMAT_DICOM;
    if (!dicom) fail(VX_ERR_USAGE, "DICOM SEG needs DICOM input (take --format nii.gz)");
    if (mask->geo.dims[0] > 65535 || mask->geo.dims[1] > 65535)
        fail(VX_ERR_INPUT, "DICOM images have at most 65535 rows and columns");
    Planned out;
    plan_source(*reinterpret_cast<const DicomSource *>(mask->source), mask->geo, out.plan);
    plan_grid(mask->geo, out.plan);
    plan_segments(mask, options->labels, out);
    check_size(out.plan);
    out.plan.instance_uid = new_uid();
    out.plan.own_series_uid = new_uid();
    out.plan.algorithm = options->algorithm ? options->algorithm : "VoxMamba";
    out.plan.algorithm_version =
        options->algorithm_version ? options->algorithm_version : VX_VERSION;
    plan_time(out.plan);
    return out;
}

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
    void commit(bool replace) {
        vx_out_file *done = file_;
        vx_error err;
        file_ = nullptr;
        check(vx_out_commit(done, replace, &err), err);
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

void write_pixels(const Planned &planned, const vx_mask *mask, File &file) {
    const uint64_t total = pixel_bytes(planned.plan);
    unsigned char head[12] = {0xe0, 0x7f, 0x10, 0x00, 'O', 'B', 0, 0};
    for (unsigned i = 0; i < 4; i++) head[8 + i] = static_cast<unsigned char>(total >> (8 * i));
    file.write(head, sizeof head);
    BitPacker bits(file);
    const size_t slice = mask->geo.dims[0] * mask->geo.dims[1];
    for (const SegFrame &frame : planned.plan.frames) {
        const unsigned value = planned.values[frame.segment];
        const size_t at = frame.slice * slice;
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
    const Planned planned = make_plan(mask, options);
    const auto *source = reinterpret_cast<const DicomSource *>(mask->source);
    DicomWorker worker(nullptr);
    const std::string header = worker.seg_header(planned.plan, source->slices.front().path);
    File file(path);
    file.write(header.data(), header.size());
    write_pixels(planned, mask, file);
    file.commit(options->replace);
}

} // namespace

} // namespace vx_io

using namespace vx_io;

extern "C" {

static vx_status dicom_seg_write(const char *path, const vx_mask *mask,
                                 const vx_write_options *options, vx_error *err) {
    return guarded(VX_ERR_OUTPUT, err, [&] { write_seg(path, mask, options); });
}

const vx_format_ops vx_dicom_seg_ops = {nullptr, nullptr, nullptr, dicom_seg_write, nullptr};
}
