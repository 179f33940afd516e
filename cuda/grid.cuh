/* The rows of a grid along x, a block each, and the pieces of V channels that they consist of. */
#ifndef VX_CUDA_GRID_CUH
#define VX_CUDA_GRID_CUH

#include "cuda/ops.h"
#include "cuda/value.cuh"

namespace vx_cuda {

/* Row `row` of [n][d][h]. */
struct place {
    size_t n;
    unsigned z, y;
};

__device__ __forceinline__ place place_of(size_t row, vx_shape s) {
    place p;
    p.y = (unsigned)(row % s.h);
    row /= s.h;
    p.z = (unsigned)(row % s.d);
    p.n = row / s.d;
    return p;
}

/* Calls f(x, c) for the pieces of a row of w voxels, c the first of V channels; the block's threads
 * share them out. */
template <int V, typename F>
__device__ __forceinline__ void for_each_piece(size_t w, size_t c, F f) {
    const unsigned of_voxel = (unsigned)(c / V);
    const size_t pieces = w * of_voxel;
    if (pieces > 0xffffffffu) { /* in 64 bits: slower */
        for (size_t i = threadIdx.x; i < pieces; i += blockDim.x) f(i / of_voxel, i % of_voxel * V);
        return;
    }
    for (unsigned i = threadIdx.x; i < (unsigned)pieces; i += blockDim.x)
        f((size_t)(i / of_voxel), (size_t)(i % of_voxel) * V);
}

/* Whether a grid of rows of [n][d][h][w][c] can be launched: one block a row. */
inline bool rows_fit(vx_shape s) { return s.n * s.d * s.h <= 0x7fffffffu; }

/* Threads of a block: a warp at least, 256 at most. */
inline unsigned threads_for_row(vx_shape s, unsigned width) {
    const size_t pieces = s.w * (s.c / width);
    return pieces >= 256 ? 256 : (unsigned)((pieces + 31) / 32 * 32);
}

/* Calls launch(zero of the storage type, V as std::integral_constant): 16 bytes of channels, or one
 * where some channel count is no multiple of that. */
template <typename F> void for_type_and_width(vx_dtype dtype, size_t c_a, size_t c_b, F &&launch) {
    for_type(dtype, [&](auto t) {
        constexpr int V = WIDE<decltype(t)>;
        if (c_a % V == 0 && c_b % V == 0)
            launch(t, std::integral_constant<int, V>());
        else
            launch(t, std::integral_constant<int, 1>());
    });
}

} // namespace vx_cuda

#endif
