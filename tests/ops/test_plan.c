/* The planner: lifetimes and placement, in-place ops, outputs that are read again, budgets, errors,
 * and that a caller's OpenMP settings survive. */
#include "ops.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "backend/placement.h"
#include "base/memory.h"

#ifdef VX_HAVE_ONEDNN
#include <omp.h>
#endif

static const size_t one[3] = {1, 1, 1}, three[3] = {3, 3, 3};

static bool overlap(const vx_buffer *a, const vx_buffer *b, size_t guard) {
    return a->first <= b->last && b->first <= a->last && a->offset < b->offset + b->bytes + guard &&
           b->offset < a->offset + a->bytes + guard;
}

/* The buffer at the start of the chain that i is over. */
static size_t first_of(const vx_buffer *b, size_t i) {
    while (b[i].shared) i = (size_t)b[i].over;
    return i;
}

/* A buffer like the one before, that takes its memory over when it dies. */
static vx_buffer over(const vx_buffer *b, size_t i, uint64_t *seed) {
    return (vx_buffer){.bytes = b[i].bytes,
                       .first = b[i].last,
                       .last = b[i].last + (size_t)(5 * (ops_random(seed) + 1)),
                       .shared = true,
                       .over = (int)i,
                       .lead = VX_ALIGN * (size_t)(3 * (ops_random(seed) + 1))};
}

/* Random lifetimes: nothing that is alive together overlaps unless one is over the other, and then
 * by its lead; everything is aligned and inside. */
static void layout_is_sound(void **state) {
    (void)state;
    uint64_t seed = 11;
    for (int round = 0; round < 200; round++) {
        vx_buffer b[40];
        size_t total, sum = 0, guard = round % 2 ? 64 : 0;
        for (size_t i = 0; i < 40; i++) {
            const size_t first = (size_t)(30 * (ops_random(&seed) + 1));
            b[i] = (vx_buffer){.bytes = (size_t)(500 * (ops_random(&seed) + 1)),
                               .first = first,
                               .last = first + (size_t)(5 * (ops_random(&seed) + 1))};
            if (i && b[i - 1].bytes && round % 4 > 1 && ops_random(&seed) > 0)
                b[i] = over(b, i - 1, &seed);
            sum += b[i].bytes + b[i].lead + guard + VX_ALIGN;
        }
        assert_true(vx_layout(b, 40, guard, &total));
        assert_true(total <= sum);
        for (size_t i = 0; i < 40; i++) {
            if (!b[i].bytes) continue;
            assert_int_equal(b[i].offset % VX_ALIGN, 0);
            assert_true(b[i].offset + b[i].bytes + guard <= total);
            if (b[i].shared) assert_int_equal(b[b[i].over].offset, b[i].offset + b[i].lead);
            for (size_t k = 0; k < i; k++)
                if (b[k].bytes && first_of(b, i) != first_of(b, k))
                    assert_false(overlap(&b[i], &b[k], guard));
        }
    }
}

/* What a view is made of lives as long as its last reader, and only there memory is taken over. */
static void views_and_sharing(void **state) {
    (void)state;
    ops_weights w = {.seed = 3};
    vx_graph *g;
    vx_error err = {0};
    assert_int_equal(vx_graph_create(&g, &err), VX_OK);
    const int x = vx_graph_input(g, (vx_shape){1, 2, 2, 2, 4});
    const int a = vx_graph_activation(g, x, VX_ACT_RELU, 0);
    const int b = vx_graph_activation(g, x, VX_ACT_SILU, 0);
    const int cat = vx_graph_concat(g, a, b);
    const int y = vx_graph_linear(g, cat, ops_weight(&w, 32, 1, 0), (vx_weight){0}, 4);
    const int z = vx_graph_linear(g, cat, ops_weight(&w, 32, 1, 0), (vx_weight){0}, 4);
    vx_graph_output(g, vx_graph_add(g, y, z, 1));
    assert_int_equal(vx_graph_finish(g, &err), VX_OK);
    for (int view = 0; view < 2; view++) {
        vx_buffer buffers[7] = {{0}};
        buffers[cat].view = view == 1;
        vx_lifetimes(g, buffers);
        assert_int_equal(buffers[a].first, a);
        assert_int_equal(buffers[a].last, view ? z : cat);
        assert_int_equal(buffers[b].last, view ? z : cat);
        assert_int_equal(buffers[cat].last, z);
        assert_int_equal(buffers[x].last, b);
        for (int i = 0; i < 7; i++) buffers[i].bytes = 128;
        buffers[y].in_place = buffers[z].in_place = true;
        buffers[y].over = buffers[z].over = b;
        vx_share_buffers(g, buffers);
        assert_false(buffers[y].shared);
        assert_true(buffers[z].shared == (view == 1));
    }
    vx_graph_free(g);
    ops_weights_free(&w);
}

