#include "cuda/mamba_pack.h"

#include <stdint.h>
#include <string.h>

void vx_cuda_pack_blocks(const void *matrix, size_t outputs, size_t inputs, void *packed) {
    enum { PIECE = 8 * sizeof(uint16_t) };
    const unsigned char *from = matrix;
    unsigned char *to = packed;
    for (size_t o = 0; o < outputs; o += 32)
        for (size_t k = 0; k < inputs; k += 32)
            for (size_t tile = 0; tile < 4; tile++)
                for (size_t lane = 0; lane < 32; lane++, to += PIECE) {
                    const size_t column = lane / 4; /* of the product */
                    const size_t output = o + 8 * (column / 2) + 2 * tile + column % 2;
                    const size_t input = k + 8 * (lane % 4);
                    memcpy(to, from + (output * inputs + input) * sizeof(uint16_t), PIECE);
                }
}
