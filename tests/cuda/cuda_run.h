/* Runs a graph on the first CUDA device. Apart from the other helpers, because the CPU's and the
 * CUDA backend's inner headers do not go into one file. */
#ifndef VX_TESTS_CUDA_RUN_H
#define VX_TESTS_CUDA_RUN_H

#include "backend/backend.h"

/* Whether there is a device; prints which, or why not. Plans are kept in a new folder from then on,
 * so that all plans of one process choose the same convolutions. */
bool cuda_there(void);
/* Gives it back. */
void cuda_done(void);

typedef struct cuda_how {
    vx_precision precision;
    bool eager;    /* no CUDA graph */
    bool separate; /* no buffer reuses another's memory; guard bytes between them are checked */
} cuda_how;

/* Compiles and runs g (finished) on in; returns the number of outputs and sets a copy of each (free
 * with vx_free). Device memory and outputs hold NaN before each run. Runs twice: the bits must
 * repeat. Fails the cmocka test on an error. */
size_t cuda_run_all(const vx_graph *g, const float *in, cuda_how how, float **results);

/* The backend itself, for sessions. */
const vx_backend *cuda_backend(void);

/* Steps that g is compiled to. */
size_t cuda_steps(const vx_graph *g, vx_precision precision);
/* Whether the device has matrix units for 16-bit numbers (compute capability 8.0 and above). */
bool cuda_has_matrix_units(void);

#endif
