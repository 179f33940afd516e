/* The parts of voxmamba_bench. Each prints a table and, with ctx->json, appends one JSON object a
 * row. */
#ifndef VX_BENCH_BENCH_H
#define VX_BENCH_BENCH_H

#include "measure.h"
#include "random_model.h"

/* Convolutions, norms, projections and Mamba mixers of the shapes that the networks have. quick:
 * those of the 40 x 56 x 40 patch only; only: those of this name, NULL: all. */
vx_status bench_ops(const bench_context *ctx, bool quick, const char *only, vx_error *err);

/* One network on one patch (z, y, x). With ctx->save, PREFIX.safetensors, PREFIX.input.f32 and
 * PREFIX.logits.f32 ([z][y][x][c]) stay, for the comparison with PyTorch. */
vx_status bench_whole(const bench_context *ctx, const bench_network *network, const size_t patch[3],
                      vx_error *err);

/* The same network's ops one by one, each as a graph of its own with its own shapes, summed by
 * kind. */
vx_status bench_split(const bench_context *ctx, const bench_network *network, const size_t patch[3],
                      vx_error *err);

/* Opens the random model (removing its file, unless ctx->save) and builds its graph. */
vx_status bench_open(const bench_context *ctx, const bench_network *network, const size_t patch[3],
                     vx_model **model, vx_graph **graph, vx_error *err);

/* State updates of one run: tokens x D x N over all Mamba mixers. Each needs one exponential. */
double bench_state_updates(const vx_graph *graph);

#endif
