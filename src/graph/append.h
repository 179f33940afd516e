/* Between the files of this folder only. */
#ifndef VX_GRAPH_APPEND_H
#define VX_GRAPH_APPEND_H

#include "graph/graph.h"

/* Appends op with an output of this shape (checked here); returns the value or -1. */
int vx_graph_append(vx_graph *g, const vx_op *op, vx_shape shape);
/* True when x is a value of g; otherwise records the failure. */
bool vx_graph_is_value(vx_graph *g, int x);

#endif
