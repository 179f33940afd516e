#include "volume/orientation.h"

#include <math.h>
#include <string.h>

/* Entries of the rotation that differ by less than this count as equal: a grid turned by exactly 45
 * degrees must not be named by rounding noise. */
#define TIE 1e-9

/* The rotation (or rotation and reflection) nearest to the affine's unit columns: the orthogonal
 * factor of its polar decomposition, by Newton's iteration X <- (X + X^-T) / 2 (Higham 1986). It
 * equals the product of the singular vectors, which nibabel takes. */
static void nearest_rotation(const double affine[4][4], double x[3][3]) {
    for (int c = 0; c < 3; c++) {
        double length = hypot(hypot(affine[0][c], affine[1][c]), affine[2][c]);
        for (int r = 0; r < 3; r++) x[r][c] = length > 0 ? affine[r][c] / length : 0;
    }
    for (int step = 0; step < 100; step++) {
        double cof[3][3], change = 0;
        for (int r = 0; r < 3; r++)
            for (int c = 0; c < 3; c++) {
                int r1 = (r + 1) % 3, r2 = (r + 2) % 3, c1 = (c + 1) % 3, c2 = (c + 2) % 3;
                cof[r][c] = x[r1][c1] * x[r2][c2] - x[r1][c2] * x[r2][c1];
            }
        double det = x[0][0] * cof[0][0] + x[0][1] * cof[0][1] + x[0][2] * cof[0][2];
        if (det == 0 || !isfinite(det)) return; /* singular: refused by vx_geometry_check */
        for (int r = 0; r < 3; r++)
            for (int c = 0; c < 3; c++) {
                double next = (x[r][c] + cof[r][c] / det) / 2;
                change = fmax(change, fabs(next - x[r][c]));
                x[r][c] = next;
            }
        if (change < 1e-15) return;
    }
}

/* world[i]: the world axis (0 right, 1 anterior, 2 superior) nearest to voxel axis i; negative[i]:
 * it runs the other way. nibabel's io_orientation: the voxel axis with the largest entry chooses
 * first, and a chosen world axis is gone for the others. */
static void nearest_axes(const double affine[4][4], int world[3], bool negative[3]) {
    double r[3][3];
    nearest_rotation(affine, r);
    double strength[3];
    for (int c = 0; c < 3; c++)
        strength[c] = fmax(fmax(fabs(r[0][c]), fabs(r[1][c])), fabs(r[2][c]));
    bool axis_done[3] = {false}, world_done[3] = {false};
    for (int round = 0; round < 3; round++) {
        int axis = 0, best = 0;
        while (axis_done[axis]) axis++;
        for (int c = axis + 1; c < 3; c++)
            if (!axis_done[c] && strength[c] > strength[axis] + TIE) axis = c;
        while (world_done[best]) best++;
        for (int w = best + 1; w < 3; w++)
            if (!world_done[w] && fabs(r[w][axis]) > fabs(r[best][axis]) + TIE) best = w;
        axis_done[axis] = world_done[best] = true;
        world[axis] = best;
        negative[axis] = r[best][axis] < 0;
    }
}

void vx_orientation_codes(const vx_geometry *geo, char code[4]) {
    int world[3];
    bool negative[3];
    nearest_axes(geo->affine, world, negative);
    for (int i = 0; i < 3; i++) code[i] = (negative[i] ? "LPI" : "RAS")[world[i]];
    code[3] = '\0';
}

/* World axis of one letter, or -1. */
static int letter_axis(char letter, bool *negative) {
    const char *positive = "RAS", *opposite = "LPI";
    for (int w = 0; w < 3; w++) {
        *negative = letter == opposite[w];
        if (letter == positive[w] || *negative) return w;
    }
    return -1;
}

vx_status vx_reorient_to(const vx_geometry *geo, const char *code, vx_reorient *out,
                         vx_error *err) {
    int world[3];
    bool negative[3], seen[3] = {false};
    nearest_axes(geo->affine, world, negative);
    if (strlen(code) != 3) goto bad;
    for (int i = 0; i < 3; i++) {
        bool wanted_negative;
        int wanted = letter_axis(code[i], &wanted_negative);
        if (wanted < 0 || seen[wanted]) goto bad;
        seen[wanted] = true;
        for (int axis = 0; axis < 3; axis++)
            if (world[axis] == wanted) {
                out->axis[i] = axis;
                out->flip[i] = negative[axis] != wanted_negative;
            }
    }
    return VX_OK;
bad:
    return vx_fail(err, VX_ERR_USAGE,
                   "\"%.16s\" is not an orientation (three letters, one each of L/R, A/P and S/I, "
                   "such as RAS)",
                   code);
}

