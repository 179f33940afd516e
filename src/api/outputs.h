/* The files of one case: where they go, how they become visible together, and whether an earlier
 * run already made them.
 *
 * Every file is written without a name (base/out_file.h), hashed, and named at the end; the sidecar
 * CASE.json goes first and the mask last: the mask's name is the commit point. A run that was
 * killed between them leaves a sidecar whose hashes no file confirms, and --resume does the case
 * again.
 */
#ifndef VX_API_OUTPUTS_H
#define VX_API_OUTPUTS_H

#include "api/cases.h"
#include "api/internal.h"
#include "base/out_file.h"

/* How all cases of a run are named. */
typedef struct vx_output_rule {
    const char *output; /* as typed; borrowed */
    bool folder, sidecars;
    vx_format format;
} vx_output_rule;

/* VXM_ERR_USAGE: unknown format, one that this build cannot write, or one that contradicts the
 * ending; VXM_ERR_USAGE for one file and many cases. */
vxm_status vx_output_rule_make(const char *output, const vxm_segment_options *options,
                               size_t case_count, vx_output_rule *out, vxm_error *error);

/* A name of --format. VXM_ERR_USAGE: unknown, or one that this build cannot write. */
vxm_status vx_output_format(const char *name, vx_format *out, vxm_error *error);

typedef struct vx_target {
    char *stem;    /* path of the case's files without an ending: "out/p1" */
    char *mask;    /* "out/p1.nii.gz" */
    char *sidecar; /* "out/p1.json"; NULL: no sidecars are wanted */
    vx_format format;
} vx_target;
vxm_status vx_target_make(const vx_output_rule *rule, const char *name, vx_target *out,
                          vxm_error *error);
void vx_target_free(vx_target *target);
/* Makes the folder that targets lie in, and its parents; nothing for a single file. */
vxm_status vx_output_folder_make(const vx_output_rule *rule, vxm_error *error);
/* Removes what killed runs left in the folder of the outputs. */
void vx_output_sweep(const vx_output_rule *rule);

/* What the user chose, checked against a recipe. */
typedef struct vx_choices {
    vxm_segment_options options;
    const vx_recipe *recipe;
    bool *wanted; /* a label of the recipe's table: keep it? */
    size_t wanted_count;
    vx_label_table table; /* of those, for the files */
    unsigned *largest;    /* label values whose largest component stays */
    size_t largest_count;
    double remove_small_mm3;
} vx_choices;
/* VXM_ERR_USAGE: a label that the model does not have. options and recipe must outlive out. */
vxm_status vx_choices_make(const vxm_segment_options *options, const vx_recipe *recipe,
                           vx_choices *out, vxm_error *error);
void vx_choices_free(vx_choices *choices);
/* target: NULL, a mask in memory. */
vx_plan_outputs vx_choices_outputs(const vx_choices *choices, const vx_target *target);
/* Everything that a mask depends on besides input and model; for sidecars and reports. repeated:
 * the case was computed again in fp32. */
cJSON *vx_choices_json(const vx_choices *choices, const vxm_session *session, bool repeated,
                       vx_format format);

typedef enum vx_role {
    VX_ROLE_PREVIEW,
    VX_ROLE_PROBABILITY, /* index: class */
    VX_ROLE_LABEL,       /* index: label of the recipe's table; with --split */
    VX_ROLE_TABLE,       /* names and colours of the mask's labels, where its format holds none */
    VX_ROLE_MASK
} vx_role;

typedef struct vx_output {
    vx_role role;
    size_t index;
    char *path;
    vx_out_file *file; /* written, not committed; NULL before and after */
    char sha256[65];
    bool existed, committed;
} vx_output;

typedef struct vx_outputs {
    size_t count;
    vx_output *items; /* in the order of their commits: the mask last */
    const vx_target *target;
} vx_outputs;

/* Paths only; nothing is touched. */
vxm_status vx_outputs_make(const vx_target *target, const vx_choices *choices, vx_outputs *out,
                           vxm_error *error);
/* Discards files that were not committed. */
void vx_outputs_free(vx_outputs *outputs);
/* VXM_ERR_OUTPUT when one exists (a sidecar of ours may). */
vxm_status vx_outputs_check_absent(const vx_outputs *outputs, vxm_error *error);
/* VXM_ERR_OUTPUT when the sidecar's place holds JSON that is not ours: --resume replaces outputs,
 * but not that. Text that is no JSON at all is taken for our own, damaged. */
vxm_status vx_outputs_check_sidecar(const vx_outputs *outputs, vxm_error *error);
/* VXM_ERR_USAGE when an output would overwrite one of the inputs. */
vxm_status vx_outputs_check_inputs(const vx_outputs *outputs, char *const *files, size_t count,
                                   vxm_error *error);
/* VXM_ERR_USAGE when two cases of a run (all shards) would write one file, or an output of one
 * would overwrite an input of any. Touches nothing. */
vxm_status vx_outputs_check_batch(const vx_output_rule *rule, const vx_case_list *cases,
                                  const vx_choices *choices, vxm_error *error);
/* VXM_ERR_OUTPUT unless a file can be made in the target's folder. */
vxm_status vx_outputs_check_writable(const vx_outputs *outputs, vxm_error *error);
/* Hashes what was written. */
vxm_status vx_outputs_hash(vx_outputs *outputs, const vx_log *log, vxm_error *error);
/* Sidecar (NULL where the target has none), then every file. On failure what this call made is
 * removed again. sidecar is freed. */
vxm_status vx_outputs_commit(vx_outputs *outputs, cJSON *sidecar, bool replace, vxm_error *error);
/* [{"role", "label", "sha256"}] */
cJSON *vx_outputs_json(const vx_outputs *outputs, const vx_recipe *recipe);

/* The sidecar of a case, less what was measured. */
cJSON *vx_sidecar_json(const vx_model *model, const char *input_sha256, cJSON *options,
                       cJSON *outputs);
/* True when the sidecar names this input, model and options (of a case that was computed again in
 * fp32, too, where the session would), and every output has the hash that
 * it names (which is then in outputs). *sidecar is then the caller's to delete, else NULL. */
bool vx_outputs_confirmed(vx_outputs *outputs, const vx_choices *choices,
                          const vxm_session *session, const char *input_sha256, const vx_log *log,
                          cJSON **sidecar);

#endif
