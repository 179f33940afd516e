/* Models: opening, describing, and finding one by name or by what fits a case. */
#define _GNU_SOURCE
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "api/batch.h"
#include "api/internal.h"
#include "base/memory.h"
#include "base/text.h"
#include "infer/prepare.h"

#define MODEL_ENDING ".safetensors"

vxm_status vxm_model_open(const char *path, vxm_model **out, vxm_error *error) {
    *out = NULL;
    vx_error err;
    vxm_model *model = vx_alloc_zero(1, sizeof *model);
    if (!model || !(model->path = vx_strdup(path))) {
        vx_free(model);
        return vx_api_no_memory(error);
    }
    vx_status s = vx_model_open(path, &model->model, &err);
    if (s != VX_OK) {
        model->model = NULL;
        vxm_model_close(model);
        return vx_api_error(error, path, s, &err);
    }
    *out = model;
    return VXM_OK;
}

void vxm_model_close(vxm_model *model) {
    if (!model) return;
    if (model->model) vx_model_close(model->model);
    vx_free(model->path);
    vx_free(model);
}

const char *vxm_model_name(const vxm_model *model) { return model->model->recipe->name; }

cJSON *vx_recipe_json(const vx_model *model) {
    size_t bytes;
    const char *text = vx_model_file_metadata(model->file, "voxmamba", &bytes);
    return text ? cJSON_ParseWithLength(text, bytes) : NULL;
}

vxm_status vxm_model_json(const vxm_model *model, char **json, vxm_error *error) {
    *json = NULL;
    cJSON *root = cJSON_CreateObject();
    vx_json_text(root, "path", model->path);
    cJSON_AddStringToObject(root, "sha256", model->model->sha256);
    vx_json_size(root, "parameters", model->model->parameters);
    cJSON_AddItemToObject(root, "recipe", vx_recipe_json(model->model));
    return vx_json_print(root, json, error);
}

/* ---- Folders of models ---- */

typedef struct found_model {
    char *path;
    vxm_model *model; /* NULL: broken, error says why */
    char error[512];
} found_model;

typedef struct found_models {
    size_t count;
    found_model *items;
} found_models;

static void found_free(found_models *found) {
    for (size_t i = 0; i < found->count; i++) {
        vxm_model_close(found->items[i].model);
        vx_free(found->items[i].path);
    }
    vx_free(found->items);
    *found = (found_models){0};
}

/* The same file may be reached through two folders of the list. */
static bool already_found(const found_models *found, const vxm_model *model) {
    for (size_t i = 0; i < found->count; i++) {
        const vxm_model *other = found->items[i].model;
        if (other && strcmp(other->model->sha256, model->model->sha256) == 0) return true;
    }
    return false;
}

/* Takes path. False without memory. */
static bool found_add(found_models *found, char *path) {
    found_model item = {.path = path};
    vxm_error *error = vx_alloc(sizeof *error);
    found_model *items = vx_alloc((found->count + 1) * sizeof *items);
    if (!path || !error || !items) {
        vx_free(path);
        vx_free(error);
        vx_free(items);
        return false;
    }
    if (vxm_model_open(path, &item.model, error) != VXM_OK)
        memcpy(item.error, error->text, sizeof item.error);
    vx_free(error);
    if (item.model && already_found(found, item.model)) {
        vxm_model_close(item.model);
        vx_free(path);
        vx_free(items);
        return true;
    }
    if (found->count) memcpy(items, found->items, found->count * sizeof *items);
    vx_free(found->items);
    found->items = items;
    items[found->count++] = item;
    return true;
}

static int is_model_entry(const struct dirent *entry) {
    return entry->d_name[0] != '.' && vx_has_ending(entry->d_name, MODEL_ENDING);
}

/* Opens every model file of the folders, in their order and that of the file names. */
static vxm_status find_models(const char *folders, found_models *out, vxm_error *error) {
    *out = (found_models){0};
    bool memory = true;
    for (const char *from = folders ? folders : ""; *from && memory;) {
        size_t n = strcspn(from, ":");
        char *folder = vx_format_text("%.*s", (int)n, from);
        struct dirent **entries;
        int count = folder && *folder ? scandir(folder, &entries, is_model_entry, alphasort) : -1;
        for (int i = 0; i < count; i++) {
            bool slash = folder[strlen(folder) - 1] == '/';
            if (memory)
                memory = found_add(
                    out, vx_format_text("%s%s%s", folder, slash ? "" : "/", entries[i]->d_name));
            free(entries[i]);
        }
        if (count >= 0) free(entries);
        memory = memory && folder;
        vx_free(folder);
        from += n + (from[n] == ':');
    }
    if (memory) return VXM_OK;
    found_free(out);
    return vx_api_no_memory(error);
}

