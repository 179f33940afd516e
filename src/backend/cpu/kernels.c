/* Which kernels this processor runs. */
#include "backend/cpu/kernels.h"

static const vx_kernels baseline = {VX_ISA_BASELINE, "baseline"};

const vx_kernels *vx_kernels_for(vx_isa isa) {
    return isa == VX_ISA_BASELINE || isa == VX_ISA_BEST ? &baseline : NULL;
}
