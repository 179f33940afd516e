/* 3x3 convolutions in the plane by Winograd's F(4, 3) along y and x (see kernels_winograd.h), the
 * kernel's depth (z) as it is: a quarter of the direct sum's multiplications.
 *
 * A piece is a strip: some tile rows of some output planes (a tile is 4x4 outputs made of 6x6
 * inputs). Its input planes are transformed to 36 points a tile, for each point one matrix product
 * over the tiles with the kernel's planes as taps, and back. What a strip needs stays in the
 * second-level cache.
 *
 * The plan holds the filters as they are, packed; their transforms, 4 times as large, are made anew
 * in each run, in the step's scratch: a hundredth of the work, and the scratch of a layer of many
 * channels lies where other layers have their many voxels. */
#include <string.h>

#include "backend/cpu/conv.h"
#include "base/size.h"

enum { IN = VX_WINOGRAD_IN, OUT = VX_WINOGRAD_OUT, POINTS = IN * IN };

/* Filter taps in the plane. */
enum { TAPS = 9 };

/* Rows that a matrix product should have at least, and blocks of planes that a grid should be cut
 * into. */
enum { ROWS_MIN = 36, BLOCKS_WANTED = 16, PLANES_MAX = 4 };

/* Numbers of a matrix whose transforms are one task. */
enum { FILTER_BLOCK = 1024 };

/* Larger transformed filters do not pay: they come from memory, and take its place. */
#define FILTER_BYTES_MAX ((size_t)8 << 20)

/* Offsets in bytes into a worker's scratch. */
typedef struct wino_local {
    size_t v;    /* [point][input plane][tile][c_in] */
    size_t m;    /* [point][output plane][tile][c_out] */
    size_t temp; /* one row of tiles, half transformed */
    size_t x_rows, y_rows;
    size_t bytes;
} wino_local;

typedef struct wino_state {
    const vx_kernels *products;       /* of float, whatever is stored */
    size_t planes;                    /* of output in a strip but the last */
    size_t tiles_y, tiles_x;          /* of a plane */
    size_t strip_rows;                /* tile rows of a strip but the last */
    size_t matrix;                    /* floats of one point's, or tap's, packed matrix */
    const float *taps, *bias, *zeros; /* in the step's weights; taps: 9 matrices */
    bool with_bias;
    wino_local local;
} wino_state;

/* Output planes [z, z + planes), tile rows [row, row + rows). */
typedef struct strip {
    size_t z, planes, row, rows;
    size_t tiles; /* of one plane of the strip */
} strip;

/* Numbers from one point to the next, for `voxels` voxels of c numbers: an odd number of cache
 * lines, so that the 36 points of a tile do not fall into the same set of a cache. */
static size_t point_stride(size_t voxels, size_t c) {
    const size_t line = VX_ALIGN / sizeof(float);
    return ((voxels * c + line - 1) / line | 1) * line;
}

static size_t in_planes(const vx_op *op, size_t planes) { return planes + op->kernel[0] - 1; }

/* All input planes of a strip, one part of their channels, which begin at channel `first`; those in
 * the padding give zeros, whose transform is zero. */
static void transform_part(const vx_cpu_step *step, const wino_state *s, const strip *p,
                           const vx_part *part, size_t first, unsigned char *scratch) {
    const vx_shape in = step->in;
    const vx_op *op = step->op;
    const size_t planes = in_planes(op, p->planes);
    float *v = (float *)(void *)(scratch + s->local.v) + first;
    vx_winograd_in w = {.c = part->c,
                        .width = in.w,
                        .left = op->pad[2],
                        .tiles = s->tiles_x,
                        .tile = in.c,
                        .point = point_stride(planes * p->tiles, in.c),
                        .temp = (float *)(void *)(scratch + s->local.temp)};
    for (size_t i = 0; i < planes; i++) {
        const size_t z = p->z + i - op->pad[0]; /* wraps to a huge number in the padding */
        const void *plane = z < in.d ? vx_part_plane(step, part, z) : NULL;
        for (size_t r = 0; r < p->rows; r++) {
            for (size_t k = 0; k < IN; k++) {
                const size_t y = (p->row + r) * OUT + k - op->pad[1];
                const bool inside = plane && y < in.h;
                w.row[k] =
                    inside ? vx_stored_from(step->kernels, plane, y * in.w * part->c) : s->zeros;
                w.step[k] = inside ? part->c : 0;
            }
            w.v = v + (i * p->tiles + r * s->tiles_x) * in.c;
            step->kernels->winograd_in(&w);
        }
    }
}

