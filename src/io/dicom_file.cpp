/* DICOM files through DCMTK: parse, check, copy out the attributes that matter. Pixels stay on the
 * disk; only their length is compared with what rows and columns promise. */
#include "io/dicom_file.h"

#include <dcmtk/config/osconfig.h>
#include <dcmtk/dcmdata/dcspchrs.h>
#include <dcmtk/dcmdata/dctk.h>

#include <dlfcn.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <mutex>

namespace vx_io {

namespace {

std::string base_name(const std::string &path) {
    return one_line(std::filesystem::path(path).filename().string(), 80);
}

bool ends_in_dcm(const std::string &path) {
    std::string ext = std::filesystem::path(path).extension().string();
    std::transform(ext.begin(), ext.end(), ext.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    return ext == ".dcm" || ext == ".dicom" || ext == ".ima";
}

/* "DICM" behind the preamble, or a file without one that begins with group 0002 or 0008. */
bool looks_like_dicom(const std::string &path) {
    std::ifstream file(path, std::ios::binary);
    char head[132] = {};
    file.read(head, sizeof head);
    const auto got = file.gcount();
    if (got >= 132 && std::memcmp(head + 128, "DICM", 4) == 0) return true;
    const bool little = (head[0] == 2 || head[0] == 8) && head[1] == 0 && head[3] == 0;
    const bool big = head[0] == 0 && head[1] == 8 && head[2] == 0;
    return got >= 16 && (little || big);
}

/* Reads attributes; what is there but malformed is a Failure, what is missing is not. */
class Attributes {
  public:
    explicit Attributes(DcmDataset &dataset) : d(dataset) {}

    bool has(const DcmTagKey &tag) { return d.tagExistsWithValue(tag, OFTrue); }

    std::string text(const DcmTagKey &tag, size_t limit = 80) {
        OFString value;
        if (d.findAndGetOFStringArray(tag, value, OFTrue).bad()) return "";
        return one_line(std::string(value.c_str(), value.length()), limit);
    }

    /* count numbers, or false when the attribute is missing or empty. */
    bool numbers(const DcmTagKey &tag, const char *name, unsigned long count, double *out) {
        DcmElement *element = nullptr;
        if (!first_value(tag, element)) return false;
        if (element->getVM() != count)
            fail(VX_ERR_INPUT, "%s has %lu values (%lu are needed)", name, element->getVM(), count);
        for (unsigned long i = 0; i < count; i++) {
            Float64 v = 0;
            if (element->getFloat64(v, i).bad() || !std::isfinite(v))
                fail(VX_ERR_INPUT, "%s is not a number", name);
            out[i] = v;
        }
        return true;
    }

    unsigned whole(const DcmTagKey &tag, const char *name, unsigned missing) {
        DcmElement *element = nullptr;
        if (!first_value(tag, element)) return missing;
        Uint16 v = 0;
        if (element->getUint16(v, 0).bad()) fail(VX_ERR_INPUT, "%s is not a number", name);
        return v;
    }

    long integer_string(const DcmTagKey &tag, const char *name, long missing) {
        DcmElement *element = nullptr;
        if (!first_value(tag, element)) return missing;
        Sint32 v = 0;
        if (element->getSint32(v, 0).bad()) fail(VX_ERR_INPUT, "%s is not a number", name);
        return v;
    }

  private:
    bool first_value(const DcmTagKey &tag, DcmElement *&element) {
        return has(tag) && d.findAndGetElement(tag, element, OFFalse).good() && element;
    }
    DcmDataset &d;
};

void set_problem(DicomFile &f, const char *code, const std::string &text) {
    if (!f.problem.empty()) return; /* the first one is told */
    f.problem_code = code;
    f.problem = text;
}

std::string printed(const char *format, ...) __attribute__((format(printf, 1, 2)));
std::string printed(const char *format, ...) {
    char text[256];
    va_list args;
    va_start(args, format);
    std::vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return text;
}

void read_identity(Attributes &a, DcmDataset &dataset, DicomFile &f) {
    f.sop_class = a.text(DCM_SOPClassUID);
    const char *name = dcmFindNameOfUID(f.sop_class.c_str());
    f.class_name = name ? name : f.sop_class.empty() ? "no SOP class" : f.sop_class;
    f.sop_instance = a.text(DCM_SOPInstanceUID);
    f.study_uid = a.text(DCM_StudyInstanceUID);
    f.series_uid = a.text(DCM_SeriesInstanceUID);
    f.frame_of_reference = a.text(DCM_FrameOfReferenceUID);
    f.modality = a.text(DCM_Modality, 16);
    f.image_type = a.text(DCM_ImageType);
    f.series_number = static_cast<int>(a.integer_string(DCM_SeriesNumber, "SeriesNumber", 0));
    f.frames = a.integer_string(DCM_NumberOfFrames, "NumberOfFrames", 1);

    OFString description;
    dataset.findAndGetOFStringArray(DCM_SeriesDescription, description);
    OFString charset, utf8;
    dataset.findAndGetOFStringArray(DCM_SpecificCharacterSet, charset);
    DcmSpecificCharacterSet converter;
    if (converter.selectCharacterSet(charset).good() &&
        converter.convertString(description, utf8).good())
        description = utf8;
    else /* unknown character set: keep what every set shares */
        for (size_t i = 0; i < description.length(); i++)
            if (static_cast<unsigned char>(description[i]) >= 0x80) description[i] = '?';
    f.description = one_line(description.c_str(), 79);
}

DicomKind kind_of(const DicomFile &f, bool has_pixels) {
    static const char *const slices[] = {UID_CTImageStorage, UID_MRImageStorage,
                                         UID_PositronEmissionTomographyImageStorage};
    static const char *const multiframes[] = {UID_EnhancedCTImageStorage,
                                              UID_EnhancedMRImageStorage,
                                              UID_EnhancedPETImageStorage,
                                              UID_LegacyConvertedEnhancedCTImageStorage,
                                              UID_LegacyConvertedEnhancedMRImageStorage,
                                              UID_LegacyConvertedEnhancedPETImageStorage};
    for (const char *uid : multiframes)
        if (f.sop_class == uid) return DicomKind::multiframe;
    bool is_slice = f.sop_class.empty() && has_pixels;
    for (const char *uid : slices) is_slice = is_slice || f.sop_class == uid;
    if (!is_slice) return DicomKind::other;
    return f.frames == 1 ? DicomKind::slice : DicomKind::multiframe;
}

/* Two volumes in one series (echoes, phases, b-values) have slices at the same positions. */
void read_moment(Attributes &a, DicomFile &f) {
    static const struct {
        DcmTagKey tag;
        const char *name;
    } table[] = {{DCM_EchoTime, "EchoTime"},
                 {DCM_TemporalPositionIdentifier, "TemporalPositionIdentifier"},
                 {DCM_TriggerTime, "TriggerTime"},
                 {DCM_DiffusionBValue, "DiffusionBValue"},
                 {DCM_AcquisitionNumber, "AcquisitionNumber"},
                 {DCM_FrameReferenceTime, "FrameReferenceTime"}};
    for (const auto &row : table) {
        const std::string value = a.text(row.tag, 24);
        if (value.empty()) continue;
        if (!f.moment.empty()) f.moment += ", ";
        f.moment += std::string(row.name) + " " + value;
    }
}

void read_pixel_layout(Attributes &a, DcmDataset &dataset, DicomFile &f) {
    f.rows = a.whole(DCM_Rows, "Rows", 0);
    f.columns = a.whole(DCM_Columns, "Columns", 0);
    f.bits_allocated = a.whole(DCM_BitsAllocated, "BitsAllocated", 0);
    f.bits_stored = a.whole(DCM_BitsStored, "BitsStored", f.bits_allocated);
    f.high_bit = a.whole(DCM_HighBit, "HighBit", f.bits_stored - 1);
    const unsigned sign = a.whole(DCM_PixelRepresentation, "PixelRepresentation", 0);
    f.is_signed = sign == 1;
    if (f.kind != DicomKind::slice) return;
    const unsigned samples = a.whole(DCM_SamplesPerPixel, "SamplesPerPixel", 1);
    const std::string photometric = a.text(DCM_PhotometricInterpretation, 20);
    /* MONOCHROME1 is a matter of display: the stored values keep their meaning. */
    if (samples != 1 || (photometric != "MONOCHROME2" && photometric != "MONOCHROME1"))
        return set_problem(f, "colour",
                           printed("colour image (%s, %u samples a pixel)",
                                   photometric.empty() ? "unnamed" : photometric.c_str(), samples));
    const bool bits_fit =
        (f.bits_allocated == 8 || f.bits_allocated == 16 || f.bits_allocated == 32) &&
        f.bits_stored >= 1 && f.bits_stored <= f.bits_allocated && f.high_bit < f.bits_allocated &&
        f.high_bit + 1 >= f.bits_stored;
    if (f.rows == 0 || f.columns == 0 || !bits_fit || sign > 1)
        return set_problem(f, "bad-pixels",
                           printed("%u x %u pixels of %u bits (%u stored, high bit %u) cannot be",
                                   f.columns, f.rows, f.bits_allocated, f.bits_stored, f.high_bit));

    DcmElement *element = nullptr;
    if (dataset.findAndGetElement(DCM_PixelData, element).bad() || !element)
        return set_problem(f, "no-pixels", "no pixel data");
    f.compressed = DcmXfer(dataset.getOriginalXfer()).isEncapsulated();
    const unsigned long want =
        static_cast<unsigned long>(f.rows) * f.columns * (f.bits_allocated / 8);
    const unsigned long have = f.compressed ? want : element->getLength(dataset.getOriginalXfer());
    if (have != want + want % 2)
        set_problem(f, "bad-pixels",
                    printed("%lu bytes of pixels where %u x %u of %u bits need %lu", have,
                            f.columns, f.rows, f.bits_allocated, want + want % 2));
}

void read_scale(Attributes &a, DicomFile &f) {
    a.numbers(DCM_RescaleSlope, "RescaleSlope", 1, &f.slope);
    a.numbers(DCM_RescaleIntercept, "RescaleIntercept", 1, &f.intercept);
    if (f.slope == 0) set_problem(f, "bad-scale", "RescaleSlope is 0");
    if (!a.has(DCM_RescaleSlope) && a.has(DCM_ModalityLUTSequence))
        set_problem(f, "modality-lut", "values are mapped by a modality lookup table");
}

double dot(const double a[3], const double b[3]) { return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]; }

/* PS3.3 C.7.6.2.1.1. */
void read_geometry(Attributes &a, DicomFile &f) {
    double orientation[6], spacing[2];
    const bool position =
        a.numbers(DCM_ImagePositionPatient, "ImagePositionPatient", 3, f.position);
    const bool directions =
        a.numbers(DCM_ImageOrientationPatient, "ImageOrientationPatient", 6, orientation);
    const bool spaced = a.numbers(DCM_PixelSpacing, "PixelSpacing", 2, spacing);
    a.numbers(DCM_GantryDetectorTilt, "GantryDetectorTilt", 1, &f.tilt);
    if (!position || !directions || !spaced)
        return set_problem(f, "missing-geometry",
                           printed("no%s%s%s", position ? "" : " ImagePositionPatient",
                                   directions ? "" : " ImageOrientationPatient",
                                   spaced ? "" : " PixelSpacing"));
    const double row = std::sqrt(dot(orientation, orientation));
    const double column = std::sqrt(dot(orientation + 3, orientation + 3));
    const double across = dot(orientation, orientation + 3);
    if (std::fabs(row - 1) > 1e-3 || std::fabs(column - 1) > 1e-3 || std::fabs(across) > 1e-3)
        return set_problem(f, "bad-orientation",
                           printed("ImageOrientationPatient is not two perpendicular unit vectors "
                                   "(lengths %.4f, %.4f, product %.4f)",
                                   row, column, across));
    if (!(spacing[0] > 0 && spacing[1] > 0))
        return set_problem(f, "bad-spacing",
                           printed("PixelSpacing is %g x %g", spacing[0], spacing[1]));
    for (int i = 0; i < 3; i++) {
        f.along_row[i] = orientation[i] / row;
        f.along_column[i] = orientation[3 + i] / column;
    }
    f.spacing[0] = spacing[1]; /* the attribute gives the distance between rows first */
    f.spacing[1] = spacing[0];
    f.has_geometry = true;
}

/* The identity of a damaged file; false when even its series is unknown. */
bool salvage(DcmDataset &dataset, DicomFile &out) {
    try {
        out = DicomFile();
        out.kind = DicomKind::slice;
        /* The element that parsing stopped in has a value that was never filled. */
        if (dataset.card() > 0) delete dataset.remove(dataset.card() - 1);
        Attributes a(dataset);
        read_identity(a, dataset, out);
        return !out.series_uid.empty();
    } catch (const Failure &) {
        return false;
    }
}

void add_file(const std::string &path, DicomFolder &out) {
    DicomFile file;
    try {
        if (parse_dicom_file(path, file))
            out.files.push_back(std::move(file));
        else
            out.ignored++;
    } catch (const Failure &failure) {
        if (failure.code != VX_ERR_INPUT) throw;
        out.damaged.push_back(base_name(path) + ": " + failure.text);
    }
}

/* DCMTK knows only the place that Debian's package puts its dictionary in. The relocatable package
 * brings its own, in share/voxmamba beside the folder of this library or program. */
void load_packaged_dictionary() {
    std::vector<std::filesystem::path> selves;
    Dl_info self = {};
    if (dladdr(reinterpret_cast<const void *>(&load_packaged_dictionary), &self) && self.dli_fname)
        selves.emplace_back(self.dli_fname);
    /* For a program, dli_fname is how it was called, maybe without its folder. */
    std::error_code no_link;
    selves.push_back(std::filesystem::read_symlink("/proc/self/exe", no_link));
    for (const std::filesystem::path &file : selves) {
        if (!file.has_parent_path()) continue;
        const auto dictionary = file.parent_path() / ".." / "share" / "voxmamba" / "dicom.dic";
        DcmDataDictionary &loaded = dcmDataDict.wrlock();
        const bool done = loaded.loadDictionary(dictionary.c_str(), OFFalse);
        dcmDataDict.wrunlock();
        if (done) return;
    }
}

} // namespace

void prepare_dicom() {
    static std::once_flag once;
    std::call_once(once, [] {
        OFLog::configure(OFLogger::OFF_LOG_LEVEL);
        if (!dcmDataDict.isDictionaryLoaded()) load_packaged_dictionary();
    });
    if (!dcmDataDict.isDictionaryLoaded())
        fail(VX_ERR_RESOURCE, "DCMTK's data dictionary is not loaded (install Debian's libdcmtk17 "
                              "or set DCMDICTPATH to its dicom.dic)");
}

bool parse_dicom_file(const std::string &path, DicomFile &out) {
    if (!looks_like_dicom(path)) {
        if (ends_in_dcm(path)) fail(VX_ERR_INPUT, "not a DICOM file (empty or cut short?)");
        return false;
    }
    DcmFileFormat format;
    const OFCondition loaded = format.loadFile(OFFilename(path.c_str()));
    DcmDataset &dataset = *format.getDataset();
    if (loaded.bad()) {
        /* What was parsed before the damage often tells at least whose slice it is. */
        const std::string text = "damaged DICOM file: " + one_line(loaded.text(), 120);
        if (!salvage(dataset, out)) fail(VX_ERR_INPUT, "%s", text.c_str());
        out.path = path;
        set_problem(out, "damaged-files", base_name(path) + ": " + text);
        return true;
    }
    OFString media_class;
    format.getMetaInfo()->findAndGetOFString(DCM_MediaStorageSOPClassUID, media_class);
    if (media_class == UID_MediaStorageDirectoryStorage) return false; /* DICOMDIR: a list */

    Attributes a(dataset);
    out = DicomFile();
    out.path = path;
    read_identity(a, dataset, out);
    if (out.sop_class.empty() && out.series_uid.empty() && !a.has(DCM_Rows)) return false;
    out.kind = kind_of(out, dataset.tagExists(DCM_PixelData));
    if (out.frames < 1) fail(VX_ERR_INPUT, "NumberOfFrames is %ld", out.frames);
    read_pixel_layout(a, dataset, out);
    if (out.kind == DicomKind::multiframe)
        set_problem(out, "multi-frame",
                    printed("multi-frame file (%s, %ld frames) is not supported yet",
                            out.class_name.c_str(), out.frames));
    if (out.kind == DicomKind::other)
        set_problem(out, "not-a-volume", out.class_name + " is no CT, MR or PET volume");
    if (out.kind != DicomKind::slice) return true;
    read_moment(a, out);
    read_scale(a, out);
    read_geometry(a, out);
    return true;
}

DicomFolder scan_dicom_folder(const std::string &folder, bool deep, const vx_log *log) {
    namespace fs = std::filesystem;
    std::vector<std::string> paths;
    std::error_code error;
    const auto collect = [&](const fs::directory_entry &entry) {
        std::error_code ignored;
        const std::string name = entry.path().filename().string();
        if (entry.is_regular_file(ignored) && name[0] != '.')
            paths.push_back(entry.path().string());
    };
    if (deep)
        for (fs::recursive_directory_iterator it(folder, error), end; !error && it != end;
             it.increment(error))
            collect(*it);
    else
        for (fs::directory_iterator it(folder, error), end; !error && it != end;
             it.increment(error))
            collect(*it);
    if (error) fail(VX_ERR_INPUT, "the folder cannot be read: %s", error.message().c_str());
    std::sort(paths.begin(), paths.end()); /* the same result on every file system */
    DicomFolder out;
    for (size_t i = 0; i < paths.size(); i++) {
        if (vx_log_progress(log, "scan",
                            static_cast<double>(i) / static_cast<double>(paths.size())))
            fail(VX_ERR_CANCELLED, "cancelled");
        add_file(paths[i], out);
    }
    return out;
}

} // namespace vx_io
