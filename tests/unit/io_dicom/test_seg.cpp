/* DICOM SEG: the format's limits, what is announced before there is a mask, and what the two
 * processes make of each other's nonsense. */
#include <sys/stat.h>

#include <climits>
#include <cmath>
#include <cstring>
#include <fstream>
#include <functional>
#include <random>

#include "io/dicom_seg_plan.h"
#include "io/dicom_source.h"
#include "io/dicom_worker.h"
#include "scratch.h"

using namespace vx_io;

namespace {

/* A mask whose every slice holds the values 1 to labels, as one of a DICOM series. */
class Mask {
  public:
    Mask(size_t x, size_t y, size_t z, unsigned labels) {
        vx_geometry geo = {{x, y, z}, {{-1, 0, 0, 5}, {0, -1, 0, 6}, {0, 0, 2, 7}, {0, 0, 0, 1}}};
        vx_error err;
        check(vx_mask_create(&geo, labels > 255 ? 2 : 1, &owner_.p, &err), err);
        for (size_t i = 0; i < vx_voxels(&geo); i++)
            vx_mask_set(owner_.p, i, static_cast<unsigned>(i % (x * y) % labels) + 1);
        auto *source = new DicomSource;
        source->base = {1, VX_FORMAT_DICOM,
                        [](vx_source *s) { delete reinterpret_cast<DicomSource *>(s); }};
        source->geo = geo;
        source->study_uid = "1.2", source->series_uid = "1.2.3";
        for (size_t k = 0; k < z; k++)
            source->slices.push_back({folder + "/absent.dcm", "1.2.840.10008.5.1.4.1.1.2",
                                      "1.2.3." + std::to_string(k), 0});
        owner_.p->source = &source->base;
    }
    vx_mask *get() { return owner_.p; }

