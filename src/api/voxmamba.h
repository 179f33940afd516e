/* VoxMamba: segments 3D medical volumes with 3D-scan Mamba U-Nets. The only public header.
 *
 *     vxm_error error;
 *     vxm_model *model = NULL;
 *     vxm_session *session = NULL;
 *     vxm_result *result = NULL;
 *     vxm_status s = vxm_model_open("hippocampus.safetensors", &model, &error);
 *     if (s == VXM_OK) s = vxm_session_create(model, NULL, &session, &error);
 *     if (s == VXM_OK) s = vxm_segment_file(session, "scan.nii.gz", "mask.nii.gz", NULL, &result,
 *                                           &error);
 *     if (s != VXM_OK) fprintf(stderr, "%s: %s\n", error.file, error.text);
 *     else printf("%s: %.2f ml\n", result->labels[0].name, result->labels[0].ml);
 *     vxm_result_free(result);
 *     vxm_session_free(session);
 *     vxm_model_close(model);
 *
 * Rules that hold everywhere
 * - Axes: a volume is indexed x, y, z and x is fastest in memory. The affine maps the *centre* of
 *   voxel (x, y, z) to RAS millimetres: rows of 4, row-major, last row 0 0 0 1.
 * - Paths and texts are UTF-8, NUL-terminated. Arguments are borrowed for the call only.
 * - Whatever a create or open gives is released by the free or close of its name; texts given as
 *   char ** by vxm_free. Every release takes NULL. On failure out-parameters are set to NULL.
 * - Options structs are made by their init function (size: sizeof *options), which sets struct_size
 * and the defaults; NULL means the defaults. A library newer than the program reads only the
 * members it was given. A plan that the caller holds is made the same way, and only the members
 * that it has are filled. Results, cases and their plans are made by the library only, and only
 * grow at their end. vxm_error, vxm_callbacks, vxm_progress and vxm_image keep their layout.
 * - A function that can fail returns vxm_status and fills *error (which may be NULL).
 * - Threads: an object is used by one thread at a time. A model may be shared by sessions of
 *   several threads. The library keeps no global state, installs no signal handlers, prints
 *   nothing, never exits, and never touches a network.
 */
#ifndef VOXMAMBA_H
#define VOXMAMBA_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__) && !defined(_WIN32)
#define VXM_API __attribute__((visibility("default")))
#else
#define VXM_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Status ---------------------------------------------------------------------------------- */

/* Stable numbers; 0 to 6 are the exit codes of the command line. */
typedef enum vxm_status {
    VXM_OK = 0,
    VXM_ERR_USAGE = 1,    /* asked for something that does not exist or contradicts itself */
    VXM_ERR_INPUT = 2,    /* a volume is unreadable, invalid or has the wrong channels */
    VXM_ERR_MODEL = 3,    /* a model is unreadable, or volume and model do not belong together */
    VXM_ERR_OUTPUT = 4,   /* an output exists or could not be written */
    VXM_ERR_RESOURCE = 5, /* device or memory */
    VXM_ERR_BATCH = 6,    /* some cases of a batch failed, the others are written */
    VXM_ERR_CANCELLED = 7 /* a callback asked to stop */
} vxm_status;

/* What went wrong. text is one line, "what is wrong (what to do)", and never holds a path: the
 * path, as the caller gave it, is in file ("" when the error is about no file). */
typedef struct vxm_error {
    vxm_status code;
    char text[512];
    char file[4096];
} vxm_error;

/* A short English name of a code ("invalid input"); never NULL. */
VXM_API const char *vxm_status_text(vxm_status code);
/* "0.1.0", and the commit it was built from ("" when unknown). */
VXM_API const char *vxm_version(void);
VXM_API const char *vxm_commit(void);
/* Frees a text that the library returned. */
VXM_API void vxm_free(void *text);
/* Replaces what looks like a DICOM UID, a path, a file's name or a quotation from a file by '*', in
 * place: for messages that go into logs. */
VXM_API void vxm_redact(char *text);
/* What this build can do here: {"version", "commit", "read": [formats], "write": [formats],
 * "devices": ["cpu", "cuda:0", ...], "no_cuda": "why there is no CUDA device, in one line" (left
 * out where there is one), "device": "one line about the processor", "threads": default}. Loads the
 * CUDA module if there is one. */
