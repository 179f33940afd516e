/* A file that appears whole or not at all: written under a temporary name (none at all where the
 * file system has O_TMPFILE), flushed to disk, then given its final name. */
#ifndef VX_BASE_OUT_FILE_H
#define VX_BASE_OUT_FILE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/status.h"

typedef struct vx_out_file vx_out_file;

/* Temporary names are ".NAME.voxmamba-HOST-PID-RANDOM.tmp" in the target's folder: NAME the
 * target's file name, HOST a hash of the host's name. */
#define VX_TMP_MARK ".voxmamba-"

/* All errors are VX_ERR_OUTPUT with errno's text. The final name is not touched before commit. */
vx_status vx_out_open(const char *path, vx_out_file **out, vx_error *err);
/* Its owner alone will be able to read and to write it. */
void vx_out_private(vx_out_file *file);
vx_status vx_out_write(vx_out_file *file, const void *data, size_t bytes, vx_error *err);
/* fsync and rename. replace false: an existing file at the final name is an error. Frees the
 * handle. */
vx_status vx_out_commit(vx_out_file *file, bool replace, vx_error *err);
/* Drops what was written and frees the handle; NULL is fine. */
void vx_out_discard(vx_out_file *file);

/* For libraries that write by name: a unique temporary name beside path (caller frees with
 * vx_free), to be finished with vx_out_adopt (fsync + rename) or removed by the caller. suffix
 * keeps e.g. ".nrrd" last. */
char *vx_out_temp_name(const char *path, const char *suffix);
vx_status vx_out_adopt(const char *temp, const char *path, bool replace, vx_error *err);

/* Removes temporaries in folder whose process is gone; those of other hosts after a day. Errors are
 * ignored. */
void vx_out_sweep(const char *folder);

#endif
