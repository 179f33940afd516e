#include "ops.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/memory.h"

enum { GUARD = 64 };

extern const vx_kernels vx_kernels_emulated, vx_kernels_emulated_bf16;

const vx_kernels *ops_kernels(vx_isa isa) {
    const vx_kernels *kernels = vx_kernels_for(isa, VX_F32);
    return kernels || isa != VX_ISA_AVX512 ? kernels : &vx_kernels_emulated;
}

const vx_kernels *ops_bf16_kernels(vx_isa isa) {
    return isa == VX_ISA_BASELINE ? &vx_kernels_emulated_bf16 : vx_kernels_for(isa, VX_BF16);
}

float ops_round_bf16(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    const uint32_t low = bits & 0xffff, odd = bits >> 16 & 1;
    bits -= low;
    if (low > 0x8000 || (low == 0x8000 && odd)) bits += 0x10000;
    memcpy(&x, &bits, sizeof bits);
    return x;
}

float ops_random(uint64_t *state) {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return (float)(*state * 2685821657736338717u >> 40) * 0x1p-23f - 1.0f;
}

vx_weight ops_weight(ops_weights *w, size_t elements, float scale, float offset) {
    float *p = vx_alloc(elements * sizeof *p);
    assert_non_null(p);
    if (!w->seed) w->seed = 88172645463325252u;
    for (size_t i = 0; i < elements; i++) p[i] = scale * ops_random(&w->seed) + offset;
    for (size_t i = 0; w->coarse && i < elements; i++) p[i] = ops_round_bf16(p[i]);
    assert_true(w->count < sizeof w->blocks / sizeof *w->blocks);
    w->blocks[w->count++] = p;
    return (vx_weight){p, VX_F32, elements};
}

vx_weight ops_weight_from(ops_weights *w, const float *values, size_t elements) {
    vx_weight weight = ops_weight(w, elements, 0, 0);
    memcpy(w->blocks[w->count - 1], values, elements * sizeof *values);
    return weight;
}

void ops_weights_free(ops_weights *w) {
    for (size_t i = 0; i < w->count; i++) vx_free(w->blocks[i]);
    w->count = 0;
}

vx_mamba ops_mamba(ops_weights *w, size_t c, size_t d_inner, size_t d_state, size_t d_conv,
                   size_t dt_rank, vx_scan_order order) {
    const float in = 1.0f / sqrtf((float)c), inner = 1.0f / sqrtf((float)d_inner);
    vx_mamba m = {.order = order,
                  .d_inner = d_inner,
                  .d_state = d_state,
                  .d_conv = d_conv,
                  .dt_rank = dt_rank,
                  .in_proj = ops_weight(w, 2 * d_inner * c, 2 * in, 0),
                  .conv_w = ops_weight(w, d_inner * d_conv, 1.0f / sqrtf((float)d_conv), 0),
                  .conv_b = ops_weight(w, d_inner, 0.5f, 0),
                  .x_proj = ops_weight(w, (dt_rank + 2 * d_state) * d_inner, 2 * inner, 0),
                  .dt_w = ops_weight(w, d_inner * dt_rank, 1.0f / sqrtf((float)dt_rank), 0),
                  .dt_b = ops_weight(w, d_inner, 2, -3),
                  .d = ops_weight(w, d_inner, 0.5f, 1),
                  .out_proj = ops_weight(w, c * d_inner, 2 * inner, 0)};
    m.a_log = ops_weight(w, d_inner * d_state, 0.1f, 0);
    for (size_t i = 0; i < d_inner * d_state; i++)
        w->blocks[w->count - 1][i] += logf((float)(i % d_state + 1)); /* float in every type */
    return m;
}

/* n bytes of 0xff (a NaN in every float) between two guards. */
static unsigned char *guarded(size_t n) {
    unsigned char *p = vx_alloc(n + 2 * GUARD);
    assert_non_null(p);
    memset(p, 0xff, n + 2 * GUARD);
    memset(p, 0x5a, GUARD);
    memset(p + GUARD + n, 0x5a, GUARD);
    return p;
}

