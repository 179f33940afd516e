/* The options that every verb takes. */
#ifndef VX_CLI_COMMON_H
#define VX_CLI_COMMON_H

#include "options.h"

/* Every verb's arguments struct begins with these. */
typedef struct cli_common {
    cli_list operands;
    bool help, quiet, verbose;
    const char *log_format; /* "text" or "json" */
    bool log_paths;
} cli_common;

/* Rows of the options table, at its end; field is the cli_common member of the verb's struct. */
#define CLI_COMMON_OPTIONS(args, field)                                                            \
    {'q',      "quiet",                                                                            \
     CLI_FLAG, offsetof(args, field.quiet),                                                        \
     NULL,     "no progress and no tables; errors and warnings stay"},                             \
        {'v',      "verbose",                                                                      \
         CLI_FLAG, offsetof(args, field.verbose),                                                  \
         NULL,     "say more about what is done"},                                                 \
        {0,           "log-format",                                                                \
         CLI_TEXT,    offsetof(args, field.log_format),                                            \
         "text|json", "how messages on stderr look (default text)"},                               \
        {0,        "log-paths",                                                                    \
         CLI_FLAG, offsetof(args, field.log_paths),                                                \
         NULL,     "reports and JSON messages may name files (else numbers and hashes)"},          \
    {                                                                                              \
        'h', "help", CLI_FLAG, offsetof(args, field.help), NULL, "show this help"                  \
    }

/* cli_parse, then messages and progress are as these options say. */
bool cli_parse_common(const cli_verb *verb, int argc, char **argv, cli_common *args);

#endif