  private:
    MaskOwner owner_;
};

vx_write_options options_of() {
    vx_write_options options = {};
    options.format = VX_FORMAT_DICOM_SEG;
    return options;
}

/* 1024 x 1024 pixels are 131,072 bytes a frame: 128 slices of 255 labels are below the length that
 * PixelData can have, 129 above. */
void bytes_of_pixels(void **) {
    const vx_write_options options = options_of();
    {
        Mask mask(1024, 1024, 128, 255);
        const PlannedSeg planned = plan_seg(mask.get(), &options);
        assert_int_equal(planned.plan.frames.size(), 128 * 255);
        assert_true(seg_pixel_bytes(planned.plan) == 4278190080);
        assert_null(seg_bound(&mask.get()->geo, 255).caution);
    }
    Mask mask(1024, 1024, 129, 255);
    assert_non_null(seg_bound(&mask.get()->geo, 255).caution);
    const std::string path = folder + "/m.dcm";
    vx_error err;
    assert_int_equal(vx_io_write_mask(path.c_str(), mask.get(), &options, &err), VX_ERR_INPUT);
    assert_non_null(
        std::strstr(err.text, "4311613440 bytes of pixels, the format holds 4294967294"));
    struct stat st;
    assert_int_equal(stat(path.c_str(), &st), -1);
}

void number_of_frames(void **) {
    const vx_write_options options = options_of();
    Mask most(32, 32, 128, 1024);
    assert_int_equal(plan_seg(most.get(), &options).plan.frames.size(), 131072);
    Mask mask(32, 32, 129, 1024);
    must_fail(failure_of([&] { plan_seg(mask.get(), &options); }), VX_ERR_INPUT,
              "132096 frames, at most 131072");
    assert_non_null(seg_bound(&mask.get()->geo, 1024).caution);
    assert_null(seg_bound(&mask.get()->geo, 1016).caution);
}

/* No product may wrap, whatever a header claims. */
void bounds_of_any_size(void **) {
    vx_geometry geo = {{SIZE_MAX, SIZE_MAX, SIZE_MAX}, {}};
    const vx_write_bound all = seg_bound(&geo, SIZE_MAX);
    assert_true(all.file_bytes == UINT64_MAX && all.memory_bytes > 0 && all.caution);
    geo = {{1, 1, 1}, {}};
    const vx_write_bound one = seg_bound(&geo, 0);
    assert_true(one.file_bytes > 2 && one.file_bytes < 1 << 20 && !one.caution);
    for (vx_format format : {VX_FORMAT_NIFTI_GZ, VX_FORMAT_NRRD, VX_FORMAT_UNKNOWN})
        assert_true(vx_io_write_bound(format, &geo, 3).memory_bytes == 0);
}

void other_sources(void **) {
    const vx_write_options options = options_of();
    Mask mask(4, 4, 2, 3);
    vx_source *source = mask.get()->source;
    mask.get()->source = nullptr;
    must_fail(failure_of([&] { plan_seg(mask.get(), &options); }), VX_ERR_USAGE, "needs DICOM");
    mask.get()->source = source;
    Mask wide(65536, 1, 1, 1);
    must_fail(failure_of([&] { plan_seg(wide.get(), &options); }), VX_ERR_INPUT, "65535 rows");
}

SegPlan sample() {
    const vx_write_options options = options_of();
    Mask mask(7, 5, 3, 4);
    return plan_seg(mask.get(), &options).plan;
}

void plans(void **) {
    const std::string bytes = pack_plan(sample());
    SegPlan plan;
    unpack_plan(bytes.data(), bytes.size(), plan);
    assert_true(pack_plan(plan) == bytes);
    assert_int_equal(plan.frames.size(), 12);
    for (size_t n = 0; n < bytes.size(); n++)
        must_fail(failure_of([&] {
                      SegPlan cut;
                      unpack_plan(bytes.data(), n, cut);
                  }),
                  VX_ERR_INPUT, "no sense");
    std::mt19937 random(5);
    for (int i = 0; i < 20000; i++) { /* refused, or all that is used as an index is one */
        std::string bad = bytes;
        for (int k = 0; k < 3; k++) bad[random() % bad.size()] = static_cast<char>(random());
        SegPlan out;
        if (failure_of([&] { unpack_plan(bad.data(), bad.size(), out); }).code != VX_OK) continue;
        assert_false(out.frames.empty());
        assert_true(out.anonymous == out.sources.empty());
        for (const SegFrame &frame : out.frames) {
            assert_true(frame.segment < out.segments.size());
            assert_true(!out.sources_are_slices || frame.slice < out.sources.size());
        }
    }
}

/* The helper says no, and goes on. */
void plans_that_the_helper_refuses(void **) {
    DicomWorker worker(nullptr);
    const auto refused = [&](const std::function<void(SegPlan &)> &change, const char *words) {
        SegPlan plan = sample();
        change(plan);
        must_fail(failure_of([&] { worker.seg_header(plan, folder + "/absent.dcm"); }),
                  VX_ERR_INPUT, words);
    };
    for (int round = 0; round < 2; round++) {
        refused([](SegPlan &p) { p.frames[3].segment = 4; }, "no sense");
        refused([](SegPlan &p) { p.frames[3].slice = 3; }, "no sense");
        refused([](SegPlan &p) { p.frames[3].segment = UINT32_MAX; }, "no sense");
        refused([](SegPlan &p) { p.frames.clear(); }, "no sense");
        refused([](SegPlan &p) { p.segments.clear(); }, "no sense");
        refused([](SegPlan &p) { p.sources.clear(); }, "no sense");
        refused([](SegPlan &p) { p.rows = 0; }, "no sense");
        refused([](SegPlan &p) { p.columns = 65536; }, "no sense");
        refused([](SegPlan &p) { p.spacing[0] = NAN; }, "no sense");
        refused([](SegPlan &) {}, "cannot be made");
    }
    SegPlan plan = sample(); /* nothing to read: it is made */
    plan.anonymous = true, plan.sources_are_slices = false;
    plan.sources.clear();
    const std::string header = worker.seg_header(plan, "");
    assert_true(header.size() % 2 == 0 && header.compare(128, 4, "DICM") == 0);
}

/* Explicit VR little endian. */
std::string element(unsigned group, unsigned number, const char *vr, const std::string &value) {
    const char head[] = {static_cast<char>(group),
                         static_cast<char>(group >> 8),
                         static_cast<char>(number),
                         static_cast<char>(number >> 8),
                         vr[0],
                         vr[1],
                         static_cast<char>(value.size()),
                         0};
    return std::string(head, sizeof head) + value;
}

std::string long_uid(size_t k) {
    std::string uid = "1." + std::to_string(1000000 + k) + ".";
    return uid.append(64 - uid.size(), '7');
}

/* No image, but a DICOM object: enough to take its patient from. */
std::string source_file(const std::string &sop_instance, const std::string &series) {
    const std::string syntax = element(2, 0x10, "UI", std::string("1.2.840.10008.1.2.1\0", 20));
    const std::string path = folder + "/source.dcm";
    std::ofstream(path, std::ios::binary)
        << std::string(128, '\0') << "DICM"
        << element(2, 0, "UL", std::string{static_cast<char>(syntax.size()), 0, 0, 0}) << syntax
        << element(8, 0x16, "UI", "1.2.840.10008.5.1.4.1.1.88.11")
        << element(8, 0x18, "UI", sop_instance) << element(0x20, 0xe, "UI", series);
    return path;
}

/* The longest texts that names, codes and UIDs may have. */
void make_longest(SegPlan &plan) {
    const std::string text(64, 'x');
    for (SegSegment &segment : plan.segments) {
        segment.name = text;
        for (SegCode *code : {&segment.category, &segment.type, &segment.modifier})
            *code = {std::string(16, 's'), text, text};
    }
    for (size_t k = 0; k < plan.sources.size(); k++)
        plan.sources[k] = {long_uid(0), long_uid(k + 1), 100000};
    for (std::string *uid : {&plan.study_uid, &plan.series_uid, &plan.frame_of_reference,
                             &plan.instance_uid, &plan.own_series_uid})
        *uid = long_uid(0);
    plan.algorithm = plan.algorithm_version = text;
    for (double &v : plan.origin) v = -1234.0000123456;
}

/* A header is no longer than what was announced for it, and that is not far off. */
void announced(void **) {
    const vx_write_options options = options_of();
    DicomWorker worker(nullptr);
    Mask mask(40, 40, 60, 200);
    SegPlan plan = plan_seg(mask.get(), &options).plan;
    make_longest(plan);
    const std::string source = source_file(plan.sources[0].sop_instance, plan.series_uid);
    const vx_write_bound bound = seg_bound(&mask.get()->geo, 200);
    const uint64_t pixels = seg_pixel_bytes(plan), whole = worker.seg_header(plan, source).size();
    assert_true(whole + pixels < bound.file_bytes && bound.file_bytes < 2 * whole + pixels);
    plan.sources_are_slices = false; /* all of them for all frames */
    assert_true(worker.seg_header(plan, source).size() < whole);
}

std::string script(const char *name, const std::string &body) {
    const std::string path = folder + "/" + name;
    std::ofstream(path, std::ios::binary) << "#!/bin/sh\n" << body << "\n";
    chmod(path.c_str(), 0755);
    return path;
}

std::string octal(const std::string &bytes) {
    std::string out;
    char text[8];
    for (const char c : bytes) {
        std::snprintf(text, sizeof text, "\\%03o", static_cast<unsigned char>(c));
        out += text;
    }
    return out;
}

std::string answer(DicomAnswer kind, uint64_t bytes, const std::string &body) {
    const DicomReply head = {dicom_magic, static_cast<uint32_t>(kind), bytes};
    return octal(std::string(reinterpret_cast<const char *>(&head), sizeof head) + body);
}

/* A helper that greets rightly and then answers anything. */
void headers_that_make_no_sense(void **) {
    const std::string hello = answer(DicomAnswer::ok, std::strlen(VX_VERSION), VX_VERSION);
    const auto answered = [&](const std::string &reply) {
        const std::string program = script("liar", "printf '" + hello + reply + "' >&0; sleep 9");
        return failure_of([&] { DicomWorker(nullptr, program, 3000).seg_header(sample(), "x"); });
    };
    const std::string zeros(200, '\0');
    std::string odd = zeros;
    odd.replace(128, 4, "DICM");
    odd += "x";
    must_fail(answered(answer(DicomAnswer::ok, 200, zeros)), VX_ERR_OUTPUT, "no sense");
    must_fail(answered(answer(DicomAnswer::ok, 201, odd)), VX_ERR_OUTPUT, "no sense");
    must_fail(answered(answer(DicomAnswer::ok, 4, "DICM")), VX_ERR_OUTPUT, "no sense");
    must_fail(answered(answer(DicomAnswer::ok, UINT64_MAX, "")), VX_ERR_OUTPUT, "no sense");
    must_fail(answered(answer(DicomAnswer::not_dicom, 0, "")), VX_ERR_INPUT, "cannot be made");
    must_fail(answered(answer(DicomAnswer::refused, 3, "no!")), VX_ERR_INPUT, "no!");
    must_fail(answered("1234567890123456"), VX_ERR_INPUT, "no sense");
}

} // namespace

int main() {
#define TEST(name) cmocka_unit_test_setup_teardown(name, make_folder, remove_folder)
    const struct CMUnitTest tests[] = {
        TEST(bytes_of_pixels),
        TEST(number_of_frames),
        TEST(bounds_of_any_size),
        TEST(other_sources),
        TEST(plans),
        TEST(plans_that_the_helper_refuses),
        TEST(announced),
        TEST(headers_that_make_no_sense),
    };
    return cmocka_run_group_tests(tests, nullptr, nullptr);
}