/* By hand: sizes 128, 64, 64; the first two are alive together, the third only after the first. */
static void layout_reuses(void **state) {
    (void)state;
    vx_buffer b[] = {{.bytes = 128, .first = 0, .last = 1},
                     {.bytes = 64, .first = 1, .last = 3},
                     {.bytes = 64, .first = 2, .last = 3}};
    size_t total;
    assert_true(vx_layout(b, 3, 0, &total));
    assert_int_equal(b[0].offset, 0);
    assert_int_equal(b[1].offset, 128);
    assert_int_equal(b[2].offset, 0);
    assert_int_equal(total, 192);
}

/* Pairs of values, the second of each over the first, as residual blocks in a row leave them. Each
 * meets only the pair before: in the order of their first use the third block ends on top of two
 * others. */
static void layout_tries_again(void **state) {
    (void)state;
    vx_buffer b[] = {{.bytes = 4096, .first = 0, .last = 2},
                     {.bytes = 4096, .first = 1, .last = 2},
                     {.bytes = 4096, .first = 2, .last = 4, .shared = true, .over = 1, .lead = 64},
                     {.bytes = 4096, .first = 3, .last = 4},
                     {.bytes = 4096, .first = 4, .last = 9, .shared = true, .over = 3, .lead = 64}};
    size_t total;
    assert_true(vx_layout(b, 5, 0, &total));
    assert_true(total <= 2 * 4096 + 2 * 64);
}

/* A small net with everything that stresses the plan: a value read late, an output that is read
 * again, ops that work in place, additions of a value to itself, both fused forms. */
static vx_graph *build_net(ops_weights *w, size_t n) {
    vx_graph *g;
    vx_error err;
    const vx_scan_order orders[2] = {{{0, 1, 2}, false}, {{2, 0, 1}, true}};
    assert_int_equal(vx_graph_create(&g, &err), VX_OK);
    const int x = vx_graph_input(g, (vx_shape){n, 6, 7, 9, 2});
    int a = vx_graph_conv(g, x, ops_weight(w, 16 * 2 * 27, 0.2f, 0), ops_weight(w, 16, 1, 0), 16,
                          three, one, one);
    a = vx_graph_instance_norm(g, a, ops_weight(w, 16, 0.2f, 1), ops_weight(w, 16, 1, 0), 1e-5f);
    a = vx_graph_activation(g, a, VX_ACT_LEAKY_RELU, 0.01f);
    vx_graph_name(g, a, "stem");
    int b = vx_graph_conv(g, a, ops_weight(w, 16 * 16 * 27, 0.1f, 0), (vx_weight){0}, 16, three,
                          one, one);
    b = vx_graph_instance_norm(g, b, ops_weight(w, 16, 0.2f, 1), ops_weight(w, 16, 1, 0), 1e-5f);
    b = vx_graph_activation(g, vx_graph_add(g, b, a, 1.0f), VX_ACT_LEAKY_RELU, 0.01f);
    vx_graph_name(g, b, "block");
    vx_graph_output(g, b);
    int m = vx_graph_layer_norm(g, b, ops_weight(w, 16, 0.2f, 1), ops_weight(w, 16, 1, 0), 1e-5f);
    int sum = m;
    for (int i = 0; i < 2; i++) {
        const vx_mamba mamba = ops_mamba(w, 16, 32, 16, 4, 1, orders[i]);
        sum = vx_graph_add(g, sum, vx_graph_mamba(g, m, &mamba), 0.5f);
    }
    sum = vx_graph_add(g, sum, sum, 0.5f);
    int y = vx_graph_concat(g, sum, a);
    y = vx_graph_linear(g, y, ops_weight(w, 5 * 32, 0.3f, 0), ops_weight(w, 5, 1, 0), 5);
    vx_graph_output(g, y);
    vx_graph_output(g, vx_graph_activation(g, x, VX_ACT_SILU, 0));
    if (vx_graph_finish(g, &err) != VX_OK) fail_msg("%s", err.text);
    return g;
}

