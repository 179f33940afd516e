/* Segments one volume and prints what was found:
 *     cc example.c -lvoxmamba -o example && ./example hippocampus.safetensors scan.nii.gz
 * mask.nii.gz */
#include <stdio.h>
#include <voxmamba.h>

static int on_progress(void *user_data, const vxm_progress *progress) {
    (void)user_data;
    fprintf(stderr, "\r%-12s %3.0f %%", progress->stage, 100 * progress->fraction);
    return 0; /* anything else stops the work */
}

int main(int argc, char **argv) {
    vxm_error error;
    vxm_model *model = NULL;
    vxm_session *session = NULL;
    vxm_result *result = NULL;
    if (argc != 4) {
        fprintf(stderr, "usage: example MODEL INPUT OUTPUT\n");
        return VXM_ERR_USAGE;
    }

    vxm_segment_options options;
    vxm_segment_options_init(&options, sizeof options);
    options.overwrite = 1;
    options.callbacks.progress = on_progress;

    vxm_status status = vxm_model_open(argv[1], &model, &error);
    if (status == VXM_OK) status = vxm_session_create(model, NULL, &session, &error);
    if (status == VXM_OK)
        status = vxm_segment_file(session, argv[2], argv[3], &options, &result, &error);
    fputc('\n', stderr);

    if (status != VXM_OK) fprintf(stderr, "%s: %s\n", error.file, error.text);
    for (size_t i = 0; result && i < result->label_count; i++)
        printf("%s %.3f ml\n", result->labels[i].name, result->labels[i].ml);

    vxm_result_free(result);
    vxm_session_free(session);
    vxm_model_close(model);
    return status;
}
