#include "volume/volume.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "base/memory.h"
#include "base/size.h"

vx_source *vx_source_ref(vx_source *source) {
    if (source) source->references++;
    return source;
}

void vx_source_unref(vx_source *source) {
    if (source && --source->references == 0) source->destroy(source);
}

/* Bytes of voxels * channels * element; false unless pointers into it can be subtracted. */
static bool data_bytes(const vx_geometry *geo, size_t channels, size_t element, size_t *bytes) {
    const size_t factors[] = {geo->dims[0], geo->dims[1], geo->dims[2], channels, element};
    return vx_product(factors, 5, bytes) && *bytes > 0 && *bytes <= (size_t)PTRDIFF_MAX;
}

static vx_status size_error(const vx_geometry *geo, size_t channels, vx_error *err) {
    return vx_fail(err, VX_ERR_INPUT, "a grid of %zux%zux%zu with %zu channels is impossible",
                   geo->dims[0], geo->dims[1], geo->dims[2], channels);
}

vx_status vx_volume_create(const vx_geometry *geo, size_t channels, vx_volume **out,
                           vx_error *err) {
    *out = NULL;
    size_t bytes;
    if (!data_bytes(geo, channels, sizeof(float), &bytes)) return size_error(geo, channels, err);
    vx_volume *volume = vx_alloc_zero(1, sizeof *volume);
    if (volume) volume->data = vx_alloc(bytes);
    if (!volume || !volume->data) {
        vx_free(volume);
        return vx_fail(err, VX_ERR_RESOURCE, "out of memory (the volume needs %zu MB)",
                       bytes / 1000000);
    }
    volume->geo = *geo;
    volume->channels = channels;
    *out = volume;
    return VX_OK;
}

void vx_volume_free(vx_volume *volume) {
    if (!volume) return;
    vx_source_unref(volume->source);
    vx_free(volume->data);
    vx_free(volume);
}

vx_status vx_mask_create(const vx_geometry *geo, unsigned bytes, vx_mask **out, vx_error *err) {
    *out = NULL;
    if (bytes != 1 && bytes != 2)
        return vx_fail(err, VX_ERR_USAGE, "masks have 1 or 2 bytes a voxel, not %u", bytes);
    size_t size;
    if (!data_bytes(geo, 1, bytes, &size)) return size_error(geo, 1, err);
    vx_mask *mask = vx_alloc_zero(1, sizeof *mask);
    if (mask) mask->data = vx_alloc_zero(size, 1);
    if (!mask || !mask->data) {
        vx_free(mask);
        return vx_fail(err, VX_ERR_RESOURCE, "out of memory (the mask needs %zu MB)",
                       size / 1000000);
    }
    mask->geo = *geo;
    mask->bytes = bytes;
    *out = mask;
    return VX_OK;
}

void vx_mask_free(vx_mask *mask) {
    if (!mask) return;
    vx_source_unref(mask->source);
    vx_free(mask->data);
    vx_free(mask);
}

/* s rounded to six significant decimal digits. */
static double six_digits(double s) {
    double unit = pow(10.0, floor(log10(s)) - 5.0);
    /* Small units are divided by, so that 0.7 comes out as the double nearest to 0.7. */
    return unit < 1.0 ? nearbyint(s / unit) / nearbyint(1.0 / unit) : nearbyint(s / unit) * unit;
}

/* The length of an oblique column carries the rounding of three stored numbers: a grid of 1 x 1 x 3
 * mm reads back as 1.00000003 x 0.99999998 x 3.00000007. Yet sizes (half rounds to even) and the
 * separate axis (ratio > 3, equal coarse axes) hang on exact values. So a length that differs from
 * a number of six digits by no more than that rounding is taken to be that number, in the precision
 * the file can have had (float32 in NIfTI-1, double elsewhere). */
static double denoise(double s) {
    if (!(s > 1e-30 && s < 1e30)) return s;
    double r = six_digits(s);
    if (fabs(s - r) <= 1e-12 * s) return r;
    if (fabs(s - r) <= 4e-7 * s) return (double)(float)r;
    return s;
}

void vx_spacing(const vx_geometry *geo, double spacing[3]) {
    for (int c = 0; c < 3; c++) {
        double sum = 0, only = 0;
        int non_zero = 0;
        for (int r = 0; r < 3; r++) {
            double v = geo->affine[r][c];
            sum += v * v;
            if (v != 0) {
                non_zero++;
                only = fabs(v);
            }
        }
        spacing[c] = non_zero == 1 ? only : denoise(sqrt(sum)); /* along an axis: exact as stored */
    }
}

