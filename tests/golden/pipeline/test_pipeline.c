/* End to end against nnU-Net v2's own functions: crop, normalisation, resampling, sliding window,
 * mirroring, resampling of the logits, arg-max or regions, and the way back. The cases and their
 * file format: tests/golden/write_pipeline_goldens.py. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "infer/session.h"

#define FOLDER VX_SOURCE_DIR "/tests/golden/pipeline/"

typedef struct golden {
    vx_volume *volume;
    uint32_t mirror, classes, samples;
    double step;
    uint8_t *labels;  /* + 128: a tie */
    uint32_t *voxels; /* samples */
    float *wanted;    /* [sample][class] */
    float *got;
} golden;

static void get(FILE *f, void *to, size_t bytes) {
    assert_int_equal(fread(to, 1, bytes, f), bytes);
}

static void read_image(FILE *f, vx_volume *volume) {
    for (size_t i = 0; i < volume->channels * vx_voxels(&volume->geo); i++) {
        int16_t v;
        get(f, &v, sizeof v);
        volume->data[i] = v;
    }
}

static golden read_golden(const char *name) {
    char path[512], magic[4];
    golden g = {0};
    vx_geometry geo;
    uint32_t version, dims[3], channels;
    snprintf(path, sizeof path, FOLDER "%s.case", name);
    FILE *f = fopen(path, "rb");
    if (!f) fail_msg("%s", path);
    get(f, magic, 4);
    get(f, &version, 4);
    assert_memory_equal(magic, "VXPG", 4);
    assert_int_equal(version, 1);
    get(f, dims, sizeof dims);
    for (int a = 0; a < 3; a++) geo.dims[a] = dims[a];
    get(f, geo.affine, sizeof geo.affine);
    get(f, &channels, 4);
    get(f, &g.mirror, 4);
    get(f, &g.step, 8);
    get(f, &g.classes, 4);
    get(f, &g.samples, 4);
    assert_int_equal(vx_volume_create(&geo, channels, &g.volume, NULL), VX_OK);
    read_image(f, g.volume);
    g.labels = malloc(vx_voxels(&geo));
    get(f, g.labels, vx_voxels(&geo));
    g.voxels = malloc(g.samples * sizeof *g.voxels);
    g.wanted = malloc(g.samples * g.classes * sizeof *g.wanted);
    g.got = calloc(g.samples * g.classes, sizeof *g.got);
    for (size_t i = 0; i < g.samples; i++) {
        get(f, &g.voxels[i], sizeof *g.voxels);
        get(f, g.wanted + i * g.classes, g.classes * sizeof *g.wanted);
    }
    fclose(f);
    return g;
}

static void free_golden(golden *g) {
    vx_volume_free(g->volume);
    free(g->labels);
    free(g->voxels);
    free(g->wanted);
    free(g->got);
}

/* Keeps the sampled voxels of a slice of probabilities. */
static vx_status keep_samples(void *user_data, size_t z, const float *data, vx_error *err) {
    (void)err;
    golden *g = user_data;
    size_t plane = g->volume->geo.dims[0] * g->volume->geo.dims[1];
    for (size_t i = 0; i < g->samples; i++)
        for (size_t c = 0; c < g->classes && g->voxels[i] / plane == z; c++)
            g->got[i * g->classes + c] = data[c * plane + g->voxels[i] % plane];
    return VX_OK;
}

static vx_mask *predict(golden *g, const char *name, unsigned workers, bool probabilities) {
    char path[512];
    vx_error err = {0};
    vx_pool *pool = NULL;
    vx_model *model = NULL;
    vx_session *session = NULL;
    vx_mask *mask = NULL;
    snprintf(path, sizeof path, FOLDER "%s.safetensors", name);
    assert_int_equal(vx_pool_create(workers, &pool, NULL), VX_OK);
    vx_session_options options = {
        .backend = &vx_backend_cpu, .pool = pool, .tta = g->mirror != 0, .step = g->step};
    vx_predict_options predict_options = {0};
    if (probabilities) predict_options = (vx_predict_options){.sink = keep_samples, .sink_data = g};
    if (vx_model_open(path, &model, &err) != VX_OK ||
        vx_session_create(model, &options, &session, &err) != VX_OK ||
        vx_session_predict(session, g->volume, &predict_options, &mask, NULL, &err) != VX_OK)
        fail_msg("%s: %s", name, err.text);
    vx_session_free(session);
    vx_model_close(model);
    vx_pool_free(pool);
    return mask;
}

/* Labels may differ only where the reference itself hangs on less than 1e-3 of a logit. */
static void equals_nnunet(void **state) {
    const char *name = *state;
    golden g = read_golden(name);
    vx_mask *mask = predict(&g, name, 2, true);
    size_t wrong = 0, ties = 0, flipped = 0, foreground = 0;
    assert_memory_equal(&mask->geo, &g.volume->geo, sizeof mask->geo);
    for (size_t i = 0; i < vx_voxels(&mask->geo); i++) {
        bool tie = g.labels[i] & 128, differs = vx_mask_get(mask, i) != (g.labels[i] & 127u);
        ties += tie;
        flipped += tie && differs;
        wrong += !tie && differs;
        foreground += (g.labels[i] & 127) != 0;
    }
    double worst = 0;
    for (size_t i = 0; i < g.samples * g.classes; i++)
        worst = fmax(worst, fabs((double)g.got[i] - (double)g.wanted[i]));
    print_message("%s: %zu labelled voxels, %zu of %zu ties decided otherwise, probabilities "
                  "within %.1e\n",
                  name, foreground, flipped, ties, worst);
    assert_int_equal(wrong, 0);
    assert_true(worst < 5e-6);
    assert_true(foreground > vx_voxels(&mask->geo) / 5 && ties < vx_voxels(&mask->geo) / 200);
    vx_mask_free(mask);
    free_golden(&g);
}

static void same_bits_for_any_number_of_workers(void **state) {
    static const unsigned workers[] = {2, 3, 7, 16};
    const char *name = *state;
    golden g = read_golden(name);
    size_t floats = g.samples * g.classes;
    float *first_p = malloc(floats * sizeof *first_p);
    vx_mask *first = predict(&g, name, 1, true);
    memcpy(first_p, g.got, floats * sizeof *first_p);
    for (size_t i = 0; i < sizeof workers / sizeof *workers; i++) {
        vx_mask *mask = predict(&g, name, workers[i], true);
        assert_memory_equal(mask->data, first->data, vx_voxels(&mask->geo) * mask->bytes);
        assert_memory_equal(g.got, first_p, floats * sizeof *first_p);
        vx_mask_free(mask);
    }
    vx_mask_free(first);
    free(first_p);
    free_golden(&g);
}

int main(void) {
    static char spacing[] = "spacing", thick[] = "thick", turned[] = "turned", small[] = "small",
                regions[] = "regions";
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(equals_nnunet, spacing),
        cmocka_unit_test_prestate(equals_nnunet, thick),
        cmocka_unit_test_prestate(equals_nnunet, turned),
        cmocka_unit_test_prestate(equals_nnunet, small),
        cmocka_unit_test_prestate(equals_nnunet, regions),
        cmocka_unit_test_prestate(same_bits_for_any_number_of_workers, turned),
        cmocka_unit_test_prestate(same_bits_for_any_number_of_workers, regions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
