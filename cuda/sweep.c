/* A sweep: one block of device memory for a volume, its logits and what is needed to weight and to
 * resample them; the steps queue a kernel each and wait for it. Tiles are cut on the device's
 * stream, where the network runs; everything else has a stream of its own, so that logits of other
 * devices are added while the network runs here. */
#include "cuda/sweep.h"

#include "base/size.h"
#include "cuda/capture_lock.h"
#include "cuda/check.h"
#include "cuda/plan.h"
#include "cuda/sweep_kernels.h"

/* What lies in the block, in this order; from PROFILE on one for each axis. */
enum {
    IMAGE,
    SUMS,
    SLOT,
    VALUES,
    BAD,
    LABELS,
    PLACES,
    PROFILE,
    TOTAL = PROFILE + 3,
    LOW = TOTAL + 3,
    WEIGHT = LOW + 3,
    PARTS = WEIGHT + 3
};
enum { GUARD_BYTE = 0x5a, POISON_BYTE = 0xff };

typedef struct layout {
    size_t at[PARTS], bytes[PARTS];
    size_t end;
} layout;

struct vx_sweep {
    vx_plan *plan;
    vx_device *device;
    cudaStream_t stream;
    const vx_device *reached; /* whose memory this device has been let into */
    unsigned char *block;
    layout parts;
    size_t places;
    vx_sweep_view view;
};

/* count things of size bytes each, and guard bytes behind them. */
static bool reserve(layout *l, int part, const size_t *count, size_t n, size_t size, size_t guard) {
    size_t things;
    l->at[part] = l->end;
    return vx_product(count, n, &things) && vx_mul_size(things, size, &l->bytes[part]) &&
           vx_add_size(l->end, l->bytes[part], &l->end) && vx_add_size(l->end, guard, &l->end) &&
           vx_align_size(l->end, VX_CUDA_ALIGN, &l->end);
}

static bool lay_out(const vx_device *device, const vx_sweep_size *size, layout *l) {
    const size_t guard = device->separate ? VX_CUDA_ALIGN : 0, one = 1, number = sizeof(float);
    const size_t image[4] = {size->channels, size->dims[0], size->dims[1], size->dims[2]};
    const size_t sums[3] = {size->rows, size->dims[2], size->classes};
    const size_t labels[3] = {size->made_rows, size->out[2], size->label_bytes};
    const size_t places[5] = {size->places, size->patch[0], size->patch[1], size->patch[2],
                              size->classes};
    *l = (layout){0};
    bool fits =
        reserve(l, IMAGE, image, 4, number, guard) && reserve(l, SUMS, sums, 3, number, guard) &&
        reserve(l, SLOT, size->dims, 2, sizeof(uint32_t), guard) &&
        reserve(l, VALUES, &size->classes, 1, sizeof(uint32_t), guard) &&
        reserve(l, BAD, &one, 1, sizeof(uint32_t), guard) &&
        reserve(l, LABELS, labels, 3, 1, guard) && reserve(l, PLACES, places, 5, number, guard);
    for (int a = 0; a < 3 && fits; a++)
        fits = reserve(l, PROFILE + a, &size->patch[a], 1, number, guard);
    for (int a = 0; a < 3 && fits; a++)
        fits = reserve(l, TOTAL + a, &size->dims[a], 1, number, guard);
    for (int a = 0; a < 3 && fits; a++)
        fits = reserve(l, LOW + a, &size->out[a], 1, sizeof(uint32_t), guard);
    for (int a = 0; a < 3 && fits; a++)
        fits = reserve(l, WEIGHT + a, &size->out[a], 1, number, guard);
    return fits;
}

static bool small_enough(const vx_sweep_size *size) {
    size_t most = size->channels > size->classes ? size->channels : size->classes;
    for (int a = 0; a < 3; a++) {
        if (size->dims[a] > most) most = size->dims[a];
        if (size->patch[a] > most) most = size->patch[a];
        if (size->out[a] > most) most = size->out[a];
    }
    /* A row is a block of the grid, a patch's z its second dimension. */
    return most <= INT32_MAX && size->rows <= INT32_MAX && size->made_rows <= INT32_MAX &&
           size->patch[0] <= 65535;
}

static bool sweep_bytes(const vx_device *device, const vx_sweep_size *size, size_t *bytes) {
    layout l;
    if (!small_enough(size) || !lay_out(device, size, &l)) return false;
    *bytes = l.end;
    return true;
}

static vx_status free_bytes(vx_device *device, size_t *bytes, vx_error *err) {
    size_t total;
    vx_status status = vx_cuda_enter(device, err);
    if (status != VX_OK) return status;
    return vx_cuda_check(cudaMemGetInfo(bytes, &total), "asking for free memory", err);
}

