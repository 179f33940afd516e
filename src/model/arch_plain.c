/* nnU-Net's plain stages (Isensee et al. 2021; dynamic_network_architectures, StackedConvBlocks):
 * convolution, instance norm and leaky ReLU, count times. */
#include "model/arch.h"

int vx_plain_stage(vx_builder *b, int x, const char *prefix, size_t count, size_t c_out,
                   const size_t kernel[3], const size_t stride[3]) {
    static const size_t one[3] = {1, 1, 1};
    for (size_t k = 0; k < count; k++) {
        const vx_path path = vx_path_join("%s.convs.%zu", prefix, k);
        x = vx_conv_norm(b, x, path.text, c_out, kernel, k ? one : stride, b->network->conv_bias,
                         true);
    }
    return x;
}
