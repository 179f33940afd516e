#include "io/dicom_wire.h"

#include <cmath>
#include <cstring>
#include <type_traits>

#include "io/dicom_seg.h"

namespace vx_io {

namespace {

constexpr size_t field_limit = 256, trait_limit = 32;

constexpr size_t segment_limit = 65535; /* SegmentNumber has 16 bits */

[[noreturn]] void malformed() {
    fail(VX_ERR_INPUT, "damaged DICOM file: its reader's answer makes no sense");
}

class Writer {
  public:
    template <typename T> void operator()(const T &value) {
        static_assert(std::is_arithmetic<T>::value || std::is_enum<T>::value, "plain values only");
        bytes.append(reinterpret_cast<const char *>(&value), sizeof value);
    }
    void operator()(const std::string &text) {
        const std::string shown = one_line(text, field_limit);
        (*this)(static_cast<uint32_t>(shown.size()));
        bytes += shown;
    }
    template <typename T, size_t n> void operator()(const T (&values)[n]) {
        for (const T &value : values) (*this)(value);
    }
    uint32_t count(size_t n, size_t limit) {
        if (n > limit) malformed();
        (*this)(static_cast<uint32_t>(n));
        return static_cast<uint32_t>(n);
    }
    std::string bytes;
};

class Reader {
  public:
    Reader(const char *begin, size_t size) : at(begin), left(size) {}

    template <typename T> void operator()(T &value) {
        std::memcpy(&value, take(sizeof value), sizeof value);
    }
    void operator()(bool &value) {
        const unsigned char byte = static_cast<unsigned char>(*take(1));
        if (byte > 1) malformed();
        value = byte == 1;
    }
    void operator()(double &value) {
        std::memcpy(&value, take(sizeof value), sizeof value);
        if (!std::isfinite(value)) malformed();
    }
    void operator()(std::string &text) {
        const uint32_t n = count(field_limit);
        text = one_line(std::string(take(n), n), field_limit);
    }
    template <typename T, size_t n> void operator()(T (&values)[n]) {
        for (T &value : values) (*this)(value);
    }
    uint32_t count(size_t limit) {
        uint32_t n;
        std::memcpy(&n, take(sizeof n), sizeof n);
        if (n > limit) malformed();
        return n;
    }
    size_t remaining() const { return left; }

