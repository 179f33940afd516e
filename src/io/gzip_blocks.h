/* A gzip member made of deflate blocks that are compressed side by side, as pigz does it: each
 * block starts on a byte (Z_SYNC_FLUSH) and knows the 32 KB before it (deflateSetDictionary), so
 * that little is lost against one stream. How data is cut depends on the calls alone, not on the
 * pool: the same calls give the same bytes. */
#ifndef VX_IO_GZIP_BLOCKS_H
#define VX_IO_GZIP_BLOCKS_H

#include "base/status.h"
#include "base/threads.h"

typedef struct vx_gzip_blocks vx_gzip_blocks;

/* Gets the member's bytes in order. */
typedef vx_status (*vx_packed_fn)(void *user_data, const void *data, size_t bytes, vx_error *err);

/* level: 1 to 9. pool: borrowed, NULL: the calling thread alone. VX_ERR_RESOURCE without memory. */
vx_status vx_gzip_begin(int level, vx_pool *pool, vx_packed_fn packed, void *user_data,
                        vx_gzip_blocks **out, vx_error *err);
/* Every call begins a block: give much at a time. */
vx_status vx_gzip_write(vx_gzip_blocks *gzip, const void *data, size_t bytes, vx_error *err);
/* The member's end. Does not free. */
vx_status vx_gzip_end(vx_gzip_blocks *gzip, vx_error *err);
void vx_gzip_free(vx_gzip_blocks *gzip); /* NULL is fine */

#endif
