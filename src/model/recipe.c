#include "model/recipe.h"

#include <string.h>

#include "base/memory.h"
#include "model/json_text.h"
#include "model/recipe_reader.h"

#define MAX_TEXT    ((size_t)1 << 20) /* of the recipe: cJSON's tree takes up to 70 times as much */
#define MAX_VALUE   65535             /* of a label: masks are at most uint16 */
#define MAX_PATCH   4096
#define MAX_SPACING 1000.0 /* mm */

static void out_of_memory(vx_reader *r) {
    if (!r->status) r->status = vx_fail(r->err, VX_ERR_RESOURCE, "out of memory for the recipe");
}

static void read_normalisation(vx_reader *r, const cJSON *o, vx_normalisation *out) {
    static const char *const kinds[] = {"none", "zscore",    "zscore_nonzero",
                                        "ct",   "rescale01", NULL};
    static const vx_norm_kind values[] = {VX_NORM_NONE, VX_NORM_ZSCORE, VX_NORM_ZSCORE_NONZERO,
                                          VX_NORM_CT, VX_NORM_RESCALE01};
    static const char *const keys[] = {"kind", NULL};
    static const char *const ct_keys[] = {
        "kind", "percentile_00_5", "percentile_99_5", "mean", "sd", NULL};
    const size_t mark = vx_read_enter(r, "normalisation");
    out->kind = values[vx_read_choice(r, o, "kind", kinds)];
    vx_read_keys(r, o, out->kind == VX_NORM_CT ? ct_keys : keys);
    if (out->kind == VX_NORM_CT) {
        out->low = vx_read_number(r, o, "percentile_00_5", -1e9, 1e9);
        out->high = vx_read_number(r, o, "percentile_99_5", -1e9, 1e9);
        out->mean = vx_read_number(r, o, "mean", -1e9, 1e9);
        out->sd = vx_read_number(r, o, "sd", 0, 1e9);
        if (out->low > out->high)
            vx_read_fail(r, "percentile_99_5", "this lies below percentile_00_5");
    }
    vx_read_leave(r, mark);
}

static void read_channels(vx_reader *r, const cJSON *root, vx_recipe *recipe) {
    static const char *const keys[] = {"name", "normalisation", NULL};
    const cJSON *list = vx_read_list(r, root, "channels", 1, VX_MAX_CHANNELS);
    if (!list) return;
    recipe->channels = vx_alloc_zero(VX_MAX_CHANNELS, sizeof *recipe->channels);
    if (!recipe->channels) {
        out_of_memory(r);
        return;
    }
    for (const cJSON *o = list->child; o && !r->status; o = o->next) {
        vx_channel *channel = &recipe->channels[recipe->channel_count];
        const size_t mark = vx_read_enter(r, "channels[%zu]", recipe->channel_count++);
        vx_read_keys(r, o, keys);
        vx_read_string(r, o, "name", channel->name, sizeof channel->name);
        const cJSON *norm = vx_read_object(r, o, "normalisation");
        if (norm) read_normalisation(r, norm, &channel->normalisation);
        vx_read_leave(r, mark);
    }
}

static void read_code(vx_reader *r, const cJSON *label, const char *key, vx_code *out) {
    static const char *const keys[] = {"scheme", "code", "meaning", NULL};
    if (r->status || !vx_read_has(label, key)) return;
    const cJSON *o = vx_read_object(r, label, key);
    if (!o) return;
    const size_t mark = vx_read_enter(r, "%s", key);
    vx_read_keys(r, o, keys);
    vx_read_string(r, o, "scheme", out->scheme, sizeof out->scheme);
    vx_read_string(r, o, "code", out->value, sizeof out->value);
    vx_read_string(r, o, "meaning", out->meaning, sizeof out->meaning);
    vx_read_leave(r, mark);
}

