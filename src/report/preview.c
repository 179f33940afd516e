/* Three planes through a mask, for a quick look. Radiological convention: the patient's right is at
 * the left of the axial and coronal pictures, anterior at the left of the sagittal one, superior at
 * the top. */
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "report/png_file.h"
#include "report/report.h"
#include "volume/orientation.h"

#define PANEL_MAX 384 /* longest edge of one plane, pixels */
#define PANEL_MIN 16
#define GAP       4

/* A plane of a volume whose axes run x: to the left, y: to the posterior, z: to the superior
 * ("LPS"). Pixel (u, v), v downwards, shows voxel axis across and axis down; flip_down makes
 * superior the top. */
typedef struct plane {
    int across, down, through;
    bool flip_down;
    size_t width, height; /* pixels */
} plane;

static const plane PLANES[3] = {
    {0, 1, 2, false, 0, 0}, /* axial: left to the right of the picture, posterior down */
    {0, 2, 1, true, 0, 0},  /* coronal: superior up */
    {1, 2, 0, true, 0, 0},  /* sagittal: anterior at the left, superior up */
};

/* Image (its first channel) and mask as they are stored, seen along the axes of "LPS". */
typedef struct lps_view {
    const vx_volume *image;
    const vx_mask *mask;
    vx_geometry geo; /* along x, y, z of LPS */
    size_t origin;   /* index of LPS voxel (0, 0, 0) */
    ptrdiff_t step[3];
} lps_view;

static vx_status open_view(const vx_volume *image, const vx_mask *mask, lps_view *out,
                           vx_error *err) {
    const size_t *n = image->geo.dims, step[3] = {1, n[0], n[0] * n[1]};
    vx_reorient turn;
    vx_status status = vx_reorient_to(&image->geo, "LPS", &turn, err);
    if (status != VX_OK) return status;
    *out = (lps_view){.image = image, .mask = mask, .geo = vx_reorient_geometry(&image->geo, turn)};
    for (int k = 0; k < 3; k++) {
        int a = turn.axis[k];
        out->step[k] = turn.flip[k] ? -(ptrdiff_t)step[a] : (ptrdiff_t)step[a];
        if (turn.flip[k]) out->origin += step[a] * (n[a] - 1);
    }
    return VX_OK;
}

static size_t index_of(const lps_view *v, const size_t at[3]) {
    ptrdiff_t i = (ptrdiff_t)v->origin;
    for (int k = 0; k < 3; k++) i += (ptrdiff_t)at[k] * v->step[k];
    return (size_t)i;
}

typedef struct grey_window {
    float low, high;
} grey_window;

