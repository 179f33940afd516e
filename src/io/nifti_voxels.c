#include "io/nifti_voxels.h"

#include <math.h>
#include <string.h>

#include "base/memory.h"

#define CHUNK_VOXELS ((size_t)16384)
/* Bytes that may follow the voxels without being called damage: padding of blocks. */
#define PADDING ((uint64_t)1 << 20)

static void swap_voxels(unsigned char *p, size_t count, size_t bytes) {
    for (size_t i = 0; i < count; i++, p += bytes)
        for (size_t k = 0; k < bytes / 2; k++) {
            unsigned char t = p[k];
            p[k] = p[bytes - 1 - k];
            p[bytes - 1 - k] = t;
        }
}

/* Voxels in this machine's byte order to their scaled values. */
static void decode(const unsigned char *raw, size_t n, const vx_nifti_header *h, double *out) {
    const double slope = h->slope, inter = h->inter;
#define DECODE(type)                                                                               \
    for (size_t i = 0; i < n; i++) {                                                               \
        type v;                                                                                    \
        memcpy(&v, raw + i * sizeof v, sizeof v);                                                  \
        out[i] = (double)v * slope + inter;                                                        \
    }                                                                                              \
    break
    switch (h->type) {
    case VX_VOXEL_INT8:
        DECODE(int8_t);
    case VX_VOXEL_UINT8:
        DECODE(uint8_t);
    case VX_VOXEL_INT16:
        DECODE(int16_t);
    case VX_VOXEL_UINT16:
        DECODE(uint16_t);
    case VX_VOXEL_INT32:
        DECODE(int32_t);
    case VX_VOXEL_UINT32:
        DECODE(uint32_t);
    case VX_VOXEL_INT64:
        DECODE(int64_t);
    case VX_VOXEL_UINT64:
        DECODE(uint64_t);
    case VX_VOXEL_FLOAT32:
        DECODE(float);
    case VX_VOXEL_FLOAT64:
        DECODE(double);
    }
#undef DECODE
}

/* Voxels first .. first + n - 1, in this machine's byte order. */
static vx_status read_raw(const vx_nifti_header *h, vx_byte_stream *stream, size_t first, size_t n,
                          unsigned char *raw, vx_error *err) {
    const size_t voxels = vx_voxels(&h->geo);
    size_t got;
    vx_status s = vx_stream_read(stream, raw, n * h->voxel_bytes, &got, err);
    if (s == VX_OK && got < n * h->voxel_bytes)
        s = vx_fail(err, VX_ERR_INPUT,
                    "is truncated: %zu of %zu bytes of voxels are there (copy it again)",
                    first * h->voxel_bytes + got, voxels * h->voxel_bytes);
    if (s == VX_OK && h->swapped) swap_voxels(raw, n, h->voxel_bytes);
    return s;
}

static vx_status check_rest(const vx_nifti_header *h, vx_byte_stream *stream, const vx_log *log,
                            vx_error *err) {
    const size_t bytes = vx_voxels(&h->geo) * h->voxel_bytes;
    uint64_t rest = 0;
    vx_status s = vx_stream_finish(stream, bytes + PADDING, &rest, err);
    if (s == VX_OK && rest)
        vx_log_message(log, VX_LOG_WARNING, "%llu bytes behind the voxels are ignored",
                       (unsigned long long)rest);
    return s;
}

vx_status vx_nifti_stream(const vx_nifti_header *h, vx_byte_stream *stream, const vx_log *log,
                          vx_take_values take, void *ctx, vx_error *err) {
    const size_t voxels = vx_voxels(&h->geo);
    vx_status s = VX_OK;
    unsigned char *raw = vx_alloc(CHUNK_VOXELS * h->voxel_bytes);
    double *values = vx_alloc(CHUNK_VOXELS * sizeof *values);
    if (!raw || !values) s = vx_fail(err, VX_ERR_RESOURCE, "out of memory");
    for (size_t first = 0; first < voxels && s == VX_OK; first += CHUNK_VOXELS) {
        size_t n = voxels - first < CHUNK_VOXELS ? voxels - first : CHUNK_VOXELS;
        s = read_raw(h, stream, first, n, raw, err);
        if (s != VX_OK) break;
        decode(raw, n, h, values);
        s = take(ctx, first, values, n, err);
    }
    vx_free(raw);
    vx_free(values);
    return s == VX_OK ? check_rest(h, stream, log, err) : s;
}

/* ---- Images ---- */

enum { PIECES = 16, PIECE_VOXELS = 16384, STRIDE = 1024 };
#define BLOCK_VOXELS ((size_t)PIECES * PIECE_VOXELS)

/* A block that is converted while the next one is read. */
typedef struct image_job {
    const vx_nifti_header *header;
    vx_byte_stream *stream;
    const unsigned char
        *whole; /* all voxels as the file has them; NULL: they come from the stream */
    float *data;
    unsigned char *raw[2];   /* of this block, of the next one */
    size_t first, n, next_n; /* voxels */
    size_t bad[PIECES], first_bad[PIECES];
    vx_status status; /* of reading */
    vx_error err;
} image_job;

