/* From hyper-parameters to a graph: what the arch_*.c files share. Inside src/model only.
 *
 * A network is written once, as the code that builds its graph. Every weight is asked for by name
 * and shape through vx_weight_get; with a file behind it (model.c) this finds and checks tensors,
 * with a recorder behind it (vx_network_tensors) it lists what a network needs.
 */
#ifndef VX_MODEL_ARCH_H
#define VX_MODEL_ARCH_H

#include "graph/graph.h"
#include "model/model.h"

typedef struct vx_weight_source {
    /* Fills *out for the tensor of this name and shape. An optional one that is absent gives VX_OK
     * and data NULL. */
    vx_status (*find)(void *context, const vx_tensor_spec *spec, vx_weight *out, vx_error *err);
    void *context;
} vx_weight_source;

/* What the builders pass around. Failures stick to the graph; all builders take -1 as input then.
 */
typedef struct vx_builder {
    vx_graph *graph;
    const vx_network *network;
    vx_weight_source source;
} vx_builder;

/* A module path ("encoder.stages.0.blocks.1"). The longest here has 60 characters; a longer one
 * would be cut and its tensors not be found. */
typedef struct vx_path {
    char text[112];
} vx_path;
vx_path vx_path_join(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Tensor "PREFIX.NAME" of this shape; data NULL after a failure. */
vx_weight vx_weight_get(vx_builder *b, const char *prefix, const char *name, int rank,
                        const size_t *dims);
/* The same, but the tensor may be absent (data NULL then). */
vx_weight vx_weight_try(vx_builder *b, const char *prefix, const char *name, int rank,
                        const size_t *dims);

/* "PREFIX.conv" and "PREFIX.norm": convolution with padding (k - 1) / 2, instance norm (eps 1e-5),
 * and leaky ReLU 0.01 if activate. */
int vx_conv_norm(vx_builder *b, int x, const char *prefix, size_t c_out, const size_t kernel[3],
                 const size_t stride[3], bool bias, bool activate);

/* One stage: `count` layers, of which the first one strides and changes the width. Paths of layers
 * begin with prefix. */
typedef int (*vx_stage_fn)(vx_builder *b, int x, const char *prefix, size_t count, size_t c_out,
                           const size_t kernel[3], const size_t stride[3]);
/* nnU-Net's StackedConvBlocks: "PREFIX.convs.K" (arch_plain.c). */
int vx_plain_stage(vx_builder *b, int x, const char *prefix, size_t count, size_t c_out,
                   const size_t kernel[3], const size_t stride[3]);
/* nnU-Net's StackedResidualBlocks of BasicBlockD: "PREFIX.blocks.B" (arch_residual.c). */
int vx_residual_stage(vx_builder *b, int x, const char *prefix, size_t count, size_t c_out,
                      const size_t kernel[3], const size_t stride[3]);

/* The family's Mamba layer after encoder stage s, "encoder.mamba_layers.S" (mamba_layers.c).
 * Returns x itself where the family has none. */
int vx_mamba_layer(vx_builder *b, int x, size_t s);

/* The whole network on x; returns the logits (arch_unet.c). */
int vx_unet(vx_builder *b, int x);

#endif
