#include "output.h"

#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cjson/cJSON.h>

#include "text.h"

#define SEEN 64 /* more cases than run at once */

/* The program's one piece of state: how it speaks. Set once, after the options were read (its name
 * before); callbacks come one at a time. */
static struct {
    const char *program;
    bool quiet, verbose, json, paths;
    bool bar_shown;
    double last_time;
    struct {
        size_t number;
        char stage[32];
    } seen[SEEN]; /* the stage that each running case was last seen in */
} out;

/* Not sig_atomic_t: with several jobs one thread may get the signal while another one asks. */
static atomic_int caught;
_Static_assert(ATOMIC_INT_LOCK_FREE == 2, "a handler may touch lock-free atomics only");

void cli_set_program(const char *text) { out.program = text; }
const char *cli_program(void) { return out.program; }

void cli_set_output(bool quiet, bool verbose, bool json, bool paths) {
    out.quiet = quiet;
    out.verbose = verbose;
    out.json = json;
    out.paths = paths;
}
bool cli_quiet(void) { return out.quiet; }
bool cli_paths(void) { return out.paths; }

/* ---- Messages ---- */

void cli_print_safe(const char *text) { cli_put_safe(stdout, text); }

void cli_progress_end(void) {
    if (out.bar_shown) fputs("\r\033[K", stderr);
    out.bar_shown = false;
}

static void put_json(const char *level, int code, size_t case_number, const char *file,
                     const char *text) {
    cJSON *line = cJSON_CreateObject();
    cJSON_AddStringToObject(line, "level", level);
    if (code) cJSON_AddNumberToObject(line, "code", code);
    if (case_number) cJSON_AddNumberToObject(line, "case", (double)case_number);
    char *name = file && *file && out.paths ? cli_clean_utf8(file) : NULL;
    if (name) cJSON_AddStringToObject(line, "file", name);
    free(name);
    char *message = cli_clean_utf8(text);
    /* What was typed as an option may be repeated; what was read from a file, or names one, not. */
    const bool typed = code == VXM_ERR_USAGE && !(file && *file);
    if (message && !out.paths && !typed) vxm_redact(message);
    if (message) cJSON_AddStringToObject(line, "message", message);
    free(message);
    char *json = cJSON_PrintUnformatted(line);
    if (json) fprintf(stderr, "%s\n", json);
    cJSON_free(json);
    cJSON_Delete(line);
}

static void put_text(const char *mark, const char *file, const char *text) {
    cli_progress_end();
    fprintf(stderr, "%s: ", out.program);
    if (file && *file) {
        cli_put_safe(stderr, file);
        fputs(": ", stderr);
    }
    fputs(mark, stderr);
    cli_put_safe(stderr, text);
    fputc('\n', stderr);
}

void cli_usage_error(const char *format, ...) {
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (out.json)
        put_json("error", VXM_ERR_USAGE, 0, NULL, text);
    else
        put_text("", NULL, text);
}

void cli_error(const vxm_error *error, size_t case_number) {
    if (out.json)
        put_json("error", (int)error->code, case_number, error->file, error->text);
    else
        put_text("", error->file, error->text);
}

void cli_log_file(vxm_log_level level, size_t case_number, const char *file, const char *text) {
    static const char *const names[] = {"debug", "info", "warning"};
    bool wanted = level == VXM_LOG_WARNING || out.verbose;
    if (!wanted || (out.quiet && level != VXM_LOG_WARNING)) return;
    if (out.json) {
        put_json(names[level], 0, case_number, file, text);
        return;
    }
    put_text(level == VXM_LOG_WARNING ? "warning: " : "", file, text);
}

void cli_log(void *user_data, vxm_log_level level, size_t case_number, const char *text) {
    (void)user_data;
    cli_log_file(level, case_number, NULL, text);
}

