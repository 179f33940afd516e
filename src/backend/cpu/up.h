/* Planes of a transposed convolution (kernel = stride), for readers of a view. */
#ifndef VX_BACKEND_CPU_UP_H
#define VX_BACKEND_CPU_UP_H

#include "backend/cpu/cpu.h"

/* The first channels of `view` (a VX_OP_TRANSPOSED_CONCAT) that planes [first, end) of number n of
 * its first input make: plane z, [h][w][channels of the convolution], goes to ring + z %
 * ring_planes planes. */
void vx_up_planes(const vx_cpu_step *view, const vx_cpu_run *run, size_t n, size_t first,
                  size_t end, void *ring, size_t ring_planes);

#endif
