/* The options that say on what and how a network runs; shared by segment and info --plan. */
#ifndef VX_CLI_DEVICE_H
#define VX_CLI_DEVICE_H

#include <stdbool.h>

#include "api/voxmamba.h"

typedef struct cli_device {
    const char *device, *precision;
    unsigned threads;
    bool tta;
    double step;
    double memory; /* bytes; 0: what is free */
} cli_device;

#define CLI_DEVICE_DEFAULTS ((cli_device){.device = "auto", .precision = "auto", .step = 0.5})

/* Rows of the options table; field is the cli_device member of the verb's struct. */
#define CLI_DEVICE_OPTIONS(args, field)                                                             \
    {0,                                                                                             \
     "device",                                                                                      \
     CLI_TEXT,                                                                                      \
     offsetof(args, field.device),                                                                  \
     "auto|cpu|cuda|cuda:N|cuda:all",                                                               \
     "where to compute (default auto: a GPU if it can be used)"},                                   \
        {0,                                                                                         \
         "precision",                                                                               \
         CLI_TEXT,                                                                                  \
         offsetof(args, field.precision),                                                           \
         "auto|fp32|fp16|bf16",                                                                     \
         "arithmetic (default auto: fp32 on the CPU, fp16 on CUDA)"},                               \
        {0,         "threads",                                                                      \
         CLI_COUNT, offsetof(args, field.threads),                                                  \
         "N",       "CPU threads (default: what affinity and cgroup allow); the mask is the same"}, \
        {0,        "tta",                                                                           \
         CLI_FLAG, offsetof(args, field.tta),                                                       \
         NULL,     "average over mirrored tiles: better, and up to 8 times slower"},                \
        {0, "no-tta", CLI_UNFLAG, offsetof(args, field.tta), NULL, "no mirroring (the default)"},   \
        {0,         "memory",                                                                       \
         CLI_BYTES, offsetof(args, field.memory),                                                   \
         "LIMIT",   "take at most this much memory (4G, 512M), or say what is needed"},             \
    {                                                                                               \
        0, "step", CLI_NUMBER, offsetof(args, field.step), "SHARE",                                 \
            "tile step as a share of the patch, above 0 to 1 (default 0.5)"                         \
    }

/* False after a message. */
bool cli_device_options(const cli_device *device, vxm_session_options *out);

#endif
