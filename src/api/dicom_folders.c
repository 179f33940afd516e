/* vx_dicom_case_folders, at the end, is the order of things: find the folders that hold DICOM, ask
 * one file of each for its study, then decide from the top down. */
#define _GNU_SOURCE
#include "api/dicom_folders.h"

#include <dirent.h>
#include <errno.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "api/cases.h"
#include "base/memory.h"
#include "base/text.h"
#include "io/io.h"

enum { DEEPEST = 5 }; /* levels below the input: export, patient, study, series and one more */

/* ---- One file ---- */

typedef enum file_kind { NO_DICOM, SEGMENTATION, DICOM } file_kind;

/* By the class in the file's meta information (PS3.10 7.1: explicit lengths, little-endian), which
 * begins behind the mark. A length has 32 bits in elements of type OB, 16 in all others there. */
static bool is_segmentation(const unsigned char *head, size_t bytes) {
    static const char uid[] = "1.2.840.10008.5.1.4.1.1.66.4";
    const size_t end = sizeof uid - 1;
    for (size_t at = 132; at + 12 <= bytes && head[at] == 2 && head[at + 1] == 0;) {
        const unsigned char *element = head + at;
        const bool wide = element[4] == 'O';
        const size_t value = at + (wide ? 12 : 8);
        size_t length = wide ? element[8] | (size_t)element[9] << 8 | (size_t)element[10] << 16 |
                                   (size_t)element[11] << 24
                             : element[6] | (size_t)element[7] << 8;
        if (length > bytes - value) return false;
        if (element[2] == 2 && element[3] == 0) /* MediaStorageSOPClassUID */
            return length >= end && memcmp(head + value, uid, end) == 0 &&
                   (length == end || head[value + end] == '\0');
        at = value + length;
    }
    return false;
}

static file_kind kind_of(const char *path) {
    unsigned char head[512];
    FILE *f = fopen(path, "rb");
    if (!f) return NO_DICOM;
    const size_t bytes = fread(head, 1, sizeof head, f);
    fclose(f);
    if (!vx_dicom_begins(head, bytes)) return NO_DICOM;
    const bool marked = bytes >= 132 && memcmp(head + 128, "DICM", 4) == 0;
    return marked && is_segmentation(head, bytes) ? SEGMENTATION : DICOM;
}

bool vx_is_dicom_file(const char *path) { return kind_of(path) != NO_DICOM; }

/* What a file of a folder says about the folder. */
static file_kind kind_in_folder(const char *path) {
    if (strcasecmp(vx_base_name(path), "DICOMDIR") == 0) return NO_DICOM; /* a CD's index */
    const file_kind kind = kind_of(path);
    if (kind != NO_DICOM) return kind;
    return vx_has_ending(path, ".dcm") ? DICOM : NO_DICOM;
}

/* ---- The folders that hold DICOM ---- */

/* A folder is known by its first DICOM file, which lies right in it. */
typedef struct found_folders {
    bool each;            /* as the caller of vx_dicom_case_folders says */
    vx_file_list files;   /* the first DICOM file of each folder, in the order of their ways */
    char (*studies)[80];  /* of these files */
    bool segmentations;   /* lie right in the input, without each */
    char *top;            /* the input's path without links (of realpath) */
    void *seen;           /* such paths of all folders that were looked at (of tsearch) */
    vx_file_list waiting; /* links to folders */
} found_folders;

static void found_clear(found_folders *found) {
    vx_file_list_clear(&found->files);
    vx_file_list_clear(&found->waiting);
    vx_free(found->studies);
    tdestroy(found->seen, free);
    free(found->top);
}

static int not_hidden(const struct dirent *entry) { return entry->d_name[0] != '.'; }

static bool is_kind(const char *path, mode_t kind) {
    struct stat st;
    return stat(path, &st) == 0 && (st.st_mode & S_IFMT) == kind;
}

static bool is_link(const char *path) {
    struct stat st;
    return lstat(path, &st) == 0 && S_ISLNK(st.st_mode);
}

