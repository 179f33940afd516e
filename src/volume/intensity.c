#include "volume/intensity.h"

#include <math.h>
#include <stdbool.h>

#include "base/memory.h"
#include "volume/foreground.h"

/* Voxels of one partial sum: the blocks, and with them the bits of the result, depend on the shape
 * only. */
#define BLOCK       ((size_t)65536)
#define SMALLEST_SD 1e-8

/* Statistics of the voxels where mask is not 0 (NULL: of all). */
typedef struct stats {
    double mean, sd;
    float min, max;
    size_t count;
} stats;

static stats measure(const float *v, const unsigned char *mask, size_t n) {
    stats s = {0, 0, INFINITY, -INFINITY, 0};
    double sum = 0;
    for (size_t from = 0; from < n; from += BLOCK) {
        size_t to = n - from < BLOCK ? n : from + BLOCK;
        double part = 0;
        for (size_t i = from; i < to; i++) {
            if (mask && !mask[i]) continue;
            part += v[i];
            if (v[i] < s.min) s.min = v[i];
            if (v[i] > s.max) s.max = v[i];
            s.count++;
        }
        sum += part;
    }
    if (s.count == 0) return s;
    s.mean = sum / (double)s.count;
    sum = 0;
    for (size_t from = 0; from < n; from += BLOCK) {
        size_t to = n - from < BLOCK ? n : from + BLOCK;
        double part = 0;
        for (size_t i = from; i < to; i++)
            if (!mask || mask[i]) part += (v[i] - s.mean) * (v[i] - s.mean);
        sum += part;
    }
    s.sd = sqrt(sum / (double)s.count);
    return s;
}

static vx_status check_finite(const float *v, const size_t dims[3], size_t channel, vx_error *err) {
    size_t n = dims[0] * dims[1] * dims[2], bad = 0, first = 0;
    for (size_t i = n; i-- > 0;)
        if (!isfinite(v[i])) {
            bad++;
            first = i;
        }
    if (!bad) return VX_OK;
    return vx_fail(err, VX_ERR_INPUT,
                   "%zu voxels of channel %zu are NaN or infinite, the first at (%zu, %zu, %zu)",
                   bad, channel, first % dims[0], first / dims[0] % dims[1],
                   first / dims[0] / dims[1]);
}

/* (v - shift) / scale where mask is not 0, else 0. */
static void shift_scale(float *v, const unsigned char *mask, size_t n, double shift, double scale) {
    for (size_t i = 0; i < n; i++) v[i] = mask && !mask[i] ? 0 : (float)((v[i] - shift) / scale);
}

static void zscore(float *v, const unsigned char *mask, size_t n) {
    stats s = measure(v, mask, n);
    /* One value only: its mean, rounded, may differ from it by more than 1e-8. */
    double mean = s.min < s.max ? s.mean : (double)s.min;
    if (s.count == 0) mean = 0;
    shift_scale(v, mask, n, mean, fmax(s.sd, SMALLEST_SD));
}

vx_status vx_normalise(vx_volume *volume, const vx_normalisation *norms, vx_error *err) {
    size_t n = vx_voxels(&volume->geo);
    unsigned char *mask = NULL;
    for (size_t c = 0; c < volume->channels; c++) {
        vx_status s = check_finite(volume->data + c * n, volume->geo.dims, c, err);
        if (s != VX_OK) return s;
    }
    /* The mask is that of the image as read, so it is taken before any channel changes. */
    for (size_t c = 0; c < volume->channels && !mask; c++)
        if (norms[c].kind == VX_NORM_ZSCORE_NONZERO) {
            vx_status s = vx_filled_foreground(volume, &mask, err);
            if (s != VX_OK) return s;
        }
    for (size_t c = 0; c < volume->channels; c++) {
        float *v = volume->data + c * n;
        const vx_normalisation *norm = &norms[c];
        switch (norm->kind) {
        case VX_NORM_NONE:
            break;
        case VX_NORM_ZSCORE:
            zscore(v, NULL, n);
            break;
        case VX_NORM_ZSCORE_NONZERO:
            zscore(v, mask, n);
            break;
        case VX_NORM_CT:
            for (size_t i = 0; i < n; i++) v[i] = (float)fmin(fmax(v[i], norm->low), norm->high);
            shift_scale(v, NULL, n, norm->mean, fmax(norm->sd, SMALLEST_SD));
            break;
        case VX_NORM_RESCALE01: {
            stats s = measure(v, NULL, n);
            shift_scale(v, NULL, n, s.min, fmax((double)s.max - s.min, SMALLEST_SD));
            break;
        }
        }
    }
    vx_free(mask);
    return VX_OK;
}
