#include "cuda/capture_lock.h"

#include <cuda_runtime_api.h>
#include <pthread.h>

/* The only state of the module that is not a session's: so is what it guards, the process's one
 * context of a device. */
static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;

void vx_cuda_capture_lock(void) { pthread_mutex_lock(&one_at_a_time); }

void vx_cuda_capture_unlock(void) { pthread_mutex_unlock(&one_at_a_time); }

void vx_cuda_free_memory(void *device_memory) {
    vx_cuda_capture_lock();
    cudaFree(device_memory);
    vx_cuda_capture_unlock();
}
