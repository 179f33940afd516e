/* The input of one case: channel order, hashes, and all channels on one grid. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "api/pipeline.h"
#include "base/memory.h"
#include "base/size.h"

/* Channels of one case may differ by this much at a corner and still be one grid. */
#define GRID_TOLERANCE_MM 0.1

static vxm_status channel_by_name(const vx_case_files *files, size_t k, const vx_recipe *recipe,
                                  size_t *out, vxm_error *error) {
    char known[300] = "";
    for (size_t i = 0; i < recipe->channel_count; i++) {
        if (strcmp(recipe->channels[i].name, files->channel_names[k]) == 0) {
            *out = i;
            return VXM_OK;
        }
        size_t used = strlen(known);
        if (used < sizeof known - 70)
            snprintf(known + used, sizeof known - used, "%s%s", i ? ", " : "",
                     recipe->channels[i].name);
    }
    return vx_api_fail(error, files->files[k], VXM_ERR_USAGE,
                       "the model has no channel '%.60s' (it has: %s)", files->channel_names[k],
                       known);
}

vxm_status vx_channel_order(const vx_case_files *files, const vx_recipe *recipe, size_t *order,
                            vxm_error *error) {
    size_t n = files->channel_count, wanted = recipe->channel_count;
    for (size_t k = 0; k < n; k++) order[k] = k;
    if (!files->channel_names) return VXM_OK; /* one file may hold all channels */
    for (size_t k = 0; k < n; k++) order[k] = SIZE_MAX;
    for (size_t k = 0; k < n; k++) {
        size_t place;
        vxm_status s = channel_by_name(files, k, recipe, &place, error);
        if (s != VXM_OK) return s;
        if (place < n && order[place] != SIZE_MAX)
            return vx_api_fail(error, files->files[k], VXM_ERR_USAGE,
                               "channel '%.60s' was given twice", files->channel_names[k]);
        if (place < n) order[place] = k;
    }
    for (size_t i = 0; i < wanted; i++)
        if (i >= n || order[i] == SIZE_MAX)
            return vx_api_fail(error, files->shown, VXM_ERR_INPUT,
                               "channel '%s' of the model is missing (add --channel %s=FILE)",
                               recipe->channels[i].name, recipe->channels[i].name);
    return VXM_OK;
}

static vxm_status check_count(const vx_case_files *files, const vx_recipe *recipe, size_t channels,
                              vxm_error *error) {
    if (channels == recipe->channel_count) return VXM_OK;
    return vx_api_fail(error, files->shown, VXM_ERR_INPUT,
                       "%zu channel%s, but the model wants %zu (channel files end in _0000, "
                       "_0001, ... or are given by --channel NAME=FILE)",
                       channels, channels == 1 ? "" : "s", recipe->channel_count);
}

vxm_status vx_check_channels(const vx_case_files *files, const vx_recipe *recipe, size_t channels,
                             vxm_error *error) {
    size_t *order = vx_alloc_zero(files->channel_count, sizeof *order);
    if (!order) return vx_api_no_memory(error);
    vxm_status s = vx_channel_order(files, recipe, order, error);
    vx_free(order);
    return s == VXM_OK ? check_count(files, recipe, channels, error) : s;
}

static vx_read_options read_options(const vxm_segment_options *options, const vx_log *log) {
    return (vx_read_options){.series = options->series,
                             .tolerate_geometry = options->tolerate_geometry != 0,
                             .log = log};
}

vxm_status vx_hash_inputs(vx_case_run *run, vxm_error *error) {
    const vx_case_files *files = run->files;
    vx_read_options options = read_options(&run->choices->options, &run->log);
    size_t n = files->channel_count;
    size_t *order = vx_alloc_zero(n, sizeof *order);
    char(*hashes)[65] = vx_alloc_zero(n, sizeof *hashes); /* in the model's channel order */
    vxm_status s = VXM_OK;
    if (!order || !hashes) s = vx_api_no_memory(error);
    if (s == VXM_OK) s = vx_channel_order(files, run->choices->recipe, order, error);
    for (size_t k = 0; k < n && s == VXM_OK; k++) {
        vx_error err;
        const char *path = files->files[order[k]];
        vx_status t = vx_sha256_input(path, &options, hashes[k], &err);
        if (t != VX_OK) s = vx_api_error(error, path, t, &err);
    }
    if (s == VXM_OK) vx_sha256_join((const char(*)[65])hashes, n, run->result->pub.input_sha256);
    vx_free(hashes);
    vx_free(order);
    return s;
}

static vxm_status check_grid(const vx_geometry *first, const vx_geometry *other, const char *path,
                             vxm_error *error) {
    double distance = vx_geometry_distance(first, other);
    if (distance <= GRID_TOLERANCE_MM) return VXM_OK;
    if (isinf(distance))
        return vx_api_fail(error, path, VXM_ERR_INPUT,
                           "this channel has %zu x %zu x %zu voxels, the first one %zu x %zu x %zu "
                           "(resample them to one grid)",
                           other->dims[0], other->dims[1], other->dims[2], first->dims[0],
                           first->dims[1], first->dims[2]);
    return vx_api_fail(error, path, VXM_ERR_INPUT,
                       "this channel's grid lies up to %.2f mm off the first one's (register and "
                       "resample them to one grid)",
                       distance);
}

/* Makes room for all of the model's channels behind those of the first file. */
static vxm_status widen(vx_volume **volume, size_t channels, vxm_error *error) {
    vx_error err;
    vx_volume *wide, *first = *volume;
    if (first->channels >= channels) return VXM_OK;
    vx_status s = vx_volume_create(&first->geo, channels, &wide, &err);
    if (s != VX_OK) return vx_api_error(error, NULL, s, &err);
    memcpy(wide->data, first->data, first->channels * vx_voxels(&first->geo) * sizeof *wide->data);
    wide->source = vx_source_ref(first->source);
    vx_volume_free(first);
    *volume = wide;
    return VXM_OK;
}

