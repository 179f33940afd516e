#define _GNU_SOURCE
#include "models_path.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_PATH 4096

char *cli_model_folders(const char *share) {
    const char *variable = getenv("VOXMAMBA_MODELS");
    char program[MAX_PATH] = "";
    ssize_t n = readlink("/proc/self/exe", program, sizeof program - 1);
    if (n < 0) n = 0;
    program[n] = '\0';
    char *slash = strrchr(program, '/');
    if (slash) *slash = '\0';
    const char *source = "";
#ifdef VX_BUILD_FOLDER
    if (strncmp(program, VX_BUILD_FOLDER, strlen(VX_BUILD_FOLDER)) == 0)
        source = ":" VX_SOURCE_MODELS;
#endif
    const char *folder = slash ? program : ".";
    char installed[2 * MAX_PATH] = "", *folders = NULL;
    if (share) snprintf(installed, sizeof installed, ":%s/%s/voxmamba/models", folder, share);
    if (asprintf(&folders, "%s:%s/../share/voxmamba/models%s:%s%s", variable ? variable : "",
                 folder, installed, VX_INSTALLED_MODELS, source) < 0)
        return NULL;
    return folders;
}
