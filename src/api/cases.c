#define _GNU_SOURCE
#include "api/cases.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "api/dicom_folders.h"
#include "base/memory.h"
#include "base/text.h"

/* Longer endings first where one contains another. */
static const char *const endings[] = {".seg.nrrd", ".nii.gz", ".nii", ".nrrd", ".nhdr",  ".mha",
                                      ".mhd",      ".hdr",    ".img", ".dcm",  ".img.gz"};

size_t vx_stem_length(const char *base) {
    size_t n = strlen(base);
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        size_t m = strlen(endings[i]);
        if (n > m && vx_has_ending(base, endings[i])) return n - m;
    }
    return n;
}

bool vx_known_ending(const char *path) {
    const char *base = vx_base_name(path);
    return vx_stem_length(base) != strlen(base);
}

/* ---- The list ---- */

static void case_free(vx_case_files *c) {
    for (size_t i = 0; i < c->channel_count; i++) {
        if (c->files) vx_free(c->files[i]);
        if (c->channel_names) vx_free(c->channel_names[i]);
    }
    vx_free(c->files);
    vx_free(c->channel_names);
    vx_free(c->name);
    vx_free(c->shown);
}

void vx_case_list_free(vx_case_list *list) {
    for (size_t i = 0; i < list->count; i++) case_free(&list->cases[i]);
    vx_free(list->cases);
    *list = (vx_case_list){0};
}

static vx_case_files *list_add(vx_case_list *list) {
    if (list->count == list->room) {
        size_t room = list->room ? 2 * list->room : 16;
        vx_case_files *cases = vx_alloc_zero(room, sizeof *cases);
        if (!cases) return NULL;
        if (list->count) memcpy(cases, list->cases, list->count * sizeof *cases);
        vx_free(list->cases);
        list->cases = cases;
        list->room = room;
    }
    vx_case_files *c = &list->cases[list->count++];
    *c = (vx_case_files){0};
    return c;
}

/* A case of one file or folder. name is copied. */
static bool add_single(vx_case_list *list, const char *path, const char *name, size_t name_length) {
    vx_case_files *c = list_add(list);
    if (!c) return false;
    c->name = vx_format_text("%.*s", (int)name_length, name);
    c->shown = vx_strdup(path);
    c->files = vx_alloc_zero(1, sizeof *c->files);
    if (!c->name || !c->shown || !c->files) return false;
    c->channel_count = 1;
    c->files[0] = vx_strdup(path);
    return c->files[0] != NULL;
}

/* ---- Files of one folder, or those typed: nnU-Net's CASE_0000, CASE_0001 are one case ---- */

typedef struct named_file {
    char *path;
    const char *base; /* into path */
    size_t stem;      /* length of base without ending and channel number */
    size_t plain;     /* length of base without ending */
    int channel;      /* -1: the name has no channel number */
} named_file;

typedef struct file_set {
    size_t count, room;
    named_file *files;
} file_set;

static void file_set_free(file_set *set) {
    for (size_t i = 0; i < set->count; i++) vx_free(set->files[i].path);
    vx_free(set->files);
    *set = (file_set){0};
}

/* Takes path. */
static bool file_set_add(file_set *set, char *path) {
    if (path && set->count == set->room) {
        size_t room = set->room ? 2 * set->room : 64;
        named_file *files = vx_alloc_zero(room, sizeof *files);
        if (files && set->count) memcpy(files, set->files, set->count * sizeof *files);
        if (files) {
            vx_free(set->files);
            set->files = files;
            set->room = room;
        }
    }
    if (!path || set->count == set->room) {
        vx_free(path);
        return false;
    }
    named_file *f = &set->files[set->count++];
    *f = (named_file){.path = path, .base = vx_base_name(path), .channel = -1};
    f->plain = f->stem = vx_stem_length(f->base);
    const char *end = f->base + f->plain;
    if (f->plain > 5 && end[-5] == '_' && isdigit((unsigned char)end[-4]) &&
        isdigit((unsigned char)end[-3]) && isdigit((unsigned char)end[-2]) &&
        isdigit((unsigned char)end[-1])) {
        f->channel = (int)strtol(end - 4, NULL, 10);
        f->stem = f->plain - 5;
    }
    return true;
}

/* By folder and stem, then channel. */
static int compare_files(const void *a, const void *b) {
    const named_file *f = a, *g = b;
    size_t nf = (size_t)(f->base - f->path) + f->stem, ng = (size_t)(g->base - g->path) + g->stem;
    int order = memcmp(f->path, g->path, nf < ng ? nf : ng);
    if (order) return order;
    if (nf != ng) return nf < ng ? -1 : 1;
    if (f->channel != g->channel) return f->channel < g->channel ? -1 : 1;
    return strcmp(f->path, g->path);
}