VXM_API vxm_status vxm_build_json(char **json, vxm_error *error);

/* ---- Callbacks ------------------------------------------------------------------------------- */

typedef enum vxm_log_level {
    VXM_LOG_DEBUG = 0,
    VXM_LOG_INFO = 1,
    VXM_LOG_WARNING = 2
} vxm_log_level;

typedef struct vxm_progress {
    size_t case_number; /* from 1, in the order of the batch; 1 for a single case */
    size_t case_count;  /* of this run */
    size_t cases_done;  /* finished so far, whatever the outcome */
    const char *stage;  /* "read", "network", "write", ... */
    double fraction;    /* of this case, 0..1 */
} vxm_progress;

/* Each member may be NULL. They are called from the thread that called the library or from its
 * workers, never two at once. */
typedef struct vxm_callbacks {
    void *user_data;
    /* One line, without path or name; case_number 0: about no case. */
    void (*log)(void *user_data, vxm_log_level level, size_t case_number, const char *text);
    /* Non-zero: stop. The call returns VXM_ERR_CANCELLED soon and leaves nothing half-written. */
    int (*progress)(void *user_data, const vxm_progress *progress);
} vxm_callbacks;

/* ---- Models ---------------------------------------------------------------------------------- */

typedef struct vxm_model vxm_model;

/* Maps the file and checks all of it; nothing in it is executed. VXM_ERR_MODEL. */
VXM_API vxm_status vxm_model_open(const char *path, vxm_model **out, vxm_error *error);
VXM_API void vxm_model_close(vxm_model *model);
/* The name in the recipe; lives as long as the model. */
VXM_API const char *vxm_model_name(const vxm_model *model);
/* {"path", "sha256", "parameters", "recipe": {...}}. */
VXM_API vxm_status vxm_model_json(const vxm_model *model, char **json, vxm_error *error);
/* folders: searched in this order for *.safetensors, separated by ':'; missing ones are skipped.
 * Gives [{"name", "path", "version", "licence", "description", "modality", "sha256", "parameters",
 * "channels": [names], "labels": [{"value", "name", "rgb": [0..255 x 3], and where the recipe has
 * them "category", "type", "modifier": {"scheme", "code", "meaning"}}]}], or {"path", "error"} for
 * a broken file. */
VXM_API vxm_status vxm_models_json(const char *folders, char **json, vxm_error *error);

/* ---- Sessions: a model on a device ----------------------------------------------------------- */

typedef struct vxm_session vxm_session;

typedef enum vxm_precision {
    VXM_PRECISION_AUTO = 0, /* fp32 on the CPU; fp16 on CUDA, and a case with an infinite or NaN
                               logit is computed again in fp32, with a warning */
    VXM_PRECISION_FP32 = 1,
    VXM_PRECISION_FP16 = 2, /* not on the CPU */
    VXM_PRECISION_BF16 = 3  /* on CPUs with AVX512_BF16; statistics, exponentials and the scan's
                               state stay float */
} vxm_precision;

typedef struct vxm_session_options {
    size_t struct_size;
    const char *device; /* "auto" (default): "cuda" where it can be used, else "cpu", and a warning
                           if a driver is there but something is missing. "cpu", "cuda" (=
                           "cuda:0"), "cuda:N", "cuda:all": for a batch, all of them (more devices
                           than cases share their tiles); a session has the first */
    vxm_precision precision;
    unsigned threads;      /* 0 (default): what affinity and cgroup allow. Never changes a mask. */
    int tta;               /* 1: average over mirrored tiles (the recipe's axes); default 0 */
    double step;           /* tile step as a share of the patch, 0 < step <= 1; default 0.5 */
    uint64_t memory_limit; /* resident bytes of the process that segmenting may lead to; where a
                              plan needs more, a smaller one is taken if there is one (the image is
                              read again for its statistics; batches run fewer cases at a time),
                              else VXM_ERR_RESOURCE. 0 (default): what the machine has free. Never
                              changes a mask. */
} vxm_session_options;

