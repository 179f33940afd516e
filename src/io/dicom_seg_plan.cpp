/* From a mask to the plan of its DICOM SEG: segments, frames, grid, references (PS3.3 A.51,
 * C.8.20). */
#include "io/dicom_seg_plan.h"

#include <sys/random.h>

#include <algorithm>
#include <cmath>
#include <ctime>

#include "io/dicom_source.h"
#include "io/dicom_wire.h"
#include "io/itk_reader.h"

namespace vx_io {

namespace {

/* The length of PixelData is 32 bits and even. */
constexpr uint64_t pixel_limit = 0xfffffffe;

/* The most bytes of the object's header for each frame, source file and segment, and for the rest.
 * Names and codes are at most 64 bytes (volume/labels.h), UIDs too. */
constexpr uint64_t frame_header = 768, source_header = 512, segment_header = 2048,
                   other_header = uint64_t(1) << 16;
constexpr uint64_t helper_bytes = uint64_t(48) << 20; /* voxmamba-dicom with its libraries */

uint64_t times(uint64_t a, uint64_t b) { /* UINT64_MAX where that is more */
    uint64_t product;
    return __builtin_mul_overflow(a, b, &product) ? UINT64_MAX : product;
}

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

/* A value of the mask and a slice that holds it. */
struct Occurrence {
    uint32_t value, slice;
};

/* Each once, by value and then by slice. More than an object may have frames are not kept, only
 * counted: kept.size() is then dicom_frame_limit. */
struct Occurrences {
    std::vector<Occurrence> kept;
    size_t count = 0;
};

Occurrences occurrences(const vx_mask *mask) {
    const size_t slice = mask->geo.dims[0] * mask->geo.dims[1];
    std::vector<unsigned char> seen(mask->bytes == 1 ? 256 : 65536);
    Occurrences out;
    for (size_t z = 0; z < mask->geo.dims[2]; z++) {
        std::fill(seen.begin(), seen.end(), 0);
        for (size_t i = 0; i < slice; i++) seen[vx_mask_get(mask, z * slice + i)] = 1;
        for (uint32_t v = 1; v < seen.size(); v++) {
            if (!seen[v]) continue;
            if (out.count++ < dicom_frame_limit) out.kept.push_back({v, static_cast<uint32_t>(z)});
        }
    }
    std::sort(out.kept.begin(), out.kept.end(), [](const Occurrence &a, const Occurrence &b) {
        return a.value != b.value ? a.value < b.value : a.slice < b.slice;
    });
    return out;
}

/* The table's labels in its order, then values of the mask that it does not name. */
std::vector<vx_label> labels_of(const vx_label_table *table, const Occurrences &found) {
    std::vector<vx_label> labels;
    for (size_t i = 0; table && i < table->count; i++) labels.push_back(table->labels[i]);
    unsigned last = 0;
    for (const Occurrence &o : found.kept) {
        if (o.value != last && !(table && vx_label_find(table, o.value)))
            labels.push_back(unnamed_label(o.value));
        last = o.value;
    }
    if (labels.empty()) labels.push_back(unnamed_label(1));
    return labels;
}

void plan_segments(const vx_mask *mask, const vx_label_table *table, PlannedSeg &out) {
    const Occurrences found = occurrences(mask);
    if (found.count > dicom_frame_limit)
        fail(VX_ERR_INPUT,
             "the DICOM SEG would have %zu frames, at most %u are written (keep fewer labels with "
             "--labels, or take --format seg.nrrd)",
             found.count, dicom_frame_limit);
    for (const vx_label &label : labels_of(table, found)) {
        const auto number = static_cast<uint32_t>(out.plan.segments.size());
        out.plan.segments.push_back(segment_of(label));
        out.values.push_back(label.value);
        const auto less = [](const Occurrence &o, unsigned value) { return o.value < value; };
        auto o = std::lower_bound(found.kept.begin(), found.kept.end(), label.value, less);
        for (; o != found.kept.end() && o->value == label.value; ++o)
            out.plan.frames.push_back({number, o->slice});
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

void plan_source(const DicomSource &source, const vx_geometry &geo, bool anonymous, SegPlan &plan) {
    plan.anonymous = anonymous;
    plan.study_uid = anonymous || source.study_uid.empty() ? new_uid() : source.study_uid;
    plan.frame_of_reference =
        anonymous || source.frame_of_reference.empty() ? new_uid() : source.frame_of_reference;
    if (anonymous) return; /* UIDs hold times and serial numbers of scanners */
    plan.series_uid = source.series_uid;
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

} // namespace

uint64_t seg_pixel_bytes(const SegPlan &plan) { /* frames <= 2^17, rows and columns < 2^16 */
    const uint64_t bits = uint64_t(plan.rows) * plan.columns * plan.frames.size();
    return (bits + 15) / 16 * 2;
}

PlannedSeg plan_seg(const vx_mask *mask, const vx_write_options *options) {
    const bool dicom = mask->source && mask->source->kind == VX_FORMAT_DICOM;
    if (!dicom) fail(VX_ERR_USAGE, "DICOM SEG needs DICOM input (take --format nii.gz)");
    if (mask->geo.dims[0] > 65535 || mask->geo.dims[1] > 65535)
        fail(VX_ERR_INPUT, "DICOM images have at most 65535 rows and columns");
    PlannedSeg out;
    plan_source(*reinterpret_cast<const DicomSource *>(mask->source), mask->geo, options->anonymous,
                out.plan);
    plan_grid(mask->geo, out.plan);
    plan_segments(mask, options->labels, out);
    if (seg_pixel_bytes(out.plan) > pixel_limit)
        fail(VX_ERR_INPUT,
             "the DICOM SEG would have %llu bytes of pixels, the format holds %llu "
             "(keep fewer labels with --labels, or take --format seg.nrrd)",
             static_cast<unsigned long long>(seg_pixel_bytes(out.plan)),
             static_cast<unsigned long long>(pixel_limit));
    out.plan.instance_uid = new_uid();
    out.plan.own_series_uid = new_uid();
    out.plan.algorithm = options->algorithm ? options->algorithm : "VoxMamba";
    out.plan.algorithm_version =
        options->algorithm_version ? options->algorithm_version : VX_VERSION;
    plan_time(out.plan);
    return out;
}

/* Every label in every slice, but no more frames than voxels. */
vx_write_bound seg_bound(const vx_geometry *geo, size_t labels) {
    constexpr uint64_t most_segments = 65535;
    const uint64_t slice = times(geo->dims[0], geo->dims[1]), depth = geo->dims[2];
    const uint64_t segments = std::min<uint64_t>(std::max<size_t>(labels, 1), most_segments);
    const uint64_t frames = times(std::min(slice, segments), depth);
    const uint64_t bits = times(frames, slice), pixels = bits / 8 + 2;
    /* No more is ever described. */
    const uint64_t described = std::min<uint64_t>(frames, dicom_frame_limit);
    const uint64_t sources = std::min<uint64_t>(depth, dicom_frame_limit);
    const uint64_t header = described * frame_header + sources * source_header +
                            segments * segment_header + other_header;
    vx_write_bound out = {};
    out.file_bytes = bits == UINT64_MAX ? UINT64_MAX : pixels + header;
    /* The helper's string grows by doubling while it is copied; this process gets another. */
    out.memory_bytes = helper_bytes + 4 * header;
    if (frames > dicom_frame_limit || pixels > pixel_limit)
        out.caution = "a DICOM SEG with every label in every slice would be above the 4.29 GB of "
                      "pixels or 131072 frames that one holds: such a mask is refused once it is "
                      "known (keep fewer labels with --labels, or take --format seg.nrrd)";
    return out;
}

} // namespace vx_io
