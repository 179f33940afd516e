/* The golden networks (layers/README.md): files, layers, layouts. */
#ifndef VX_TESTS_GOLDEN_NETS_H
#define VX_TESTS_GOLDEN_NETS_H

#include "ops.h"

#include "model/model.h"

enum { GOLDEN_NETS = 8 };
extern const char *const golden_nets[GOLDEN_NETS];

void golden_open(const char *name, vx_model **model, vx_model_file **layers);
/* [n][c][z][y][x] to [n][z][y][x][c]; free with vx_free. */
float *golden_channels_last(const vx_tensor *t);
/* Marks every layer of the golden as an output. tensors[k]: of output k. Returns their number. */
size_t golden_mark_layers(vx_graph *g, const vx_model_file *layers,
                          const vx_tensor *tensors[OPS_OUTPUTS]);

#endif
