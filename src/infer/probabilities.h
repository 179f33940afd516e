/* Hands class probabilities to a sink in ascending z of the volume as stored.
 *
 * They come slice by slice across the outer axis of the frontier (infer/frontier.h): tensor z, or
 * y. Where that is the stored z, ascending (a recipe that takes volumes "as stored", and the outer
 * axis is z), each slice is handed on at once. Elsewhere slices are first written to an unnamed
 * temporary file (classes x cropped volume x 4 bytes on disk, in $TMPDIR, else /var/tmp, else /tmp)
 * and handed out at the end: memory stays at a few slices in every case.
 *
 * Outside the crop the background (class 0) has probability 1; regions have 0 (as nnU-Net does).
 */
#ifndef VX_INFER_PROBABILITIES_H
#define VX_INFER_PROBABILITIES_H

#include "infer/prepare.h"
#include "infer/session.h"

typedef struct vx_probabilities vx_probabilities;

/* stored: dims x, y, z of the volume. across: the tensor axis (0 z, 1 y) that slices lie across.
 * VX_ERR_OUTPUT when the temporary file cannot be made. */
vx_status vx_probabilities_create(const size_t stored[3], const vx_route *route, int across,
                                  size_t classes, bool regions, vx_slice_sink sink, void *sink_data,
                                  vx_probabilities **out, vx_error *err);
void vx_probabilities_free(vx_probabilities *p); /* NULL is fine */
/* Room for one slice of the cropped, turned grid: to be filled, then put. */
vx_probability_slice vx_probabilities_buffer(vx_probabilities *p);
/* The buffer holds that slice (ascending from 0). */
vx_status vx_probabilities_put(vx_probabilities *p, size_t slice, vx_error *err);
/* All slices were put: hands out what is left. */
vx_status vx_probabilities_finish(vx_probabilities *p, vx_error *err);
/* Bytes of memory of vx_probabilities_create; false on overflow. */
bool vx_probabilities_bytes(const size_t stored[3], const vx_route *route, int across,
                            size_t classes, size_t *bytes);

#endif
