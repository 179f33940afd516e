/* Inner loops that are compiled once for each instruction set and storage type; the device picks a
 * table at run time.
 *
 * All of them are plain functions of their arguments: no threads, no allocation. Sums are taken in
 * an order that depends on the sizes only.
 *
 * Activations ("stored" below, void pointers) are float or bfloat16, as the table says. Sums,
 * statistics, exponentials and the scan's state are float in both; only products of a bfloat16
 * matrix take their factors rounded to bfloat16.
 */
#ifndef VX_BACKEND_CPU_KERNELS_H
#define VX_BACKEND_CPU_KERNELS_H

#include <stdbool.h>
#include <stddef.h>

#include "graph/graph.h"

typedef enum vx_isa { VX_ISA_BASELINE, VX_ISA_AVX2, VX_ISA_AVX512, VX_ISA_BEST } vx_isa;

/* Channels that the scan handles together, on every instruction set. */
enum { VX_SCAN_GROUP = 16 };

/* y[row][column] = bias[column] + sum over taps t and depth k of x[t][row][k] * w[t][k][column].
 *
 * Rows are given by pointers, so that a convolution (taps), a strided row or any scan order is read
 * and written where it lies. Each output is one sum in the order (t, k): its bits do not depend on
 * which rows or columns are computed together. */
typedef struct vx_gemm {
    size_t rows, taps, depth;
    const void *const *x;            /* stored; x[t * rows + row] points at depth numbers */
    void *const *y;                  /* y[row] points at column 0 of the row */
    bool y_float;                    /* y is float, whatever is stored elsewhere */
    const void *w;                   /* packed by vx_pack_gemm */
    const float *bias;               /* one a column, or NULL */
    size_t columns;                  /* of the packed matrix */
    size_t first_column, end_column; /* those to compute; first is a multiple of gemm_width */
} vx_gemm;

/* Longer time steps of a scan count as this long: nothing is left of a state after them. */
#define VX_TIME_STEP_MAX 1e18f

/* Winograd's F(4, 3): a tile of 4 outputs along y and x is made of 6 inputs. */
enum { VX_WINOGRAD_IN = 6, VX_WINOGRAD_OUT = 4 };

/* One row of tiles of one input plane (stored), to 36 points a tile (float; point = 6 * along y +
 * along x). */
typedef struct vx_winograd_in {
    size_t c, width, tiles;
    size_t left; /* columns of padding before the grid */
    /* [width][c], voxels step numbers apart: a row in the padding is one voxel of zeros, step 0. */
    const void *row[VX_WINOGRAD_IN];
    size_t step[VX_WINOGRAD_IN];
    float *v;     /* c numbers a tile, of point 0 */
    size_t tile;  /* numbers of v from one tile to the next */
    size_t point; /* ... from one point to the next */
    float *temp;  /* 6 * (4 * tiles + 2) * gemm_lanes */
} vx_winograd_in;

/* Back: 36 points of a row of tiles to up to 4 rows of outputs (stored). */
typedef struct vx_winograd_out {
    size_t c, width, tiles;
    const float *m; /* [tile][c] of point 0 */
    size_t point;
    const float *bias; /* [c] or NULL */
    void *y;           /* [rows][width][c] */
    size_t y_row;      /* numbers from one row to the next */
    size_t rows;       /* 1 to 4 */
} vx_winograd_out;

/* Some states of one scan group over a stretch of tokens; arrays [tokens][VX_SCAN_GROUP] unless
 * said otherwise. */
typedef struct vx_scan {
    size_t tokens, states;
    const float *delta; /* time step, > 0 */
    const float *du;    /* delta * u */
    const float *b, *c; /* `states` numbers of a token's row */
    size_t bc_row;      /* numbers from one token's row to the next */
    const float *a;     /* [states][VX_SCAN_GROUP]: -exp(A_log) * log2(e) */
    float *h;           /* [states][VX_SCAN_GROUP]: in: the state before, out: after */
    float *y;           /* C . h is added */
    bool fresh;         /* ... to zeros, whatever y held */
} vx_scan;

