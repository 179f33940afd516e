/* Clean-up of a finished mask, in place. Components are 26-connected (scipy's
 * generate_binary_structure(3, 3)). */
#ifndef VX_INFER_POSTPROCESS_H
#define VX_INFER_POSTPROCESS_H

#include "volume/volume.h"

/* Keeps the largest component of each listed label (each on its own); ties: the one met first in
 * memory order. */
vx_status vx_keep_largest(vx_mask *mask, const unsigned *labels, size_t count, vx_error *err);
/* Removes components of every label smaller than mm3. */
vx_status vx_remove_small(vx_mask *mask, double mm3, vx_error *err);

#endif
