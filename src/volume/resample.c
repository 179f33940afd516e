#include "volume/resample.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "base/size.h"
#include "volume/intensity.h"
#include "volume/resample_axis.h"

/* nnU-Net's ANISO_THRESHOLD. */
#define ANISOTROPIC 3.0

void vx_resampled_dims(const size_t dims[3], const double old_spacing[3],
                       const double new_spacing[3], size_t out[3]) {
    for (int i = 0; i < 3; i++) {
        /* The order of the operations is nnU-Net's; nearbyint rounds half to even as Python does.
         */
        double n = nearbyint(old_spacing[i] / new_spacing[i] * (double)dims[i]);
        out[i] = n >= 1e18 ? SIZE_MAX : n >= 1 ? (size_t)n : 1;
    }
}

static bool is_anisotropic(const double s[3]) {
    return fmax(fmax(s[0], s[1]), s[2]) / fmin(fmin(s[0], s[1]), s[2]) > ANISOTROPIC;
}

/* The only axis with the largest spacing, or -1. */
static int coarse_axis(const double s[3]) {
    double largest = fmax(fmax(s[0], s[1]), s[2]);
    int axis = -1, count = 0;
    for (int i = 0; i < 3; i++)
        if (largest / s[i] == 1) {
            axis = i;
            count++;
        }
    return count == 1 ? axis : -1;
}

/* determine_do_sep_z_and_axis: where the old spacing is anisotropic it alone decides, even when its
 * coarse axis is not unique and the new spacing's would be. */
int vx_separate_axis(const double old_spacing[3], const double new_spacing[3]) {
    if (is_anisotropic(old_spacing)) return coarse_axis(old_spacing);
    if (is_anisotropic(new_spacing)) return coarse_axis(new_spacing);
    return -1;
}

vx_geometry vx_resampled_geometry(const vx_geometry *geo, const size_t new_dims[3]) {
    double scale[3], first[3], world[3];
    for (int i = 0; i < 3; i++) {
        scale[i] = (double)geo->dims[i] / (double)new_dims[i];
        first[i] = 0.5 * scale[i] - 0.5; /* the new first voxel's centre on the old grid */
    }
    vx_affine_apply(geo->affine, first, world);
    vx_geometry out = *geo;
    for (int i = 0; i < 3; i++) {
        out.dims[i] = new_dims[i];
        out.affine[i][3] = world[i];
        for (int r = 0; r < 3; r++) out.affine[r][i] *= scale[i];
    }
    return out;
}

/* A grid in memory, x fastest. */
typedef struct grid {
    size_t dims[3], step[3];
} grid;

static grid make_grid(size_t x, size_t y, size_t z) { return (grid){{x, y, z}, {1, x, x * y}}; }

static grid with_dim(grid g, int axis, size_t n) {
    g.dims[axis] = n;
    return make_grid(g.dims[0], g.dims[1], g.dims[2]);
}

/* What the tasks of one pass share. A pass either resamples all lines along axis (plane false), or,
 * for each slice across axis, the slice's two other axes (plane true). */
typedef struct pass {
    const vx_axis_map *maps; /* one an axis */
    int axis;
    bool plane;
    const float *in;
    float *out;
    grid from, to;
    bool clip_slices; /* clip each slice to its own input range, not to [low, high] */
    float low, high;
    /* Output slices first_copy[i] .. first_copy[i + 1] - 1 all show input slice i (NULL: slice i
     * only). */
    const size_t *first_copy;
    unsigned char *scratch; /* scratch_bytes a worker */
    size_t scratch_bytes, line_doubles;
} pass;

/* Lines along axis through a plane of two axes: lanes run along lane_axis. Offsets are those of the
 * plane's first voxel. */
static void resample_plane_axis(const vx_axis_map *map, const float *in, const grid *from,
                                float *out, const grid *to, int axis, int lane_axis, float low,
                                float high, double *lines) {
    size_t count = from->dims[lane_axis];
    for (size_t first = 0; first < count; first += VX_LANES) {
        size_t lanes = count - first < VX_LANES ? count - first : VX_LANES;
        vx_resample_lines(map, in + first * from->step[lane_axis],
                          (vx_lines){from->step[axis], from->step[lane_axis]},
                          out + first * to->step[lane_axis],
                          (vx_lines){to->step[axis], to->step[lane_axis]}, lanes, low, high, lines);
    }
}

