/* What the NRRD and MetaImage headers share: text, numbers, and the check of the data behind them.
 */
#include "io/itk_header.h"

#include <sys/stat.h>
#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <memory>

extern "C" {
#include "base/size.h"
}

namespace vx_io {

namespace {

constexpr size_t max_header = size_t(16) << 20;

struct FileCloser {
    void operator()(std::FILE *f) const { std::fclose(f); }
};
using File = std::unique_ptr<std::FILE, FileCloser>;

File open_file(const std::string &path) {
    File file(std::fopen(path.c_str(), "rb"));
    if (!file) fail(VX_ERR_INPUT, "cannot be opened: %s", std::strerror(errno));
    return file;
}

struct Inflater {
    z_stream s{};
    explicit Inflater(int window_bits) {
        if (inflateInit2(&s, window_bits) != Z_OK) throw std::bad_alloc();
    }
    ~Inflater() { inflateEnd(&s); }
};

struct StreamLength {
    uint64_t packed, inflated;
};

/* Inflates the stream at offset to its end without keeping it. Stops early, with an inflated
 * length above limit, when there is more than limit. */
StreamLength stream_length(const ImageHeader &header, uint64_t limit) {
    File file = open_file(header.data_path);
    if (fseeko(file.get(), static_cast<off_t>(header.data_offset), SEEK_SET) != 0)
        fail(VX_ERR_INPUT, "cannot be read: %s", std::strerror(errno));
    /* 16 + 15: gzip with its checksum and length; 32 + 15: zlib or gzip. */
    Inflater inflater(header.encoding == Encoding::gzip ? 16 + MAX_WBITS : 32 + MAX_WBITS);
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

} // namespace

size_t scalar_bytes(Scalar type) {
    switch (type) {
    case Scalar::i8:
    case Scalar::u8:
        return 1;
    case Scalar::i16:
    case Scalar::u16:
        return 2;
    case Scalar::i32:
    case Scalar::u32:
    case Scalar::f32:
        return 4;
    default:
        return 8;
    }
}

const char *scalar_name(Scalar type) {
    static const char *const names[] = {"int8",   "uint8", "int16",  "uint16",  "int32",
                                        "uint32", "int64", "uint64", "float32", "float64"};
    return names[static_cast<int>(type)];
}

HeaderText::HeaderText(const char *path) {
    struct stat st;
    if (stat(path, &st) == 0 && S_ISDIR(st.st_mode)) fail(VX_ERR_INPUT, "is a folder, not a file");
    File file = open_file(path);
    const uint64_t size = file_size(path);
    text_.resize(static_cast<size_t>(std::min<uint64_t>(size, max_header)));
    text_.resize(std::fread(text_.data(), 1, text_.size(), file.get()));
    if (std::ferror(file.get())) fail(VX_ERR_INPUT, "cannot be read: %s", std::strerror(errno));
    if (text_.empty()) fail(VX_ERR_INPUT, "the file is empty");
    whole_ = size <= max_header;
}

bool HeaderText::line(std::string_view &out) {
    if (pos_ >= text_.size()) {
        if (!whole_) fail(VX_ERR_INPUT, "the header does not end within 16 MiB");
        return false;
    }
    size_t end = text_.find('\n', pos_);
    const size_t next = end == std::string::npos ? text_.size() : end + 1;
    if (end == std::string::npos) {
        if (!whole_) fail(VX_ERR_INPUT, "the header does not end within 16 MiB");
        end = text_.size();
    }
    out = std::string_view(text_).substr(pos_, end - pos_);
    if (!out.empty() && out.back() == '\r') out.remove_suffix(1);
    pos_ = next;
    return true;
}

std::string_view trim(std::string_view s) {
    const size_t from = s.find_first_not_of(" \t\r");
    if (from == std::string_view::npos) return {};
    return s.substr(from, s.find_last_not_of(" \t\r") - from + 1);
}

std::vector<std::string_view> words(std::string_view s) {
    std::vector<std::string_view> out;
    for (s = trim(s); !s.empty(); s = trim(s)) {
        const size_t n = std::min(s.find_first_of(" \t\r"), s.size());
        out.push_back(s.substr(0, n));
        s.remove_prefix(n);
    }
    return out;
}

std::string lower(std::string_view s) {
    std::string out(s);
    for (char &c : out)
        if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    return out;
}

std::string shown(std::string_view s) { return quotable(std::string(s.substr(0, 200)), 60); }

double parse_double(std::string_view s, const char *field) {
    std::string_view digits = trim(s);
    if (!digits.empty() && digits.front() == '+') digits.remove_prefix(1);
    double v = 0;
    const auto r = std::from_chars(digits.data(), digits.data() + digits.size(), v);
    /* "1e-400" is out of range and means 0; "1e400" is caught as not finite by the caller. */
    if (digits.empty() || r.ec == std::errc::invalid_argument ||
        r.ptr != digits.data() + digits.size())
        fail(VX_ERR_INPUT, "%s: '%s' is not a number", field, shown(s).c_str());
    if (r.ec == std::errc::result_out_of_range)
        fail(VX_ERR_INPUT, "%s: '%s' is out of range", field, shown(s).c_str());
    return v;
}

long long parse_integer(std::string_view s, const char *field) {
    std::string_view digits = trim(s);
    if (!digits.empty() && digits.front() == '+') digits.remove_prefix(1);
    long long v = 0;
    const auto r = std::from_chars(digits.data(), digits.data() + digits.size(), v);
    if (digits.empty() || r.ec != std::errc() || r.ptr != digits.data() + digits.size())
        fail(VX_ERR_INPUT, "%s: '%s' is not a whole number", field, shown(s).c_str());
    return v;
}

std::string data_beside(const char *header_path, std::string_view name) {
    name = trim(name);
    if (name.empty()) fail(VX_ERR_INPUT, "the header names no data file");
    const bool upward = name == ".." || name.substr(0, 3) == "../" ||
                        name.find("/../") != std::string_view::npos ||
                        (name.size() > 3 && name.substr(name.size() - 3) == "/..");
    if (name.front() == '/' || upward)
        fail(VX_ERR_INPUT,
             "the data file '%s' lies outside the header's folder (move it beside the header)",
             shown(name).c_str());
    std::string path(header_path);
    const size_t slash = path.rfind('/');
    path.resize(slash == std::string::npos ? 0 : slash + 1);
    path += name;
    struct stat st;
    if (stat(path.c_str(), &st) != 0)
        fail(VX_ERR_INPUT, "the data file '%s' that the header names is missing (%s)",
             shown(name).c_str(), std::strerror(errno));
    if (!S_ISREG(st.st_mode))
        fail(VX_ERR_INPUT, "the data file '%s' that the header names is not a file",
             shown(name).c_str());
    return path;
}

uint64_t file_size(const std::string &path) {
    struct stat st;
    if (stat(path.c_str(), &st) != 0)
        fail(VX_ERR_INPUT, "cannot be read: %s", std::strerror(errno));
    return static_cast<uint64_t>(st.st_size);
}

void set_data_bytes(ImageHeader &header) {
    const size_t *d = header.geo.dims;
    size_t voxels, widened;
    if (!vx_product(d, 3, &voxels) || !vx_mul_size(voxels, 8, &widened))
        fail(VX_ERR_INPUT, "the header claims %zu x %zu x %zu voxels, more than memory can hold",
             d[0], d[1], d[2]);
    header.data_bytes = voxels * scalar_bytes(header.type);
}

void check_data(const ImageHeader &header, const vx_log *log) {
    const uint64_t size = file_size(header.data_path);
    const uint64_t stored = size > header.data_offset ? size - header.data_offset : 0;
    const size_t want = header.data_bytes;
    switch (header.encoding) {
    case Encoding::raw:
        if (stored < want)
            fail(VX_ERR_INPUT,
                 "the voxels are cut short: the header claims %zu bytes, the file has %llu "
                 "(copy the file again)",
                 want, static_cast<unsigned long long>(stored));
        if (stored > want)
            vx_log_message(log, VX_LOG_WARNING, "%llu bytes behind the voxels are ignored",
                           static_cast<unsigned long long>(stored - want));
        return;
    case Encoding::text:
    case Encoding::hex: {
        /* At least two characters a number (a byte in hex); ITK's parser finds the rest. */
        const size_t numbers =
            header.encoding == Encoding::hex ? want : want / scalar_bytes(header.type);
        if (stored < 2 * (numbers - 1) + 1)
            fail(VX_ERR_INPUT, "the voxels are cut short: %llu characters for %zu numbers",
                 static_cast<unsigned long long>(stored), numbers);
        return;
    }
    case Encoding::gzip:
    case Encoding::zlib: {
        /* deflate never shrinks below 1/1032. */
        if (stored < want / 1040)
            fail(VX_ERR_INPUT,
                 "the header claims %zu bytes of voxels, more than %llu compressed bytes can "
                 "hold",
                 want, static_cast<unsigned long long>(stored));
        const StreamLength length = stream_length(header, want);
        if (length.inflated != want)
            fail(VX_ERR_INPUT,
                 "the compressed voxels are %s: the header claims %zu bytes, the stream has "
                 "%s%llu",
                 length.inflated < want ? "cut short" : "too many", want,
                 length.inflated > want ? "at least " : "",
                 static_cast<unsigned long long>(length.inflated));
        if (header.packed_bytes != 0 &&
            (header.packed_bytes < length.packed || header.packed_bytes > stored))
            fail(VX_ERR_INPUT,
                 "the header claims %llu compressed bytes, the stream has %llu of %llu",
                 static_cast<unsigned long long>(header.packed_bytes),
                 static_cast<unsigned long long>(length.packed),
                 static_cast<unsigned long long>(stored));
        return;
    }
    }
}

} // namespace vx_io