static int by_value(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* 1st and 99th percentile of an even sample of the voxels: a display window that a few bright
 * voxels do not spoil. */
static grey_window find_window(const lps_view *v) {
    float sample[4096];
    const size_t *dims = v->geo.dims, n = vx_voxels(&v->geo), count = n < 4096 ? n : 4096;
    for (size_t i = 0; i < count; i++) {
        size_t k = (size_t)((double)i * ((double)n / (double)count));
        const size_t at[3] = {k % dims[0], k / dims[0] % dims[1], k / dims[0] / dims[1]};
        sample[i] = v->image->data[index_of(v, at)];
    }
    qsort(sample, count, sizeof *sample, by_value);
    grey_window w = {sample[count / 100], sample[count - 1 - count / 100]};
    if (!(w.high > w.low)) w.high = w.low + 1;
    return w;
}

/* Voxel nearest to the centre of mass of all labels; the middle of the grid for an empty mask. */
static void find_centre(const lps_view *v, size_t centre[3]) {
    const size_t *n = v->geo.dims;
    double sum[3] = {0, 0, 0}, count = 0;
    for (size_t z = 0; z < n[2]; z++)
        for (size_t y = 0; y < n[1]; y++)
            for (size_t x = 0; x < n[0]; x++)
                if (vx_mask_get(v->mask, index_of(v, (const size_t[3]){x, y, z}))) {
                    sum[0] += (double)x;
                    sum[1] += (double)y;
                    sum[2] += (double)z;
                    count++;
                }
    for (int k = 0; k < 3; k++) centre[k] = count > 0 ? (size_t)lround(sum[k] / count) : n[k] / 2;
}

/* Pixels of equal size in mm; the longest edge of any plane is PANEL_MAX pixels, and none is
 * shorter than PANEL_MIN (the only case of another aspect). */
static void size_planes(const vx_geometry *geo, plane planes[3]) {
    double spacing[3], extent[3], longest = 0;
    vx_spacing(geo, spacing);
    for (int k = 0; k < 3; k++) {
        extent[k] = spacing[k] * (double)geo->dims[k];
        longest = fmax(longest, extent[k]);
    }
    for (int p = 0; p < 3; p++) {
        planes[p] = PLANES[p];
        double w = floor(extent[planes[p].across] / longest * PANEL_MAX + 0.5);
        double h = floor(extent[planes[p].down] / longest * PANEL_MAX + 0.5);
        planes[p].width = (size_t)fmax(w, PANEL_MIN);
        planes[p].height = (size_t)fmax(h, PANEL_MIN);
    }
}

static unsigned label_at(const lps_view *v, const size_t at[3]) {
    return vx_mask_get(v->mask, index_of(v, at));
}

/* True where one of the four neighbours inside the plane has another label. */
static bool on_outline(const lps_view *view, const plane *p, const size_t at[3], unsigned label) {
    const int axes[2] = {p->across, p->down};
    for (int k = 0; k < 2; k++) {
        int a = axes[k];
        size_t next[3] = {at[0], at[1], at[2]};
        next[a] = at[a] + 1;
        if (next[a] >= view->geo.dims[a] || label_at(view, next) != label) return true;
        if (at[a] == 0) return true;
        next[a] = at[a] - 1;
        if (label_at(view, next) != label) return true;
    }
    return false;
}

static void draw_plane(const lps_view *view, const vx_label_table *labels, const plane *p,
                       const size_t centre[3], grey_window window, uint8_t *rgb, size_t stride) {
    const size_t *n = view->geo.dims;
    for (size_t v = 0; v < p->height; v++)
        for (size_t u = 0; u < p->width; u++) {
            size_t at[3];
            at[p->through] = centre[p->through];
            at[p->across] = u * n[p->across] / p->width;
            size_t down = v * n[p->down] / p->height;
            at[p->down] = p->flip_down ? n[p->down] - 1 - down : down;
            size_t i = index_of(view, at);
            float grey = (view->image->data[i] - window.low) / (window.high - window.low) * 255;
            grey = !(grey > 0) ? 0 : grey > 255 ? 255 : grey; /* a NaN of a flat image is 0 */
            unsigned label = vx_mask_get(view->mask, i);
            const vx_label *known = label ? vx_label_find(labels, label) : NULL;
            float share = !label ? 0.0F : on_outline(view, p, at, label) ? 0.9F : 0.35F;
            for (int c = 0; c < 3; c++) {
                float colour = known ? known->rgb[c] : 255;
                rgb[v * stride + u * 3 + (size_t)c] =
                    (uint8_t)((1 - share) * grey + share * colour + 0.5F);
            }
        }
}

vx_status vx_preview_write(const char *path, const vx_volume *image, const vx_mask *mask,
                           const vx_label_table *labels, bool replace, vx_out_file **keep,
                           vx_error *err) {
    lps_view view;
    plane planes[3];
    vx_status status = open_view(image, mask, &view, err);
    if (status != VX_OK) return status;
    size_planes(&view.geo, planes);
    size_t width = 2 * GAP, height = 0, centre[3];
    for (int p = 0; p < 3; p++) {
        width += planes[p].width;
        if (planes[p].height > height) height = planes[p].height;
    }
    uint8_t *rgb = vx_alloc_zero(width * height, 3);
    if (!rgb) return vx_fail(err, VX_ERR_RESOURCE, "out of memory");
    find_centre(&view, centre);
    grey_window window = find_window(&view);
    size_t left = 0;
    for (int p = 0; p < 3; p++) {
        size_t top = (height - planes[p].height) / 2;
        draw_plane(&view, labels, &planes[p], centre, window, rgb + (top * width + left) * 3,
                   width * 3);
        left += planes[p].width + GAP;
    }
    status = vx_png_write(path, rgb, width, height, replace, keep, err);
    vx_free(rgb);
    return status;
}
