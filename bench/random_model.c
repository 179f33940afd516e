#include "random_model.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cjson/cJSON.h>

#include "base/memory.h"
#include "base/text.h"
#include "measure.h"

/* --- values ----------------------------------------------------------------------------------- */

static uint64_t hash(const char *text) { /* FNV-1a */
    uint64_t h = 14695981039346656037u;
    for (; *text; text++) h = (h ^ (unsigned char)*text) * 1099511628211u;
    return h;
}

static size_t elements(int rank, const size_t *dims) {
    size_t n = 1; /* the network's tensors were checked: no overflow */
    for (int i = 0; i < rank; i++) n *= dims[i];
    return n;
}

static void fill_uniform(float *x, size_t n, double limit, uint64_t *state) {
    for (size_t i = 0; i < n; i++) x[i] = (float)(limit * (2 * bench_uniform(state) - 1));
}

/* Inverse softplus of time steps that are log-uniform in [1e-3, 0.1]. */
static void fill_time_steps(float *x, size_t n, uint64_t *state) {
    for (size_t i = 0; i < n; i++)
        x[i] = (float)log(expm1(exp(log(1e-3) + bench_uniform(state) * log(100.0))));
}

void bench_fill_tensor(const char *name, int rank, const size_t *dims, float *out) {
    const size_t n = elements(rank, dims), inputs = rank > 1 ? n / dims[0] : 1;
    uint64_t state = hash(name);
    if (vx_has_ending(name, "A_log"))
        for (size_t i = 0; i < n; i++) out[i] = (float)log((double)(i % dims[1] + 1));
    else if (vx_has_ending(name, "dt_proj.bias"))
        fill_time_steps(out, n, &state);
    else if (rank == 5) /* He, for leaky ReLU */
        bench_fill_normal(out, n, sqrt(2.0 / (double)inputs), state);
    else if (rank > 1)
        fill_uniform(out, n, 1 / sqrt((double)inputs), &state);
    else if (vx_has_ending(name, "weight") || vx_has_ending(name, ".D"))
        for (size_t i = 0; i < n; i++) out[i] = (float)(0.9 + 0.2 * bench_uniform(&state));
    else
        fill_uniform(out, n, 0.1, &state);
}

/* --- the file --------------------------------------------------------------------------------- */

static const char recipe_format[] =
    "{\"format\": 1, \"name\": \"random\", \"version\": \"1.0.0\", \"licence\": \"CC0-1.0\","
    " \"description\": \"random weights for benchmarks\", \"modality\": \"MR\","
    " \"channels\": [], \"labels\": [],"
    " \"orientation\": \"as-stored\", \"crop\": \"none\", \"spacing_zyx_mm\": [%.17g, %.17g, "
    "%.17g],"
    " \"patch_zyx\": [%zu, %zu, %zu],"
    " \"resampling\": {\"image_order\": 3, \"logits_order\": 1, \"separate_axis\": \"never\","
    "  \"separate_axis_order\": 0},"
    " \"mirror_axes\": [], \"postprocess\": {\"keep_largest\": [], \"remove_small_mm3\": 0},"
    " \"network\": {\"shell\": \"%s\", \"in_channels\": %zu, \"classes\": %zu,"
    "  \"features\": [], \"kernels_zyx\": [], \"strides_zyx\": [],"
    "  \"encoder_blocks\": [], \"decoder_blocks\": [],"
    "  \"mamba\": {\"family\": \"%s\", \"d_state_max\": %zu, \"d_conv\": 4, \"expand\": 2}}}";

static void add_number(cJSON *object, const char *list, size_t v) {
    cJSON_AddItemToArray(cJSON_GetObjectItem(object, list), cJSON_CreateNumber((double)v));
}

static void add_cube(cJSON *object, const char *list, int v) {
    const int three[3] = {v, v, v};
    cJSON_AddItemToArray(cJSON_GetObjectItem(object, list), cJSON_CreateIntArray(three, 3));
}

static void add_stages(cJSON *network, const bench_network *net) {
    size_t features = net->width;
    for (size_t s = 0; s < net->stages; s++) {
        const size_t blocks = net->encoder_blocks[s];
        add_number(network, "features", features < net->most ? features : net->most);
        add_cube(network, "kernels_zyx", 3);
        add_cube(network, "strides_zyx", s ? 2 : 1);
        add_number(network, "encoder_blocks", blocks ? blocks : 2);
        if (s) add_number(network, "decoder_blocks", net->decoder_blocks ? net->decoder_blocks : 2);
        features = features < net->most ? 2 * features : net->most;
    }
}

