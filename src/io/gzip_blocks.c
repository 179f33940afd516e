#include "io/gzip_blocks.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <zlib.h>

#include "base/memory.h"

#define BLOCK  ((size_t)1 << 18)
#define WINDOW ((size_t)1 << 15) /* deflate looks back so far */

/* One block on its way. */
typedef struct block {
    const unsigned char *data;
    size_t bytes;
    const unsigned char *before; /* up to WINDOW bytes that precede it */
    size_t before_bytes;
    unsigned char *packed; /* room for any block */
    size_t packed_bytes;
    uLong crc;
    bool failed;
} block;

struct vx_gzip_blocks {
    vx_pool *pool;
    vx_packed_fn packed;
    void *user_data;
    unsigned workers;
    z_stream *streams; /* one a worker */
    unsigned opened;
    block *blocks; /* one a worker: a wave */
    size_t room;   /* of each packed */
    unsigned char window[WINDOW];
    size_t window_bytes; /* the last of what was written, at window's front */
    bool begun;          /* the header is out */
    uLong crc;
    uint32_t length; /* modulo 2^32, as the trailer has it */
};

vx_status vx_gzip_begin(int level, vx_pool *pool, vx_packed_fn packed, void *user_data,
                        vx_gzip_blocks **out, vx_error *err) {
    *out = NULL;
    vx_gzip_blocks *g = vx_alloc_zero(1, sizeof *g);
    if (!g) return vx_fail(err, VX_ERR_RESOURCE, "out of memory");
    g->pool = pool;
    g->packed = packed;
    g->user_data = user_data;
    g->workers = vx_pool_workers(pool);
    g->crc = crc32(0, NULL, 0);
    g->streams = vx_alloc_zero(g->workers, sizeof *g->streams);
    g->blocks = vx_alloc_zero(g->workers, sizeof *g->blocks);
    bool memory = g->streams && g->blocks;
    /* -15: deflate without a wrapping, the largest window. */
    while (memory && g->opened < g->workers) {
        memory = deflateInit2(&g->streams[g->opened], level, Z_DEFLATED, -15, 8,
                              Z_DEFAULT_STRATEGY) == Z_OK;
        if (memory) g->opened++;
    }
    if (memory) g->room = deflateBound(&g->streams[0], BLOCK) + 64; /* and the flush */
    for (unsigned i = 0; i < g->workers && memory; i++)
        memory = (g->blocks[i].packed = vx_alloc(g->room)) != NULL;
    if (!memory) {
        vx_gzip_free(g);
        return vx_fail(err, VX_ERR_RESOURCE, "out of memory");
    }
    *out = g;
    return VX_OK;
}

void vx_gzip_free(vx_gzip_blocks *g) {
    if (!g) return;
    for (unsigned i = 0; i < g->opened; i++) deflateEnd(&g->streams[i]);
    for (unsigned i = 0; i < g->workers && g->blocks; i++) vx_free(g->blocks[i].packed);
    vx_free(g->streams);
    vx_free(g->blocks);
    vx_free(g);
}

/* zlib is not const-correct in every build; it never writes to its input. */
static Bytef *input(const unsigned char *p) { return (Bytef *)(uintptr_t)p; }

static void pack_block(void *ctx, size_t task, unsigned worker) {
    vx_gzip_blocks *g = ctx;
    block *b = &g->blocks[task];
    z_stream *z = &g->streams[worker];
    b->failed = deflateReset(z) != Z_OK ||
                (b->before_bytes &&
                 deflateSetDictionary(z, input(b->before), (uInt)b->before_bytes) != Z_OK);
    if (b->failed) return;
    z->next_in = input(b->data);
    z->avail_in = (uInt)b->bytes;
    z->next_out = b->packed;
    z->avail_out = (uInt)g->room;
    /* Room is left when all is out. */
    b->failed = deflate(z, Z_SYNC_FLUSH) != Z_OK || z->avail_in || !z->avail_out;
    b->packed_bytes = g->room - z->avail_out;
    b->crc = crc32(crc32(0, NULL, 0), input(b->data), (uInt)b->bytes);
}

static vx_status begin_member(vx_gzip_blocks *g, vx_error *err) {
    /* Deflate; no name, no time; a Unix file. */
    static const unsigned char header[10] = {0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3};
    if (g->begun) return VX_OK;
    g->begun = true;
    return g->packed(g->user_data, header, sizeof header, err);
}

/* The wave's results, in order. */
static vx_status hand_on(vx_gzip_blocks *g, size_t count, vx_error *err) {
    for (size_t i = 0; i < count; i++) {
        const block *b = &g->blocks[i];
        if (b->failed) return vx_fail(err, VX_ERR_OUTPUT, "cannot be compressed");
        g->crc = crc32_combine(g->crc, b->crc, (z_off_t)b->bytes);
        g->length += (uint32_t)b->bytes;
        vx_status s = g->packed(g->user_data, b->packed, b->packed_bytes, err);
        if (s != VX_OK) return s;
    }
    return VX_OK;
}

static void keep_window(vx_gzip_blocks *g, const unsigned char *data, size_t bytes) {
    if (bytes >= WINDOW) {
        memcpy(g->window, data + bytes - WINDOW, WINDOW);
        g->window_bytes = WINDOW;
        return;
    }
    const size_t kept = g->window_bytes + bytes > WINDOW ? WINDOW - bytes : g->window_bytes;
    memmove(g->window, g->window + g->window_bytes - kept, kept);
    memcpy(g->window + kept, data, bytes);
    g->window_bytes = kept + bytes;
}

vx_status vx_gzip_write(vx_gzip_blocks *g, const void *data, size_t bytes, vx_error *err) {
    const unsigned char *p = data;
    vx_status s = begin_member(g, err);
    for (size_t done = 0; done < bytes && s == VX_OK;) {
        size_t count = 0;
        for (; count < g->workers && done < bytes; count++) {
            block *b = &g->blocks[count];
            b->data = p + done;
            b->bytes = bytes - done < BLOCK ? bytes - done : BLOCK;
            b->before = done ? b->data - WINDOW : g->window;
            b->before_bytes = done ? WINDOW : g->window_bytes;
            done += b->bytes;
        }
        vx_pool_run(g->pool, count, pack_block, g);
        s = hand_on(g, count, err);
    }
    if (s == VX_OK) keep_window(g, p, bytes);
    return s;
}

vx_status vx_gzip_end(vx_gzip_blocks *g, vx_error *err) {
    unsigned char end[10] = {3, 0}; /* an empty last block; checksum and length behind it */
    vx_status s = begin_member(g, err);
    for (int i = 0; i < 4; i++) {
        end[2 + i] = (unsigned char)(g->crc >> 8 * i);
        end[6 + i] = (unsigned char)(g->length >> 8 * i);
    }
    return s == VX_OK ? g->packed(g->user_data, end, sizeof end, err) : s;
}
