/* voxmamba segment: volumes in, masks out. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "api/voxmamba.h"
#include "device.h"
#include "models_path.h"
#include "output.h"
#include "verbs.h"

typedef struct segment_args {
    cli_common common;
    const char *output, *model, *format, *labels, *keep_largest, *stats, *report, *shard, *series;
    bool split, probabilities, preview, resume, overwrite, dry_run, batch, tolerate, force;
    bool anonymous;
    double remove_small;
    unsigned jobs;
    cli_list channels;
    cli_device device;
} segment_args;

#define ROW(letter, name, kind, field, value, help)                                                \
    { letter, name, kind, offsetof(segment_args, field), value, help }

static const cli_option options[] = {
    ROW('o', "output", CLI_TEXT, output, "OUT", "a file for one case, a folder for many (created)"),
    ROW('m', "model", CLI_TEXT, model, "NAME|FILE", "the model (default: the only one that fits)"),
    CLI_DEVICE_OPTIONS(segment_args, device),
    ROW(0, "format", CLI_TEXT, format, "nii.gz|nii|nrrd|seg.nrrd|mha|dcmseg",
        "of the mask (default: by OUT's name, else nii.gz)"),
    ROW(0, "labels", CLI_TEXT, labels, "A,B", "keep only these labels (names or values)"),
    ROW(0, "split", CLI_FLAG, split, NULL, "one 0/1 file a label: CASE_LABEL.nii.gz"),
    ROW(0, "probabilities", CLI_FLAG, probabilities, NULL,
        "one float file a class too: CASE_prob_LABEL.nii.gz"),
    ROW(0, "keep-largest", CLI_OPTIONAL_TEXT, keep_largest, "A,B",
        "keep each label's largest component (of these labels)"),
    ROW(0, "remove-small", CLI_NUMBER, remove_small, "MM3",
        "remove components smaller than this volume"),
    ROW(0, "stats", CLI_TEXT, stats, "FILE.json", "volume in ml, intensity mean and sd a label"),
    ROW(0, "preview", CLI_FLAG, preview, NULL, "a PNG beside the mask: three planes with overlay"),
    ROW(0, "report", CLI_TEXT, report, "FILE.json", "what was run, with hashes, timings, memory"),
    ROW(0, "resume", CLI_FLAG, resume, NULL, "skip cases that CASE.json confirms as done"),
    ROW(0, "overwrite", CLI_FLAG, overwrite, NULL, "replace existing outputs"),
    ROW(0, "shard", CLI_TEXT, shard, "I/N", "do only every N-th case, from the I-th (1/N to N/N)"),
    ROW(0, "jobs", CLI_COUNT, jobs, "N", "cases at a time on each device (default 1)"),
    ROW(0, "batch", CLI_FLAG, batch, NULL, "each subfolder of INPUT is a DICOM case"),
    ROW(0, "dry-run", CLI_FLAG, dry_run, NULL, "check and plan only, write nothing"),
    ROW(0, "series", CLI_TEXT, series, "UID|NUMBER[/PART]", "this series of a DICOM folder"),
    ROW(0, "channel", CLI_LIST, channels, "NAME=FILE", "a channel of the case (repeat; no INPUT)"),
    ROW(0, "tolerate-geometry", CLI_FLAG, tolerate, NULL,
        "resample uneven, gapped or tilted DICOM slices, with a warning"),
    ROW(0, "anonymous", CLI_FLAG, anonymous, NULL,
        "DICOM SEG without patient, study and UIDs of its source"),
    ROW(0, "force", CLI_FLAG, force, NULL,
        "warn instead of refusing a volume unlike the model's training"),
    CLI_COMMON_OPTIONS(segment_args, common),
};

/* ---- What is said of each case ---- */

static void print_done(const vxm_case *c) {
    const vxm_result *result = c->result;
    cli_print_safe(c->output);
    if (c->status == VXM_CASE_SKIPPED)
        puts("  (done before)");
    else
        printf("  (%.1f s)\n", result->total_s);
    for (size_t i = 0; i < result->label_count; i++) {
        const vxm_label_result *label = &result->labels[i];
        printf("  %5u  ", label->value);
        cli_print_safe(label->name);
        printf("%*s %12.3f ml\n", (int)(strlen(label->name) < 30 ? 30 - strlen(label->name) : 1),
               "", label->ml);
    }
}

