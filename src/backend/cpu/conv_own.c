/* Convolution as a matrix product over pointers to input voxels (the "indirect convolution" of
 * Dukhan 2019, arXiv:1907.02129): for each tap a list of the voxels that it meets, a row of zeros
 * standing for the padding. Nothing is copied. */
#include <string.h>

#include "backend/cpu/conv.h"
#include "base/size.h"

/* Output tokens of one call of the matrix product: a multiple of every kernel's tile. */
enum { ROWS = 48, PIECES_MAX = 256 };

typedef struct own_state {
    size_t kernel[3], stride[3], pad[3]; /* 1, 1, 0 for a linear layer */
    size_t taps;                         /* of the matrix product: the kernel's, for each part */
    size_t parts, depth;                 /* of the input; channels of each */
    const void *packed, *zeros;          /* in the step's weights; zeros: a stored row */
    const float *bias;                   /* likewise */
    bool with_bias;
} own_state;

/* A worker's scratch: pointers to the rows of x and y of one matrix product, and copies of those
 * that the output may overwrite. */
typedef struct own_rows {
    const void **x;
    void **y;
    unsigned char *copy;
} own_rows;

/* Pointers to what one tap reads of a part for rows output tokens, starting at o (z, y, x). */
static void tap_rows(const vx_cpu_step *step, const own_state *own, const vx_part *part,
                     const size_t tap[3], size_t o[3], size_t rows, const void **out) {
    const vx_shape in = step->in;
    const void *plane = NULL;
    for (size_t r = 0; r < rows; r++) {
        /* An index below the padding wraps to a huge number: one comparison finds both ends. */
        const size_t z = o[0] * own->stride[0] + tap[0] - own->pad[0];
        const size_t y = o[1] * own->stride[1] + tap[1] - own->pad[1];
        const size_t v = o[2] * own->stride[2] + tap[2] - own->pad[2];
        if (!plane && z < in.d) plane = vx_part_plane(step, part, z);
        const bool inside = z < in.d && y < in.h && v < in.w;
        out[r] =
            inside ? vx_stored_from(step->kernels, plane, (y * in.w + v) * part->c) : own->zeros;
        if (++o[2] < step->out.w) continue;
        o[2] = 0;
        if (++o[1] < step->out.h) continue;
        o[1] = 0;
        o[0]++;
        plane = NULL;
    }
}

/* Rows that the output may write over are read from a copy. */
static void copy_rows(const vx_cpu_step *step, const vx_part *part, size_t first, size_t rows,
                      unsigned char *copy, const void **out) {
    const size_t bytes = part->c * vx_dtype_size(step->kernels->stored);
    memcpy(copy, (const unsigned char *)part->x + first * bytes, rows * bytes);
    for (size_t r = 0; r < rows; r++) out[r] = copy + r * bytes;
}

/* rows output tokens from token `first` of one n. */
static void run_rows(const vx_cpu_step *step, const own_state *own, const vx_piece *p, size_t first,
                     size_t rows, const own_rows *at) {
    const vx_shape out = step->out;
    const size_t y_row = out.c * vx_conv_out_size(step);
    size_t tap[3];
    const void **list = at->x;
    for (size_t k = 0; k < own->parts; k++)
        for (tap[0] = 0; tap[0] < own->kernel[0]; tap[0]++)
            for (tap[1] = 0; tap[1] < own->kernel[1]; tap[1]++)
                for (tap[2] = 0; tap[2] < own->kernel[2]; tap[2]++, list += rows) {
                    size_t o[3] = {first / (out.h * out.w), first / out.w % out.h, first % out.w};
                    if (p->x->part[k].x == p->y) /* one tap */
                        copy_rows(step, &p->x->part[k], first, rows, at->copy, list);
                    else
                        tap_rows(step, own, &p->x->part[k], tap, o, rows, list);
                }
    for (size_t r = 0; r < rows; r++) at->y[r] = (unsigned char *)p->y + (first + r) * y_row;
    const vx_gemm gemm = {.rows = rows,
                          .taps = own->taps,
                          .depth = own->depth,
                          .x = at->x,
                          .y = at->y,
                          .y_float = step->out_float,
                          .w = own->packed,
                          .bias = own->bias,
                          .columns = out.c,
                          .end_column = out.c};
    step->kernels->gemm(&gemm);
}