static vx_status take_memory(vx_sweep *s, vx_error *err) {
    size_t available;
    vx_status status = free_bytes(s->device, &available, err);
    if (status != VX_OK) return status;
    if (s->parts.end > available || cudaMalloc((void **)&s->block, s->parts.end) != cudaSuccess) {
        (void)cudaGetLastError();
        return vx_fail(err, VX_ERR_RESOURCE,
                       "volume and logits need %.2f GB of the GPU's memory, %.2f GB are free",
                       (double)s->parts.end / 1e9, (double)available / 1e9);
    }
    return VX_OK;
}

/* Ahead of the network's: what it does is short. */
static vx_status make_stream(vx_sweep *s, vx_error *err) {
    int least = 0, greatest = 0;
    vx_status status =
        vx_cuda_check(cudaDeviceGetStreamPriorityRange(&least, &greatest), "making a stream", err);
    if (status != VX_OK) return status;
    return vx_cuda_check(cudaStreamCreateWithPriority(&s->stream, cudaStreamNonBlocking, greatest),
                         "making a stream", err);
}

static void *part_of(const vx_sweep *s, int part) { return s->block + s->parts.at[part]; }

static void fill_view(vx_sweep *s, const vx_sweep_shape *shape) {
    const vx_sweep_size *size = &shape->size;
    vx_sweep_view *v = &s->view;
    *v = (vx_sweep_view){.channels = (uint32_t)size->channels,
                         .classes = (uint32_t)size->classes,
                         .image = part_of(s, IMAGE),
                         .sums = part_of(s, SUMS),
                         .slot = part_of(s, SLOT),
                         .values = part_of(s, VALUES),
                         .regions = shape->regions,
                         .label_bytes = size->label_bytes,
                         .bad = part_of(s, BAD)};
    for (int a = 0; a < 3; a++) {
        v->dims[a] = (uint32_t)size->dims[a];
        v->patch[a] = (uint32_t)size->patch[a];
        v->out[a] = (uint32_t)size->out[a];
        v->profile[a] = part_of(s, PROFILE + a);
        v->total[a] = part_of(s, TOTAL + a);
        v->low[a] = part_of(s, LOW + a);
        v->weight[a] = part_of(s, WEIGHT + a);
    }
}

/* A whole part. Memory of the host's that is not pinned may be used again at once. */
static vx_status upload(vx_sweep *s, int part, const void *from, vx_error *err) {
    return vx_cuda_check(cudaMemcpyAsync(part_of(s, part), from, s->parts.bytes[part],
                                         cudaMemcpyHostToDevice, s->stream),
                         "uploading the volume", err);
}

static vx_status wait(const vx_sweep *s, const char *what, vx_error *err) {
    return vx_cuda_check(cudaStreamSynchronize(s->stream), what, err);
}

/* For what the network's stream does. */
static vx_status wait_network(const vx_sweep *s, const char *what, vx_error *err) {
    return vx_cuda_check(cudaStreamSynchronize(s->device->stream), what, err);
}

/* Indices as the kernels want them. */
static vx_status upload_low(vx_sweep *s, int part, const size_t *low, vx_error *err) {
    const size_t count = s->parts.bytes[part] / sizeof(uint32_t);
    uint32_t *narrow = vx_alloc_zero(count, sizeof *narrow);
    if (!narrow) return vx_cuda_no_memory(err);
    for (size_t i = 0; i < count; i++) narrow[i] = (uint32_t)low[i];
    vx_status status = upload(s, part, narrow, err);
    if (status == VX_OK) status = wait(s, "uploading the volume", err);
    vx_free(narrow);
    return status;
}

static vx_status upload_all(vx_sweep *s, const vx_sweep_shape *shape, const float *image,
                            vx_error *err) {
    vx_status status = upload(s, IMAGE, image, err);
    if (status == VX_OK) status = upload(s, VALUES, shape->values, err);
    for (int a = 0; a < 3 && status == VX_OK; a++) {
        status = upload(s, PROFILE + a, shape->profile[a], err);
        if (status == VX_OK) status = upload(s, TOTAL + a, shape->total[a], err);
        if (status == VX_OK) status = upload(s, WEIGHT + a, shape->weight[a], err);
        if (status == VX_OK) status = upload_low(s, LOW + a, shape->low[a], err);
    }
    if (status == VX_OK)
        status = vx_cuda_check(cudaMemsetAsync(s->view.bad, 0, s->parts.bytes[BAD], s->stream),
                               "uploading the volume", err);
    return status == VX_OK ? wait(s, "uploading the volume", err) : status;
}

static void sweep_free(vx_sweep *sweep) {
    if (!sweep) return;
    (void)vx_cuda_enter(sweep->device, NULL);
    if (sweep->stream) cudaStreamDestroy(sweep->stream);
    vx_cuda_free_memory(sweep->block);
    vx_free(sweep);
}