static void whole_net(void **state) {
    (void)state;
    for (size_t n = 1; n <= 2; n++) {
        ops_weights w = {.seed = 1234, .coarse = true};
        vx_graph *g = build_net(&w, n);
        printf("net: relative L2 %.2g\n", ops_check(g, "net", 3e-6));
        printf("net, bf16: relative L2 %.2g\n", ops_check_bf16(g, "net", 2 * OPS_BF16));
        vx_graph_free(g);
        ops_weights_free(&w);
    }
}

/* Two runs of one plan give the same bits, whatever the arena held. */
static void runs_repeat(void **state) {
    (void)state;
    ops_weights w = {.seed = 1234};
    vx_graph *g = build_net(&w, 1);
    vx_error err = {0};
    vx_pool *pool;
    vx_device *device;
    vx_plan *plan;
    vx_plan_info info;
    const vx_compile_options options = {0};
    assert_int_equal(vx_pool_create(3, &pool, &err), VX_OK);
    assert_int_equal(vx_backend_cpu.open(0, pool, &device, &err), VX_OK);
    assert_int_equal(vx_backend_cpu.compile(device, g, &options, &plan, &err), VX_OK);
    vx_backend_cpu.plan_info(plan, &info);
    void *arena = vx_alloc(info.arena_bytes);
    float *x = ops_input(g, 5), *out[2][3];
    const size_t sizes[3] = {6 * 7 * 9 * 16, 6 * 7 * 9 * 5, 6 * 7 * 9 * 2};
    for (int run = 0; run < 2; run++) {
        for (int k = 0; k < 3; k++) out[run][k] = vx_alloc(sizes[k] * sizeof(float));
        memset(arena, run ? 0xff : 0, info.arena_bytes);
        assert_int_equal(vx_backend_cpu.run(plan, arena, x, out[run], &err), VX_OK);
    }
    for (int k = 0; k < 3; k++) {
        assert_memory_equal(out[0][k], out[1][k], sizes[k] * sizeof(float));
        vx_free(out[0][k]);
        vx_free(out[1][k]);
    }
    vx_free(x);
    vx_free(arena);
    vx_backend_cpu.plan_free(plan);
    vx_backend_cpu.close(device);
    vx_pool_free(pool);
    vx_graph_free(g);
    ops_weights_free(&w);
}

static void budget_and_errors(void **state) {
    (void)state;
    ops_weights w = {.seed = 1234};
    vx_graph *g = build_net(&w, 1);
    vx_error err = {0};
    vx_pool *pool;
    vx_device *device;
    vx_plan *plan;
    vx_plan_info info;
    char numbers[2][40], text[200];
    assert_int_equal(vx_pool_create(2, &pool, &err), VX_OK);
    assert_int_equal(vx_backend_cpu.open(1, pool, &device, &err), VX_ERR_RESOURCE);
    assert_null(device);
    assert_int_equal(vx_backend_cpu.open(0, pool, &device, &err), VX_OK);
    vx_backend_cpu.describe(device, text, sizeof text);
    assert_non_null(strstr(text, "2 threads"));
    vx_compile_options options = {0};
    assert_int_equal(vx_backend_cpu.compile(device, g, &options, &plan, &err), VX_OK);
    vx_backend_cpu.plan_info(plan, &info);
    vx_backend_cpu.plan_free(plan);
    const size_t needed = info.arena_bytes + info.weight_bytes;
    /* Work: within the graph's own count. */
    double flops = 0;
    for (size_t i = 0; i < g->op_count; i++) flops += vx_op_flops(g, &g->ops[i]);
    assert_true(fabs(info.flops - flops) < 0.01 * flops);
    assert_true(info.steps > 5 && info.steps < g->op_count);
    options.memory_budget = needed;
    assert_int_equal(vx_backend_cpu.compile(device, g, &options, &plan, &err), VX_OK);
    vx_backend_cpu.plan_free(plan);
    options.memory_budget = needed - 1;
    assert_int_equal(vx_backend_cpu.compile(device, g, &options, &plan, &err), VX_ERR_RESOURCE);
    assert_null(plan);
    snprintf(numbers[0], sizeof numbers[0], "%zu", needed);
    snprintf(numbers[1], sizeof numbers[1], "%zu", needed - 1);
    assert_non_null(strstr(err.text, numbers[0]));
    assert_non_null(strstr(err.text, numbers[1]));
    options = (vx_compile_options){.precision = VX_PRECISION_FP16};
    assert_int_equal(vx_backend_cpu.compile(device, g, &options, &plan, &err), VX_ERR_RESOURCE);
    assert_null(plan);
    vx_backend_cpu.close(device);
    vx_pool_free(pool);
    vx_graph_free(g);
    ops_weights_free(&w);
}

