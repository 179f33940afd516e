/* What the launchers share, on the host. */
#ifndef VX_CUDA_LAUNCH_CUH
#define VX_CUDA_LAUNCH_CUH

#include <cuda_runtime_api.h>
#include <stddef.h>
#include <stdint.h>

namespace vx_cuda {

inline uint32_t ceil_div(uint32_t a, uint32_t b) { return a / b + (a % b != 0); }

/* The widest copy (16, 8 or 4 bytes) that fits both a row's start and its length, or 0. */
inline uint32_t widest(uint32_t bytes, const void *pointer, size_t row, size_t count, size_t size) {
    while (bytes >= 4 && ((uintptr_t)pointer % bytes || row * size % bytes || count * size % bytes))
        bytes /= 2;
    return bytes >= 4 ? bytes : 0;
}

/* Whether the current device has the matrix units that device.cuh uses. */
inline bool has_matrix_units() {
    int device = 0, major = 0;
    return cudaGetDevice(&device) == cudaSuccess &&
           cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) ==
               cudaSuccess &&
           major >= 8;
}

/* Of the current device; what every device has where it cannot be asked. */
struct device_limits {
    uint32_t shared, processors; /* bytes of shared memory that a block can have at most */
};
inline device_limits limits_of_device() {
    int device = 0, shared = 48 * 1024, processors = 1;
    if (cudaGetDevice(&device) == cudaSuccess) {
        (void)cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
        (void)cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
    }
    return {(uint32_t)shared, (uint32_t)processors};
}

/* Allows a kernel all the shared memory that a block can have. The limit belongs to the kernel, not
 * to a launch: were it what one launch needs, two threads that launch the kernel at once could take
 * it from each other. */
template <typename F> cudaError_t allow_shared(F *kernel) {
    cudaFuncAttributes has = {};
    const cudaError_t e = cudaFuncGetAttributes(&has, kernel);
    if (e != cudaSuccess) return e;
    return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                (int)(limits_of_device().shared - has.sharedSizeBytes));
}

/* The same, and prefers a multiprocessor's memory as shared memory to a larger L1 cache. */
template <typename F> cudaError_t prefer_shared(F *kernel) {
    const cudaError_t e = cudaFuncSetAttribute(
        kernel, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared);
    return e == cudaSuccess ? allow_shared(kernel) : e;
}

} // namespace vx_cuda

#endif
