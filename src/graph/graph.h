/* The network as a list of ops with shapes: no maths, no backend types.
 *
 * Tensors are channels last: [n][d][h][w][c], c fastest, w next (= the file's x axis). A token is a
 * voxel: its c numbers. Every value is written once, by the op of the same index order; ops are in
 * execution order. Weights are references into the model's file in PyTorch layout; backends pack
 * their own copies.
 */
#ifndef VX_GRAPH_GRAPH_H
#define VX_GRAPH_GRAPH_H

#include <stdbool.h>
#include <stddef.h>

#include "base/status.h"

typedef enum vx_dtype { VX_F32, VX_F16, VX_BF16 } vx_dtype;
size_t vx_dtype_size(vx_dtype dtype);

typedef struct vx_shape {
    size_t n, d, h, w, c;
} vx_shape;
/* n*d*h*w and n*d*h*w*c; shapes inside a graph were checked, these cannot overflow. */
size_t vx_shape_tokens(vx_shape shape);
size_t vx_shape_elements(vx_shape shape);

/* A reference to a weight; data NULL = absent (e.g. no bias). Byte alignment only. */
typedef struct vx_weight {
    const void *data;
    vx_dtype dtype;
    size_t elements;
} vx_weight;

typedef enum vx_op_kind {
    VX_OP_INPUT,           /* exactly one, the first op */
    VX_OP_CONV,            /* weights: weight (Cout,Cin,kd,kh,kw), bias (Cout) */
    VX_OP_TRANSPOSED_CONV, /* weights: weight (Cin,Cout,kd,kh,kw), bias (Cout) */
    VX_OP_INSTANCE_NORM,   /* weights: gamma (C), beta (C); attr eps */
    VX_OP_LAYER_NORM,      /* over c of each token; weights: gamma, beta; attr eps */
    VX_OP_ACTIVATION,
    VX_OP_LINEAR,   /* on each token; weights: weight (Cout,Cin), bias (Cout) */
    VX_OP_AVG_POOL, /* kernel = stride, no padding, as nn.AvgPool3d(k, k): floor of the size */
    VX_OP_UPSAMPLE_NEAREST,
    VX_OP_ADD,    /* 2 inputs of equal shape; attr scale: out = scale * (a + b) */
    VX_OP_CONCAT, /* along c, 2 inputs */
    VX_OP_MAMBA,  /* the Mamba mixer over all tokens of one n, in a scan order */
    /* Made by vx_graph_fuse only. The first is a transposed convolution whose output is the first
     * channels of out, in[1] the others. The other two carry the convolution's kernel, stride, pad,
     * weight and bias, the norm's gamma, beta and eps, and the activation's act (VX_ACT_NONE: none
     * followed) and slope. */
    VX_OP_TRANSPOSED_CONCAT,
    VX_OP_CONV_NORM_ACT, /* out = act(norm(conv(in[0]))) */
    VX_OP_NORM_ACT_ADD,  /* out = act(norm(conv(in[0])) + in[1]); in[1] has out's shape */
    /* Made by vx_graph_fuse_mamba only; attrs eps, of all its norms, and scale. */
    VX_OP_MAMBA_LAYER
} vx_op_kind;

typedef enum vx_activation {
    VX_ACT_NONE,
    VX_ACT_RELU,
    VX_ACT_LEAKY_RELU,
    VX_ACT_GELU,
    VX_ACT_SILU
} vx_activation;

/* Scan order: the sequence visits the grid with axis[0] slowest and axis[2] fastest (0 = z, 1 = y,
 * 2 = x); reverse walks the same sequence from its end. {0,1,2} forward is raster, the memory
 * order. */
typedef struct vx_scan_order {
    int axis[3];
    bool reverse;
} vx_scan_order;

/* Mamba mixer weights (NETWORKS.md; Gu & Dao 2023, arXiv:2312.00752). C model width, D = d_inner.
 */
typedef struct vx_mamba {
    vx_scan_order order;
    size_t d_inner, d_state, d_conv, dt_rank;
    vx_weight in_proj;        /* (2D, C): rows 0..D-1 make u, D..2D-1 make z */
    vx_weight conv_w, conv_b; /* (D, 1, d_conv), (D) */
    vx_weight x_proj;         /* (R + 2N, D): dt, B, C */
    vx_weight dt_w, dt_b;     /* (D, R), (D) */
    vx_weight a_log, d;       /* (D, N), (D) */
    vx_weight out_proj;       /* (C, D) */
} vx_mamba;

/* MambaTrans (Lumetti et al., TamingMambas, nets/): x1 = a + mamba(norm1(a)), out = x1 +
 * head(norm2(x1)). Gammas, betas and the head's bias are (C), the head is (C, C); its bias may be
 * absent. */
typedef struct vx_mamba_branch {
    vx_weight gamma1, beta1;
    vx_mamba mamba;
    vx_weight gamma2, beta2;
    vx_weight head, head_bias;
} vx_mamba_branch;

/* One or two MambaTrans of a value x and the norms around them: norm_out(the sum of the branches of
 * a), a = norm_in(x). A norm without gamma is none. */
enum { VX_MAMBA_BRANCHES = 2 };
typedef struct vx_mamba_part {
    vx_mamba_branch branch[VX_MAMBA_BRANCHES];
    vx_weight in_gamma, in_beta, out_gamma, out_beta;
} vx_mamba_part;

/* out = scale * (the sum of the parts of in[0]). Parts have the same number of branches and differ
 * in weights, orders and norms only. */
enum { VX_MAMBA_PARTS = 4 };
typedef struct vx_mamba_layer_op {
    size_t parts, branches; /* branches: of a part */
    vx_mamba_part part[VX_MAMBA_PARTS];
} vx_mamba_layer_op;

