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

/* The float kernels of an instruction set; where this machine lacks AVX-512, the same source
 * compiled for 16 emulated lanes stands in. NULL: none. */
const vx_kernels *ops_kernels(vx_isa isa);
/* Those for bfloat16: this machine's for VX_ISA_AVX512 and VX_ISA_BEST, if it has them, and 16
 * emulated lanes for VX_ISA_BASELINE on every machine. */
const vx_kernels *ops_bf16_kernels(vx_isa isa);

/* To the nearest bfloat16, ties to even. */
float ops_round_bf16(float x);

/* Uniform in [-1, 1) (xorshift64*); state must not be 0. */
float ops_random(uint64_t *state);

/* A pool of random weights for one graph: each is scale * uniform + offset, freed together. */
typedef struct ops_weights {
    uint64_t seed;
    bool coarse; /* every number is a bfloat16 */
    size_t count;
    float *blocks[160];
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
    bool bf16;
    bool direct_only; /* nor by Winograd's algorithm */
} ops_how;

enum { OPS_WAYS = 6 };

/* The ways of this machine to compute in float, or in bfloat16, for 1 worker; returns their number.
 */
size_t ops_ways(bool bf16, ops_how ways[OPS_WAYS]);

static const ops_how ops_reference = {.workers = 1, .reference = true, .isa = VX_ISA_BASELINE};
static const ops_how ops_fast = {.workers = 1, .isa = VX_ISA_BEST};

enum { OPS_OUTPUTS = 32 };

/* Compiles and runs g (finished) on in; returns the number of outputs and sets a copy of each (free
 * with vx_free). Outputs and arena hold NaN before the run; guards around them are checked after
 * it.
 */
size_t ops_run_all(const vx_graph *g, const float *in, ops_how how, float *results[OPS_OUTPUTS]);
/* Output number k alone. */
float *ops_run(const vx_graph *g, const float *in, ops_how how, size_t k);

/* Random input for g's input value, each number a bfloat16. */
float *ops_input(const vx_graph *g, uint64_t seed);

/* ||a - b|| / ||b||; NaN when a holds one. */
double ops_relative(const float *a, const float *b, size_t n);

/* Fast against reference: with oneDNN, with our kernels alone on every instruction set of this
 * machine, and with our direct convolution; and the same bits for 1, 2, 3,
 * 5, 7, 8 and 16 workers. Checks all outputs of g. what: for the message. Returns the largest
 * relative error. Frees nothing. */
double ops_check(const vx_graph *g, const char *what, double tolerance);
/* The same in bfloat16, against the reference in float. With coarse weights what differs is what is
 * rounded to bfloat16 on the way; see OPS_BF16. Fewer than 64 numbers may be unlucky: twice the
 * tolerance holds for them. */
double ops_check_bf16(const vx_graph *g, const char *what, double tolerance);

/* Relative L2 of random numbers that are rounded to bfloat16, at most: a number in [1, 2) is off by
 * up to half of 2^-7, evenly spread. Measured 1.7e-3. */
#define OPS_BF16 (0x1p-8 / 1.7320508)

#endif
