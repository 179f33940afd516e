/* The recipe: every field of a good one, and each single fault refused with a line that names it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "model_writer.h"

static void reads_every_field(void **state) {
    (void)state;
    vx_recipe *r;
    vx_error err = {0};
    if (vx_recipe_parse(small_recipe, strlen(small_recipe), &r, &err)) fail_msg("%s", err.text);
    assert_string_equal(r->name, "tiny");
    assert_string_equal(r->version, "1.0.0");
    assert_string_equal(r->licence, "CC0-1.0");
    assert_string_equal(r->description, "for tests");
    assert_string_equal(r->modality, "MR");
    assert_string_equal(r->provenance, "{\"data\":\"none\",\"dice\":{\"mean\":0.5}}");
    assert_true(r->has_field_of_view && r->fov_min[0] == 10 && r->fov_max[2] == 60);
    assert_int_equal(r->channel_count, 1);
    assert_string_equal(r->channels[0].name, "T1");
    assert_int_equal(r->channels[0].normalisation.kind, VX_NORM_ZSCORE);
    assert_int_equal(r->labels.count, 2);
    const vx_label *left = &r->labels.labels[0], *right = &r->labels.labels[1];
    assert_true(left->value == 1 && right->value == 7);
    assert_string_equal(right->name, "right");
    assert_true(right->rgb[0] == 255 && right->rgb[1] == 0 && right->rgb[2] == 128);
    assert_string_equal(left->category.scheme, "SCT");
    assert_string_equal(left->category.value, "123037004");
    assert_string_equal(left->type.meaning, "Hippocampus");
    assert_string_equal(left->modifier.scheme, "");
    assert_string_equal(right->category.scheme, "");
    assert_false(r->regions);
    assert_string_equal(r->orientation, "RAS");
    assert_true(r->crop_nonzero && r->separate_axis_auto);
    assert_true(r->spacing[0] == 1.5 && r->spacing[2] == 0.5);
    assert_true(r->patch[0] == 4 && r->patch[1] == 8 && r->patch[2] == 12);
    assert_true(r->image_order == 3 && r->logits_order == 1 && r->separate_axis_order == 0);
    assert_true(r->mirror[0] && !r->mirror[1] && r->mirror[2]);
    assert_int_equal(r->keep_largest_count, 1);
    assert_int_equal(r->keep_largest[0], 7);
    assert_true(r->remove_small_mm3 == 2.5);
    const vx_network *n = &r->network;
    assert_int_equal(n->shell, VX_SHELL_RESIDUAL_ENCODER);
    assert_true(n->in_channels == 1 && n->classes == 3 && n->stages == 2);
    assert_true(n->features[0] == 2 && n->features[1] == 4);
    assert_true(n->kernels[0][0] == 1 && n->kernels[0][2] == 3 && n->strides[1][0] == 1);
    assert_true(n->strides[1][2] == 2 && n->encoder_blocks[1] == 2 && n->decoder_blocks[0] == 1);
    assert_int_equal(n->family, VX_MAMBA_SEGMAMBA_SKIP);
    assert_true(n->conv_bias && n->d_state_max == 256 && n->d_conv == 4 && n->expand == 2);
    vx_recipe_free(r);
    vx_recipe_free(NULL);
}

/* small_recipe with one piece replaced; expected NULL: still good. */
static void check(const char *from, const char *to, const char *expected) {
    char *text = replaced(small_recipe, from, to);
    vx_recipe *r = NULL;
    vx_error err = {0};
    const vx_status status = vx_recipe_parse(text, strlen(text), &r, &err);
    vx_recipe_free(r);
    free(text);
    if (!expected) {
        if (status) fail_msg("%s -> %s: %s", from, to, err.text);
        return;
    }
    if (!status) fail_msg("%s -> %s was taken", from, to);
    assert_int_equal(status, VX_ERR_MODEL);
    assert_null(r);
    if (strncmp(err.text, "recipe: ", 8) != 0 || !strstr(err.text, expected))
        fail_msg("\"%s\" is not in \"%s\"", expected, err.text);
    for (const char *p = err.text; *p; p++) assert_true((unsigned char)*p >= 0x20);
}

static void other_good_recipes(void **state) {
    (void)state;
    check("\"RAS\"", "\"as-stored\"", NULL);
    check("\"RAS\"", "\"SLP\"", NULL);
    check(" \"description\": \"for tests\",", "", NULL);
    check("\"mirror_axes\": [0, 2], ", "", NULL);
    check("\"mirror_axes\": [0, 2]", "\"mirror_axes\": []", NULL);
    check(" \"field_of_view_mm\": {\"min\": [10, 20, 30], \"max\": [40, 50, 60]},", "", NULL);
    check("\"decoder_blocks\": [1]", "\"decoder_blocks\": [1], \"conv_bias\": false", NULL);
    check("\"segmamba_skip\", \"d_state_max\": 256, \"d_conv\": 4,   \"expand\": 2", "\"none\"",
          NULL);
    check("{\"kind\": \"zscore\"}",
          "{\"kind\": \"ct\", \"percentile_00_5\": -1000, \"percentile_99_5\": 1e3, \"mean\": 0.5,"
          " \"sd\": 12}",
          NULL);
    check("\"T1\"", "\"T\\u00e9 \\ud83d\\ude00\"", NULL);
}