static bool run_piece(const vx_conv *conv, const vx_cpu_step *step, const vx_piece *p) {
    const own_state *own = conv->state;
    own_rows at = {.x = p->scratch};
    at.y = (void **)p->scratch + ROWS * own->taps;
    at.copy = (unsigned char *)(at.y + ROWS);
    size_t first, left = vx_cut_cell(&conv->cut, p->plane, p->cell, &first);
    for (size_t rows; left; first += rows, left -= rows) {
        rows = left < ROWS ? left : ROWS;
        run_rows(step, own, p, first, rows, &at);
    }
    return true;
}

/* The weight block: packed matrix, bias, zeros. */
static vx_status pack(vx_conv *conv, const vx_cpu_step *step, void *weights, vx_error *err) {
    own_state *own = conv->state;
    const vx_op *op = step->op;
    const size_t c_in = step->in.c, c_out = step->out.c, taps = own->taps / own->parts;
    size_t floats;
    if (!vx_gemm_packed(step->kernels, c_out, own->depth, own->taps, &floats))
        return vx_cpu_overflow(err);
    float *packed = weights, *bias = packed + floats, *zeros = bias + c_out;
    float *plain = vx_alloc(op->weight.elements * sizeof *plain);
    if (!plain) return vx_fail(err, VX_ERR_RESOURCE, "out of memory");
    vx_read_weight(&op->weight, plain);
    /* The second part's matrix lies behind the first's: one more tap, further on. */
    vx_pack_gemm(step->kernels, plain, c_out, own->depth, own->taps, c_in * taps, taps,
                 own->parts > 1 ? own->depth : 1, packed);
    vx_free(plain);
    if (own->with_bias) vx_read_weight(&op->bias, bias);
    memset(zeros, 0, c_in * sizeof *zeros);
    own->packed = packed;
    own->bias = own->with_bias ? bias : NULL;
    own->zeros = zeros;
    return VX_OK;
}

static void destroy(vx_conv *conv) { vx_free(conv->state); }

/* One plane of all tokens; of a view the grid's planes, in bands that need one after the other. */
static void cut(const vx_cpu_step *step, vx_conv *out) {
    const vx_shape shape = step->out;
    const size_t plane = shape.h * shape.w, tokens = shape.d * plane, share = ROWS * PIECES_MAX;
    vx_cut *c = &out->cut;
    c->planes = step->view ? shape.d : 1;
    c->plane_tokens = step->view ? plane : tokens;
    c->cell_tokens = ROWS * (tokens / share + (tokens % share != 0));
    c->cells = (c->plane_tokens + c->cell_tokens - 1) / c->cell_tokens;
    out->piece_planes = 1;
    out->band_planes = (VX_BAND_JOBS + c->cells - 1) / c->cells;
    if (out->band_planes > c->planes) out->band_planes = c->planes;
}

vx_status vx_conv_own(const vx_cpu_step *step, bool with_bias, vx_conv *out, vx_error *err) {
    const vx_op *op = step->op;
    const vx_shape shape = step->out;
    own_state *own = vx_alloc_zero(1, sizeof *own);
    size_t floats, pointers, copy;
    if (!own) return vx_fail(err, VX_ERR_RESOURCE, "out of memory");
    out->state = own;
    out->destroy = destroy;
    for (int i = 0; i < 3; i++) {
        const bool linear = op->kind == VX_OP_LINEAR;
        own->kernel[i] = linear ? 1 : op->kernel[i];
        own->stride[i] = linear ? 1 : op->stride[i];
        own->pad[i] = linear ? 0 : op->pad[i];
    }
    own->parts = step->view ? 2 : 1;
    own->depth = step->in.c / own->parts;
    if (!vx_product(own->kernel, 3, &own->taps) ||
        !vx_mul_size(own->taps, own->parts, &own->taps) ||
        !vx_gemm_packed(step->kernels, shape.c, own->depth, own->taps, &floats) ||
        !vx_add_size(floats, shape.c, &floats) || !vx_add_size(floats, step->in.c, &floats) ||
        !vx_mul_size(floats, sizeof(float), &out->weight_bytes) ||
        !vx_add_size(own->taps, 1, &pointers) || !vx_mul_size(pointers, ROWS, &pointers) ||
        !vx_mul_size(pointers, sizeof(void *), &out->worker_bytes) ||
        !vx_mul_size(own->depth, ROWS * sizeof(float), &copy) ||
        (step->in_place && !vx_add_size(out->worker_bytes, copy, &out->worker_bytes)))
        return vx_cpu_overflow(err);
    own->with_bias = with_bias && op->bias.data;
    cut(step, out);
    out->pack = pack;
    out->piece = run_piece;
    return VX_OK;
}
