/* Models with random weights of the right distributions, written as ordinary model files, so that
 * the benchmark takes the program's own way from a file to a graph, and PyTorch can load the same
 * weights. */
#ifndef VX_BENCH_RANDOM_MODEL_H
#define VX_BENCH_RANDOM_MODEL_H

#include "model/model.h"

typedef struct bench_network {
    const char *family, *shell; /* "segmamba_skip", ..., "none"; "residual_encoder", ...: the
                                   recipe's words */
    size_t width, stages;       /* stage s has width 2^s features ... */
    size_t most;                /* ... and no more than this */
    size_t encoder_blocks[VX_MAX_STAGES], decoder_blocks; /* of a stage; 0: two */
    size_t states;                                        /* d_state_max */
    size_t in_channels, classes;
    size_t patch[3];   /* z, y, x: of the recipe */
    double spacing[3]; /* z, y, x, mm: of the recipe */
} bench_network;

/* Fills a tensor as training would start it, by the end of its state-dict name: A_log = log(1..N),
 * time steps log-uniform in [1e-3, 0.1] (these decide how long a scan's state lives), He for
 * convolutions, norms near 1 and 0. Deterministic in name and dims. */
void bench_fill_tensor(const char *name, int rank, const size_t *dims, float *out);

/* Writes the model to path, opens it, and removes the file unless keep. */
vx_status bench_random_model(const bench_network *network, const char *path, bool keep,
                             vx_model **out, vx_error *err);

#endif
