#define _GNU_SOURCE
#include "infer/probabilities.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/memory.h"
#include "base/size.h"

/* One of the tensor's axes within a record and within a stored slice. */
typedef struct plane_axis {
    size_t count;
    size_t record;   /* floats from one to the next in the record */
    ptrdiff_t plane; /* floats from one to the next in the stored slice */
} plane_axis;

struct vx_probabilities {
    vx_slice_sink sink;
    void *sink_data;
    size_t classes;
    bool regions;
    size_t stored[3]; /* x, y, z */
    size_t box_from_z, box_size_z;
    size_t crop[3];      /* x, y, z of the turned crop */
    int across;          /* the tensor axis (1 y, 2 z) that the buffer is a slice across */
    int along;           /* the tensor axis (0 x, 1 y, 2 z) that runs along the stored z */
    bool backwards;      /* ... in its descending direction */
    plane_axis a, b;     /* the other two, slower first */
    size_t record_class; /* floats from class to class in a record */
    ptrdiff_t origin;    /* of the crop in a stored slice */
    size_t next;         /* stored slice that the sink gets next */
    int fd;              /* -1: handed on at once */
    float *buffer;       /* [class][row][x] of the crop, rows along the axis that is not across */
    float *record;       /* one stored slice's part of the file; NULL without a file */
    float *slice;        /* [class][y][x] as stored */
};

static bool direct(const vx_probabilities *p) { return p->along == p->across && !p->backwards; }

/* y or z, whichever the buffer is not across. */
static int row_axis(const vx_probabilities *p) { return 3 - p->across; }

/* Records: what the file holds for one stored slice, the other two tensor axes (a slower, b
 * faster) and the class, laid out so that the buffer's share is one piece:
 * along == across: [class][a = row][b = x], the buffer itself; else [a = across][class][b]. */
static void lay_out(vx_probabilities *p, const vx_route *route) {
    const vx_reorient *turn = &route->turn;
    for (int i = 0; i < 3; i++)
        if (turn->axis[i] == 2) p->along = i;
    p->backwards = turn->flip[p->along];
    bool alike = p->along == p->across;
    int a = alike ? row_axis(p) : p->across, b = p->along == 0 ? row_axis(p) : 0;
    p->a.count = p->crop[a];
    p->b.count = p->crop[b];
    p->b.record = 1;
    p->a.record = alike ? p->b.count : p->classes * p->b.count;
    p->record_class = alike ? p->a.count * p->b.count : p->b.count;
    const ptrdiff_t stride[2] = {1, (ptrdiff_t)p->stored[0]};
    const int axes[2] = {a, b};
    plane_axis *planes[2] = {&p->a, &p->b};
    for (int k = 0; k < 2; k++) {
        int axis = turn->axis[axes[k]];
        bool flip = turn->flip[axes[k]];
        size_t first = route->box.from[axis] + (flip ? route->box.size[axis] - 1 : 0);
        p->origin += (ptrdiff_t)first * stride[axis];
        planes[k]->plane = flip ? -stride[axis] : stride[axis];
    }
}

