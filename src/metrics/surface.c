#include "metrics/surface.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/size.h"
#include "metrics/distance_transform.h"
#include "metrics/surfel_area.h"

/* A piece of one surface and how far the other surface is. */
typedef struct surfel {
    double distance; /* mm */
    double area;     /* mm^2 */
} surfel;

/* The box of voxels that hold the label in either mask, and the grid of corners around them. */
typedef struct corner_grid {
    size_t from[3]; /* first voxel of the box */
    size_t dims[3]; /* corners: one more than voxels along each axis */
    size_t points;
} corner_grid;

static int find_box(const vx_mask *a, const vx_mask *b, unsigned label, corner_grid *grid) {
    const size_t *dims = a->geo.dims;
    size_t low[3] = {dims[0], dims[1], dims[2]}, high[3] = {0, 0, 0};
    for (size_t z = 0, i = 0; z < dims[2]; z++)
        for (size_t y = 0; y < dims[1]; y++)
            for (size_t x = 0; x < dims[0]; x++, i++) {
                if (vx_mask_get(a, i) != label && vx_mask_get(b, i) != label) continue;
                const size_t at[3] = {x, y, z};
                for (int k = 0; k < 3; k++) {
                    if (at[k] < low[k]) low[k] = at[k];
                    if (at[k] > high[k]) high[k] = at[k];
                }
            }
    if (low[0] == dims[0]) return 0;
    for (int k = 0; k < 3; k++) {
        grid->from[k] = low[k];
        grid->dims[k] = high[k] - low[k] + 2;
    }
    return vx_product(grid->dims, 3, &grid->points);
}

/* Neighbour code of every corner: corner (i,j,k) sees the voxels (i-1..i, j-1..j, k-1..k) of the
 * box. */
static void neighbour_codes(const vx_mask *mask, unsigned label, const corner_grid *grid,
                            uint8_t *code) {
    const size_t *n = grid->dims, *dims = mask->geo.dims;
    for (size_t i = 0; i < grid->points; i++) code[i] = 0;
    for (size_t z = 0; z + 1 < n[2]; z++)
        for (size_t y = 0; y + 1 < n[1]; y++)
            for (size_t x = 0; x + 1 < n[0]; x++) {
                size_t voxel = ((grid->from[2] + z) * dims[1] + grid->from[1] + y) * dims[0] +
                               grid->from[0] + x;
                if (vx_mask_get(mask, voxel) != label) continue;
                for (size_t c = 0; c < 8; c++) {
                    /* Corner at offset (dx, dy, dz) sees this voxel at the opposite offset. */
                    size_t dx = c >> 2, dy = (c >> 1) & 1, dz = c & 1;
                    size_t corner = ((z + dz) * n[1] + y + dy) * n[0] + x + dx;
                    code[corner] = (uint8_t)(code[corner] | 1u << c);
                }
            }
}

static int by_distance_then_area(const void *pa, const void *pb) {
    const surfel *a = pa, *b = pb;
    if (a->distance != b->distance) return a->distance < b->distance ? -1 : 1;
    if (a->area != b->area) return a->area < b->area ? -1 : 1;
    return 0;
}

typedef struct surface_sums {
    double area, moment, within, quantile95;
} surface_sums;

/* Surfels of the surface in code, measured with the other surface's squared distances. list holds
 * >= points. */
static surface_sums measure(const uint8_t *code, const double *squared, const double area[256],
                            size_t points, double tolerance, surfel *list) {
    size_t count = 0;
    for (size_t i = 0; i < points; i++)
        if (code[i] != 0 && code[i] != 255)
            list[count++] = (surfel){sqrt(squared[i]), area[code[i]]};
    qsort(list, count, sizeof *list, by_distance_then_area);
    surface_sums s = {0, 0, 0, 0};
    for (size_t i = 0; i < count; i++) {
        s.area += list[i].area;
        s.moment += list[i].area * list[i].distance;
        if (list[i].distance <= tolerance) s.within += list[i].area;
    }
    double running = 0;
    for (size_t i = 0; i < count; i++) {
        running += list[i].area;
        s.quantile95 = list[i].distance;
        if (running / s.area >= 0.95) break;
    }
    return s;
}

/* What vx_surface_compare takes for so many corners. */
static vx_status check_room(size_t points, uint64_t room, vx_error *err) {
    const uint64_t each = 3 * sizeof(uint8_t) + sizeof(double) + sizeof(surfel);
    if (points <= room / each) return VX_OK;
    return vx_fail(err, VX_ERR_RESOURCE,
                   "%.2f GB of memory are needed for surface distances, %.2f GB are free (use a "
                   "machine with more memory, or leave them out: --overlap-only)",
                   (double)points * (double)each / 1e9, (double)room / 1e9);
}

vx_status vx_surface_compare(const vx_mask *pred, const vx_mask *ref, unsigned label,
                             double tolerance_mm, uint64_t room, vx_surface_distances *out,
                             vx_error *err) {
    corner_grid grid;
    if (!find_box(pred, ref, label, &grid))
        return vx_fail(err, VX_ERR_INPUT, "label %u is in neither mask", label);
    vx_status status = check_room(grid.points, room, err);
    if (status != VX_OK) return status;
    double spacing[3], area[256];
    vx_spacing(&pred->geo, spacing);
    vx_surfel_areas(spacing, area);
    uint8_t *code[2] = {vx_alloc(grid.points), vx_alloc(grid.points)};
    uint8_t *border = vx_alloc(grid.points);
    double *squared = vx_alloc_zero(grid.points, sizeof *squared);
    surfel *list = vx_alloc_zero(grid.points, sizeof *list);
    if (!code[0] || !code[1] || !border || !squared || !list) {
        status = vx_fail(err, VX_ERR_RESOURCE, "out of memory");
    } else {
        const vx_mask *masks[2] = {pred, ref};
        surface_sums sums[2];
        memset(sums, 0, sizeof sums);
        for (int m = 0; m < 2; m++) neighbour_codes(masks[m], label, &grid, code[m]);
        for (int m = 0; m < 2 && status == VX_OK; m++) {
            for (size_t i = 0; i < grid.points; i++)
                border[i] = code[1 - m][i] != 0 && code[1 - m][i] != 255;
            status = vx_distance_transform(border, grid.dims, spacing, squared, err);
            if (status == VX_OK)
                sums[m] = measure(code[m], squared, area, grid.points, tolerance_mm, list);
        }
        double total = sums[0].area + sums[1].area;
        out->hd95 = fmax(sums[0].quantile95, sums[1].quantile95);
        out->assd = (sums[0].moment + sums[1].moment) / total;
        out->surface_dice = (sums[0].within + sums[1].within) / total;
    }
    vx_free(code[0]);
    vx_free(code[1]);
    vx_free(border);
    vx_free(squared);
    vx_free(list);
    return status;
}
