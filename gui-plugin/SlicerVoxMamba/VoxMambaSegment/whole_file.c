#define _GNU_SOURCE
#include "whole_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A file that is being made in a folder. */
typedef struct making {
    int fd;
    char *temp; /* its temporary name; not on the disk while the file has none */
    bool named;
} making;

/* ".NAME.PID.tmp" beside path; NULL without memory. */
static char *temporary_name(const char *path) {
    const char *slash = strrchr(path, '/');
    const char *name = slash ? slash + 1 : path;
    char *out = NULL;
    /* Long names are cut: NAME_MAX holds for the temporary too. */
    if (asprintf(&out, "%.*s.%.200s.%ld.tmp", (int)(name - path), path, name, (long)getpid()) < 0)
        return NULL;
    return out;
}

static char *folder_of(const char *path) {
    const char *slash = strrchr(path, '/');
    if (!slash) return strdup(".");
    return strndup(path, slash == path ? 1 : (size_t)(slash - path));
}

static bool begin(const char *path, making *out) {
    char *folder = folder_of(path);
    *out = (making){.fd = -1, .temp = temporary_name(path)};
    if (folder && out->temp) out->fd = open(folder, O_TMPFILE | O_WRONLY | O_CLOEXEC, 0666);
    if (folder && out->temp && out->fd < 0) {
        out->fd = open(out->temp, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0666);
        out->named = out->fd >= 0;
    }
    free(folder);
    return out->fd >= 0;
}

/* Removes what has no final name; errno stays. */
static void end(making *file) {
    const int why = errno;
    if (file->fd >= 0) close(file->fd);
    if (file->named) unlink(file->temp);
    free(file->temp);
    errno = why;
}

static bool put(int fd, const char *text, size_t bytes) {
    while (bytes) {
        const ssize_t n = write(fd, text, bytes);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return false;
        text += n;
        bytes -= (size_t)n;
    }
    return fsync(fd) == 0;
}

/* A nameless file takes a free name at once; to replace another it has to be renamed. */
static bool name(making *file, const char *path) {
    char proc[64];
    snprintf(proc, sizeof proc, "/proc/self/fd/%d", file->fd);
    if (!file->named) {
        if (linkat(AT_FDCWD, proc, AT_FDCWD, path, AT_SYMLINK_FOLLOW) == 0) return true;
        if (errno != EEXIST) return false;
        if (linkat(AT_FDCWD, proc, AT_FDCWD, file->temp, AT_SYMLINK_FOLLOW) != 0) return false;
        file->named = true;
    }
    if (rename(file->temp, path) != 0) return false;
    file->named = false;
    return true;
}

bool whole_file_possible(const char *path) {
    making file;
    const bool possible = begin(path, &file);
    end(&file);
    return possible;
}

bool whole_file_write(const char *path, const char *text, size_t bytes) {
    making file;
    const bool ok = begin(path, &file) && put(file.fd, text, bytes) && name(&file, path);
    end(&file);
    return ok;
}
