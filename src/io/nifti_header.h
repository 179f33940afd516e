/* NIfTI headers: checked, understood, built. nifti_header.c and nifti_build.c alone see nifticlib.
 *
 * nifticlib gives the header structs, their byte swapping, the table of data types and the
 * quaternion of a matrix. Its readers are not used: they accept a vox_offset of NaN or 1e30, a
 * missing gzip trailer and a bad checksum, replace bad dims and spacings silently, and print to
 * stderr. So the raw header is checked here, and nifti.c streams the voxels itself. */
#ifndef VX_IO_NIFTI_HEADER_H
#define VX_IO_NIFTI_HEADER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/log.h"
#include "volume/volume.h"

enum {
    VX_NIFTI1_BYTES = 348, /* of the header; sizeof_hdr, which also tells the version */
    VX_NIFTI2_BYTES = 540,
    VX_NIFTI_MAX_BYTES = 544 /* header and the four bytes that announce extensions */
};

/* Voxel types that become float32. */
typedef enum vx_voxel_type {
    VX_VOXEL_INT8,
    VX_VOXEL_UINT8,
    VX_VOXEL_INT16,
    VX_VOXEL_UINT16,
    VX_VOXEL_INT32,
    VX_VOXEL_UINT32,
    VX_VOXEL_INT64,
    VX_VOXEL_UINT64,
    VX_VOXEL_FLOAT32,
    VX_VOXEL_FLOAT64
} vx_voxel_type;

typedef struct vx_nifti_header {
    int version;  /* 1 or 2 */
    bool swapped; /* the file has the other byte order */
    bool pair;    /* voxels are in the .img file */
    vx_geometry geo;
    vx_voxel_type type;
    char dtype[16];      /* numpy's name */
    size_t voxel_bytes;  /* of one voxel in the file */
    uint64_t offset;     /* of the first voxel in its file */
    double slope, inter; /* 1 and 0 when the file does not scale */
    /* What the log is told. */
    bool no_transform;   /* neither sform nor qform: the affine is made of the spacing alone */
    double disagreement; /* voxels between sform and qform at the farthest corner; 0 unless both */
    double unit;         /* mm that the header's unit of length is taken for */
    double shear;        /* largest |cosine| between two axes */
    unsigned char raw[VX_NIFTI2_BYTES]; /* the header in this machine's byte order */
} vx_nifti_header;

/* The version that the first four bytes announce (the header is 348 or 540 bytes long), 0: none. */
int vx_nifti_version(const unsigned char first[4]);
/* bytes: VX_NIFTI1_BYTES or VX_NIFTI2_BYTES of them, by vx_nifti_version. VX_ERR_INPUT with the
 * reason: ANALYZE 7.5, 2D, 4D, RGB, complex, long double, impossible sizes, offsets, spacings,
 * scales or transforms. */
vx_status vx_nifti_parse(const unsigned char *bytes, vx_nifti_header *out, vx_error *err);
/* Warnings that the header deserves. */
void vx_nifti_warn(const vx_nifti_header *header, const vx_log *log);

/* What a volume remembers of its file. kind is VX_FORMAT_NIFTI or VX_FORMAT_NIFTI_GZ. */
typedef struct vx_nifti_source {
    vx_source base;
    int version;
    vx_geometry geo;
    unsigned char raw[VX_NIFTI2_BYTES];
} vx_nifti_source;

/* With one reference; NULL without memory. */
vx_source *vx_nifti_source_create(const vx_nifti_header *header, int kind);

typedef enum vx_nifti_content {
    VX_NIFTI_LABELS_UINT8,
    VX_NIFTI_LABELS_UINT16,
    VX_NIFTI_FLOAT32
} vx_nifti_content;

/* Header and extension marker of a single file on geo's grid; *size bytes. Where source is a NIfTI
 * record of the same grid (within 1e-3 mm), its version, both transforms with codes, pixdim and
 * units are copied bit for bit; else both transforms are made from geo with code 1 (a sheared grid
 * has no qform: code 0). NIfTI-2 when source is, or when a dimension exceeds 32767. */
vx_status vx_nifti_build(const vx_geometry *geo, const vx_source *source, vx_nifti_content content,
                         unsigned char out[VX_NIFTI_MAX_BYTES], size_t *size, vx_error *err);

#endif