static void read_label(vx_reader *r, const cJSON *o, vx_label *label, bool *has_members) {
    static const char *const keys[] = {"value", "name",     "rgb",     "category",
                                       "type",  "modifier", "members", NULL};
    size_t rgb[3] = {0, 0, 0};
    vx_read_keys(r, o, keys);
    label->value = (uint16_t)vx_read_count(r, o, "value", 1, MAX_VALUE);
    vx_read_string(r, o, "name", label->name, sizeof label->name);
    vx_read_counts(r, o, "rgb", 3, 3, 0, 255, rgb);
    for (int i = 0; i < 3; i++) label->rgb[i] = (uint8_t)rgb[i];
    read_code(r, o, "category", &label->category);
    read_code(r, o, "type", &label->type);
    read_code(r, o, "modifier", &label->modifier);
    *has_members = vx_read_has(o, "members");
    if (!r->status && *has_members) {
        size_t members[VX_MAX_CLASSES];
        vx_read_counts(r, o, "members", 1, VX_MAX_CLASSES, 1, MAX_VALUE, members);
    }
}

/* Values and names name one label each. */
static void check_unique(vx_reader *r, const vx_label_table *labels, size_t i) {
    const vx_label *label = &labels->labels[i];
    for (size_t k = 0; k < i; k++) {
        if (labels->labels[k].value == label->value)
            vx_read_fail(r, "value", "%u is another label's value too", label->value);
        if (strcmp(labels->labels[k].name, label->name) == 0)
            vx_read_fail(r, "name", "\"%s\" is another label's name too", label->name);
    }
}

static void read_labels(vx_reader *r, const cJSON *root, vx_recipe *recipe) {
    const cJSON *list = vx_read_list(r, root, "labels", 1, VX_MAX_CLASSES);
    vx_label_table *table = &recipe->labels;
    size_t with_members = 0;
    if (!list) return;
    table->labels = vx_alloc_zero(VX_MAX_CLASSES, sizeof *table->labels);
    if (!table->labels) {
        out_of_memory(r);
        return;
    }
    for (const cJSON *o = list->child; o && !r->status; o = o->next) {
        bool has_members = false;
        const size_t i = table->count++, mark = vx_read_enter(r, "labels[%zu]", i);
        read_label(r, o, &table->labels[i], &has_members);
        check_unique(r, table, i);
        with_members += has_members;
        vx_read_leave(r, mark);
    }
    if (with_members != 0 && with_members != table->count)
        vx_read_fail(r, "labels", "either all labels have members or none");
    recipe->regions = with_members != 0;
}

/* "" for "as-stored"; else one of L/R, A/P, S/I each. */
static void read_orientation(vx_reader *r, const cJSON *root, vx_recipe *recipe) {
    static const char letters[] = "LRAPSI";
    char text[16] = "";
    unsigned seen = 0;
    vx_read_string(r, root, "orientation", text, sizeof text);
    if (r->status || strcmp(text, "as-stored") == 0) return;
    for (const char *p = text; *p; p++) {
        const char *found = strchr(letters, *p);
        if (found) seen |= 1u << ((found - letters) / 2);
    }
    if (strlen(text) != 3 || seen != 7)
        vx_read_fail(r, "orientation", "\"%s\" is neither \"as-stored\" nor a code like \"RAS\"",
                     text);
    else
        memcpy(recipe->orientation, text, 4);
}

static int read_order(vx_reader *r, const cJSON *o, const char *key, bool cubic) {
    const size_t order = vx_read_count(r, o, key, 0, cubic ? 3 : 1);
    if (order == 2) vx_read_fail(r, key, "order 2 is not supported (0, 1 or 3)");
    return (int)order;
}

static void read_resampling(vx_reader *r, const cJSON *root, vx_recipe *recipe) {
    static const char *const keys[] = {"image_order", "logits_order", "separate_axis",
                                       "separate_axis_order", NULL};
    static const char *const modes[] = {"never", "auto", NULL};
    const cJSON *o = vx_read_object(r, root, "resampling");
    if (!o) return;
    const size_t mark = vx_read_enter(r, "resampling");
    vx_read_keys(r, o, keys);
    recipe->image_order = read_order(r, o, "image_order", true);
    recipe->logits_order = read_order(r, o, "logits_order", false);
    recipe->separate_axis_auto = vx_read_choice(r, o, "separate_axis", modes) == 1;
    recipe->separate_axis_order = read_order(r, o, "separate_axis_order", true);
    vx_read_leave(r, mark);
}

