/* voxmamba <verb> [options]: finds the verb. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/voxmamba.h"
#include "options.h"
#include "output.h"
#include "verbs.h"

static const cli_verb *const verbs[] = {&cli_segment, &cli_info, &cli_models, &cli_evaluate};
#define VERB_COUNT (sizeof verbs / sizeof *verbs)

static void print_usage(void) {
    puts("Usage: voxmamba VERB [OPTIONS]\n"
         "Segments 3D medical volumes with 3D-scan Mamba U-Nets.\n");
    for (size_t i = 0; i < VERB_COUNT; i++)
        printf("  %-10s %s\n", verbs[i]->name, verbs[i]->summary);
    puts("\n  voxmamba VERB --help shows a verb's options; --version the version.\n\n"
         "Exit codes: 0 all done, 1 usage, 2 input unreadable or invalid, 3 model unreadable or\n"
         "does not fit, 4 output could not be written, 5 device or memory, 6 cases of a batch\n"
         "failed, 129 SIGHUP, 130 SIGINT, 143 SIGTERM.");
}

static int unknown_verb(const char *typed) {
    const char *names[VERB_COUNT];
    for (size_t i = 0; i < VERB_COUNT; i++) names[i] = verbs[i]->name;
    const char *near = cli_suggest(typed, names, VERB_COUNT);
    if (near)
        cli_usage_error("unknown verb '%s' (did you mean %s? see voxmamba --help)", typed, near);
    else
        cli_usage_error("unknown verb '%s' (see voxmamba --help)", typed);
    return VXM_ERR_USAGE;
}

int main(int argc, char **argv) {
    cli_set_program("voxmamba");
    if (argc < 2) {
        cli_usage_error("no verb was given (see voxmamba --help)");
        return VXM_ERR_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
        (strcmp(argv[1], "help") == 0 && argc == 2)) {
        print_usage();
        return cli_exit_code(VXM_OK);
    }
    if (strcmp(argv[1], "--version") == 0) return cli_print_version();
    for (size_t i = 0; i < VERB_COUNT; i++)
        if (strcmp(argv[1], verbs[i]->name) == 0) return verbs[i]->run(argc - 2, argv + 2);
    return unknown_verb(argv[1]);
}