vx_reorient vx_reorient_inverse(vx_reorient r) {
    vx_reorient inverse;
    for (int i = 0; i < 3; i++) {
        inverse.axis[r.axis[i]] = i;
        inverse.flip[r.axis[i]] = r.flip[i];
    }
    return inverse;
}

bool vx_reorient_is_identity(vx_reorient r) {
    for (int i = 0; i < 3; i++)
        if (r.axis[i] != i || r.flip[i]) return false;
    return true;
}

vx_geometry vx_reorient_geometry(const vx_geometry *geo, vx_reorient r) {
    vx_geometry out = *geo;
    double origin_index[3], origin[3];
    for (int i = 0; i < 3; i++) {
        int from = r.axis[i];
        out.dims[i] = geo->dims[from];
        /* The new first voxel is the old last one along a reversed axis. */
        origin_index[from] = r.flip[i] ? (double)(geo->dims[from] - 1) : 0;
        for (int row = 0; row < 3; row++)
            out.affine[row][i] = r.flip[i] ? -geo->affine[row][from] : geo->affine[row][from];
    }
    vx_affine_apply(geo->affine, origin_index, origin);
    for (int row = 0; row < 3; row++) out.affine[row][3] = origin[row];
    return out;
}

/* Copying of voxels of so many bytes. */
typedef struct turn_job {
    const unsigned char *first; /* what becomes the first voxel */
    ptrdiff_t step[3];          /* bytes of the input along the output's axes */
    unsigned char *out;
    size_t dims[3]; /* of the output */
    size_t bytes;
} turn_job;

/* One z of the output. */
static void turn_slice(void *ctx, size_t z, unsigned worker) {
    (void)worker;
    const turn_job *job = ctx;
    const size_t row = job->bytes * job->dims[0];
    unsigned char *out = job->out + z * job->dims[1] * row;
    for (size_t y = 0; y < job->dims[1]; y++) {
        const unsigned char *from =
            job->first + (ptrdiff_t)z * job->step[2] + (ptrdiff_t)y * job->step[1];
        if (job->step[0] == (ptrdiff_t)job->bytes) {
            memcpy(out, from, row);
            out += row;
            continue;
        }
        for (size_t x = 0; x < job->dims[0]; x++, out += job->bytes)
            memcpy(out, from + (ptrdiff_t)x * job->step[0], job->bytes);
    }
}

/* out_dims are the dims after the change. */
static void reorient_voxels(const void *in, const size_t in_dims[3], void *out,
                            const size_t out_dims[3], vx_reorient r, size_t bytes, vx_pool *pool) {
    const ptrdiff_t in_step[3] = {(ptrdiff_t)bytes, (ptrdiff_t)(bytes * in_dims[0]),
                                  (ptrdiff_t)(bytes * in_dims[0] * in_dims[1])};
    turn_job job = {
        .first = in, .out = out, .dims = {out_dims[0], out_dims[1], out_dims[2]}, .bytes = bytes};
    for (int i = 0; i < 3; i++) {
        job.step[i] = in_step[r.axis[i]];
        if (!r.flip[i]) continue;
        job.first += job.step[i] * (ptrdiff_t)(out_dims[i] - 1);
        job.step[i] = -job.step[i];
    }
    vx_pool_run(pool, out_dims[2], turn_slice, &job);
}

vx_status vx_reorient_volume(const vx_volume *in, vx_reorient r, vx_pool *pool, vx_volume **out,
                             vx_error *err) {
    vx_geometry geo = vx_reorient_geometry(&in->geo, r);
    vx_status s = vx_volume_create(&geo, in->channels, out, err);
    if (s != VX_OK) return s;
    size_t voxels = vx_voxels(&geo);
    for (size_t c = 0; c < in->channels; c++)
        reorient_voxels(in->data + c * voxels, in->geo.dims, (*out)->data + c * voxels, geo.dims, r,
                        sizeof(float), pool);
    (*out)->source = vx_source_ref(in->source);
    return VX_OK;
}

vx_status vx_reorient_mask(const vx_mask *in, vx_reorient r, vx_mask **out, vx_error *err) {
    vx_geometry geo = vx_reorient_geometry(&in->geo, r);
    vx_status s = vx_mask_create(&geo, in->bytes, out, err);
    if (s != VX_OK) return s;
    reorient_voxels(in->data, in->geo.dims, (*out)->data, geo.dims, r, in->bytes, NULL);
    (*out)->source = vx_source_ref(in->source);
    return VX_OK;
}
