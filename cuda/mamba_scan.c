#include "cuda/mamba_scan.h"

#include <math.h>

#include "base/memory.h"
#include "cuda/scan_fit.h"

vx_scan_walk vx_cuda_mamba_walk(const vx_scan_order *order, vx_shape shape) {
    const size_t dims[3] = {shape.d, shape.h, shape.w};
    const size_t strides[3] = {shape.h * shape.w, shape.w, 1};
    vx_scan_walk walk = {.reverse = order->reverse};
    for (int i = 0; i < 3; i++) {
        walk.dims[i] = (uint32_t)dims[order->axis[i]];
        walk.step[i] = (uint32_t)strides[order->axis[i]];
    }
    return walk;
}

/* A = -exp(A_log) [D][N]. Kept finite, as on the CPU; but a NaN stays one, or a broken model would
 * give a mask. */
static void read_a(const vx_mamba *m, float *a) {
    vx_read_weight(&m->a_log, a);
    for (size_t i = 0; i < m->a_log.elements; i++)
        a[i] = isnan(a[i]) ? NAN : (float)fmax(-exp((double)a[i]), -1e18);
}

/* The K of all mixers' fits, if they have one that pays; else 0. */
static vx_status choose_rates(const vx_mamba *const *mixers, size_t count, vx_scan_shape *shape,
                              vx_error *err) {
    uint32_t rates = 0;
    float *a = vx_alloc_zero(mixers[0]->a_log.elements, sizeof *a);
    if (!a) return vx_cuda_no_memory(err);
    for (size_t i = 0; i < count; i++) {
        read_a(mixers[i], a);
        const uint32_t k = vx_scan_fit_rates(shape, a);
        rates = i > 0 && (!k || !rates) ? 0 : k > rates ? k : rates;
    }
    vx_free(a);
    shape->rates = rates;
    if (!vx_cuda_scan_fit_pays(shape)) shape->rates = 0;
    return VX_OK;
}

vx_status vx_cuda_mamba_scan_prepare(const vx_cuda_step *step, const vx_mamba *const *mixers,
                                     size_t count, bool delta, size_t items, vx_mamba_scan *scan,
                                     vx_error *err) {
    const size_t length = step->in.d * step->in.h * step->in.w;
    const vx_mamba *m = mixers[0];
    if (length > INT32_MAX || m->d_inner > (1u << 24) || m->d_state > 256)
        return vx_fail(err, VX_ERR_RESOURCE,
                       "%zu tokens of %zu channels and %zu states are more than the CUDA scan "
                       "takes (2^31 tokens, 2^24 channels, 256 states)",
                       length, m->d_inner, m->d_state);
    scan->shape = (vx_scan_shape){.length = (uint32_t)length,
                                  .channels = (uint32_t)m->d_inner,
                                  .states = (uint32_t)m->d_state,
                                  .dtype = step->dtype};
    vx_status status = choose_rates(mixers, count, &scan->shape, err);
    if (status != VX_OK) return status;
    if (!delta) {
        const size_t most = vx_cuda_scan_rank_max(&scan->shape);
        if (m->dt_rank > most) scan->shape.rates = 0; /* without a fit it takes more */
        if (m->dt_rank <= vx_cuda_scan_rank_max(&scan->shape))
            scan->shape.rank = (uint32_t)m->dt_rank;
    }
    return vx_cuda_scan_scratch(&scan->shape, items, &scan->scratch_bytes, err);
}

bool vx_cuda_mamba_scan_place(vx_cuda_step *step, const vx_mamba_scan *scan,
                              vx_mamba_scan_weights *at) {
    const vx_scan_shape *s = &scan->shape;
    size_t *end = &step->weight_bytes;
    return vx_cuda_reserve(end, s->channels, s->states, VX_F32, &at->a) &&
           vx_cuda_reserve(end, s->channels, 1, VX_F32, &at->skip) &&
           vx_cuda_reserve(end, s->channels, 1, VX_F32, &at->dt_bias) &&
           vx_cuda_reserve(end, s->channels, s->rank, VX_F32, &at->dt_w) &&
           vx_cuda_reserve(end, s->channels, s->rates, VX_F32, &at->rates) &&
           vx_cuda_reserve(end, vx_scan_fit_weights(s, s->rates), 1, VX_F32, &at->fit);
}

static float *floats_at(unsigned char *host, size_t at) { return (float *)(void *)(host + at); }

/* dt_proj's weight (D, R), rounded to the storage type, as [R][D]. */
static vx_status pack_dt_w(const vx_scan_shape *s, const vx_weight *w, float *to, vx_error *err) {
    float *plain = vx_cuda_read_weight(w);
    void *narrow = vx_alloc_zero(w->elements, sizeof(float));
    if (plain && narrow) {
        vx_cuda_narrow_host(plain, w->elements, s->dtype, narrow);
        vx_read_weight(&(vx_weight){narrow, s->dtype, w->elements}, plain);
        for (size_t d = 0; d < s->channels; d++)
            for (size_t r = 0; r < s->rank; r++) to[r * s->channels + d] = plain[d * s->rank + r];
    }
    const bool done = plain && narrow;
    vx_free(plain);
    vx_free(narrow);
    return done ? VX_OK : vx_cuda_no_memory(err);
}

vx_status vx_cuda_mamba_scan_pack(const vx_mamba_scan *scan, const vx_mamba *m,
                                  const vx_mamba_scan_weights *at, unsigned char *host,
                                  vx_error *err) {
    const vx_scan_shape *s = &scan->shape;
    float *a = floats_at(host, at->a);
    read_a(m, a);
    vx_read_weight(&m->d, floats_at(host, at->skip));
    vx_read_weight(&m->dt_b, floats_at(host, at->dt_bias));
    if (s->rates)
        vx_scan_fit_fill(s, a, s->rates, floats_at(host, at->rates), floats_at(host, at->fit));
    return s->rank ? pack_dt_w(s, &m->dt_w, floats_at(host, at->dt_w), err) : VX_OK;
}

vx_scan_item vx_cuda_mamba_scan_item(const vx_cuda_step *step, const vx_mamba_scan *scan,
                                     const vx_mamba *m, const vx_mamba_scan_weights *at) {
    const bool fit = scan->shape.rates > 0;
    return (vx_scan_item){.a = vx_cuda_floats(step, at->a),
                          .skip = vx_cuda_floats(step, at->skip),
                          .delta_bias = vx_cuda_floats(step, at->dt_bias),
                          .dt_w = scan->shape.rank ? vx_cuda_floats(step, at->dt_w) : NULL,
                          .rates = fit ? vx_cuda_floats(step, at->rates) : NULL,
                          .weights = fit ? vx_cuda_floats(step, at->fit) : NULL,
                          .walk = vx_cuda_mamba_walk(&m->order, step->in)};
}
