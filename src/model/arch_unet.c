/* The U-Net that all shells share: encoder stages with their Mamba layers, then transposed
 * convolution, concatenation (up, skip) and stages back up. dynamic_network_architectures 0.4
 * (UNetDecoder, PlainConvEncoder, ResidualEncoder) and TamingMambas (nets/). */
#include <stdarg.h>
#include <stdio.h>

#include "model/arch.h"

#define NORM_EPS    1e-5f
#define LEAKY_SLOPE 0.01f

static const size_t one[3] = {1, 1, 1}, none[3] = {0, 0, 0};

vx_path vx_path_join(const char *format, ...) {
    vx_path path;
    va_list args;
    va_start(args, format);
    vsnprintf(path.text, sizeof path.text, format, args);
    va_end(args);
    return path;
}

static vx_weight find(vx_builder *b, const char *prefix, const char *name, int rank,
                      const size_t *dims, bool optional) {
    vx_tensor_spec spec = {.rank = rank, .optional = optional};
    vx_weight weight = {0};
    vx_error error;
    if (b->graph->failed) return weight;
    const int length = snprintf(spec.name, sizeof spec.name, "%s.%s", prefix, name);
    if (length < 0 || (size_t)length >= sizeof spec.name) {
        vx_graph_fail(b->graph, VX_ERR_MODEL, "a tensor's name is too long");
        return weight;
    }
    for (int i = 0; i < rank; i++) spec.dims[i] = dims[i];
    const vx_status status = b->source.find(b->source.context, &spec, &weight, &error);
    if (status) {
        b->graph->layer[0] = '\0'; /* the message names the tensor */
        vx_graph_fail(b->graph, status, "%s", error.text);
    }
    return weight;
}

vx_weight vx_weight_get(vx_builder *b, const char *prefix, const char *name, int rank,
                        const size_t *dims) {
    return find(b, prefix, name, rank, dims, false);
}

vx_weight vx_weight_try(vx_builder *b, const char *prefix, const char *name, int rank,
                        const size_t *dims) {
    return find(b, prefix, name, rank, dims, true);
}

/* Channels of value x. 1 after a failure: then nothing is done with it. */
static size_t channels(const vx_builder *b, int x) {
    return x < 0 ? 1 : b->graph->values[x].shape.c;
}

int vx_conv_norm(vx_builder *b, int x, const char *prefix, size_t c_out, const size_t kernel[3],
                 const size_t stride[3], bool bias, bool activate) {
    const size_t dims[5] = {c_out, channels(b, x), kernel[0], kernel[1], kernel[2]};
    const size_t pad[3] = {(kernel[0] - 1) / 2, (kernel[1] - 1) / 2, (kernel[2] - 1) / 2};
    vx_graph_layer(b->graph, "%s", prefix);
    const vx_weight w = vx_weight_get(b, prefix, "conv.weight", 5, dims);
    const vx_weight no_bias = {0};
    const vx_weight conv_bias = bias ? vx_weight_get(b, prefix, "conv.bias", 1, &c_out) : no_bias;
    const vx_weight gamma = vx_weight_get(b, prefix, "norm.weight", 1, &c_out);
    const vx_weight beta = vx_weight_get(b, prefix, "norm.bias", 1, &c_out);
    x = vx_graph_conv(b->graph, x, w, conv_bias, c_out, kernel, stride, pad);
    x = vx_graph_instance_norm(b->graph, x, gamma, beta, NORM_EPS);
    return activate ? vx_graph_activation(b->graph, x, VX_ACT_LEAKY_RELU, LEAKY_SLOPE) : x;
}