static void read_mirror_axes(vx_reader *r, const cJSON *root, vx_recipe *recipe) {
    size_t axes[3];
    if (r->status || !vx_read_has(root, "mirror_axes")) return;
    const size_t n = vx_read_counts(r, root, "mirror_axes", 0, 3, 0, 2, axes);
    for (size_t i = 0; i < n && !r->status; i++) {
        if (recipe->mirror[axes[i]]) vx_read_fail(r, "mirror_axes", "an axis appears twice");
        recipe->mirror[axes[i]] = true;
    }
}

static bool has_label(const vx_label_table *table, size_t value) {
    for (size_t i = 0; i < table->count; i++)
        if (table->labels[i].value == value) return true;
    return false;
}

static void read_postprocess(vx_reader *r, const cJSON *root, vx_recipe *recipe) {
    static const char *const keys[] = {"keep_largest", "remove_small_mm3", NULL};
    size_t values[VX_MAX_CLASSES];
    if (r->status || !vx_read_has(root, "postprocess")) return;
    const cJSON *o = vx_read_object(r, root, "postprocess");
    if (!o) return;
    const size_t mark = vx_read_enter(r, "postprocess");
    vx_read_keys(r, o, keys);
    if (vx_read_has(o, "remove_small_mm3"))
        recipe->remove_small_mm3 = vx_read_number(r, o, "remove_small_mm3", 0, 1e12);
    if (vx_read_has(o, "keep_largest")) {
        const size_t n =
            vx_read_counts(r, o, "keep_largest", 0, VX_MAX_CLASSES, 1, MAX_VALUE, values);
        recipe->keep_largest = vx_alloc_zero(n, sizeof *recipe->keep_largest);
        if (!recipe->keep_largest) out_of_memory(r);
        for (size_t i = 0; i < n && !r->status; i++) {
            if (!has_label(&recipe->labels, values[i]))
                vx_read_fail(r, "keep_largest", "%zu is no label's value", values[i]);
            else
                recipe->keep_largest[recipe->keep_largest_count++] = (unsigned)values[i];
        }
    }
    vx_read_leave(r, mark);
}

static void read_field_of_view(vx_reader *r, const cJSON *root, vx_recipe *recipe) {
    static const char *const keys[] = {"min", "max", NULL};
    if (r->status || !vx_read_has(root, "field_of_view_mm")) return;
    const cJSON *o = vx_read_object(r, root, "field_of_view_mm");
    if (!o) return;
    const size_t mark = vx_read_enter(r, "field_of_view_mm");
    vx_read_keys(r, o, keys);
    vx_read_triple(r, o, "min", 0, 1e5, recipe->fov_min);
    vx_read_triple(r, o, "max", 0, 1e5, recipe->fov_max);
    for (int i = 0; i < 3; i++)
        if (recipe->fov_min[i] > recipe->fov_max[i]) vx_read_fail(r, "max", "this lies below min");
    recipe->has_field_of_view = true;
    vx_read_leave(r, mark);
}

static void read_mamba(vx_reader *r, const cJSON *network, vx_network *net) {
    static const char *const keys[] = {"family", "d_state_max", "d_conv", "expand", NULL};
    /* In the order of vx_mamba_family. */
    static const char *const families[] = {
        "none", "segmamba_skip", "pan_segmamba", "segmamba", "multi_segmamba", "umamba_bot", NULL};
    if (r->status || !vx_read_has(network, "mamba")) return;
    const cJSON *o = vx_read_object(r, network, "mamba");
    if (!o) return;
    const size_t mark = vx_read_enter(r, "mamba");
    vx_read_keys(r, o, keys);
    net->family = (vx_mamba_family)vx_read_choice(r, o, "family", families);
    const bool needed = net->family != VX_MAMBA_NONE;
    if (needed || vx_read_has(o, "d_state_max"))
        net->d_state_max = vx_read_count(r, o, "d_state_max", 1, 1024);
    if (needed || vx_read_has(o, "d_conv")) net->d_conv = vx_read_count(r, o, "d_conv", 1, 16);
    if (needed || vx_read_has(o, "expand")) net->expand = vx_read_count(r, o, "expand", 1, 8);
    vx_read_leave(r, mark);
}

