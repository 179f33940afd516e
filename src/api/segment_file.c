/* The public call for one case from files to files. */
#include <stdio.h>

#include "api/batch.h"
#include "base/memory.h"

static vxm_status segment_one(vxm_session *session, const vx_case_list *list, const char *output,
                              const vxm_segment_options *options, vxm_result **result,
                              vxm_error *error) {
    vx_output_rule rule;
    vx_target target = {0};
    vx_choices choices = {0};
    vx_run_state state;
    if (list->count != 1)
        return vx_api_fail(error, NULL, VXM_ERR_USAGE, "%zu cases (one is possible here)",
                           list->count);
    vxm_status s = vx_output_rule_make(output, options, 1, &rule, error);
    if (s == VXM_OK) s = vx_target_make(&rule, list->cases[0].name, &target, error);
    if (s == VXM_OK) s = vx_choices_make(options, session->model->model->recipe, &choices, error);
    if (s == VXM_OK) {
        s = vx_output_folder_make(&rule, error);
        if (s == VXM_OK) vx_output_sweep(&rule);
    }
    if (s == VXM_OK) {
        vx_run_state_init(&state, &options->callbacks, 1);
        vx_say_device(session, &options->callbacks);
        vx_memory_begin(&state, session->memory_limit, 0);
        vx_case_run run = {.session = session,
                           .choices = &choices,
                           .files = &list->cases[0],
                           .target = &target,
                           .number = 1,
                           .state = &state};
        s = vx_segment_case(&run, result, error);
        vx_run_state_destroy(&state);
    }
    vx_choices_free(&choices);
    vx_target_free(&target);
    return s;
}

vxm_status vxm_segment_file(vxm_session *session, const char *input, const char *output,
                            const vxm_segment_options *options, vxm_result **result,
                            vxm_error *error) {
    vxm_segment_options known;
    vx_case_list list = {0};
    vxm_result *made = NULL;
    if (result) *result = NULL;
    vxm_segment_options_init(&known, sizeof known);
    vxm_status s = vx_api_options(&known, sizeof known, options, error);
    if (s == VXM_OK) s = vx_find_cases(&input, 1, false, &list, error);
    if (s == VXM_OK) s = segment_one(session, &list, output, &known, &made, error);
    vx_case_list_free(&list);
    if (s != VXM_OK && error && !error->file[0])
        snprintf(error->file, sizeof error->file, "%s", input);
    if (s == VXM_OK && result)
        *result = made;
    else
        vxm_result_free(made);
    return s;
}
