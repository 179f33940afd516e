/* Inside the CPU backend: a device, and a plan as a list of steps.
 *
 * A step is one op, compiled: which function runs it, its packed weights, the scratch it needs. The
 * plan (plan.c) asks every step for its bytes, lays out one arena, checks the budget, lets the
 * steps pack their weights, and then run only walks the list: nothing is allocated in it.
 *
 * Determinism: a step cuts its work by shapes alone; the number of workers decides only who does a
 * piece and how many copies of the worker scratch there are.
 */
#ifndef VX_BACKEND_CPU_CPU_H
#define VX_BACKEND_CPU_CPU_H

#include "backend/backend.h"
#include "backend/cpu/kernels.h"
#include "backend/weights.h"

struct vx_device {
    vx_pool *pool;
    const vx_kernels *kernels;      /* for float */
    const vx_kernels *bf16_kernels; /* NULL: this processor does not multiply bfloat16 */
    bool own_only;                  /* no convolution through oneDNN (tests, comparisons) */
    bool direct_only;               /* none by Winograd's algorithm (likewise) */
};

/* As vx_backend_cpu.open, with a given instruction set for our own kernels (oneDNN picks its own);
 * VX_ERR_RESOURCE when this processor lacks it. For tests. */
vx_status vx_cpu_open_isa(vx_isa isa, vx_pool *pool, vx_device **out, vx_error *err);

/* What a step sees while it runs. */
typedef struct vx_cpu_run {
    vx_pool *pool;
    const vx_kernels *kernels;
    void *const *value;            /* where each value of the graph lives in this run */
    unsigned char *scratch;        /* the step's scratch_bytes, shared by its tasks */
    unsigned char *worker_scratch; /* worker w owns worker_bytes at w * worker_stride */
    size_t worker_stride;
} vx_cpu_run;

typedef struct vx_cpu_step vx_cpu_step;
struct vx_cpu_step {
    const vx_op *op;       /* in the plan's own graph */
    vx_shape in, in2, out; /* shapes of op->in[0], op->in[1], op->out */
    /* A view is a value that is never stored: the concatenation of an up-sampled tensor and another
     * one (VX_OP_TRANSPOSED_CONCAT), whose readers make what they need of it. */
    bool is_view;              /* out is one: the step holds its weights, run is NULL */
    const vx_cpu_step *view;   /* the step of op->in[0], if that is one; else NULL */
    const vx_kernels *kernels; /* of the plan's storage type, which values have unless said so */
    unsigned workers;
    bool own_only, direct_only;
    void *state; /* what prepare made, vx_alloc'ed, may be NULL; freed with the step */

    /* Filled by prepare; bytes. */
    size_t weight_bytes, scratch_bytes, worker_bytes;
    bool in_place;  /* out may take over the memory of in[0] (of a view: of its op's in[1]) ... */
    size_t lead;    /* ... if it begins so many bytes before it (vx_buffer) */
    bool took_over; /* set by the plan afterwards: it has taken it over */

    /* Set before prepare where float is wanted as out, whatever the storage type; prepare clears it
     * if the step cannot do that. Never set where the storage type is float. */
    bool out_float;

    void *weights; /* weight_bytes in the plan's weight block; filled by pack */
    vx_status (*pack)(vx_cpu_step *step, vx_error *err); /* NULL: no weights */
    vx_status (*run)(const vx_cpu_step *step, const vx_cpu_run *run, vx_error *err);
    void (*destroy)(vx_cpu_step *step); /* what state holds beyond its own block; may be NULL */
};

/* Each fills the step from step->op, the shapes and the kernels; the step is zeroed otherwise. On
 * failure the plan still calls destroy, if it was set. */
vx_status vx_cpu_prepare_ref(vx_cpu_step *step, vx_error *err); /* any op, by ref.h; float only */
vx_status vx_cpu_prepare(vx_cpu_step *step, vx_error *err);     /* any op, the fast way: one of */
vx_status vx_cpu_prepare_conv(vx_cpu_step *step, vx_error *err);
vx_status vx_cpu_prepare_transposed(vx_cpu_step *step, vx_error *err);
vx_status vx_cpu_prepare_simple(vx_cpu_step *step, vx_error *err);
vx_status vx_cpu_prepare_mamba(vx_cpu_step *step, vx_error *err);

/* Whether the step, of which only op, shapes and kernels are set, can read a view, whose first
 * input makes so many of its channels, as in[0]. */
bool vx_cpu_reads_view(const vx_cpu_step *step, size_t first_channels);

/* Tokens of c channels that make a task of element-wise work (64 KB). */
size_t vx_cpu_block(size_t c);

/* cast.c: float to a stored array and back. */
void vx_cpu_narrow(vx_pool *pool, const vx_kernels *kernels, const float *x, size_t elements,
                   void *y);
void vx_cpu_widen(vx_pool *pool, const vx_kernels *kernels, const void *x, size_t elements,
                  float *y);

static inline vx_status vx_cpu_overflow(vx_error *err) {
    return vx_fail(err, VX_ERR_RESOURCE, "the network is too large for this machine's addresses");
}

#endif