void vx_affine_apply(const double affine[4][4], const double index[3], double world[3]) {
    double w[3];
    for (int r = 0; r < 3; r++)
        w[r] = affine[r][0] * index[0] + affine[r][1] * index[1] + affine[r][2] * index[2] +
               affine[r][3];
    memcpy(world, w, sizeof w);
}

int vx_affine_invert(const double affine[4][4], double inverse[4][4]) {
    double length[3], n[3][3];
    for (int c = 0; c < 3; c++) {
        length[c] = sqrt(affine[0][c] * affine[0][c] + affine[1][c] * affine[1][c] +
                         affine[2][c] * affine[2][c]);
        if (!(length[c] > 0) || !isfinite(length[c])) return 0;
        for (int r = 0; r < 3; r++) n[r][c] = affine[r][c] / length[c];
    }
    /* Cofactors of the matrix of unit columns; its determinant is the volume of a voxel relative to
     * its edges. */
    double cof[3][3];
    for (int r = 0; r < 3; r++)
        for (int c = 0; c < 3; c++) {
            int r1 = (r + 1) % 3, r2 = (r + 2) % 3, c1 = (c + 1) % 3, c2 = (c + 2) % 3;
            cof[r][c] = n[r1][c1] * n[r2][c2] - n[r1][c2] * n[r2][c1];
        }
    double det = n[0][0] * cof[0][0] + n[0][1] * cof[0][1] + n[0][2] * cof[0][2];
    if (!(fabs(det) > 1e-12)) return 0;
    double result[4][4] = {{0}};
    for (int r = 0; r < 3; r++) {
        for (int c = 0; c < 3; c++) result[r][c] = cof[c][r] / det / length[r];
        result[r][3] = -(result[r][0] * affine[0][3] + result[r][1] * affine[1][3] +
                         result[r][2] * affine[2][3]);
    }
    result[3][3] = 1;
    memcpy(inverse, result, sizeof result);
    return 1;
}

double vx_shear(const vx_geometry *geo) {
    const double(*m)[4] = geo->affine;
    double largest = 0;
    for (int i = 0; i < 3; i++) {
        int j = (i + 1) % 3;
        double dot = 0, ii = 0, jj = 0;
        for (int r = 0; r < 3; r++) {
            dot += m[r][i] * m[r][j];
            ii += m[r][i] * m[r][i];
            jj += m[r][j] * m[r][j];
        }
        largest = fmax(largest, fabs(dot) / sqrt(ii * jj));
    }
    return largest;
}

vx_status vx_geometry_check(const vx_geometry *geo, vx_error *err) {
    size_t bytes;
    if (!data_bytes(geo, 1, sizeof(float), &bytes)) return size_error(geo, 1, err);
    for (int r = 0; r < 4; r++)
        for (int c = 0; c < 4; c++) {
            if (!isfinite(geo->affine[r][c]))
                return vx_fail(err, VX_ERR_INPUT,
                               "the affine has an entry that is not a finite number (repair the "
                               "header)");
            if (fabs(geo->affine[r][c]) > 1e6)
                return vx_fail(err, VX_ERR_INPUT,
                               "the affine holds %g mm: no patient is that large or that far away "
                               "(repair the header)",
                               geo->affine[r][c]);
            if (r == 3 && geo->affine[r][c] != (c == 3 ? 1 : 0))
                return vx_fail(err, VX_ERR_INPUT, "the affine's last row is not 0 0 0 1");
        }
    double inverse[4][4];
    if (!vx_affine_invert(geo->affine, inverse))
        return vx_fail(err, VX_ERR_INPUT,
                       "the affine is singular: voxels have no volume (repair the header)");
    return VX_OK;
}

double vx_geometry_distance(const vx_geometry *a, const vx_geometry *b) {
    double largest = 0;
    for (int i = 0; i < 3; i++)
        if (a->dims[i] != b->dims[i]) return INFINITY;
    for (int corner = 0; corner < 8; corner++) {
        double index[3], wa[3], wb[3];
        for (int i = 0; i < 3; i++) index[i] = corner >> i & 1 ? (double)(a->dims[i] - 1) : 0;
        vx_affine_apply(a->affine, index, wa);
        vx_affine_apply(b->affine, index, wb);
        double d = hypot(hypot(wa[0] - wb[0], wa[1] - wb[1]), wa[2] - wb[2]);
        if (!(d <= largest)) largest = d; /* a NaN is kept */
    }
    return largest;
}
