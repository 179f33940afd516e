#include "infer/tiles.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "base/memory.h"

static size_t max_size(size_t a, size_t b) { return a > b ? a : b; }

/* Tiles along one axis of padded length n: enough that neighbours are at most step * patch apart,
 * then spread evenly, positions rounded half to even. */
static size_t count_tiles(size_t n, size_t patch, double step) {
    double largest = (double)patch * step;
    double count = ceil((double)(n - patch) / largest) + 1;
    /* A step below one voxel would only repeat tiles. */
    double possible = (double)(n - patch) + 1;
    return (size_t)(count < possible ? count : possible);
}

static void place_tiles(size_t n, size_t patch, size_t count, size_t *start) {
    double distance = count > 1 ? (double)(n - patch) / (double)(count - 1) : 0;
    for (size_t i = 0; i < count; i++) start[i] = (size_t)rint(distance * (double)i);
}

static void fill_profile(size_t patch, float *profile) {
    double sigma = (double)patch / 8;
    for (size_t i = 0; i < patch; i++) {
        double t = ((double)i - (double)(patch / 2)) / sigma;
        profile[i] = (float)exp(-0.5 * t * t);
    }
}

/* Tile by tile, so that a long axis costs tiles x patch and not tiles x length. */
static void fill_total(const vx_tiles *tiles, int axis) {
    size_t pad = tiles->pad[axis];
    for (size_t k = 0; k < tiles->count[axis]; k++)
        for (size_t i = 0; i < tiles->patch[axis]; i++) {
            size_t padded = tiles->start[axis][k] + i;
            if (padded >= pad && padded - pad < tiles->dims[axis])
                tiles->total[axis][padded - pad] += tiles->profile[axis][i];
        }
}

vx_status vx_tiles_create(const size_t dims[3], const size_t patch[3], double step, vx_tiles *out,
                          vx_error *err) {
    memset(out, 0, sizeof *out);
    if (!(step > 0 && step <= 1))
        return vx_fail(err, VX_ERR_USAGE, "tile step %g (more than 0 and at most 1 is possible)",
                       step);
    for (int a = 0; a < 3; a++) {
        size_t padded = max_size(dims[a], patch[a]);
        out->dims[a] = dims[a];
        out->patch[a] = patch[a];
        out->pad[a] = (padded - dims[a]) / 2;
        out->count[a] = count_tiles(padded, patch[a], step);
        out->start[a] = vx_alloc_zero(out->count[a], sizeof *out->start[a]);
        out->profile[a] = vx_alloc_zero(patch[a], sizeof *out->profile[a]);
        out->total[a] = vx_alloc_zero(dims[a], sizeof *out->total[a]);
        if (!out->start[a] || !out->profile[a] || !out->total[a]) {
            vx_tiles_free(out);
            return vx_fail(err, VX_ERR_RESOURCE, "out of memory for %zu tiles", out->count[a]);
        }
        place_tiles(padded, patch[a], out->count[a], out->start[a]);
        fill_profile(patch[a], out->profile[a]);
        fill_total(out, a);
    }
    return VX_OK;
}

void vx_tiles_free(vx_tiles *tiles) {
    for (int a = 0; a < 3; a++) {
        vx_free(tiles->start[a]);
        vx_free(tiles->profile[a]);
        vx_free(tiles->total[a]);
        tiles->start[a] = NULL;
        tiles->profile[a] = NULL;
        tiles->total[a] = NULL;
    }
}

size_t vx_tiles_total(const vx_tiles *tiles) {
    return tiles->count[0] * tiles->count[1] * tiles->count[2];
}

size_t vx_tiles_bytes(const vx_tiles *tiles) {
    size_t bytes = 0;
    for (int a = 0; a < 3; a++)
        bytes +=
            tiles->count[a] * sizeof(size_t) + (tiles->patch[a] + tiles->dims[a]) * sizeof(float);
    return bytes;
}

typedef struct read_job {
    const vx_tiles *tiles;
    const size_t *tile;
    const float *volume;
    size_t channels;
    unsigned flips;
    float *out;
} read_job;

/* Volume index of position i of a tile along an axis, or SIZE_MAX in the padding. */
static size_t source_index(const read_job *job, int axis, size_t i) {
    const vx_tiles *t = job->tiles;
    if (job->flips & (1u << axis)) i = t->patch[axis] - 1 - i;
    size_t padded = t->start[axis][job->tile[axis]] + i;
    if (padded < t->pad[axis] || padded - t->pad[axis] >= t->dims[axis]) return SIZE_MAX;
    return padded - t->pad[axis];
}

static void read_plane(void *ctx, size_t z, unsigned worker) {
    (void)worker;
    const read_job *job = ctx;
    const vx_tiles *t = job->tiles;
    const size_t *dims = t->dims, *patch = t->patch;
    size_t channels = job->channels;
    size_t voxels = dims[0] * dims[1] * dims[2];
    float *out = job->out + z * patch[1] * patch[2] * channels;
    memset(out, 0, patch[1] * patch[2] * channels * sizeof *out);
    size_t from_z = source_index(job, 0, z);
    if (from_z == SIZE_MAX) return;
    for (size_t y = 0; y < patch[1]; y++) {
        size_t from_y = source_index(job, 1, y);
        if (from_y == SIZE_MAX) continue;
        const float *row = job->volume + (from_z * dims[1] + from_y) * dims[2];
        float *to = out + y * patch[2] * channels;
        for (size_t x = 0; x < patch[2]; x++) {
            size_t from_x = source_index(job, 2, x);
            if (from_x == SIZE_MAX) continue;
            for (size_t c = 0; c < channels; c++) to[x * channels + c] = row[c * voxels + from_x];
        }
    }
}

void vx_tile_read(const vx_tiles *tiles, const size_t tile[3], const float *volume, size_t channels,
                  unsigned flips, float *out, vx_pool *pool) {
    read_job job = {tiles, tile, volume, channels, flips, out};
    vx_pool_run(pool, tiles->patch[0], read_plane, &job);
}

size_t vx_mirror_passes(const bool mirror[3], unsigned passes[8]) {
    static const unsigned order[8] = {0,
                                      VX_FLIP_Z,
                                      VX_FLIP_Y,
                                      VX_FLIP_X,
                                      VX_FLIP_Z | VX_FLIP_Y,
                                      VX_FLIP_Z | VX_FLIP_X,
                                      VX_FLIP_Y | VX_FLIP_X,
                                      VX_FLIP_Z | VX_FLIP_Y | VX_FLIP_X};
    unsigned allowed =
        (mirror[0] ? VX_FLIP_Z : 0u) | (mirror[1] ? VX_FLIP_Y : 0u) | (mirror[2] ? VX_FLIP_X : 0u);
    size_t n = 0;
    for (size_t i = 0; i < 8; i++)
        if ((order[i] & ~allowed) == 0) passes[n++] = order[i];
    return n;
}
