#include <math.h>
#include <nifti2_io.h>
#include <string.h>

#include "io/io.h"
#include "io/nifti_header.h"

/* Above this |cosine| between two axes a rotation and spacings cannot describe the grid. */
#define SHEARED 1e-4

/* The transforms of a header, as both versions hold them. */
typedef struct transforms {
    double pixdim[8], quatern[3], qoffset[3], srow[3][4];
    int qform_code, sform_code, units;
} transforms;

static double cosine(const double m[4][4], int i, int j) {
    double dot = m[0][i] * m[0][j] + m[1][i] * m[1][j] + m[2][i] * m[2][j];
    return dot / sqrt((m[0][i] * m[0][i] + m[1][i] * m[1][i] + m[2][i] * m[2][i]) *
                      (m[0][j] * m[0][j] + m[1][j] * m[1][j] + m[2][j] * m[2][j]));
}

static transforms from_geometry(const vx_geometry *geo) {
    transforms t = {.sform_code = NIFTI_XFORM_SCANNER_ANAT, .units = NIFTI_UNITS_MM};
    double spacing[3];
    vx_spacing(geo, spacing);
    nifti_dmat44 m;
    memcpy(m.m, geo->affine, sizeof m.m);
    nifti_dmat44_to_quatern(m, &t.quatern[0], &t.quatern[1], &t.quatern[2], &t.qoffset[0],
                            &t.qoffset[1], &t.qoffset[2], NULL, NULL, NULL, &t.pixdim[0]);
    bool sheared = false;
    for (int i = 0; i < 3; i++) {
        t.pixdim[i + 1] = spacing[i];
        sheared = sheared || fabs(cosine(geo->affine, i, (i + 1) % 3)) > SHEARED;
        memcpy(t.srow[i], geo->affine[i], sizeof t.srow[i]);
    }
    t.qform_code = sheared ? NIFTI_XFORM_UNKNOWN : NIFTI_XFORM_SCANNER_ANAT;
    return t;
}

static int datatype(vx_nifti_content content) {
    return content == VX_NIFTI_FLOAT32         ? DT_FLOAT32
           : content == VX_NIFTI_LABELS_UINT16 ? DT_UINT16
                                               : DT_UINT8;
}

static int bits(vx_nifti_content content) {
    return content == VX_NIFTI_FLOAT32 ? 32 : content == VX_NIFTI_LABELS_UINT16 ? 16 : 8;
}

static void build1(const vx_geometry *geo, const vx_nifti_source *source, vx_nifti_content content,
                   nifti_1_header *h) {
    memset(h, 0, sizeof *h);
    h->sizeof_hdr = VX_NIFTI1_BYTES;
    h->regular = 'r';
    h->dim[0] = 3;
    for (int i = 1; i < 8; i++) h->dim[i] = (short)(i <= 3 ? geo->dims[i - 1] : 1);
    h->datatype = (short)datatype(content);
    h->bitpix = (short)bits(content);
    h->vox_offset = 352;
    h->scl_slope = 1;
    h->intent_code = content == VX_NIFTI_FLOAT32 ? NIFTI_INTENT_NONE : NIFTI_INTENT_LABEL;
    strcpy(h->descrip, "VoxMamba " VX_VERSION);
    memcpy(h->magic, "n+1", 4);
    if (source) {
        nifti_1_header from;
        memcpy(&from, source->raw, sizeof from);
        memcpy(h->pixdim, from.pixdim, sizeof h->pixdim);
        h->xyzt_units = from.xyzt_units;
        h->qform_code = from.qform_code;
        h->sform_code = from.sform_code;
        /* quatern_b to srow_z lie side by side. */
        memcpy((char *)h + offsetof(nifti_1_header, quatern_b),
               (const char *)&from + offsetof(nifti_1_header, quatern_b),
               offsetof(nifti_1_header, intent_name) - offsetof(nifti_1_header, quatern_b));
        return;
    }
    transforms t = from_geometry(geo);
    for (int i = 0; i < 8; i++) h->pixdim[i] = (float)t.pixdim[i];
    h->xyzt_units = (char)t.units;
    h->qform_code = (short)t.qform_code;
    h->sform_code = (short)t.sform_code;
    h->quatern_b = (float)t.quatern[0];
    h->quatern_c = (float)t.quatern[1];
    h->quatern_d = (float)t.quatern[2];
    h->qoffset_x = (float)t.qoffset[0];
    h->qoffset_y = (float)t.qoffset[1];
    h->qoffset_z = (float)t.qoffset[2];
    for (int i = 0; i < 4; i++) {
        h->srow_x[i] = (float)t.srow[0][i];
        h->srow_y[i] = (float)t.srow[1][i];
        h->srow_z[i] = (float)t.srow[2][i];
    }
}

