#include "metrics/distance_transform.h"

#include <math.h>

#include "base/memory.h"

/* Scratch for one line of up to n points. */
typedef struct envelope {
    double *value;  /* n: the line's input */
    double *border; /* n + 1: where one parabola takes over from the one before */
    size_t *vertex; /* n: the parabola's point */
} envelope;

/* The lower envelope of the parabolas f[q] + (s (p - q))^2 along a line, written back with the
 * given stride. */
static void transform_line(double *line, size_t n, size_t stride, double s, envelope *e) {
    size_t k = 0; /* parabolas in the envelope */
    for (size_t q = 0; q < n; q++) {
        double f = line[q * stride];
        e->value[q] = f;
        if (isinf(f)) continue;
        double x = -INFINITY;
        while (k > 0) {
            size_t v = e->vertex[k - 1];
            double dq = (double)q, dv = (double)v;
            /* Where parabola q and the last one cross, in units of points. */
            x = ((f - e->value[v]) / (s * s) + dq * dq - dv * dv) / (2 * (dq - dv));
            if (x > e->border[k - 1]) break;
            k--;
            x = -INFINITY;
        }
        e->vertex[k] = q;
        e->border[k] = x;
        k++;
    }
    if (k == 0) return; /* nothing set on this line: it stays infinite */
    size_t j = 0;
    for (size_t p = 0; p < n; p++) {
        while (j + 1 < k && e->border[j + 1] < (double)p) j++;
        size_t v = e->vertex[j];
        double d = s * ((double)p - (double)v);
        line[p * stride] = e->value[v] + d * d;
    }
}

vx_status vx_distance_transform(const uint8_t *set, const size_t dims[3], const double spacing[3],
                                double *squared, vx_error *err) {
    size_t longest = dims[0] > dims[1] ? dims[0] : dims[1];
    if (dims[2] > longest) longest = dims[2];
    envelope e = {vx_alloc_zero(longest, sizeof(double)),
                  vx_alloc_zero(longest + 1, sizeof(double)),
                  vx_alloc_zero(longest, sizeof(size_t))};
    vx_status status = VX_OK;
    if (!e.value || !e.border || !e.vertex) {
        status = vx_fail(err, VX_ERR_RESOURCE, "out of memory");
    } else {
        size_t points = dims[0] * dims[1] * dims[2];
        for (size_t i = 0; i < points; i++) squared[i] = set[i] ? 0 : INFINITY;
        const size_t step[3] = {1, dims[0], dims[0] * dims[1]};
        for (int axis = 0; axis < 3; axis++) {
            int a = axis == 0 ? 1 : 0, b = axis == 2 ? 1 : 2;
            for (size_t j = 0; j < dims[b]; j++)
                for (size_t i = 0; i < dims[a]; i++)
                    transform_line(squared + i * step[a] + j * step[b], dims[axis], step[axis],
                                   spacing[axis], &e);
        }
    }
    vx_free(e.value);
    vx_free(e.border);
    vx_free(e.vertex);
    return status;
}
