/* The voxels of a NIfTI file, streamed: from the file's bytes to scaled values. */
#ifndef VX_IO_NIFTI_VOXELS_H
#define VX_IO_NIFTI_VOXELS_H

#include "base/log.h"
#include "base/threads.h"
#include "io/byte_stream.h"
#include "io/nifti_header.h"

/* Receives values first .. first + n - 1. */
typedef vx_status (*vx_take_values)(void *ctx, size_t first, const double *values, size_t n,
                                    vx_error *err);

/* Both go from the first voxel, where stream stands, over all of them, then check the file's rest:
 * VX_ERR_INPUT for a truncated or damaged file, a warning for bytes behind the voxels. */
vx_status vx_nifti_stream(const vx_nifti_header *header, vx_byte_stream *stream, const vx_log *log,
                          vx_take_values take, void *ctx, vx_error *err);
/* To float. *bad: how many are NaN or infinite, *first_bad: the first of them. While the pool
 * (NULL: the calling thread) converts, one of its threads inflates on. */
vx_status vx_nifti_stream_image(const vx_nifti_header *header, vx_byte_stream *stream,
                                vx_pool *pool, const vx_log *log, float *data, size_t *bad,
                                size_t *first_bad, vx_error *err);

#endif
