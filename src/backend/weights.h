/* A model's weights as a backend reads them when it packs its own copies. */
#ifndef VX_BACKEND_WEIGHTS_H
#define VX_BACKEND_WEIGHTS_H

#include "graph/graph.h"

/* Weights as float32, whatever they are stored as; out holds w->elements. */
void vx_read_weight(const vx_weight *w, float *out);

#endif
