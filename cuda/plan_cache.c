#include "cuda/plan_cache.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/memory.h"
#include "base/out_file.h"

/* A plan's text is about 2 KB; more than this is not one of ours. */
enum { TEXT_MAX = 1 << 20, PATH_BYTES = 4096, NAME_BYTES = 64 };

/* What we alone can have written: the libraries trust what such a file holds. */
static bool is_ours(const struct stat *is) {
    return is->st_uid == geteuid() && !(is->st_mode & (S_IWGRP | S_IWOTH));
}

static bool make_folder(const char *path) { return mkdir(path, 0700) == 0 || errno == EEXIST; }

/* The folder's name, made if need be and can. */
static vx_plan_cache_kind folder_of(bool make, char folder[PATH_BYTES - NAME_BYTES]) {
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    const size_t room = PATH_BYTES - NAME_BYTES;
    struct stat is;
    /* The specification asks for absolute paths only. */
    const bool own = cache && cache[0] == '/';
    if (!own && (!home || home[0] != '/')) return VX_PLAN_CACHE_NONE;
    const int n = snprintf(folder, room, "%s%s", own ? cache : home, own ? "" : "/.cache");
    if (n < 0 || (size_t)n + sizeof "/voxmamba" > room) return VX_PLAN_CACHE_NONE;
    if (make && !make_folder(folder)) return VX_PLAN_CACHE_NONE;
    memcpy(folder + n, "/voxmamba", sizeof "/voxmamba");
    if ((make && !make_folder(folder)) || stat(folder, &is) != 0) return VX_PLAN_CACHE_NONE;
    if (!is_ours(&is)) return VX_PLAN_CACHE_FOREIGN;
    return access(folder, W_OK | X_OK) == 0 ? VX_PLAN_CACHE_OURS : VX_PLAN_CACHE_READABLE;
}

/* The file of a key: its FNV-1a hash. Two keys of one hash share a file, which holds one of them.
 */
static bool file_of(const char *key, bool make, char path[PATH_BYTES]) {
    char folder[PATH_BYTES - NAME_BYTES];
    uint64_t hash = 14695981039346656037u;
    for (const char *p = key; *p; p++) hash = (hash ^ (unsigned char)*p) * 1099511628211u;
    const vx_plan_cache_kind kind = folder_of(make, folder);
    if (kind == VX_PLAN_CACHE_NONE || kind == VX_PLAN_CACHE_FOREIGN) return false;
    snprintf(path, PATH_BYTES, "%s/cudnn-%016llx.plan", folder, (unsigned long long)hash);
    return true;
}

vx_plan_cache_kind vx_plan_cache_state(void) {
    char folder[PATH_BYTES - NAME_BYTES];
    return folder_of(true, folder);
}

/* Regular files of our own alone: opening a pipe would wait for its other end. */
static FILE *open_file(const char *path) {
    struct stat is;
    const int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) return NULL;
    const bool good = fstat(fd, &is) == 0 && S_ISREG(is.st_mode) && is_ours(&is);
    FILE *file = good ? fdopen(fd, "rb") : NULL;
    if (!file) close(fd);
    return file;
}

char *vx_plan_cache_read(const char *key, size_t *bytes) {
    char path[PATH_BYTES];
    char *text = NULL;
    const size_t head = strlen(key) + 1;
    *bytes = 0;
    if (!file_of(key, false, path)) return NULL;
    FILE *file = open_file(path);
    if (!file) return NULL;
    char *all = vx_alloc(TEXT_MAX);
    const size_t n = all ? fread(all, 1, TEXT_MAX, file) : 0;
    fclose(file);
    if (n > head && n < TEXT_MAX && memcmp(all, key, head - 1) == 0 && all[head - 1] == '\n')
        text = vx_alloc(n - head + 1);
    if (text) {
        memcpy(text, all + head, n - head);
        text[n - head] = '\0';
        *bytes = n - head;
    }
    vx_free(all);
    return text;
}

static bool holds(const char *key) {
    size_t bytes;
    char *text = vx_plan_cache_read(key, &bytes);
    const bool found = text != NULL;
    vx_free(text);
    return found;
}

bool vx_plan_cache_write(const char *key, const char *text, size_t bytes) {
    char path[PATH_BYTES];
    vx_out_file *file;
    if (bytes + strlen(key) + 1 >= TEXT_MAX || !file_of(key, true, path)) return false;
    /* Of another key or user, or damaged; in this order, so that it is not what another process has
     * just written. */
    if (access(path, F_OK) == 0 && !holds(key)) (void)unlink(path);
    if (vx_out_open(path, &file, NULL) != VX_OK) return false;
    vx_out_private(file);
    if (vx_out_write(file, key, strlen(key), NULL) == VX_OK &&
        vx_out_write(file, "\n", 1, NULL) == VX_OK &&
        vx_out_write(file, text, bytes, NULL) == VX_OK)
        return vx_out_commit(file, false, NULL) == VX_OK || holds(key);
    vx_out_discard(file);
    return false;
}

void vx_plan_cache_forget(const char *key, const char *text) {
    char path[PATH_BYTES];
    size_t bytes;
    char *now = vx_plan_cache_read(key, &bytes);
    if (now && strcmp(now, text) == 0 && file_of(key, false, path)) (void)unlink(path);
    vx_free(now);
}
