/* Inside the CUDA backend: a device, and a plan as a list of steps.
 *
 * A step is one op, compiled: which launches run it, its packed weights, the scratch it needs. The
 * plan (plan.c) asks every step for its bytes, lays out one device arena, lets the steps pack their
 * weights into one block, uploads that, and captures all launches in a CUDA graph. Nothing is
 * allocated in a run.
 *
 * Values are channels last in the plan's storage type (fp32, fp16, bf16), but for those that the
 * caller gets: a step that can writes them as float. Sums, statistics and exponentials are fp32.
 */
#ifndef VX_CUDA_STEP_H
#define VX_CUDA_STEP_H

#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <cudnn.h>

#include "backend/backend.h"
#include "backend/weights.h"
#include "cuda/ops.h"

/* Alignment of everything on the device: what cudaMalloc gives, and what vx_cuda_scan asks for. */
#define VX_CUDA_ALIGN ((size_t)256)

struct vx_device {
    int ordinal;
    int major, minor; /* compute capability */
    int multiprocessors;
    char name[96];
    vx_pool *pool; /* the host's threads, which pack weights; borrowed, NULL: the caller's alone */
    cudaStream_t stream;
    cudnnHandle_t cudnn; /* on that stream */
    cublasLtHandle_t blas;
    bool separate; /* tests: no buffer reuses another's memory, and guard bytes lie between them */
};

/* The CUDA runtime keeps a current device for each thread: makes it this one. */
vx_status vx_cuda_enter(const vx_device *device, vx_error *err);

/* What a step sees while it is launched. All pointers are device memory. */
typedef struct vx_cuda_run {
    void *const *value;     /* where each value of the graph lives */
    unsigned char *scratch; /* the step's scratch_bytes */
    cudaStream_t stream;
} vx_cuda_run;

typedef struct vx_cuda_step vx_cuda_step;
struct vx_cuda_step {
    vx_device *device;
    const vx_op *op;       /* in the plan's own graph */
    vx_shape in, in2, out; /* shapes of op->in[0], op->in[1], op->out */
    vx_dtype dtype;        /* of values */
    void *state;           /* what prepare made, vx_alloc'ed, may be NULL; freed with the step */

    /* Filled by prepare; bytes. */
    size_t weight_bytes, scratch_bytes;
    bool in_place; /* out may take over in[0]'s memory */

    /* Set before prepare where float is wanted as out, whatever the storage type; prepare clears it
     * if the step cannot do that. Never set where the storage type is float. */
    bool out_float;

    /* Norms that are left to the readers (vx_cuda_pending). Filled by prepare: whether this step
     * can leave out's to them, and apply the one of in[k]. Then by the plan: whether it has to
     * leave it, and who left in[k]'s (NULL: nobody). */
    bool can_leave_norm, can_apply[2];
    bool leaves_norm;
    const vx_cuda_step *left_by[2];

    unsigned char *weights; /* weight_bytes in device memory; valid when launched */
    /* host: weight_bytes, zeroed, whose copy will lie at weights. NULL: no weights. Steps are
     * packed side by side, and beside a launch. */
    vx_status (*pack)(vx_cuda_step *step, unsigned char *host, vx_error *err);
    vx_status (*launch)(const vx_cuda_step *step, const vx_cuda_run *run, vx_error *err);
    void (*destroy)(vx_cuda_step *step); /* what state holds beyond its own block; may be NULL */
};

/* Each fills the step from step->op and the shapes; the step is zeroed otherwise. On failure the
 * plan still calls destroy, if it was set. */
vx_status vx_cuda_prepare(vx_cuda_step *step, vx_error *err); /* any op: one of */
vx_status vx_cuda_prepare_conv(vx_cuda_step *step, vx_error *err);
vx_status vx_cuda_prepare_transposed(vx_cuda_step *step, vx_error *err);
vx_status vx_cuda_prepare_linear(vx_cuda_step *step, vx_error *err); /* also 1x1x1 convolutions */
vx_status vx_cuda_prepare_norm(vx_cuda_step *step, vx_error *err);
vx_status vx_cuda_prepare_simple(vx_cuda_step *step, vx_error *err);
vx_status vx_cuda_prepare_mamba(vx_cuda_step *step, vx_error *err);
vx_status vx_cuda_prepare_mamba_layer(vx_cuda_step *step, vx_error *err);

/* Whether the last one has a way for this layer (VX_OP_MAMBA_LAYER) on values of shape `in` and
 * type dtype, on the current device. */
bool vx_cuda_takes_mamba_layer(const vx_op *op, vx_shape in, vx_dtype dtype);

/* What a step that leaves its norm puts behind out's numbers: vx_cuda_affine [n][c]. False on
 * overflow. *at: where from the value's begin; *bytes: of both. */
bool vx_cuda_place_affine(const vx_cuda_step *writer, size_t *at, size_t *bytes);
/* Where that is in a run, of a step that has been placed. */
vx_cuda_affine *vx_cuda_affine_of(const vx_cuda_step *writer, const vx_cuda_run *run);
/* What this step has to apply to in[k]. */
vx_cuda_pending vx_cuda_pending_of(const vx_cuda_step *reader, int k, const vx_cuda_run *run);

/* --- packing (pack.c) ------------------------------------------------------------------------- */

/* Reserves elements of a type behind *end, rounded up to VX_CUDA_ALIGN; *at is where they start.
 * False on overflow. */
bool vx_cuda_reserve(size_t *end, size_t rows, size_t columns, vx_dtype dtype, size_t *at);
/* Rounds n floats to dtype, nearest even. to: dtype's alignment. */
void vx_cuda_narrow_host(const float *from, size_t n, vx_dtype dtype, void *to);
/* A stored weight as floats in new memory (free with vx_free); NULL without memory. */
float *vx_cuda_read_weight(const vx_weight *w);

/* Floats among a step's weights in device memory. */
static inline const float *vx_cuda_floats(const vx_cuda_step *step, size_t at) {
    return (const float *)(const void *)(step->weights + at);
}

static inline vx_status vx_cuda_overflow(vx_error *err) {
    return vx_fail(err, VX_ERR_RESOURCE, "the network is too large for this machine's addresses");
}
static inline vx_status vx_cuda_no_memory(vx_error *err) {
    return vx_fail(err, VX_ERR_RESOURCE, "out of memory");
}

#endif
