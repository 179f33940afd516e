/* Axis codes and exact re-orientation (permutation and reversal of axes, never interpolation). */
#ifndef VX_VOLUME_ORIENTATION_H
#define VX_VOLUME_ORIENTATION_H

#include <stdbool.h>

#include "base/threads.h"
#include "volume/volume.h"

/* Output axis i runs along input axis axis[i], reversed if flip[i]. */
typedef struct vx_reorient {
    int axis[3];
    bool flip[3];
} vx_reorient;

/* Codes of the x, y, z axes ("RAS": x runs to the patient's right). Each axis gets the world axis
 * that it is closest to, by nibabel's io_orientation (so that oblique and sheared grids agree with
 * it). code: 4 chars. */
void vx_orientation_codes(const vx_geometry *geo, char code[4]);
/* VX_ERR_USAGE unless code names each of L/R, A/P, S/I once (any order). */
vx_status vx_reorient_to(const vx_geometry *geo, const char *code, vx_reorient *out, vx_error *err);
vx_reorient vx_reorient_inverse(vx_reorient r);
bool vx_reorient_is_identity(vx_reorient r);
/* The same voxels seen along the new axes: world positions do not change. */
vx_geometry vx_reorient_geometry(const vx_geometry *geo, vx_reorient r);
/* New volume or mask; source is shared by reference. */
/* pool may be NULL. */
vx_status vx_reorient_volume(const vx_volume *in, vx_reorient r, vx_pool *pool, vx_volume **out,
                             vx_error *err);
vx_status vx_reorient_mask(const vx_mask *in, vx_reorient r, vx_mask **out, vx_error *err);

#endif