/* bfloat16 where the processor does not multiply it: one line that says so. */
static void bf16_needs_its_processor(void **state) {
    (void)state;
    ops_weights w = {.seed = 1234};
    vx_graph *g = build_net(&w, 1);
    vx_error err = {0};
    vx_pool *pool;
    vx_device *device;
    vx_plan *plan;
    const vx_compile_options options = {.precision = VX_PRECISION_BF16};
    assert_int_equal(vx_pool_create(1, &pool, &err), VX_OK);
    assert_int_equal(vx_cpu_open_isa(VX_ISA_BASELINE, pool, &device, &err), VX_OK);
    assert_int_equal(vx_backend_cpu.compile(device, g, &options, &plan, &err), VX_ERR_RESOURCE);
    assert_null(plan);
    assert_string_equal(err.text, "precision bf16 is not available on this processor, which lacks "
                                  "AVX512_BF16 (use --precision fp32)");
    vx_backend_cpu.close(device);
    vx_pool_free(pool);
    vx_graph_free(g);
    ops_weights_free(&w);
}

/* Values and matrices in half the bytes; float scratch and Winograd's filters stay as they are. */
static void bf16_takes_less(void **state) {
    (void)state;
    ops_weights w = {.seed = 1234};
    vx_graph *g = build_net(&w, 1);
    vx_error err = {0};
    vx_pool *pool;
    vx_device *device;
    vx_plan_info info[2];
    assert_int_equal(vx_pool_create(1, &pool, &err), VX_OK);
    assert_int_equal(vx_backend_cpu.open(0, pool, &device, &err), VX_OK);
    device->bf16_kernels = ops_bf16_kernels(VX_ISA_BASELINE);
    for (int bf16 = 0; bf16 < 2; bf16++) {
        const vx_compile_options options = {.precision =
                                                bf16 ? VX_PRECISION_BF16 : VX_PRECISION_FP32};
        vx_plan *plan;
        assert_int_equal(vx_backend_cpu.compile(device, g, &options, &plan, &err), VX_OK);
        vx_backend_cpu.plan_info(plan, &info[bf16]);
        vx_backend_cpu.plan_free(plan);
    }
    printf("arena: %zu bytes, bf16 %zu; weights %zu, %zu\n", info[0].arena_bytes,
           info[1].arena_bytes, info[0].weight_bytes, info[1].weight_bytes);
    assert_true(info[1].weight_bytes < info[0].weight_bytes);
    assert_true(info[1].arena_bytes < info[0].arena_bytes);
    vx_backend_cpu.close(device);
    vx_pool_free(pool);
    vx_graph_free(g);
    ops_weights_free(&w);
}

/* The arena is much smaller than the sum of all values: one buffer serves all layers. */
static void arena_is_reused(void **state) {
    (void)state;
    ops_weights w = {.seed = 3};
    vx_graph *g;
    vx_error err = {0};
    vx_pool *pool;
    vx_device *device;
    vx_plan *plan;
    vx_plan_info info;
    const vx_compile_options options = {0};
    assert_int_equal(vx_graph_create(&g, &err), VX_OK);
    int x = vx_graph_input(g, (vx_shape){1, 16, 16, 16, 8});
    for (int i = 0; i < 10; i++) {
        x = vx_graph_linear(g, x, ops_weight(&w, 64, 1, 0), (vx_weight){0}, 8);
        x = vx_graph_activation(g, x, VX_ACT_RELU, 0);
    }
    vx_graph_output(g, x);
    assert_int_equal(vx_graph_finish(g, &err), VX_OK);
    assert_int_equal(vx_pool_create(1, &pool, &err), VX_OK);
    assert_int_equal(vx_backend_cpu.open(0, pool, &device, &err), VX_OK);
    assert_int_equal(vx_backend_cpu.compile(device, g, &options, &plan, &err), VX_OK);
    vx_backend_cpu.plan_info(plan, &info);
    const size_t value = 16 * 16 * 16 * 8 * sizeof(float);
    assert_true(info.arena_bytes >= value && info.arena_bytes < 2 * value);
    vx_backend_cpu.plan_free(plan);
    vx_backend_cpu.close(device);
    vx_pool_free(pool);
    vx_graph_free(g);
    ops_weights_free(&w);
}