typedef struct vx_kernels {
    vx_isa isa;
    vx_dtype stored; /* VX_F32 or VX_BF16 */
    const char *name;
    size_t gemm_lanes; /* columns of the packed matrix are padded to a multiple of this */
    size_t gemm_width; /* columns of one packed block: 2 * gemm_lanes */

    void (*gemm)(const vx_gemm *g);
    /* out[point][i] for the 36 points of 3x3 filters: taps[t * tap + i], t = 3 * along y + along x,
     * i < n, a multiple of gemm_lanes; floats, `point` numbers from one point to the next. */
    void (*winograd_filters)(const float *taps, size_t tap, size_t n, float *out, size_t point);
    void (*winograd_in)(const vx_winograd_in *w);
    void (*winograd_out)(const vx_winograd_out *w);

    /* Element-wise; y may be x. exp and exp2 are within 2 ulp where the result is a normal number
     * (exp clamps its argument to those; exp2 takes finite numbers up to 127, gives at most 2^-125
     * below, and keeps a NaN). */
    void (*exp)(const float *x, size_t n, float *y);
    void (*exp2)(const float *x, size_t n, float *y);
    void (*softplus)(const float *x, size_t n, float *y); /* the identity above 20 */
    /* Stored; y may be x, a or b. */
    void (*activate)(const void *x, size_t n, vx_activation act, float slope, void *y);
    void (*add)(const void *a, const void *b, size_t n, float scale, void *y);

    /* Between float and stored; copies where stored is float. */
    void (*narrow)(const float *x, size_t n, void *y);
    void (*widen)(const void *x, size_t n, float *y);

    /* y[k] = mean over a window of window[0] * window[1] * window[2] voxels of c stored numbers,
     * whose first is at x; `row` and `plane` are numbers from one row or plane to the next. */
    void (*pool)(const void *x, const size_t window[3], size_t row, size_t plane, size_t c,
                 void *y);

    /* For each of c channels over tokens (stored): mean and sum of squares about that mean.
     * scratch: 2 c floats. */
    void (*moments)(const void *x, size_t tokens, size_t c, float *scratch, double *mean,
                    double *m2);
    /* y = act((x - mean) * scale + shift + residual); x, y and residual stored; residual may be
     * NULL; y may be x or residual. */
    void (*normalise)(const void *x, size_t tokens, size_t c, const float *mean, const float *scale,
                      const float *shift, const void *residual, vx_activation act, float slope,
                      void *y);
    /* Stored; y may be x. */
    void (*layer_norm)(const void *x, size_t tokens, size_t c, const float *gamma,
                       const float *beta, float eps, void *y);

    /* u[t] = SiLU(bias + sum_k w[k] * x[t + k]), k < taps; rows of d numbers, a multiple of
     * VX_SCAN_GROUP; u stored. x has tokens + taps - 1 rows, w is [taps][d]. */
    void (*causal_conv)(const float *x, size_t tokens, size_t d, size_t taps, const float *w,
                        const float *bias, void *u);
    /* For one group of VX_SCAN_GROUP channels at raw, u (stored), skip (rows of ld numbers):
     * delta = softplus(raw), at most VX_TIME_STEP_MAX; du = softplus(raw) * u, y = skip * u, in
     * rows of VX_SCAN_GROUP. */
    void (*scan_inputs)(const float *raw, const void *u, size_t ld, size_t tokens,
                        const float *skip, float *delta, float *du, float *y);
    void (*scan)(const vx_scan *s);
    /* out[i] = (sum over parts of y[i]) * SiLU(z[i]) for one group: y rows of VX_SCAN_GROUP, parts
     * of it `part` numbers apart; z and out (stored) rows of ld. */
    void (*gate)(const float *y, size_t parts, size_t part, const void *z, size_t ld, size_t tokens,
                 void *out);
} vx_kernels;

/* The table for isa (VX_ISA_BEST: the best that this processor runs) and a storage type; NULL when
 * the processor or the build lacks it. bfloat16 wants a processor that multiplies it. */
const vx_kernels *vx_kernels_for(vx_isa isa, vx_dtype stored);

/* Address of number i of a stored array. */
static inline void *vx_stored_at(const vx_kernels *k, void *base, size_t i) {
    return (unsigned char *)base + i * vx_dtype_size(k->stored);
}
static inline const void *vx_stored_from(const vx_kernels *k, const void *base, size_t i) {
    return (const unsigned char *)base + i * vx_dtype_size(k->stored);
}

/* Size of a packed matrix in units of a float; false on overflow. */
bool vx_gemm_packed(const vx_kernels *k, size_t columns, size_t depth, size_t taps, size_t *floats);

/* Packs w, whose element (tap, k, column) lies at w[tap * tap_step + k * depth_step + column *
 * column_step]. Padding columns are zero. bfloat16 matrices hold pairs of neighbouring k, an odd
 * last one beside a zero. */
void vx_pack_gemm(const vx_kernels *k, const float *w, size_t columns, size_t depth, size_t taps,
                  size_t column_step, size_t depth_step, size_t tap_step, void *out);

#endif