VXM_API void vxm_session_options_init(vxm_session_options *options, size_t size);
/* The model must outlive the session. VXM_ERR_USAGE, VXM_ERR_MODEL, VXM_ERR_RESOURCE (a device or
 * precision that is not there, memory). */
VXM_API vxm_status vxm_session_create(const vxm_model *model, const vxm_session_options *options,
                                      vxm_session **out, vxm_error *error);
VXM_API void vxm_session_free(vxm_session *session);

/* What a volume will take, before anything of that size is allocated. */
typedef struct vxm_plan {
    size_t struct_size;
    uint64_t tiles;
    uint64_t network_bytes;     /* activations, logits of one tile, and weights */
    uint64_t accumulator_bytes; /* logits that are not finished, one tile's input */
    uint64_t volume_bytes;      /* the most that the image on both grids and the mask take */
    uint64_t peak_bytes;    /* resident memory of the process at its highest; below the sum where
                               the parts are not highest at one time */
    double flops;           /* multiply and add count as two */
    uint64_t program_bytes; /* resident already: the program, its libraries, the caller's own */
    /* A GPU's own memory, else 0; all of the above is the host's. */
    uint64_t device_network_bytes;
    uint64_t device_volume_bytes; /* image and logits; 0: they stay in the host's memory, because
                                     the GPU has too little free, or for probabilities */
    uint64_t device_room_bytes;   /* what the GPU has for both now */
    /* DICOM SEG, else 0: the most that its files may have. The helper process that makes their
     * headers is counted in volume_bytes and peak_bytes. */
    uint64_t output_bytes;
} vxm_plan;

VXM_API void vxm_plan_init(vxm_plan *plan, size_t size);
/* dims: voxels along x, y, z. affine: voxel centre -> RAS mm, row-major. out: as vxm_plan_init left
 * it, else VXM_ERR_USAGE. */
VXM_API vxm_status vxm_session_plan(const vxm_session *session, const size_t dims[3],
                                    const double affine[16], vxm_plan *out, vxm_error *error);

/* ---- Segmenting one case --------------------------------------------------------------------- */

typedef struct vxm_segment_options {
    size_t struct_size;
    /* "nii.gz", "nii", "nrrd", "seg.nrrd", "mha", "dcmseg"; NULL: by the output's ending, else
     * "nii.gz". */
    const char *format;
    /* Lists of label names or values, separated by ','. */
    const char *labels;       /* keep these only; NULL: all */
    const char *keep_largest; /* keep their largest component only; NULL: as the recipe says; "":
                                 all labels */
    double remove_small_mm3;  /* remove components below this volume; < 0 (default): as the recipe
                                 says; 0: none */
    int split;                /* 1: one 0/1 file a label, CASE_LABEL.ext, instead of one mask */
    int probabilities;        /* 1: one float32 file a class too, CASE_prob_LABEL.ext */
    int preview;              /* 1: CASE.png too, three planes with the overlay */
    int overwrite;            /* 0 (default): an existing output is VXM_ERR_OUTPUT */
    int force;                /* 1: warn where the volume does not look like the model's training */
    int tolerate_geometry;    /* 1: resample uneven or tilted DICOM stacks, with a warning */
    const char *series; /* DICOM series UID or number, or either with /PART; NULL: the only one */
    int log_paths;      /* 1: reports may name files; default 0 */
    vxm_callbacks callbacks;
    int anonymous; /* 1: a DICOM SEG has nothing of its source's patient, study and files; other
                      formats never have */
    int sidecars;  /* 1 (default): CASE.json with hashes and options, and CASE.tsv where the format
                      holds no labels' names, beside the mask; 0: neither, so that no batch can
                      resume. What was asked for by name (split, probabilities, preview) is written
                      in both cases. */
} vxm_segment_options;

VXM_API void vxm_segment_options_init(vxm_segment_options *options, size_t size);

typedef struct vxm_label_result {
    unsigned value;
    const char *name;
    uint64_t voxels;
    double ml;
    double mean, sd; /* of the first channel's intensities inside; NaN without voxels */
} vxm_label_result;

