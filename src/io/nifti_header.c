#include "io/nifti_header.h"

#include <ctype.h>
#include <math.h>
#include <nifti2_io.h>
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "base/size.h"
#include "io/format.h"

_Static_assert(sizeof(nifti_1_header) == VX_NIFTI1_BYTES, "nifti1.h");
_Static_assert(sizeof(nifti_2_header) == VX_NIFTI2_BYTES, "nifti2.h");

/* The fields that both versions have, widened. */
typedef struct fields {
    int64_t dim[8];
    int datatype;
    double pixdim[8], offset, slope, inter;
    int qform_code, sform_code, units;
    double quatern[3], qoffset[3], srow[3][4];
    double quatern_threshold; /* how far b^2 + c^2 + d^2 may be from 1 to mean half a turn */
} fields;

int vx_nifti_version(const unsigned char first[4]) {
    for (int version = 1; version <= 2; version++) {
        int size = version == 1 ? VX_NIFTI1_BYTES : VX_NIFTI2_BYTES;
        unsigned char low = (unsigned char)(size & 255), high = (unsigned char)(size >> 8);
        const unsigned char little[4] = {low, high, 0, 0}, big[4] = {0, 0, high, low};
        if (memcmp(first, little, 4) == 0 || memcmp(first, big, 4) == 0) return version;
    }
    return 0;
}

static void widen1(const nifti_1_header *h, fields *f) {
    for (int i = 0; i < 8; i++) {
        f->dim[i] = h->dim[i];
        f->pixdim[i] = (double)h->pixdim[i];
    }
    f->datatype = h->datatype;
    f->offset = (double)h->vox_offset;
    f->slope = (double)h->scl_slope;
    f->inter = (double)h->scl_inter;
    f->qform_code = h->qform_code;
    f->sform_code = h->sform_code;
    f->units = h->xyzt_units;
    const float q[6] = {h->quatern_b, h->quatern_c, h->quatern_d,
                        h->qoffset_x, h->qoffset_y, h->qoffset_z};
    for (int i = 0; i < 3; i++) {
        f->quatern[i] = (double)q[i];
        f->qoffset[i] = (double)q[3 + i];
    }
    for (int i = 0; i < 4; i++) {
        f->srow[0][i] = (double)h->srow_x[i];
        f->srow[1][i] = (double)h->srow_y[i];
        f->srow[2][i] = (double)h->srow_z[i];
    }
    f->quatern_threshold = 3 * 1.1920928955078125e-07; /* of float32's precision, as nibabel */
}

static void widen2(const nifti_2_header *h, fields *f) {
    /* Packed struct: members are copied, never pointed at. */
    memcpy(f->dim, (const char *)h + offsetof(nifti_2_header, dim), sizeof f->dim);
    memcpy(f->pixdim, (const char *)h + offsetof(nifti_2_header, pixdim), sizeof f->pixdim);
    f->datatype = h->datatype;
    f->offset = (double)h->vox_offset;
    f->slope = h->scl_slope;
    f->inter = h->scl_inter;
    f->qform_code = h->qform_code;
    f->sform_code = h->sform_code;
    f->units = h->xyzt_units;
    memcpy(f->quatern, (const char *)h + offsetof(nifti_2_header, quatern_b), sizeof f->quatern);
    memcpy(f->qoffset, (const char *)h + offsetof(nifti_2_header, qoffset_x), sizeof f->qoffset);
    memcpy(f->srow, (const char *)h + offsetof(nifti_2_header, srow_x), sizeof f->srow);
    f->quatern_threshold = 3 * 2.2204460492503131e-16;
}

