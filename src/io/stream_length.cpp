#include "io/stream_length.h"

#include <zlib.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <vector>

#include "io/cxx_boundary.h"

namespace vx_io {

namespace {

struct FileCloser {
    void operator()(std::FILE *f) const { std::fclose(f); }
};
using File = std::unique_ptr<std::FILE, FileCloser>;

struct Inflater {
    z_stream s{};
    explicit Inflater(int window_bits) {
        if (inflateInit2(&s, window_bits) != Z_OK) throw std::bad_alloc();
    }
    ~Inflater() { inflateEnd(&s); }
};

int window_bits(Deflated form) {
    switch (form) {
    case Deflated::raw:
        return -MAX_WBITS;
    case Deflated::gzip: /* with its checksum and length */
        return 16 + MAX_WBITS;
    case Deflated::zlib_or_gzip:
        return 32 + MAX_WBITS;
    }
    return 0;
}

} // namespace

StreamLength stream_length(const std::string &path, uint64_t offset, Deflated form,
                           uint64_t limit) {
    File file(std::fopen(path.c_str(), "rb"));
    if (!file) fail(VX_ERR_INPUT, "cannot be opened: %s", std::strerror(errno));
    if (fseeko(file.get(), static_cast<off_t>(offset), SEEK_SET) != 0)
        fail(VX_ERR_INPUT, "cannot be read: %s", std::strerror(errno));
    Inflater inflater(window_bits(form));
    std::vector<unsigned char> in(1 << 16), out(1 << 18);
    uint64_t total = 0, packed = 0;
    bool ended = false;
    while (!ended) {
        inflater.s.avail_in = static_cast<uInt>(std::fread(in.data(), 1, in.size(), file.get()));
        inflater.s.next_in = in.data();
        if (std::ferror(file.get())) fail(VX_ERR_INPUT, "cannot be read: %s", std::strerror(errno));
        if (inflater.s.avail_in == 0)
            fail(VX_ERR_INPUT, "the compressed voxels are cut short (copy the file again)");
        packed += inflater.s.avail_in;
        while (inflater.s.avail_in > 0 && !ended) {
            inflater.s.next_out = out.data();
            inflater.s.avail_out = static_cast<uInt>(out.size());
            const int rc = inflate(&inflater.s, Z_NO_FLUSH);
            total += out.size() - inflater.s.avail_out;
            if (rc == Z_MEM_ERROR) throw std::bad_alloc();
            if (rc != Z_OK && rc != Z_STREAM_END)
                fail(VX_ERR_INPUT, "the compressed voxels are damaged: %s (copy the file again)",
                     inflater.s.msg ? inflater.s.msg : "bad stream");
            if (total > limit) return {packed, total};
            ended = rc == Z_STREAM_END;
        }
    }
    return {packed - inflater.s.avail_in, total};
}

} // namespace vx_io
