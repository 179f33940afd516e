/* Status codes and the error record that every fallible function fills.
 *
 * The codes are the program's exit codes (docs/cli.md). A function that can fail returns vx_status
 * and takes a vx_error as its last parameter; on failure it writes one line there: what is wrong
 * and, in brackets, what to do. No message ends in a full stop or a newline. NULL is allowed for
 * vx_error.
 */
#ifndef VX_BASE_STATUS_H
#define VX_BASE_STATUS_H

typedef enum vx_status {
    VX_OK = 0,
    VX_ERR_USAGE = 1, /* the caller asked for something that does not exist or contradicts itself */
    VX_ERR_INPUT = 2, /* a volume is unreadable, invalid or does not fit the model */
    VX_ERR_MODEL = 3, /* a model is unreadable, or volume and model do not belong together */
    VX_ERR_OUTPUT = 4,   /* an output exists or could not be written */
    VX_ERR_RESOURCE = 5, /* device or memory */
    VX_ERR_BATCH = 6,    /* some cases of a batch failed, the others are written */
    VX_ERR_CANCELLED = 7 /* the progress callback asked to stop */
} vx_status;

typedef struct vx_error {
    vx_status code;
    char text[512];
} vx_error;

/* Fills *err (if not NULL) and returns code, so that "return vx_fail(err, ...)" is one line. */
vx_status vx_fail(vx_error *err, vx_status code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Puts "prefix: " before the text that is already in *err; returns err->code. */
vx_status vx_fail_prefix(vx_error *err, vx_status code, const char *prefix);

#endif
