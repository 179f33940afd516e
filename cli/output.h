/* What the program says: messages and progress on stderr, data on stdout. */
#ifndef VX_CLI_OUTPUT_H
#define VX_CLI_OUTPUT_H

#include <stdbool.h>

#include "api/voxmamba.h"

/* The name that begins every message; before anything is said. text lives as long as the program.
 */
void cli_set_program(const char *text);
const char *cli_program(void);
void cli_set_output(bool quiet, bool verbose, bool json, bool paths);
bool cli_quiet(void);
bool cli_paths(void);

/* "PROGRAM: text". JSON: {"level": "error", "code": 1, "message": text}. */
void cli_usage_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* "PROGRAM: file: text"; JSON names the case by its number instead (0: no case). */
void cli_error(const vxm_error *error, size_t case_number);
/* A warning, or with -v any message; the file as typed (NULL: none) stands before it. */
void cli_log_file(vxm_log_level level, size_t case_number, const char *file, const char *text);
/* For the callbacks of the library; user_data is not used. */
void cli_log(void *user_data, vxm_log_level level, size_t case_number, const char *text);
int cli_progress(void *user_data, const vxm_progress *progress);
/* Ends a progress bar that is on the screen. */
void cli_progress_end(void);

/* Catches SIGHUP (unless it is ignored, as under nohup), SIGINT and SIGTERM: the progress callback
 * then stops the work. A second one kills. */
void cli_catch_signals(void);
/* The signal that came, or 0. */
int cli_signal(void);
/* The exit code of a call that gave status; says the last word after a signal. */
int cli_exit_code(vxm_status status);

/* "PROGRAM 0.1.0 (commit)" on stdout; gives the exit code. */
int cli_print_version(void);

/* Text as a table cell: printable, one line. */
void cli_print_safe(const char *text);

#endif
