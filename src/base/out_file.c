#define _GNU_SOURCE
#include "base/out_file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "base/memory.h"

struct vx_out_file {
    int fd; /* -1: parked */
    char *path;
    char *temp; /* NULL while the file has no name (O_TMPFILE) */
    bool only_owner;
};

static vx_status output_error(vx_error *err, const char *what) {
    return vx_fail(err, VX_ERR_OUTPUT, "%s: %s", what, strerror(errno));
}

/* The folder of path: "." when it has none. Caller frees. */
static char *folder_of(const char *path) {
    const char *slash = strrchr(path, '/');
    if (!slash) return vx_strdup(".");
    size_t n = slash == path ? 1 : (size_t)(slash - path);
    char *folder = vx_alloc(n + 1);
    if (folder) {
        memcpy(folder, path, n);
        folder[n] = '\0';
    }
    return folder;
}

/* FNV-1a of the host's name: containers and nodes that share a folder cannot judge each other's
 * process numbers. */
static uint32_t host_mark(void) {
    struct utsname name;
    uint32_t hash = 2166136261u;
    if (uname(&name) != 0) return 0;
    for (const char *c = name.nodename; *c; c++) hash = (hash ^ (unsigned char)*c) * 16777619u;
    return hash;
}

/* A unique temporary name beside path; NULL without memory. */
static char *temp_name(const char *path) {
    uint32_t random = 0;
    if (getrandom(&random, sizeof random, 0) != (ssize_t)sizeof random) return NULL;
    char *folder = folder_of(path);
    if (!folder) return NULL;
    const char *slash = strrchr(path, '/');
    const char *name = slash ? slash + 1 : path;
    size_t n = strlen(folder) + strlen(name) + 80;
    char *temp = vx_alloc(n);
    /* Long names are cut: NAME_MAX holds for the temporary too. */
    if (temp)
        snprintf(temp, n, "%s/.%.100s" VX_TMP_MARK "%08" PRIx32 "-%ld-%08" PRIx32 ".tmp", folder,
                 name, host_mark(), (long)getpid(), random);
    vx_free(folder);
    return temp;
}

/* The mode that a plain open(..., 0666) would give. The umask is read without touching it (no
 * global state changes); where /proc is missing, 022. */
static mode_t default_mode(void) {
    mode_t mask = 022;
    FILE *f = fopen("/proc/self/status", "r");
    if (f) {
        char line[256];
        unsigned value;
        while (fgets(line, sizeof line, f))
            if (sscanf(line, "Umask: %o", &value) == 1) {
                mask = (mode_t)value;
                break;
            }
        fclose(f);
    }
    return 0666 & ~mask;
}

vx_status vx_out_open(const char *path, vx_out_file **out, vx_error *err) {
    *out = NULL;
    vx_out_file *file = vx_alloc_zero(1, sizeof *file);
    char *folder = folder_of(path);
    if (!file || !folder || !(file->path = vx_strdup(path))) {
        vx_free(folder);
        vx_free(file);
        return vx_fail(err, VX_ERR_RESOURCE, "out of memory");
    }
    file->fd = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0666);
    vx_free(folder);
    if (file->fd < 0) {
        file->temp = temp_name(path);
        if (file->temp) file->fd = open(file->temp, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0666);
    }
    if (file->fd < 0) {
        vx_status s = output_error(err, "cannot create the output");
        vx_free(file->temp);
        vx_free(file->path);
        vx_free(file);
        return s;
    }
    *out = file;
    return VX_OK;
}

void vx_out_private(vx_out_file *file) {
    file->only_owner = true;
    (void)fchmod(file->fd, 0600);
}

vx_status vx_out_write(vx_out_file *file, const void *data, size_t bytes, vx_error *err) {
    const char *p = data;
    while (bytes) {
        ssize_t n = write(file->fd, p, bytes > SSIZE_MAX ? SSIZE_MAX : bytes);
        if (n < 0) {
            if (errno == EINTR) continue;
            return output_error(err, "cannot write the output");
        }
        p += n;
        bytes -= (size_t)n;
    }
    return VX_OK;
}

void vx_out_discard(vx_out_file *file) {
    if (!file) return;
    if (file->fd >= 0) close(file->fd);
    if (file->temp) unlink(file->temp);
    vx_free(file->temp);
    vx_free(file->path);
    vx_free(file);
}

/* Flushes the folder entry too, so that the name survives a power cut; best effort. */
static void sync_folder(const char *path) {
    char *folder = folder_of(path);
    if (!folder) return;
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        (void)fsync(fd);
        close(fd);
    }
    vx_free(folder);
}

static vx_status exists_already(vx_error *err) {
    return vx_fail(err, VX_ERR_OUTPUT, "exists already (use --overwrite or --resume)");
}