static bool same_stem(const named_file *f, const named_file *g) {
    size_t n = (size_t)(f->base - f->path) + f->stem;
    return f->channel >= 0 && g->channel >= 0 && n == (size_t)(g->base - g->path) + g->stem &&
           memcmp(f->path, g->path, n) == 0;
}

/* files[0..count): one case whose channels must be 0..count-1. */
static vxm_status add_channels(vx_case_list *list, const named_file *files, size_t count,
                               vxm_error *error) {
    for (size_t i = 0; i < count; i++) {
        if ((size_t)files[i].channel == i) continue;
        if (i && files[i].channel == files[i - 1].channel)
            return vx_api_fail(error, files[i].path, VXM_ERR_USAGE,
                               "channel %04d occurs twice (two cases of one name?)",
                               files[i].channel);
        return vx_api_fail(error, files[i].path, VXM_ERR_INPUT,
                           "channel %04zu of this case is missing (files of a case end in _0000, "
                           "_0001, ...)",
                           i);
    }
    vx_case_files *c = list_add(list);
    if (!c || !(c->files = vx_alloc_zero(count, sizeof *c->files))) return vx_api_no_memory(error);
    c->channel_count = count;
    c->name = vx_format_text("%.*s", (int)files[0].stem, files[0].base);
    c->shown = vx_strdup(files[0].path);
    bool memory = c->name && c->shown;
    for (size_t i = 0; i < count; i++)
        memory = (c->files[i] = vx_strdup(files[i].path)) != NULL && memory;
    return memory ? VXM_OK : vx_api_no_memory(error);
}

/* A number at the end names a channel only where the group begins at _0000: scan_2019 is a name. */
static vxm_status add_files(vx_case_list *list, file_set *set, vxm_error *error) {
    if (set->count) qsort(set->files, set->count, sizeof *set->files, compare_files);
    for (size_t i = 0; i < set->count;) {
        const named_file *first = &set->files[i];
        if (first->channel != 0) {
            if (!add_single(list, first->path, first->base, first->plain))
                return vx_api_no_memory(error);
            i++;
            continue;
        }
        size_t n = 1;
        while (i + n < set->count && same_stem(first, &set->files[i + n])) n++;
        vxm_status s = add_channels(list, first, n, error);
        if (s != VXM_OK) return s;
        i += n;
    }
    return VXM_OK;
}

/* ---- Folders ---- */

static int not_hidden(const struct dirent *entry) { return entry->d_name[0] != '.'; }

static char *join(const char *folder, const char *name) {
    size_t n = strlen(folder);
    return vx_format_text("%s%s%s", folder, n && folder[n - 1] == '/' ? "" : "/", name);
}

static bool is_kind(const char *path, mode_t kind) {
    struct stat st;
    return stat(path, &st) == 0 && (st.st_mode & S_IFMT) == kind;
}

/* X.img beside X.hdr, or the raw part of a pair: read with its header. */
static bool is_second_of_pair(const char *path) {
    size_t cut = vx_has_ending(path, ".img") ? 4 : vx_has_ending(path, ".img.gz") ? 7 : 0;
    if (!cut) return false;
    char *header = vx_format_text("%.*s.hdr", (int)(strlen(path) - cut), path);
    bool pair = header && is_kind(header, S_IFREG);
    vx_free(header);
    return pair;
}

/* Files right in folder whose names end like a volume's; DICOM is not among them. */
static vxm_status find_volumes(const char *folder, file_set *out, vxm_error *error) {
    struct dirent **entries;
    int n = scandir(folder, &entries, not_hidden, alphasort);
    if (n < 0) return vx_api_fail(error, folder, VXM_ERR_INPUT, "cannot open: %s", strerror(errno));
    bool memory = true;
    for (int i = 0; i < n; i++) {
        char *path = memory ? join(folder, entries[i]->d_name) : NULL;
        free(entries[i]);
        memory = memory && path;
        if (!memory) continue;
        bool dcm = vx_has_ending(path, ".dcm");
        if (!dcm && vx_known_ending(path) && is_kind(path, S_IFREG) && !is_second_of_pair(path))
            memory = file_set_add(out, path);
        else
            vx_free(path);
    }
    free(entries);
    return memory ? VXM_OK : vx_api_no_memory(error);
}

/* The name of a folder that is one case: its last part, or "case" for "." and "/". */
static bool add_dicom_case(vx_case_list *list, const char *folder) {
    size_t n = strlen(folder);
    while (n > 1 && folder[n - 1] == '/') n--;
    size_t from = n;
    while (from > 0 && folder[from - 1] != '/') from--;
    const char *name = folder + from;
    size_t length = n - from;
    if (length == 0 || (length <= 2 && strspn(name, ".") == length)) {
        char *real = realpath(folder, NULL);
        const char *base = real ? vx_base_name(real) : "";
        bool ok = *base ? add_single(list, folder, base, strlen(base))
                        : add_single(list, folder, "case", 4);
        free(real);
        return ok;
    }
    return add_single(list, folder, name, length);
}

