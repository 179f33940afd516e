/* What the op tests share: random tensors, running a graph in every way, comparing. */
#ifndef VX_TESTS_OPS_H
#define VX_TESTS_OPS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "backend/backend.h"
#include "backend/cpu/cpu.h"

/* The kernels of an instruction set; where this machine lacks AVX-512, the same source compiled for
 * 16 emulated lanes stands in. NULL: none. */
const vx_kernels *ops_kernels(vx_isa isa);

/* Uniform in [-1, 1) (xorshift64*); state must not be 0. */
float ops_random(uint64_t *state);

/* A pool of random weights for one graph: each is scale * uniform + offset, freed together. */
typedef struct ops_weights {
    uint64_t seed;
    size_t count;
    float *blocks[64];
} ops_weights;

vx_weight ops_weight(ops_weights *w, size_t elements, float scale, float offset);
vx_weight ops_weight_from(ops_weights *w, const float *values, size_t elements);
void ops_weights_free(ops_weights *w);

/* A random Mamba mixer for width c: weights of the sizes that training starts with. */
vx_mamba ops_mamba(ops_weights *w, size_t c, size_t d_inner, size_t d_state, size_t d_conv,
                   size_t dt_rank, vx_scan_order order);

typedef struct ops_how {
    unsigned workers;
    bool reference;
    vx_isa isa;
    bool own_only; /* convolutions not through oneDNN */
} ops_how;

static const ops_how ops_reference = {1, true, VX_ISA_BASELINE, true};
static const ops_how ops_fast = {1, false, VX_ISA_BEST, false};

enum { OPS_OUTPUTS = 32 };

/* Compiles and runs g (finished) on in; returns the number of outputs and sets a copy of each (free
 * with vx_free). Outputs and arena hold NaN before the run; guards around them are checked after
 * it.
 */
size_t ops_run_all(const vx_graph *g, const float *in, ops_how how, float *results[OPS_OUTPUTS]);
/* Output number k alone. */
float *ops_run(const vx_graph *g, const float *in, ops_how how, size_t k);

/* Random input for g's input value. */
float *ops_input(const vx_graph *g, uint64_t seed);

/* ||a - b|| / ||b||; NaN when a holds one. */
double ops_relative(const float *a, const float *b, size_t n);

/* Fast against reference, with oneDNN and with our kernels alone on every instruction set of this
 * machine, and the same bits for 1, 2, 3,
 * 7 and 16 workers. Checks all outputs of g. what: for the message. Returns the largest relative
 * error. Frees nothing. */
double ops_check(const vx_graph *g, const char *what, double tolerance);

#endif
