#include "cuda_run.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "cuda/plan.h"

enum { GUARD = 64 };

static vx_device *device; /* opened once: that takes longer than most tests */

bool cuda_there(void) {
    static char folder[] = "/tmp/voxmamba-cuda-test-XXXXXX";
    vx_error err;
    char line[160];
    if (vx_cuda_backend.open(0, NULL, &device, &err) != VX_OK) {
        printf("no CUDA device: %s\n", err.text);
        return false;
    }
    vx_cuda_backend.describe(device, line, sizeof line);
    printf("%s\n", line);
    if (!mkdtemp(folder) || setenv("XDG_CACHE_HOME", folder, 1) != 0) {
        printf("no folder for plans\n");
        exit(1);
    }
    return true;
}

/* Output memory with guards; NaN everywhere before a run. */
static void poison(unsigned char *block, size_t bytes) {
    memset(block, 0x5a, GUARD);
    memset(block + GUARD, 0xff, bytes);
    memset(block + GUARD + bytes, 0x5a, GUARD);
}

static void check(const unsigned char *block, size_t bytes) {
    for (size_t i = 0; i < GUARD; i++) {
        assert_int_equal(block[i], 0x5a);
        assert_int_equal(block[GUARD + bytes + i], 0x5a);
    }
}

/* One run; results[k] is made by the first and compared by the second. */
static void run_once(vx_plan *plan, const vx_graph *g, const float *in, cuda_how how,
                     float **results, bool first) {
    vx_error err = {0};
    unsigned char **blocks = vx_alloc_zero(g->value_count, sizeof *blocks);
    float **out = vx_alloc_zero(g->value_count, sizeof *out);
    size_t k = 0;
    assert_true(blocks && out);
    for (size_t v = 0; v < g->value_count; v++) {
        if (!g->values[v].output) continue;
        const size_t bytes = vx_shape_elements(g->values[v].shape) * sizeof(float);
        blocks[k] = vx_alloc(bytes + 2 * GUARD);
        assert_non_null(blocks[k]);
        poison(blocks[k], bytes);
        out[k] = (float *)(void *)(blocks[k] + GUARD);
        k++;
    }
    if (vx_cuda_poison(plan, &err) != VX_OK) fail_msg("%s", err.text);
    if (vx_cuda_backend.run(plan, NULL, in, out, &err) != VX_OK) fail_msg("%s", err.text);
    if (how.separate && vx_cuda_check_guards(plan, &err) != VX_OK) fail_msg("%s", err.text);
    k = 0;
    for (size_t v = 0; v < g->value_count; v++) {
        if (!g->values[v].output) continue;
        const size_t bytes = vx_shape_elements(g->values[v].shape) * sizeof(float);
        check(blocks[k], bytes);
        if (first) {
            results[k] = vx_alloc(bytes);
            assert_non_null(results[k]);
            memcpy(results[k], out[k], bytes);
        } else if (memcmp(results[k], out[k], bytes) != 0) {
            fail_msg("output %zu: other bits in the second run", k);
        }
        vx_free(blocks[k]);
        k++;
    }
    vx_free(blocks);
    vx_free(out);
}

void cuda_done(void) {
    vx_cuda_backend.close(device);
    device = NULL;
}

size_t cuda_run_all(const vx_graph *g, const float *in, cuda_how how, float **results) {
    const vx_compile_options options = {.precision = how.precision, .eager = how.eager};
    vx_error err = {0};
    vx_plan *plan;
    size_t count = 0;
    device->separate = how.separate;
    if (vx_cuda_backend.compile(device, g, &options, &plan, &err) != VX_OK)
        fail_msg("%s", err.text);
    run_once(plan, g, in, how, results, true);
    run_once(plan, g, in, how, results, false);
    vx_cuda_backend.plan_free(plan);
    for (size_t v = 0; v < g->value_count; v++) count += g->values[v].output;
    return count;
}

const vx_backend *cuda_backend(void) { return &vx_cuda_backend; }

size_t cuda_steps(const vx_graph *g, vx_precision precision) {
    const vx_compile_options options = {.precision = precision};
    vx_error err = {0};
    vx_plan *plan;
    vx_plan_info info;
    if (vx_cuda_backend.compile(device, g, &options, &plan, &err) != VX_OK)
        fail_msg("%s", err.text);
    vx_cuda_backend.plan_info(plan, &info);
    vx_cuda_backend.plan_free(plan);
    return info.steps;
}

bool cuda_has_matrix_units(void) { return device->major >= 8; }