/* Channels: more than one tile of any matrix kernel. */
enum { CHAIN = 80 };

/* Layer norm, two mixers over several waves and a linear layer. apart: every value is an output,
 * so that none shares its memory with another. */
static vx_graph *mixer_chain(ops_weights *w, bool apart) {
    vx_graph *g;
    vx_error err = {0};
    const vx_scan_order orders[2] = {{{0, 1, 2}, false}, {{2, 0, 1}, true}};
    assert_int_equal(vx_graph_create(&g, &err), VX_OK);
    int x = vx_graph_input(g, (vx_shape){1, 16, 24, 24, CHAIN});
    x = vx_graph_layer_norm(g, x, ops_weight(w, CHAIN, 0.2f, 1), ops_weight(w, CHAIN, 1, 0), 1e-5f);
    for (int i = 0; i < 2; i++) {
        if (apart) vx_graph_output(g, x);
        const vx_mamba mamba = ops_mamba(w, CHAIN, 32, 16, 4, 1, orders[i]);
        x = vx_graph_mamba(g, x, &mamba);
    }
    if (apart) vx_graph_output(g, x);
    x = vx_graph_linear(g, x, ops_weight(w, CHAIN * CHAIN, 0.3f, 0), ops_weight(w, CHAIN, 1, 0),
                        CHAIN);
    if (apart) vx_graph_output(g, x);
    x = vx_graph_activation(g, x, VX_ACT_SILU, 0);
    vx_graph_output(g, x);
    if (vx_graph_finish(g, &err) != VX_OK) fail_msg("%s", err.text);
    return g;
}

/* Mixers and linear layers that write over their input: the same bits, in one buffer. */
static void in_place(void **state) {
    (void)state;
    const size_t value = 16 * 24 * 24 * CHAIN * sizeof(float);
    size_t arena[2];
    float *result[2], *x = NULL;
    for (int apart = 0; apart < 2; apart++) {
        ops_weights w = {.seed = 77};
        vx_graph *g = mixer_chain(&w, apart == 1);
        vx_error err = {0};
        vx_pool *pool;
        vx_device *device;
        vx_plan *plan;
        vx_plan_info info;
        const vx_compile_options options = {0};
        assert_int_equal(vx_pool_create(3, &pool, &err), VX_OK);
        assert_int_equal(vx_backend_cpu.open(0, pool, &device, &err), VX_OK);
        assert_int_equal(vx_backend_cpu.compile(device, g, &options, &plan, &err), VX_OK);
        vx_backend_cpu.plan_info(plan, &info);
        arena[apart] = info.arena_bytes;
        if (!x) x = ops_input(g, 5);
        float *out[5], *memory = vx_alloc(info.arena_bytes);
        const int outputs = apart ? 5 : 1;
        for (int k = 0; k < outputs; k++) out[k] = vx_alloc(value);
        assert_int_equal(vx_backend_cpu.run(plan, memory, x, out, &err), VX_OK);
        for (int k = 0; k + 1 < outputs; k++) vx_free(out[k]);
        result[apart] = out[outputs - 1];
        vx_free(memory);
        vx_backend_cpu.plan_free(plan);
        vx_backend_cpu.close(device);
        vx_pool_free(pool);
        vx_graph_free(g);
        ops_weights_free(&w);
    }
    assert_memory_equal(result[0], result[1], value);
    assert_true(arena[0] <= arena[1] + value + 4096);
    for (int k = 0; k < 2; k++) vx_free(result[k]);
    vx_free(x);
}

/* An input that is an output as well. */
static void input_as_output(void **state) {
    (void)state;
    vx_graph *g;
    vx_error err = {0};
    assert_int_equal(vx_graph_create(&g, &err), VX_OK);
    vx_graph_output(g, vx_graph_input(g, (vx_shape){1, 2, 3, 4, 5}));
    assert_int_equal(vx_graph_finish(g, &err), VX_OK);
    float *x = ops_input(g, 5), *y = ops_run(g, x, ops_fast, 0);
    assert_memory_equal(x, y, 2 * 3 * 4 * 5 * sizeof *x);
    vx_free(x);
    vx_free(y);
    vx_graph_free(g);
}

