/* The module's door: the one symbol that libvoxmamba_cuda.so shows (backend/module.h). */
#include "backend/module.h"
#include "cuda/plan.h"

__attribute__((visibility("default"))) const vx_backend *vx_backend_module(unsigned abi);

const vx_backend *vx_backend_module(unsigned abi) {
    return abi == VX_MODULE_ABI ? &vx_cuda_backend : NULL;
}