  private:
    const char *take(size_t n) {
        if (n > left) malformed();
        const char *from = at;
        at += n;
        left -= n;
        return from;
    }
    const char *at;
    size_t left;
};

/* Every field once, in one order: Stream is a Writer with const values, or a Reader. */
template <typename Stream, typename File> void file_fields(Stream &s, File &f) {
    s(f.kind), s(f.class_name), s(f.sop_class), s(f.sop_instance), s(f.study_uid);
    s(f.series_uid), s(f.frame_of_reference), s(f.modality), s(f.description), s(f.series_number);
    s(f.rows), s(f.columns), s(f.bits_allocated), s(f.bits_stored), s(f.high_bit), s(f.is_signed);
    s(f.tilt), s(f.problem_code), s(f.problem);
}

template <typename Stream, typename Slice> void slice_fields(Stream &s, Slice &slice) {
    s(slice.has_geometry), s(slice.position), s(slice.along_row), s(slice.along_column);
    s(slice.spacing), s(slice.slope), s(slice.intercept), s(slice.type);
}

/* As slice_fields, of a plan without its lists. */
template <typename Stream, typename Plan> void plan_fields(Stream &s, Plan &p) {
    s(p.rows), s(p.columns), s(p.origin), s(p.along_row), s(p.along_column), s(p.step);
    s(p.spacing), s(p.study_uid), s(p.series_uid), s(p.frame_of_reference), s(p.instance_uid);
    s(p.own_series_uid), s(p.date), s(p.time), s(p.algorithm), s(p.algorithm_version);
    s(p.anonymous), s(p.sources_are_slices);
}

template <typename Stream, typename Code> void code_fields(Stream &s, Code &c) {
    s(c.scheme), s(c.value), s(c.meaning);
}

template <typename Stream, typename Segment> void segment_fields(Stream &s, Segment &g) {
    s(g.name), code_fields(s, g.category), code_fields(s, g.type), code_fields(s, g.modifier);
    s(g.lab);
}

template <typename Stream, typename Instance> void instance_fields(Stream &s, Instance &i) {
    s(i.sop_class), s(i.sop_instance), s(i.frame);
}

template <typename Stream, typename Frame> void seg_frame_fields(Stream &s, Frame &f) {
    s(f.segment), s(f.slice);
}

void check_file(const DicomFile &f) {
    const bool kind =
        f.kind == DicomKind::slice || f.kind == DicomKind::multiframe || f.kind == DicomKind::other;
    if (!kind || f.slices.empty() || f.rows > 65535 || f.columns > 65535) malformed();
    if (!f.problem.empty()) return; /* its pixels are never asked for */
    const size_t bytes = frame_bytes(f);
    const bool bits = f.bits_stored >= 1 && f.bits_stored <= f.bits_allocated &&
                      f.high_bit < f.bits_allocated && f.high_bit + 1 >= f.bits_stored;
    if (bytes == 0 || bytes > largest_frame_bytes || !bits) malformed();
}

} // namespace

std::string pack_file(const DicomFile &file) {
    Writer w;
    file_fields(w, file);
    w.count(file.slices.size(), dicom_frame_limit);
    for (const DicomSlice &slice : file.slices) {
        slice_fields(w, slice);
        w.count(slice.traits.size(), trait_limit);
        for (const std::string &trait : slice.traits) w(trait);
    }
    if (w.bytes.size() > dicom_file_limit)
        fail(VX_ERR_INPUT, "its frames take %zu bytes to describe", w.bytes.size());
    return std::move(w.bytes);
}

void unpack_file(const char *bytes, size_t count, DicomFile &out) {
    Reader r(bytes, count);
    file_fields(r, out);
    const uint32_t frames = r.count(dicom_frame_limit);
    out.slices.clear();
    for (uint32_t i = 0; i < frames; i++) { /* grows with what was received, not what is claimed */
        DicomSlice slice;
        slice.frame = i;
        slice_fields(r, slice);
        slice.traits.resize(r.count(trait_limit));
        for (std::string &trait : slice.traits) r(trait);
        out.slices.push_back(std::move(slice));
    }
    if (r.remaining() != 0) malformed();
    check_file(out);
}

std::string pack_plan(const SegPlan &plan) {
    Writer w;
    plan_fields(w, plan);
    w.count(plan.sources.size(), dicom_frame_limit);
    for (const SegInstance &source : plan.sources) instance_fields(w, source);
    w.count(plan.segments.size(), segment_limit);
    for (const SegSegment &segment : plan.segments) segment_fields(w, segment);
    w.count(plan.frames.size(), dicom_frame_limit);
    for (const SegFrame &frame : plan.frames) seg_frame_fields(w, frame);
    return std::move(w.bytes);
}

void unpack_plan(const char *bytes, size_t count, SegPlan &out) {
    Reader r(bytes, count);
    plan_fields(r, out);
    out.sources.resize(r.count(dicom_frame_limit));
    for (SegInstance &source : out.sources) instance_fields(r, source);
    out.segments.resize(r.count(segment_limit));
    for (SegSegment &segment : out.segments) segment_fields(r, segment);
    out.frames.resize(r.count(dicom_frame_limit));
    for (SegFrame &frame : out.frames) {
        seg_frame_fields(r, frame);
        const bool known = !out.sources_are_slices || frame.slice < out.sources.size();
        if (frame.segment >= out.segments.size() || !known) malformed();
    }
    const bool grid =
        out.rows >= 1 && out.rows <= 65535 && out.columns >= 1 && out.columns <= 65535;
    const bool sourced = out.anonymous == out.sources.empty();
    if (!grid || !sourced || out.frames.empty() || r.remaining() != 0) malformed();
}

} // namespace vx_io
