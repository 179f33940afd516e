/* Options from tables: one table a verb (or a program without verbs) gives the parser, the help
 * text and its checks.
 *
 * Long options as in GNU tools: --name VALUE, --name=VALUE, unambiguous beginnings (--over for
 * --overwrite), -oVALUE, bundled letters (-qv), "--" ends the options.
 */
#ifndef VX_CLI_OPTIONS_H
#define VX_CLI_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>

typedef struct cli_list {
    size_t count;
    const char **items; /* borrowed from argv */
} cli_list;

typedef enum cli_kind {
    CLI_FLAG,          /* bool: set */
    CLI_UNFLAG,        /* bool: cleared */
    CLI_TEXT,          /* const char * */
    CLI_OPTIONAL_TEXT, /* const char *: --name=VALUE, or "" for --name alone */
    CLI_NUMBER,        /* double */
    CLI_BYTES,         /* double: a size, "512M", "4G", "1.5GiB" */
    CLI_COUNT,         /* unsigned, at least 1 */
    CLI_COUNT_OR_NONE, /* unsigned, 0 too */
    CLI_LIST           /* cli_list: may be repeated */
} cli_kind;

typedef struct cli_option {
    char letter; /* 0: long form only */
    const char *name;
    cli_kind kind;
    size_t offset;     /* of the field in the verb's arguments struct */
    const char *value; /* what the help calls the value; NULL for flags */
    const char *help;
} cli_option;

typedef struct cli_verb {
    const char *name;     /* NULL: the program has no verbs */
    const char *operands; /* "INPUT... -o OUT" */
    const char *summary;  /* one line */
    const char *details;  /* paragraphs after the options, may be NULL */
    const cli_option *options;
    size_t option_count;
    bool empty_is_default; /* an option's value "" leaves its default */
    int (*run)(int argc, char **argv);
} cli_verb;

/* Fills args (zeroed, defaults set; begins with a cli_list, the operands). False after a message
 * about what was wrong: exit with 1. Free with cli_free_args. */
bool cli_parse(const cli_verb *verb, int argc, char **argv, void *args);
void cli_free_args(const cli_verb *verb, void *args);
/* The --help of a verb, to stdout. */
void cli_print_help(const cli_verb *verb);

/* The candidate that text is most likely a slip of, or NULL. */
const char *cli_suggest(const char *text, const char *const *candidates, size_t count);

#endif