static vx_status sweep_create(vx_plan *plan, const vx_sweep_shape *shape, const float *image,
                              vx_sweep **out, vx_error *err) {
    *out = NULL;
    vx_sweep *s = vx_alloc_zero(1, sizeof *s);
    if (!s) return vx_cuda_no_memory(err);
    s->plan = plan;
    s->device = vx_cuda_plan_device(plan);
    vx_status status = VX_OK;
    if (!small_enough(&shape->size) || !lay_out(s->device, &shape->size, &s->parts))
        status = vx_fail(err, VX_ERR_RESOURCE, "the volume is too large for the GPU");
    if (status == VX_OK) status = take_memory(s, err);
    if (status == VX_OK) status = make_stream(s, err);
    if (status == VX_OK) {
        s->places = shape->size.places;
        fill_view(s, shape);
        status = upload_all(s, shape, image, err);
    }
    if (status == VX_OK)
        *out = s;
    else
        sweep_free(s);
    return status;
}

static vx_status sweep_start(vx_sweep *s, const uint32_t *slot, const vx_rows *rows,
                             vx_error *err) {
    vx_status status = vx_cuda_enter(s->device, err);
    if (status == VX_OK) status = upload(s, SLOT, slot, err);
    if (status == VX_OK) status = vx_cuda_sweep_zero(&s->view, rows, s->stream, err);
    return status == VX_OK ? wait(s, "clearing rows of logits", err) : status;
}

static vx_sweep_at at_of(const ptrdiff_t at[3]) {
    return (vx_sweep_at){{(int32_t)at[0], (int32_t)at[1], (int32_t)at[2]}};
}

static vx_status sweep_cut(vx_sweep *s, const ptrdiff_t at[3], unsigned flips, vx_error *err) {
    vx_status status = vx_cuda_enter(s->device, err);
    if (status == VX_OK)
        status = vx_cuda_sweep_cut(&s->view, at_of(at), flips, vx_cuda_plan_input(s->plan),
                                   s->device->stream, err);
    return status == VX_OK ? wait_network(s, "cutting a tile", err) : status;
}

static vx_status sweep_run(vx_sweep *s, vx_error *err) {
    vx_status status = vx_cuda_enter(s->device, err);
    if (status == VX_OK) status = vx_cuda_plan_launch(s->plan, err);
    const vx_status ended = wait_network(s, "the network", status == VX_OK ? err : NULL);
    return status == VX_OK ? ended : status;
}

/* Where device `from` can write into the other's memory itself, the copy needs no way through the
 * host's. It works without, too. */
static void reach(vx_sweep *from, const vx_device *to) {
    int can = 0;
    if (from->reached == to || from->device->ordinal == to->ordinal) return;
    from->reached = to;
    if (cudaDeviceCanAccessPeer(&can, from->device->ordinal, to->ordinal) == cudaSuccess && can)
        (void)cudaDeviceEnablePeerAccess(to->ordinal, 0); /* or it is enabled already */
    (void)cudaGetLastError();
}

static size_t place_bytes(const vx_sweep *s) {
    return (size_t)s->view.patch[0] * s->view.patch[1] * s->view.patch[2] * s->view.classes *
           sizeof(float);
}

static float *place_of(const vx_sweep *s, size_t place) {
    return (float *)(void *)(s->block + s->parts.at[PLACES] + place * place_bytes(s));
}

static vx_status sweep_take(vx_sweep *s, size_t place, vx_sweep *from, vx_error *err) {
    if (place >= s->places) return vx_fail(err, VX_ERR_RESOURCE, "more places than were planned");
    vx_status status = vx_cuda_enter(from->device, err);
    if (status != VX_OK) return status;
    reach(from, s->device);
    status = vx_cuda_check(
        cudaMemcpyPeerAsync(place_of(s, place), s->device->ordinal, vx_cuda_plan_output(from->plan),
                            from->device->ordinal, place_bytes(s), from->device->stream),
        "handing over a tile's logits", err);
    return status == VX_OK ? wait_network(from, "handing over a tile's logits", err) : status;
}

static vx_status sweep_add(vx_sweep *s, size_t place, const ptrdiff_t at[3], unsigned flips,
                           float scale, vx_error *err) {
    const bool own = place == VX_SWEEP_OWN;
    if (!own && place >= s->places)
        return vx_fail(err, VX_ERR_RESOURCE, "more places than were planned");
    const float *logits = own ? vx_cuda_plan_output(s->plan) : place_of(s, place);
    vx_status status = vx_cuda_enter(s->device, err);
    if (status == VX_OK)
        status = vx_cuda_sweep_add(&s->view, at_of(at), flips, scale, logits, s->stream, err);
    return status == VX_OK ? wait(s, "adding a tile's logits", err) : status;
}

