/* Hashes of files, and what the machine has. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sha2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "api/internal.h"
#include "base/memory.h"

#define HASH_BLOCK ((size_t)1 << 18)

static void to_hex(const uint8_t digest[SHA256_DIGEST_LENGTH], char hex[65]) {
    static const char digits[] = "0123456789abcdef";
    for (int i = 0; i < SHA256_DIGEST_LENGTH; i++) {
        hex[2 * i] = digits[digest[i] >> 4];
        hex[2 * i + 1] = digits[digest[i] & 15];
    }
    hex[64] = '\0';
}

static vx_status hash_fd(int fd, const vx_log *log, SHA2_CTX *sha, vx_error *err) {
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
        SHA256Update(sha, block, (size_t)n);
        if (k % 64 == 63 && vx_log_progress(log, "hash", 0.0))
            s = vx_fail(err, VX_ERR_CANCELLED, "cancelled");
    }
    vx_free(block);
    return s;
}

vx_status vx_sha256_file(const char *path, const vx_log *log, char hex[65], vx_error *err) {
    SHA2_CTX sha;
    uint8_t digest[SHA256_DIGEST_LENGTH];
    struct stat st;
    /* O_NONBLOCK: a pipe without a writer must not hang us before we can refuse it. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return vx_fail(err, VX_ERR_INPUT, "cannot open: %s", strerror(errno));
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) { /* a device may never end */
        close(fd);
        return vx_fail(err, VX_ERR_INPUT, "is not a regular file");
    }
    SHA256Init(&sha);
    vx_status s = hash_fd(fd, log, &sha, err);
    close(fd);
    SHA256Final(digest, &sha);
    to_hex(digest, hex);
    return s;
}

void vx_sha256_join(const char (*parts)[65], size_t count, char hex[65]) {
    if (count == 1) {
        memcpy(hex, parts[0], 65);
        return;
    }
    SHA2_CTX sha;
    uint8_t digest[SHA256_DIGEST_LENGTH];
    SHA256Init(&sha);
    for (size_t i = 0; i < count; i++) SHA256Update(&sha, (const uint8_t *)parts[i], 64);
    SHA256Final(digest, &sha);
    to_hex(digest, hex);
}

void vx_sha256_text(const char *text, char hex[65]) {
    SHA2_CTX sha;
    uint8_t digest[SHA256_DIGEST_LENGTH];
    SHA256Init(&sha);
    SHA256Update(&sha, (const uint8_t *)text, strlen(text));
    SHA256Final(digest, &sha);
    to_hex(digest, hex);
}

/* The data file beside a header: X.img for X.hdr, the file that MetaImage and NRRD headers name.
 * Caller frees; NULL when the file stands alone. */
static char *data_file_of(const char *path) {
    static const char *const keys[] = {"ElementDataFile = ", "data file: ", "datafile: "};
    size_t n = strlen(path);
    const char *ending = n > 5 ? path + n - 4 : "";
    if (strcmp(ending, ".hdr") == 0) {
        char *data = vx_format_text("%.*s.img", (int)(n - 4), path);
        if (data && access(data, F_OK) != 0) {
            vx_free(data);
            data = vx_format_text("%.*s.img.gz", (int)(n - 4), path);
        }
        return data;
    }
    if (strcmp(ending, ".img") == 0) return vx_format_text("%.*s.hdr", (int)(n - 4), path);
    if (strcmp(ending, ".mhd") != 0 && strcmp(ending, "nhdr") != 0) return NULL;
    FILE *f = fopen(path, "r");
    char line[1024], *data = NULL;
    while (f && !data && fgets(line, sizeof line, f)) {
        line[strcspn(line, "\r\n")] = '\0';
        for (size_t k = 0; k < sizeof keys / sizeof *keys; k++) {
            const char *name = line + strlen(keys[k]);
            if (strncmp(line, keys[k], strlen(keys[k])) == 0 && strcmp(name, "LOCAL") != 0)
                data = name[0] == '/'
                           ? vx_strdup(name)
                           : vx_format_text("%.*s%s", (int)vx_folder_length(path), path, name);
        }
    }
    if (f) fclose(f);
    return data;
}

static int not_hidden(const struct dirent *entry) { return entry->d_name[0] != '.'; }

/* Adds the hash of every regular file below folder, in the order of their names, to sha. */
static vx_status hash_folder(const char *folder, int depth, const vx_log *log, SHA2_CTX *sha,
                             vx_error *err) {
    struct dirent **entries;
    int n = scandir(folder, &entries, not_hidden, alphasort);
    if (n < 0) return vx_fail(err, VX_ERR_INPUT, "cannot open: %s", strerror(errno));
    vx_status s = VX_OK;
    for (int i = 0; i < n; i++) {
        char hex[65], *path = vx_format_text("%s/%s", folder, entries[i]->d_name);
        struct stat st;
        if (!path) s = vx_fail(err, VX_ERR_RESOURCE, "out of memory");
        if (s == VX_OK && stat(path, &st) == 0) {
            if (S_ISDIR(st.st_mode) && depth < 8) {
                s = hash_folder(path, depth + 1, log, sha, err);
            } else if (S_ISREG(st.st_mode)) {
                s = vx_sha256_file(path, log, hex, err);
                if (s == VX_OK) SHA256Update(sha, (const uint8_t *)hex, 64);
            }
        }
        vx_free(path);
        free(entries[i]);
    }
    free(entries);
    return s;
}

vx_status vx_sha256_input(const char *path, const vx_log *log, char hex[65], vx_error *err) {
    struct stat st;
    hex[0] = '\0';
    if (stat(path, &st) != 0) return vx_fail(err, VX_ERR_INPUT, "%s", strerror(errno));
    if (S_ISDIR(st.st_mode)) {
        SHA2_CTX sha;
        uint8_t digest[SHA256_DIGEST_LENGTH];
        SHA256Init(&sha);
        vx_status s = hash_folder(path, 0, log, &sha, err);
        SHA256Final(digest, &sha);
        to_hex(digest, hex);
        return s;
    }
    char parts[2][65];
    vx_status s = vx_sha256_file(path, log, parts[0], err);
    char *data = s == VX_OK ? data_file_of(path) : NULL;
    size_t count = 1;
    /* A missing data file is the reader's error, with the reader's words. */
    if (data && access(data, R_OK) == 0 && vx_sha256_file(data, log, parts[1], NULL) == VX_OK)
        count = 2;
    vx_free(data);
    if (s == VX_OK) vx_sha256_join((const char(*)[65])parts, count, hex);
    return s;
}

uint64_t vx_peak_memory(void) {
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) == 0 ? (uint64_t)usage.ru_maxrss * 1024 : 0;
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

double vx_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
