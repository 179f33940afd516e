/* Stores of 16 bytes, said in so many words: of a struct's members the compiler makes stores of two
 * or four bytes wherever it cannot prove them neighbours (seen in SASS). */
#ifndef VX_CUDA_WIDE_CUH
#define VX_CUDA_WIDE_CUH

#include <cuda_runtime_api.h>

namespace vx_cuda {

/* global: a multiple of 16. */
__device__ inline void store_16(void *global, uint4 v) {
    asm volatile("st.global.v4.u32 [%0], {%1,%2,%3,%4};" ::"l"(__cvta_generic_to_global(global)),
                 "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w)
                 : "memory");
}

} // namespace vx_cuda

#endif