/* Paths of what a folder holds, by name. */
static vxm_status list_folder(const char *folder, vx_file_list *out, vxm_error *error) {
    struct dirent **entries;
    const size_t end = strlen(folder);
    const int n = scandir(folder, &entries, not_hidden, alphasort);
    if (n < 0) return vx_api_fail(error, folder, VXM_ERR_INPUT, "cannot open: %s", strerror(errno));
    bool memory = true;
    for (int i = 0; i < n; i++) {
        char *path = vx_format_text("%s%s%s", folder, end && folder[end - 1] == '/' ? "" : "/",
                                    entries[i]->d_name);
        vx_error err;
        memory = path && vx_file_list_add(out, path, &err) == VX_OK && memory;
        vx_free(path);
        free(entries[i]);
    }
    free(entries);
    return memory ? VXM_OK : vx_api_no_memory(error);
}

/* The first DICOM file of a list; NULL without one. Notes segmentations, which are none. */
static const char *first_dicom(const vx_file_list *list, bool *segmentations) {
    for (size_t i = 0; i < list->count; i++) {
        if (!is_kind(list->paths[i], S_IFREG)) continue;
        const file_kind kind = kind_in_folder(list->paths[i]);
        if (kind == DICOM) return list->paths[i];
        if (kind == SEGMENTATION) *segmentations = true;
    }
    return NULL;
}

static int compare_texts(const void *a, const void *b) { return strcmp(a, b); }

/* Whether path lies in folder; both without links. */
static bool lies_in(const char *path, const char *folder) {
    const size_t n = strcmp(folder, "/") == 0 ? 0 : strlen(folder);
    return strncmp(path, folder, n) == 0 && path[n] == '/' && path[n + 1];
}

/* Whether a folder is to be looked at: once, however many links lead to it, and not if the input
 * lies in it. By its path without links, for not every file system has an inode number of its own
 * for a folder. One without such a path is new: who opens it will say why. */
static vxm_status look_at(found_folders *found, const char *folder, bool *is_new,
                          vxm_error *error) {
    char *real = realpath(folder, NULL);
    *is_new = !real || !lies_in(found->top, real);
    if (real && *is_new) {
        char *const *known = tsearch(real, &found->seen, compare_texts);
        if (known && *known == real) return VXM_OK;
        *is_new = false;
        if (!known) {
            free(real);
            return vx_api_no_memory(error);
        }
    }
    free(real);
    return VXM_OK;
}

static vxm_status find_below(const char *folder, int level, found_folders *out, vxm_error *error);

/* The folders of a list. What links lead to waits: what can be reached without has its name by its
 * own place. */
static vxm_status find_in(const vx_file_list *list, int level, found_folders *out,
                          vxm_error *error) {
    vxm_status s = VXM_OK;
    vx_error err;
    for (size_t i = 0; i < list->count && s == VXM_OK; i++) {
        if (!is_kind(list->paths[i], S_IFDIR)) continue;
        if (!is_link(list->paths[i]))
            s = find_below(list->paths[i], level, out, error);
        else if (vx_file_list_add(&out->waiting, list->paths[i], &err) != VX_OK)
            s = vx_api_no_memory(error);
    }
    return s;
}

/* What lies below a folder with DICOM right in it belongs to that. With each, what lies right in
 * the input is no case, and does not hide what lies below. */
static vxm_status find_below(const char *folder, int level, found_folders *out, vxm_error *error) {
    vx_file_list list = {0};
    vx_error err;
    bool is_new = false, segmentations = false;
    const bool only_below = level == 0 && out->each;
    vxm_status s = look_at(out, folder, &is_new, error);
    if (s != VXM_OK || !is_new) return s;
    s = list_folder(folder, &list, error);
    const char *file = s == VXM_OK && !only_below ? first_dicom(&list, &segmentations) : NULL;
    if (level == 0) out->segmentations = segmentations;
    if (file && vx_file_list_add(&out->files, file, &err) != VX_OK)
        s = vx_api_no_memory(error);
    else if (s == VXM_OK && !file && level < DEEPEST)
        s = find_in(&list, level + 1, out, error);
    vx_file_list_clear(&list);
    return s;
}

/* The length of path up to the folder below its first length bytes. */
static size_t next_level(const char *path, size_t length) {
    while (path[length] == '/') length++;
    return length + strcspn(path + length, "/");
}

