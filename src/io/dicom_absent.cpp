/* The DICOM entries of a build without DCMTK: io.c sees no members and says "not in this build". */
#include "io/cxx_boundary.h"

extern "C" {

const vx_format_ops vx_dicom_ops = {};

const vx_format_ops vx_dicom_seg_ops = {};

vx_status vx_dicom_series(const char *, const vx_read_options *, vx_series **out, size_t *count,
                          vx_error *err) {
    *out = nullptr;
    *count = 0;
    return vx_fail(err, VX_ERR_USAGE, "DICOM is not in this build (build with VOXMAMBA_DICOM=ON)");
}

void vx_dicom_studies(const vx_file_list *, char (*)[80]) {}
}