/* ---- Progress ---- */

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void put_bar(const vxm_progress *p) {
    enum { WIDTH = 30 };
    char bar[WIDTH + 1];
    int filled = (int)(p->fraction * WIDTH);
    memset(bar, '-', WIDTH);
    memset(bar, '#', (size_t)(filled < 0 ? 0 : filled > WIDTH ? WIDTH : filled));
    bar[WIDTH] = '\0';
    fputs("\r\033[K", stderr);
    if (p->case_count > 1)
        fprintf(stderr, "[%s] %3.0f %%  %s  (%zu of %zu done)", bar, 100 * p->fraction, p->stage,
                p->cases_done, p->case_count);
    else
        fprintf(stderr, "[%s] %3.0f %%  %s", bar, 100 * p->fraction, p->stage);
    out.bar_shown = true;
}

static void put_progress_json(const vxm_progress *p) {
    fprintf(stderr,
            "{\"level\":\"progress\",\"case\":%zu,\"cases\":%zu,\"done\":%zu,\"stage\":\"%s\","
            "\"fraction\":%.3f}\n",
            p->case_number, p->case_count, p->cases_done, p->stage, p->fraction);
}

static void put_line(const vxm_progress *p) {
    if (p->case_count > 1)
        fprintf(stderr, "%s: case %zu: %s %.0f %% (%zu of %zu done)\n", out.program, p->case_number,
                p->stage, 100 * p->fraction, p->cases_done, p->case_count);
    else
        fprintf(stderr, "%s: %s %.0f %%\n", out.program, p->stage, 100 * p->fraction);
}

/* True when the case just entered this stage. */
static bool enters_stage(const vxm_progress *p) {
    size_t slot = p->case_number % SEEN;
    bool same =
        out.seen[slot].number == p->case_number && strcmp(out.seen[slot].stage, p->stage) == 0;
    out.seen[slot].number = p->case_number;
    snprintf(out.seen[slot].stage, sizeof out.seen[slot].stage, "%s", p->stage);
    return !same;
}

int cli_progress(void *user_data, const vxm_progress *p) {
    (void)user_data;
    if (caught) return 1;
    if (out.quiet) return 0;
    bool bar = isatty(STDERR_FILENO) && !out.json;
    bool enters = enters_stage(p);
    double time = now();
    if (out.last_time == 0) out.last_time = time;
    double pause = bar ? 0.1 : out.json ? 1.0 : 10.0;
    /* Lines: when the long stage begins, and now and then how far it is; all stages with -v. */
    bool news = enters && (bar || out.json || out.verbose || strcmp(p->stage, "network") == 0);
    if (!news && time - out.last_time < pause) return 0;
    out.last_time = time;
    if (bar)
        put_bar(p);
    else if (out.json)
        put_progress_json(p);
    else
        put_line(p);
    return 0;
}

/* ---- Signals ---- */

static void on_signal(int number) {
    if (caught) { /* asked twice: go at once; the next run sweeps what is left */
        signal(number, SIG_DFL);
        raise(number);
        return;
    }
    caught = number;
}

void cli_catch_signals(void) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    action.sa_flags = SA_RESTART;
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    /* A lost connection ends the run as cleanly; nohup asks to go on, and is heard. */
    struct sigaction hangup;
    if (sigaction(SIGHUP, NULL, &hangup) == 0 && hangup.sa_handler != SIG_IGN)
        sigaction(SIGHUP, &action, NULL);
}

int cli_signal(void) { return caught; }

int cli_exit_code(vxm_status status) {
    cli_progress_end();
    if (status == VXM_ERR_CANCELLED) {
        const int asked = caught, number = asked ? asked : SIGINT;
        const char *text = "stopped by a signal (nothing is half-written)";
        if (out.json)
            put_json("error", 128 + number, 0, NULL, text);
        else
            put_text("", NULL, text);
        return 128 + number;
    }
    /* Data that could not be written is a failure too: "info --json > /full/disk". */
    if (status == VXM_OK && (fflush(stdout) != 0 || ferror(stdout))) {
        put_text("", NULL, "standard output could not be written");
        return VXM_ERR_OUTPUT;
    }
    return (int)status;
}

int cli_print_version(void) {
    const char *commit = vxm_commit();
    printf("%s %s%s%s%s\n", out.program, vxm_version(), *commit ? " (" : "", commit,
           *commit ? ")" : "");
    return cli_exit_code(VXM_OK);
}
