#include "io/byte_stream.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "base/memory.h"
#include "io/gzip_whole.h"

#define CHUNK ((size_t)1 << 18)

struct vx_byte_stream {
    int fd;
    uint64_t file_size;
    bool gzip;
    bool inflating; /* z is initialised */
    bool member_done;
    z_stream z;
    unsigned char *raw; /* CHUNK bytes of the file */
    size_t raw_from, raw_to;
};

/* More file bytes into an empty raw buffer; an empty buffer afterwards means the end. */
static vx_status fill(vx_byte_stream *s, vx_error *err) {
    ssize_t n;
    do n = read(s->fd, s->raw, CHUNK);
    while (n < 0 && errno == EINTR);
    if (n < 0) return vx_fail(err, VX_ERR_INPUT, "cannot be read: %s", strerror(errno));
    s->raw_from = 0;
    s->raw_to = (size_t)n;
    return VX_OK;
}

vx_status vx_stream_open(const char *path, vx_byte_stream **out, vx_error *err) {
    *out = NULL;
    struct stat st;
    /* O_NONBLOCK: a pipe without a writer must not hang us before we can refuse it. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &st) != 0) {
        vx_status status = vx_fail(err, VX_ERR_INPUT, "cannot be opened: %s", strerror(errno));
        if (fd >= 0) close(fd);
        return status;
    }
    if (!S_ISREG(st.st_mode) || st.st_size <= 0) {
        close(fd);
        return S_ISREG(st.st_mode) ? vx_fail(err, VX_ERR_INPUT, "is empty")
                                   : vx_fail(err, VX_ERR_INPUT, "is not a regular file");
    }
    vx_byte_stream *s = vx_alloc_zero(1, sizeof *s);
    if (s) s->raw = vx_alloc(CHUNK);
    if (!s || !s->raw) {
        close(fd);
        vx_free(s);
        return vx_fail(err, VX_ERR_RESOURCE, "out of memory");
    }
    s->fd = fd;
    s->file_size = (uint64_t)st.st_size;
    vx_status status = fill(s, err);
    if (status == VX_OK && s->raw_to >= 2 && s->raw[0] == 0x1f && s->raw[1] == 0x8b) {
        s->gzip = true;
        /* 15 + 16: the largest window, gzip wrapping with its checksum. */
        if (inflateInit2(&s->z, 15 + 16) == Z_OK)
            s->inflating = true;
        else
            status = vx_fail(err, VX_ERR_RESOURCE, "out of memory");
    }
    if (status != VX_OK) {
        vx_stream_close(s);
        return status;
    }
    *out = s;
    return VX_OK;
}

void vx_stream_close(vx_byte_stream *s) {
    if (!s) return;
    if (s->inflating) inflateEnd(&s->z);
    close(s->fd);
    vx_free(s->raw);
    vx_free(s);
}

bool vx_stream_is_gzip(const vx_byte_stream *s) { return s->gzip; }

uint64_t vx_stream_file_size(const vx_byte_stream *s) { return s->file_size; }

/* After a gzip member: zeros (padding of tapes and block devices), another member, or the end. */
static vx_status next_member(vx_byte_stream *s, bool *end, vx_error *err) {
    for (;;) {
        while (s->raw_from < s->raw_to && s->raw[s->raw_from] == 0) s->raw_from++;
        if (s->raw_from < s->raw_to) break;
        vx_status status = fill(s, err);
        if (status != VX_OK) return status;
        if (s->raw_to == 0) {
            *end = true;
            return VX_OK;
        }
    }
    if (s->raw[s->raw_from] != 0x1f)
        return vx_fail(err, VX_ERR_INPUT, "has garbage behind its gzip data (copy it again)");
    if (inflateReset(&s->z) != Z_OK) return vx_fail(err, VX_ERR_INPUT, "has damaged gzip data");
    s->member_done = false;
    *end = false;
    return VX_OK;
}

