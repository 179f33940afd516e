#define _GNU_SOURCE
#include "api/pairs.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "api/cases.h"
#include "base/memory.h"

void vx_pairs_free(vx_pairs *pairs) {
    for (size_t i = 0; i < pairs->count; i++) {
        vx_free(pairs->pairs[i].name);
        vx_free(pairs->pairs[i].prediction);
        vx_free(pairs->pairs[i].reference);
    }
    vx_free(pairs->pairs);
    *pairs = (vx_pairs){0};
}

/* Takes the two paths. */
static vxm_status add_pair(vx_pairs *pairs, char *prediction, char *reference, vxm_error *error) {
    const char *base = prediction ? vx_base_name(prediction) : "";
    vx_pair *pair = &pairs->pairs[pairs->count++];
    *pair = (vx_pair){.name = vx_format_text("%.*s", (int)vx_stem_length(base), base),
                      .prediction = prediction,
                      .reference = reference};
    return pair->name && prediction && reference ? VXM_OK : vx_api_no_memory(error);
}

static int is_mask_entry(const struct dirent *entry) {
    return entry->d_name[0] != '.' && vx_known_ending(entry->d_name);
}

static int compare_stems(const char *a, const char *b) {
    size_t n = vx_stem_length(a), m = vx_stem_length(b);
    int order = memcmp(a, b, n < m ? n : m);
    return order ? order : (n > m) - (n < m);
}

static int by_stem(const struct dirent **a, const struct dirent **b) {
    int order = compare_stems((*a)->d_name, (*b)->d_name);
    return order ? order : strcmp((*a)->d_name, (*b)->d_name);
}

static char *in_folder(const char *folder, const char *name) {
    size_t n = strlen(folder);
    return vx_format_text("%s%s%s", folder, n && folder[n - 1] == '/' ? "" : "/", name);
}

/* Both lists ascend: one walk pairs them. */
static vxm_status merge(const char *folders[2], struct dirent **names[2], const int counts[2],
                        vx_pairs *out, vxm_error *error) {
    vxm_status s = VXM_OK;
    int i = 0, k = 0;
    while ((i < counts[0] || k < counts[1]) && s == VXM_OK) {
        int order = i == counts[0]   ? 1
                    : k == counts[1] ? -1
                                     : compare_stems(names[0][i]->d_name, names[1][k]->d_name);
        if (order == 0)
            s = add_pair(out, in_folder(folders[0], names[0][i]->d_name),
                         in_folder(folders[1], names[1][k]->d_name), error);
        if (order < 0) out->lone_predictions++;
        if (order > 0) out->lone_references++;
        if (order <= 0) i++;
        if (order >= 0) k++;
    }
    return s;
}

/* Two files of one case (c.nii and c.nii.gz): which of them counts would be a guess. */
static vxm_status refuse_twins(const char *folder, struct dirent **names, int count,
                               vxm_error *error) {
    for (int i = 1; i < count; i++)
        if (compare_stems(names[i - 1]->d_name, names[i]->d_name) == 0)
            return vx_api_fail(error, folder, VXM_ERR_USAGE,
                               "'%s' and '%s' are one case (remove one of them)",
                               names[i - 1]->d_name, names[i]->d_name);
    return VXM_OK;
}

static vxm_status pair_folders(const char *folders[2], vx_pairs *out, vxm_error *error) {
    struct dirent **names[2] = {NULL, NULL};
    int counts[2] = {0, 0};
    vxm_status s = VXM_OK;
    for (int f = 0; f < 2 && s == VXM_OK; f++) {
        counts[f] = scandir(folders[f], &names[f], is_mask_entry, by_stem);
        if (counts[f] < 0) {
            counts[f] = 0;
            s = vx_api_fail(error, folders[f], VXM_ERR_INPUT, "cannot open: %s", strerror(errno));
        } else {
            s = refuse_twins(folders[f], names[f], counts[f], error);
        }
    }
    if (s == VXM_OK && !(out->pairs = vx_alloc_zero((size_t)counts[0] + 1, sizeof *out->pairs)))
        s = vx_api_no_memory(error);
    if (s == VXM_OK) s = merge(folders, names, counts, out, error);
    for (int f = 0; f < 2; f++) {
        for (int i = 0; i < counts[f]; i++) free(names[f][i]);
        free(names[f]);
    }
    if (s == VXM_OK && !out->count)
        s = vx_api_fail(error, folders[0], VXM_ERR_INPUT,
                        "no file here has the name of one in the reference folder (masks are "
                        "paired by name)");
    return s;
}

vxm_status vx_find_pairs(const char *prediction, const char *reference, vx_pairs *out,
                         vxm_error *error) {
    const char *paths[2] = {prediction, reference};
    bool folder[2];
    *out = (vx_pairs){0};
    for (int f = 0; f < 2; f++) {
        struct stat st;
        if (stat(paths[f], &st) != 0)
            return vx_api_fail(error, paths[f], VXM_ERR_INPUT, "%s", strerror(errno));
        folder[f] = S_ISDIR(st.st_mode);
    }
    vxm_status s;
    if (folder[0] != folder[1])
        return vx_api_fail(
            error, paths[1], VXM_ERR_USAGE,
            "a file and a folder cannot be compared (give two files or two folders)");
    if (folder[0]) {
        s = pair_folders(paths, out, error);
    } else {
        out->pairs = vx_alloc_zero(1, sizeof *out->pairs);
        s = out->pairs ? add_pair(out, vx_strdup(prediction), vx_strdup(reference), error)
                       : vx_api_no_memory(error);
    }
    if (s != VXM_OK) vx_pairs_free(out);
    return s;
}
