/* What the device tests share beside device_host.h: guarded device memory, scan orders, counting
 * overflows. For one translation unit. */
#ifndef VX_CUDA_TESTS_DEVICE_TEST_H
#define VX_CUDA_TESTS_DEVICE_TEST_H

#include "cuda/scan.h"
#include "cuda/tests/device_host.h"

#include <utility>

namespace {

constexpr size_t GUARD = 256;                        /* bytes before and after */
constexpr int GUARD_BYTE = 0xA5, POISON_BYTE = 0xFF; /* 0xFF..: NaN in all three types */

/* Device memory with guards on both sides. */
struct guarded {
    char *base = nullptr;
    size_t bytes = 0;
    void *make(size_t n) {
        bytes = n;
        CHECK_CUDA(cudaMalloc(&base, n + 2 * GUARD));
        CHECK_CUDA(cudaMemset(base, GUARD_BYTE, n + 2 * GUARD));
        CHECK_CUDA(cudaMemset(base + GUARD, POISON_BYTE, n));
        return base + GUARD;
    }
    bool intact() const {
        std::vector<unsigned char> h(GUARD);
        for (int side = 0; side < 2; side++) {
            CHECK_CUDA(cudaMemcpy(h.data(), base + (side ? GUARD + bytes : 0), GUARD,
                                  cudaMemcpyDeviceToHost));
            for (unsigned char c : h)
                if (c != GUARD_BYTE) return false;
        }
        return true;
    }
    ~guarded() { cudaFree(base); }
    guarded() = default;
    guarded(const guarded &) = delete;
};

template <typename V> void *upload(guarded &g, const V &v) {
    size_t n = v.size() * sizeof(v[0]);
    void *at = g.make(n);
    CHECK_CUDA(cudaMemcpy(at, v.data(), n, cudaMemcpyHostToDevice));
    return at;
}

/* Of numbers that fp16 cannot hold: how many are infinite, of the right sign; and of all, how many
 * are infinite, NaN or finite where they should not be. near: numbers that are relatively so near
 * the limit may be either. */
struct overflow_count {
    size_t right = 0, wrong = 0;
};
inline overflow_count count_overflows(const std::vector<double> &truth,
                                      const std::vector<char> &got, vx_dtype t, double near) {
    const double limit = 65520; /* rounds to infinity */
    overflow_count n;
    for (size_t i = 0; i < truth.size(); i++) {
        const double v = load(got.data(), t, i), size = fabs(truth[i]);
        if (size >= limit * (1 + near)) {
            const bool right = isinf(v) && (v > 0) == (truth[i] > 0);
            n.right += right, n.wrong += !right;
        } else if (size < limit * (1 - near)) {
            n.wrong += !isfinite(v);
        }
    }
    return n;
}

/* A random permutation of 0 .. n - 1. */
inline std::vector<int32_t> random_table(size_t n, random_state &r) {
    std::vector<int32_t> table;
    for (size_t i = 0; i < n; i++) table.push_back((int32_t)i);
    for (size_t i = n; i > 1; i--)
        std::swap(table[i - 1], table[(size_t)(r.uniform() * (double)i)]);
    return table;
}

/* The walk of a case with dims[3], axis[3] (axis[0] slowest; axis[0] < 0: by a table) and reverse;
 * the caller sets the table. */
template <typename C> vx_scan_walk walk_of(const C &c) {
    vx_scan_walk w = {};
    uint32_t step[3] = {c.dims[1] * c.dims[2], c.dims[2], 1};
    for (int k = 0; k < 3; k++) {
        int axis = c.axis[0] < 0 ? k : c.axis[k];
        w.dims[k] = c.dims[axis], w.step[k] = step[axis];
    }
    w.reverse = c.reverse;
    return w;
}

/* The order as a list, written without the kernel's arithmetic. */
template <typename C> std::vector<uint32_t> visited(const C &c, const std::vector<int32_t> &table) {
    std::vector<uint32_t> v;
    if (c.axis[0] < 0) {
        v.assign(table.begin(), table.end());
    } else {
        uint32_t at[3];
        for (at[c.axis[0]] = 0; at[c.axis[0]] < c.dims[c.axis[0]]; at[c.axis[0]]++)
            for (at[c.axis[1]] = 0; at[c.axis[1]] < c.dims[c.axis[1]]; at[c.axis[1]]++)
                for (at[c.axis[2]] = 0; at[c.axis[2]] < c.dims[c.axis[2]]; at[c.axis[2]]++)
                    v.push_back((at[0] * c.dims[1] + at[1]) * c.dims[2] + at[2]);
    }
    if (c.reverse) v = std::vector<uint32_t>(v.rbegin(), v.rend());
    return v;
}

} // namespace

#endif
