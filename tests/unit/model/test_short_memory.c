/* Every allocation of opening a model and building its graph fails once: each time one line, no
 * crash and (under ASan) no leak. The linker routes aligned_alloc here (see CMakeLists.txt). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/memory.h"
#include "model_writer.h"

static unsigned long calls, failing; /* the failing-th call fails; 0: none */

void *__real_aligned_alloc(size_t alignment, size_t size);
void *__wrap_aligned_alloc(size_t alignment, size_t size);

void *__wrap_aligned_alloc(size_t alignment, size_t size) {
    return ++calls == failing ? NULL : __real_aligned_alloc(alignment, size);
}

/* Opens, builds, copies, fuses, lists; frees everything. */
static vx_status use_model(const char *path, vx_error *err) {
    vx_model *model = NULL;
    vx_graph *graph = NULL, *copy = NULL;
    vx_tensor_spec *specs = NULL;
    size_t count = 0;
    vx_status status = vx_model_open(path, &model, err);
    if (!status) status = vx_model_graph(model, 1, model->recipe->patch, &graph, err);
    if (!status) status = vx_graph_copy(graph, &copy, err);
    if (!status) status = vx_graph_fuse(copy, err);
    if (!status) status = vx_network_tensors(&model->recipe->network, &specs, &count, err);
    vx_free(specs);
    vx_graph_free(copy);
    vx_graph_free(graph);
    vx_model_close(model);
    return status;
}

static void each_allocation_fails_once(void **state) {
    (void)state;
    bytes b = model_bytes(small_recipe, VX_F16, false);
    char path[64];
    write_temporary(b.data, b.size, path);
    failing = calls = 0;
    assert_int_equal(use_model(path, NULL), VX_OK);
    const unsigned long all = calls;
    assert_true(all > 20);
    for (unsigned long k = 1; k <= all; k++) {
        vx_error err = {0};
        failing = k;
        calls = 0;
        assert_int_equal(use_model(path, &err), VX_ERR_RESOURCE);
        if (!strstr(err.text, "memory")) fail_msg("allocation %lu: \"%s\"", k, err.text);
    }
    failing = 0;
    unlink(path);
    free(b.data);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(each_allocation_fails_once)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
