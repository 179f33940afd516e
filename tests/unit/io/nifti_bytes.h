/* NIfTI files made byte by byte from the standard's field offsets, without any NIfTI library. */
#ifndef VX_TESTS_NIFTI_BYTES_H
#define VX_TESTS_NIFTI_BYTES_H

#include <stddef.h>
#include <stdint.h>

enum { NIFTI_FILE_MAX = 8192 };

typedef struct nifti_bytes {
    unsigned char bytes[NIFTI_FILE_MAX];
    size_t size;
} nifti_bytes;

/* Field offsets of NIfTI-1 (nifti1.h) and NIfTI-2 (nifti2.h). */
enum {
    N1_DIM = 40,
    N1_DATATYPE = 70,
    N1_PIXDIM = 76,
    N1_VOX_OFFSET = 108,
    N1_SLOPE = 112,
    N1_INTER = 116,
    N1_UNITS = 123,
    N1_QFORM_CODE = 252,
    N1_SFORM_CODE = 254,
    N1_QUATERN = 256,
    N1_SROW = 280,
    N1_MAGIC = 344,
    N2_DATATYPE = 12,
    N2_DIM = 16,
    N2_PIXDIM = 104,
    N2_VOX_OFFSET = 168,
    N2_SFORM_CODE = 348,
    N2_SROW = 400
};

void put_i16(unsigned char *p, int v);
void put_i32(unsigned char *p, int32_t v);
void put_i64(unsigned char *p, int64_t v);
void put_f32(unsigned char *p, float v);
void put_f64(unsigned char *p, double v);

/* A valid single file of 4 x 3 x 2 int16 voxels with values 0..23, spacing 1 x 2 x 3 by its sform.
 */
void nifti1_file(nifti_bytes *f);
void nifti2_file(nifti_bytes *f);

void write_file(const char *path, const void *data, size_t size);
/* The gzip form of data; returns its size. */
size_t gzip_bytes(const void *data, size_t size, unsigned char *out, size_t room);

#endif
