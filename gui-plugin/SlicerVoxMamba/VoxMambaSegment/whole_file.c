#include "whole_file.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/out_file.h"

/* The codes of both are the program's exit codes. */
static vxm_status give(vxm_error *error, const char *path, vx_status status, const char *text) {
    *error = (vxm_error){.code = (vxm_status)status};
    snprintf(error->file, sizeof error->file, "%s", path);
    snprintf(error->text, sizeof error->text, "%s", text);
    return error->code;
}

/* No file can have this name: seen now, not when the work is done. */
static bool names_folder(const char *path) {
    struct stat st;
    const size_t n = strlen(path);
    return (n && path[n - 1] == '/') || (stat(path, &st) == 0 && S_ISDIR(st.st_mode));
}

vxm_status whole_file_check(const char *path, vxm_error *error) {
    vx_out_file *file;
    vx_error err;
    if (names_folder(path))
        return give(error, path, VX_ERR_OUTPUT, "is a folder (give the name of a file)");
    const vx_status s = vx_out_open(path, &file, &err);
    if (s != VX_OK) return give(error, path, s, err.text);
    vx_out_discard(file);
    return VXM_OK;
}

vxm_status whole_file_write(const char *path, const char *text, vxm_error *error) {
    vx_out_file *file;
    vx_error err;
    vx_status s = vx_out_open(path, &file, &err);
    if (s != VX_OK) return give(error, path, s, err.text);
    s = vx_out_write(file, text, strlen(text), &err);
    if (s == VX_OK)
        s = vx_out_commit(file, true, &err);
    else
        vx_out_discard(file);
    return s == VX_OK ? VXM_OK : give(error, path, s, err.text);
}
