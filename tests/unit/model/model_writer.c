#include "model_writer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/memory.h"

const char small_recipe[] =
    "{\"format\": 1, \"name\": \"tiny\", \"version\": \"1.0.0\", \"licence\": \"CC0-1.0\","
    " \"description\": \"for tests\", \"provenance\": {\"data\": \"none\", \"dice\": {\"mean\": "
    "0.5}},"
    " \"modality\": \"MR\", \"field_of_view_mm\": {\"min\": [10, 20, 30], \"max\": [40, 50, 60]},"
    " \"channels\": [{\"name\": \"T1\", \"normalisation\": {\"kind\": \"zscore\"}}],"
    " \"labels\": [{\"value\": 1, \"name\": \"left\", \"rgb\": [1, 2, 3],"
    "   \"category\": {\"scheme\": \"SCT\", \"code\": \"123037004\", \"meaning\": \"Structure\"},"
    "   \"type\": {\"scheme\": \"SCT\", \"code\": \"5366008\", \"meaning\": \"Hippocampus\"}},"
    "  {\"value\": 7, \"name\": \"right\", \"rgb\": [255, 0, 128]}],"
    " \"orientation\": \"RAS\", \"crop\": \"nonzero\", \"spacing_zyx_mm\": [1.5, 1, 0.5],"
    " \"patch_zyx\": [4, 8, 12],"
    " \"resampling\": {\"image_order\": 3, \"logits_order\": 1, \"separate_axis\": \"auto\","
    "  \"separate_axis_order\": 0},"
    " \"mirror_axes\": [0, 2], \"postprocess\": {\"keep_largest\": [7], \"remove_small_mm3\": 2.5},"
    " \"network\": {\"shell\": \"residual_encoder\", \"in_channels\": 1, \"classes\": 3,"
    "  \"features\": [2, 4], \"kernels_zyx\": [[1, 3, 3], [3, 3, 3]],"
    "  \"strides_zyx\": [[1, 1, 1], [1, 2, 2]], \"encoder_blocks\": [1, 2],"
    "  \"decoder_blocks\": [1],"
    "  \"mamba\": {\"family\": \"segmamba_skip\", \"d_state_max\": 256, \"d_conv\": 4,"
    "   \"expand\": 2}}}";

static void *allocated(size_t n) {
    void *p = malloc(n ? n : 1);
    assert_non_null(p);
    return p;
}

char *replaced(const char *text, const char *from, const char *to) {
    const char *at = strstr(text, from);
    if (!at) fail_msg("\"%s\" is not in the text", from);
    const size_t before = (size_t)(at - text);
    char *out = allocated(strlen(text) + strlen(to) + 1);
    memcpy(out, text, before);
    strcpy(out + before, to);
    strcat(out, at + strlen(from));
    return out;
}

bytes safetensors(const char *header, size_t data_bytes) {
    const uint64_t length = strlen(header);
    bytes b = {.size = 8 + (size_t)length + data_bytes};
    b.data = allocated(b.size);
    memset(b.data, 0, b.size);
    for (int i = 0; i < 8; i++) b.data[i] = (unsigned char)(length >> 8 * i);
    memcpy(b.data + 8, header, (size_t)length);
    return b;
}

/* Appends JSON text of s, quoted. */
static char *put_quoted(char *out, const char *s) {
    *out++ = '"';
    for (; *s; s++) {
        if (*s == '"' || *s == '\\') *out++ = '\\';
        *out++ = *s;
    }
    *out++ = '"';
    return out;
}

static const char *dtype_name(vx_dtype dtype) {
    return dtype == VX_F32 ? "F32" : dtype == VX_F16 ? "F16" : "BF16";
}

/* 0, +-1/8, ... in the type: small exponents differ, but bits 0x3C00 and 0x3E00 are finite in all.
 */
static void put_values(unsigned char *out, size_t elements, vx_dtype dtype) {
    uint32_t seed = 12345;
    for (size_t i = 0; i < elements; i++) {
        seed = seed * 1664525u + 1013904223u;
        const float f = (float)((int)(seed >> 24) - 128) / 256.0f;
        uint32_t bits;
        memcpy(&bits, &f, 4);
        if (dtype == VX_F32) memcpy(out + 4 * i, &bits, 4);
        if (dtype == VX_BF16) memcpy(out + 2 * i, (const unsigned char *)&bits + 2, 2);
        if (dtype == VX_F16) {
            const uint16_t half = (uint16_t)((seed >> 16 & 0x8000) | 0x3000);
            memcpy(out + 2 * i, &half, 2);
        }
    }
}

bytes model_bytes(const char *recipe, vx_dtype dtype, bool with_heads) {
    vx_error err = {0};
    vx_recipe *parsed;
    vx_tensor_spec *specs;
    size_t count, offset = 0;
    if (vx_recipe_parse(recipe, strlen(recipe), &parsed, &err)) fail_msg("%s", err.text);
    assert_int_equal(vx_network_tensors(&parsed->network, &specs, &count, &err), VX_OK);
    char *header = allocated(2 * strlen(recipe) + 100 + count * 400), *at = header;
    at += sprintf(at, "{\"__metadata__\":{\"format\":\"pt\",\"voxmamba\":");
    at = put_quoted(at, recipe);
    *at++ = '}';
    for (size_t i = 0; i < count; i++) {
        size_t elements = 1;
        if (specs[i].optional && !with_heads) continue;
        *at++ = ',';
        at = put_quoted(at, specs[i].name);
        at += sprintf(at, ":{\"dtype\":\"%s\",\"shape\":[", dtype_name(dtype));
        for (int k = 0; k < specs[i].rank; k++) {
            at += sprintf(at, "%s%zu", k ? "," : "", specs[i].dims[k]);
            elements *= specs[i].dims[k];
        }
        const size_t end = offset + elements * vx_dtype_size(dtype);
        at += sprintf(at, "],\"data_offsets\":[%zu,%zu]}", offset, end);
        offset = end;
    }
    strcpy(at, "}  "); /* padded with spaces, as the safetensors library does */
    bytes b = safetensors(header, offset);
    put_values(b.data + (b.size - offset), offset / vx_dtype_size(dtype), dtype);
    free(header);
    vx_free(specs);
    vx_recipe_free(parsed);
    return b;
}

void write_temporary(const void *data, size_t size, char path[64]) {
    strcpy(path, "/tmp/vx-model-XXXXXX");
    const int fd = mkstemp(path);
    assert_true(fd >= 0);
    for (size_t done = 0; done < size;) {
        const ssize_t n = write(fd, (const char *)data + done, size - done);
        assert_true(n > 0);
        done += (size_t)n;
    }
    close(fd);
}

bytes read_bytes(const char *path) {
    FILE *f = fopen(path, "rb");
    bytes b = {0};
    if (!f) fail_msg("cannot open %s", path);
    assert_int_equal(fseek(f, 0, SEEK_END), 0);
    b.size = (size_t)ftell(f);
    rewind(f);
    b.data = allocated(b.size + 1);
    assert_int_equal(fread(b.data, 1, b.size, f), b.size);
    b.data[b.size] = 0;
    fclose(f);
    return b;
}
