/* Inner loops that are compiled once for each instruction set; the device picks a table at run
 * time. */
#ifndef VX_BACKEND_CPU_KERNELS_H
#define VX_BACKEND_CPU_KERNELS_H

#include <stddef.h>

typedef enum vx_isa { VX_ISA_BASELINE, VX_ISA_AVX2, VX_ISA_AVX512, VX_ISA_BEST } vx_isa;

typedef struct vx_kernels {
    vx_isa isa;
    const char *name;
} vx_kernels;

/* The table for isa (VX_ISA_BEST: the best that this processor runs); NULL when the processor or
 * the build lacks it. */
const vx_kernels *vx_kernels_for(vx_isa isa);

#endif