typedef struct vxm_result {
    size_t label_count;
    const vxm_label_result *labels; /* in the recipe's order */
    size_t dims[3];                 /* x, y, z */
    double spacing[3];              /* mm along x, y, z */
    /* Seconds. */
    double hash_s, read_s, preprocess_s, network_s, accumulate_s, finalise_s, postprocess_s,
        write_s, total_s;
    uint64_t peak_bytes; /* the process's largest resident memory so far */
    size_t warning_count;
    const char *const *warnings; /* without paths */
    char input_sha256[65];       /* hex; "" from memory */
    char output_sha256[65];      /* of the (first) mask file; "" from memory */
    int skipped;                 /* 1: done before, confirmed by its sidecar */
    uint64_t device_bytes;       /* of a GPU's own memory: network, image, logits; else 0 */
} vxm_result;

VXM_API void vxm_result_free(vxm_result *result);

/* Reads a file or DICOM folder, writes the mask on the same grid (atomically: whole or not at all)
 * and its sidecars, unless options say otherwise. output: a file, or a folder for CASE.ext.
 * result may be NULL. */
VXM_API vxm_status vxm_segment_file(vxm_session *session, const char *input, const char *output,
                                    const vxm_segment_options *options, vxm_result **result,
                                    vxm_error *error);

/* A volume in memory. */
typedef struct vxm_image {
    size_t dims[3];      /* voxels along x, y, z */
    double affine[4][4]; /* voxel centre -> RAS mm */
    size_t channels;
    const float *voxels; /* [channel][z][y][x], finite, in the file's units (HU for CT) */
} vxm_image;

/* mask: the caller's memory, [z][y][x], dims of the image; bytes_per_voxel 1 (uint8_t) or 2
 * (uint16_t, native order; needed when a label's value is above 255). Of the options, those about
 * files do not apply. Nothing is written to disk. */
VXM_API vxm_status vxm_segment_image(vxm_session *session, const vxm_image *image,
                                     const vxm_segment_options *options, void *mask,
                                     unsigned bytes_per_voxel, vxm_result **result,
                                     vxm_error *error);

/* ---- Segmenting many cases ------------------------------------------------------------------- */

typedef struct vxm_batch vxm_batch;

typedef enum vxm_case_status {
    VXM_CASE_PLANNED = 0, /* not run yet, or a dry run */
    VXM_CASE_DONE = 1,
    VXM_CASE_SKIPPED = 2, /* done by an earlier run */
    VXM_CASE_FAILED = 3,
    VXM_CASE_CANCELLED = 4
} vxm_case_status;

/* Lives, with what it points to, until the batch is closed. */
typedef struct vxm_case {
    size_t number; /* from 1, over all cases found, in the order of their names */
    const char *name;
    const char *input;  /* the file or folder, as typed; the first channel's file */
    const char *output; /* of the mask (first label with split) */
    size_t channels;    /* files; 1 for a folder of DICOM */
    vxm_case_status status;
    const vxm_error *error;   /* when failed, else NULL */
    const vxm_result *result; /* when done, else NULL */
    const vxm_plan *plan;     /* when planned by a dry run, else NULL */
} vxm_case;

typedef struct vxm_batch_options {
    size_t struct_size;
    /* Files, DICOM folders, folders of cases (nnU-Net's CASE_0000 channel names included). */
    const char *const *inputs;
    size_t input_count;
    /* One case whose channels are given by name: "NAME=FILE"; then input_count is 0. */
    const char *const *channels;
    size_t channel_count;
    const char *output;      /* a file for one case, else a folder, which is created */
    const char *report_path; /* JSON of the run (docs/report.schema.json); NULL: none */
    const char *stats_path;  /* JSON: volume, mean and sd a label and case; NULL: none */
    unsigned shard, shards;  /* this run does cases shard, shard + shards, ...; 1 of 1 */
    unsigned jobs;           /* cases at a time, on each device; they share threads and memory;
                                default 1 */
    int resume;              /* 1: skip what the sidecar confirms as done, redo the rest */
    int folders;             /* 1: every subfolder of an input with DICOM is a case */
    int dry_run;             /* 1: check and plan only, write nothing */
    /* Called for every case that ends, in the order of the cases (log lines too come in that
     * order), never two at once. May be NULL. */
    void (*on_case)(void *user_data, const vxm_case *finished);
    void *user_data;
} vxm_batch_options;