/* Absent where the recipe does not give it. */
static void add_code(cJSON *label, const char *key, const vx_code *code) {
    if (!code->scheme[0]) return;
    cJSON *object = cJSON_AddObjectToObject(label, key);
    cJSON_AddStringToObject(object, "scheme", code->scheme);
    cJSON_AddStringToObject(object, "code", code->value);
    cJSON_AddStringToObject(object, "meaning", code->meaning);
}

/* The members' names and forms are those of the recipe. */
static cJSON *label_json(const vx_label *label) {
    const int rgb[3] = {label->rgb[0], label->rgb[1], label->rgb[2]};
    cJSON *object = cJSON_CreateObject();
    vx_json_size(object, "value", label->value);
    cJSON_AddStringToObject(object, "name", label->name);
    cJSON_AddItemToObject(object, "rgb", cJSON_CreateIntArray(rgb, 3));
    add_code(object, "category", &label->category);
    add_code(object, "type", &label->type);
    add_code(object, "modifier", &label->modifier);
    return object;
}

static cJSON *summary_json(const found_model *item) {
    cJSON *object = cJSON_CreateObject();
    if (!item->model) {
        vx_json_text(object, "path", item->path);
        vx_json_text(object, "error", item->error);
        return object;
    }
    const vx_model *model = item->model->model;
    const vx_recipe *recipe = model->recipe;
    cJSON_AddStringToObject(object, "name", recipe->name);
    vx_json_text(object, "path", item->path);
    cJSON_AddStringToObject(object, "version", recipe->version);
    cJSON_AddStringToObject(object, "licence", recipe->licence);
    cJSON_AddStringToObject(object, "description", recipe->description);
    cJSON_AddStringToObject(object, "modality", recipe->modality);
    cJSON_AddStringToObject(object, "sha256", model->sha256);
    vx_json_size(object, "parameters", model->parameters);
    cJSON *channels = cJSON_AddArrayToObject(object, "channels");
    for (size_t i = 0; i < recipe->channel_count; i++)
        cJSON_AddItemToArray(channels, cJSON_CreateString(recipe->channels[i].name));
    cJSON *labels = cJSON_AddArrayToObject(object, "labels");
    for (size_t i = 0; i < recipe->labels.count; i++)
        cJSON_AddItemToArray(labels, label_json(&recipe->labels.labels[i]));
    return object;
}

vxm_status vxm_models_json(const char *folders, char **json, vxm_error *error) {
    *json = NULL;
    found_models found;
    vxm_status s = find_models(folders, &found, error);
    if (s != VXM_OK) return s;
    cJSON *root = cJSON_CreateArray();
    for (size_t i = 0; i < found.count; i++)
        cJSON_AddItemToArray(root, summary_json(&found.items[i]));
    found_free(&found);
    return vx_json_print(root, json, error);
}

/* ---- Choosing ---- */

/* "a, b, c" of the models that can be opened and, with only, fit; cut to room. */
static void list_names(const found_models *found, const bool *only, char *text, size_t room) {
    text[0] = '\0';
    size_t used = 0;
    for (size_t i = 0; i < found->count; i++) {
        if (!found->items[i].model || (only && !only[i])) continue;
        int n = snprintf(text + used, room - used, "%s%s", used ? ", " : "",
                         vxm_model_name(found->items[i].model));
        if (n < 0 || (used += (size_t)n) >= room) return;
    }
    if (!used) snprintf(text, room, "none");
}

static vxm_model *take(found_models *found, size_t i) {
    vxm_model *model = found->items[i].model;
    found->items[i].model = NULL;
    return model;
}

static bool stem_is(const char *path, const char *name) {
    const char *base = vx_base_name(path);
    size_t n = strlen(name);
    return strncmp(base, name, n) == 0 && strcmp(base + n, MODEL_ENDING) == 0;
}