static void line_task(const pass *p, size_t task, double *lines) {
    int lane_axis = p->axis == 0 ? 1 : 0, other = 3 - p->axis - lane_axis;
    resample_plane_axis(&p->maps[p->axis], p->in + task * p->from.step[other], &p->from,
                        p->out + task * p->to.step[other], &p->to, p->axis, lane_axis, p->low,
                        p->high, lines);
}

static void copy_slice(const float *in, const grid *from, float *out, const grid *to, int a,
                       int b) {
    for (size_t j = 0; j < to->dims[b]; j++)
        for (size_t i = 0; i < to->dims[a]; i++)
            out[i * to->step[a] + j * to->step[b]] = in[i * from->step[a] + j * from->step[b]];
}

static void slice_range(const float *in, const grid *g, int a, int b, float *low, float *high) {
    *low = *high = in[0];
    for (size_t j = 0; j < g->dims[b]; j++)
        for (size_t i = 0; i < g->dims[a]; i++) {
            float v = in[i * g->step[a] + j * g->step[b]];
            if (v < *low) *low = v;
            if (v > *high) *high = v;
        }
}

/* Both axes of slice task across p->axis, through a slice-sized buffer. */
static void plane_task(const pass *p, size_t task, double *lines, float *buffer) {
    int a = p->axis == 0 ? 1 : 0, b = 3 - p->axis - a; /* a is the faster in memory */
    size_t first = p->first_copy ? p->first_copy[task] : task;
    size_t end = p->first_copy ? p->first_copy[task + 1] : task + 1;
    if (first == end) return;
    const float *in = p->in + task * p->from.step[p->axis];
    float *out = p->out + first * p->to.step[p->axis];
    float low = p->low, high = p->high;
    if (p->clip_slices) slice_range(in, &p->from, a, b, &low, &high);

    const vx_axis_map *ma = &p->maps[a], *mb = &p->maps[b];
    if (ma->in == ma->out && mb->in == mb->out) {
        copy_slice(in, &p->from, out, &p->to, a, b);
    } else if (ma->in == ma->out) {
        resample_plane_axis(mb, in, &p->from, out, &p->to, b, a, low, high, lines);
    } else if (mb->in == mb->out) {
        resample_plane_axis(ma, in, &p->from, out, &p->to, a, b, low, high, lines);
    } else {
        /* The axis first that leaves the smaller slice. Both ways give the same but for rounding.
         */
        bool b_first = mb->out * ma->in <= ma->out * mb->in;
        grid mid = {{0}, {0}};
        mid.dims[a] = b_first ? ma->in : ma->out;
        mid.dims[b] = b_first ? mb->out : mb->in;
        mid.step[a] = 1;
        mid.step[b] = mid.dims[a];
        int one = b_first ? b : a, two = b_first ? a : b;
        resample_plane_axis(&p->maps[one], in, &p->from, buffer, &mid, one, two, -FLT_MAX, FLT_MAX,
                            lines);
        resample_plane_axis(&p->maps[two], buffer, &mid, out, &p->to, two, one, low, high, lines);
    }
    for (size_t k = first + 1; k < end; k++)
        copy_slice(out, &p->to, p->out + k * p->to.step[p->axis], &p->to, a, b);
}

static void run_task(void *ctx, size_t task, unsigned worker) {
    const pass *p = ctx;
    double *lines = (double *)(void *)(p->scratch + (size_t)worker * p->scratch_bytes);
    if (p->plane)
        plane_task(p, task, lines, (float *)(lines + p->line_doubles));
    else
        line_task(p, task, lines);
}

static void run_pass(pass *p, vx_pool *pool) {
    int lane_axis = p->axis == 0 ? 1 : 0, other = 3 - p->axis - lane_axis;
    size_t tasks = p->plane ? p->maps[p->axis].in : p->from.dims[other];
    if (p->plane && !p->first_copy) tasks = p->from.dims[p->axis];
    vx_pool_run(pool, tasks, run_task, p);
}

