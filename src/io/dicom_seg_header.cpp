/* The helper's part of writing DICOM SEG: a plan and one source file become the bytes of a file up
 * to its pixels (PS3.3 A.51).
 * Plain DCMTK items, not DCMTK's module dcmseg, which keeps the pixels of every frame. */
#include "io/dicom_seg_header.h"

#include <dcmtk/dcmdata/dcostrmb.h>

#include <cmath>
#include <set>

#include "io/dicom_attributes.h"

namespace vx_io {

namespace {

void good(const OFCondition &condition, const char *what) {
    if (condition.bad()) fail(VX_ERR_OUTPUT, "%s: %s", what, condition.text());
}

void put(DcmItem &item, const DcmTagKey &tag, const std::string &value) {
    good(item.putAndInsertString(tag, value.c_str()), "an attribute cannot be made");
}

void put(DcmItem &item, const DcmTagKey &tag, unsigned value) {
    good(item.putAndInsertUint16(tag, static_cast<Uint16>(value)), "an attribute cannot be made");
}

/* A new item at the end of a sequence, which is made when it is missing. */
DcmItem &add(DcmItem &parent, const DcmTagKey &tag) {
    DcmItem *item = nullptr;
    good(parent.findOrCreateSequenceItem(tag, item, -2), "a sequence cannot be made");
    return *item;
}

/* 10 digits fit DS's 16 characters and are 1e-7 mm at 1 m. */
std::string decimals(const double *values, int count) {
    std::string out;
    for (int i = 0; i < count; i++)
        out += (i ? "\\" : "") + printed("%.10g", values[i] == 0 ? 0.0 : values[i]);
    return out;
}

/* '\' would begin another value. */
std::string single(std::string text) {
    for (char &c : text)
        if (c == '\\') c = ' ';
    return text;
}

void put_code(DcmItem &parent, const DcmTagKey &sequence, const SegCode &code) {
    DcmItem &item = add(parent, sequence);
    const bool fits = code.value.size() <= 16; /* SH; SNOMED has identifiers of 18 digits */
    put(item, fits ? DCM_CodeValue : DCM_LongCodeValue, single(code.value));
    put(item, DCM_CodingSchemeDesignator, single(code.scheme));
    put(item, DCM_CodeMeaning, single(code.meaning));
}

void copy_attributes(DcmDataset &source, DcmDataset &out) {
    static const DcmTagKey needed[] = {/* Type 2: there, if empty */
                                       DCM_PatientName,      DCM_PatientID,
                                       DCM_PatientBirthDate, DCM_PatientSex,
                                       DCM_StudyDate,        DCM_StudyTime,
                                       DCM_StudyID,          DCM_ReferringPhysicianName,
                                       DCM_AccessionNumber,  DCM_PositionReferenceIndicator};
    static const DcmTagKey optional[] = {DCM_SpecificCharacterSet, DCM_IssuerOfPatientID,
                                         DCM_PatientAge,           DCM_PatientSize,
                                         DCM_PatientWeight,        DCM_StudyDescription};
    for (const DcmTagKey &tag : needed)
        if (source.findAndInsertCopyOfElement(tag, &out).bad())
            good(out.insertEmptyElement(tag), "an attribute cannot be made");
    for (const DcmTagKey &tag : optional) source.findAndInsertCopyOfElement(tag, &out);
}

/* Patient and study are the source's own; names as UTF-8, as labels are. out is empty. */
void copy_source(DcmDataset &source, DcmDataset &out) {
    copy_attributes(source, out);
    if (out.convertToUTF8().bad()) { /* bytes beyond ASCII without a character set: Latin-1 */
        out.clear();
        copy_attributes(source, out);
        put(out, DCM_SpecificCharacterSet, std::string("ISO_IR 100"));
        good(out.convertToUTF8(), "the names in the source cannot be read as text");
    }
}

/* A patient and a study that are nobody's. */
void put_nobody(DcmDataset &out) {
    static const DcmTagKey empty[] = {DCM_PatientBirthDate, DCM_PatientSex,
                                      DCM_StudyDate,        DCM_StudyTime,
                                      DCM_StudyID,          DCM_ReferringPhysicianName,
                                      DCM_AccessionNumber,  DCM_PositionReferenceIndicator};
    for (const DcmTagKey &tag : empty)
        good(out.insertEmptyElement(tag), "an attribute cannot be made");
    put(out, DCM_PatientName, std::string("Anonymous"));
    put(out, DCM_PatientID, std::string("Anonymous"));
    put(out, DCM_PatientIdentityRemoved, std::string("YES"));
    put(out, DCM_DeidentificationMethod, std::string("No attribute of the source was copied"));
}

void put_identity(const SegPlan &plan, DcmDataset &d) {
    put(d, DCM_SOPClassUID, std::string(UID_SegmentationStorage));
    put(d, DCM_SOPInstanceUID, plan.instance_uid);
    put(d, DCM_StudyInstanceUID, plan.study_uid);
    put(d, DCM_SeriesInstanceUID, plan.own_series_uid);
    put(d, DCM_FrameOfReferenceUID, plan.frame_of_reference);
    put(d, DCM_Modality, std::string("SEG"));
    put(d, DCM_SeriesNumber, std::string("300"));
    put(d, DCM_SeriesDescription, std::string("Segmentation"));
    put(d, DCM_InstanceNumber, std::string("1"));
    put(d, DCM_Manufacturer, std::string("VoxMamba"));
    put(d, DCM_ManufacturerModelName, std::string("VoxMamba"));
    put(d, DCM_DeviceSerialNumber, std::string("0"));
    put(d, DCM_SoftwareVersions, std::string(VX_VERSION));
    for (const DcmTagKey &tag : {DCM_ContentDate, DCM_SeriesDate}) put(d, tag, plan.date);
    for (const DcmTagKey &tag : {DCM_ContentTime, DCM_SeriesTime}) put(d, tag, plan.time);
    put(d, DCM_ContentLabel, std::string("SEGMENTATION"));
    put(d, DCM_ContentDescription, std::string("Segmentation"));
    put(d, DCM_ContentCreatorName, std::string("VoxMamba^"));
}

void put_image(const SegPlan &plan, DcmDataset &d) {
    put(d, DCM_ImageType, std::string("DERIVED\\PRIMARY"));
    put(d, DCM_SamplesPerPixel, 1);
    put(d, DCM_PhotometricInterpretation, std::string("MONOCHROME2"));
    put(d, DCM_PixelRepresentation, 0u);
    put(d, DCM_BitsAllocated, 1);
    put(d, DCM_BitsStored, 1);
    put(d, DCM_HighBit, 0u);
    put(d, DCM_Rows, plan.rows);
    put(d, DCM_Columns, plan.columns);
    put(d, DCM_NumberOfFrames, std::to_string(plan.frames.size()));
    put(d, DCM_LossyImageCompression, std::string("00"));
    put(d, DCM_SegmentationType, std::string("BINARY"));
    put(d, DcmTag(0x0062, 0x0013, EVR_CS), std::string("NO")); /* SegmentsOverlap */
}

void put_segments(const SegPlan &plan, DcmDataset &d) {
    unsigned number = 0;
    for (const SegSegment &segment : plan.segments) {
        DcmItem &item = add(d, DCM_SegmentSequence);
        put(item, DCM_SegmentNumber, ++number);
        put(item, DCM_SegmentLabel, single(segment.name));
        put(item, DCM_SegmentAlgorithmType, std::string("AUTOMATIC"));
        put(item, DCM_SegmentAlgorithmName, single(plan.algorithm));
        put_code(item, DCM_SegmentedPropertyCategoryCodeSequence, segment.category);
        put_code(item, DCM_SegmentedPropertyTypeCodeSequence, segment.type);
        if (!segment.modifier.scheme.empty()) {
            DcmItem *type = nullptr;
            good(item.findAndGetSequenceItem(DCM_SegmentedPropertyTypeCodeSequence, type), "code");
            put_code(*type, DCM_SegmentedPropertyTypeModifierCodeSequence, segment.modifier);
        }
        good(item.putAndInsertUint16Array(DCM_RecommendedDisplayCIELabValue, segment.lab, 3),
             "a colour cannot be made");
        DcmItem &how = add(item, DcmTag(0x0062, 0x0007, EVR_SQ));
        put_code(how, DCM_AlgorithmFamilyCodeSequence,
                 {"DCM", "123110", "Artificial Intelligence"});
        put(how, DCM_AlgorithmName, single(plan.algorithm));
        put(how, DCM_AlgorithmVersion, single(plan.algorithm_version));
    }
}

void put_derived_from(const SegInstance &source, bool same_grid, DcmItem &derivation) {
    DcmItem &image = add(derivation, DCM_SourceImageSequence);
    put(image, DCM_ReferencedSOPClassUID, source.sop_class);
    put(image, DCM_ReferencedSOPInstanceUID, source.sop_instance);
    if (same_grid && source.frame > 0)
        put(image, DCM_ReferencedFrameNumber, std::to_string(source.frame));
    put(image, DCM_SpatialLocationsPreserved, std::string(same_grid ? "YES" : "NO"));
    put_code(image, DCM_PurposeOfReferenceCodeSequence,
             {"DCM", "121322", "Source image for image processing operation"});
}

DcmItem &put_derivation(DcmItem &groups) {
    DcmItem &item = add(groups, DCM_DerivationImageSequence);
    put_code(item, DCM_DerivationCodeSequence, {"DCM", "113076", "Segmentation"});
    return item;
}

/* The series' files, each once: frames of one file follow each other or not. */
std::vector<SegInstance> instances(const SegPlan &plan) {
    std::vector<SegInstance> out;
    std::set<std::string> seen;
    for (const SegInstance &source : plan.sources)
        if (seen.insert(source.sop_instance).second) out.push_back(source);
    return out;
}

void put_references(const SegPlan &plan, DcmDataset &d) {
    if (plan.sources.empty()) return;
    DcmItem &series = add(d, DCM_ReferencedSeriesSequence);
    put(series, DCM_SeriesInstanceUID, plan.series_uid);
    for (const SegInstance &source : instances(plan)) {
        DcmItem &item = add(series, DCM_ReferencedInstanceSequence);
        put(item, DCM_ReferencedSOPClassUID, source.sop_class);
        put(item, DCM_ReferencedSOPInstanceUID, source.sop_instance);
    }
}

void put_dimensions(const SegPlan &plan, DcmDataset &d) {
    const std::string uid = plan.instance_uid; /* this object's organization is its own */
    put(add(d, DCM_DimensionOrganizationSequence), DCM_DimensionOrganizationUID, uid);
    static const struct {
        DcmTagKey attribute, sequence;
    } table[] = {{DCM_ReferencedSegmentNumber, DCM_SegmentIdentificationSequence},
                 {DCM_ImagePositionPatient, DCM_PlanePositionSequence}};
    for (const auto &row : table) {
        DcmItem &item = add(d, DCM_DimensionIndexSequence);
        put(item, DCM_DimensionOrganizationUID, uid);
        good(item.putAndInsertTagKey(DCM_DimensionIndexPointer, row.attribute), "index");
        good(item.putAndInsertTagKey(DCM_FunctionalGroupPointer, row.sequence), "index");
    }
}

void put_shared(const SegPlan &plan, DcmDataset &d) {
    DcmItem &shared = add(d, DCM_SharedFunctionalGroupsSequence);
    double both[6];
    for (int i = 0; i < 3; i++) {
        both[i] = plan.along_row[i];
        both[3 + i] = plan.along_column[i];
    }
    put(add(shared, DCM_PlaneOrientationSequence), DCM_ImageOrientationPatient, decimals(both, 6));
    const double distance = std::hypot(plan.step[0], plan.step[1], plan.step[2]);
    DcmItem &measures = add(shared, DCM_PixelMeasuresSequence);
    put(measures, DCM_PixelSpacing, decimals(plan.spacing, 2));
    put(measures, DCM_SliceThickness, decimals(&distance, 1));
    put(measures, DCM_SpacingBetweenSlices, decimals(&distance, 1));
    if (plan.sources_are_slices || plan.sources.empty()) return;
    DcmItem &derivation = put_derivation(shared); /* every frame is made from all of them */
    for (const SegInstance &source : instances(plan)) put_derived_from(source, false, derivation);
}

void put_frame(const SegPlan &plan, const SegFrame &frame, DcmItem &item) {
    const Uint32 index[2] = {frame.segment + 1, frame.slice + 1};
    good(add(item, DCM_FrameContentSequence)
             .putAndInsertUint32Array(DCM_DimensionIndexValues, index, 2),
         "index");
    double position[3];
    for (int i = 0; i < 3; i++) position[i] = plan.origin[i] + frame.slice * plan.step[i];
    put(add(item, DCM_PlanePositionSequence), DCM_ImagePositionPatient, decimals(position, 3));
    put(add(item, DCM_SegmentIdentificationSequence), DCM_ReferencedSegmentNumber,
        frame.segment + 1);
    if (plan.sources_are_slices)
        put_derived_from(plan.sources[frame.slice], true, put_derivation(item));
}

/* The bytes of DCMTK's objects, one after the other. */
class Serialiser {
  public:
    template <typename Object> void put(Object &object) {
        OFCondition state = EC_StreamNotifyClient;
        object.transferInit();
        while (state == EC_StreamNotifyClient) {
            state = object.write(stream_, EXS_LittleEndianExplicit, EET_ExplicitLength, nullptr);
            void *piece = nullptr;
            offile_off_t count = 0;
            stream_.flushBuffer(piece, count);
            bytes.append(static_cast<const char *>(piece), static_cast<size_t>(count));
        }
        object.transferEnd();
        good(state, "the object cannot be written");
    }
    std::string bytes;

