/* A DICOM Segmentation between the two processes: the library decides what is in it (SegPlan), the
 * helper turns that into the bytes of a file as far as its pixels, the library appends those. So
 * the helper still writes no file, and the pixels, by far the most of it, never pass the socket. */
#ifndef VX_IO_DICOM_SEG_H
#define VX_IO_DICOM_SEG_H

#include <cstdint>
#include <string>
#include <vector>

namespace vx_io {

struct SegCode {
    std::string scheme, value, meaning;
};
struct SegSegment {
    std::string name;                 /* UTF-8 */
    SegCode category, type, modifier; /* modifier.scheme "": none */
    uint16_t lab[3] = {};             /* CIELab as DICOM scales it (PS3.3 C.10.7.1.1) */
};
struct SegFrame {
    uint32_t segment = 0; /* from 0 */
    uint32_t slice = 0;   /* of the mask's grid, from 0 */
};
struct SegInstance {
    std::string sop_class, sop_instance;
    uint32_t frame = 0; /* from 1; 0: the instance has one */
};

struct SegPlan {
    uint32_t rows = 0, columns = 0;
    double origin[3] = {};                          /* centre of the first voxel, LPS mm */
    double along_row[3] = {}, along_column[3] = {}; /* unit vectors */
    double step[3] = {};                            /* from one slice to the next, LPS mm */
    double spacing[2] = {};                         /* between rows, between columns, mm */
    std::string study_uid, series_uid, frame_of_reference;
    std::string instance_uid, own_series_uid; /* of the new object and its series */
    std::string date, time;                   /* YYYYMMDD, HHMMSS */
    std::string algorithm, algorithm_version;
    bool anonymous = false;          /* nothing of the source's patient and study; no sources */
    bool sources_are_slices = false; /* sources[k] is what slice k of the mask was made from */
    std::vector<SegInstance> sources;
    std::vector<SegSegment> segments;
    std::vector<SegFrame> frames; /* in the order of their pixels */
};

/* dicom_wire.cpp. unpack_plan throws Failure unless every index and count is within its limits,
 * there is a frame, and there are sources exactly where the plan is not anonymous. */
std::string pack_plan(const SegPlan &plan);
void unpack_plan(const char *bytes, size_t count, SegPlan &out);

} // namespace vx_io

#endif
