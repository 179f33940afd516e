/* nnU-Net's residual stages (dynamic_network_architectures, BasicBlockD; ResNet-D's skip): average
 * pooling where the block strides, then a 1x1 convolution with norm where the width changes. */
#include "model/arch.h"

static const size_t one[3] = {1, 1, 1};

/* The skip is a Sequential: its convolution is item 0, or 1 after a pooling. */
static int skip_path(vx_builder *b, int x, const char *prefix, size_t c_out,
                     const size_t stride[3]) {
    const bool strided = stride[0] != 1 || stride[1] != 1 || stride[2] != 1;
    const bool widened = x >= 0 && b->graph->values[x].shape.c != c_out;
    const vx_path path = vx_path_join("%s.skip.%d", prefix, strided ? 1 : 0);
    vx_graph_layer(b->graph, "%s", path.text);
    if (strided) x = vx_graph_avg_pool(b->graph, x, stride);
    if (widened) x = vx_conv_norm(b, x, path.text, c_out, one, one, false, false);
    return x;
}

static int residual_block(vx_builder *b, int x, const char *prefix, size_t c_out,
                          const size_t kernel[3], const size_t stride[3]) {
    const bool bias = b->network->conv_bias;
    const vx_path first = vx_path_join("%s.conv1", prefix);
    const vx_path second = vx_path_join("%s.conv2", prefix);
    int y = vx_conv_norm(b, x, first.text, c_out, kernel, stride, bias, true);
    /* Before conv2, so that conv2 -> norm -> add -> activation stay together for the fuser. */
    const int skip = skip_path(b, x, prefix, c_out, stride);
    y = vx_conv_norm(b, y, second.text, c_out, kernel, one, bias, false);
    vx_graph_layer(b->graph, "%s", prefix);
    y = vx_graph_add(b->graph, y, skip, 1.0f);
    return vx_graph_activation(b->graph, y, VX_ACT_LEAKY_RELU, 0.01f);
}

int vx_residual_stage(vx_builder *b, int x, const char *prefix, size_t count, size_t c_out,
                      const size_t kernel[3], const size_t stride[3]) {
    for (size_t k = 0; k < count; k++) {
        const vx_path path = vx_path_join("%s.blocks.%zu", prefix, k);
        x = residual_block(b, x, path.text, c_out, kernel, k ? one : stride);
    }
    return x;
}
