/* A file that appears whole or not at all: written without a name (O_TMPFILE; under a temporary one
 * where the file system does not have that), flushed to disk, then given its final name. A nameless
 * file takes a name that is free at once; only where it replaces another it has a temporary name
 * between two system calls. So a killed process leaves nothing on such file systems, and on others
 * a temporary, which the next run sweeps. */
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
/* fsync and the final name. replace false: an existing file of that name is an error. Frees the
 * handle. */
vx_status vx_out_commit(vx_out_file *file, bool replace, vx_error *err);
/* The end of what a writer does: with keep NULL vx_out_commit; else fsync, and the file goes to
 * *keep without its final name, for the caller to commit together with others, or to discard. */
vx_status vx_out_finish(vx_out_file *file, bool replace, vx_out_file **keep, vx_error *err);
/* A name under which what was written can be read until the commit. */
enum { VX_OUT_READING_NAME = 4224 };
void vx_out_reading_name(const vx_out_file *file, char name[VX_OUT_READING_NAME]);
/* Gives a finished file its temporary name and closes it: a process has a limit of open files. It
 * can still be committed, discarded and read. */
vx_status vx_out_park(vx_out_file *file, vx_error *err);
/* Drops what was written and frees the handle; NULL is fine. */
void vx_out_discard(vx_out_file *file);

/* Removes temporaries in folder whose process is gone; those of other hosts after a day. Errors are
 * ignored. */
void vx_out_sweep(const char *folder);

#endif