static void check_guards(const unsigned char *p, size_t n) {
    for (size_t i = 0; i < GUARD; i++) {
        assert_int_equal(p[i], 0x5a);
        assert_int_equal(p[GUARD + n + i], 0x5a);
    }
}

size_t ops_run_all(const vx_graph *g, const float *in, ops_how how, float *results[OPS_OUTPUTS]) {
    vx_error err = {0};
    vx_pool *pool;
    vx_device *device;
    vx_plan *plan;
    unsigned char *blocks[OPS_OUTPUTS] = {0};
    float *out[OPS_OUTPUTS] = {0};
    size_t sizes[OPS_OUTPUTS] = {0}, outputs = 0;
    const vx_compile_options options = {
        .reference = how.reference,
        .precision = how.bf16 ? VX_PRECISION_BF16 : VX_PRECISION_FP32,
    };
    vx_plan_info info;
    assert_int_equal(vx_pool_create(how.workers, &pool, &err), VX_OK);
    assert_int_equal(vx_cpu_open_isa(VX_ISA_BEST, pool, &device, &err), VX_OK);
    device->kernels = ops_kernels(how.isa);
    assert_non_null(device->kernels);
    device->bf16_kernels = ops_bf16_kernels(how.isa);
    device->own_only = how.own_only;
    device->direct_only = how.direct_only;
    if (vx_backend_cpu.compile(device, g, &options, &plan, &err) != VX_OK) fail_msg("%s", err.text);
    vx_backend_cpu.plan_info(plan, &info);
    unsigned char *arena = guarded(info.arena_bytes);
    for (size_t i = 0; i < g->value_count; i++) {
        if (!g->values[i].output) continue;
        assert_true(outputs < OPS_OUTPUTS);
        sizes[outputs] = vx_shape_elements(g->values[i].shape) * sizeof(float);
        blocks[outputs] = guarded(sizes[outputs]);
        out[outputs] = (float *)(void *)(blocks[outputs] + GUARD);
        outputs++;
    }
    if (vx_backend_cpu.run(plan, arena + GUARD, in, out, &err) != VX_OK) fail_msg("%s", err.text);
    check_guards(arena, info.arena_bytes);
    for (size_t i = 0; i < outputs; i++) {
        check_guards(blocks[i], sizes[i]);
        results[i] = vx_alloc(sizes[i]);
        assert_non_null(results[i]);
        memcpy(results[i], out[i], sizes[i]);
        vx_free(blocks[i]);
    }
    vx_free(arena);
    vx_backend_cpu.plan_free(plan);
    vx_backend_cpu.close(device);
    vx_pool_free(pool);
    return outputs;
}

float *ops_run(const vx_graph *g, const float *in, ops_how how, size_t k) {
    float *results[OPS_OUTPUTS];
    const size_t count = ops_run_all(g, in, how, results);
    assert_true(k < count);
    for (size_t i = 0; i < count; i++)
        if (i != k) vx_free(results[i]);
    return results[k];
}

float *ops_input(const vx_graph *g, uint64_t seed) {
    const size_t n = vx_shape_elements(g->values[0].shape);
    float *x = vx_alloc(n * sizeof *x);
    assert_non_null(x);
    for (size_t i = 0; i < n; i++) x[i] = ops_round_bf16(1.5f * ops_random(&seed) + 0.1f);
    return x;
}

double ops_relative(const float *a, const float *b, size_t n) {
    double error = 0, norm = 0;
    for (size_t i = 0; i < n; i++) {
        const double e = (double)a[i] - (double)b[i];
        error += e * e;
        norm += (double)b[i] * (double)b[i];
    }
    return norm > 0 ? sqrt(error / norm) : sqrt(error);
}