/* The shapes that a U-Net needs to close: odd kernels, a first stage at full resolution. */
static void check_grid(vx_reader *r, const vx_network *net) {
    for (size_t s = 0; s < net->stages && !r->status; s++)
        for (int i = 0; i < 3; i++) {
            if (net->kernels[s][i] % 2 == 0)
                vx_read_fail(r, "kernels_zyx", "kernel %zu is even", net->kernels[s][i]);
            if (s == 0 && net->strides[s][i] != 1)
                vx_read_fail(r, "strides_zyx", "the first stage has to have stride 1");
        }
}

static void read_network(vx_reader *r, const cJSON *root, vx_network *net) {
    static const char *const keys[] = {
        "shell",          "in_channels",    "classes", "features",  "kernels_zyx", "strides_zyx",
        "encoder_blocks", "decoder_blocks", "mamba",   "conv_bias", NULL};
    /* In the order of vx_shell. */
    static const char *const shells[] = {"residual_encoder", "plain", "residual_unet", NULL};
    const cJSON *o = vx_read_object(r, root, "network");
    if (!o) return;
    const size_t mark = vx_read_enter(r, "network");
    vx_read_keys(r, o, keys);
    net->shell = (vx_shell)vx_read_choice(r, o, "shell", shells);
    net->in_channels = vx_read_count(r, o, "in_channels", 1, VX_MAX_CHANNELS);
    net->classes = vx_read_count(r, o, "classes", 1, VX_MAX_CLASSES);
    net->stages = vx_read_counts(r, o, "features", 2, VX_MAX_STAGES, 1, 8192, net->features);
    vx_read_count_triples(r, o, "kernels_zyx", net->stages, 1, 31, net->kernels);
    vx_read_count_triples(r, o, "strides_zyx", net->stages, 1, 16, net->strides);
    vx_read_counts(r, o, "encoder_blocks", net->stages, net->stages, 1, 64, net->encoder_blocks);
    vx_read_counts(r, o, "decoder_blocks", net->stages - 1, net->stages - 1, 1, 64,
                   net->decoder_blocks);
    net->conv_bias = true;
    if (!r->status && vx_read_has(o, "conv_bias")) net->conv_bias = vx_read_bool(r, o, "conv_bias");
    read_mamba(r, o, net);
    check_grid(r, net);
    vx_read_leave(r, mark);
}

static void read_patch(vx_reader *r, const cJSON *root, vx_recipe *recipe) {
    vx_read_counts(r, root, "patch_zyx", 3, 3, 1, MAX_PATCH, recipe->patch);
    for (int i = 0; i < 3 && !r->status; i++) {
        size_t step = 1; /* at most 16^8 */
        for (size_t s = 0; s < recipe->network.stages; s++) step *= recipe->network.strides[s][i];
        if (recipe->patch[i] % step)
            vx_read_fail(r, "patch_zyx", "%zu is no multiple of the strides' product %zu",
                         recipe->patch[i], step);
    }
}

static void check_counts(vx_reader *r, const vx_recipe *recipe) {
    const size_t background = recipe->regions ? 0 : 1;
    if (recipe->channel_count != recipe->network.in_channels)
        vx_read_fail(r, "network.in_channels", "%zu, but %zu channels are described",
                     recipe->network.in_channels, recipe->channel_count);
    if (recipe->labels.count + background != recipe->network.classes)
        vx_read_fail(r, "network.classes", "%zu, but %zu labels%s are described",
                     recipe->network.classes, recipe->labels.count,
                     background ? " and the background" : "");
}

