/* The builder calls: shape inference and the check that weights fit, one op each. */
#include "base/size.h"
#include "graph/append.h"

static const char axis_name[3] = {'z', 'y', 'x'};

/* An op with one input and nothing else set. */
static vx_op new_op(vx_op_kind kind, int a, int b) {
    return (vx_op){.kind = kind, .in = {a, b}, .out = -1};
}

/* w must hold dims[0] * ... * dims[rank-1] elements. */
static bool weight_fits(vx_graph *g, vx_op_kind kind, const char *role, vx_weight w,
                        const size_t *dims, size_t rank) {
    size_t wanted;
    if (!vx_product(dims, rank, &wanted)) {
        vx_graph_fail(g, VX_ERR_MODEL, "%s: the %s is too large", vx_op_name(kind), role);
        return false;
    }
    if (!w.data) {
        vx_graph_fail(g, VX_ERR_MODEL, "%s: the %s is missing", vx_op_name(kind), role);
        return false;
    }
    if (w.elements != wanted) {
        vx_graph_fail(g, VX_ERR_MODEL, "%s: the %s has %zu elements, %zu are needed",
                      vx_op_name(kind), role, w.elements, wanted);
        return false;
    }
    return true;
}

static bool vector_fits(vx_graph *g, vx_op_kind kind, const char *role, vx_weight w, size_t n) {
    return weight_fits(g, kind, role, w, &n, 1);
}

static bool bias_fits(vx_graph *g, vx_op_kind kind, vx_weight b, size_t n) {
    return !b.data || vector_fits(g, kind, "bias", b, n);
}

/* kernel and stride are >= 1. */
static bool steps_are_positive(vx_graph *g, vx_op_kind kind, const size_t steps[3],
                               const char *what) {
    for (int i = 0; i < 3; i++)
        if (steps[i] == 0) {
            vx_graph_fail(g, VX_ERR_MODEL, "%s: the %s along %c is 0", vx_op_name(kind), what,
                          axis_name[i]);
            return false;
        }
    return true;
}

/* The three spatial dims of a shape, z first. */
static void get_dims(vx_shape shape, size_t dims[3]) {
    dims[0] = shape.d;
    dims[1] = shape.h;
    dims[2] = shape.w;
}

static vx_shape with_dims(vx_shape shape, const size_t dims[3], size_t c) {
    return (vx_shape){.n = shape.n, .d = dims[0], .h = dims[1], .w = dims[2], .c = c};
}

int vx_graph_input(vx_graph *g, vx_shape shape) {
    if (g->failed) return -1;
    if (g->op_count) return vx_graph_fail(g, VX_ERR_MODEL, "the input has to be the first op");
    vx_op op = new_op(VX_OP_INPUT, -1, -1);
    return vx_graph_append(g, &op, shape);
}

int vx_graph_conv(vx_graph *g, int x, vx_weight w, vx_weight b, size_t c_out,
                  const size_t kernel[3], const size_t stride[3], const size_t pad[3]) {
    if (!vx_graph_is_value(g, x)) return -1;
    vx_op op = new_op(VX_OP_CONV, x, -1);
    const vx_shape in = g->values[x].shape;
    const size_t w_dims[] = {c_out, in.c, kernel[0], kernel[1], kernel[2]};
    size_t dims[3];
    if (!steps_are_positive(g, op.kind, kernel, "kernel") ||
        !steps_are_positive(g, op.kind, stride, "stride") ||
        !weight_fits(g, op.kind, "weight", w, w_dims, 5) || !bias_fits(g, op.kind, b, c_out))
        return -1;
    get_dims(in, dims);
    for (int i = 0; i < 3; i++) {
        size_t padded;
        if (!vx_mul_size(pad[i], 2, &padded) || !vx_add_size(padded, dims[i], &padded))
            return vx_graph_fail(g, VX_ERR_MODEL, "convolution: the padding is too large");
        if (padded < kernel[i])
            return vx_graph_fail(g, VX_ERR_MODEL,
                                 "convolution: kernel %zu does not fit %zu voxels along %c",
                                 kernel[i], padded, axis_name[i]);
        dims[i] = (padded - kernel[i]) / stride[i] + 1;
        op.kernel[i] = kernel[i];
        op.stride[i] = stride[i];
        op.pad[i] = pad[i];
    }
    op.weight = w;
    op.bias = b;
    return vx_graph_append(g, &op, with_dims(in, dims, c_out));
}