static void transform_in(const vx_cpu_step *step, const wino_state *s, const strip *p,
                         const vx_source *x, unsigned char *scratch) {
    size_t first = 0;
    for (size_t k = 0; k < x->parts; first += x->part[k].c, k++)
        transform_part(step, s, p, &x->part[k], first, scratch);
}

/* One matrix product a point: rows are the strip's tiles, plane after plane. */
static void multiply(const vx_cpu_step *step, const wino_state *s, const strip *p,
                     const float *filters, unsigned char *scratch) {
    const size_t c_in = step->in.c, c_out = step->out.c, taps = step->op->kernel[0];
    const size_t rows = p->planes * p->tiles;
    const void **x_rows = (const void **)(void *)(scratch + s->local.x_rows);
    void **y_rows = (void **)(void *)(scratch + s->local.y_rows);
    const float *v = (const float *)(const void *)(scratch + s->local.v);
    float *m = (float *)(void *)(scratch + s->local.m);
    for (size_t point = 0; point < POINTS; point++) {
        /* Tap t of row r reads t planes further on. */
        for (size_t t = 0; t < taps; t++)
            for (size_t r = 0; r < rows; r++) x_rows[t * rows + r] = v + (t * p->tiles + r) * c_in;
        for (size_t r = 0; r < rows; r++) y_rows[r] = m + r * c_out;
        const vx_gemm gemm = {.rows = rows,
                              .taps = taps,
                              .depth = c_in,
                              .x = x_rows,
                              .y = y_rows,
                              .y_float = true,
                              .w = filters + point * point_stride(s->matrix, 1),
                              .columns = c_out,
                              .end_column = c_out};
        s->products->gemm(&gemm);
        v += point_stride(in_planes(step->op, p->planes) * p->tiles, c_in);
        m += point_stride(rows, c_out);
    }
}

static void transform_out(const vx_cpu_step *step, const wino_state *s, const strip *p, void *y,
                          unsigned char *scratch) {
    const vx_shape out = step->out;
    const float *m = (const float *)(const void *)(scratch + s->local.m);
    vx_winograd_out w = {.c = out.c,
                         .width = out.w,
                         .tiles = s->tiles_x,
                         .point = point_stride(p->planes * p->tiles, out.c),
                         .bias = s->bias,
                         .y_row = out.w * out.c};
    for (size_t i = 0; i < p->planes; i++)
        for (size_t r = 0; r < p->rows; r++) {
            const size_t first = (p->row + r) * OUT, left = out.h - first;
            w.m = m + (i * p->tiles + r * s->tiles_x) * out.c;
            w.y = vx_stored_at(step->kernels, y, ((p->z + i) * out.h + first) * w.y_row);
            w.rows = left < OUT ? left : OUT;
            step->kernels->winograd_out(&w);
        }
}

static bool run_piece(const vx_conv *conv, const vx_cpu_step *step, const vx_piece *piece) {
    const wino_state *s = conv->state;
    const size_t row = piece->cell * s->strip_rows, left = s->tiles_y - row;
    strip p = {.z = piece->plane, .planes = piece->planes, .row = row};
    p.rows = left < s->strip_rows ? left : s->strip_rows;
    p.tiles = p.rows * s->tiles_x;
    transform_in(step, s, &p, piece->x, piece->scratch);
    multiply(step, s, &p, piece->shared, piece->scratch);
    transform_out(step, s, &p, piece->y, piece->scratch);
    return true;
}

