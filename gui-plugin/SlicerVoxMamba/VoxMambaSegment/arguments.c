#include "arguments.h"

#include <string.h>

#include "cli/output.h"
#include "statistics_table.h"

#define ROW(name, kind, field, value, help)                                                        \
    { 0, name, kind, offsetof(module_arguments, field), value, help }

/* In the XML's order, which is Slicer's. */
static const cli_option options[] = {
    ROW("returnparameterfile", CLI_TEXT, return_parameters, "FILE",
        "write what was done as 'name = value' lines"),
    ROW("model", CLI_TEXT, model, "NAME|FILE", "the model (default: the only one that fits)"),
    ROW("device", CLI_TEXT, device.device, "auto|cpu|cuda|cuda:N",
        "where to compute (default auto)"),
    ROW("tta", CLI_FLAG, device.tta, NULL, "average over mirrored tiles"),
    ROW("labels", CLI_TEXT, labels, "A,B", "keep only these labels (names or values)"),
    ROW("keepLargest", CLI_FLAG, keep_largest, NULL,
        "keep each label's largest component (default: as the model's recipe says)"),
    ROW("removeSmall", CLI_NUMBER, remove_small_mm3, "MM3",
        "remove components smaller than this volume (0: as the model's recipe says)"),
    ROW("step", CLI_NUMBER, device.step, "SHARE",
        "tile step as a share of the patch, above 0 to 1 (default 0.5)"),
    ROW("precision", CLI_TEXT, device.precision, "auto|fp32|fp16|bf16",
        "arithmetic (default auto)"),
    ROW("threads", CLI_COUNT_OR_NONE, device.threads, "N", "CPU threads (0: all)"),
    ROW("memory", CLI_NUMBER, memory_gb, "GB",
        "take at most so many gigabytes, or say what is needed (0: what is free)"),
    ROW("force", CLI_FLAG, force, NULL,
        "warn instead of refusing a volume unlike the model's training"),
    ROW("statistics", CLI_TEXT, statistics, "FILE.tsv|.csv", "volume and intensities a label"),
    ROW("xml", CLI_FLAG, xml, NULL, "print the description of these parameters for Slicer"),
    ROW("processinformationaddress", CLI_TEXT, process_information, "ADDRESS", "ignored"),
    ROW("version", CLI_FLAG, version, NULL, "print the version"),
    {'h', "help", CLI_FLAG, offsetof(module_arguments, help), NULL, "show this help"},
};

static const cli_verb module = {
    .operands = "[OPTIONS] INPUT OUTPUT",
    .summary = "segment a volume: VoxMamba as a command-line module of 3D Slicer",
    .details =
        "OUTPUT's ending names its format: .seg.nrrd (names, colours and terminology of the\n"
        "labels), .nii.gz, .nii, .nrrd, .mha. A file of that name is replaced. Progress goes\n"
        "to stdout in Slicer's protocol, messages to stderr. Exit codes are those of voxmamba.",
    .options = options,
    .option_count = sizeof options / sizeof *options,
    .empty_is_default = true,
};

bool arguments_parse(int argc, char **argv, module_arguments *out) {
    *out = (module_arguments){.device = CLI_DEVICE_DEFAULTS};
    return cli_parse(&module, argc - 1, argv + 1, out);
}

void arguments_free(module_arguments *arguments) { cli_free_args(&module, arguments); }

void arguments_print_help(void) { cli_print_help(&module); }

/* Files that one run writes and reads have names of their own. */
static bool check_names(const module_arguments *arguments) {
    const char *names[] = {arguments->operands.items[0], arguments->operands.items[1],
                           arguments->statistics, arguments->return_parameters};
    for (size_t i = 0; i < 4; i++)
        for (size_t k = 0; k < i; k++)
            if (names[i] && names[k] && strcmp(names[i], names[k]) == 0) {
                cli_usage_error("'%s' is named twice (choose another name)", names[i]);
                return false;
            }
    return true;
}

bool arguments_check(const module_arguments *arguments) {
    if (arguments->operands.count != 2) {
        cli_usage_error("an input and an output are needed, %zu names were given (see %s --help)",
                        arguments->operands.count, cli_program());
        return false;
    }
    if (arguments->remove_small_mm3 < 0 || arguments->memory_gb < 0) {
        cli_usage_error("--%s: not negative", arguments->memory_gb < 0 ? "memory" : "removeSmall");
        return false;
    }
    if (arguments->statistics && !statistics_table_separator(arguments->statistics)) {
        cli_usage_error("--statistics: '%s' ends neither in .tsv nor in .csv",
                        arguments->statistics);
        return false;
    }
    return check_names(arguments);
}

bool arguments_options(const module_arguments *arguments, vxm_session_options *session,
                       vxm_segment_options *segment) {
    cli_device device = arguments->device;
    device.memory = 1e9 * arguments->memory_gb;
    vxm_segment_options_init(segment, sizeof *segment);
    segment->labels = arguments->labels;
    if (arguments->keep_largest) segment->keep_largest = "";
    if (arguments->remove_small_mm3 > 0) segment->remove_small_mm3 = arguments->remove_small_mm3;
    segment->overwrite = 1; /* Slicer names its files itself */
    segment->sidecars = 0;
    segment->force = arguments->force;
    return cli_device_options(&device, session);
}