/* DICOM cases at or below folder; one below is named by its way from there ("p1_ct"). */
static vxm_status add_dicom(vx_case_list *list, const char *folder, bool each, vxm_error *error) {
    vx_file_list cases = {0};
    vxm_status s = vx_dicom_case_folders(folder, each, &cases, error);
    const size_t top = strlen(folder);
    for (size_t i = 0; i < cases.count && s == VXM_OK; i++) {
        const char *path = cases.paths[i];
        if (!path[top]) {
            if (!add_dicom_case(list, folder)) s = vx_api_no_memory(error);
            continue;
        }
        char *name = vx_strdup(path + top + strspn(path + top, "/"));
        for (char *p = name; p && *p; p++)
            if (*p == '/') *p = '_';
        if (!name || !add_single(list, path, name, strlen(name))) s = vx_api_no_memory(error);
        vx_free(name);
    }
    vx_file_list_clear(&cases);
    return s;
}

static vxm_status add_folder(vx_case_list *list, const char *folder, bool each, vxm_error *error) {
    file_set volumes = {0};
    size_t before = list->count;
    vxm_status s = each ? VXM_OK : find_volumes(folder, &volumes, error);
    if (s == VXM_OK)
        s = volumes.count ? add_files(list, &volumes, error) : add_dicom(list, folder, each, error);
    file_set_free(&volumes);
    if (s == VXM_OK && list->count == before)
        s = vx_api_fail(error, folder, VXM_ERR_INPUT,
                        "no case in this folder (volumes end in .nii.gz, .nii, .nrrd, .mha, .mhd; "
                        "or DICOM files)");
    return s;
}

/* ---- What is typed ---- */

static int compare_cases(const void *a, const void *b) {
    const vx_case_files *c = a, *d = b;
    int order = strcmp(c->name, d->name);
    return order ? order : strcmp(c->shown, d->shown);
}

static vxm_status check_names(const vx_case_list *list, vxm_error *error) {
    for (size_t i = 1; i < list->count; i++)
        if (strcmp(list->cases[i - 1].name, list->cases[i].name) == 0)
            return vx_api_fail(error, list->cases[i].shown, VXM_ERR_USAGE,
                               "two cases have the name of this one, so their outputs would too "
                               "(run them into different folders)");
    return VXM_OK;
}

vxm_status vx_find_cases(const char *const *inputs, size_t input_count, bool folders,
                         vx_case_list *out, vxm_error *error) {
    *out = (vx_case_list){0};
    file_set typed = {0};
    vxm_status s = VXM_OK;
    for (size_t i = 0; i < input_count && s == VXM_OK; i++) {
        if (is_kind(inputs[i], S_IFDIR))
            s = add_folder(out, inputs[i], folders, error);
        else if (!file_set_add(&typed, vx_strdup(inputs[i])))
            s = vx_api_no_memory(error);
    }
    if (s == VXM_OK) s = add_files(out, &typed, error);
    file_set_free(&typed);
    if (s == VXM_OK && !out->count)
        s = vx_api_fail(error, NULL, VXM_ERR_INPUT, "no case was found");
    if (s == VXM_OK) {
        qsort(out->cases, out->count, sizeof *out->cases, compare_cases);
        s = check_names(out, error);
    }
    if (s != VXM_OK) vx_case_list_free(out);
    return s;
}

vxm_status vx_named_channels(const char *const *channels, size_t count, vx_case_list *out,
                             vxm_error *error) {
    *out = (vx_case_list){0};
    vx_case_files *c = list_add(out);
    if (!c || !(c->files = vx_alloc_zero(count, sizeof *c->files)) ||
        !(c->channel_names = vx_alloc_zero(count, sizeof *c->channel_names))) {
        vx_case_list_free(out);
        return vx_api_no_memory(error);
    }
    c->channel_count = count;
    for (size_t i = 0; i < count; i++) {
        const char *equals = strchr(channels[i], '=');
        if (!equals || equals == channels[i] || !equals[1]) {
            vx_case_list_free(out);
            return vx_api_fail(error, NULL, VXM_ERR_USAGE,
                               "--channel '%.100s' is not NAME=FILE (for example T1=t1.nii.gz)",
                               channels[i]);
        }
        c->channel_names[i] = vx_format_text("%.*s", (int)(equals - channels[i]), channels[i]);
        c->files[i] = vx_strdup(equals + 1);
    }
    const char *base = vx_base_name(c->files[0] ? c->files[0] : "");
    c->name = vx_format_text("%.*s", (int)vx_stem_length(base), base);
    c->shown = c->files[0] ? vx_strdup(c->files[0]) : NULL;
    bool memory = c->name && c->shown;
    for (size_t i = 0; i < count; i++) memory = memory && c->channel_names[i] && c->files[i];
    if (memory) return VXM_OK;
    vx_case_list_free(out);
    return vx_api_no_memory(error);
}