/* The recipe's JSON text (cJSON_free), or NULL. */
static char *recipe_text(const bench_network *net) {
    char frame[2048], name[32];
    const size_t *patch = net->patch;
    const double *mm = net->spacing;
    const int n =
        snprintf(frame, sizeof frame, recipe_format, mm[0], mm[1], mm[2], patch[0], patch[1],
                 patch[2], net->shell, net->in_channels, net->classes, net->family, net->states);
    cJSON *root = n > 0 && (size_t)n < sizeof frame ? cJSON_Parse(frame) : NULL;
    if (!root) return NULL;
    add_stages(cJSON_GetObjectItem(root, "network"), net);
    for (size_t i = 0; i < net->in_channels; i++) {
        cJSON *channel = cJSON_CreateObject();
        snprintf(name, sizeof name, "channel %zu", i);
        cJSON_AddStringToObject(channel, "name", name);
        cJSON_AddStringToObject(cJSON_AddObjectToObject(channel, "normalisation"), "kind",
                                "zscore");
        cJSON_AddItemToArray(cJSON_GetObjectItem(root, "channels"), channel);
    }
    for (size_t i = 1; i < net->classes; i++) {
        const double rgb[3] = {(double)(i % 256), 99, 9};
        cJSON *label = cJSON_CreateObject();
        snprintf(name, sizeof name, "label %zu", i);
        cJSON_AddNumberToObject(label, "value", (double)i);
        cJSON_AddStringToObject(label, "name", name);
        cJSON_AddItemToObject(label, "rgb", cJSON_CreateDoubleArray(rgb, 3));
        cJSON_AddItemToArray(cJSON_GetObjectItem(root, "labels"), label);
    }
    char *text = cJSON_PrintUnformatted(root);
    cJSON_Delete(root);
    return text;
}

/* The safetensors header (cJSON_free), or NULL: the recipe as a string, then each tensor's place.
 */
static char *header_text(const char *recipe, const vx_tensor_spec *specs, size_t count) {
    double offset = 0;
    cJSON *root = cJSON_CreateObject();
    cJSON_AddStringToObject(cJSON_AddObjectToObject(root, "__metadata__"), "voxmamba", recipe);
    for (size_t i = 0; i < count; i++) {
        const double end =
            offset + (double)(sizeof(float) * elements(specs[i].rank, specs[i].dims));
        const double offsets[2] = {offset, end};
        cJSON *tensor = cJSON_AddObjectToObject(root, specs[i].name);
        cJSON_AddStringToObject(tensor, "dtype", "F32");
        bench_json_sizes(tensor, "shape", specs[i].dims, (size_t)specs[i].rank);
        cJSON_AddItemToObject(tensor, "data_offsets", cJSON_CreateDoubleArray(offsets, 2));
        offset = end;
    }
    char *text = cJSON_PrintUnformatted(root);
    cJSON_Delete(root);
    return text;
}

static bool write_tensor(FILE *f, const vx_tensor_spec *spec) {
    const size_t n = elements(spec->rank, spec->dims);
    float *values = vx_alloc(n * sizeof *values);
    if (!values) return false;
    bench_fill_tensor(spec->name, spec->rank, spec->dims, values);
    const bool whole = fwrite(values, sizeof *values, n, f) == n;
    vx_free(values);
    return whole;
}

static bool write_file(const char *path, const char *header, const vx_tensor_spec *specs,
                       size_t count) {
    unsigned char length[8];
    const uint64_t n = strlen(header);
    for (int i = 0; i < 8; i++) length[i] = (unsigned char)(n >> 8 * i);
    FILE *f = fopen(path, "wb");
    if (!f) return false;
    bool whole = fwrite(length, 1, 8, f) == 8 && fwrite(header, 1, n, f) == n;
    for (size_t i = 0; i < count && whole; i++) whole = write_tensor(f, &specs[i]);
    return fclose(f) == 0 && whole;
}

static vx_status write_model(const char *recipe, const char *path, vx_error *err) {
    vx_recipe *parsed;
    vx_tensor_spec *specs = NULL;
    size_t count;
    vx_status status = vx_recipe_parse(recipe, strlen(recipe), &parsed, err);
    if (status != VX_OK) return status;
    status = vx_network_tensors(&parsed->network, &specs, &count, err);
    if (status == VX_OK) {
        char *header = header_text(recipe, specs, count);
        if (!header || !write_file(path, header, specs, count))
            status = vx_fail(err, VX_ERR_OUTPUT, "%s could not be written", path);
        cJSON_free(header);
    }
    vx_free(specs);
    vx_recipe_free(parsed);
    return status;
}

vx_status bench_random_model(const bench_network *network, const char *path, bool keep,
                             vx_model **out, vx_error *err) {
    *out = NULL;
    char *recipe = recipe_text(network);
    vx_status status =
        recipe ? write_model(recipe, path, err) : vx_fail(err, VX_ERR_RESOURCE, "out of memory");
    cJSON_free(recipe);
    if (status == VX_OK) status = vx_model_open(path, out, err);
    if (!keep) unlink(path);
    return status;
}
