/* From a volume as stored to the network's grid, remembering the way back. nnU-Net's order: crop,
 * (turn,) normalise, resample. */
#ifndef VX_INFER_PREPARE_H
#define VX_INFER_PREPARE_H

#include "base/log.h"
#include "infer/finalise.h"
#include "model/recipe.h"
#include "volume/crop.h"
#include "volume/orientation.h"

/* Everything that geometry alone decides. Triples named zyx are in tensor order. */
typedef struct vx_route {
    vx_box box;          /* of the stored grid (x, y, z): what is kept */
    vx_reorient turn;    /* stored axes -> tensor axes (x, y, z) */
    size_t crop_zyx[3];  /* the box along the tensor's axes */
    size_t grid_zyx[3];  /* the same box at the model's spacing */
    int image_axis;      /* separate axis (x, y, z) of the image's resampling, or -1 */
    int logits_order[3]; /* interpolation order of the logits along z, y, x */
} vx_route;

/* box: the part of the volume to be segmented, or NULL for all of it. VX_ERR_INPUT for a volume
 * whose grid at the model's spacing cannot be counted. */
vx_status vx_route_plan(const vx_recipe *recipe, const vx_geometry *geo, const vx_box *box,
                        vx_route *out, vx_error *err);
/* Elements of a mask on the stored grid where the cropped, turned grid's labels belong. */
vx_label_target vx_route_target(const vx_route *route, vx_mask *mask);

/* VX_ERR_MODEL when the volume's extents lie plainly (by more than a quarter) outside the field of
 * view that the recipe names, unless force; a warning when they lie outside it at all. */
vx_status vx_check_field_of_view(const vx_recipe *recipe, const vx_geometry *geo, bool force,
                                 const vx_log *log, vx_error *err);

/* The network's input [channel][z][y][x] on route's grid. volume is not changed, unless consume:
 * then its voxels are worked on in place and freed as soon as they are not needed; volume->data is
 * NULL afterwards, also after a failure, and geometry and source stay. */
vx_status vx_prepare(const vx_recipe *recipe, vx_volume *volume, bool consume, vx_pool *pool,
                     vx_route *route, vx_volume **out, vx_error *err);
/* For a route without a crop. *peak: the most bytes that are held during vx_prepare, *held: what is
 * left after it; both with the volume given, without a few rows of scratch. False on overflow. */
bool vx_prepare_bytes(const vx_recipe *recipe, const vx_route *route, bool consume, size_t *peak,
                      size_t *held);

#endif