/* An output in the arena: the same bits, and the memory of what was alive before it is used again.
 */
static void output_in_the_arena(void **state) {
    (void)state;
    ops_weights w = {.seed = 9};
    vx_graph *g;
    vx_error err = {0};
    vx_pool *pool;
    vx_device *device;
    float *result[2] = {NULL, NULL};
    unsigned char *all[2];
    vx_plan_info info[2];
    const size_t n = 8 * 9 * 10 * 30;
    assert_int_equal(vx_graph_create(&g, &err), VX_OK);
    int x = vx_graph_input(g, (vx_shape){1, 8, 9, 10, 1});
    for (int i = 0; i < 3; i++)
        x = vx_graph_conv(g, x, ops_weight(&w, 16 * (i ? 16 : 1) * 27, 0.2f, 0),
                          ops_weight(&w, 16, 1, 0), 16, three, one, one);
    vx_graph_output(
        g, vx_graph_linear(g, x, ops_weight(&w, 30 * 16, 0.3f, 0), ops_weight(&w, 30, 1, 0), 30));
    assert_int_equal(vx_graph_finish(g, &err), VX_OK);
    float *in = ops_input(g, 5);
    assert_int_equal(vx_pool_create(2, &pool, &err), VX_OK);
    assert_int_equal(vx_backend_cpu.open(0, pool, &device, &err), VX_OK);
    for (int k = 0; k < 2; k++) {
        const vx_compile_options options = {.output_in_arena = k == 1};
        vx_plan *plan;
        assert_int_equal(vx_backend_cpu.compile(device, g, &options, &plan, &err), VX_OK);
        vx_backend_cpu.plan_info(plan, &info[k]);
        assert_int_equal(info[k].output_in_arena, k);
        unsigned char *arena = all[k] = vx_alloc(info[k].arena_bytes);
        if (k == 0) result[k] = vx_alloc(n * sizeof(float));
        assert_int_equal(vx_backend_cpu.run(plan, arena, in, k ? NULL : &result[0], &err), VX_OK);
        if (k == 1) result[k] = (float *)(void *)(arena + info[k].output_offset);
        vx_backend_cpu.plan_free(plan);
    }
    assert_memory_equal(result[0], result[1], n * sizeof(float));
    assert_true(info[1].arena_bytes < info[0].arena_bytes + n * sizeof(float));
    vx_free(result[0]);
    for (int k = 0; k < 2; k++) vx_free(all[k]);
    vx_free(in);
    vx_backend_cpu.close(device);
    vx_pool_free(pool);
    vx_graph_free(g);
    ops_weights_free(&w);
}

#ifdef VX_HAVE_ONEDNN
/* A caller's OpenMP thread count is what it was. */
static void openmp_is_left_alone(void **state) {
    (void)state;
    ops_weights w = {.seed = 1234};
    vx_graph *g = build_net(&w, 1);
    omp_set_num_threads(5);
    float *x = ops_input(g, 5), *y = ops_run(g, x, (ops_how){.workers = 3, .isa = VX_ISA_BEST}, 0);
    assert_int_equal(omp_get_max_threads(), 5);
    omp_set_num_threads(1);
    float *again = ops_run(g, x, ops_fast, 0);
    assert_memory_equal(y, again, 6 * 7 * 9 * 16 * sizeof *y);
    vx_free(x);
    vx_free(y);
    vx_free(again);
    vx_graph_free(g);
    ops_weights_free(&w);
}
#endif

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(layout_is_sound),
        cmocka_unit_test(views_and_sharing),
        cmocka_unit_test(layout_reuses),
        cmocka_unit_test(layout_tries_again),
        cmocka_unit_test(whole_net),
        cmocka_unit_test(runs_repeat),
        cmocka_unit_test(budget_and_errors),
        cmocka_unit_test(bf16_needs_its_processor),
        cmocka_unit_test(bf16_takes_less),
        cmocka_unit_test(arena_is_reused),
        cmocka_unit_test(in_place),
        cmocka_unit_test(input_as_output),
        cmocka_unit_test(output_in_the_arena),
#ifdef VX_HAVE_ONEDNN
        cmocka_unit_test(openmp_is_left_alone),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
