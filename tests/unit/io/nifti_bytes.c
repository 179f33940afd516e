#include "nifti_bytes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

static void put(unsigned char *p, uint64_t v, int bytes) {
    for (int i = 0; i < bytes; i++) p[i] = (unsigned char)(v >> 8 * i);
}

void put_i16(unsigned char *p, int v) { put(p, (uint64_t)v, 2); }
void put_i32(unsigned char *p, int32_t v) { put(p, (uint64_t)v, 4); }
void put_i64(unsigned char *p, int64_t v) { put(p, (uint64_t)v, 8); }

void put_f32(unsigned char *p, float v) {
    uint32_t u;
    memcpy(&u, &v, sizeof u);
    put(p, u, 4);
}

void put_f64(unsigned char *p, double v) {
    uint64_t u;
    memcpy(&u, &v, sizeof u);
    put(p, u, 8);
}

static const int dims[4] = {3, 4, 3, 2};

static void put_voxels(nifti_bytes *f, size_t offset) {
    for (int i = 0; i < 24; i++) put_i16(f->bytes + offset + 2 * (size_t)i, i);
    f->size = offset + 48;
}

void nifti1_file(nifti_bytes *f) {
    memset(f, 0, sizeof *f);
    unsigned char *b = f->bytes;
    put_i32(b, 348);
    for (size_t i = 0; i < 8; i++) put_i16(b + N1_DIM + 2 * i, i < 4 ? dims[i] : 1);
    put_i16(b + N1_DATATYPE, 4);
    put_i16(b + N1_DATATYPE + 2, 16);
    for (size_t i = 0; i < 8; i++) put_f32(b + N1_PIXDIM + 4 * i, i < 4 && i ? (float)i : 1);
    put_f32(b + N1_VOX_OFFSET, 352);
    put_f32(b + N1_SLOPE, 1);
    b[N1_UNITS] = 2;
    put_i16(b + N1_SFORM_CODE, 1);
    for (size_t i = 0; i < 3; i++) put_f32(b + N1_SROW + 20 * i, (float)i + 1);
    memcpy(b + N1_MAGIC, "n+1", 4);
    put_voxels(f, 352);
}

void nifti2_file(nifti_bytes *f) {
    memset(f, 0, sizeof *f);
    unsigned char *b = f->bytes;
    put_i32(b, 540);
    memcpy(b + 4, "n+2\0\r\n\032\n", 8);
    put_i16(b + N2_DATATYPE, 4);
    put_i16(b + N2_DATATYPE + 2, 16);
    for (size_t i = 0; i < 8; i++) put_i64(b + N2_DIM + 8 * i, i < 4 ? dims[i] : 1);
    for (size_t i = 0; i < 8; i++) put_f64(b + N2_PIXDIM + 8 * i, i < 4 && i ? (double)i : 1);
    put_i64(b + N2_VOX_OFFSET, 544);
    put_f64(b + 176, 1);
    put_i32(b + N2_SFORM_CODE, 1);
    for (size_t i = 0; i < 3; i++) put_f64(b + N2_SROW + 40 * i, (double)i + 1);
    put_i32(b + 500, 2);
    put_voxels(f, 544);
}

void write_file(const char *path, const void *data, size_t size) {
    /* A new file each time: file systems write a truncated one to the disk at once. */
    (void)remove(path);
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(data, 1, size, f) != size || fclose(f) != 0) abort();
}

size_t gzip_bytes(const void *data, size_t size, unsigned char *out, size_t room) {
    z_stream z;
    memset(&z, 0, sizeof z);
    if (deflateInit2(&z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK) abort();
    z.next_in = (Bytef *)(uintptr_t)data;
    z.avail_in = (uInt)size;
    z.next_out = out;
    z.avail_out = (uInt)room;
    if (deflate(&z, Z_FINISH) != Z_STREAM_END) abort();
    size_t n = room - z.avail_out;
    deflateEnd(&z);
    return n;
}
