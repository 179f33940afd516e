/* What the tests of DICOM share: a folder of each test's own, and failures that are expected. */
#ifndef VX_TESTS_IO_DICOM_SCRATCH_H
#define VX_TESTS_IO_DICOM_SCRATCH_H

#include <cstdlib>
#include <filesystem>
#include <string>

#include "io/cxx_boundary.h"

extern "C" {
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
}

/* Of the test that runs; one test program runs one at a time. */
inline std::string folder;

/* For cmocka_unit_test_setup_teardown. */
inline int make_folder(void **) {
    const char *base = std::getenv("TMPDIR");
    std::string name = std::string(base ? base : "/tmp") + "/vx_io_dicom_XXXXXX";
    if (!mkdtemp(name.data())) return 1;
    folder = name;
    return 0;
}

inline int remove_folder(void **) {
    std::error_code error;
    std::filesystem::remove_all(folder, error);
    return error ? 1 : 0;
}

/* What body throws; VX_OK: nothing. */
template <typename Body> vx_io::Failure failure_of(Body &&body) {
    try {
        body();
    } catch (const vx_io::Failure &failure) {
        return failure;
    }
    return {VX_OK, ""};
}

inline void must_fail(const vx_io::Failure &failure, vx_status code, const char *words) {
    if (failure.code != code || failure.text.find(words) == std::string::npos)
        fail_msg("status %d, '%s' (not %d with '%s')", failure.code, failure.text.c_str(), code,
                 words);
}

#endif
