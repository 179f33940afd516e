#include "common.h"

#include <string.h>

#include "output.h"

bool cli_parse_common(const cli_verb *verb, int argc, char **argv, cli_common *args) {
    if (!cli_parse(verb, argc, argv, args)) return false;
    const char *format = args->log_format ? args->log_format : "text";
    const bool json = strcmp(format, "json") == 0;
    if (!json && strcmp(format, "text") != 0) {
        cli_usage_error("--log-format: '%s' is not text or json", format);
        return false;
    }
    cli_set_output(args->quiet, args->verbose, json, args->log_paths);
    return true;
}
