/* Memory of a session: every allocation fails once (each time one line, no crash and, under ASan,
 * no leak), and the plan's bytes are what is really allocated. The linker routes aligned_alloc and
 * free here (see CMakeLists.txt). */
#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fake_model.h"
#include "infer/postprocess.h"
#include "infer/session.h"

static unsigned long calls, failing; /* the failing-th call fails; 0: none */
/* Signed: the fake model frees blocks that were not counted. */
static long long live, peak;

void *__real_aligned_alloc(size_t alignment, size_t size);
void *__wrap_aligned_alloc(size_t alignment, size_t size);
void __real_free(void *p);
void __wrap_free(void *p);

void *__wrap_aligned_alloc(size_t alignment, size_t size) {
    if (++calls == failing) return NULL;
    void *p = __real_aligned_alloc(alignment, size);
    live += (long long)malloc_usable_size(p);
    if (live > peak) peak = live;
    return p;
}

void __wrap_free(void *p) {
    live -= (long long)malloc_usable_size(p);
    __real_free(p);
}

static vx_status ignore_slice(void *user_data, size_t z, const float *data, vx_error *err) {
    (void)user_data;
    (void)z;
    (void)data;
    (void)err;
    return VX_OK;
}

static vx_volume *make_volume(size_t x, size_t y, size_t z, double mm) {
    /* x runs along A, y along I, z along R: RAS asks for a turn. */
    vx_geometry geo = {.dims = {x, y, z},
                       .affine = {{0, 0, mm, 0}, {mm, 0, 0, 0}, {0, -mm, 0, 0}, {0, 0, 0, 1}}};
    vx_volume *volume = NULL;
    assert_int_equal(vx_volume_create(&geo, 1, &volume, NULL), VX_OK);
    for (size_t i = 0; i < x * y * z; i++) volume->data[i] = (float)(i * 7 / 5 % 4);
    return volume;
}

/* One session, one case with probabilities, clean-up of the mask. */
static vx_status use_session(const vx_model *model, vx_pool *pool, vx_volume *volume,
                             vx_error *err) {
    const vx_session_options options = {
        .backend = &fake_backend, .pool = pool, .tta = true, .step = 0.5};
    const vx_predict_options predict_options = {.sink = ignore_slice};
    const unsigned labels[1] = {10};
    vx_session *session = NULL;
    vx_mask *mask = NULL;
    vx_status status = vx_session_create(model, &options, &session, err);
    if (!status) status = vx_session_predict(session, volume, &predict_options, &mask, NULL, err);
    if (!status) status = vx_keep_largest(mask, labels, 1, err);
    if (!status) status = vx_remove_small(mask, 5, err);
    vx_mask_free(mask);
    vx_session_free(session);
    return status;
}

static void each_allocation_fails_once(void **state) {
    (void)state;
    vx_pool *pool = NULL;
    assert_int_equal(vx_pool_create(2, &pool, NULL), VX_OK);
    vx_model *model = fake_model(&(fake_settings){.orientation = "RAS",
                                                  .spacing = {0.7, 0.7, 0.8},
                                                  .image_order = 3,
                                                  .logits_order = 1,
                                                  .normalise = "zscore_nonzero"});
    vx_volume *volume = make_volume(7, 6, 5, 1);
    failing = calls = 0;
    assert_int_equal(use_session(model, pool, volume, NULL), VX_OK);
    const unsigned long all = calls;
    assert_true(all > 40);
    for (unsigned long k = 1; k <= all; k++) {
        vx_error err = {0};
        long long before = live;
        failing = k;
        calls = 0;
        assert_int_equal(use_session(model, pool, volume, &err), VX_ERR_RESOURCE);
        if (!strstr(err.text, "memory")) fail_msg("allocation %lu: \"%s\"", k, err.text);
        assert_int_equal(live, before);
    }
    failing = 0;
    vx_volume_free(volume);
    vx_model_close(model);
    vx_pool_free(pool);
}

/* The plan against the highest sum of live blocks, on grids where the slab, the turning and the
 * resampling weigh most in turn. */
static void planned_bytes_are_the_real_ones(void **state) {
    (void)state;
    static const struct {
        size_t dims[3];
        double spacing; /* the model's, mm; the volume has 1 */
        const char *orientation, *normalise;
    } cases[] = {
        {{60, 50, 40}, 1, NULL, NULL},
        {{60, 50, 40}, 1, "RAS", NULL},
        {{50, 40, 30}, 0.7, NULL, NULL},
        {{60, 50, 40}, 1.9, "RAS", NULL},
        {{9, 8, 300}, 1, NULL, NULL},
        {{40, 300, 9}, 1, NULL, NULL},
        {{60, 50, 40}, 4, NULL, "zscore_nonzero"},
    };
    vx_pool *pool = NULL;
    assert_int_equal(vx_pool_create(2, &pool, NULL), VX_OK);
    for (size_t k = 0; k < 4 * (sizeof cases / sizeof *cases); k++) {
        double mm = cases[k / 4].spacing;
        const vx_predict_wants wants = {.probabilities = k & 1, .consume = k & 2};
        const vx_predict_options predict_options = {
            .sink = wants.probabilities ? ignore_slice : NULL, .consume = wants.consume};
        const size_t *dims = cases[k / 4].dims;
        vx_model *model = fake_model(&(fake_settings){.orientation = cases[k / 4].orientation,
                                                      .normalise = cases[k / 4].normalise,
                                                      .spacing = {mm, mm, mm},
                                                      .patch = {8, 8, 8},
                                                      .crop = "none",
                                                      .image_order = 3,
                                                      .logits_order = 1});
        const vx_session_options options = {.backend = &fake_backend, .pool = pool, .step = 1};
        vx_session *session = NULL;
        vx_mask *mask = NULL;
        vx_predict_plan plan;
        assert_int_equal(vx_session_create(model, &options, &session, NULL), VX_OK);
        long long before = live;
        vx_volume *volume = make_volume(dims[0], dims[1], dims[2], 1);
        assert_int_equal(vx_session_plan(session, &volume->geo, &wants, &plan, NULL), VX_OK);
        peak = live;
        assert_int_equal(vx_session_predict(session, volume, &predict_options, &mask, NULL, NULL),
                         VX_OK);
        /* The weights were allocated before. What may come on top: rounding to 64 bytes and the
         * resampler's scratch, about a slice a worker. */
        double planned = (double)(plan.peak_bytes - plan.weight_bytes);
        double real = (double)(peak - before);
        print_message("%zu: planned %.0f, real %.0f\n", k, planned, real);
        assert_true(real >= planned && real < planned * 1.001 + 65536);
        vx_mask_free(mask);
        vx_session_free(session);
        vx_volume_free(volume);
        vx_model_close(model);
    }
    vx_pool_free(pool);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_allocation_fails_once),
        cmocka_unit_test(planned_bytes_are_the_real_ones),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
