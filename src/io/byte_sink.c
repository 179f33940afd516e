#include "io/byte_sink.h"

#include "base/memory.h"
#include "io/gzip_blocks.h"

struct vx_byte_sink {
    vx_out_file *file;
    vx_gzip_blocks *gzip; /* NULL: as it is */
};

static vx_status to_file(void *user_data, const void *data, size_t bytes, vx_error *err) {
    return vx_out_write(((vx_byte_sink *)user_data)->file, data, bytes, err);
}

vx_status vx_sink_open(const char *path, bool gzip, int level, vx_pool *pool, vx_byte_sink **out,
                       vx_error *err) {
    *out = NULL;
    if (gzip && (level < 1 || level > 9))
        return vx_fail(err, VX_ERR_USAGE, "gzip levels are 1 to 9, not %d", level);
    vx_byte_sink *sink = vx_alloc_zero(1, sizeof *sink);
    if (!sink) return vx_fail(err, VX_ERR_RESOURCE, "out of memory");
    vx_status s = vx_out_open(path, &sink->file, err);
    if (s == VX_OK && gzip) s = vx_gzip_begin(level, pool, to_file, sink, &sink->gzip, err);
    if (s != VX_OK) {
        vx_sink_discard(sink);
        return s;
    }
    *out = sink;
    return VX_OK;
}

vx_status vx_sink_write(vx_byte_sink *sink, const void *data, size_t bytes, vx_error *err) {
    if (sink->gzip) return vx_gzip_write(sink->gzip, data, bytes, err);
    return vx_out_write(sink->file, data, bytes, err);
}

vx_status vx_sink_finish(vx_byte_sink *sink, bool replace, vx_out_file **keep, vx_error *err) {
    vx_status s = sink->gzip ? vx_gzip_end(sink->gzip, err) : VX_OK;
    if (s == VX_OK) {
        s = vx_out_finish(sink->file, replace, keep, err);
        sink->file = NULL;
    }
    vx_sink_discard(sink);
    return s;
}

void vx_sink_discard(vx_byte_sink *sink) {
    if (!sink) return;
    vx_out_discard(sink->file);
    vx_gzip_free(sink->gzip);
    vx_free(sink);
}
