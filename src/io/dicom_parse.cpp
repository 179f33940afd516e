/* DICOM files through DCMTK: parse, check, copy out the attributes that matter. */
#include "io/dicom_parse.h"

#include <dcmtk/dcmdata/dcspchrs.h>

#include <algorithm>
#include <filesystem>

#include "io/dicom_attributes.h"
#include "io/dicom_wire.h"
#include "io/stream_length.h"

namespace vx_io {

void set_problem(DicomFile &f, const char *code, const std::string &text) {
    if (!f.problem.empty()) return; /* the first one is told */
    f.problem_code = code;
    f.problem = text;
}

namespace {

std::string described(DcmDataset &dataset) {
    OFString description;
    dataset.findAndGetOFStringArray(DCM_SeriesDescription, description);
    OFString charset, utf8;
    dataset.findAndGetOFStringArray(DCM_SpecificCharacterSet, charset);
    DcmSpecificCharacterSet converter;
    if (converter.selectCharacterSet(charset).good() &&
        converter.convertString(description, utf8).good())
        description = utf8;
    else /* unknown character set: keep what every set shares */
        return ascii_line(description.c_str(), 79);
    return one_line(description.c_str(), 79);
}

void read_identity(Attributes &a, DcmDataset &dataset, DicomFile &f) {
    f.sop_class = a.uid(DCM_SOPClassUID, "SOPClassUID");
    const char *name = dcmFindNameOfUID(f.sop_class.c_str());
    f.class_name = name ? name : f.sop_class.empty() ? "no SOP class" : f.sop_class;
    f.sop_instance = a.uid(DCM_SOPInstanceUID, "SOPInstanceUID");
    f.study_uid = a.uid(DCM_StudyInstanceUID, "StudyInstanceUID");
    f.series_uid = a.uid(DCM_SeriesInstanceUID, "SeriesInstanceUID");
    f.frame_of_reference = a.uid(DCM_FrameOfReferenceUID, "FrameOfReferenceUID");
    f.modality = a.text(DCM_Modality, 16);
    f.series_number = static_cast<int32_t>(a.integer(DCM_SeriesNumber, "SeriesNumber", 0));
    f.description = described(dataset);
    f.slices.assign(1, DicomSlice());
}

bool is_one_of(const std::string &uid, std::initializer_list<const char *> list) {
    for (const char *one : list)
        if (uid == one) return true;
    return false;
}

bool is_enhanced(const DicomFile &f) {
    return is_one_of(f.sop_class,
                     {UID_EnhancedCTImageStorage, UID_EnhancedMRImageStorage,
                      UID_EnhancedPETImageStorage, UID_LegacyConvertedEnhancedCTImageStorage,
                      UID_LegacyConvertedEnhancedMRImageStorage,
                      UID_LegacyConvertedEnhancedPETImageStorage});
}

/* A file without any SOP class may be a slice: some old archives write them. */
bool is_plain(const DicomFile &f, bool has_pixels) {
    return is_one_of(f.sop_class, {UID_CTImageStorage, UID_MRImageStorage,
                                   UID_PositronEmissionTomographyImageStorage}) ||
           (f.sop_class.empty() && has_pixels);
}

void read_bits(Attributes &a, DicomFile &f) {
    static const struct {
        DcmTagKey tag;
        const char *name;
    } needed[] = {{DCM_Rows, "Rows"},
                  {DCM_Columns, "Columns"},
                  {DCM_BitsAllocated, "BitsAllocated"},
                  {DCM_BitsStored, "BitsStored"},
                  {DCM_PixelRepresentation, "PixelRepresentation"},
                  {DCM_SamplesPerPixel, "SamplesPerPixel"},
                  {DCM_PhotometricInterpretation, "PhotometricInterpretation"}};
    for (const auto &row : needed)
        if (!a.has(row.tag)) set_problem(f, "bad-pixels", printed("no %s", row.name));
    f.rows = a.whole(DCM_Rows, "Rows", 0);
    f.columns = a.whole(DCM_Columns, "Columns", 0);
    f.bits_allocated = a.whole(DCM_BitsAllocated, "BitsAllocated", 0);
    f.bits_stored = a.whole(DCM_BitsStored, "BitsStored", 0);
    f.high_bit = a.whole(DCM_HighBit, "HighBit", f.bits_stored - 1);
    const unsigned sign = a.whole(DCM_PixelRepresentation, "PixelRepresentation", 0);
    f.is_signed = sign == 1;
    const bool bits_fit = frame_bytes(f) > 0 && f.bits_stored >= 1 &&
                          f.bits_stored <= f.bits_allocated && f.high_bit < f.bits_allocated &&
                          f.high_bit + 1 >= f.bits_stored;
    if (!bits_fit || sign > 1)
        set_problem(f, "bad-pixels",
                    printed("%u x %u pixels of %u bits (%u stored, high bit %u, representation %u) "
                            "cannot be",
                            f.columns, f.rows, f.bits_allocated, f.bits_stored, f.high_bit, sign));
}

void read_colour(Attributes &a, DicomFile &f) {
    const unsigned samples = a.whole(DCM_SamplesPerPixel, "SamplesPerPixel", 1);
    const std::string photometric = a.text(DCM_PhotometricInterpretation, 20);
    const std::string presentation = a.text(DCM_PixelPresentation, 20);
    /* MONOCHROME1 is a matter of display: the stored values keep their meaning. */
    if (samples != 1 || (photometric != "MONOCHROME2" && photometric != "MONOCHROME1"))
        set_problem(f, "colour",
                    printed("colour image (%s, %u samples a pixel)",
                            photometric.empty() ? "unnamed" : photometric.c_str(), samples));
    if (!presentation.empty() && presentation != "MONOCHROME")
        set_problem(f, "colour",
                    printed("colour image (PixelPresentation %s: values are colours of a palette)",
                            presentation.c_str()));
}

void check_pixel_bytes(DcmDataset &dataset, uint32_t frames, DicomFile &f) {
    DcmElement *element = nullptr;
    if (dataset.findAndGetElement(DCM_PixelData, element).bad() || !element)
        return set_problem(f, "no-pixels", "no pixel data");
    const uint64_t frame = frame_bytes(f);
    if (frame > largest_frame_bytes)
        return set_problem(f, "bad-pixels",
                           printed("%u x %u pixels of %u bits, %.1f GB a frame, are more than is "
                                   "believed (%.1f GB)",
                                   f.columns, f.rows, f.bits_allocated,
                                   1e-9 * static_cast<double>(frame), 1e-9 * largest_frame_bytes));
    if (DcmXfer(dataset.getOriginalXfer()).isEncapsulated()) return; /* each frame is checked */
    const uint64_t want = frame * frames, have = element->getLength(dataset.getOriginalXfer());
    if (have != want + want % 2)
        set_problem(f, "bad-pixels",
                    printed("%llu bytes of pixels where %u x %u of %u bits%s need %llu",
                            static_cast<unsigned long long>(have), f.columns, f.rows,
                            f.bits_allocated,
                            frames > 1 ? printed(" in %u frames", frames).c_str() : "",
                            static_cast<unsigned long long>(want + want % 2)));
    /* Which bytes DCMTK swaps depends on the value representation, which for 32 bits says 16. */
    if (f.bits_allocated == 32 && dataset.getOriginalXfer() == EXS_BigEndianExplicit)
        set_problem(f, "bad-pixels", "32-bit pixels in big-endian order are not supported");
}

/* The identity of a damaged file; false when even its series is unknown. */
bool salvage(DcmDataset &dataset, DicomFile &out) {
    try {
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

/* A sequence or item must fit into what it lies in. DCMTK goes by the delimiters it finds and does
 * not mind. room: bytes of the parent, or of the file. */
void check_lengths(DcmObject &parent, uint64_t room) {
    for (DcmObject *e = parent.nextInContainer(nullptr); e; e = parent.nextInContainer(e)) {
        if (e->ident() != EVR_SQ && e->ident() != EVR_item) continue;
        const uint32_t length = e->getLengthField();
        if (length != DCM_UndefinedLength && length > room)
            fail(VX_ERR_INPUT,
                 "damaged DICOM file: a sequence of %u bytes is longer than what it lies in",
                 length);
        check_lengths(*e, length == DCM_UndefinedLength ? room : length);
    }
}

/* DCMTK guesses where it does not know the syntax that the file names. */
void check_syntax(DcmFileFormat &format) {
    DcmMetaInfo &header = *format.getMetaInfo();
    if (header.card() == 0) return; /* a bare data set */
    OFString named;
    const char *used = DcmXfer(format.getDataset()->getOriginalXfer()).getXferID();
    header.findAndGetOFString(DCM_TransferSyntaxUID, named);
    if (named != used)
        fail(VX_ERR_INPUT, "transfer syntax '%s' is not supported",
             ascii_line(named.c_str(), 64).c_str());
}

/* DCMTK keeps all of a deflated data set in memory, and a few MB may inflate to thousands as many.
 * An image seldom shrinks to less than a third: one that shrinks to less than a 32nd is believed up
 * to the size of the largest frame. */
void check_deflated(const std::string &path) {
    DcmFileFormat header;
    OFString syntax;
    Uint32 length = 0;
    if (header
            .loadFile(OFFilename(path.c_str()), EXS_Unknown, EGL_noChange, DCM_MaxReadLength,
                      ERM_metaOnly)
            .bad())
        return; /* no such header: the whole file is looked at */
    DcmMetaInfo &meta = *header.getMetaInfo();
    meta.findAndGetOFString(DCM_TransferSyntaxUID, syntax);
    if (syntax != UID_DeflatedExplicitVRLittleEndianTransferSyntax) return;
    if (meta.findAndGetUint32(DCM_FileMetaInformationGroupLength, length).bad())
        fail(VX_ERR_INPUT, "damaged DICOM file: its header has no length");
    /* Preamble, magic, the length's own element. */
    const uint64_t offset = 128 + 4 + 12 + static_cast<uint64_t>(length);
    const uint64_t limit =
        std::max<uint64_t>(largest_frame_bytes, 32 * std::filesystem::file_size(path));
    uint64_t inflated = 0;
    try {
        inflated = stream_length(path, offset, Deflated::raw, limit).inflated;
    } catch (const Failure &) {
        return; /* damaged before it grew so far; DCMTK stops there too, and says what it has got */
    }
    if (inflated > limit)
        fail(VX_ERR_INPUT,
             "damaged DICOM file: it inflates to more than %.0f MB, which is not believed of an "
             "image",
             1e-6 * static_cast<double>(limit));
}

void read_image(Attributes &a, DcmDataset &dataset, DicomFile &f) {
    const long frames = a.integer(DCM_NumberOfFrames, "NumberOfFrames", 1);
    const bool enhanced = is_enhanced(f);
    if (!enhanced && !is_plain(f, dataset.tagExists(DCM_PixelData))) {
        f.kind = DicomKind::other;
        f.slices[0].has_geometry = a.has(DCM_ImagePositionPatient); /* a place in the patient */
        f.rows = a.whole(DCM_Rows, "Rows", 0);                      /* for those who list it */
        f.columns = a.whole(DCM_Columns, "Columns", 0);
        f.bits_allocated = a.whole(DCM_BitsAllocated, "BitsAllocated", 0);
        return set_problem(f, "not-a-volume", f.class_name + " is no CT, MR or PET volume");
    }
    if (frames < 1 || frames > static_cast<long>(dicom_frame_limit))
        fail(VX_ERR_INPUT, "NumberOfFrames is %ld", frames);
    const auto count = static_cast<uint32_t>(frames);
    f.kind = frames == 1 ? DicomKind::slice : DicomKind::multiframe;
    read_bits(a, f);
    read_colour(a, f);
    if (f.problem.empty()) check_pixel_bytes(dataset, count, f);
    if (!enhanced && frames > 1)
        return set_problem(f, "multi-frame",
                           printed("%ld frames in a file of a class that holds one (%s)", frames,
                                   f.class_name.c_str()));
    if (enhanced)
        read_functional_groups(dataset, count, f);
    else
        read_single_slice(dataset, f);
}

} // namespace

bool parse_dicom_file(const std::string &path, DcmFileFormat &format, DicomFile &out) {
    out = DicomFile();
    out.path = path;
    check_deflated(path);
    const OFCondition loaded = format.loadFile(OFFilename(path.c_str()));
    DcmDataset &dataset = *format.getDataset();
    if (loaded.bad()) {
        /* What was parsed before the damage often tells at least whose slice it is. */
        const std::string text = "damaged DICOM file: " + ascii_line(loaded.text(), 120);
        if (!salvage(dataset, out)) fail(VX_ERR_INPUT, "%s", text.c_str());
        set_problem(out, "damaged-files", quoted_name(path) + ": " + text);
        return true;
    }
    OFString media_class;
    format.getMetaInfo()->findAndGetOFString(DCM_MediaStorageSOPClassUID, media_class);
    if (media_class == UID_MediaStorageDirectoryStorage) return false; /* DICOMDIR: a list */

    check_syntax(format);
    std::error_code gone; /* its exception would name the file, which logs must not */
    const auto bytes = std::filesystem::file_size(path, gone);
    if (gone) fail(VX_ERR_INPUT, "cannot be read: %s", gone.message().c_str());
    check_lengths(dataset, bytes);
    Attributes a(dataset);
    read_identity(a, dataset, out);
    if (out.sop_class.empty() && out.series_uid.empty() && !a.has(DCM_Rows)) return false;
    read_image(a, dataset, out);
    return true;
}

} // namespace vx_io