VXM_API void vxm_batch_options_init(vxm_batch_options *options, size_t size);

/* Finds the cases and names their outputs; reads no voxel, writes nothing. Both options, and what
 * they point to, must live until vxm_batch_close. No case: VXM_ERR_INPUT; two cases of one name:
 * VXM_ERR_USAGE. */
VXM_API vxm_status vxm_batch_open(const vxm_batch_options *options,
                                  const vxm_segment_options *segment, vxm_batch **out,
                                  vxm_error *error);
VXM_API void vxm_batch_close(vxm_batch *batch);
/* Cases of this shard. */
VXM_API size_t vxm_batch_count(const vxm_batch *batch);
/* i from 0; NULL beyond the end. Lives until the batch is closed. */
VXM_API const vxm_case *vxm_batch_case(const vxm_batch *batch, size_t i);
/* Opens the model of that name or file. name NULL: the only one in the folders that fits the first
 * case's channels and extent that can be read; VXM_ERR_MODEL lists them when there is not exactly
 * one, and the first case's error says it when none can be read. batch may be NULL with a name. */
VXM_API vxm_status vxm_model_find(const char *name, const char *folders, const vxm_batch *batch,
                                  vxm_model **out, vxm_error *error);
/* Segments every case of the shard. A bad case does not stop the others: VXM_ERR_BATCH when any
 * failed (a batch of one case gives its own code). Writes report and statistics in every case. */
VXM_API vxm_status vxm_batch_run(vxm_batch *batch, const vxm_model *model,
                                 const vxm_session_options *session, vxm_error *error);
/* The report of what ran so far. */
VXM_API vxm_status vxm_batch_report_json(const vxm_batch *batch, char **json, vxm_error *error);

/* ---- Looking at files ------------------------------------------------------------------------ */

typedef struct vxm_info_options {
    size_t struct_size;
    const char *series;         /* DICOM series UID or number, or either with /PART; NULL: all */
    int anonymous;              /* 1: leave out what may name a patient */
    const vxm_session *session; /* adds "plan": what this volume takes; NULL: no plan */
    const char *format; /* of the masks that the plan is for, as in vxm_segment_options; NULL: any
                           but "dcmseg" */
} vxm_info_options;

VXM_API void vxm_info_options_init(vxm_info_options *options, size_t size);
/* Non-zero when path is a model file (by its first bytes). */
VXM_API int vxm_is_model(const char *path);
/* A volume's {"path", "format", "dims" [x,y,z], "spacing" [mm], "affine" (4 rows of 4),
 * "orientation" ("LPS"), "dtype", "channels"}; a folder's {"path", "series": [...]}; a model's
 * vxm_model_json. */
VXM_API vxm_status vxm_info_json(const char *path, const vxm_info_options *options, char **json,
                                 vxm_error *error);

/* ---- Agreement of masks ---------------------------------------------------------------------- */

typedef struct vxm_evaluate_options {
    size_t struct_size;
    const char *labels;  /* "1,2" or "anterior=1,posterior=2"; NULL: all that occur */
    double tolerance_mm; /* of the normalised surface Dice; default 1 */
    int overlap_only;    /* 1: no surface distances */
    vxm_callbacks callbacks;
    /* Called for each pair of a folder that could not be scored, with its file and reason, in place
     * of a warning through callbacks.log. May be NULL. */
    void (*on_error)(void *user_data, size_t case_number, const vxm_error *pair_error);
} vxm_evaluate_options;

VXM_API void vxm_evaluate_options_init(vxm_evaluate_options *options, size_t size);
/* Two files, or two folders whose files are paired by name. Gives the scores of every case and
 * label, and their mean, standard deviation and median (docs/cli.md). Undefined values (both masks
 * empty) are null, infinite distances the string "inf". With folders, VXM_ERR_BATCH and the JSON
 * when some pairs failed. */
VXM_API vxm_status vxm_evaluate(const char *prediction, const char *reference,
                                const vxm_evaluate_options *options, char **json, vxm_error *error);

#ifdef __cplusplus
}
#endif

#endif
