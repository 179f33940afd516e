/* Volumes, masks and their place in the patient.
 *
 * Memory order is the files' order: x fastest, then y, then z. Tensors read the same bytes as
 * [D=z][H=y][W=x]. The world is RAS millimetres (NIfTI's); DICOM and NRRD readers convert from LPS
 * once. Voxel indices name voxel centres: index (0,0,0) is the centre of the first voxel.
 */
#ifndef VX_VOLUME_VOLUME_H
#define VX_VOLUME_VOLUME_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

typedef struct vx_geometry {
    size_t dims[3];      /* x, y, z */
    double affine[4][4]; /* (x, y, z, 1) of a voxel centre -> RAS mm; last row 0 0 0 1 */
} vx_geometry;

/* What a reader keeps of the file so that a mask can be written on the very same grid (both NIfTI
 * transforms with codes and units, DICOM references). Opaque: only src/io looks inside. Counted
 * references, not thread-safe. Embed it as the first member. */
typedef struct vx_source {
    unsigned references;
    int kind; /* vx_format of src/io/io.h */
    void (*destroy)(struct vx_source *source);
} vx_source;

vx_source *vx_source_ref(vx_source *source); /* NULL is fine */
void vx_source_unref(vx_source *source);     /* NULL is fine */

/* An image. data holds channels one after the other: [channel][z][y][x], float32, scale applied. */
typedef struct vx_volume {
    vx_geometry geo;
    size_t channels;
    float *data;
    vx_source *source; /* may be NULL */
} vx_volume;

/* A label map, [z][y][x]. bytes is 1 (uint8_t) or 2 (uint16_t, native byte order). */
typedef struct vx_mask {
    vx_geometry geo;
    unsigned bytes;
    void *data;
    vx_source *source; /* may be NULL */
} vx_mask;

/* data uninitialised, source NULL. VX_ERR_INPUT when the size overflows, VX_ERR_RESOURCE without
 * memory. */
vx_status vx_volume_create(const vx_geometry *geo, size_t channels, vx_volume **out, vx_error *err);
void vx_volume_free(vx_volume *volume);
/* data zeroed. bytes 1 or 2. */
vx_status vx_mask_create(const vx_geometry *geo, unsigned bytes, vx_mask **out, vx_error *err);
void vx_mask_free(vx_mask *mask);

static inline unsigned vx_mask_get(const vx_mask *mask, size_t i) {
    return mask->bytes == 1 ? ((const uint8_t *)mask->data)[i] : ((const uint16_t *)mask->data)[i];
}
static inline void vx_mask_set(vx_mask *mask, size_t i, unsigned value) {
    if (mask->bytes == 1)
        ((uint8_t *)mask->data)[i] = (uint8_t)value;
    else
        ((uint16_t *)mask->data)[i] = (uint16_t)value;
}

/* Number of voxels; dims were checked at creation. */
static inline size_t vx_voxels(const vx_geometry *geo) {
    return geo->dims[0] * geo->dims[1] * geo->dims[2];
}

/* Volume of a voxel in mm^3: the affine's determinant, since voxels of a sheared grid are not
 * boxes. */
static inline double vx_voxel_mm3(const vx_geometry *geo) {
    const double(*m)[4] = geo->affine;
    return fabs(m[0][0] * (m[1][1] * m[2][2] - m[1][2] * m[2][1]) -
                m[0][1] * (m[1][0] * m[2][2] - m[1][2] * m[2][0]) +
                m[0][2] * (m[1][0] * m[2][1] - m[1][1] * m[2][0]));
}

/* Lengths of the affine's columns: mm along x, y, z. */
void vx_spacing(const vx_geometry *geo, double spacing[3]);
/* Largest |cosine| between two of the grid's axes: 0 where all are perpendicular, 1 for a singular
 * affine. */
double vx_shear(const vx_geometry *geo);
void vx_affine_apply(const double affine[4][4], const double index[3], double world[3]);
/* False for a singular affine (volume of a voxel below 1e-12 of the product of its edges). */
int vx_affine_invert(const double affine[4][4], double inverse[4][4]);
/* VX_ERR_INPUT unless dims are >= 1, their product fits, and the affine is finite, not singular and
 * without an entry above 1e6 (1 km: single precision no longer has a tenth of a mm beyond it). */
vx_status vx_geometry_check(const vx_geometry *geo, vx_error *err);
/* Largest distance in mm between the world positions of the eight corners; grids of other dims:
 * infinity. */
double vx_geometry_distance(const vx_geometry *a, const vx_geometry *b);

#endif