/* One resampling of all channels: how the passes follow each other depends on the shapes only. */
typedef struct plan {
    vx_axis_map maps[3];
    grid from, to, mid;
    int axis;           /* the planes lie across it */
    bool separate;      /* the planes are clipped on their own */
    bool planes, lines; /* which of the two passes there are */
    bool lines_first;
    size_t *first_copy; /* separate and nearest along axis: no second pass is needed */
    float *temp;        /* between two passes */
    unsigned char *scratch;
    size_t scratch_bytes, line_doubles;
} plan;

static void plan_free(plan *p) {
    for (int i = 0; i < 3; i++) vx_axis_map_free(&p->maps[i]);
    vx_free(p->first_copy);
    vx_free(p->temp);
    vx_free(p->scratch);
}

/* first_copy[i]: the first output slice whose nearest input slice is i or later. */
static vx_status plan_copies(plan *p, vx_error *err) {
    const vx_axis_map *map = &p->maps[p->axis];
    p->first_copy = vx_alloc_zero(map->in + 1, sizeof *p->first_copy);
    if (!p->first_copy) return vx_fail(err, VX_ERR_RESOURCE, "out of memory");
    size_t k = 0;
    for (size_t i = 0; i <= map->in; i++) {
        while (k < map->out && vx_axis_index(map, k, 0) < i) k++;
        p->first_copy[i] = k;
    }
    return VX_OK;
}

static vx_status plan_scratch(plan *p, unsigned workers, vx_error *err) {
    int a = p->axis == 0 ? 1 : 0, b = 3 - p->axis - a;
    size_t slice, other, bytes;
    if (!vx_mul_size(p->maps[a].out, p->maps[b].in, &slice) ||
        !vx_mul_size(p->maps[a].in, p->maps[b].out, &other) ||
        !vx_mul_size(other < slice ? other : slice, sizeof(float), &slice))
        return vx_fail(err, VX_ERR_RESOURCE, "out of memory");
    for (int i = 0; i < 3; i++)
        if (vx_lines_scratch(&p->maps[i]) > p->line_doubles)
            p->line_doubles = vx_lines_scratch(&p->maps[i]);
    if (!vx_mul_size(p->line_doubles, sizeof(double), &bytes) ||
        !vx_add_size(bytes, slice, &bytes) || !vx_align_size(bytes, VX_ALIGN, &p->scratch_bytes) ||
        !vx_mul_size(p->scratch_bytes, workers, &bytes) || !(p->scratch = vx_alloc(bytes)))
        return vx_fail(err, VX_ERR_RESOURCE, "out of memory");
    return VX_OK;
}

static vx_status plan_create(plan *p, const size_t from[3], const size_t to[3], int order,
                             int separate_axis, int axis_order, unsigned workers, vx_error *err) {
    memset(p, 0, sizeof *p);
    p->axis = separate_axis >= 0 ? separate_axis : 2;
    p->separate = separate_axis >= 0;
    p->from = make_grid(from[0], from[1], from[2]);
    p->to = make_grid(to[0], to[1], to[2]);
    for (int i = 0; i < 3; i++) {
        int o = i == separate_axis ? axis_order : order;
        vx_status s = vx_axis_map_create(from[i], to[i], o, &p->maps[i], err);
        if (s != VX_OK) return s;
    }
    int a = p->axis == 0 ? 1 : 0, b = 3 - p->axis - a;
    p->lines = from[p->axis] != to[p->axis];
    p->planes = from[a] != to[a] || from[b] != to[b];
    if (p->lines && p->separate && axis_order == 0) {
        p->lines = false;
        p->planes = true;
        vx_status s = plan_copies(p, err);
        if (s != VX_OK) return s;
    }
    if (p->lines && p->planes) {
        grid planes_done = with_dim(p->to, p->axis, from[p->axis]);
        grid lines_done = with_dim(p->from, p->axis, to[p->axis]);
        size_t planes_size, lines_size;
        if (!vx_product(planes_done.dims, 3, &planes_size) ||
            !vx_product(lines_done.dims, 3, &lines_size))
            return vx_fail(err, VX_ERR_RESOURCE, "out of memory");
        /* Clipping slices on their own comes between the two, so then the order is given. */
        p->lines_first = !p->separate && lines_size <= planes_size;
        p->mid = p->lines_first ? lines_done : planes_done;
        size_t bytes;
        if (vx_mul_size(p->lines_first ? lines_size : planes_size, sizeof(float), &bytes))
            p->temp = vx_alloc(bytes);
        if (!p->temp)
            return vx_fail(err, VX_ERR_RESOURCE, "out of memory (to resample the volume)");
    }
    return plan_scratch(p, workers, err);
}

