/* Reading a file front to back, inflated on the way when it is gzip-compressed. */
#ifndef VX_IO_BYTE_STREAM_H
#define VX_IO_BYTE_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

typedef struct vx_byte_stream vx_byte_stream;

/* VX_ERR_INPUT: not there, not readable, not a regular file, empty. Whether it is gzip is told by
 * its first two bytes. */
vx_status vx_stream_open(const char *path, vx_byte_stream **out, vx_error *err);
void vx_stream_close(vx_byte_stream *stream); /* NULL is fine */
bool vx_stream_is_gzip(const vx_byte_stream *stream);
/* Size of the file as it lies on the disk. */
uint64_t vx_stream_file_size(const vx_byte_stream *stream);

/* Fills data; *got < bytes only at the end. Damaged or truncated gzip data: VX_ERR_INPUT. */
vx_status vx_stream_read(vx_byte_stream *stream, void *data, size_t bytes, size_t *got,
                         vx_error *err);
/* The whole stream of a gzip file, whatever was read of it, into out: true when it is exactly bytes
 * long and in one piece, in which case there is nothing left to read or to finish. False: read it
 * as usual; nothing was changed but the two buffers. room: for the file's own vx_stream_file_size
 * bytes, beside out. */
bool vx_stream_inflate_whole(vx_byte_stream *stream, void *room, void *out, size_t bytes);
/* Passes over bytes; *got as above. */
vx_status vx_stream_skip(vx_byte_stream *stream, uint64_t bytes, uint64_t *got, vx_error *err);
/* Reads a gzip stream to its end, so that zlib compares checksum and length, and makes sure that
 * nothing but zeros follows. *rest: bytes that were left to read. VX_ERR_INPUT when there are more
 * than limit of them. */
vx_status vx_stream_finish(vx_byte_stream *stream, uint64_t limit, uint64_t *rest, vx_error *err);

#endif
