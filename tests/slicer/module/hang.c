/* Preloaded into the module: the system call named by HANG sleeps when it is called, and says so by
 * making the file MARK; with NO_TMPFILE set, the file system has no nameless files. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void may_hang(const char *call) {
    const char *wanted = getenv("HANG"), *mark = getenv("MARK");
    if (!wanted || !mark || strcmp(wanted, call) != 0) return;
    close(creat(mark, 0666));
    sleep(600);
}

int fsync(int fd) {
    may_hang("fsync");
    return ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(fd);
}

int linkat(int a, const char *from, int b, const char *to, int flags) {
    may_hang("linkat");
    return ((int (*)(int, const char *, int, const char *, int))dlsym(RTLD_NEXT, "linkat"))(
        a, from, b, to, flags);
}

int rename(const char *from, const char *to) {
    may_hang("rename");
    return ((int (*)(const char *, const char *))dlsym(RTLD_NEXT, "rename"))(from, to);
}

int open(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    const mode_t mode = (flags & (O_CREAT | __O_TMPFILE)) ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    if ((flags & O_TMPFILE) == O_TMPFILE && getenv("NO_TMPFILE")) {
        errno = EOPNOTSUPP;
        return -1;
    }
    return ((int (*)(const char *, int, ...))dlsym(RTLD_NEXT, "open"))(path, flags, mode);
}
