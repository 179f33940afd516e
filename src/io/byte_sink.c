#include "io/byte_sink.h"

#include <zlib.h>

#include "base/memory.h"
#include "base/out_file.h"

#define CHUNK ((size_t)1 << 18)

struct vx_byte_sink {
    vx_out_file *file;
    bool gzip, deflating;
    z_stream z;
    unsigned char *packed; /* CHUNK bytes */
};

vx_status vx_sink_open(const char *path, bool gzip, int level, vx_byte_sink **out, vx_error *err) {
    *out = NULL;
    if (gzip && (level < 1 || level > 9))
        return vx_fail(err, VX_ERR_USAGE, "gzip levels are 1 to 9, not %d", level);
    vx_byte_sink *sink = vx_alloc_zero(1, sizeof *sink);
    if (sink) sink->packed = vx_alloc(CHUNK);
    if (!sink || !sink->packed) {
        vx_free(sink);
        return vx_fail(err, VX_ERR_RESOURCE, "out of memory");
    }
    sink->gzip = gzip;
    if (gzip) {
        int code = deflateInit2(&sink->z, level, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY);
        if (code != Z_OK) {
            vx_sink_discard(sink);
            return vx_fail(err, VX_ERR_RESOURCE, "out of memory");
        }
        sink->deflating = true;
    }
    vx_status s = vx_out_open(path, &sink->file, err);
    if (s != VX_OK) {
        vx_sink_discard(sink);
        return s;
    }
    *out = sink;
    return VX_OK;
}

/* Deflates what z.next_in has; with Z_FINISH to the end of the stream. */
static vx_status deflate_all(vx_byte_sink *sink, int flush, vx_error *err) {
    int code;
    do {
        sink->z.next_out = sink->packed;
        sink->z.avail_out = (uInt)CHUNK;
        code = deflate(&sink->z, flush);
        if (code == Z_STREAM_ERROR) return vx_fail(err, VX_ERR_OUTPUT, "cannot be compressed");
        size_t n = CHUNK - sink->z.avail_out;
        vx_status s = n ? vx_out_write(sink->file, sink->packed, n, err) : VX_OK;
        if (s != VX_OK) return s;
    } while (sink->z.avail_out == 0 || (flush == Z_FINISH && code != Z_STREAM_END));
    return VX_OK;
}

vx_status vx_sink_write(vx_byte_sink *sink, const void *data, size_t bytes, vx_error *err) {
    if (!sink->gzip) return vx_out_write(sink->file, data, bytes, err);
    const unsigned char *p = data;
    while (bytes) {
        size_t n = bytes < ((size_t)1 << 30) ? bytes : (size_t)1 << 30; /* zlib counts in 32 bits */
        /* z_const is not set in every zlib: it never writes to its input. */
        sink->z.next_in = (Bytef *)(void *)p;
        sink->z.avail_in = (uInt)n;
        vx_status s = deflate_all(sink, Z_NO_FLUSH, err);
        if (s != VX_OK) return s;
        p += n;
        bytes -= n;
    }
    return VX_OK;
}

static void free_sink(vx_byte_sink *sink) {
    if (sink->deflating) deflateEnd(&sink->z);
    vx_free(sink->packed);
    vx_free(sink);
}

vx_status vx_sink_commit(vx_byte_sink *sink, bool replace, vx_error *err) {
    vx_status s = VX_OK;
    if (sink->gzip) {
        sink->z.avail_in = 0;
        s = deflate_all(sink, Z_FINISH, err);
    }
    if (s == VX_OK)
        s = vx_out_commit(sink->file, replace, err);
    else
        vx_out_discard(sink->file);
    free_sink(sink);
    return s;
}

void vx_sink_discard(vx_byte_sink *sink) {
    if (!sink) return;
    vx_out_discard(sink->file);
    free_sink(sink);
}