  private:
    std::vector<char> chunk_ = std::vector<char>(size_t(1) << 16);
    DcmOutputBufferStream stream_{chunk_.data(), static_cast<offile_off_t>(chunk_.size())};
};

/* One frame's items are made and dropped at a time: those of all would take many times the bytes
 * that they become. Nothing but PixelData has a higher tag than this sequence. */
void put_frames(const SegPlan &plan, Serialiser &out) {
    out.bytes.append("\x00\x52\x30\x92SQ\0\0\xff\xff\xff\xff", 12); /* of unknown length */
    for (const SegFrame &frame : plan.frames) {
        DcmItem item;
        put_frame(plan, frame, item);
        out.put(item);
    }
    out.bytes.append("\xfe\xff\xdd\xe0\0\0\0\0", 8); /* the sequence ends */
}

} // namespace

std::string seg_header(const SegPlan &plan, DcmDataset *source) {
    DcmFileFormat format;
    DcmDataset &d = *format.getDataset();
    if (source)
        copy_source(*source, d);
    else
        put_nobody(d);
    put(d, DCM_SpecificCharacterSet, std::string("ISO_IR 192"));
    put_identity(plan, d);
    put_image(plan, d);
    put_segments(plan, d);
    put_references(plan, d);
    put_dimensions(plan, d);
    put_shared(plan, d);
    Serialiser out;
    out.put(format);
    put_frames(plan, out);
    return std::move(out.bytes);
}

} // namespace vx_io
