/* The CUDA module as a file: it loads, shows one symbol, refuses another version; and opening a
 * device gives a device or one line that says why there is none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include "backend/module.h"

static void loads(void **state) {
    (void)state;
    void *handle = dlopen(VX_MODULE_FILE, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (!handle) fail_msg("%s", dlerror());
    vx_module_entry entry = NULL;
    void *symbol = dlsym(handle, VX_MODULE_SYMBOL);
    memcpy(&entry, &symbol, sizeof entry);
    assert_non_null(entry);
    assert_null(entry(VX_MODULE_ABI + 1));
    const vx_backend *backend = entry(VX_MODULE_ABI);
    assert_non_null(backend);
    assert_string_equal(backend->name, "cuda");
    assert_null(dlsym(handle, "vx_cuda_backend")); /* one symbol */
    dlclose(handle);
}

static void opens_or_says_why(void **state) {
    (void)state;
    vx_error err = {0};
    vx_device *device = NULL;
    char line[160];
    void *handle = dlopen(VX_MODULE_FILE, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    vx_module_entry entry = NULL;
    void *symbol = handle ? dlsym(handle, VX_MODULE_SYMBOL) : NULL;
    memcpy(&entry, &symbol, sizeof entry);
    assert_non_null(entry);
    const vx_backend *backend = entry(VX_MODULE_ABI);
    const vx_status status = backend->open(0, NULL, &device, &err);
    if (status == VX_OK) {
        backend->describe(device, line, sizeof line);
        printf("%s\n", line);
        backend->close(device);
    } else {
        printf("%s\n", err.text);
        assert_int_equal(status, VX_ERR_RESOURCE);
        assert_null(device);
        assert_true(err.text[0] && !strchr(err.text, '\n'));
    }
    assert_int_equal(backend->open(1000, NULL, &device, &err), VX_ERR_RESOURCE);
    dlclose(handle);
}

/* This program has no module beside it. */
static void absence_has_a_reason(void **state) {
    (void)state;
    vx_error err = {0};
    vx_device *device;
    assert_int_equal(vx_backend_cuda.open(0, NULL, &device, &err), VX_ERR_RESOURCE);
    assert_null(device);
    assert_string_equal(err.text, "CUDA is not available: the CUDA module is not installed (use "
                                  "--device cpu)");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(loads),
        cmocka_unit_test(opens_or_says_why),
        cmocka_unit_test(absence_has_a_reason),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
