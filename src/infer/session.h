/* One model on one device: compiled plan and arena, and tiled prediction of a whole volume with
 * them. */
#ifndef VX_INFER_SESSION_H
#define VX_INFER_SESSION_H

#include "backend/backend.h"
#include "base/log.h"
#include "model/model.h"
#include "volume/volume.h"

typedef struct vx_session vx_session;

typedef struct vx_session_options {
    const vx_backend *backend;
    int ordinal;
    vx_pool *pool; /* borrowed */
    vx_precision precision;
    bool tta;    /* mirror over the recipe's axes and average */
    double step; /* tile step as a share of the patch, (0, 1]; nnU-Net's default 0.5 */
    size_t memory_budget;
} vx_session_options;

/* model is borrowed and must outlive the session. VX_ERR_USAGE for a step outside (0, 1];
 * VX_ERR_RESOURCE when device, precision or memory are not there. A session is used by one thread
 * at a time. */
vx_status vx_session_create(const vx_model *model, const vx_session_options *options,
                            vx_session **out, vx_error *err);
void vx_session_free(vx_session *session);
/* One line for people: the device. */
void vx_session_describe(const vx_session *session, char *text, size_t bytes);

/* What a prediction is asked for that changes its memory. */
typedef struct vx_predict_wants {
    bool probabilities;
    bool consume; /* see vx_predict_options */
    size_t others;
} vx_predict_wants;

typedef struct vx_predict_plan {
    size_t tiles;
    size_t weight_bytes;      /* packed weights: held since the session was made */
    size_t network_bytes;     /* arena + packed weights */
    size_t accumulator_bytes; /* one tile in and out, logits that are not finished, resampling rows,
                                 slices of probabilities; labels on their way from a device */
    size_t volume_bytes;      /* the most that the volume given and its copies (cropped, turned, at
                                 the model's spacing, the resampler's between), or those that are left
                                 and the mask, take */
    size_t mask_bytes;        /* the mask alone */
    size_t peak_bytes;        /* all that is held at the highest, the volume given and the weights
                                 among it; about a slice a worker of scratch is not counted */
    double flops;             /* of all tiles and mirrored passes */
    /* A device with memory of its own, else 0. All other bytes are the host's. */
    size_t device_network_bytes;
    size_t device_volume_bytes; /* volume and logits; 0: they stay with the host, because the device
                                   has too little free now, or for probabilities */
    size_t device_room_bytes;   /* what there is for both: the network's, and what is free */
} vx_predict_plan;

typedef struct vx_predict_record {
    double preprocess, network, accumulate, finalise; /* seconds */
    size_t device_bytes; /* held on a device with memory of its own, the network's among them */
} vx_predict_record;

/* Receives finished class probabilities (softmax; sigmoid for regions) of one z slice of the volume
 * *as stored*, in ascending z: data[class][y][x]. Only when asked for. A status other than VX_OK
 * stops the prediction and is returned. See infer/probabilities.h for volumes that the recipe
 * turns: they need classes x volume x 4 bytes of temporary disk space. */
typedef vx_status (*vx_slice_sink)(void *user_data, size_t z, const float *data, vx_error *err);

typedef struct vx_predict_options {
    const vx_log *log;
    bool force;         /* ignore the field-of-view check (warn) */
    bool consume;       /* the volume's voxels may be changed and freed: its data is NULL afterwards
                           (also after a failure past the checks of the input) */
    vx_slice_sink sink; /* NULL: masks only */
    void *sink_data;
    /* More sessions like this one, on other devices of the same kind: they share the tiles, where
     * devices have memory of their own. Nobody else uses them meanwhile. Never changes a mask. */
    vx_session *const *others;
    size_t other_count;
    bool *overflow; /* may be NULL; set when the prediction ended at a NaN or infinite logit */
} vx_predict_options;

/* Bytes and work for a volume of this geometry, before anything is allocated. What cropping to
 * non-zero will save is not known yet: the numbers are those of the whole volume. wants NULL: a
 * mask alone, from a volume that stays. */
vx_status vx_session_plan(const vx_session *session, const vx_geometry *geo,
                          const vx_predict_wants *wants, vx_predict_plan *out, vx_error *err);

/* The whole way: orient, crop, normalise, resample, tiles, sliding accumulation, resample + argmax,
 * undo. mask is on volume's grid with volume's source; values are the recipe's label values. The
 * recipe's postprocessing is the caller's to apply (infer/postprocess.h). volume is not changed,
 * unless options->consume.
 * VX_ERR_INPUT: channel count, NaN voxels, no contrast in any channel (one of several: a warning);
 * VX_ERR_MODEL: field of view, NaN or infinity in the logits; VX_ERR_CANCELLED. record may be NULL;
 * options too. */
vx_status vx_session_predict(vx_session *session, vx_volume *volume,
                             const vx_predict_options *options, vx_mask **mask,
                             vx_predict_record *record, vx_error *err);

#endif
