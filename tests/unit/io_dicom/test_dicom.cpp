/* DICOM series made here with DCMTK: what is read right and what is refused, with its numbers.
 *
 * With VOXMAMBA_TEST_DATA set, real files too: <it>/dicom/ct_head_philips_phantom_5mm,
 * .../ct_head_ge_tilt18_varspacing, .../mr_enhanced_multiframe, .../seg_dcmqi (numbers below were
 * taken from these files with pydicom). */
#include <dcmtk/config/osconfig.h>
#include <dcmtk/dcmdata/dcrleerg.h>
#include <dcmtk/dcmdata/dcrlerp.h>
#include <dcmtk/dcmdata/dctk.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include "scratch.h"

namespace fs = std::filesystem;

namespace {

/* One slice; the defaults are slice k of a regular axial CT of 6 x 5 pixels. */
struct Slice {
    int k = 0;
    std::string name;
    double position[3] = {-10, -20, 100};
    double orientation[6] = {1, 0, 0, 0, 1, 0};
    double spacing[2] = {0.5, 0.25}; /* rows, then columns, as PixelSpacing */
    unsigned rows = 5, columns = 6, bits_stored = 12, sign = 0;
    double slope = 2, intercept = -1000;
    std::string series = "1.2.3.4", sop_class = UID_CTImageStorage, photometric = "MONOCHROME2";
    int number = 7;
    std::function<void(DcmDataset &)> change = [](DcmDataset &) {};
    E_TransferSyntax syntax = EXS_LittleEndianExplicit;
};

/* Stored value of pixel (x, y) of slice k; within 12 bits. */
uint16_t stored(int k, unsigned x, unsigned y) {
    return static_cast<uint16_t>(100 * k + 10 * y + x);
}

std::string joined(const double *v, int n) {
    std::string out;
    for (int i = 0; i < n; i++) {
        char text[32];
        std::snprintf(text, sizeof text, "%s%.10g", i ? "\\" : "", v[i]);
        out += text;
    }
    return out;
}

void must(const OFCondition &result) {
    if (result.bad()) fail_msg("%s", result.text());
}

void write_slice(const Slice &s) {
    DcmFileFormat file;
    DcmDataset &d = *file.getDataset();
    const auto text = [&](const DcmTagKey &tag, const std::string &value) {
        must(d.putAndInsertString(tag, value.c_str()));
    };
    const auto number = [&](const DcmTagKey &tag, unsigned value) {
        must(d.putAndInsertUint16(tag, static_cast<Uint16>(value)));
    };
    text(DCM_SOPClassUID, s.sop_class);
    text(DCM_SOPInstanceUID, s.series + "." + std::to_string(s.k));
    text(DCM_StudyInstanceUID, "1.2.3");
    text(DCM_SeriesInstanceUID, s.series);
    text(DCM_SeriesNumber, std::to_string(s.number));
    text(DCM_SeriesDescription, "made here");
    text(DCM_Modality, "CT");
    text(DCM_ImageType, "ORIGINAL\\PRIMARY\\AXIAL");
    text(DCM_ImagePositionPatient, joined(s.position, 3));
    text(DCM_ImageOrientationPatient, joined(s.orientation, 6));
    text(DCM_PixelSpacing, joined(s.spacing, 2));
    text(DCM_RescaleSlope, joined(&s.slope, 1));
    text(DCM_RescaleIntercept, joined(&s.intercept, 1));
    text(DCM_PhotometricInterpretation, s.photometric);
    number(DCM_SamplesPerPixel, 1);
    number(DCM_Rows, s.rows);
    number(DCM_Columns, s.columns);
    number(DCM_BitsAllocated, 16);
    number(DCM_BitsStored, s.bits_stored);
    number(DCM_HighBit, s.bits_stored - 1);
    number(DCM_PixelRepresentation, s.sign);
    std::vector<Uint16> pixels;
    for (unsigned y = 0; y < s.rows; y++)
        for (unsigned x = 0; x < s.columns; x++) pixels.push_back(stored(s.k, x, y));
    must(d.putAndInsertUint16Array(DCM_PixelData, pixels.data(), pixels.size()));
    s.change(d);
    if (DcmXfer(s.syntax).isEncapsulated()) must(d.chooseRepresentation(s.syntax, nullptr));
    const std::string path =
        folder + "/" + (s.name.empty() ? "slice" + std::to_string(s.k) + ".dcm" : s.name);
    must(file.saveFile(path.c_str(), s.syntax));
}

/* n slices 2.5 mm apart along z; edit changes each before it is written. */
void write_series(
    int n, const std::function<void(Slice &)> &edit = [](Slice &) {}) {
    for (int k = 0; k < n; k++) {
        Slice s;
        s.k = k;
        s.position[2] = 100 + 2.5 * k;
        edit(s);
        write_slice(s);
    }
}

struct Result {
    vx_status status = VX_OK;
    std::string error;
    vx_volume *volume = nullptr;
    ~Result() { vx_volume_free(volume); }
};

void read_path(const std::string &path, Result &r, const char *series = nullptr) {
    vx_read_options options{};
    options.series = series;
    vx_error err{};
    r.status = vx_dicom_ops.read(path.c_str(), &options, &r.volume, &err);
    r.error = err.text;
}

void must_read(const std::string &path, Result &r, const char *series = nullptr) {
    read_path(path, r, series);
    if (r.status != VX_OK) fail_msg("%s", r.error.c_str());
}

/* All words, in one line, and VX_ERR_INPUT. */
void must_refuse(const std::vector<const char *> &words, const char *series = nullptr,
                 const std::string &path = folder) {
    Result r;
    read_path(path, r, series);
    assert_int_equal(r.status, VX_ERR_INPUT);
    assert_null(r.volume);
    for (const char *word : words)
        if (r.error.find(word) == std::string::npos)
            fail_msg("'%s' is not in: %s", word, r.error.c_str());
    assert_true(r.error.find('\n') == std::string::npos);
}

void check_affine(const vx_volume *v, const double (&want)[3][4]) {
    for (int r = 0; r < 3; r++)
        for (int c = 0; c < 4; c++)
            if (std::fabs(v->geo.affine[r][c] - want[r][c]) > 1e-9)
                fail_msg("affine[%d][%d] is %.12g, not %.12g", r, c, v->geo.affine[r][c],
                         want[r][c]);
}

/* Names in an order that is not the slices': files are sorted by position. */
void regular(void **) {
    static const char *const names[] = {"c", "a.dcm", "IM_7", "b.ima"};
    write_series(4, [](Slice &s) { s.name = names[s.k]; });
    std::ofstream(folder + "/notes.txt") << "not DICOM";
    fs::create_directory(folder + "/deeper");
    fs::rename(folder + "/c", folder + "/deeper/c");
    Result r;
    must_read(folder, r);
    assert_int_equal(r.volume->geo.dims[0], 6);
    assert_int_equal(r.volume->geo.dims[1], 5);
    assert_int_equal(r.volume->geo.dims[2], 4);
    /* PixelSpacing 0.5 \ 0.25: 0.25 mm along x. LPS (-10, -20, 100) is RAS (10, 20, 100). */
    check_affine(r.volume, {{-0.25, 0, 0, 10}, {0, -0.5, 0, 20}, {0, 0, 2.5, 100}});
    for (int k = 0; k < 4; k++)
        for (unsigned y = 0; y < 5; y++)
            for (unsigned x = 0; x < 6; x++)
                assert_true(r.volume->data[x + 6 * (y + 5 * static_cast<unsigned>(k))] ==
                            2.0f * stored(k, x, y) - 1000.0f);
    assert_non_null(r.volume->source);
    assert_int_equal(r.volume->source->kind, VX_FORMAT_DICOM);

    vx_image_info info;
    vx_error err;
    assert_int_equal(vx_dicom_ops.info(folder.c_str(), nullptr, &info, &err), VX_OK);
    assert_string_equal(info.dtype, "uint16");
    assert_int_equal(info.geo.dims[2], 4);
}

/* One file stands for its series in its own folder. */
void one_file(void **) {
    write_series(3);
    write_series(3, [](Slice &s) {
        s.series = "1.2.9";
        s.name = "other" + std::to_string(s.k);
    });
    Result r;
    must_read(folder + "/slice1.dcm", r);
    assert_int_equal(r.volume->geo.dims[2], 3);
    must_refuse({"2 series", "7 (CT, 3 files)", "--series"});
}

/* All slices of the series and nothing of the other one, in their order along the volume. */
void files_of_a_volume(void **) {
    write_series(3, [](Slice &s) { s.name = "slice" + std::to_string(2 - s.k) + ".dcm"; });
    write_series(3, [](Slice &s) {
        s.series = "1.2.9";
        s.name = "other" + std::to_string(s.k) + ".dcm";
    });
    vx_read_options options{};
    for (const std::string &path : {folder, folder + "/slice1.dcm"}) {
        vx_file_list list;
        vx_error err{};
        options.series = path == folder ? "1.2.3.4" : nullptr;
        if (vx_io_files(path.c_str(), &options, &list, &err) != VX_OK) fail_msg("%s", err.text);
        assert_int_equal(list.count, 3);
        for (size_t k = 0; k < 3; k++)
            assert_true(
                fs::equivalent(list.paths[k], folder + "/slice" + std::to_string(2 - k) + ".dcm"));
        vx_file_list_clear(&list);
    }
    vx_file_list list;
    vx_error err{};
    assert_int_equal(vx_io_files(folder.c_str(), nullptr, &list, &err), VX_ERR_INPUT);
    assert_non_null(std::strstr(err.text, "2 series"));
    assert_int_equal(list.count, 0);
}

/* Oblique: columns of the affine are the vectors times their spacing, negated in x and y. */
void oblique(void **) {
    const double c = std::cos(0.3), s = std::sin(0.3);
    write_series(3, [&](Slice &slice) {
        /* Rows run along (c, s, 0), columns along (0, 0, -1): coronal-like. Normal: (-s, c, 0). */
        const double o[6] = {c, s, 0, 0, 0, -1};
        std::copy(o, o + 6, slice.orientation);
        const double step = 3 * (2 - slice.k); /* later files lie first */
        slice.position[0] = 1 - s * step;
        slice.position[1] = 2 + c * step;
        slice.position[2] = 3;
    });
    Result r;
    must_read(folder, r);
    check_affine(r.volume,
                 {{-0.25 * c, 0, 3 * s, -1}, {-0.25 * s, 0, -3 * c, -2}, {0, -0.5, 0, 3}});
    assert_true(r.volume->data[0] == 2.0f * stored(2, 0, 0) - 1000);
}

void slopes_signs_and_syntaxes(void **) {
    static const E_TransferSyntax syntaxes[] = {EXS_LittleEndianExplicit, EXS_LittleEndianImplicit,
                                                EXS_BigEndianExplicit,
                                                EXS_DeflatedLittleEndianExplicit, EXS_RLELossless};
    DcmRLEEncoderRegistration::registerCodecs();
    for (E_TransferSyntax syntax : syntaxes) {
        write_series(3, [&](Slice &s) {
            s.syntax = syntax;
            s.slope = 0.5 * (s.k + 1); /* PET: each slice its own */
            s.intercept = s.k;
            s.sign = 1;
            s.bits_stored = 8; /* 8 of 16 bits: what lies above is not the pixel's */
            s.photometric = "MONOCHROME1";
        });
        Result r;
        must_read(folder, r);
        for (int k = 0; k < 3; k++)
            for (unsigned y = 0; y < 5; y++)
                for (unsigned x = 0; x < 6; x++) {
                    const int low = stored(k, x, y) & 0xff;
                    const int value = low >= 128 ? low - 256 : low;
                    const float want = static_cast<float>(0.5 * (k + 1) * value + k);
                    assert_true(r.volume->data[x + 6 * (y + 5 * static_cast<unsigned>(k))] == want);
                }
    }
    DcmRLEEncoderRegistration::cleanup();
}

void gaps(void **) {
    write_series(6);
    fs::remove(folder + "/slice3.dcm");
    must_refuse({"1 slice missing", "between 105.00 and 110.00 mm", "gap 5.000, others 2.500 mm"});
    fs::remove(folder + "/slice2.dcm");
    must_refuse({"2 slices missing", "gap 7.500"});
}

void uneven(void **) {
    write_series(6, [](Slice &s) {
        if (s.k == 3) s.position[2] += 0.5;
    });
    must_refuse({"uneven slice distances, 2.000 to 3.000 mm", "2 of 5 differ from 2.500 mm"});
}

/* Positions that were rounded to 0.01 mm are no fault. */
void rounded_positions(void **) {
    write_series(7, [](Slice &s) { s.position[2] = std::round(100 * (100 + 0.625 * s.k)) / 100; });
    Result r;
    must_read(folder, r);
    assert_true(std::fabs(r.volume->geo.affine[2][2] - 0.625) < 1e-9);
}

void duplicates(void **) {
    write_series(4);
    fs::copy_file(folder + "/slice2.dcm", folder + "/copy.dcm");
    must_refuse({"1 slice at a position that another slice holds", "105.00 mm"});
}

/* Two echoes at the same positions are two volumes of one series. */
void echoes(void **) {
    for (const char *echo : {"10.2", "4.6"})
        write_series(3, [&](Slice &s) {
            s.name = std::string(echo) + "_" + std::to_string(s.k);
            s.slope = echo[0] == '4' ? 1 : 3;
            s.change = [echo](DcmDataset &d) { d.putAndInsertString(DCM_EchoTime, echo); };
        });
    must_refuse(
        {"2 series", "7/1 (CT, EchoTime 4.6, 3 files)", "7/2 (CT, EchoTime 10.2, 3 files)"});
    must_refuse({"2 series of that name"}, "7");
    must_refuse({"no series '7/3'"}, "7/3");
    Result first, second;
    must_read(folder, first, "7/1");
    must_read(folder, second, "1.2.3.4/2");
    assert_true(first.volume->data[1] == stored(0, 1, 0) - 1000.0f);
    assert_true(second.volume->data[1] == 3.0f * stored(0, 1, 0) - 1000.0f);
    /* A slice that only one of them has: they cannot be told apart as whole volumes. */
    fs::remove(folder + "/4.6_1");
    must_refuse({"2 slices at a position", "'EchoTime 10.2' and 'EchoTime 4.6'"});
}

void localizers(void **) {
    write_series(3);
    write_series(2, [](Slice &s) {
        s.series = "1.2.9";
        s.number = 1;
        s.name = "scout" + std::to_string(s.k);
        s.change = [](DcmDataset &d) {
            d.putAndInsertString(DCM_ImageType, "ORIGINAL\\PRIMARY\\LOCALIZER");
        };
    });
    Result r, scout;
    must_read(folder, r); /* a localizer beside it is no choice */
    assert_int_equal(r.volume->geo.dims[2], 3);
    must_read(folder, scout, "1");
    assert_int_equal(scout.volume->geo.dims[2], 2);
}

/* 15 degrees: 2.5 mm tan(15) = 0.66987 mm sideways a slice. */
void tilt(void **) {
    write_series(4, [](Slice &s) {
        s.position[1] += 2.5 * s.k * std::tan(15 / 57.29577951308232);
        s.change = [](DcmDataset &d) { d.putAndInsertString(DCM_GantryDetectorTilt, "15"); };
    });
    must_refuse({"tilt or shear of 15.00 degrees", "0.670 mm each", "header's tilt is 15.00"});
}

void shifted_sideways(void **) {
    write_series(4, [](Slice &s) {
        if (s.k == 1) s.position[0] += 0.5;
    });
    must_refuse({"shifted sideways by up to 0.500 mm"});
}

void two_series(void **) {
    write_series(3);
    write_series(4, [](Slice &s) {
        s.series = "1.2.9";
        s.number = 8;
        s.name = "x" + std::to_string(s.k);
    });
    must_refuse({"2 series", "7 (CT, 3 files)", "8 (CT, 4 files)", "--series"});
    Result by_number, by_uid;
    must_read(folder, by_number, "8");
    assert_int_equal(by_number.volume->geo.dims[2], 4);
    must_read(folder, by_uid, "1.2.3.4");
    assert_int_equal(by_uid.volume->geo.dims[2], 3);
    must_refuse({"no series '9'", "7 (CT, 3 files)"}, "9");

    vx_series *list = nullptr;
    size_t count = 0;
    vx_error err{};
    assert_int_equal(vx_dicom_series(folder.c_str(), nullptr, &list, &count, &err), VX_OK);
    assert_int_equal(count, 2);
    assert_int_equal(list[0].number, 7);
    assert_string_equal(list[0].uid, "1.2.3.4");
    assert_string_equal(list[0].description, "made here");
    assert_string_equal(list[0].modality, "CT");
    assert_int_equal(list[1].files, 4);
    assert_int_equal(list[1].info.geo.dims[2], 4);
    assert_int_equal(list[1].problem_count, 0);
    vx_free(list);
}

void mixtures(void **) {
    write_series(4, [](Slice &s) {
        if (s.k == 2) s.rows = 4;
    });
    must_refuse({"2 slice sizes: 6 x 4 (1 file), 6 x 5 (3 files)"});
    write_series(4, [](Slice &s) {
        if (s.k == 2) s.spacing[0] = 0.75;
    });
    must_refuse({"2 pixel spacings: 0.25 x 0.5 mm (3 files), 0.25 x 0.75 mm (1 file)"});
    write_series(4, [](Slice &s) {
        if (s.k == 0)
            s.change = [](DcmDataset &d) {
                d.putAndInsertString(DCM_ImageType, "ORIGINAL\\PRIMARY\\LOCALIZER");
            };
    });
    must_refuse({"2 frame types", "LOCALIZER (1 file)"});
    write_series(4, [](Slice &s) {
        const double coronal[6] = {1, 0, 0, 0, 0, -1};
        if (s.k == 3) std::copy(coronal, coronal + 6, s.orientation);
    });
    must_refuse({"2 slice orientations", "of 4 files"});
}

void missing_attributes(void **) {
    static const struct {
        DcmTagKey tag;
        const char *words;
    } cases[] = {
        {DCM_ImagePositionPatient, "4 of 4 files, first 'slice0.dcm': no ImagePositionPatient"},
        {DCM_ImageOrientationPatient, "no ImageOrientationPatient"},
        {DCM_PixelSpacing, "no PixelSpacing"},
        {DCM_PixelData, "no pixel data"}};
    for (const auto &c : cases) {
        write_series(
            4, [&](Slice &s) { s.change = [&](DcmDataset &d) { d.findAndDeleteElement(c.tag); }; });
        must_refuse({c.words});
    }
    /* A file without SOPClassUID is tolerated. */
    write_series(4, [&](Slice &s) {
        s.change = [&](DcmDataset &d) { d.findAndDeleteElement(DCM_SOPClassUID); };
    });
    Result r;
    must_read(folder, r);
}

void bad_attributes(void **) {
    static const struct {
        DcmTagKey tag;
        const char *value, *words;
    } cases[] = {
        {DCM_RescaleSlope, "0", "RescaleSlope is 0"},
        {DCM_RescaleSlope, "one", "RescaleSlope is not a number"},
        {DCM_PixelSpacing, "0\\0.5", "PixelSpacing is"},
        {DCM_PixelSpacing, "0.5", "PixelSpacing has 1 values"},
        {DCM_ImageOrientationPatient, "1\\0\\0\\1\\0\\0", "not two perpendicular"},
        {DCM_ImageOrientationPatient, "2\\0\\0\\0\\1\\0", "not two perpendicular"},
        {DCM_ImagePositionPatient, "1\\2\\x", "ImagePositionPatient is not a number"},
        {DCM_PhotometricInterpretation, "RGB", "colour image"},
        {DCM_ImageType, "ORIGINAL\\PRIMARY\\M\\ND\\MOSAIC", "1 of 4 files, 'slice1.dcm': a mosaic"},
        {DCM_SeriesInstanceUID, "1.2.\x07", "SeriesInstanceUID is not a UID"},
        {DCM_NumberOfFrames, "3", "pixels where 6 x 5 of 16 bits in 3 frames need 180"},
        {DCM_NumberOfFrames, "0", "NumberOfFrames is 0"},
        {DCM_RescaleSlope, "1.5x", "RescaleSlope is not a number"},
        {DCM_SOPClassUID, UID_SecondaryCaptureImageStorage, "SecondaryCaptureImageStorage"},
        {DCM_SOPClassUID, UID_SegmentationStorage, "SegmentationStorage"},
        {DCM_SOPClassUID, UID_EnhancedMRImageStorage, "no PerFrameFunctionalGroupsSequence"},
    };
    for (const auto &c : cases) {
        write_series(4, [&](Slice &s) {
            if (s.k == 1 || c.tag == DCM_SOPClassUID)
                s.change = [&](DcmDataset &d) { d.putAndInsertString(c.tag, c.value); };
        });
        must_refuse({c.words});
    }
}

void pixel_bytes(void **) {
    const auto with_rows = [](unsigned rows) {
        write_series(3, [&](Slice &s) {
            s.change = [&](DcmDataset &d) {
                d.putAndInsertUint16(DCM_Rows, static_cast<Uint16>(rows));
            };
        });
    };
    with_rows(6);
    must_refuse({"60 bytes of pixels where 6 x 6 of 16 bits need 72"});
    with_rows(4);
    must_refuse({"60 bytes of pixels where 6 x 4 of 16 bits need 48"});
    with_rows(65535);
    must_refuse({"60 bytes of pixels"});
}

/* A file cut anywhere is named or refused; it never becomes a volume with made-up pixels. */
void cut_files(void **) {
    for (E_TransferSyntax syntax : {EXS_LittleEndianExplicit, EXS_RLELossless}) {
        DcmRLEEncoderRegistration::registerCodecs();
        write_series(3, [&](Slice &s) { s.syntax = syntax; });
        DcmRLEEncoderRegistration::cleanup();
        const std::string path = folder + "/slice1.dcm";
        const auto size = fs::file_size(path);
        for (auto cut = size - 1; cut > 140; cut -= (size - cut < 80 ? 1 : 37)) {
            fs::resize_file(path, cut);
            Result r;
            read_path(folder, r);
            if (r.status != VX_ERR_INPUT)
                fail_msg("cut to %zu of %zu bytes: status %d", static_cast<size_t>(cut),
                         static_cast<size_t>(size), r.status);
        }
        fs::resize_file(path, 0);
        must_refuse({"'slice1.dcm': not a DICOM file"});
    }
}

void nothing_there(void **) {
    must_refuse({"no DICOM image here"});
    std::ofstream(folder + "/notes.txt") << "not DICOM";
    must_refuse({"no DICOM image here"});
    must_refuse({"not a DICOM image"}, nullptr, folder + "/notes.txt");
    must_refuse({"cannot be opened"}, nullptr, folder + "/absent");
    write_series(1);
    must_refuse({"one slice"});
}

/* ---- real files ---- */

/* skip() jumps out: nothing that needs a destructor may live here. */
const char *data_folder() {
    const char *base = std::getenv("VOXMAMBA_TEST_DATA");
    if (!base || !base[0]) skip();
    return base;
}

std::string data(const char *name) { return std::string(data_folder()) + "/dicom/" + name; }

void real_phantom(void **) {
    Result r;
    must_read(data("ct_head_philips_phantom_5mm"), r);
    assert_int_equal(r.volume->geo.dims[0], 512);
    assert_int_equal(r.volume->geo.dims[2], 28);
    check_affine(r.volume,
                 {{-0.451171875, 0, 0, 115.5}, {0, -0.451171875, 0, 1.85}, {0, 0, 5, 696.21}});
    double sum = 0, low = 1e9, high = -1e9;
    for (size_t i = 0; i < vx_voxels(&r.volume->geo); i++) {
        const double v = r.volume->data[i];
        sum += v;
        low = std::fmin(low, v);
        high = std::fmax(high, v);
    }
    assert_true(low == -1024 && high == 782);
    assert_true(sum == -6096677910.0);
}

void real_tilt(void **) {
    must_refuse({"uneven slice distances, 1.081 to 6.999 mm", "tilt or shear of 18.50 degrees",
                 "the header's tilt is 18.50"},
                nullptr, data("ct_head_ge_tilt18_varspacing"));
}

void real_multiframe(void **) {
    const std::string path = data("mr_enhanced_multiframe");
    must_refuse({"6 series", "6/1 (MR, TemporalPositionIndex 1, 6 frames)"}, nullptr, path);
    must_refuse({"2 series", "801/2 (MR, FrameType ORIGINAL\\PRIMARY\\T1\\M, 32 frames)"}, "801",
                path);
    Result r;
    must_read(path, r, "801/1"); /* FIELD_MAP: frames 33 to 64, slope 0.2442, intercept -500 */
    assert_int_equal(r.volume->geo.dims[2], 32);
}

void real_segmentation(void **) {
    const std::string path = data("seg_dcmqi");
    must_refuse({"SegmentationStorage"}, nullptr, path + "/liver.dcm");
    Result r;
    must_read(path + "/ct-3slice", r);
    assert_int_equal(r.volume->geo.dims[2], 3);
}

} // namespace

int main() {
#define TEST(name) cmocka_unit_test_setup_teardown(name, make_folder, remove_folder)
    const struct CMUnitTest tests[] = {
        TEST(regular),
        TEST(one_file),
        TEST(files_of_a_volume),
        TEST(oblique),
        TEST(slopes_signs_and_syntaxes),
        TEST(gaps),
        TEST(uneven),
        TEST(rounded_positions),
        TEST(duplicates),
        TEST(echoes),
        TEST(localizers),
        TEST(tilt),
        TEST(shifted_sideways),
        TEST(two_series),
        TEST(mixtures),
        TEST(missing_attributes),
        TEST(bad_attributes),
        TEST(pixel_bytes),
        TEST(cut_files),
        TEST(nothing_there),
        TEST(real_phantom),
        TEST(real_tilt),
        TEST(real_multiframe),
        TEST(real_segmentation),
    };
    return cmocka_run_group_tests(tests, nullptr, nullptr);
}
