/* Which prediction belongs to which reference. */
#ifndef VX_API_PAIRS_H
#define VX_API_PAIRS_H

#include "api/internal.h"

typedef struct vx_pair {
    char *name; /* file name without its ending */
    char *prediction, *reference;
} vx_pair;

typedef struct vx_pairs {
    size_t count;
    vx_pair *pairs; /* ascending names */
    size_t lone_predictions, lone_references;
} vx_pairs;

/* Two files, or two folders whose files have equal names but for their endings. VXM_ERR_INPUT
 * without any pair, VXM_ERR_USAGE for a file and a folder. */
vxm_status vx_find_pairs(const char *prediction, const char *reference, vx_pairs *out,
                         vxm_error *error);
void vx_pairs_free(vx_pairs *pairs);

#endif
