/* The scan order on the device: which voxel is token t (vx_scan_walk, scan.h). */
#ifndef VX_CUDA_WALK_CUH
#define VX_CUDA_WALK_CUH

#include "cuda/scan.h"

namespace vx_cuda {

/* n / d for n < 2^31 by multiplication (Granlund and Montgomery 1994). */
struct divider {
    uint32_t divisor, multiplier, shift;
};

struct walk_args {
    const int32_t *table;
    divider by_last, by_middle;
    uint32_t step[3];
    uint32_t reverse;
};

inline divider make_divider(uint32_t d) {
    divider r = {d, 0, 0};
    while ((1ull << r.shift) < d) r.shift++;
    r.multiplier = (uint32_t)(((1ull << 32) * ((1ull << r.shift) - d)) / d + 1);
    return r;
}

/* VX_ERR_USAGE where the walk is not one of `length` tokens. */
inline vx_status make_walk(const vx_scan_walk *from, uint32_t length, walk_args *to,
                           vx_error *err) {
    const uint64_t product = (uint64_t)from->dims[0] * from->dims[1];
    if (!from->table && (product > INT32_MAX || product * from->dims[2] != length))
        return vx_fail(err, VX_ERR_USAGE, "scan order of %u x %u x %u tokens for a length of %u",
                       from->dims[0], from->dims[1], from->dims[2], length);
    to->table = from->table, to->reverse = from->reverse;
    to->by_last = make_divider(from->table ? 1 : from->dims[2]);
    to->by_middle = make_divider(from->table ? 1 : from->dims[1]);
    for (int k = 0; k < 3; k++) to->step[k] = from->step[k];
    return VX_OK;
}

__device__ inline uint32_t divide(uint32_t n, divider d) {
    return (uint32_t)(((uint64_t)__umulhi(n, d.multiplier) + n) >> d.shift);
}

/* The voxel that the order visits as token t. */
__device__ inline uint32_t voxel_of(const walk_args &w, uint32_t length, uint32_t t) {
    if (w.table) return (uint32_t)__ldg(w.table + (w.reverse ? length - 1 - t : t));
    if (w.reverse) t = length - 1 - t;
    uint32_t rows = divide(t, w.by_last), i2 = t - rows * w.by_last.divisor;
    uint32_t i0 = divide(rows, w.by_middle), i1 = rows - i0 * w.by_middle.divisor;
    return i0 * w.step[0] + i1 * w.step[1] + i2 * w.step[2];
}

} // namespace vx_cuda

#endif
