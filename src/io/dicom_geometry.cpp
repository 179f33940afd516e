/* Where frames lie and how their values are scaled: from an image's own attributes (PS3.3
 * C.7.6.2.1.1, C.11.1) or from the functional groups of an enhanced object (PS3.3 C.7.6.16). */
#include <cmath>

#include "io/dicom_attributes.h"
#include "io/dicom_parse.h"

namespace vx_io {

namespace {

double dot(const double a[3], const double b[3]) { return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]; }

struct RawGeometry {
    double position[3], orientation[6], spacing[2];
    bool has_position = false, has_orientation = false, has_spacing = false;
};

/* where: "" or "frame 3: ", for messages. */
void set_geometry(const RawGeometry &raw, const std::string &where, DicomSlice &slice,
                  DicomFile &f) {
    if (!raw.has_position || !raw.has_orientation || !raw.has_spacing)
        return set_problem(f, "missing-geometry",
                           where + "no" + (raw.has_position ? "" : " ImagePositionPatient") +
                               (raw.has_orientation ? "" : " ImageOrientationPatient") +
                               (raw.has_spacing ? "" : " PixelSpacing"));
    const double *along_row = raw.orientation, *along_column = raw.orientation + 3;
    const double row = std::sqrt(dot(along_row, along_row));
    const double column = std::sqrt(dot(along_column, along_column));
    const double across = dot(along_row, along_column);
    if (!(std::fabs(row - 1) <= 1e-3 && std::fabs(column - 1) <= 1e-3 && std::fabs(across) <= 1e-3))
        return set_problem(
            f, "bad-orientation",
            where + printed("ImageOrientationPatient is not two perpendicular unit vectors "
                            "(lengths %.4f, %.4f, product %.4f)",
                            row, column, across));
    if (!(raw.spacing[0] > 0 && raw.spacing[1] > 0))
        return set_problem(f, "bad-spacing",
                           where +
                               printed("PixelSpacing is %g x %g", raw.spacing[0], raw.spacing[1]));
    for (int i = 0; i < 3; i++) {
        slice.position[i] = raw.position[i];
        slice.along_row[i] = along_row[i] / row;
        slice.along_column[i] = along_column[i] / column;
    }
    slice.spacing[0] = raw.spacing[1]; /* the attribute gives the distance between rows first */
    slice.spacing[1] = raw.spacing[0];
    slice.has_geometry = true;
}

void read_scale(Attributes &a, DicomSlice &slice, DicomFile &f) {
    a.numbers(DCM_RescaleSlope, "RescaleSlope", 1, &slice.slope);
    a.numbers(DCM_RescaleIntercept, "RescaleIntercept", 1, &slice.intercept);
    if (slice.slope == 0) set_problem(f, "bad-scale", "RescaleSlope is 0");
}

void add_trait(Attributes &a, const DcmTagKey &tag, const char *name, DicomSlice &slice) {
    const std::string value = a.text(tag, 80);
    if (!value.empty()) slice.traits.push_back(std::string(name) + " " + value);
}

/* The functional groups of one frame: its own, else those that all frames share. */
class Groups {
  public:
    Groups(DcmItem *own, DcmItem *shared) : own_(own), shared_(shared) {}
    DcmItem *find(const DcmTagKey &tag) const {
        for (DcmItem *item : {own_, shared_}) {
            DcmItem *found = item ? Attributes(*item).group(tag) : nullptr;
            if (found) return found;
        }
        return nullptr;
    }
    bool numbers(const DcmTagKey &group, const DcmTagKey &tag, const char *name,
                 unsigned long count, double *out) const {
        DcmItem *item = find(group);
        return item && Attributes(*item).numbers(tag, name, count, out);
    }
    void trait(const DcmTagKey &group, const DcmTagKey &tag, const char *name,
               DicomSlice &slice) const {
        DcmItem *item = find(group);
        if (!item) return;
        Attributes a(*item);
        add_trait(a, tag, name, slice);
    }

