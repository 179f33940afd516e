/* What the files of src/api share. Nothing here is public. */
#ifndef VX_API_INTERNAL_H
#define VX_API_INTERNAL_H

#include <stdbool.h>

#include <cjson/cJSON.h>

#include "api/voxmamba.h"
#include "base/log.h"
#include "base/status.h"
#include "infer/session.h"
#include "io/io.h"
#include "model/model.h"

struct vxm_model {
    vx_model *model;
    char *path; /* as the caller gave it */
};

struct vxm_session {
    const vxm_model *model;
    vx_pool *pool;
    vx_session *session;
    const vx_backend *backend;
    int ordinal; /* which of the backend's devices */
    vx_precision precision;
    bool may_repeat; /* auto chose less than fp32: a case that overflows is done again in fp32 */
    vx_session **others; /* on more devices of this kind, which share a case's tiles */
    size_t other_count;
    char left_out[sizeof((vxm_error *)0)->text +
                  64]; /* why a device is not among them; "" otherwise */
    vx_session *exact; /* for that: the same in fp32; NULL until a case needs it */
    unsigned threads;
    bool tta;
    double step;
    uint64_t memory_limit; /* bytes; 0: ask the machine */
    char device[160];      /* one line about the processor */
    /* Why auto is the CPU although a driver seems to be there; "" otherwise. */
    char left_aside[sizeof((vxm_error *)0)->text];
    bool device_said; /* by vx_say_device */
};

/* ---- Errors ---- */

/* Copies an internal error; file: the path as typed, or NULL. Returns status. */
vxm_status vx_api_error(vxm_error *error, const char *file, vx_status status, const vx_error *err);
vxm_status vx_api_fail(vxm_error *error, const char *file, vxm_status status, const char *format,
                       ...) __attribute__((format(printf, 4, 5)));
vxm_status vx_api_no_memory(vxm_error *error);

/* ---- Options: into a struct of this library's size, whatever the caller's is ---- */

/* given NULL: the defaults that are already in known. VXM_ERR_USAGE unless given's struct_size was
 * set by an init function. */
vxm_status vx_api_options(void *known, size_t known_size, const void *given, vxm_error *error);
/* The other way: what the library made (known) into the caller's struct, of which only as many
 * bytes are written as its struct_size says. VXM_ERR_USAGE unless an init function set that. */
vxm_status vx_api_give(void *given, const void *known, size_t known_size, vxm_error *error);

/* ---- Texts ---- */

/* printf into new memory; NULL without memory. Free with vx_free. */
char *vx_format_text(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The last part of a path; points into it. */
const char *vx_base_name(const char *path);
/* Length of the folder part with its slash: 0 for a bare name. */
size_t vx_folder_length(const char *path);

/* ---- JSON ---- */

/* A text of unknown origin (a path): bytes that are no UTF-8 become U+FFFD. key NULL: into an
 * array.
 */
void vx_json_text(cJSON *object, const char *key, const char *text);
/* Finite: a number; NaN: null; infinite: "inf" or "-inf" (JSON has no such numbers). */
void vx_json_number(cJSON *object, const char *key, double value);
void vx_json_size(cJSON *object, const char *key, uint64_t value);
cJSON *vx_json_sizes(const size_t *values, int count);
cJSON *vx_json_doubles(const double *values, int count);
cJSON *vx_json_affine(const double affine[4][4]);
cJSON *vx_json_plan(const vxm_plan *plan);
/* dims, spacing, affine, orientation */
void vx_json_geometry(cJSON *object, const vx_geometry *geo);
/* Prints and frees root. */
vxm_status vx_json_print(cJSON *root, char **json, vxm_error *error);
/* Prints and frees root into a file, atomically. */
vxm_status vx_json_write(cJSON *root, const char *path, bool replace, vxm_error *error);

/* ---- Hashes and memory ---- */

/* SHA-256 of a file as 64 hex digits. cancel: asked now and then (may be NULL). */
vx_status vx_sha256_file(const char *path, const vx_log *log, char hex[65], vx_error *err);
/* One hash for everything that reading path with these options takes: of the files that vx_io_files
 * lists, joined in its order. Errors are the reader's. options may be NULL; its log is asked for
 * cancelling. */
vx_status vx_sha256_input(const char *path, const vx_read_options *options, char hex[65],
                          vx_error *err);
/* One hash of several, in order: SHA-256 of their hex digits joined. One alone stays itself. */
void vx_sha256_join(const char (*parts)[65], size_t count, char hex[65]);
void vx_sha256_text(const char *text, char hex[65]);

/* Largest resident memory of this process so far, bytes. */
uint64_t vx_peak_memory(void);
/* Resident memory of this process now, bytes; 0 when unknown. */
uint64_t vx_current_memory(void);
/* What this process may still take: free memory and swap, cgroup limit; UINT64_MAX when unknown. */
uint64_t vx_available_memory(void);

/* ---- Sessions ---- */

/* Where the session computes, as an INFO line; and as a warning that auto left a GPU aside. Once a
 * session. */
void vx_say_device(vxm_session *session, const vxm_callbacks *callbacks);
/* What session's inner one is made of. host_free: of the host's memory, 0: ask. */
vx_session_options vx_inner_options(const vxm_session *session, vx_precision precision,
                                    uint64_t host_free);
/* session->exact, made by the first call. */
vxm_status vx_exact_session(vxm_session *session, vx_session **out, vxm_error *error);

/* ---- Shared steps ---- */

/* What a case leaves, as far as its plan depends on it; {0}: a mask in memory. */
typedef struct vx_plan_outputs {
    bool probabilities, split;
    vx_format format; /* of the masks */
    size_t labels;    /* that a mask may hold */
} vx_plan_outputs;

/* The plan that segmenting such a volume would take alone: the smaller one where the session has a
 * limit that asks for it (the smaller one too where that does not fit either). beside: bytes that
 * reading it takes beside it; 0: it is in memory. */
vxm_status vx_plan_volume(const vxm_session *session, const vx_geometry *geo, uint64_t beside,
                          const vx_plan_outputs *outputs, vxm_plan *out, vxm_error *error);
#define VX_NEEDS_DICOM "--format dcmseg needs DICOM input (use nii.gz for this one)"
/* One line on what may be refused once the mask is known; NULL: nothing. */
const char *vx_plan_caution(const vx_geometry *geo, const vx_plan_outputs *outputs);
/* VXM_ERR_RESOURCE with the two numbers. limited: the user set the limit. */
vxm_status vx_memory_short(const char *file, uint64_t need, uint64_t room, bool limited,
                           vxm_error *error);
/* The volume of a model's one patch at its own spacing: for plans without a volume. */
vx_geometry vx_patch_geometry(const vx_recipe *recipe);
/* The recipe's JSON text as stored. */
cJSON *vx_recipe_json(const vx_model *model);

#endif
