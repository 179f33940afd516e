/* How the Mamba mixer is cut, and where its parts lie. Shared by the files of its step. */
#ifndef VX_BACKEND_CPU_MAMBA_H
#define VX_BACKEND_CPU_MAMBA_H

#include "backend/cpu/cpu.h"

/* Tokens that one task projects: a multiple of every matrix kernel's tile. */
enum { VX_MAMBA_BLOCK = 48 };

/* The grid seen along a scan order: position t = (i0, i1, i2), i2 fastest, is token base + sum of
 * i * stride. */
typedef struct vx_walk {
    size_t dims[3];
    ptrdiff_t base, stride[3];
} vx_walk;

vx_walk vx_walk_of(const vx_scan_order *order, vx_shape shape);
/* rows[i] = where the token at position t + i lies in x, whose tokens have token_bytes. */
void vx_walk_rows(const vx_walk *walk, size_t t, size_t count, const void *x, size_t token_bytes,
                  const void **rows);

/* Offsets in floats into the step's packed weights. */
typedef struct vx_mamba_weights {
    size_t in_u, in_z;   /* matrices C -> padded D */
    size_t conv, conv_b; /* [d_conv][padded D], [padded D] */
    size_t x_proj;       /* matrix D -> R + 2N: dt, B, C */
    size_t dt, dt_b;     /* matrix R -> padded D, [padded D] */
    size_t a, skip;      /* [group][N][VX_SCAN_GROUP], [padded D] */
    size_t out;          /* matrix D -> C */
    size_t floats;
} vx_mamba_weights;

/* The sequence is worked off in waves; what a wave holds (in floats, offsets into the step's shared
 * scratch): */
typedef struct vx_mamba_wave {
    size_t z;         /* [token][padded D], stored */
    size_t delta, du; /* [group][token][VX_SCAN_GROUP] */
    size_t y;         /* [part][group][token][VX_SCAN_GROUP] */
    size_t dbc;       /* [token][R + 2N]: dt, B, C */
    size_t state;     /* [group][N][VX_SCAN_GROUP] */
    size_t halo;      /* [d_conv - 1][C], stored: the tokens before the wave, as they came in */
    size_t floats;
} vx_mamba_wave;

/* What one worker holds, offsets in bytes. */
typedef struct vx_mamba_local {
    size_t x_rows, y_rows; /* pointers, VX_MAMBA_BLOCK + d_conv - 1 */
    size_t raw;            /* [VX_MAMBA_BLOCK + d_conv - 1][padded D] */
    size_t u, dt;          /* stored: [VX_MAMBA_BLOCK][padded D], [VX_MAMBA_BLOCK][R] */
    size_t bytes;
} vx_mamba_local;

typedef struct vx_mamba_step {
    vx_walk walk;
    size_t tokens;             /* of one n */
    size_t row;                /* R + 2N */
    size_t padded;             /* d_inner, rounded up to whole groups */
    size_t groups;             /* of VX_SCAN_GROUP channels */
    size_t wave_tokens;        /* of every wave but the last */
    size_t parts, part_states; /* the states are scanned in parts, each by a task of its own */
    vx_mamba_weights at;
    vx_mamba_wave wave;
    vx_mamba_local local;
} vx_mamba_step;

/* mamba_plan.c: the cut and the offsets; false on overflow. */
bool vx_mamba_plan(const vx_cpu_step *step, vx_mamba_step *out);
/* mamba_plan.c: fills the packed weights. */
vx_status vx_mamba_pack(vx_cpu_step *step, vx_error *err);

#endif
