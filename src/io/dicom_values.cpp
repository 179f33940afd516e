/* Stored values of a frame to the numbers they mean. */
#include <cmath>
#include <cstring>

#include "io/dicom_series.h"

namespace vx_io {

namespace {

/* Bits above the high bit may hold overlays: only the stored ones count, with their sign. */
template <typename T>
void scale_values(const std::vector<unsigned char> &raw, const DicomFile &f,
                  const DicomSlice &slice, float *out) {
    const size_t n = static_cast<size_t>(f.rows) * f.columns;
    const unsigned shift = f.high_bit + 1 - f.bits_stored;
    const uint64_t mask = (uint64_t(1) << f.bits_stored) - 1;
    const uint64_t sign = f.is_signed ? uint64_t(1) << (f.bits_stored - 1) : 0;
    for (size_t i = 0; i < n; i++) {
        T word;
        std::memcpy(&word, raw.data() + i * sizeof(T), sizeof(T));
        const uint64_t bits = (static_cast<uint64_t>(word) >> shift) & mask;
        const int64_t value = static_cast<int64_t>(bits ^ sign) - static_cast<int64_t>(sign);
        out[i] = static_cast<float>(static_cast<double>(value) * slice.slope + slice.intercept);
    }
}

} // namespace

void read_slice(DicomWorker &worker, const DicomFile &f, const DicomSlice &slice, float *out) {
    std::vector<unsigned char> raw;
    worker.pixels(f, slice.frame, raw);
    switch (f.bits_allocated) {
    case 8:
        scale_values<uint8_t>(raw, f, slice, out);
        break;
    case 16:
        scale_values<uint16_t>(raw, f, slice, out);
        break;
    default:
        scale_values<uint32_t>(raw, f, slice, out);
        break;
    }
    const size_t n = static_cast<size_t>(f.rows) * f.columns;
    for (size_t i = 0; i < n; i++)
        if (!std::isfinite(out[i]))
            fail(VX_ERR_INPUT, "voxels are not finite after slope %g and intercept %g", slice.slope,
                 slice.intercept);
}

} // namespace vx_io