static void convert_piece(image_job *job, size_t piece) {
    const size_t from = piece * PIECE_VOXELS, left = job->n > from ? job->n - from : 0;
    const size_t n = left < PIECE_VOXELS ? left : PIECE_VOXELS;
    const unsigned char *raw = job->raw[0] + from * job->header->voxel_bytes;
    float *to = job->data + job->first + from;
    double values[STRIDE];
    job->bad[piece] = 0;
    for (size_t i = 0; i < n; i += STRIDE) {
        const size_t count = n - i < STRIDE ? n - i : STRIDE;
        decode(raw + i * job->header->voxel_bytes, count, job->header, values);
        for (size_t k = 0; k < count; k++) to[i + k] = (float)values[k];
        for (size_t k = 0; k < count; k++)
            if (!isfinite(to[i + k]) && job->bad[piece]++ == 0)
                job->first_bad[piece] = job->first + from + i + k;
    }
}

/* Of the next block, into raw[1]. */
static vx_status read_block(image_job *job) {
    const size_t first = job->first + job->n, bytes = job->header->voxel_bytes;
    if (!job->whole)
        return read_raw(job->header, job->stream, first, job->next_n, job->raw[1], &job->err);
    memcpy(job->raw[1], job->whole + first * bytes, job->next_n * bytes);
    if (job->header->swapped) swap_voxels(job->raw[1], job->next_n, bytes);
    return VX_OK;
}

/* Task 0 reads on. */
static void image_task(void *ctx, size_t task, unsigned worker) {
    image_job *job = ctx;
    (void)worker;
    if (task)
        convert_piece(job, task - 1);
    else if (job->next_n)
        job->status = read_block(job);
}

static size_t block_of(size_t voxels, size_t first) {
    return voxels - first < BLOCK_VOXELS ? voxels - first : BLOCK_VOXELS;
}

static vx_status convert_all(image_job *job, vx_pool *pool, size_t *bad, size_t *first_bad) {
    const size_t voxels = vx_voxels(&job->header->geo);
    job->next_n = block_of(voxels, 0);
    image_task(job, 0, 0);
    while (job->status == VX_OK && job->next_n) {
        unsigned char *read = job->raw[1];
        job->raw[1] = job->raw[0];
        job->raw[0] = read;
        job->first += job->n;
        job->n = job->next_n;
        job->next_n = block_of(voxels, job->first + job->n);
        vx_pool_run(pool, 1 + PIECES, image_task, job);
        for (size_t k = 0; k < PIECES; k++) {
            if (job->bad[k] && !*bad) *first_bad = job->first_bad[k];
            *bad += job->bad[k];
        }
    }
    return job->status;
}

/* Inflates a file of small voxels at once into the end of data, its packed bytes before that in the
 * front: floats take more room than both. Converting overwrites them from front to back: float i of
 * N lies at 4 i, what is not converted yet, of b bytes a voxel, from 4 N - b (N - i) on. Voxels are
 * copied out of the way a block ahead. False: the stream has to be read. */
static bool inflate_whole(image_job *job) {
    const vx_nifti_header *h = job->header;
    const size_t voxels = vx_voxels(&h->geo), room = voxels * sizeof(float);
    const size_t bytes = (size_t)h->offset + voxels * h->voxel_bytes; /* seek_voxels has checked */
    unsigned char *data = (unsigned char *)(void *)job->data;
    if (h->voxel_bytes > 2 || h->pair || !vx_stream_is_gzip(job->stream) || bytes > room ||
        vx_stream_file_size(job->stream) > room - bytes ||
        !vx_stream_inflate_whole(job->stream, data, data + room - bytes, bytes))
        return false;
    job->whole = data + room - voxels * h->voxel_bytes;
    return true;
}

vx_status vx_nifti_stream_image(const vx_nifti_header *h, vx_byte_stream *stream, vx_pool *pool,
                                const vx_log *log, float *data, size_t *bad, size_t *first_bad,
                                vx_error *err) {
    image_job job = {.header = h, .stream = stream, .data = data};
    *bad = *first_bad = 0;
    for (int i = 0; i < 2; i++) job.raw[i] = vx_alloc(BLOCK_VOXELS * h->voxel_bytes);
    vx_status s = VX_OK;
    if (!job.raw[0] || !job.raw[1])
        s = vx_fail(err, VX_ERR_RESOURCE, "out of memory");
    else
        (void)inflate_whole(&job);
    if (s == VX_OK && (s = convert_all(&job, pool, bad, first_bad)) != VX_OK && err) *err = job.err;
    vx_free(job.raw[0]);
    vx_free(job.raw[1]);
    return s == VX_OK && !job.whole ? check_rest(h, stream, log, err) : s;
}