/* ---- Admission ---- */

static vxm_status ask_unchanged(void *data, const vx_geometry *geo, uint64_t beside,
                                vxm_error *error) {
    (void)beside;
    if (memcmp(data, geo, sizeof *geo) == 0) return VXM_OK;
    return vx_api_fail(error, NULL, VXM_ERR_INPUT, "changed while it was being segmented");
}

vx_admission vx_admit_unchanged(const vx_geometry *geo) {
    return (vx_admission){ask_unchanged, (void *)geo};
}

/* A further channel: only the first one's grid is one that memory was taken for. */
static vxm_status ask_same_grid(void *data, const vx_geometry *geo, uint64_t beside,
                                vxm_error *error) {
    (void)beside; /* as the first one's */
    return check_grid(data, geo, NULL, error);
}

/* From a reader's question to ours: data is a vx_admission. */
static vx_status admit(void *data, const vx_geometry *geo, uint64_t beside, vx_error *err) {
    const vx_admission *admission = data;
    vxm_error error;
    vxm_status s = admission->ask(admission->data, geo, beside, &error);
    return s == VXM_OK ? VX_OK : vx_fail(err, (vx_status)s, "%s", error.text);
}

static vxm_status read_one(const char *path, vx_read_options options, vx_admission admission,
                           vx_volume **out, vxm_error *error) {
    vx_error err;
    options.admit = admit;
    options.admit_data = &admission;
    vx_status s = vx_io_read(path, &options, out, &err);
    return s == VX_OK ? VXM_OK : vx_api_error(error, path, s, &err);
}

/* ---- Reading ---- */

/* The other files' channels. *out is the first file's volume and becomes that of all; used: how
 * many channels were read in all, which may be more or fewer than there is room for. */
static vxm_status read_more(vx_case_run *run, const size_t *order, const vx_read_options *options,
                            vx_volume **out, size_t *used, vxm_error *error) {
    const vx_case_files *files = run->files;
    size_t voxels = vx_voxels(&(*out)->geo);
    vxm_status s = widen(out, run->choices->recipe->channel_count, error);
    for (size_t k = 1; k < files->channel_count && s == VXM_OK; k++) {
        vx_volume *one = NULL;
        const vx_admission same = {ask_same_grid, &(*out)->geo};
        s = read_one(files->files[order[k]], *options, same, &one, error);
        if (s != VXM_OK) return s;
        if (*used < (*out)->channels && one->channels <= (*out)->channels - *used)
            memcpy((*out)->data + *used * voxels, one->data,
                   one->channels * voxels * sizeof *one->data);
        *used += one->channels; /* at most the files' voxels: no overflow */
        vx_volume_free(one);
    }
    return s;
}

static vxm_status read_channels(vx_case_run *run, vx_pool *pool, const size_t *order,
                                vx_admission admission, vx_volume **out, vxm_error *error) {
    const vx_case_files *files = run->files;
    vx_read_options options = read_options(&run->choices->options, &run->log);
    options.pool = pool;
    vxm_status s = read_one(files->files[order[0]], options, admission, out, error);
    if (s != VXM_OK) return s;
    size_t used = (*out)->channels;
    if (files->channel_count > 1) s = read_more(run, order, &options, out, &used, error);
    return s == VXM_OK ? check_count(files, run->choices->recipe, used, error) : s;
}

vxm_status vx_read_inputs(vx_case_run *run, vx_pool *pool, vx_admission admission, vx_volume **out,
                          vxm_error *error) {
    const vx_case_files *files = run->files;
    const vx_recipe *recipe = run->choices->recipe;
    *out = NULL;
    size_t *order = vx_alloc_zero(files->channel_count, sizeof *order);
    if (!order) return vx_api_no_memory(error);
    vxm_status s = vx_channel_order(files, recipe, order, error);
    if (s == VXM_OK) s = read_channels(run, pool, order, admission, out, error);
    vx_free(order);
    if (s != VXM_OK) {
        vx_volume_free(*out);
        *out = NULL;
    }
    return s;
}

vxm_status vx_read_again(vx_case_run *run, const vx_geometry *geo, vx_volume **out,
                         vxm_error *error) {
    const vx_case_files *files = run->files;
    /* What there is to say of the file was said at the first reading. */
    vx_read_options options = read_options(&run->choices->options, NULL);
    options.pool = run->session->pool;
    *out = NULL;
    size_t *order = vx_alloc_zero(files->channel_count, sizeof *order);
    if (!order) return vx_api_no_memory(error);
    vxm_status s = vx_channel_order(files, run->choices->recipe, order, error);
    const char *path = files->files[s == VXM_OK ? order[0] : 0];
    vx_free(order);
    return s == VXM_OK ? read_one(path, options, vx_admit_unchanged(geo), out, error) : s;
}

vxm_status vx_inspect_inputs(const vx_case_files *files, const vxm_segment_options *options,
                             vx_image_info *out, vxm_error *error) {
    *out = (vx_image_info){0};
    vx_read_options read = read_options(options, NULL);
    for (size_t k = 0; k < files->channel_count; k++) {
        vx_error err;
        vx_image_info info = {0};
        vx_status s = vx_io_info(files->files[k], &read, &info, &err);
        if (s != VX_OK) return vx_api_error(error, files->files[k], s, &err);
        if (k == 0) {
            *out = info;
        } else {
            vxm_status t = check_grid(&out->geo, &info.geo, files->files[k], error);
            if (t != VXM_OK) return t;
            out->channels += info.channels;
        }
    }
    return VXM_OK;
}