typedef struct vx_op {
    vx_op_kind kind;
    int in[2]; /* values; -1 = unused */
    int out;   /* value: always the op's own index, op i writes value i */
    /* Spatial attributes in z, y, x order; zero where meaningless. */
    size_t kernel[3], stride[3], pad[3];
    vx_activation act;
    float slope; /* leaky ReLU */
    float eps;
    float scale;
    vx_weight weight, bias; /* convolution, linear */
    vx_weight gamma, beta;  /* norms */
    vx_mamba mamba;
    vx_mamba_layer_op layer;
} vx_op;

typedef struct vx_value {
    vx_shape shape;
    char name[96]; /* module path of the layer that ends here ("encoder.stages.0"), or "" */
    bool output;   /* kept to the end and handed out */
} vx_value;

typedef struct vx_graph {
    size_t op_count, op_room;
    vx_op *ops;
    size_t value_count, value_room;
    vx_value *values;
    bool failed; /* an append failed; vx_graph_finish reports it */
    vx_error error;
    char layer[96]; /* named by the next builder error (vx_graph_layer) */
} vx_graph;

/* Builders append one op and return its value, or -1 after a failure (then every later call returns
 * -1 too, and vx_graph_finish gives the reason): a network reads as straight-line code.
 * Weights must have exactly the elements that the op's shapes ask for (VX_ERR_MODEL); biases of
 * convolutions and linear layers may be absent, every other weight is required. */
vx_status vx_graph_create(vx_graph **out, vx_error *err);
/* A copy to rewrite (backends fuse their own copy); weights are shared references. */
vx_status vx_graph_copy(const vx_graph *graph, vx_graph **out, vx_error *err);
void vx_graph_free(vx_graph *graph);
/* The layer that the following builder calls belong to; errors begin with it. */
void vx_graph_layer(vx_graph *g, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Keeps the first failure; for builders of layers above. Always returns -1. */
int vx_graph_fail(vx_graph *g, vx_status code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
int vx_graph_input(vx_graph *g, vx_shape shape);
/* Zero padding; out = floor((in + 2 pad - kernel) / stride) + 1. */
int vx_graph_conv(vx_graph *g, int x, vx_weight w, vx_weight b, size_t c_out,
                  const size_t kernel[3], const size_t stride[3], const size_t pad[3]);
/* Kernel = stride, no padding: out = in * stride. */
int vx_graph_transposed_conv(vx_graph *g, int x, vx_weight w, vx_weight b, size_t c_out,
                             const size_t stride[3]);
int vx_graph_instance_norm(vx_graph *g, int x, vx_weight gamma, vx_weight beta, float eps);
int vx_graph_layer_norm(vx_graph *g, int x, vx_weight gamma, vx_weight beta, float eps);
int vx_graph_activation(vx_graph *g, int x, vx_activation act, float slope);
int vx_graph_linear(vx_graph *g, int x, vx_weight w, vx_weight b, size_t c_out);
int vx_graph_avg_pool(vx_graph *g, int x, const size_t stride[3]);
int vx_graph_upsample_nearest(vx_graph *g, int x, const size_t factor[3]);
int vx_graph_add(vx_graph *g, int a, int b, float scale);
int vx_graph_concat(vx_graph *g, int a, int b);
int vx_graph_mamba(vx_graph *g, int x, const vx_mamba *mamba);
void vx_graph_name(vx_graph *g, int value, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void vx_graph_output(vx_graph *g, int value);
int vx_graph_find(const vx_graph *g, const char *name); /* first value of that name, or -1 */
/* Checks the whole: the sticky failure, one input, at least one output. */
vx_status vx_graph_finish(vx_graph *g, vx_error *err);

/* Removes values from which no output follows (inputs stay). Values are renumbered: find them by
 * name again. */
vx_status vx_graph_prune(vx_graph *g, vx_error *err);

/* Rewrites transposed conv -> concat (as its first input) into one op, and conv -> instance norm ->
 * activation and the residual tail conv -> instance norm -> add
 * (scale 1) -> activation into fused ops, where the values between have one reader and are not
 * outputs; a missing activation gives VX_ACT_NONE. Where both inputs of an add end in
 * conv -> instance norm, the add's in[0] is fused with it and the other becomes a
 * VX_OP_CONV_NORM_ACT of its own. The fused op stands where its last part stood and keeps that
 * part's value name. Then prunes. */
vx_status vx_graph_fuse(vx_graph *g, vx_error *err);

/* Whether a backend has a step for this layer on values of shape `in`. */
typedef bool vx_mamba_layer_takes(void *ctx, const vx_op *layer, vx_shape in);
/* For backends that run a whole Mamba layer as one: rewrites layer norm (optional) -> one or two
 * MambaTrans of the same value -> their sum -> layer norm (optional) into VX_OP_MAMBA_LAYER, where
 * all norms share an epsilon, the branches their sizes, the values between have no other reader and
 * are not outputs, and `takes` says yes; then the scaled sum of up to VX_MAMBA_PARTS such layers of
 * one value into one, under the same conditions. Then prunes. */
vx_status vx_graph_fuse_mamba(vx_graph *g, vx_mamba_layer_takes *takes, void *ctx, vx_error *err);

/* Multiply-adds of convolutions, linear maps and Mamba count as two; element-wise work is counted
 * too (norms 7 an element, activations, additions 1; an exponential is 1). */
double vx_op_flops(const vx_graph *g, const vx_op *op);
/* A word for messages and plans ("convolution"). */
const char *vx_op_name(vx_op_kind kind);

#endif
