/* An index into [n][d][h][w][c] taken apart. */
#ifndef VX_CUDA_GRID_CUH
#define VX_CUDA_GRID_CUH

#include "cuda/ops.h"

namespace vx_cuda {

struct place {
    size_t n, z, y, x, c;
};

__device__ __forceinline__ place place_of(size_t i, vx_shape s) {
    place p;
    p.c = i % s.c;
    i /= s.c;
    p.x = i % s.w;
    i /= s.w;
    p.y = i % s.h;
    i /= s.h;
    p.z = i % s.d;
    p.n = i / s.d;
    return p;
}

} // namespace vx_cuda

#endif