/* Output k of g computed one way: against truth, and the same bits for any worker count. */
static double check_way(const vx_graph *g, const float *x, const float *truth, size_t k, size_t n,
                        ops_how how, const char *what, double tolerance) {
    static const unsigned workers[] = {2, 3, 5, 7, 8, 16};
    const vx_kernels *kernels = how.bf16 ? ops_bf16_kernels(how.isa) : ops_kernels(how.isa);
    const char *name = how.own_only                 ? kernels->name
                       : how.isa == VX_ISA_BASELINE ? "oneDNN"
                                                    : "best";
    how.workers = 1;
    float *one = ops_run(g, x, how, k);
    const double error = ops_relative(one, truth, n);
    if (!(error <= tolerance))
        fail_msg("%s, output %zu, %s: relative L2 %.3g, allowed %.3g", what, k, name, error,
                 tolerance);
    for (size_t i = 0; i < sizeof workers / sizeof *workers; i++) {
        how.workers = workers[i];
        float *many = ops_run(g, x, how, k);
        if (memcmp(one, many, n * sizeof *one) != 0)
            fail_msg("%s, output %zu, %s: other bits with %u workers", what, k, name, workers[i]);
        vx_free(many);
    }
    vx_free(one);
    return error;
}

size_t ops_ways(bool bf16, ops_how ways[OPS_WAYS]) {
    /* With the baseline's kernels every convolution that oneDNN can do goes there, but for those
     * that Winograd's algorithm takes. */
    static const ops_how floats[OPS_WAYS] = {
        {.isa = VX_ISA_BASELINE, .own_only = true},
        {.isa = VX_ISA_AVX2, .own_only = true},
        {.isa = VX_ISA_AVX512, .own_only = true},
        {.isa = VX_ISA_AVX512, .own_only = true, .direct_only = true},
        {.isa = VX_ISA_BASELINE, .direct_only = true},
        {.isa = VX_ISA_BEST}};
    static const ops_how halves[OPS_WAYS] = {
        {.isa = VX_ISA_BASELINE, .own_only = true, .bf16 = true},
        {.isa = VX_ISA_AVX512, .own_only = true, .bf16 = true},
        {.isa = VX_ISA_AVX512, .bf16 = true, .direct_only = true},
        {.isa = VX_ISA_BEST, .bf16 = true}};
    const ops_how *all = bf16 ? halves : floats;
    const size_t listed = bf16 ? 4 : 6;
    size_t count = 0;
    for (size_t i = 0; i < listed; i++) {
        if (!(bf16 ? ops_bf16_kernels(all[i].isa) : ops_kernels(all[i].isa))) continue;
        ways[count] = all[i];
        ways[count++].workers = 1;
    }
    return count;
}

/* All outputs of g, computed in every way, against the reference. */
static double check_ways(const vx_graph *g, bool bf16, const char *what, double tolerance) {
    ops_how ways[OPS_WAYS];
    const size_t count = ops_ways(bf16, ways);
    double worst = 0;
    float *x = ops_input(g, 12345);
    size_t k = 0;
    for (size_t i = 0; i < g->value_count; i++) {
        if (!g->values[i].output) continue;
        const size_t n = vx_shape_elements(g->values[i].shape);
        float *truth = ops_run(g, x, ops_reference, k);
        for (size_t way = 0; way < count; way++) {
            const double allowed = bf16 && n < 64 ? 2 * tolerance : tolerance;
            const double error = check_way(g, x, truth, k, n, ways[way], what, allowed);
            if (error > worst) worst = error;
        }
        vx_free(truth);
        k++;
    }
    vx_free(x);
    return worst;
}

double ops_check(const vx_graph *g, const char *what, double tolerance) {
    return check_ways(g, false, what, tolerance);
}

double ops_check_bf16(const vx_graph *g, const char *what, double tolerance) {
    return check_ways(g, true, what, tolerance);
}