/* Fills skips[0..stages-1], finest first; the last one feeds the decoder. */
static void encode(vx_builder *b, int x, int skips[VX_MAX_STAGES]) {
    const vx_network *net = b->network;
    const bool plain = net->shell == VX_SHELL_PLAIN;
    const vx_stage_fn stage = plain ? vx_plain_stage : vx_residual_stage;
    if (!plain) {
        x = vx_conv_norm(b, x, "encoder.stem.convs.0", net->features[0], net->kernels[0], one,
                         net->conv_bias, true);
        vx_graph_name(b->graph, x, "encoder.stem");
    }
    for (size_t s = 0; s < net->stages; s++) {
        /* PlainConvEncoder wraps each stage in a Sequential of its own, hence the ".0". */
        const vx_path path = vx_path_join("encoder.stages.%zu%s", s, plain ? ".0" : "");
        x = stage(b, x, path.text, net->encoder_blocks[s], net->features[s], net->kernels[s],
                  net->strides[s]);
        vx_graph_name(b->graph, x, "encoder.stages.%zu", s);
        skips[s] = vx_mamba_layer(b, x, s);
        /* SegMambaSkip's encoder goes on from the convolutions; the others' from the Mamba layer.
         */
        if (net->family != VX_MAMBA_SEGMAMBA_SKIP) x = skips[s];
    }
}

/* Transposed convolution of decoder stage s (0 = coarsest) to the grid of encoder stage `level`. */
static int go_up(vx_builder *b, int x, size_t s, size_t level) {
    const vx_network *net = b->network;
    const size_t c_out = net->features[level], *stride = net->strides[level + 1];
    const size_t dims[5] = {channels(b, x), c_out, stride[0], stride[1], stride[2]};
    const vx_weight no_bias = {0};
    const vx_path path = vx_path_join("decoder.transpconvs.%zu", s);
    vx_graph_layer(b->graph, "%s", path.text);
    const vx_weight w = vx_weight_get(b, path.text, "weight", 5, dims);
    const vx_weight bias =
        net->conv_bias ? vx_weight_get(b, path.text, "bias", 1, &c_out) : no_bias;
    x = vx_graph_transposed_conv(b->graph, x, w, bias, c_out, stride);
    vx_graph_name(b->graph, x, "%s", path.text);
    return x;
}

/* The 1x1 segmentation head of decoder stage s; only the last one's logits are computed. */
static int head(vx_builder *b, int x, size_t s, bool last) {
    const size_t classes = b->network->classes;
    const size_t dims[5] = {classes, channels(b, x), 1, 1, 1};
    const vx_path path = vx_path_join("decoder.seg_layers.%zu", s);
    vx_graph_layer(b->graph, "%s", path.text);
    if (!last) { /* a head that served training may be in the file, with the right shape */
        vx_weight_try(b, path.text, "weight", 5, dims);
        vx_weight_try(b, path.text, "bias", 1, &classes);
        return x;
    }
    const vx_weight w = vx_weight_get(b, path.text, "weight", 5, dims);
    const vx_weight bias = vx_weight_get(b, path.text, "bias", 1, &classes);
    x = vx_graph_conv(b->graph, x, w, bias, classes, one, one, none);
    vx_graph_name(b->graph, x, "logits");
    return x;
}

static int decode(vx_builder *b, const int skips[VX_MAX_STAGES]) {
    const vx_network *net = b->network;
    const vx_stage_fn stage =
        net->shell == VX_SHELL_RESIDUAL_ENCODER ? vx_residual_stage : vx_plain_stage;
    const size_t steps = net->stages - 1;
    int x = skips[steps], logits = -1;
    for (size_t s = 0; s < steps; s++) {
        const size_t level = steps - 1 - s;
        const int up = go_up(b, x, s, level);
        x = vx_graph_concat(b->graph, up, skips[level]);
        const vx_path path = vx_path_join("decoder.stages.%zu", s);
        x = stage(b, x, path.text, net->decoder_blocks[s], net->features[level],
                  net->kernels[level], one);
        vx_graph_name(b->graph, x, "%s", path.text);
        logits = head(b, x, s, s == steps - 1);
    }
    return logits;
}

int vx_unet(vx_builder *b, int x) {
    int skips[VX_MAX_STAGES] = {0};
    encode(b, x, skips);
    return decode(b, skips);
}
