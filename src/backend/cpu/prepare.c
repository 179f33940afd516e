/* Which step runs which op. */
#include "backend/cpu/cpu.h"

vx_status vx_cpu_prepare(vx_cpu_step *step, vx_error *err) { return vx_cpu_prepare_ref(step, err); }