static vx_status gzip_error(const vx_byte_stream *s, int code, vx_error *err) {
    if (code == Z_MEM_ERROR) return vx_fail(err, VX_ERR_RESOURCE, "out of memory");
    const char *why = s->z.msg ? s->z.msg : "unexpected end";
    if (strstr(why, "check"))
        why = strstr(why, "length") ? "wrong length in its trailer" : "wrong checksum";
    return vx_fail(err, VX_ERR_INPUT, "has damaged gzip data: %s (copy it again)", why);
}

static vx_status read_gzip(vx_byte_stream *s, unsigned char *data, size_t bytes, size_t *got,
                           vx_error *err) {
    while (*got < bytes) {
        if (s->member_done) {
            bool end = false;
            vx_status status = next_member(s, &end, err);
            if (status != VX_OK || end) return status;
        }
        if (s->raw_from == s->raw_to) {
            vx_status status = fill(s, err);
            if (status != VX_OK) return status;
            if (s->raw_to == 0)
                return vx_fail(err, VX_ERR_INPUT,
                               "is truncated: its gzip data ends too early (copy it again)");
        }
        size_t want = bytes - *got < CHUNK ? bytes - *got : CHUNK;
        s->z.next_in = s->raw + s->raw_from;
        s->z.avail_in = (uInt)(s->raw_to - s->raw_from);
        s->z.next_out = data + *got;
        s->z.avail_out = (uInt)want;
        int code = inflate(&s->z, Z_NO_FLUSH);
        s->raw_from = s->raw_to - s->z.avail_in;
        *got += want - s->z.avail_out;
        if (code == Z_STREAM_END)
            s->member_done = true;
        else if (code != Z_OK && code != Z_BUF_ERROR)
            return gzip_error(s, code, err);
    }
    return VX_OK;
}

static vx_status read_plain(vx_byte_stream *s, unsigned char *data, size_t bytes, size_t *got,
                            vx_error *err) {
    while (*got < bytes) {
        if (s->raw_from == s->raw_to) {
            vx_status status = fill(s, err);
            if (status != VX_OK || s->raw_to == 0) return status;
        }
        size_t there = s->raw_to - s->raw_from, n = bytes - *got < there ? bytes - *got : there;
        memcpy(data + *got, s->raw + s->raw_from, n);
        s->raw_from += n;
        *got += n;
    }
    return VX_OK;
}

vx_status vx_stream_read(vx_byte_stream *s, void *data, size_t bytes, size_t *got, vx_error *err) {
    *got = 0;
    return s->gzip ? read_gzip(s, data, bytes, got, err) : read_plain(s, data, bytes, got, err);
}

bool vx_stream_inflate_whole(vx_byte_stream *s, void *room, void *out, size_t bytes) {
    return s->gzip && vx_gzip_inflate_whole(s->fd, room, (size_t)s->file_size, out, bytes);
}

vx_status vx_stream_skip(vx_byte_stream *s, uint64_t bytes, uint64_t *got, vx_error *err) {
    unsigned char waste[4096];
    *got = 0;
    while (*got < bytes) {
        size_t want = bytes - *got < sizeof waste ? (size_t)(bytes - *got) : sizeof waste, n;
        vx_status status = vx_stream_read(s, waste, want, &n, err);
        if (status != VX_OK) return status;
        *got += n;
        if (n < want) break;
    }
    return VX_OK;
}

vx_status vx_stream_finish(vx_byte_stream *s, uint64_t limit, uint64_t *rest, vx_error *err) {
    vx_status status = vx_stream_skip(s, limit, rest, err);
    if (status != VX_OK || *rest < limit) return status;
    unsigned char one;
    size_t got;
    status = vx_stream_read(s, &one, 1, &got, err);
    if (status == VX_OK && got)
        return vx_fail(err, VX_ERR_INPUT,
                       "holds far more data than its header announces (repair the header)");
    return status;
}