static vxm_status choose_by_name(found_models *found, const char *name, vxm_model **out,
                                 vxm_error *error) {
    for (size_t i = 0; i < found->count; i++) {
        found_model *item = &found->items[i];
        bool named = item->model && strcmp(vxm_model_name(item->model), name) == 0;
        if (!named && !stem_is(item->path, name)) continue;
        if (!item->model) return vx_api_fail(error, item->path, VXM_ERR_MODEL, "%s", item->error);
        *out = take(found, i);
        return VXM_OK;
    }
    char names[256];
    list_names(found, NULL, names, sizeof names);
    return vx_api_fail(error, name, VXM_ERR_MODEL,
                       "no model of this name (there are: %s; give a file with --model, or set "
                       "VOXMAMBA_MODELS)",
                       names);
}

static vxm_status choose_by_case(found_models *found, const vxm_batch *batch, vxm_model **out,
                                 vxm_error *error) {
    size_t channels = 0, usable = 0, fitting = 0, last = 0, last_usable = 0;
    vx_geometry geo;
    vxm_error unreadable;
    const vxm_status read =
        batch ? vx_batch_first_geometry(batch, &geo, &channels, &unreadable) : VXM_OK;
    const bool known = batch && read == VXM_OK;
    bool *fits = vx_alloc_zero(found->count + 1, sizeof *fits);
    if (!fits) return vx_api_no_memory(error);
    for (size_t i = 0; i < found->count; i++) {
        const vxm_model *model = found->items[i].model;
        if (!model) continue;
        const vx_recipe *recipe = model->model->recipe;
        usable++;
        last_usable = i;
        fits[i] = !known || (recipe->channel_count == channels &&
                             vx_check_field_of_view(recipe, &geo, false, NULL, NULL) == VX_OK);
        if (fits[i]) {
            fitting++;
            last = i;
        }
    }
    vxm_status s = VXM_OK;
    char names[256];
    if (fitting == 1) {
        *out = take(found, last);
    } else if (usable == 1) {
        *out = take(found, last_usable); /* its own check says what does not fit */
    } else if (usable == 0) {
        s = vx_api_fail(error, NULL, VXM_ERR_MODEL,
                        "no model was found (give one with --model FILE, or set VOXMAMBA_MODELS)");
    } else if (read != VXM_OK) { /* nothing to choose by */
        if (error) *error = unreadable;
        s = read;
    } else {
        list_names(found, fitting ? fits : NULL, names, sizeof names);
        s = vx_api_fail(error, NULL, VXM_ERR_MODEL,
                        fitting
                            ? "more than one model fits (choose one with --model: %s)"
                            : "no model fits this case (there are: %s; choose one with --model)",
                        names);
    }
    vx_free(fits);
    return s;
}

static bool is_file(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

/* FOLDER/NAME.safetensors in the first folder that has it: no other model is opened then. *out NULL
 * when there is none. */
static vxm_status open_by_file_name(const char *name, const char *folders, vxm_model **out,
                                    vxm_error *error) {
    vxm_status s = VXM_OK;
    for (const char *from = folders ? folders : ""; *from && !*out && s == VXM_OK;) {
        size_t n = strcspn(from, ":");
        char *path = vx_format_text("%.*s/%s" MODEL_ENDING, (int)n, from, name);
        if (!path) return vx_api_no_memory(error);
        if (n && is_file(path)) s = vxm_model_open(path, out, error);
        vx_free(path);
        from += n + (from[n] == ':');
    }
    return s;
}

vxm_status vxm_model_find(const char *name, const char *folders, const vxm_batch *batch,
                          vxm_model **out, vxm_error *error) {
    *out = NULL;
    if (name && (strchr(name, '/') || vx_has_ending(name, MODEL_ENDING) || is_file(name)))
        return vxm_model_open(name, out, error);
    vxm_status s = name ? open_by_file_name(name, folders, out, error) : VXM_OK;
    if (s != VXM_OK || *out) return s;
    found_models found;
    s = find_models(folders, &found, error);
    if (s != VXM_OK) return s;
    s = name ? choose_by_name(&found, name, out, error) : choose_by_case(&found, batch, out, error);
    found_free(&found);
    return s;
}
