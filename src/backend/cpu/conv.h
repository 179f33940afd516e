/* A convolution as a set of pieces that one worker each computes alone. How a convolution is cut
 * depends on its shapes only.
 *
 * A piece is one cell of some neighbouring planes of the output (cut.h). Pieces come in bands of
 * planes, in the order of the grid, when the input is a view that is made band by band, or when the
 * output takes over the input's memory; else all pieces are one band. */
#ifndef VX_BACKEND_CPU_CONV_H
#define VX_BACKEND_CPU_CONV_H

#include "backend/cpu/cpu.h"
#include "backend/cpu/cut.h"

/* What a convolution reads of one n: one tensor, or two of the same grid, whose channels follow
 * each other. */
typedef struct vx_part {
    const void *x; /* [planes][h][w][c], stored */
    size_t c;
    size_t planes; /* plane z lies at z % planes */
} vx_part;

typedef struct vx_source {
    size_t parts;
    vx_part part[2];
} vx_source;

/* One piece: a cell of planes [plane, plane + planes). */
typedef struct vx_piece {
    const vx_source *x;
    void *y;            /* the output of this n, float if step->out_float */
    const void *shared; /* what begin made */
    size_t plane, planes, cell;
    void *scratch; /* of this worker */
    unsigned worker;
} vx_piece;

typedef struct vx_conv {
    vx_cut cut; /* of the output */
    size_t piece_planes;
    size_t band_planes; /* a multiple of piece_planes, or all */
    size_t weight_bytes, worker_bytes, shared_bytes;
    void *state;
    vx_status (*pack)(struct vx_conv *conv, const vx_cpu_step *step, void *weights, vx_error *err);
    /* Before the first piece of a run: fills shared_bytes of the step's scratch. May be NULL. */
    void (*begin)(const struct vx_conv *conv, const vx_cpu_step *step, const vx_cpu_run *run,
                  void *shared);
    /* False: the library below failed (out of memory). NULL: there is no convolution here. */
    bool (*piece)(const struct vx_conv *conv, const vx_cpu_step *step, const vx_piece *p);
    void (*destroy)(struct vx_conv *conv);
} vx_conv;

/* Jobs that a band should have at least: so many that 16 workers share them well. */
enum { VX_BAND_JOBS = 32 };

/* Bytes of a number of the output. */
static inline size_t vx_conv_out_size(const vx_cpu_step *step) {
    return step->out_float ? sizeof(float) : vx_dtype_size(step->kernels->stored);
}

/* Where plane z of a part begins. */
static inline const void *vx_part_plane(const vx_cpu_step *step, const vx_part *part, size_t z) {
    return vx_stored_from(step->kernels, part->x,
                          z % part->planes * step->in.h * step->in.w * part->c);
}

static inline bool vx_conv_is_pointwise(const vx_op *op) {
    for (int i = 0; i < 3; i++)
        if (op->kernel[i] != 1 || op->stride[i] != 1 || op->pad[i] != 0) return false;
    return true;
}

/* The first three leave what they made in out even when they fail: the caller calls out->destroy if
 * set. The bias is left out unless with_bias. */

/* Our own kernels: any kernel, stride and padding; also linear layers (kernel 1). Of a view (two
 * parts of as many channels) pointwise convolutions only. */
vx_status vx_conv_own(const vx_cpu_step *step, bool with_bias, vx_conv *out, vx_error *err);

/* Winograd with our own kernels. *out stays empty where it does not pay for these shapes. */
vx_status vx_conv_winograd(const vx_cpu_step *step, bool with_bias, vx_conv *out, vx_error *err);
/* Whether it pays. */
bool vx_conv_winograd_pays(const vx_cpu_step *step);

/* oneDNN. *out stays empty where it has no fast way for these shapes, or is not built in. */
vx_status vx_conv_dnnl(const vx_cpu_step *step, bool with_bias, vx_conv *out, vx_error *err);

#endif
