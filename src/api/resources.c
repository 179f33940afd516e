/* Hashes of files, and what the machine has. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "api/internal.h"
#include "base/memory.h"
#include "base/sha256.h"

#define HASH_BLOCK ((size_t)1 << 18)

static vx_status hash_fd(int fd, const vx_log *log, vx_sha256 *sha, vx_error *err) {
    uint8_t *block = vx_alloc(HASH_BLOCK);
    if (!block) return vx_fail(err, VX_ERR_RESOURCE, "out of memory");
    vx_status s = VX_OK;
    for (unsigned k = 0; s == VX_OK; k++) {
        ssize_t n = read(fd, block, HASH_BLOCK);
        if (n == 0) break;
        if (n < 0) {
            if (errno != EINTR) s = vx_fail(err, VX_ERR_INPUT, "cannot read: %s", strerror(errno));
            continue;
        }
        vx_sha256_add(sha, block, (size_t)n);
        if (k % 64 == 63 && vx_log_progress(log, "hash", 0.0))
            s = vx_fail(err, VX_ERR_CANCELLED, "cancelled");
    }
    vx_free(block);
    return s;
}

vx_status vx_sha256_file(const char *path, const vx_log *log, char hex[65], vx_error *err) {
    vx_sha256 sha;
    struct stat st;
    /* O_NONBLOCK: a pipe without a writer must not hang us before we can refuse it. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return vx_fail(err, VX_ERR_INPUT, "cannot open: %s", strerror(errno));
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) { /* a device may never end */
        close(fd);
        return vx_fail(err, VX_ERR_INPUT, "is not a regular file");
    }
    vx_sha256_start(&sha);
    vx_status s = hash_fd(fd, log, &sha, err);
    close(fd);
    vx_sha256_end(&sha, hex);
    return s;
}

void vx_sha256_join(const char (*parts)[65], size_t count, char hex[65]) {
    if (count == 1) {
        memcpy(hex, parts[0], 65);
        return;
    }
    vx_sha256 sha;
    vx_sha256_start(&sha);
    for (size_t i = 0; i < count; i++) vx_sha256_add(&sha, parts[i], 64);
    vx_sha256_end(&sha, hex);
}

void vx_sha256_text(const char *text, char hex[65]) {
    vx_sha256 sha;
    vx_sha256_start(&sha);
    vx_sha256_add(&sha, text, strlen(text));
    vx_sha256_end(&sha, hex);
}

vx_status vx_sha256_input(const char *path, const vx_read_options *options, char hex[65],
                          vx_error *err) {
    vx_file_list files;
    hex[0] = '\0';
    vx_status s = vx_io_files(path, options, &files, err);
    if (s != VX_OK) return s;
    char(*parts)[65] = vx_alloc_zero(files.count, sizeof *parts);
    if (!parts) s = vx_fail(err, VX_ERR_RESOURCE, "out of memory");
    for (size_t i = 0; i < files.count && s == VX_OK; i++) {
        s = vx_sha256_file(files.paths[i], options ? options->log : NULL, parts[i], err);
        if (s == VX_ERR_INPUT && strcmp(files.paths[i], path) != 0)
            vx_fail_prefix(err, s, "one of its files");
    }
    if (s == VX_OK) vx_sha256_join((const char(*)[65])parts, files.count, hex);
    vx_free(parts);
    vx_file_list_clear(&files);
    return s;
}

uint64_t vx_current_memory(void) {
    unsigned long long pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (f && fscanf(f, "%*u %llu", &pages) != 1) pages = 0;
    if (f) fclose(f);
    return (uint64_t)pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* The number in the first line that has the pattern's form; UINT64_MAX when there is none. */
static uint64_t number_in(const char *path, const char *pattern) {
    FILE *f = fopen(path, "r");
    char line[256];
    unsigned long long value;
    uint64_t found = UINT64_MAX;
    while (f && found == UINT64_MAX && fgets(line, sizeof line, f))
        if (sscanf(line, pattern, &value) == 1) found = value;
    if (f) fclose(f);
    return found;
}

uint64_t vx_peak_memory(void) {
    uint64_t kb = number_in("/proc/self/status", "VmHWM: %llu");
    if (kb != UINT64_MAX) return kb * 1024;
    /* Less good: on Linux it begins with what the process had that started this one. */
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) == 0 ? (uint64_t)usage.ru_maxrss * 1024 : 0;
}

uint64_t vx_available_memory(void) {
    uint64_t available = UINT64_MAX;
    uint64_t free_kb = number_in("/proc/meminfo", "MemAvailable: %llu");
    uint64_t swap_kb = number_in("/proc/meminfo", "SwapFree: %llu");
    if (free_kb != UINT64_MAX) available = free_kb * 1024;
    if (free_kb != UINT64_MAX && swap_kb != UINT64_MAX) available += swap_kb * 1024;
    /* A container's limit. What its page cache holds counts as used there, yet can be had. */
    static const char *const groups[][4] = {
        {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.stat",
         "inactive_file %llu"},
        {"/sys/fs/cgroup/memory/memory.limit_in_bytes",
         "/sys/fs/cgroup/memory/memory.usage_in_bytes", "/sys/fs/cgroup/memory/memory.stat",
         "total_inactive_file %llu"}};
    for (int i = 0; i < 2; i++) {
        uint64_t limit = number_in(groups[i][0], "%llu"), used = number_in(groups[i][1], "%llu");
        uint64_t cache = number_in(groups[i][2], groups[i][3]);
        if (limit == UINT64_MAX || used == UINT64_MAX) continue;
        if (cache != UINT64_MAX) used -= cache < used ? cache : used;
        uint64_t rest = limit > used ? limit - used : 0;
        if (rest < available) available = rest;
    }
    return available;
}