static vx_status rename_into_place(const char *temp, const char *path, bool replace,
                                   vx_error *err) {
    if (!replace) {
        if (renameat2(AT_FDCWD, temp, AT_FDCWD, path, RENAME_NOREPLACE) == 0) return VX_OK;
        if (errno == EEXIST) return exists_already(err);
        if (errno != EINVAL && errno != ENOSYS) return output_error(err, "cannot name the output");
        if (access(path, F_OK) == 0) return exists_already(err);
    }
    if (rename(temp, path) != 0) return output_error(err, "cannot name the output");
    return VX_OK;
}

/* Links the nameless file; errno EEXIST where path exists: linkat cannot replace. */
static bool link_to(const vx_out_file *file, const char *path) {
    char proc[64];
    snprintf(proc, sizeof proc, "/proc/self/fd/%d", file->fd);
    return linkat(AT_FDCWD, proc, AT_FDCWD, path, AT_SYMLINK_FOLLOW) == 0;
}

static vx_status link_to_temp(vx_out_file *file, vx_error *err) {
    char *temp = temp_name(file->path);
    if (!temp || !link_to(file, temp)) {
        vx_status s = output_error(err, "cannot name the output");
        vx_free(temp);
        return s;
    }
    file->temp = temp;
    return VX_OK;
}

static vx_status flush(const vx_out_file *file, vx_error *err) {
    if (file->fd < 0) return VX_OK; /* parked, which flushed it */
    if (fsync(file->fd) != 0) return output_error(err, "cannot flush the output");
    if (!file->temp && !file->only_owner) (void)fchmod(file->fd, default_mode());
    return VX_OK;
}

static vx_status take_name(vx_out_file *file, bool replace, vx_error *err) {
    if (!file->temp) {
        if (link_to(file, file->path)) return VX_OK;
        if (errno != EEXIST) return output_error(err, "cannot name the output");
        if (!replace) return exists_already(err);
        vx_status s = link_to_temp(file, err);
        if (s != VX_OK) return s;
    }
    vx_status s = rename_into_place(file->temp, file->path, replace, err);
    if (s == VX_OK) {
        vx_free(file->temp);
        file->temp = NULL;
    }
    return s;
}

vx_status vx_out_commit(vx_out_file *file, bool replace, vx_error *err) {
    vx_status s = flush(file, err);
    if (s == VX_OK) s = take_name(file, replace, err);
    if (s == VX_OK) sync_folder(file->path);
    vx_out_discard(file);
    return s;
}

vx_status vx_out_finish(vx_out_file *file, bool replace, vx_out_file **keep, vx_error *err) {
    if (!keep) return vx_out_commit(file, replace, err);
    *keep = NULL;
    vx_status s = flush(file, err);
    if (s == VX_OK)
        *keep = file;
    else
        vx_out_discard(file);
    return s;
}

void vx_out_reading_name(const vx_out_file *file, char name[VX_OUT_READING_NAME]) {
    if (file->temp)
        snprintf(name, VX_OUT_READING_NAME, "%s", file->temp);
    else
        snprintf(name, VX_OUT_READING_NAME, "/proc/self/fd/%d", file->fd);
}

vx_status vx_out_park(vx_out_file *file, vx_error *err) {
    vx_status s = flush(file, err);
    if (s == VX_OK && !file->temp) s = link_to_temp(file, err);
    if (s != VX_OK) return s;
    if (file->fd >= 0) close(file->fd);
    file->fd = -1;
    return VX_OK;
}

/* Whether the temporary whose mark begins at text was left by a process that is gone. One of
 * another host counts as left after a day without a change. */
static bool is_stale(int folder, const char *name, const char *text) {
    char *end;
    errno = 0;
    unsigned long host = strtoul(text, &end, 16);
    if (errno || end != text + 8 || *end != '-') return false;
    long pid = strtol(end + 1, &end, 10);
    if (errno || *end != '-' || pid <= 0) return false;
    if (host == host_mark()) return kill((pid_t)pid, 0) != 0 && errno != EPERM;
    struct stat info;
    return fstatat(folder, name, &info, AT_SYMLINK_NOFOLLOW) == 0 &&
           time(NULL) - info.st_mtime > 24 * 3600;
}

void vx_out_sweep(const char *folder) {
    DIR *dir = opendir(folder);
    if (!dir) return;
    struct dirent *entry;
    while ((entry = readdir(dir))) {
        const char *name = entry->d_name;
        const char *mark = name[0] == '.' ? strstr(name, VX_TMP_MARK) : NULL;
        if (mark && strstr(mark, ".tmp") && is_stale(dirfd(dir), name, mark + strlen(VX_TMP_MARK)))
            (void)unlinkat(dirfd(dir), name, 0);
    }
    closedir(dir);
}
