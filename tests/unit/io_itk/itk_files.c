#include "itk_files.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

char warnings[2048];
static char folder[512];

const char *make_folder(void) {
    const char *base = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/vx_io_itk_XXXXXX", base ? base : "/tmp");
    assert_non_null(mkdtemp(folder));
    return folder;
}

static void empty_folder(const char *path) {
    DIR *dir = opendir(path);
    if (!dir) return;
    for (struct dirent *e; (e = readdir(dir));) {
        char name[1024];
        snprintf(name, sizeof name, "%s/%s", path, e->d_name);
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0) unlink(name);
    }
    closedir(dir);
    rmdir(path);
}

void remove_folder(void) {
    char sub[600];
    snprintf(sub, sizeof sub, "%s/sub", folder);
    empty_folder(sub);
    empty_folder(folder);
}

const char *in_folder(const char *name) {
    static char paths[8][1024];
    static unsigned next;
    char *p = paths[next++ % 8];
    snprintf(p, sizeof paths[0], "%s/%s", folder, name);
    return p;
}

void write_file(const char *path, const void *data, size_t bytes) {
    write_image(path, "", data, bytes);
}

void write_image(const char *path, const char *header, const void *data, size_t bytes) {
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(header, 1, strlen(header), f), strlen(header));
    if (bytes > 0) assert_int_equal(fwrite(data, 1, bytes, f), bytes);
    assert_int_equal(fclose(f), 0);
}

unsigned char *deflated(const void *data, size_t bytes, int window_bits, size_t *out_bytes) {
    z_stream s = {0};
    assert_int_equal(deflateInit2(&s, 6, Z_DEFLATED, window_bits, 8, Z_DEFAULT_STRATEGY), Z_OK);
    const size_t bound = deflateBound(&s, bytes) + 64;
    unsigned char *out = malloc(bound);
    s.next_in = (Bytef *)(uintptr_t)data;
    s.avail_in = (uInt)bytes;
    s.next_out = out;
    s.avail_out = (uInt)bound;
    assert_int_equal(deflate(&s, Z_FINISH), Z_STREAM_END);
    *out_bytes = bound - s.avail_out;
    deflateEnd(&s);
    return out;
}

static void collect(void *user_data, vx_log_level level, const char *text) {
    (void)user_data;
    if (level != VX_LOG_WARNING) return;
    const size_t used = strlen(warnings);
    snprintf(warnings + used, sizeof warnings - used, "%s\n", text);
}

vx_read_options collecting(void) {
    static const vx_log log = {collect, NULL, NULL};
    warnings[0] = 0;
    return (vx_read_options){.log = &log};
}