static vx_status sweep_finish(vx_sweep *s, const vx_rows *rows, bool *finite, vx_error *err) {
    uint32_t bad = 0;
    vx_status status = vx_cuda_enter(s->device, err);
    if (status == VX_OK) status = vx_cuda_sweep_divide(&s->view, rows, s->stream, err);
    if (status == VX_OK)
        status = vx_cuda_check(
            cudaMemcpyAsync(&bad, s->view.bad, sizeof bad, cudaMemcpyDeviceToHost, s->stream),
            "dividing logits", err);
    if (status == VX_OK) status = wait(s, "dividing logits", err);
    *finite = !bad;
    return status;
}

static vx_status sweep_make(vx_sweep *s, const vx_rows *rows, void *labels, vx_error *err) {
    const size_t bytes = vx_rows_count(rows) * s->view.out[2] * s->view.label_bytes;
    void *made = part_of(s, LABELS);
    vx_status status = vx_cuda_enter(s->device, err);
    if (bytes > s->parts.bytes[LABELS])
        return vx_fail(err, VX_ERR_RESOURCE, "more rows of labels than were planned");
    if (status == VX_OK) status = vx_cuda_sweep_labels(&s->view, rows, made, s->stream, err);
    if (status == VX_OK)
        status =
            vx_cuda_check(cudaMemcpyAsync(labels, made, bytes, cudaMemcpyDeviceToHost, s->stream),
                          "copying labels", err);
    return status == VX_OK ? wait(s, "making labels", err) : status;
}

/* --- tests ------------------------------------------------------------------------------------ */

/* Behind a part, up to the next. */
static size_t guard_of(const vx_sweep *s, int part, unsigned char **at) {
    const size_t from = s->parts.at[part] + s->parts.bytes[part];
    *at = s->block + from;
    return (part + 1 < PARTS ? s->parts.at[part + 1] : s->parts.end) - from;
}

vx_status vx_cuda_sweep_poison(vx_sweep *s, vx_error *err) {
    static const int written[4] = {SUMS, SLOT, LABELS, PLACES};
    vx_status status = vx_cuda_enter(s->device, err);
    for (int i = 0; i < 4 && status == VX_OK; i++)
        status = vx_cuda_check(cudaMemsetAsync(part_of(s, written[i]), POISON_BYTE,
                                               s->parts.bytes[written[i]], s->stream),
                               "poison", err);
    for (int part = 0; part < PARTS && status == VX_OK; part++) {
        unsigned char *at;
        const size_t bytes = guard_of(s, part, &at);
        status = vx_cuda_check(cudaMemsetAsync(at, GUARD_BYTE, bytes, s->stream), "guards", err);
    }
    return status == VX_OK ? wait(s, "poison", err) : status;
}

vx_status vx_cuda_sweep_check_guards(const vx_sweep *s, vx_error *err) {
    unsigned char bytes[2 * 256];
    for (int part = 0; part < PARTS; part++) {
        unsigned char *at;
        const size_t count = guard_of(s, part, &at);
        if (count > sizeof bytes) return vx_fail(err, VX_ERR_RESOURCE, "guard of %zu", count);
        vx_status status =
            vx_cuda_check(cudaMemcpy(bytes, at, count, cudaMemcpyDeviceToHost), "guards", err);
        if (status != VX_OK) return status;
        for (size_t i = 0; i < count; i++)
            if (bytes[i] != GUARD_BYTE)
                return vx_fail(err, VX_ERR_RESOURCE, "byte %zu behind part %d was written", i,
                               part);
    }
    return VX_OK;
}

vx_status vx_cuda_sweep_row(const vx_sweep *s, uint32_t slot, float *row, vx_error *err) {
    const size_t floats = (size_t)s->view.dims[2] * s->view.classes;
    return vx_cuda_check(cudaMemcpy(row, s->view.sums + slot * floats, floats * sizeof(float),
                                    cudaMemcpyDeviceToHost),
                         "reading a row", err);
}

vx_status vx_cuda_sweep_places(const vx_sweep *s, float *places, vx_error *err) {
    return vx_cuda_check(
        cudaMemcpy(places, part_of(s, PLACES), s->parts.bytes[PLACES], cudaMemcpyDeviceToHost),
        "reading places", err);
}

const vx_sweep_ops vx_cuda_sweep = {.free_bytes = free_bytes,
                                    .bytes = sweep_bytes,
                                    .create = sweep_create,
                                    .free = sweep_free,
                                    .start = sweep_start,
                                    .cut = sweep_cut,
                                    .run = sweep_run,
                                    .take = sweep_take,
                                    .add = sweep_add,
                                    .finish = sweep_finish,
                                    .make = sweep_make};