/* One channel. */
static vx_status plan_run(const plan *p, const float *in, float *out, vx_pool *pool,
                          vx_error *err) {
    size_t voxels = p->from.dims[0] * p->from.dims[1] * p->from.dims[2];
    pass base = {.maps = p->maps,
                 .axis = p->axis,
                 .scratch = p->scratch,
                 .scratch_bytes = p->scratch_bytes,
                 .line_doubles = p->line_doubles};
    vx_status s = vx_value_range(in, voxels, pool, &base.low, &base.high, err);
    if (s != VX_OK) return s;
    /* Only the last pass clips; along a separate axis nnU-Net does not clip at all. */
    bool two = p->lines && p->planes;
    pass planes = base, lines = base;
    planes.plane = true;
    planes.first_copy = p->first_copy;
    planes.clip_slices = p->separate;
    planes.in = two && p->lines_first ? p->temp : in;
    planes.from = two && p->lines_first ? p->mid : p->from;
    planes.out = two && !p->lines_first ? p->temp : out;
    planes.to = two && !p->lines_first ? p->mid : p->to;
    lines.in = two && !p->lines_first ? p->temp : in;
    lines.from = two && !p->lines_first ? p->mid : p->from;
    lines.out = two && p->lines_first ? p->temp : out;
    lines.to = two && p->lines_first ? p->mid : p->to;
    if (p->separate || (two && p->lines_first)) {
        lines.low = -FLT_MAX;
        lines.high = FLT_MAX;
    }
    if (two && !p->lines_first && !p->separate) {
        planes.low = -FLT_MAX;
        planes.high = FLT_MAX;
    }
    if (p->lines && p->lines_first) run_pass(&lines, pool);
    if (p->planes) run_pass(&planes, pool);
    if (p->lines && !p->lines_first) run_pass(&lines, pool);
    if (!p->lines && !p->planes) memcpy(out, in, voxels * sizeof *out);
    return VX_OK;
}

static bool is_order(int order) { return order == 0 || order == 1 || order == 3; }

vx_status vx_resample_volume(const vx_volume *in, const size_t new_dims[3], int order,
                             int separate_axis, int axis_order, vx_pool *pool, vx_volume **out,
                             vx_error *err) {
    *out = NULL;
    if (!is_order(order) || !is_order(axis_order) || separate_axis < -1 || separate_axis > 2)
        return vx_fail(err, VX_ERR_USAGE, "resampling has order 0, 1 or 3 and axis -1, 0, 1 or 2");
    if (!new_dims[0] || !new_dims[1] || !new_dims[2])
        return vx_fail(err, VX_ERR_USAGE, "a volume cannot be resampled to no voxels");
    vx_geometry geo = vx_resampled_geometry(&in->geo, new_dims);
    vx_volume *volume;
    vx_status s = vx_volume_create(&geo, in->channels, &volume, err);
    if (s != VX_OK) return s;
    plan p;
    s = plan_create(&p, in->geo.dims, new_dims, order, separate_axis, axis_order,
                    vx_pool_workers(pool), err);
    for (size_t c = 0; c < in->channels && s == VX_OK; c++)
        s = plan_run(&p, in->data + c * vx_voxels(&in->geo), volume->data + c * vx_voxels(&geo),
                     pool, err);
    if (s == VX_OK) {
        volume->source = vx_source_ref(in->source);
        *out = volume;
    } else {
        vx_volume_free(volume);
    }
    plan_free(&p);
    return s;
}