static vx_status open_temporary(int *fd, vx_error *err) {
    const char *folders[3] = {getenv("TMPDIR"), "/var/tmp", "/tmp"};
    for (int i = 0; i < 3; i++) {
        if (!folders[i] || !folders[i][0]) continue;
        *fd = open(folders[i], O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
        if (*fd >= 0) return VX_OK;
        char name[4096];
        int length = snprintf(name, sizeof name, "%s/voxmamba-XXXXXX", folders[i]);
        if (length < 0 || (size_t)length >= sizeof name) continue;
        *fd = mkostemp(name, O_CLOEXEC);
        if (*fd < 0) continue;
        unlink(name);
        return VX_OK;
    }
    return vx_fail(err, VX_ERR_OUTPUT,
                   "no temporary file for the probabilities: %s (set TMPDIR to a folder with room)",
                   strerror(errno));
}

bool vx_probabilities_bytes(const size_t stored[3], const vx_route *route, int across,
                            size_t classes, size_t *bytes) {
    const vx_reorient *turn = &route->turn;
    size_t buffer = route->crop_zyx[1 - across], slice, record, pixel;
    bool at_once = turn->axis[2 - across] == 2 && !turn->flip[2 - across];
    return vx_mul_size(classes, sizeof(float), &pixel) &&
           vx_mul_size(buffer, route->crop_zyx[2], &buffer) &&
           vx_mul_size(stored[0], stored[1], &slice) &&
           vx_mul_size(route->box.size[0], route->box.size[1], &record) &&
           vx_add_size(buffer, slice, bytes) && vx_add_size(*bytes, at_once ? 0 : record, bytes) &&
           vx_mul_size(*bytes, pixel, bytes);
}

vx_status vx_probabilities_create(const size_t stored[3], const vx_route *route, int across,
                                  size_t classes, bool regions, vx_slice_sink sink, void *sink_data,
                                  vx_probabilities **out, vx_error *err) {
    *out = NULL;
    size_t bytes;
    if (!vx_probabilities_bytes(stored, route, across, classes, &bytes))
        return vx_fail(err, VX_ERR_RESOURCE, "the volume is too large for %zu classes", classes);
    vx_probabilities *p = vx_alloc_zero(1, sizeof *p);
    if (!p) return vx_fail(err, VX_ERR_RESOURCE, "out of memory");
    p->sink = sink;
    p->sink_data = sink_data;
    p->classes = classes;
    p->regions = regions;
    p->across = 2 - across;
    p->fd = -1;
    p->box_from_z = route->box.from[2];
    p->box_size_z = route->box.size[2];
    for (int i = 0; i < 3; i++) {
        p->stored[i] = stored[i];
        p->crop[i] = route->crop_zyx[2 - i];
    }
    lay_out(p, route);
    size_t pixel = classes * sizeof(float);
    p->buffer = vx_alloc(p->crop[0] * p->crop[row_axis(p)] * pixel);
    p->slice = vx_alloc(stored[0] * stored[1] * pixel);
    if (!direct(p)) p->record = vx_alloc(p->a.count * p->b.count * pixel);
    vx_status status = VX_OK;
    if (!p->buffer || !p->slice || (!direct(p) && !p->record))
        status = vx_fail(err, VX_ERR_RESOURCE,
                         "out of memory (%zu MB are needed for the probabilities of a slice)",
                         bytes / 1000000);
    else if (!direct(p))
        status = open_temporary(&p->fd, err);
    if (status == VX_OK)
        *out = p;
    else
        vx_probabilities_free(p);
    return status;
}

void vx_probabilities_free(vx_probabilities *p) {
    if (!p) return;
    if (p->fd >= 0) close(p->fd);
    vx_free(p->buffer);
    vx_free(p->record);
    vx_free(p->slice);
    vx_free(p);
}

vx_probability_slice vx_probabilities_buffer(vx_probabilities *p) {
    return (vx_probability_slice){
        .data = p->buffer, .rows = p->crop[row_axis(p)], .across = 2 - p->across};
}

/* Hands the next stored slice to the sink: record's voxels, or background alone when NULL. */
static vx_status hand_out(vx_probabilities *p, const float *record, vx_error *err) {
    size_t plane = p->stored[0] * p->stored[1];
    memset(p->slice, 0, p->classes * plane * sizeof(float));
    if (!p->regions)
        for (size_t i = 0; i < plane; i++) p->slice[i] = 1;
    for (size_t c = 0; record && c < p->classes; c++)
        for (size_t i = 0; i < p->a.count; i++) {
            const float *from = record + c * p->record_class + i * p->a.record;
            float *to = p->slice + c * plane + p->origin + (ptrdiff_t)i * p->a.plane;
            for (size_t j = 0; j < p->b.count; j++) to[(ptrdiff_t)j * p->b.plane] = from[j];
        }
    return p->sink(p->sink_data, p->next++, p->slice, err);
}

/* Background slices up to stored slice end. */
static vx_status hand_out_background(vx_probabilities *p, size_t end, vx_error *err) {
    vx_status status = VX_OK;
    while (status == VX_OK && p->next < end) status = hand_out(p, NULL, err);
    return status;
}

static vx_status transfer(vx_probabilities *p, bool writing, float *data, size_t floats,
                          size_t offset_floats, vx_error *err) {
    char *at = (char *)data;
    size_t left = floats * sizeof(float);
    off_t offset = (off_t)(offset_floats * sizeof(float));
    while (left) {
        ssize_t n = writing ? pwrite(p->fd, at, left, offset) : pread(p->fd, at, left, offset);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0)
            return vx_fail(err, VX_ERR_OUTPUT,
                           "temporary file for the probabilities: %s (set TMPDIR to a folder with "
                           "room)",
                           n < 0 ? strerror(errno) : "cut short");
        at += n;
        left -= (size_t)n;
        offset += n;
    }
    return VX_OK;
}

/* The buffer, slice number `slice` -> its piece of each stored slice's record. */
static vx_status store(vx_probabilities *p, size_t slice, vx_error *err) {
    size_t record = p->classes * p->a.count * p->b.count;
    if (p->along == p->across) /* backwards, or there would be no file */
        return transfer(p, true, p->buffer, record, (p->box_size_z - 1 - slice) * record, err);
    size_t nx = p->crop[0], rows = p->crop[row_axis(p)], piece = p->classes * p->b.count;
    size_t step = p->along == 0 ? nx : 1, next = p->along == 0 ? 1 : nx;
    vx_status status = VX_OK;
    for (size_t i = 0; i < p->box_size_z && status == VX_OK; i++) {
        for (size_t c = 0; c < p->classes; c++)
            for (size_t j = 0; j < p->b.count; j++)
                p->record[c * p->b.count + j] = p->buffer[c * nx * rows + i * next + j * step];
        size_t s = p->backwards ? p->box_size_z - 1 - i : i;
        status = transfer(p, true, p->record, piece, s * record + slice * piece, err);
    }
    return status;
}

vx_status vx_probabilities_put(vx_probabilities *p, size_t slice, vx_error *err) {
    if (!direct(p)) return store(p, slice, err);
    vx_status status = hand_out_background(p, p->box_from_z, err);
    return status == VX_OK ? hand_out(p, p->buffer, err) : status;
}

vx_status vx_probabilities_finish(vx_probabilities *p, vx_error *err) {
    vx_status status = VX_OK;
    if (!direct(p)) {
        size_t record = p->classes * p->a.count * p->b.count;
        status = hand_out_background(p, p->box_from_z, err);
        for (size_t s = 0; s < p->box_size_z && status == VX_OK; s++) {
            status = transfer(p, false, p->record, record, s * record, err);
            if (status == VX_OK) status = hand_out(p, p->record, err);
        }
    }
    return status == VX_OK ? hand_out_background(p, p->stored[2], err) : status;
}