/* --- filters ---------------------------------------------------------------------------------- */

typedef struct filter_job {
    const wino_state *s;
    float *out; /* [point][matrix], point_stride apart */
} filter_job;

static void transform_filters(void *ctx, size_t task, unsigned worker) {
    const filter_job *job = ctx;
    const wino_state *s = job->s;
    const size_t first = task * FILTER_BLOCK, left = s->matrix - first;
    (void)worker;
    s->products->winograd_filters(s->taps + first, s->matrix,
                                  left < FILTER_BLOCK ? left : FILTER_BLOCK, job->out + first,
                                  point_stride(s->matrix, 1));
}

static void begin(const vx_conv *conv, const vx_cpu_step *step, const vx_cpu_run *run,
                  void *shared) {
    filter_job job = {conv->state, shared};
    (void)step;
    vx_pool_run(run->pool, (job.s->matrix + FILTER_BLOCK - 1) / FILTER_BLOCK, transform_filters,
                &job);
}

/* The weight block: 9 packed matrices, bias, a voxel of zeros. */
static vx_status pack(vx_conv *conv, const vx_cpu_step *step, void *weights, vx_error *err) {
    wino_state *s = conv->state;
    const vx_op *op = step->op;
    const size_t c_in = step->in.c, c_out = step->out.c, depth = op->kernel[0];
    float *packed = weights, *bias = packed + TAPS * s->matrix, *zeros = bias + c_out;
    float *plain = vx_alloc(op->weight.elements * sizeof *plain);
    if (!plain) return vx_fail(err, VX_ERR_RESOURCE, "out of memory");
    vx_read_weight(&op->weight, plain);
    for (size_t i = 0; i < TAPS; i++)
        vx_pack_gemm(s->products, plain + i, c_out, c_in, depth, c_in * depth * TAPS, depth * TAPS,
                     TAPS, packed + i * s->matrix);
    vx_free(plain);
    if (s->with_bias) vx_read_weight(&op->bias, bias);
    memset(zeros, 0, c_in * sizeof *zeros);
    s->taps = packed;
    s->bias = s->with_bias ? bias : NULL;
    s->zeros = zeros;
    return VX_OK;
}

static void destroy(vx_conv *conv) { vx_free(conv->state); }

/* --- plan ------------------------------------------------------------------------------------- */

/* Reserves the product of four sizes behind *end, in whole cache lines; *at is where it starts. */
static bool reserve(size_t *end, size_t a, size_t b, size_t c, size_t d, size_t *at) {
    const size_t dims[] = {a, b, c, d};
    size_t size;
    *at = *end;
    return vx_product(dims, 4, &size) && vx_add_size(*end, size, end) &&
           vx_align_size(*end, VX_ALIGN, end);
}

/* As above: 36 points for tiles of some planes of c channels, point_stride apart. */
static bool reserve_points(size_t *end, size_t planes, size_t tiles, size_t c, size_t *at) {
    const size_t dims[] = {planes, tiles, c};
    size_t floats;
    return vx_product(dims, 3, &floats) &&
           vx_add_size(floats, 2 * VX_ALIGN / sizeof(float), &floats) &&
           reserve(end, POINTS, floats, sizeof(float), 1, at);
}

static bool plan_local(const vx_cpu_step *step, wino_state *s) {
    const size_t tiles = s->strip_rows * s->tiles_x, rows = s->planes * tiles;
    const size_t columns = s->tiles_x * OUT + IN - OUT;
    wino_local *l = &s->local;
    size_t *end = &l->bytes;
    return reserve_points(end, in_planes(step->op, s->planes), tiles, step->in.c, &l->v) &&
           reserve_points(end, s->planes, tiles, step->out.c, &l->m) &&
           reserve(end, IN, columns, step->kernels->gemm_lanes, sizeof(float), &l->temp) &&
           reserve(end, step->op->kernel[0], rows, sizeof(float *), 1, &l->x_rows) &&
           reserve(end, rows, sizeof(float *), 1, 1, &l->y_rows);
}