static void regions(void **state) {
    (void)state;
    /* Three regions need three classes: there is no background class. */
    char *one = replaced(small_recipe, "[1, 2, 3],", "[1, 2, 3], \"members\": [1, 2],");
    char *two = replaced(one, "[255, 0, 128]", "[255, 0, 128], \"members\": [2]");
    char *three = replaced(two, "\"classes\": 3", "\"classes\": 2");
    vx_recipe *r;
    vx_error err = {0};
    if (vx_recipe_parse(three, strlen(three), &r, &err)) fail_msg("%s", err.text);
    assert_true(r->regions);
    vx_recipe_free(r);
    assert_int_equal(vx_recipe_parse(two, strlen(two), &r, &err), VX_ERR_MODEL);
    assert_string_equal(err.text, "recipe: network.classes: 3, but 2 labels are described");
    assert_int_equal(vx_recipe_parse(one, strlen(one), &r, &err), VX_ERR_MODEL);
    assert_string_equal(err.text, "recipe: labels: either all labels have members or none");
    free(one);
    free(two);
    free(three);
}

static void faults_of_the_whole(void **state) {
    (void)state;
    check("\"format\": 1", "\"format\": 2", "format: this program reads format 1 only");
    check("\"format\": 1", "\"format\": 1.5", "format: 1.5 is no whole number");
    check("\"format\": 1", "\"format\": \"1\"", "format: this is no number");
    check("\"format\": 1, ", "", "format: this key is missing");
    check("\"format\": 1, ", "\"format\": 1, \"extra\": 1, ", "unknown key \"extra\"");
    check("\"format\": 1, ", "\"format\": 1, \"\\u001b[2J\": 1, ", "control character");
    check("\"format\": 1, ", "\"format\": 1, \"Name\": 1, ", "unknown key \"Name\"");
    check("\"version\": \"1.0.0\"", "\"version\": \"1\", \"version\": \"2\"",
          "version: this key appears twice");
    check("\"name\": \"tiny\", ", "", "name: this key is missing");
    check("\"tiny\"", "\"\"", "name: 0 bytes, 1 to 63 are allowed");
    check("\"tiny\"", "\"0123456789012345678901234567890123456789012345678901234567890123\"",
          "name: 64 bytes");
    check("\"tiny\"", "\"a\\u0007\"", "name: the text holds a control character");
    check("\"tiny\"", "null", "name: this is no text");
    check("{\"data\": \"none\", \"dice\": {\"mean\": 0.5}}", "[]", "provenance: this is no object");
    check("\"nonzero\"", "\"yes\"", "crop: \"yes\" is unknown (allowed: none, nonzero)");
    check("\"RAS\"", "\"RAX\"", "orientation: \"RAX\"");
    check("\"RAS\"", "\"RLS\"", "orientation: \"RLS\"");
    check("\"RAS\"", "\"RASR\"", "orientation");
    check("[40, 50, 60]", "[40, 50, 29]", "field_of_view_mm.max: this lies below min");
    check("[40, 50, 60]", "[40, 50]", "field_of_view_mm.max: 2 items, 3 are needed");
}