  private:
    DcmItem *own_, *shared_;
};

void read_frame_type(const Groups &groups, DicomSlice &slice) {
    for (const DcmTagKey &tag :
         {DCM_CTImageFrameTypeSequence, DCM_MRImageFrameTypeSequence, DCM_PETFrameTypeSequence}) {
        DcmItem *item = groups.find(tag);
        if (!item) continue;
        slice.type = Attributes(*item).text(DCM_FrameType);
        groups.trait(tag, DCM_FrameType, "FrameType", slice);
        groups.trait(tag, DCM_ComplexImageComponent, "ComplexImageComponent", slice);
        return;
    }
}

/* Columns of DimensionIndexValues that only number the slices of a stack. */
std::vector<bool> position_dimensions(DcmDataset &dataset) {
    std::vector<bool> out;
    DcmSequenceOfItems *dimensions = nullptr;
    if (dataset.findAndGetSequence(DCM_DimensionIndexSequence, dimensions).bad() || !dimensions)
        return out;
    for (unsigned long i = 0; i < dimensions->card() && i < 32; i++) {
        DcmTagKey pointer;
        DcmElement *element = nullptr;
        const bool known =
            dimensions->getItem(i)->findAndGetElement(DCM_DimensionIndexPointer, element).good() &&
            element && element->getTagVal(pointer).good();
        out.push_back(known &&
                      (pointer == DCM_InStackPositionNumber ||
                       pointer == DCM_ImagePositionPatient || pointer == DCM_ImagePositionVolume));
    }
    return out;
}

/* "Dimensions 1\2": the frame's place along all dimensions but that of the slices. */
void add_dimensions(DcmItem &content, const std::vector<bool> &position, DicomSlice &slice) {
    std::string values;
    for (size_t i = 0; i < position.size(); i++) {
        Uint32 value = 0;
        if (content.findAndGetUint32(DCM_DimensionIndexValues, value, i).bad()) return;
        if (!position[i]) values += (values.empty() ? "" : "\\") + std::to_string(value);
    }
    if (!values.empty()) slice.traits.push_back("Dimensions " + values);
}

void read_frame_traits(const Groups &groups, const std::vector<bool> &position, DicomSlice &slice) {
    read_frame_type(groups, slice);
    groups.trait(DCM_MREchoSequence, DCM_EffectiveEchoTime, "EffectiveEchoTime", slice);
    groups.trait(DCM_MRDiffusionSequence, DCM_DiffusionBValue, "DiffusionBValue", slice);
    groups.trait(DCM_CardiacSynchronizationSequence, DCM_NominalCardiacTriggerDelayTime,
                 "NominalCardiacTriggerDelayTime", slice);
    groups.trait(DCM_FrameContentSequence, DCM_TemporalPositionIndex, "TemporalPositionIndex",
                 slice);
    groups.trait(DCM_FrameContentSequence, DCM_StackID, "StackID", slice);
    DcmItem *content = groups.find(DCM_FrameContentSequence);
    if (content) add_dimensions(*content, position, slice);
}

void read_frame(const Groups &groups, const std::string &where, DicomSlice &slice, DicomFile &f) {
    RawGeometry raw;
    raw.has_position = groups.numbers(DCM_PlanePositionSequence, DCM_ImagePositionPatient,
                                      "ImagePositionPatient", 3, raw.position);
    raw.has_orientation = groups.numbers(DCM_PlaneOrientationSequence, DCM_ImageOrientationPatient,
                                         "ImageOrientationPatient", 6, raw.orientation);
    raw.has_spacing =
        groups.numbers(DCM_PixelMeasuresSequence, DCM_PixelSpacing, "PixelSpacing", 2, raw.spacing);
    set_geometry(raw, where, slice, f);
    DcmItem *scale = groups.find(DCM_PixelValueTransformationSequence);
    if (!scale) return;
    Attributes a(*scale);
    read_scale(a, slice, f);
}

} // namespace

void read_single_slice(DcmDataset &dataset, DicomFile &f) {
    static const struct {
        DcmTagKey tag;
        const char *name;
    } traits[] = {{DCM_ImageType, "ImageType"},
                  {DCM_EchoTime, "EchoTime"},
                  {DCM_InversionTime, "InversionTime"},
                  {DCM_TemporalPositionIdentifier, "TemporalPositionIdentifier"},
                  {DCM_TriggerTime, "TriggerTime"},
                  {DCM_DiffusionBValue, "DiffusionBValue"},
                  {DCM_AcquisitionNumber, "AcquisitionNumber"},
                  {DCM_FrameReferenceTime, "FrameReferenceTime"}};
    DicomSlice slice;
    Attributes a(dataset);
    slice.type = a.text(DCM_ImageType);
    if (slice.type.find("\\MOSAIC") != std::string::npos)
        set_problem(f, "mosaic",
                    "a mosaic: many slices side by side in one image (export it as "
                    "single slices or as an enhanced image)");
    for (const auto &row : traits) add_trait(a, row.tag, row.name, slice);
    read_scale(a, slice, f);
    if (!a.has(DCM_RescaleSlope) && a.has(DCM_ModalityLUTSequence))
        set_problem(f, "modality-lut", "values are mapped by a modality lookup table");
    RawGeometry raw;
    raw.has_position = a.numbers(DCM_ImagePositionPatient, "ImagePositionPatient", 3, raw.position);
    raw.has_orientation =
        a.numbers(DCM_ImageOrientationPatient, "ImageOrientationPatient", 6, raw.orientation);
    raw.has_spacing = a.numbers(DCM_PixelSpacing, "PixelSpacing", 2, raw.spacing);
    a.numbers(DCM_GantryDetectorTilt, "GantryDetectorTilt", 1, &f.tilt);
    set_geometry(raw, "", slice, f);
    f.slices.assign(1, slice);
}

void read_functional_groups(DcmDataset &dataset, uint32_t frames, DicomFile &f) {
    DcmSequenceOfItems *own = nullptr;
    DcmItem *shared = Attributes(dataset).group(DCM_SharedFunctionalGroupsSequence);
    if (dataset.findAndGetSequence(DCM_PerFrameFunctionalGroupsSequence, own).bad() || !own)
        return set_problem(f, "missing-geometry", "no PerFrameFunctionalGroupsSequence");
    if (own->card() != frames)
        return set_problem(
            f, "bad-frames",
            printed("functional groups of %lu frames for %u frames", own->card(), frames));
    const std::vector<bool> position = position_dimensions(dataset);
    f.slices.clear();
    DcmObject *item = nullptr;
    for (uint32_t k = 0; k < frames; k++) {
        item = own->nextInContainer(item);
        const Groups groups(dynamic_cast<DcmItem *>(item), shared);
        DicomSlice slice;
        slice.frame = k;
        read_frame(groups, printed("frame %u: ", k + 1), slice, f);
        read_frame_traits(groups, position, slice);
        f.slices.push_back(std::move(slice));
    }
}

} // namespace vx_io
