/* Exact Euclidean distance transform on an anisotropic grid. */
#ifndef VX_METRICS_DISTANCE_TRANSFORM_H
#define VX_METRICS_DISTANCE_TRANSFORM_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

/* squared[i] = squared distance in mm from point i to the nearest point with set != 0; INFINITY
 * when there is none. dims and spacing: x, y, z with x fastest. Felzenszwalb & Huttenlocher 2012
 * (lower envelopes, axis by axis), in double. VX_ERR_RESOURCE without memory. */
vx_status vx_distance_transform(const uint8_t *set, const size_t dims[3], const double spacing[3],
                                double *squared, vx_error *err);

#endif