static void faults_of_numbers(void **state) {
    (void)state;
    check("[1.5, 1, 0.5]", "[1.5, 0, 0.5]", "spacing_zyx_mm: 0 is outside");
    check("[1.5, 1, 0.5]", "[1.5, -1, 0.5]", "spacing_zyx_mm: -1 is outside");
    check("[1.5, 1, 0.5]", "[1.5, 1e999, 0.5]", "spacing_zyx_mm: inf is outside");
    check("[1.5, 1, 0.5]", "[1.5, true, 0.5]", "spacing_zyx_mm: this is no number");
    check("[1.5, 1, 0.5]", "[1.5, NaN, 0.5]", "it is not JSON");
    check("[1.5, 1, 0.5]", "1.5", "spacing_zyx_mm: this is no list");
    check("[4, 8, 12]", "[4, 8, 13]", "patch_zyx: 13 is no multiple of the strides' product 2");
    check("[4, 8, 12]", "[4, 8, 0]", "patch_zyx: 0 is outside 1 to 4096");
    check("[4, 8, 12]", "[4, 8, 4294967298]", "patch_zyx: 4.29497e+09 is outside");
    check("\"image_order\": 3", "\"image_order\": 2", "resampling.image_order: order 2");
    check("\"image_order\": 3", "\"image_order\": 4",
          "resampling.image_order: 4 is outside 0 to 3");
    check("\"logits_order\": 1", "\"logits_order\": 3",
          "resampling.logits_order: 3 is outside 0 to 1");
    check("\"auto\"", "\"always\"", "resampling.separate_axis: \"always\" is unknown");
    check("\"separate_axis_order\": 0", "\"separate_axis_order\": 0, \"x\": 1",
          "resampling: unknown key \"x\"");
    check("[0, 2]", "[0, 3]", "mirror_axes: 3 is outside 0 to 2");
    check("[0, 2]", "[2, 2]", "mirror_axes: an axis appears twice");
    check("[0, 2]", "[0, 1, 2, 0]", "mirror_axes: 4 items, 0 to 3");
    check("\"keep_largest\": [7]", "\"keep_largest\": [2]",
          "postprocess.keep_largest: 2 is no label's value");
    check("2.5", "-1", "postprocess.remove_small_mm3: -1 is outside");
}

static void faults_of_channels_and_labels(void **state) {
    (void)state;
    check("{\"name\": \"T1\", \"normalisation\": {\"kind\": \"zscore\"}}", "",
          "channels: 0 items, 1 to 64 are allowed");
    check("{\"kind\": \"zscore\"}", "{\"kind\": \"z\"}", "channels[0].normalisation.kind: \"z\"");
    check("{\"kind\": \"zscore\"}", "\"zscore\"", "channels[0].normalisation: this is no object");
    check("{\"kind\": \"zscore\"}", "{\"kind\": \"zscore\", \"mean\": 1}", "unknown key \"mean\"");
    check("{\"kind\": \"zscore\"}", "{\"kind\": \"ct\"}", "percentile_00_5: this key is missing");
    check("{\"kind\": \"zscore\"}",
          "{\"kind\": \"ct\", \"percentile_00_5\": 2, \"percentile_99_5\": 1, \"mean\": 0, \"sd\": "
          "1}",
          "percentile_99_5: this lies below");
    check("\"value\": 7", "\"value\": 0", "labels[1].value: 0 is outside 1 to 65535");
    check("\"value\": 7", "\"value\": 65536", "labels[1].value: 65536 is outside");
    check("\"value\": 7", "\"value\": 1", "labels[1].value: 1 is another label's value too");
    check("\"right\"", "\"left\"", "labels[1].name: \"left\" is another label's name too");
    check("[255, 0, 128]", "[256, 0, 128]", "labels[1].rgb: 256 is outside 0 to 255");
    check("[255, 0, 128]", "[255, 0]", "labels[1].rgb: 2 items, 3 are needed");
    check("[255, 0, 128]", "[255, 0, 128], \"colour\": 1", "labels[1]: unknown key \"colour\"");
    check("\"code\": \"5366008\", ", "", "labels[0].type.code: this key is missing");
    check("\"meaning\": \"Structure\"", "\"meaning\": 3",
          "labels[0].category.meaning: this is no text");
    check("\"scheme\": \"SCT\"", "\"scheme\": \"ABCDEFGHIJKLMNOPQ\"", "scheme: 17 bytes, 1 to 16");
    check("[255, 0, 128]", "[255, 0, 128], \"members\": []", "labels[1].members: 0 items");
}

static void faults_of_the_network(void **state) {
    (void)state;
    check("\"residual_encoder\"", "\"unet\"", "network.shell: \"unet\" is unknown");
    check("\"in_channels\": 1", "\"in_channels\": 2", "2, but 1 channels are described");
    check("\"classes\": 3", "\"classes\": 4", "4, but 2 labels and the background are described");
    check("\"features\": [2, 4]", "\"features\": [2]", "network.features: 1 items, 2 to 8");
    check("\"features\": [2, 4]", "\"features\": [2, 4, 8]", "network.kernels_zyx: 2 items, 3 are");
    check("\"features\": [2, 4]", "\"features\": [2, 0]", "network.features: 0 is outside");
    check("\"features\": [2, 4]", "\"features\": [2, 1e9]", "network.features: 1e+09 is outside");
    check("[[1, 3, 3], ", "[[1, 2, 3], ", "network.kernels_zyx: kernel 2 is even");
    check("[[1, 3, 3], ", "[[1, 3], ", "network.kernels_zyx: each item has to be a list of three");
    check("[[1, 3, 3], ", "[3, ", "network.kernels_zyx: each item");
    check("[[1, 1, 1], ", "[[1, 2, 1], ",
          "network.strides_zyx: the first stage has to have stride 1");
    check("[1, 2, 2]]", "[1, 2, 0]]", "network.strides_zyx: 0 is outside");
    check("\"encoder_blocks\": [1, 2]", "\"encoder_blocks\": [1]",
          "encoder_blocks: 1 items, 2 are");
    check("\"encoder_blocks\": [1, 2]", "\"encoder_blocks\": [1, 0]",
          "encoder_blocks: 0 is outside");
    check("\"decoder_blocks\": [1]", "\"decoder_blocks\": [1, 1]",
          "decoder_blocks: 2 items, 1 are");
    check("\"decoder_blocks\": [1]", "\"decoder_blocks\": [1], \"conv_bias\": 1",
          "conv_bias: this is");
    check("\"segmamba_skip\"", "\"mamba2\"", "network.mamba.family: \"mamba2\" is unknown");
    check("\"d_state_max\": 256, ", "", "network.mamba.d_state_max: this key is missing");
    check("\"d_conv\": 4", "\"d_conv\": 0", "network.mamba.d_conv: 0 is outside");
    check("\"expand\": 2", "\"expand\": 2, \"dt\": 1", "network.mamba: unknown key \"dt\"");
}

