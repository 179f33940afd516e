/* The verbs: one cmd_*.c each. */
#ifndef VX_CLI_VERBS_H
#define VX_CLI_VERBS_H

#include "common.h"

extern const cli_verb cli_segment, cli_info, cli_models, cli_evaluate;

#endif