/* Header into this machine's byte order; version, swapped, pair and raw are set. */
static vx_status take_raw(const unsigned char *bytes, vx_nifti_header *out, fields *f,
                          vx_error *err) {
    out->version = vx_nifti_version(bytes);
    if (out->version == 0)
        return vx_fail(err, VX_ERR_INPUT,
                       "is not a NIfTI file: the header's first bytes are wrong (truncated, or "
                       "another format?)");
    int32_t size;
    memcpy(&size, bytes, sizeof size);
    out->swapped = size != VX_NIFTI1_BYTES && size != VX_NIFTI2_BYTES;
    if (out->version == 1) {
        nifti_1_header h;
        memcpy(&h, bytes, sizeof h);
        if (memcmp(h.magic, "n+1", 4) != 0 && memcmp(h.magic, "ni1", 4) != 0)
            return vx_fail(err, VX_ERR_INPUT,
                           "is an ANALYZE 7.5 file, which does not tell left from right (convert "
                           "it to NIfTI with the program that wrote it)");
        out->pair = h.magic[1] == 'i';
        if (out->swapped) nifti_swap_as_nifti1(&h);
        widen1(&h, f);
        memcpy(out->raw, &h, sizeof h);
    } else {
        nifti_2_header h;
        memcpy(&h, bytes, sizeof h);
        if (memcmp(h.magic, "n+2\0\r\n\032\n", 8) != 0 &&
            memcmp(h.magic, "ni2\0\r\n\032\n", 8) != 0)
            return vx_fail(err, VX_ERR_INPUT,
                           "has a damaged NIfTI-2 signature (was it copied in text mode?)");
        out->pair = h.magic[1] == 'i';
        if (out->swapped) nifti_swap_as_nifti2(&h);
        widen2(&h, f);
        memcpy(out->raw, &h, sizeof h);
    }
    return VX_OK;
}

static void write_dims(const int64_t dim[8], char text[160]) {
    size_t used = 0;
    text[0] = '\0';
    for (int i = 1; i <= dim[0] && used < 150; i++)
        used +=
            (size_t)snprintf(text + used, 160 - used, i > 1 ? "x%lld" : "%lld", (long long)dim[i]);
}

static vx_status take_dims(const fields *f, vx_nifti_header *out, vx_error *err) {
    if (f->dim[0] < 1 || f->dim[0] > 7)
        return vx_fail(err, VX_ERR_INPUT,
                       "has a damaged header: %lld dimensions (1 to 7 are possible)",
                       (long long)f->dim[0]);
    char text[160];
    write_dims(f->dim, text);
    for (int i = 1; i <= f->dim[0]; i++)
        if (f->dim[i] < 1)
            return vx_fail(err, VX_ERR_INPUT,
                           "has a damaged header: a grid of %s (sizes must be positive)", text);
    int n = (int)f->dim[0];
    while (n > 3 && f->dim[n] == 1) n--;
    if (n < 3)
        return vx_fail(err, VX_ERR_INPUT, "is a %dD image of %s (a 3D volume is needed)", n, text);
    if (n > 3)
        return vx_fail(err, VX_ERR_INPUT,
                       "is a %dD image of %s (split it into one 3D file a time point or channel)",
                       n, text);
    size_t voxels;
    for (int i = 0; i < 3; i++) out->geo.dims[i] = (size_t)f->dim[i + 1];
    if (!vx_product(out->geo.dims, 3, &voxels) || voxels > (size_t)PTRDIFF_MAX / 16)
        return vx_fail(err, VX_ERR_INPUT, "has a damaged header: a grid of %s is impossible", text);
    return VX_OK;
}

