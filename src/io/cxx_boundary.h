/* Where C++ ends. ITK, GDCM and DCMTK report by exception or by text; the C side knows vx_status
 * and one line. Every extern "C" function of this folder's C++ files runs its body inside
 * guarded(). */
#ifndef VX_IO_CXX_BOUNDARY_H
#define VX_IO_CXX_BOUNDARY_H

#include <exception>
#include <new>
#include <string>

extern "C" {
#include "base/memory.h"
#include "base/status.h"
#include "base/text.h"
#include "io/format.h"
#include "volume/volume.h"
}

namespace vx_io {

/* What is thrown inside src/io: a finished message, in the form of base/status.h. */
struct Failure {
    vx_status code;
    std::string text;
};

[[noreturn]] void fail(vx_status code, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Throws what a C function wrote to err, unless status is VX_OK. */
void check(vx_status status, const vx_error &err);
/* Control characters and line breaks become single spaces, at most limit bytes: text from files
 * and libraries may hold anything and ends on terminals. */
std::string one_line(const std::string &text, size_t limit);
/* The same to stand between quotation marks: with another apostrophe than the one that ends them
 * (what messages quote is left out of logs). */
std::string quotable(const std::string &text, size_t limit);
/* The name of the file at path, in quotation marks. */
std::string quoted_name(const std::string &path);
/* Runs body; returns VX_OK, or fills *err. fallback is the code of a foreign exception. */
template <typename Body>
vx_status guarded(vx_status fallback, vx_error *err, Body &&body) noexcept {
    try {
        body();
        return VX_OK;
    } catch (const Failure &failure) {
        return vx_fail(err, failure.code, "%s", failure.text.c_str());
    } catch (const std::bad_alloc &) {
        return vx_fail(err, VX_ERR_RESOURCE, "out of memory (close other programs)");
    } catch (const std::exception &e) {
        try {
            return vx_fail(err, fallback, "%s", one_line(e.what(), 300).c_str());
        } catch (...) {
            return vx_fail(err, fallback, "unknown error in a library");
        }
    } catch (...) {
        return vx_fail(err, fallback, "unknown error in a library");
    }
}

/* Owners for the C structs. */
struct VolumeOwner {
    vx_volume *p = nullptr;
    VolumeOwner() = default;
    VolumeOwner(const VolumeOwner &) = delete;
    VolumeOwner &operator=(const VolumeOwner &) = delete;
    ~VolumeOwner() { vx_volume_free(p); }
    vx_volume *release() {
        vx_volume *r = p;
        p = nullptr;
        return r;
    }
};
struct MaskOwner {
    vx_mask *p = nullptr;
    MaskOwner() = default;
    MaskOwner(const MaskOwner &) = delete;
    MaskOwner &operator=(const MaskOwner &) = delete;
    ~MaskOwner() { vx_mask_free(p); }
    vx_mask *release() {
        vx_mask *r = p;
        p = nullptr;
        return r;
    }
};

} // namespace vx_io

#endif
