/* The arguments that Slicer gives the module: the parameters of VoxMambaSegment.xml. */
#ifndef VX_SLICER_ARGUMENTS_H
#define VX_SLICER_ARGUMENTS_H

#include <stdbool.h>

#include "api/voxmamba.h"
#include "cli/device.h"
#include "cli/options.h"

typedef struct module_arguments {
    cli_list operands; /* input, output */
    bool xml, version, help;
    const char *return_parameters,
        *process_information;                /* the latter is for shared libraries only */
    const char *model, *labels, *statistics; /* NULL: not given */
    bool keep_largest, force;
    double remove_small_mm3; /* 0: as the recipe says */
    double memory_gb;        /* 0: what is free */
    cli_device device;
} module_arguments;

/* False after a message: exit with 1. Free with arguments_free in both cases. */
bool arguments_parse(int argc, char **argv, module_arguments *out);
void arguments_free(module_arguments *arguments);
void arguments_print_help(void);

/* What can be refused without looking at a volume. False after a message. */
bool arguments_check(const module_arguments *arguments);
/* arguments must outlive both. False after a message. */
bool arguments_options(const module_arguments *arguments, vxm_session_options *session,
                       vxm_segment_options *segment);

#endif