static vx_status take_type(const fields *f, vx_nifti_header *out, vx_error *err) {
    static const struct {
        int code;
        vx_voxel_type type;
    } types[] = {{DT_INT8, VX_VOXEL_INT8},       {DT_UINT8, VX_VOXEL_UINT8},
                 {DT_INT16, VX_VOXEL_INT16},     {DT_UINT16, VX_VOXEL_UINT16},
                 {DT_INT32, VX_VOXEL_INT32},     {DT_UINT32, VX_VOXEL_UINT32},
                 {DT_INT64, VX_VOXEL_INT64},     {DT_UINT64, VX_VOXEL_UINT64},
                 {DT_FLOAT32, VX_VOXEL_FLOAT32}, {DT_FLOAT64, VX_VOXEL_FLOAT64}};
    const char *name = nifti_datatype_string(f->datatype);
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (types[i].code != f->datatype) continue;
        int bytes, swap;
        nifti_datatype_sizes(f->datatype, &bytes, &swap);
        out->type = types[i].type;
        out->voxel_bytes = (size_t)bytes;
        size_t n = strlen(name);
        for (size_t k = 0; k <= n && k < sizeof out->dtype; k++)
            out->dtype[k] = (char)tolower((unsigned char)name[k]);
        return VX_OK;
    }
    static const int known[] = {DT_BINARY,     DT_COMPLEX64,  DT_RGB24, DT_FLOAT128,
                                DT_COMPLEX128, DT_COMPLEX256, DT_RGBA32};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (known[i] == f->datatype)
            return vx_fail(err, VX_ERR_INPUT,
                           "has %s voxels (integers, float32 or float64 are needed)", name);
    return vx_fail(err, VX_ERR_INPUT, "has a damaged header: voxels of unknown type %d",
                   f->datatype);
}

static vx_status take_offset(const fields *f, vx_nifti_header *out, vx_error *err) {
    double least = out->pair ? 0 : out->version == 1 ? 352 : 544;
    /* 0, which no single file should have, can only mean "right behind the header". */
    double offset = f->offset == 0 ? least : f->offset;
    if (!(offset >= least && offset <= 9007199254740992.0) || offset != floor(offset))
        return vx_fail(err, VX_ERR_INPUT,
                       "has a damaged header: voxels at byte %g (vox_offset must be whole, from "
                       "%g on)",
                       f->offset, least);
    out->offset = (uint64_t)offset;
    return VX_OK;
}

static vx_status take_scale(const fields *f, vx_nifti_header *out, vx_error *err) {
    out->slope = 1;
    out->inter = 0;
    /* nibabel's rule: no scaling for a slope that is 0, NaN or infinite. */
    if (f->slope == 0 || !isfinite(f->slope)) return VX_OK;
    if (!isfinite(f->inter))
        return vx_fail(err, VX_ERR_INPUT,
                       "has a damaged header: values are scaled by %g plus %g (scl_inter must be a "
                       "number)",
                       f->slope, f->inter);
    out->slope = f->slope;
    out->inter = f->inter;
    return VX_OK;
}

/* The qform: rotation by the unit quaternion (a, b, c, d), then spacing and offset (nifti1.h,
 * method 2). a is what b, c and d leave of 1; within the threshold that counts as nothing, as it
 * does for nibabel (nifticlib's own threshold is another: half turns would differ). */
static vx_status quaternion_affine(const fields *f, double unit, double m[4][4], vx_error *err) {
    double b = f->quatern[0], c = f->quatern[1], d = f->quatern[2];
    double a2 = 1 - (b * b + c * c + d * d);
    if (!(a2 >= -1e-4)) /* NaN too */
        return vx_fail(err, VX_ERR_INPUT,
                       "has a damaged header: its qform quaternion (%g, %g, %g) is not a rotation",
                       b, c, d);
    double a = a2 <= f->quatern_threshold ? 0 : sqrt(a2);
    double s = 2 / (a * a + b * b + c * c + d * d);
    const double r[3][3] = {{1 - s * (c * c + d * d), s * (b * c - a * d), s * (b * d + a * c)},
                            {s * (b * c + a * d), 1 - s * (b * b + d * d), s * (c * d - a * b)},
                            {s * (b * d - a * c), s * (c * d + a * b), 1 - s * (b * b + c * c)}};
    for (int row = 0; row < 3; row++) {
        for (int col = 0; col < 3; col++)
            m[row][col] = r[row][col] * fabs(f->pixdim[col + 1]) * unit;
        if (f->pixdim[0] < 0) m[row][2] = -m[row][2];
        m[row][3] = f->qoffset[row] * unit;
    }
    return VX_OK;
}

/* nibabel's choice: sform if its code is positive, else qform if its code is, else the spacing
 * around the grid's centre with x running to the left. */
