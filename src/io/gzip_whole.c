#include "io/gzip_whole.h"

#include <errno.h>
#include <libdeflate.h>
#include <unistd.h>

static bool read_whole(int fd, unsigned char *to, size_t bytes) {
    for (size_t done = 0; done < bytes;) {
        const ssize_t n = pread(fd, to + done, bytes - done, (off_t)done);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false; /* also where the file has become shorter */
        done += (size_t)n;
    }
    return true;
}

bool vx_gzip_inflate_whole(int fd, void *packed, size_t file_bytes, void *out, size_t out_bytes) {
    if (!read_whole(fd, packed, file_bytes)) return false;
    struct libdeflate_decompressor *d = libdeflate_alloc_decompressor();
    if (!d) return false;
    size_t used = 0;
    /* Without an address for its length the output has to fill its room exactly. */
    const enum libdeflate_result result =
        libdeflate_gzip_decompress_ex(d, packed, file_bytes, out, out_bytes, &used, NULL);
    libdeflate_free_decompressor(d);
    return result == LIBDEFLATE_SUCCESS && used == file_bytes;
}
