#include "infer/postprocess.h"

#include <math.h>
#include <stdbool.h>

#include "base/memory.h"

/* Components are found on runs: stretches of one label along x. Memory is that of the runs, not of
 * the voxels, and two runs touch (26-neighbourhood) when they lie in the same or neighbouring rows
 * and their x ranges, widened by one, overlap. */
typedef struct label_run {
    size_t parent; /* union-find; the root is the component's first run in memory order */
    size_t from, end;
    size_t voxels; /* of the component, valid at the root */
    unsigned label;
    bool remove; /* valid at the root */
} label_run;

typedef struct runs {
    size_t rows;
    size_t *first; /* rows + 1 entries: the runs of row r are first[r] .. first[r + 1] - 1 */
    label_run *run;
} runs;

/* Writes the runs of one row (when out is not NULL) and returns how many there are. */
static size_t scan_row(const vx_mask *mask, size_t row, label_run *out) {
    size_t nx = mask->geo.dims[0], count = 0;
    for (size_t x = 0; x < nx;) {
        unsigned label = vx_mask_get(mask, row * nx + x);
        size_t end = x + 1;
        while (end < nx && vx_mask_get(mask, row * nx + end) == label) end++;
        if (label) {
            if (out) out[count] = (label_run){.from = x, .end = end, .label = label};
            count++;
        }
        x = end;
    }
    return count;
}

static size_t find_root(label_run *run, size_t i) {
    while (run[i].parent != i) {
        run[i].parent = run[run[i].parent].parent;
        i = run[i].parent;
    }
    return i;
}

/* The smaller index becomes the root. */
static void unite(label_run *run, size_t a, size_t b) {
    a = find_root(run, a);
    b = find_root(run, b);
    if (a < b)
        run[b].parent = a;
    else
        run[a].parent = b;
}

/* For runs of neighbouring rows. */
static bool touch(const label_run *p, const label_run *q) {
    return p->label == q->label && p->from <= q->end && q->from <= p->end;
}

static void unite_rows(runs *r, size_t row_a, size_t row_b) {
    size_t a = r->first[row_a], b = r->first[row_b];
    while (a < r->first[row_a + 1] && b < r->first[row_b + 1]) {
        const label_run *p = &r->run[a], *q = &r->run[b];
        if (touch(p, q)) unite(r->run, a, b);
        if (p->end < q->end) {
            a++;
            continue;
        }
        /* Runs that end together: each also touches the other's successor when that follows at
         * once. */
        if (p->end == q->end && a + 1 < r->first[row_a + 1] && touch(p + 1, q))
            unite(r->run, a + 1, b);
        b++;
    }
}

static void runs_free(runs *r) {
    vx_free(r->first);
    vx_free(r->run);
}

static vx_status find_components(const vx_mask *mask, runs *r, vx_error *err) {
    size_t ny = mask->geo.dims[1], nz = mask->geo.dims[2];
    *r = (runs){.rows = ny * nz};
    r->first = vx_alloc_zero(r->rows + 1, sizeof *r->first);
    if (!r->first) return vx_fail(err, VX_ERR_RESOURCE, "out of memory to clean up the mask");
    for (size_t i = 0; i < r->rows; i++) r->first[i + 1] = r->first[i] + scan_row(mask, i, NULL);
    r->run = vx_alloc_zero(r->first[r->rows] + 1, sizeof *r->run);
    if (!r->run) {
        runs_free(r);
        return vx_fail(err, VX_ERR_RESOURCE, "out of memory to clean up the mask");
    }
    for (size_t i = 0; i < r->rows; i++) scan_row(mask, i, r->run + r->first[i]);
    for (size_t i = 0; i < r->first[r->rows]; i++) r->run[i].parent = i;
    for (size_t z = 0; z < nz; z++) {
        for (size_t y = 0; y < ny; y++) {
            size_t row = z * ny + y;
            if (y > 0) unite_rows(r, row, row - 1);
            if (z == 0) continue;
            if (y > 0) unite_rows(r, row, row - ny - 1);
            unite_rows(r, row, row - ny);
            if (y + 1 < ny) unite_rows(r, row, row - ny + 1);
        }
    }
    for (size_t i = 0; i < r->first[r->rows]; i++)
        r->run[find_root(r->run, i)].voxels += r->run[i].end - r->run[i].from;
    return VX_OK;
}

/* Clears the components whose root says so. */
static void erase(vx_mask *mask, runs *r) {
    size_t nx = mask->geo.dims[0];
    for (size_t row = 0; row < r->rows; row++)
        for (size_t i = r->first[row]; i < r->first[row + 1]; i++)
            if (r->run[find_root(r->run, i)].remove)
                for (size_t x = r->run[i].from; x < r->run[i].end; x++)
                    vx_mask_set(mask, row * nx + x, 0);
}

vx_status vx_keep_largest(vx_mask *mask, const unsigned *labels, size_t count, vx_error *err) {
    if (count == 0) return VX_OK;
    runs r;
    vx_status status = find_components(mask, &r, err);
    if (status != VX_OK) return status;
    size_t n = r.first[r.rows];
    for (size_t k = 0; k < count; k++) {
        size_t best = n;
        for (size_t i = 0; i < n; i++) {
            label_run *root = &r.run[i];
            if (root->parent != i || root->label != labels[k]) continue;
            root->remove = true;
            if (best == n || root->voxels > r.run[best].voxels) best = i;
        }
        if (best < n) r.run[best].remove = false;
    }
    erase(mask, &r);
    runs_free(&r);
    return VX_OK;
}

/* Volume of one voxel in mm3. */
static double voxel_volume(const vx_geometry *geo) {
    const double(*a)[4] = geo->affine;
    return fabs(a[0][0] * (a[1][1] * a[2][2] - a[1][2] * a[2][1]) -
                a[0][1] * (a[1][0] * a[2][2] - a[1][2] * a[2][0]) +
                a[0][2] * (a[1][0] * a[2][1] - a[1][1] * a[2][0]));
}

vx_status vx_remove_small(vx_mask *mask, double mm3, vx_error *err) {
    if (!(mm3 > 0)) return VX_OK;
    runs r;
    vx_status status = find_components(mask, &r, err);
    if (status != VX_OK) return status;
    double voxel = voxel_volume(&mask->geo);
    for (size_t i = 0; i < r.first[r.rows]; i++)
        /* A component of exactly the limit stays, whatever the product's last bit says. */
        r.run[i].remove = (double)r.run[i].voxels * voxel < mm3 * (1 - 1e-9);
    erase(mask, &r);
    runs_free(&r);
    return VX_OK;
}