/* Levels of a path below its first length bytes, which are the input's. */
static int level_of(const char *path, size_t length) {
    int level = 0;
    for (size_t n = length; path[n]; n = next_level(path, n)) level++;
    return level;
}

static int rank_in_way(unsigned char c) { return c == '\0' ? 0 : c == '/' ? 1 : c + 1; }

/* By the ways' parts, so that what lies in one folder stays together. */
static int compare_ways(const void *a, const void *b) {
    const unsigned char *x = *(unsigned char *const *)a, *y = *(unsigned char *const *)b;
    while (*x && *x == *y) x++, y++;
    return rank_in_way(*x) - rank_in_way(*y);
}

static vxm_status find_all(const char *input, found_folders *out, vxm_error *error) {
    out->top = realpath(input, NULL);
    if (!out->top)
        return vx_api_fail(error, input, VXM_ERR_INPUT, "cannot open: %s", strerror(errno));
    vxm_status s = find_below(input, 0, out, error);
    for (size_t i = 0; i < out->waiting.count && s == VXM_OK; i++) { /* more may come */
        const char *link = out->waiting.paths[i];
        s = find_below(link, level_of(link, strlen(input)), out, error);
    }
    if (out->files.count)
        qsort(out->files.paths, out->files.count, sizeof *out->files.paths, compare_ways);
    return s;
}

static vxm_status ask_studies(found_folders *found, vxm_error *error) {
    found->studies = vx_alloc_zero(found->files.count, sizeof *found->studies);
    if (!found->studies) return vx_api_no_memory(error);
    if (found->files.count > 1 && !found->each) vx_io_studies(&found->files, found->studies);
    return VXM_OK;
}

/* ---- Which of them are cases ---- */

/* A study that cannot be read is none that others are of. */
static bool are_of_one_study(const found_folders *found, size_t from, size_t to) {
    const char *first = found->studies[from];
    for (size_t i = from + 1; i < to; i++)
        if (!*first || strcmp(first, found->studies[i]) != 0) return false;
    return true;
}

static vxm_status add_subfolders(const found_folders *found, size_t from, size_t to, size_t length,
                                 vx_file_list *out, vxm_error *error);

/* files[from..to) lie in the folder of the first length bytes of their paths, or are it. */
static vxm_status add_cases(const found_folders *found, size_t from, size_t to, size_t length,
                            vx_file_list *out, vxm_error *error) {
    if (!found->each && !are_of_one_study(found, from, to))
        return add_subfolders(found, from, to, length, out, error);
    vx_error err;
    char *path = vx_format_text("%.*s", (int)length, found->files.paths[from]);
    const bool memory = path && vx_file_list_add(out, path, &err) == VX_OK;
    vx_free(path);
    return memory ? VXM_OK : vx_api_no_memory(error);
}

static vxm_status add_subfolders(const found_folders *found, size_t from, size_t to, size_t length,
                                 vx_file_list *out, vxm_error *error) {
    vxm_status s = VXM_OK;
    for (size_t i = from, next; i < to && s == VXM_OK; i = next) {
        const char *path = found->files.paths[i];
        const size_t n = next_level(path, length);
        for (next = i + 1; next < to; next++) {
            const char *other = found->files.paths[next];
            if (strncmp(other, path, n) != 0 || (other[n] && other[n] != '/')) break;
        }
        s = add_cases(found, i, next, n, out, error);
    }
    return s;
}

vxm_status vx_dicom_case_folders(const char *folder, bool each, vx_file_list *out,
                                 vxm_error *error) {
    found_folders found = {.each = each};
    vx_error err;
    vxm_status s = find_all(folder, &found, error);
    const size_t count = found.files.count, top = strlen(folder);
    if (s == VXM_OK && count) s = ask_studies(&found, error);
    if (s == VXM_OK && count && each) s = add_subfolders(&found, 0, count, top, out, error);
    if (s == VXM_OK && count && !each) s = add_cases(&found, 0, count, top, out, error);
    if (s == VXM_OK && !count && found.segmentations &&
        vx_file_list_add(out, folder, &err) != VX_OK)
        s = vx_api_no_memory(error);
    found_clear(&found);
    return s;
}
