/* Writing a file front to back, gzip-compressed on the way or not; it appears whole at the end
 * (base/out_file.h). */
#ifndef VX_IO_BYTE_SINK_H
#define VX_IO_BYTE_SINK_H

#include <stdbool.h>
#include <stddef.h>

#include "base/out_file.h"
#include "base/threads.h"

typedef struct vx_byte_sink vx_byte_sink;

/* level: 1..9, where gzip; pool: compresses, borrowed, NULL: the calling thread. The gzip header
 * holds neither name nor time: the same calls of vx_sink_write give the same file. */
vx_status vx_sink_open(const char *path, bool gzip, int level, vx_pool *pool, vx_byte_sink **out,
                       vx_error *err);
vx_status vx_sink_write(vx_byte_sink *sink, const void *data, size_t bytes, vx_error *err);
/* Both free the sink. replace, keep: as vx_out_finish has them. */
vx_status vx_sink_finish(vx_byte_sink *sink, bool replace, vx_out_file **keep, vx_error *err);
void vx_sink_discard(vx_byte_sink *sink); /* NULL is fine */

#endif