static void read_provenance(vx_reader *r, const cJSON *root, vx_recipe *recipe) {
    if (r->status || !vx_read_has(root, "provenance")) return;
    const cJSON *o = vx_read_object(r, root, "provenance");
    if (!o) return;
    char *text = cJSON_PrintUnformatted(o);
    recipe->provenance = text ? vx_strdup(text) : NULL;
    cJSON_free(text);
    if (!recipe->provenance) out_of_memory(r);
}

static void read_texts(vx_reader *r, const cJSON *root, vx_recipe *recipe) {
    vx_read_string(r, root, "name", recipe->name, sizeof recipe->name);
    vx_read_string(r, root, "version", recipe->version, sizeof recipe->version);
    vx_read_string(r, root, "licence", recipe->licence, sizeof recipe->licence);
    if (vx_read_has(root, "description"))
        vx_read_string(r, root, "description", recipe->description, sizeof recipe->description);
    if (vx_read_has(root, "modality"))
        vx_read_string(r, root, "modality", recipe->modality, sizeof recipe->modality);
}

static void read_recipe(vx_reader *r, const cJSON *root, vx_recipe *recipe) {
    static const char *const keys[] = {
        "format",      "name",        "version",   "licence",     "description",
        "provenance",  "modality",    "channels",  "labels",      "field_of_view_mm",
        "orientation", "crop",        "patch_zyx", "mirror_axes", "spacing_zyx_mm",
        "resampling",  "postprocess", "network",   NULL};
    static const char *const crops[] = {"none", "nonzero", NULL};
    /* Before anything else: a later format may have other keys. */
    if (vx_read_count(r, root, "format", 0, 1000000) != 1)
        vx_read_fail(r, "format", "this program reads format 1 only");
    vx_read_keys(r, root, keys);
    read_texts(r, root, recipe);
    read_provenance(r, root, recipe);
    read_field_of_view(r, root, recipe);
    read_channels(r, root, recipe);
    read_labels(r, root, recipe);
    read_orientation(r, root, recipe);
    recipe->crop_nonzero = vx_read_choice(r, root, "crop", crops) == 1;
    vx_read_triple(r, root, "spacing_zyx_mm", 1e-6, MAX_SPACING, recipe->spacing);
    read_resampling(r, root, recipe);
    read_mirror_axes(r, root, recipe);
    read_postprocess(r, root, recipe);
    read_network(r, root, &recipe->network);
    read_patch(r, root, recipe);
    check_counts(r, recipe);
}

/* The tree, after the text has passed the strict check: cJSON itself takes more than JSON. */
static cJSON *parse_tree(vx_reader *r, const char *json, size_t bytes) {
    size_t where;
    if (bytes > MAX_TEXT) {
        vx_read_fail(r, "", "%zu bytes are too long", bytes);
        return NULL;
    }
    const char *wrong = vx_json_check(json, bytes, &where);
    if (wrong) {
        vx_read_fail(r, "", "it is not JSON: %s (byte %zu)", wrong, where);
        return NULL;
    }
    cJSON *root = cJSON_ParseWithLength(json, bytes);
    if (!root)
        out_of_memory(r);
    else if (!cJSON_IsObject(root))
        vx_read_fail(r, "", "it is no JSON object");
    return root;
}

vx_status vx_recipe_parse(const char *json, size_t bytes, vx_recipe **out, vx_error *err) {
    vx_reader r = {.err = err};
    *out = NULL;
    vx_recipe *recipe = vx_alloc_zero(1, sizeof *recipe);
    if (!recipe) return vx_fail(err, VX_ERR_RESOURCE, "out of memory for the recipe");
    cJSON *root = parse_tree(&r, json, bytes);
    if (!r.status) read_recipe(&r, root, recipe);
    cJSON_Delete(root);
    if (r.status) {
        vx_recipe_free(recipe);
        return r.status;
    }
    *out = recipe;
    return VX_OK;
}

void vx_recipe_free(vx_recipe *recipe) {
    if (!recipe) return;
    vx_free(recipe->provenance);
    vx_free(recipe->channels);
    vx_free(recipe->labels.labels);
    vx_free(recipe->keep_largest);
    vx_free(recipe);
}
