#include "volume/resample_axis.h"

#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "base/size.h"

/* Pole of the cubic B-spline's inverse filter, sqrt(3) - 2, and its gain (1 - z) (1 - 1/z). */
#define POLE (-0.26794919243112270647)
#define GAIN 6.0
/* Terms of the filter's start value: POLE^48 is below 1e-27. */
#define START_TERMS 48

/* Weights of the order + 1 neighbours at fraction x in [0, 1) behind the second (order 3) or the
 * first (order 1). The last is what the others leave of 1. */
static void spline_weights(double x, int order, double *w) {
    double y = 1.0 - x;
    if (order == 1) {
        w[0] = y;
        w[1] = 1.0 - w[0];
    } else if (order == 3) {
        w[0] = y * y * y / 6.0;
        w[1] = (x * x * (x - 2.0) * 3.0 + 4.0) / 6.0;
        w[2] = (y * y * (y - 2.0) * 3.0 + 4.0) / 6.0;
        w[3] = 1.0 - w[0] - w[1] - w[2];
    } else {
        w[0] = 1.0;
    }
}

vx_status vx_axis_map_create(size_t in, size_t out, int order, vx_axis_map *map, vx_error *err) {
    *map = (vx_axis_map){.in = in, .out = out, .order = order};
    size_t neighbours = (size_t)order + 1, count;
    map->first = vx_alloc_zero(out, sizeof *map->first);
    if (vx_mul_size(out, neighbours, &count))
        map->weights = vx_alloc_zero(count, sizeof *map->weights);
    if (!map->first || !map->weights) {
        vx_axis_map_free(map);
        return vx_fail(err, VX_ERR_RESOURCE, "out of memory");
    }
    double scale = (double)in / (double)out;
    for (size_t k = 0; k < out; k++) {
        double at = ((double)k + 0.5) * scale - 0.5;
        if (order == 3) at += VX_SPLINE_PAD;
        double base = order == 0 ? floor(at + 0.5) : floor(at);
        map->first[k] = (ptrdiff_t)base - (order == 3 ? 1 : 0);
        spline_weights(at - base, order, map->weights + k * neighbours);
    }
    return VX_OK;
}

void vx_axis_map_free(vx_axis_map *map) {
    vx_free(map->first);
    vx_free(map->weights);
    map->first = NULL;
    map->weights = NULL;
}

/* c: [n][VX_LANES], sample values in, B-spline coefficients out. Causal and anticausal recursion
 * with a half-sample symmetric boundary (Unser, Aldroubi & Eden 1991), which is what scipy's mode
 * "nearest" uses behind its padding. n is at least 2 * VX_SPLINE_PAD + 1, so the echo of the far
 * end, POLE^n, is below double precision. */
static void spline_coefficients(double *c, size_t n) {
    double start[VX_LANES];
    for (int l = 0; l < VX_LANES; l++) start[l] = 0;
    for (size_t i = n < START_TERMS ? n : START_TERMS; i-- > 0;)
        for (int l = 0; l < VX_LANES; l++) start[l] = start[l] * POLE + c[i * VX_LANES + (size_t)l];
    for (int l = 0; l < VX_LANES; l++) c[l] = GAIN * (c[l] + POLE * start[l]);
    for (size_t i = 1; i < n; i++) {
        double *at = c + i * VX_LANES;
        for (int l = 0; l < VX_LANES; l++) at[l] = GAIN * at[l] + POLE * (at - VX_LANES)[l];
    }
    double *last = c + (n - 1) * VX_LANES;
    for (int l = 0; l < VX_LANES; l++) last[l] *= POLE / (POLE - 1.0);
    for (size_t i = n - 1; i-- > 0;) {
        double *at = c + i * VX_LANES;
        for (int l = 0; l < VX_LANES; l++) at[l] = POLE * ((at + VX_LANES)[l] - at[l]);
    }
}

/* Copies the lines into buffer [n][VX_LANES]; lanes that are not there are zero. */
static void load_lines(const float *in, vx_lines lines, size_t n, size_t lanes, double *buffer) {
    for (size_t i = 0; i < n; i++) {
        const float *from = in + i * lines.step;
        double *to = buffer + i * VX_LANES;
        for (size_t l = 0; l < lanes; l++) to[l] = from[l * lines.lane];
        for (size_t l = lanes; l < VX_LANES; l++) to[l] = 0;
    }
}

static void repeat_line(double *buffer, size_t from, size_t to, size_t count) {
    for (size_t i = 0; i < count; i++)
        memcpy(buffer + (to + i) * VX_LANES, buffer + from * VX_LANES, VX_LANES * sizeof *buffer);
}

void vx_resample_lines(const vx_axis_map *map, const float *in, vx_lines in_lines, float *out,
                       vx_lines out_lines, size_t lanes, float low, float high, double *scratch) {
    if (map->order == 3) {
        load_lines(in, in_lines, map->in, lanes, scratch + VX_SPLINE_PAD * VX_LANES);
        repeat_line(scratch, VX_SPLINE_PAD, 0, VX_SPLINE_PAD);
        repeat_line(scratch, VX_SPLINE_PAD + map->in - 1, VX_SPLINE_PAD + map->in, VX_SPLINE_PAD);
        spline_coefficients(scratch, map->in + 2 * VX_SPLINE_PAD);
    } else {
        load_lines(in, in_lines, map->in, lanes, scratch);
    }
    for (size_t k = 0; k < map->out; k++) {
        double sum[VX_LANES] = {0};
        for (int i = 0; i <= map->order; i++) {
            size_t at = map->order == 3 ? (size_t)(map->first[k] + i) : vx_axis_index(map, k, i);
            const double *c = scratch + at * VX_LANES;
            double w = map->weights[k * (size_t)(map->order + 1) + (size_t)i];
            for (int l = 0; l < VX_LANES; l++) sum[l] += w * c[l];
        }
        float *to = out + k * out_lines.step;
        for (size_t l = 0; l < lanes; l++) {
            float v = (float)sum[l];
            to[l * out_lines.lane] = v < low ? low : v > high ? high : v;
        }
    }
}
