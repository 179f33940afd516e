/* VoxMambaSegment: one volume in, one segmentation out, as 3D Slicer calls its command-line modules
 * (docs/slicer.md). */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/voxmamba.h"
#include "arguments.h"
#include "cli/models_path.h"
#include "cli/output.h"
#include "progress.h"
#include "return_parameters.h"
#include "statistics_table.h"
#include "whole_file.h"

extern const unsigned char module_xml[]; /* VoxMambaSegment.xml, generated from the file */
extern const size_t module_xml_bytes;

/* One run, and what the callbacks need to know. */
typedef struct module_run {
    const module_arguments *arguments;
    module_progress progress;
    char *model; /* name; ours */
} module_run;

static void on_log(void *user_data, vxm_log_level level, size_t case_number, const char *text) {
    const module_run *run = user_data;
    cli_log_file(level, case_number, case_number ? run->arguments->operands.items[0] : NULL, text);
}

static int on_progress(void *user_data, const vxm_progress *p) {
    return progress_say(&((module_run *)user_data)->progress, p);
}

static vxm_status fail(vxm_error *error, vxm_status code, const char *file, const char *text) {
    *error = (vxm_error){.code = code};
    snprintf(error->file, sizeof error->file, "%s", file);
    snprintf(error->text, sizeof error->text, "%s", text);
    return code;
}

/* ---- The texts beside the segmentation ---- */

/* Before the work that they are to describe. */
static vxm_status check_texts(const module_arguments *arguments, vxm_error *error) {
    const char *names[] = {arguments->statistics, arguments->return_parameters};
    for (size_t i = 0; i < 2; i++)
        if (names[i] && !whole_file_possible(names[i]))
            return fail(error, VXM_ERR_OUTPUT, names[i], strerror(errno));
    return VXM_OK;
}

/* text is freed; NULL: there was no memory for it. */
static vxm_status write_text(const char *path, char *text, vxm_error *error) {
    if (!text) return fail(error, VXM_ERR_RESOURCE, path, "out of memory");
    vxm_status s = VXM_OK;
    if (!whole_file_write(path, text, strlen(text)))
        s = fail(error, VXM_ERR_OUTPUT, path, strerror(errno));
    free(text);
    return s;
}

static vxm_status write_texts(const module_run *run, const vxm_batch *batch, vxm_error *error) {
    const module_arguments *arguments = run->arguments;
    const vxm_result *result = vxm_batch_case(batch, 0)->result;
    vxm_status s = VXM_OK;
    if (arguments->statistics) {
        const char separator = statistics_table_separator(arguments->statistics);
        s = write_text(arguments->statistics, statistics_table_text(result, separator), error);
    }
    if (s == VXM_OK && arguments->return_parameters) {
        char *report = NULL;
        s = vxm_batch_report_json(batch, &report, error);
        if (s == VXM_OK)
            s = write_text(arguments->return_parameters,
                           return_parameters_text(run->model, report, result), error);
        vxm_free(report);
    }
    return s;
}

/* ---- The segmentation ---- */

/* An output without an ending would be a folder to the library, and names in it not Slicer's. */
static vxm_status check_case(const vxm_batch *batch, const module_arguments *arguments,
                             vxm_error *error) {
    const char *output = arguments->operands.items[1];
    if (vxm_batch_count(batch) != 1)
        return fail(error, VXM_ERR_USAGE, arguments->operands.items[0],
                    "several volumes (name one of them)");
    if (strcmp(vxm_batch_case(batch, 0)->output, output) != 0)
        return fail(error, VXM_ERR_USAGE, output,
                    "not the name of a file (give one that ends in .seg.nrrd)");
    return VXM_OK;
}

static vxm_status segment(module_run *run, vxm_batch *batch, const vxm_session_options *session,
                          vxm_error *error) {
    char *folders = cli_model_folders(MODULE_TO_SHARE);
    vxm_model *model = NULL;
    vxm_status s = check_case(batch, run->arguments, error);
    if (s == VXM_OK) s = check_texts(run->arguments, error);
    if (s == VXM_OK) s = vxm_model_find(run->arguments->model, folders, batch, &model, error);
    if (s == VXM_OK) {
        run->model = strdup(vxm_model_name(model));
        s = run->model ? vxm_batch_run(batch, model, session, error)
                       : fail(error, VXM_ERR_RESOURCE, "", "out of memory");
    }
    vxm_model_close(model);
    free(folders);
    return s == VXM_OK ? write_texts(run, batch, error) : s;
}

static vxm_status run_module(const module_arguments *arguments) {
    module_run run = {.arguments = arguments};
    vxm_session_options session;
    vxm_segment_options options;
    vxm_batch_options batch_options;
    vxm_batch *batch = NULL;
    vxm_error error;
    if (!arguments_check(arguments) || !arguments_options(arguments, &session, &options))
        return VXM_ERR_USAGE;
    options.callbacks = (vxm_callbacks){.user_data = &run, .log = on_log, .progress = on_progress};
    vxm_batch_options_init(&batch_options, sizeof batch_options);
    batch_options.inputs = arguments->operands.items;
    batch_options.input_count = 1;
    batch_options.output = arguments->operands.items[1];
    cli_catch_signals();
    progress_start(&run.progress);
    vxm_status s = vxm_batch_open(&batch_options, &options, &batch, &error);
    if (s == VXM_OK) s = segment(&run, batch, &session, &error);
    vxm_batch_close(batch);
    free(run.model);
    progress_end(&run.progress, s == VXM_OK);
    if (s == VXM_ERR_CANCELLED && !cli_signal())
        s = fail(&error, VXM_ERR_OUTPUT, "", "standard output is closed (nothing is half-written)");
    if (s != VXM_OK && s != VXM_ERR_CANCELLED) cli_error(&error, 0);
    return s;
}

static int print_xml(void) {
    fwrite(module_xml, 1, module_xml_bytes, stdout);
    return cli_exit_code(VXM_OK);
}

int main(int argc, char **argv) {
    module_arguments arguments;
    int code = VXM_ERR_USAGE;
    cli_set_program("VoxMambaSegment");
    signal(SIGPIPE,
           SIG_IGN); /* a Slicer that is gone is seen in the progress, and nothing is left */
    if (!arguments_parse(argc, argv, &arguments))
        ;
    else if (arguments.xml)
        code = print_xml();
    else if (arguments.version)
        code = cli_print_version();
    else if (arguments.help) {
        arguments_print_help();
        code = cli_exit_code(VXM_OK);
    } else
        code = cli_exit_code(run_module(&arguments));
    arguments_free(&arguments);
    return code;
}
