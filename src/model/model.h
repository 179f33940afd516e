/* A model: safetensors file (mapped) + recipe, and its network as a graph. */
#ifndef VX_MODEL_MODEL_H
#define VX_MODEL_MODEL_H

#include "graph/graph.h"
#include "model/recipe.h"

typedef struct vx_tensor {
    const char *name; /* owned by the file */
    vx_dtype dtype;   /* VX_F32, VX_F16, VX_BF16 */
    int rank;
    size_t dims[8];
    const void *data; /* into the mapping; byte alignment only */
    size_t bytes;
} vx_tensor;

typedef struct vx_model_file vx_model_file;

/* safetensors, checked as models/FORMAT.md says. Errors are VX_ERR_MODEL and begin with the path
 * (VX_ERR_RESOURCE when memory is short). The file is mapped: it must not be cut short while open.
 */
vx_status vx_model_file_open(const char *path, vx_model_file **out, vx_error *err);
void vx_model_file_close(vx_model_file *file);
size_t vx_model_file_count(const vx_model_file *file);
const vx_tensor *vx_model_file_at(const vx_model_file *file, size_t i);
const vx_tensor *vx_model_file_find(const vx_model_file *file,
                                    const char *name); /* NULL when absent */
/* The value of a __metadata__ key, NULL when absent; *bytes its length without the NUL that
 * follows. */
const char *vx_model_file_metadata(const vx_model_file *file, const char *key, size_t *bytes);

/* SHA-256 over the whole file, lower-case hex. */
void vx_model_file_sha256(const vx_model_file *file, char hex[65]);

/* Lets go of the mapping's pages: they no longer count as this process's memory. They come back
 * when they are read again. */
void vx_model_file_release(const vx_model_file *file);

/* One tensor that a network reads. */
typedef struct vx_tensor_spec {
    char name[128]; /* state-dict name */
    int rank;
    size_t dims[8];
    bool optional; /* deep-supervision heads: inference does without */
} vx_tensor_spec;

/* The tensors of a network without any file, in the order in which it reads them; recorded from the
 * same code that builds the graph. *out is the caller's (vx_free). */
vx_status vx_network_tensors(const vx_network *network, vx_tensor_spec **out, size_t *count,
                             vx_error *err);

typedef struct vx_model {
    vx_model_file *file;
    vx_recipe *recipe;
    char sha256[65];   /* of the whole file, hex */
    size_t parameters; /* elements of all tensors in the file */
} vx_model;

/* File, recipe and tensors are checked against each other: a missing tensor, one too many or a
 * wrong shape is VX_ERR_MODEL. */
vx_status vx_model_open(const char *path, vx_model **out, vx_error *err);
void vx_model_close(vx_model *model);

/* The network on an input of n x patch (z, y, x) x in_channels; one output, the logits. Weights
 * stay in the model's mapping: the model must outlive the graph. Each side of patch must be a
 * multiple of the product of the strides along it. Values are named `encoder.stem`,
 * `encoder.stages.S`, `encoder.mamba_layers.S`, `decoder.transpconvs.S`, `decoder.stages.S` and
 * `logits`. */
vx_status vx_model_graph(const vx_model *model, size_t n, const size_t patch[3], vx_graph **out,
                         vx_error *err);

#endif
