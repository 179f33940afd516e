/* The input of a run's first case, hashed and read on a thread of its own while the device is being
 * opened.
 *
 * Nothing is heard of it before the case takes what was read: errors and lines come where they
 * would without it. A device that cannot be opened ends it unheard.
 */
#ifndef VX_API_READ_AHEAD_H
#define VX_API_READ_AHEAD_H

#include "api/pipeline.h"

typedef struct vx_read_ahead vx_read_ahead;

/* like: the case as it will run, without a session. What it points to is borrowed until
 * vx_read_ahead_free. threads: of the host's, for the reading. NULL where no thread or memory can
 * be had: then the case reads for itself. */
vx_read_ahead *vx_read_ahead_start(const vx_case_run *like, unsigned threads);
/* Returns when all is read, or could not be. Meanwhile, and not before, the caller's callback for
 * progress is asked, from the other thread. NULL is fine, also below. */
void vx_read_ahead_wait(vx_read_ahead *ahead);
/* Ends it, what it reads is let go. */
void vx_read_ahead_free(vx_read_ahead *ahead);

/* After vx_read_ahead_wait: bytes of the image that is there, and seconds that hashing and reading
 * took. */
uint64_t vx_read_ahead_bytes(const vx_read_ahead *ahead);
double vx_read_ahead_seconds(const vx_read_ahead *ahead);

/* In place of vx_hash_inputs and then of vx_read_inputs, after vx_read_ahead_wait; run->result's
 * times get what they took. *out NULL with VXM_OK: there was no room for the image; the case reads
 * for itself, and says what its plan needs. */
vxm_status vx_read_ahead_hash(vx_read_ahead *ahead, vx_case_run *run, vxm_error *error);
vxm_status vx_read_ahead_image(vx_read_ahead *ahead, vx_case_run *run, vx_volume **out,
                               vxm_error *error);

#endif