static vx_status take_affine(const fields *f, vx_nifti_header *out, vx_error *err) {
    for (int i = 1; i <= 3; i++)
        if (!isfinite(f->pixdim[i]) || f->pixdim[i] == 0)
            return vx_fail(err, VX_ERR_INPUT,
                           "has a damaged header: a spacing of %g x %g x %g (repair pixdim)",
                           f->pixdim[1], f->pixdim[2], f->pixdim[3]);
    int space = XYZT_TO_SPACE(f->units);
    double unit = space == NIFTI_UNITS_METER ? 1000 : space == NIFTI_UNITS_MICRON ? 1e-3 : 1;
    out->unit = unit;
    bool has_s = f->sform_code > 0, has_q = f->qform_code > 0;
    vx_geometry *geo = &out->geo, q = *geo;
    q.affine[3][3] = geo->affine[3][3] = 1;
    vx_status s = has_q ? quaternion_affine(f, unit, q.affine, err) : VX_OK;
    if (s != VX_OK && !has_s) return s;
    bool good_q = has_q && s == VX_OK;
    for (int r = 0; r < 3; r++)
        for (int c = 0; c < 4; c++) {
            double centre = c == 3 ? ((double)geo->dims[r] - 1) / 2 : r == c ? 1 : 0;
            double plain = centre * fabs(f->pixdim[r + 1]) * unit;
            if ((r == 0) == (c < 3)) plain = -plain; /* x to the left; origins before the centre */
            geo->affine[r][c] = has_s ? f->srow[r][c] * unit : has_q ? q.affine[r][c] : plain;
        }
    s = vx_geometry_check(geo, err);
    if (s != VX_OK) return vx_fail_prefix(err, s, "has a damaged header");
    out->no_transform = !has_s && !has_q;
    out->shear = vx_shear(geo);
    if (has_s && good_q) {
        double spacing[3];
        vx_spacing(geo, spacing);
        out->disagreement =
            vx_geometry_distance(geo, &q) / fmin(fmin(spacing[0], spacing[1]), spacing[2]);
    }
    return VX_OK;
}

vx_status vx_nifti_parse(const unsigned char *bytes, vx_nifti_header *out, vx_error *err) {
    fields f;
    memset(out, 0, sizeof *out);
    vx_status s = take_raw(bytes, out, &f, err);
    if (s == VX_OK) s = take_dims(&f, out, err);
    if (s == VX_OK) s = take_type(&f, out, err);
    if (s == VX_OK) s = take_offset(&f, out, err);
    if (s == VX_OK) s = take_scale(&f, out, err);
    if (s == VX_OK) s = take_affine(&f, out, err);
    return s;
}

void vx_nifti_warn(const vx_nifti_header *header, const vx_log *log) {
    if (header->no_transform)
        vx_log_message(log, VX_LOG_WARNING,
                       "neither sform nor qform is set: left and right are a guess (x is taken to "
                       "run to the left, as nibabel does)");
    if (!(header->disagreement <= 0.1))
        vx_log_message(log, VX_LOG_WARNING,
                       "sform and qform disagree by %.2f voxels at a corner: the sform is used, "
                       "programs that use the qform will see the volume elsewhere",
                       header->disagreement);
    if (header->unit != 1)
        vx_log_message(log, VX_LOG_WARNING,
                       "the header's unit of length is %s: spacing and origin are multiplied by %g "
                       "(nibabel and others take them for mm)",
                       header->unit > 1 ? "the metre" : "the micrometre", header->unit);
    vx_warn_sheared(header->shear, log);
}

static void destroy_source(vx_source *source) { vx_free(source); }

vx_source *vx_nifti_source_create(const vx_nifti_header *header, int kind) {
    vx_nifti_source *source = vx_alloc_zero(1, sizeof *source);
    if (!source) return NULL;
    source->base = (vx_source){.references = 1, .kind = kind, .destroy = destroy_source};
    source->version = header->version;
    source->geo = header->geo;
    memcpy(source->raw, header->raw, sizeof source->raw);
    return &source->base;
}
