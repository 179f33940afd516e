#include "io/cxx_boundary.h"

#include <cstdarg>
#include <cstdio>

namespace vx_io {

void fail(vx_status code, const char *format, ...) {
    char text[sizeof(vx_error::text)];
    va_list args;
    va_start(args, format);
    std::vsnprintf(text, sizeof text, format, args);
    va_end(args);
    throw Failure{code, text};
}

void check(vx_status status, const vx_error &err) {
    if (status != VX_OK) throw Failure{status, err.text};
}

std::string one_line(const std::string &text, size_t limit) {
    std::string out;
    for (char c : text) {
        const unsigned char u = static_cast<unsigned char>(c);
        const bool blank = u <= 0x20 || u == 0x7f;
        if (!blank)
            out += c;
        else if (!out.empty() && out.back() != ' ')
            out += ' ';
    }
    if (out.size() > limit) {
        out.resize(limit);
        /* Do not leave half of a UTF-8 character behind. */
        while (!out.empty() && (static_cast<unsigned char>(out.back()) & 0xc0) == 0x80)
            out.pop_back();
        if (!out.empty() && (static_cast<unsigned char>(out.back()) & 0x80)) out.pop_back();
    }
    while (!out.empty() && out.back() == ' ') out.pop_back();
    return out;
}

std::string quotable(const std::string &text, size_t limit) {
    std::string out;
    for (char c : one_line(text, limit))
        out += c == '\'' ? std::string("\u2019") : std::string(1, c);
    return out;
}

std::string quoted_name(const std::string &path) {
    return "'" + quotable(path.substr(path.rfind('/') + 1), 80) + "'";
}

} // namespace vx_io