static void print_planned(const vxm_case *c) {
    cli_print_safe(c->input);
    fputs(" -> ", stdout);
    cli_print_safe(c->output);
    printf("  (%.1f MB peak, ", (double)c->plan->peak_bytes / 1e6);
    if (c->plan->device_room_bytes)
        printf("%.1f MB of the GPU's %.1f, ",
               (double)(c->plan->device_network_bytes + c->plan->device_volume_bytes) / 1e6,
               (double)c->plan->device_room_bytes / 1e6);
    if (c->plan->output_bytes)
        printf("up to %.1f MB of DICOM SEG, ", (double)c->plan->output_bytes / 1e6);
    printf("%.1f GFLOP in %llu tiles)\n", c->plan->flops / 1e9, (unsigned long long)c->plan->tiles);
}

/* What the callbacks need to know. */
typedef struct segment_run {
    const vxm_batch *batch;
    bool said; /* a failed case's error was said when it failed */
} segment_run;

static void on_case(void *user_data, const vxm_case *c) {
    segment_run *run = user_data;
    cli_progress_end();
    if (c->status == VXM_CASE_FAILED && c->error) {
        cli_error(c->error, c->number);
        run->said = true;
    }
    if (cli_quiet()) return;
    if ((c->status == VXM_CASE_DONE || c->status == VXM_CASE_SKIPPED) && c->result) print_done(c);
    if (c->status == VXM_CASE_PLANNED) print_planned(c);
    fflush(stdout);
}

static void on_log(void *user_data, vxm_log_level level, size_t case_number, const char *text) {
    const segment_run *run = user_data;
    const char *file = NULL;
    size_t count = vxm_batch_count(run->batch);
    for (size_t i = 0; i < count && case_number; i++) {
        const vxm_case *c = vxm_batch_case(run->batch, i);
        if (c->number == case_number) file = c->input;
    }
    cli_log_file(level, case_number, file, text);
}

/* ---- From arguments to options ---- */

static bool parse_shard(const char *text, unsigned *shard, unsigned *shards) {
    char *end;
    *shard = *shards = 1;
    if (!text) return true;
    errno = 0;
    long i = strtol(text, &end, 10);
    long n = *end == '/' ? strtol(end + 1, &end, 10) : 0;
    if (errno || *end || i < 1 || n < 1 || i > n || n > 1000000) {
        cli_usage_error("--shard: '%s' is not I/N with I from 1 to N (the first of four: 1/4)",
                        text);
        return false;
    }
    *shard = (unsigned)i;
    *shards = (unsigned)n;
    return true;
}

/* Not "-", as masks are files of their own; and an ending alone would be a hidden file. */
static bool check_output(const char *output) {
    static const char *const endings[] = {".nii.gz", ".nii", ".nrrd", ".seg.nrrd", ".mha", ".dcm"};
    const char *slash = strrchr(output, '/'), *base = slash ? slash + 1 : output;
    if (strcmp(output, "-") == 0) {
        cli_usage_error("-o -: masks are not written to standard output (give a file or a folder)");
        return false;
    }
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++)
        if (strcasecmp(base, endings[i]) == 0) {
            cli_usage_error("-o %s: an ending without a name (give one: mask%s)", output,
                            endings[i]);
            return false;
        }
    return true;
}

static bool check_args(const segment_args *args) {
    if (!args->common.operands.count && !args->channels.count) {
        cli_usage_error("segment: no input was given (see voxmamba segment --help)");
        return false;
    }
    if (!args->output) {
        cli_usage_error("segment: no output was given (use -o OUT)");
        return false;
    }
    if (args->remove_small < 0) { /* NaN: not given */
        cli_usage_error("--remove-small: a volume in mm3 is not negative");
        return false;
    }
    return check_output(args->output);
}

static void segment_options(const segment_args *args, vxm_segment_options *out) {
    vxm_segment_options_init(out, sizeof *out);
    out->format = args->format;
    out->labels = args->labels;
    out->keep_largest = args->keep_largest;
    if (!isnan(args->remove_small)) out->remove_small_mm3 = args->remove_small;
    out->split = args->split;
    out->probabilities = args->probabilities;
    out->preview = args->preview;
    out->overwrite = args->overwrite;
    out->force = args->force;
    out->anonymous = args->anonymous;
    out->tolerate_geometry = args->tolerate;
    out->series = args->series;
    out->log_paths = args->common.log_paths;
    out->callbacks.log = on_log;
    out->callbacks.progress = cli_progress;
}