/* dims *= factor along each axis. */
static bool scale_dims(vx_graph *g, vx_op_kind kind, size_t dims[3], const size_t factor[3]) {
    for (int i = 0; i < 3; i++)
        if (!vx_mul_size(dims[i], factor[i], &dims[i])) {
            vx_graph_fail(g, VX_ERR_MODEL, "%s: the output is too large", vx_op_name(kind));
            return false;
        }
    return true;
}

int vx_graph_transposed_conv(vx_graph *g, int x, vx_weight w, vx_weight b, size_t c_out,
                             const size_t stride[3]) {
    if (!vx_graph_is_value(g, x)) return -1;
    vx_op op = new_op(VX_OP_TRANSPOSED_CONV, x, -1);
    const vx_shape in = g->values[x].shape;
    const size_t w_dims[] = {in.c, c_out, stride[0], stride[1], stride[2]};
    size_t dims[3];
    get_dims(in, dims);
    if (!steps_are_positive(g, op.kind, stride, "stride") ||
        !weight_fits(g, op.kind, "weight", w, w_dims, 5) || !bias_fits(g, op.kind, b, c_out) ||
        !scale_dims(g, op.kind, dims, stride))
        return -1;
    for (int i = 0; i < 3; i++) op.kernel[i] = op.stride[i] = stride[i];
    op.weight = w;
    op.bias = b;
    return vx_graph_append(g, &op, with_dims(in, dims, c_out));
}

static int append_norm(vx_graph *g, vx_op_kind kind, int x, vx_weight gamma, vx_weight beta,
                       float eps) {
    if (!vx_graph_is_value(g, x)) return -1;
    vx_op op = new_op(kind, x, -1);
    const vx_shape shape = g->values[x].shape;
    if (!vector_fits(g, kind, "scale", gamma, shape.c) ||
        !vector_fits(g, kind, "shift", beta, shape.c))
        return -1;
    op.gamma = gamma;
    op.beta = beta;
    op.eps = eps;
    return vx_graph_append(g, &op, shape);
}

int vx_graph_instance_norm(vx_graph *g, int x, vx_weight gamma, vx_weight beta, float eps) {
    return append_norm(g, VX_OP_INSTANCE_NORM, x, gamma, beta, eps);
}

int vx_graph_layer_norm(vx_graph *g, int x, vx_weight gamma, vx_weight beta, float eps) {
    return append_norm(g, VX_OP_LAYER_NORM, x, gamma, beta, eps);
}

int vx_graph_activation(vx_graph *g, int x, vx_activation act, float slope) {
    if (!vx_graph_is_value(g, x)) return -1;
    vx_op op = new_op(VX_OP_ACTIVATION, x, -1);
    op.act = act;
    op.slope = slope;
    return vx_graph_append(g, &op, g->values[x].shape);
}

int vx_graph_linear(vx_graph *g, int x, vx_weight w, vx_weight b, size_t c_out) {
    if (!vx_graph_is_value(g, x)) return -1;
    vx_op op = new_op(VX_OP_LINEAR, x, -1);
    vx_shape shape = g->values[x].shape;
    const size_t w_dims[] = {c_out, shape.c};
    if (!weight_fits(g, op.kind, "weight", w, w_dims, 2) || !bias_fits(g, op.kind, b, c_out))
        return -1;
    op.weight = w;
    op.bias = b;
    shape.c = c_out;
    return vx_graph_append(g, &op, shape);
}

int vx_graph_avg_pool(vx_graph *g, int x, const size_t stride[3]) {
    if (!vx_graph_is_value(g, x)) return -1;
    vx_op op = new_op(VX_OP_AVG_POOL, x, -1);
    const vx_shape in = g->values[x].shape;
    size_t dims[3];
    if (!steps_are_positive(g, op.kind, stride, "stride")) return -1;
    get_dims(in, dims);
    for (int i = 0; i < 3; i++) {
        op.kernel[i] = op.stride[i] = stride[i];
        dims[i] /= stride[i];
    }
    return vx_graph_append(g, &op, with_dims(in, dims, in.c));
}

int vx_graph_upsample_nearest(vx_graph *g, int x, const size_t factor[3]) {
    if (!vx_graph_is_value(g, x)) return -1;
    vx_op op = new_op(VX_OP_UPSAMPLE_NEAREST, x, -1);
    const vx_shape in = g->values[x].shape;
    size_t dims[3];
    get_dims(in, dims);
    if (!steps_are_positive(g, op.kind, factor, "factor") || !scale_dims(g, op.kind, dims, factor))
        return -1;
    for (int i = 0; i < 3; i++) op.kernel[i] = op.stride[i] = factor[i];
    return vx_graph_append(g, &op, with_dims(in, dims, in.c));
}

