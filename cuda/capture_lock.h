/* One at a time in the process: a capture of launches, and what waits for the whole GPU. Giving
 * back memory or a library's handle waits for everything that runs on the device, and that ends a
 * capture of any other thread, whose libraries then fail in their own ways. */
#ifndef VX_CUDA_CAPTURE_LOCK_H
#define VX_CUDA_CAPTURE_LOCK_H

/* Around a capture, and around cudaFree, cudnnDestroy and cublasLtDestroy; not nested. */
void vx_cuda_capture_lock(void);
void vx_cuda_capture_unlock(void);

/* cudaFree between the two. NULL is allowed. */
void vx_cuda_free_memory(void *device_memory);

#endif
