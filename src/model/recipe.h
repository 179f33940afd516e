/* The recipe: everything but the weights that a mask depends on (models/FORMAT.md).
 * Spatial triples are in tensor order z, y, x here, as in the file. */
#ifndef VX_MODEL_RECIPE_H
#define VX_MODEL_RECIPE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/status.h"
#include "volume/intensity.h"
#include "volume/labels.h"

#define VX_MAX_STAGES   8
#define VX_MAX_CLASSES  1024
#define VX_MAX_CHANNELS 64

typedef enum vx_shell {
    VX_SHELL_RESIDUAL_ENCODER,
    VX_SHELL_PLAIN,
    VX_SHELL_RESIDUAL_UNET
} vx_shell;

typedef enum vx_mamba_family {
    VX_MAMBA_NONE,
    VX_MAMBA_SEGMAMBA_SKIP,
    VX_MAMBA_PAN_SEGMAMBA,
    VX_MAMBA_SEGMAMBA,
    VX_MAMBA_MULTI_SEGMAMBA,
    VX_MAMBA_UMAMBA_BOT /* at the bottleneck only */
} vx_mamba_family;

typedef struct vx_network {
    vx_shell shell;
    size_t in_channels, classes;
    size_t stages;
    size_t features[VX_MAX_STAGES];
    size_t kernels[VX_MAX_STAGES][3]; /* z, y, x */
    size_t strides[VX_MAX_STAGES][3]; /* z, y, x */
    size_t encoder_blocks[VX_MAX_STAGES];
    size_t decoder_blocks[VX_MAX_STAGES]; /* stages - 1 */
    bool conv_bias;
    vx_mamba_family family;
    size_t d_state_max, d_conv, expand;
} vx_network;

typedef struct vx_channel {
    char name[64];
    vx_normalisation normalisation;
} vx_channel;

typedef struct vx_recipe {
    char name[64], version[32], licence[64], description[256], modality[16];
    char *provenance; /* JSON text, may be NULL */
    bool has_field_of_view;
    double fov_min[3], fov_max[3]; /* mm; z, y, x */
    size_t channel_count;
    vx_channel *channels;
    vx_label_table labels;
    bool regions; /* labels have members: class k is the k-th label's own sigmoid map, on where
                     it exceeds 0.5; later labels overwrite */
    char orientation[4]; /* axis codes of x, y, z, or "" for as stored */
    bool crop_nonzero;
    double spacing[3];
    size_t patch[3];
    int image_order, logits_order, separate_axis_order;
    bool separate_axis_auto;
    bool mirror[3]; /* z, y, x */
    size_t keep_largest_count;
    unsigned *keep_largest; /* label values */
    double remove_small_mm3;
    vx_network network;
} vx_recipe;

/* json: bytes of UTF-8, no NUL needed. Strict: unknown keys, wrong types, out-of-range numbers and
 * nesting above 64 are VX_ERR_MODEL; so are a second use of a key, and counts that contradict each
 * other. */
vx_status vx_recipe_parse(const char *json, size_t bytes, vx_recipe **out, vx_error *err);
void vx_recipe_free(vx_recipe *recipe);

#endif