static void texts_that_are_no_recipe(void **state) {
    (void)state;
    enum { DEEP = 100000, LONG = 2000000 };
    static const char *const bad[] = {"", "[]", "null", "3", "{", "{}", "\xef\xbb\xbf{}", "{}x"};
    vx_recipe *r;
    vx_error err;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(vx_recipe_parse(bad[i], strlen(bad[i]), &r, &err), VX_ERR_MODEL);
    check("0.5}}", "0.5}} trailing", "it is not JSON");
    char *text = malloc(LONG);
    assert_non_null(text);
    memset(text, '[', DEEP);
    assert_int_equal(vx_recipe_parse(text, DEEP, &r, &err), VX_ERR_MODEL);
    assert_string_equal(err.text, "recipe: it is not JSON: it nests more than 64 deep (byte 65)");
    for (int i = 0; i < DEEP / 5; i++) memcpy(text + 5 * i, "{\"a\":", 5);
    assert_int_equal(vx_recipe_parse(text, DEEP, &r, &err), VX_ERR_MODEL);
    assert_non_null(strstr(err.text, "64 deep"));
    memset(text, ' ', LONG);
    assert_int_equal(vx_recipe_parse(text, LONG, &r, &err), VX_ERR_MODEL);
    assert_non_null(strstr(err.text, "too long"));
    free(text);
}

/* Nothing is read past the count: ASan watches a block of exactly that size. */
static void needs_no_terminator(void **state) {
    (void)state;
    const size_t n = strlen(small_recipe);
    char *text = malloc(n);
    vx_recipe *r;
    assert_non_null(text);
    memcpy(text, small_recipe, n);
    assert_int_equal(vx_recipe_parse(text, n, &r, NULL), VX_OK);
    vx_recipe_free(r);
    for (size_t cut = 0; cut < n; cut++) {
        char *shorter = malloc(cut ? cut : 1);
        assert_non_null(shorter);
        memcpy(shorter, text, cut);
        assert_int_equal(vx_recipe_parse(shorter, cut, &r, NULL), VX_ERR_MODEL);
        free(shorter);
    }
    free(text);
}

/* The recipes that models/reference trains with. */
static vx_recipe *shipped_recipe(const char *path) {
    bytes b = read_bytes(path);
    vx_recipe *r;
    vx_error err = {0};
    if (vx_recipe_parse((const char *)b.data, b.size, &r, &err)) fail_msg("%s", err.text);
    free(b.data);
    return r;
}

static void reads_the_shipped_recipes(void **state) {
    (void)state;
    vx_recipe *r = shipped_recipe(VX_SOURCE_DIR "/models/reference/recipes/hippocampus.json");
    assert_string_equal(r->name, "hippocampus");
    vx_recipe_free(r);
    r = shipped_recipe(VX_SOURCE_DIR "/models/reference/recipes/head_neck.json");
    assert_string_equal(r->name, "head_neck");
    assert_int_equal(r->channels[0].normalisation.kind, VX_NORM_CT);
    assert_false(r->mirror[0] || r->mirror[1] || r->mirror[2]); /* left and right are labels */
    vx_recipe_free(r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_every_field),
        cmocka_unit_test(other_good_recipes),
        cmocka_unit_test(regions),
        cmocka_unit_test(faults_of_the_whole),
        cmocka_unit_test(faults_of_numbers),
        cmocka_unit_test(faults_of_channels_and_labels),
        cmocka_unit_test(faults_of_the_network),
        cmocka_unit_test(texts_that_are_no_recipe),
        cmocka_unit_test(needs_no_terminator),
        cmocka_unit_test(reads_the_shipped_recipes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