/* a and b have the same n and grid. */
static bool same_grid(vx_graph *g, vx_op_kind kind, vx_shape a, vx_shape b) {
    if (a.n == b.n && a.d == b.d && a.h == b.h && a.w == b.w) return true;
    vx_graph_fail(g, VX_ERR_MODEL, "%s: the grids differ (%zu x %zu x %zu and %zu x %zu x %zu)",
                  vx_op_name(kind), a.d, a.h, a.w, b.d, b.h, b.w);
    return false;
}

int vx_graph_add(vx_graph *g, int a, int b, float scale) {
    if (!vx_graph_is_value(g, a) || !vx_graph_is_value(g, b)) return -1;
    vx_op op = new_op(VX_OP_ADD, a, b);
    const vx_shape shape = g->values[a].shape, other = g->values[b].shape;
    if (!same_grid(g, op.kind, shape, other)) return -1;
    if (shape.c != other.c)
        return vx_graph_fail(g, VX_ERR_MODEL, "addition: %zu and %zu channels", shape.c, other.c);
    op.scale = scale;
    return vx_graph_append(g, &op, shape);
}

int vx_graph_concat(vx_graph *g, int a, int b) {
    if (!vx_graph_is_value(g, a) || !vx_graph_is_value(g, b)) return -1;
    vx_op op = new_op(VX_OP_CONCAT, a, b);
    vx_shape shape = g->values[a].shape;
    const vx_shape other = g->values[b].shape;
    if (!same_grid(g, op.kind, shape, other)) return -1;
    if (!vx_add_size(shape.c, other.c, &shape.c))
        return vx_graph_fail(g, VX_ERR_MODEL, "concatenation: too many channels");
    return vx_graph_append(g, &op, shape);
}

static bool mamba_weights_fit(vx_graph *g, const vx_mamba *m, size_t c) {
    const vx_op_kind kind = VX_OP_MAMBA;
    size_t two_d, dt_b_c;
    if (!vx_mul_size(m->d_inner, 2, &two_d) || !vx_mul_size(m->d_state, 2, &dt_b_c) ||
        !vx_add_size(dt_b_c, m->dt_rank, &dt_b_c)) {
        vx_graph_fail(g, VX_ERR_MODEL, "Mamba: its sizes are too large");
        return false;
    }
    const size_t d = m->d_inner;
    const size_t in_proj[] = {two_d, c}, conv[] = {d, m->d_conv}, x_proj[] = {dt_b_c, d};
    const size_t dt[] = {d, m->dt_rank}, a_log[] = {d, m->d_state}, out_proj[] = {c, d};
    return weight_fits(g, kind, "in_proj.weight", m->in_proj, in_proj, 2) &&
           weight_fits(g, kind, "conv1d.weight", m->conv_w, conv, 2) &&
           vector_fits(g, kind, "conv1d.bias", m->conv_b, d) &&
           weight_fits(g, kind, "x_proj.weight", m->x_proj, x_proj, 2) &&
           weight_fits(g, kind, "dt_proj.weight", m->dt_w, dt, 2) &&
           vector_fits(g, kind, "dt_proj.bias", m->dt_b, d) &&
           weight_fits(g, kind, "A_log", m->a_log, a_log, 2) &&
           vector_fits(g, kind, "D", m->d, d) &&
           weight_fits(g, kind, "out_proj.weight", m->out_proj, out_proj, 2);
}

int vx_graph_mamba(vx_graph *g, int x, const vx_mamba *mamba) {
    if (!vx_graph_is_value(g, x)) return -1;
    vx_op op = new_op(VX_OP_MAMBA, x, -1);
    const vx_shape shape = g->values[x].shape;
    unsigned seen = 0;
    for (int i = 0; i < 3; i++)
        if (mamba->order.axis[i] >= 0 && mamba->order.axis[i] < 3)
            seen |= 1u << mamba->order.axis[i];
    if (seen != 7) return vx_graph_fail(g, VX_ERR_MODEL, "Mamba: its scan order repeats an axis");
    if (!mamba->d_inner || !mamba->d_state || !mamba->d_conv || !mamba->dt_rank)
        return vx_graph_fail(g, VX_ERR_MODEL, "Mamba: one of its sizes is 0");
    if (!mamba_weights_fit(g, mamba, shape.c)) return -1;
    op.mamba = *mamba;
    return vx_graph_append(g, &op, shape);
}