static void build2(const vx_geometry *geo, const vx_nifti_source *source, vx_nifti_content content,
                   nifti_2_header *h) {
    memset(h, 0, sizeof *h);
    h->sizeof_hdr = VX_NIFTI2_BYTES;
    memcpy(h->magic, "n+2\0\r\n\032\n", 8);
    h->dim[0] = 3;
    for (int i = 1; i < 8; i++) h->dim[i] = i <= 3 ? (int64_t)geo->dims[i - 1] : 1;
    h->datatype = (short)datatype(content);
    h->bitpix = (short)bits(content);
    h->vox_offset = 544;
    h->scl_slope = 1;
    h->intent_code = content == VX_NIFTI_FLOAT32 ? NIFTI_INTENT_NONE : NIFTI_INTENT_LABEL;
    strcpy(h->descrip, "VoxMamba " VX_VERSION);
    if (source) {
        nifti_2_header from;
        memcpy(&from, source->raw, sizeof from);
        memcpy(h->pixdim, from.pixdim, sizeof h->pixdim);
        h->xyzt_units = from.xyzt_units;
        /* qform_code to srow_z lie side by side. */
        memcpy((char *)h + offsetof(nifti_2_header, qform_code),
               (const char *)&from + offsetof(nifti_2_header, qform_code),
               offsetof(nifti_2_header, slice_code) - offsetof(nifti_2_header, qform_code));
        return;
    }
    transforms t = from_geometry(geo);
    memcpy(h->pixdim, t.pixdim, sizeof h->pixdim);
    h->xyzt_units = t.units;
    h->qform_code = t.qform_code;
    h->sform_code = t.sform_code;
    memcpy((char *)h + offsetof(nifti_2_header, quatern_b), t.quatern, sizeof t.quatern);
    memcpy((char *)h + offsetof(nifti_2_header, qoffset_x), t.qoffset, sizeof t.qoffset);
    memcpy((char *)h + offsetof(nifti_2_header, srow_x), t.srow, sizeof t.srow);
}

vx_status vx_nifti_build(const vx_geometry *geo, const vx_source *source, vx_nifti_content content,
                         unsigned char out[VX_NIFTI_MAX_BYTES], size_t *size, vx_error *err) {
    vx_status s = vx_geometry_check(geo, err);
    if (s != VX_OK) return vx_fail(err, VX_ERR_OUTPUT, "the grid cannot be described by NIfTI");
    const vx_nifti_source *nifti = NULL;
    if (source && (source->kind == VX_FORMAT_NIFTI || source->kind == VX_FORMAT_NIFTI_GZ)) {
        nifti = (const vx_nifti_source *)(const void *)source;
        if (!(vx_geometry_distance(geo, &nifti->geo) <= 1e-3)) nifti = NULL;
    }
    bool large = geo->dims[0] > 32767 || geo->dims[1] > 32767 || geo->dims[2] > 32767;
    memset(out, 0, VX_NIFTI_MAX_BYTES);
    if (nifti ? nifti->version == 2 : large) {
        nifti_2_header h;
        build2(geo, nifti, content, &h);
        memcpy(out, &h, sizeof h);
        *size = 544;
    } else {
        nifti_1_header h;
        build1(geo, nifti, content, &h);
        memcpy(out, &h, sizeof h);
        *size = 352;
    }
    return VX_OK;
}
