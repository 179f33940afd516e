/* A gzip file inflated in one go by libdeflate, which takes half of zlib's time but knows whole
 * buffers only. */
#ifndef VX_IO_GZIP_WHOLE_H
#define VX_IO_GZIP_WHOLE_H

#include <stdbool.h>
#include <stddef.h>

/* Reads the file_bytes of fd from its beginning (without moving it) into packed, which has room for
 * them, and inflates them into out. True when they were one gzip member of exactly out_bytes,
 * checksum and length right. False otherwise, for whatever reason: nothing is known of the file
 * then, and packed and out hold anything. The two must not overlap. */
bool vx_gzip_inflate_whole(int fd, void *packed, size_t file_bytes, void *out, size_t out_bytes);

#endif