static bool batch_options(const segment_args *args, vxm_batch_options *out) {
    vxm_batch_options_init(out, sizeof *out);
    out->inputs = args->common.operands.items;
    out->input_count = args->common.operands.count;
    out->channels = args->channels.items;
    out->channel_count = args->channels.count;
    out->output = args->output;
    out->report_path = args->report;
    out->stats_path = args->stats;
    out->jobs = args->jobs;
    out->resume = args->resume;
    out->folders = args->batch;
    out->dry_run = args->dry_run;
    out->on_case = on_case;
    return parse_shard(args->shard, &out->shard, &out->shards);
}

/* ---- Running ---- */

static vxm_status run_batch(vxm_batch *batch, const segment_args *args,
                            const vxm_session_options *session, vxm_error *error) {
    char *folders = cli_model_folders(NULL);
    vxm_model *model = NULL;
    vxm_status s = vxm_model_find(args->model, folders, batch, &model, error);
    if (s == VXM_OK) {
        char line[192];
        snprintf(line, sizeof line, "model %s, %zu case%s", vxm_model_name(model),
                 vxm_batch_count(batch), vxm_batch_count(batch) == 1 ? "" : "s");
        cli_log(NULL, VXM_LOG_INFO, 0, line);
        if (!vxm_batch_count(batch))
            cli_log(NULL, VXM_LOG_WARNING, 0, "this shard has no case: nothing to do");
        s = vxm_batch_run(batch, model, session, error);
    }
    vxm_model_close(model);
    free(folders);
    return s;
}

static vxm_status run_segment(const segment_args *args) {
    vxm_session_options session;
    vxm_segment_options segment;
    vxm_batch_options batch_;
    vxm_batch *batch = NULL;
    vxm_error error;
    segment_run run = {0};
    segment_options(args, &segment);
    segment.callbacks.user_data = &run;
    if (!check_args(args) || !cli_device_options(&args->device, &session) ||
        !batch_options(args, &batch_))
        return VXM_ERR_USAGE;
    batch_.user_data = &run;
    cli_catch_signals();
    vxm_status s = vxm_batch_open(&batch_, &segment, &batch, &error);
    if (s == VXM_OK) {
        run.batch = batch;
        s = run_batch(batch, args, &session, &error);
    }
    bool news = !run.said || s == VXM_ERR_BATCH; /* the only case's error was said already */
    if (s != VXM_OK && s != VXM_ERR_CANCELLED && news) cli_error(&error, 0);
    vxm_batch_close(batch);
    return s;
}

static int main_segment(int argc, char **argv) {
    segment_args args = {.device = CLI_DEVICE_DEFAULTS, .remove_small = NAN, .jobs = 1};
    int code = VXM_ERR_USAGE;
    if (!cli_parse_common(&cli_segment, argc, argv, &args.common))
        ;
    else if (args.common.help) {
        cli_print_help(&cli_segment);
        code = cli_exit_code(VXM_OK);
    } else
        code = cli_exit_code(run_segment(&args));
    cli_free_args(&cli_segment, &args);
    return code;
}

const cli_verb cli_segment = {
    .name = "segment",
    .operands = "INPUT... -o OUT [OPTIONS]",
    .summary = "segment volumes: files, DICOM folders, folders of cases",
    .details =
        "A case's files are named after it: its file name without _NNNN and ending. Beside each\n"
        "mask lies CASE.json with the hashes of input, model and output, and CASE.tsv with the\n"
        "labels' names and colours where the mask's format holds none (NIfTI, NRRD, MetaImage).\n"
        "A name with .dcm, as --format dcmseg, is DICOM SEG (of DICOM input only).\n"
        "Exit codes: 0 all done, 1 usage, 2 input, 3 model, 4 output, 5 device or memory,\n"
        "6 cases of a batch failed and the rest are written, 129 SIGHUP, 130 SIGINT,\n"
        "143 SIGTERM.",
    .options = options,
    .option_count = sizeof options / sizeof *options,
    .run = main_segment,
};