/* How the grid is cut, from the shapes alone. */
static void cut(const vx_cpu_step *step, wino_state *s, vx_conv *conv) {
    const vx_shape out = step->out;
    s->planes = out.d / BLOCKS_WANTED;
    if (s->planes < 1) s->planes = 1;
    if (s->planes > PLANES_MAX) s->planes = PLANES_MAX;
    s->tiles_y = (out.h + OUT - 1) / OUT;
    s->tiles_x = (out.w + OUT - 1) / OUT;
    const size_t row = s->planes * s->tiles_x;
    s->strip_rows = (ROWS_MIN + row - 1) / row;
    if (s->strip_rows > s->tiles_y) s->strip_rows = s->tiles_y;
    const size_t strips = (s->tiles_y + s->strip_rows - 1) / s->strip_rows;
    conv->cut = (vx_cut){.planes = out.d,
                         .plane_tokens = out.h * out.w,
                         .cells = strips,
                         .cell_tokens = s->strip_rows * OUT * out.w};
    conv->piece_planes = s->planes;
    conv->band_planes = s->planes * ((VX_BAND_JOBS + strips - 1) / strips);
    if (conv->band_planes > out.d) conv->band_planes = out.d;
}

/* Few channels leave the transforms no work to save. */
static bool is_suited(const vx_cpu_step *step) {
    const vx_op *op = step->op;
    return !step->direct_only && op->kind != VX_OP_LINEAR && op->kernel[1] == 3 &&
           op->kernel[2] == 3 && op->stride[0] * op->stride[1] * op->stride[2] == 1 &&
           step->in.c >= 16 && step->out.c >= 16 && !step->out_float;
}

/* Floats of a packed matrix, bytes of the transformed filters; false on overflow. */
static bool filter_sizes(const vx_cpu_step *step, const vx_kernels *products, size_t *matrix,
                         size_t *bytes) {
    size_t padded;
    return vx_gemm_packed(products, step->out.c, step->in.c, step->op->kernel[0], matrix) &&
           vx_add_size(*matrix, 2 * VX_ALIGN / sizeof(float), &padded) &&
           vx_mul_size(point_stride(padded, 1), POINTS * sizeof(float), bytes);
}

bool vx_conv_winograd_pays(const vx_cpu_step *step) {
    const vx_kernels *products = vx_kernels_for(step->kernels->isa, VX_F32);
    size_t matrix, bytes;
    return products && is_suited(step) && filter_sizes(step, products, &matrix, &bytes) &&
           bytes <= FILTER_BYTES_MAX;
}

vx_status vx_conv_winograd(const vx_cpu_step *step, bool with_bias, vx_conv *out, vx_error *err) {
    const size_t extra = step->out.c + step->in.c;
    size_t floats;
    if (!vx_conv_winograd_pays(step)) return VX_OK;
    wino_state *s = vx_alloc_zero(1, sizeof *s);
    if (!s) return vx_fail(err, VX_ERR_RESOURCE, "out of memory");
    out->state = s;
    out->destroy = destroy;
    s->products = vx_kernels_for(step->kernels->isa, VX_F32);
    s->with_bias = with_bias && step->op->bias.data;
    cut(step, s, out);
    if (!filter_sizes(step, s->products, &s->matrix, &out->shared_bytes) ||
        !vx_mul_size(s->matrix, TAPS, &floats) || !vx_add_size(floats, extra, &floats) ||
        !vx_mul_size(floats, sizeof(float), &out->weight_bytes) || !plan_local(step, s))
        return vx_cpu_overflow(err);
    out->worker_bytes = s->local.bytes;
    out->pack = pack;
    out->begin = begin;
    out->piece = run_piece;
    return VX_OK;
}
