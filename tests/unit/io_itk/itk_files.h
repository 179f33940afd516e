/* Small files written by hand, so that the reader is not tested against its own library. */
#ifndef VX_TEST_ITK_FILES_H
#define VX_TEST_ITK_FILES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "io/format.h"

/* A fresh folder, removed with everything in it by remove_folder (no subfolders but "sub"). */
const char *make_folder(void);
void remove_folder(void);
/* The path of name in it; valid until the eighth call after. */
const char *in_folder(const char *name);
void write_file(const char *path, const void *data, size_t bytes);
/* header text, then data as it is. */
void write_image(const char *path, const char *header, const void *data, size_t bytes);
/* A gzip stream (window_bits 31) or a zlib stream (15) of data; free() it. */
unsigned char *deflated(const void *data, size_t bytes, int window_bits, size_t *out_bytes);

/* Warnings of the last read, joined with '\n'. */
extern char warnings[2048];
vx_read_options collecting(void);

#endif
