/* A C program as a user of the library writes it: argv[1] is the version that the build files
 * promised, argv[2] a folder of models. */
#include <stdio.h>
#include <string.h>
#include <voxmamba.h>

int main(int argc, char **argv) {
    vxm_error error = {0};
    char *models = NULL;
    if (argc != 3 || strcmp(vxm_version(), argv[1]) != 0) return 1;
    if (vxm_models_json(argv[2], &models, &error) != VXM_OK) return 2;
    puts(models);
    vxm_free(models);
    return 0;
}
