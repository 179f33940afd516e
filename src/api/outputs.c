#define _GNU_SOURCE
#include "api/outputs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "api/cases.h"
#include "base/memory.h"

#define SIDECAR_MAX ((size_t)64 << 20)

static const char *role_name(vx_role role) {
    switch (role) {
    case VX_ROLE_PREVIEW:
        return "preview";
    case VX_ROLE_PROBABILITY:
        return "probability";
    case VX_ROLE_LABEL:
        return "label";
    case VX_ROLE_TABLE:
        return "table";
    case VX_ROLE_MASK:
        break;
    }
    return "mask";
}

/* ---- Paths ---- */

static char *path_of_label(const vx_target *target, const char *mark, const char *label) {
    char safe[64];
    size_t n = 0;
    /* A label's name may hold what a file name must not, or should not. */
    for (const char *p = label; *p && n + 1 < sizeof safe; p++) {
        unsigned char c = (unsigned char)*p;
        safe[n++] = c < 33 || c == 127 || strchr("/\\:*?\"<>|", c) ? '_' : *p;
    }
    safe[n] = '\0';
    return vx_format_text("%s_%s%s%s", target->stem, mark, safe,
                          vx_format_extension(target->format));
}

static const char *class_name(const vx_recipe *recipe, size_t k) {
    if (recipe->regions) return recipe->labels.labels[k].name;
    return k == 0 ? "background" : recipe->labels.labels[k - 1].name;
}

static void add(vx_outputs *outputs, vx_role role, size_t index, char *path) {
    outputs->items[outputs->count++] = (vx_output){.role = role, .index = index, .path = path};
}

static vxm_status check_distinct(const vx_outputs *outputs, vxm_error *error) {
    for (size_t i = 0; i < outputs->count; i++) {
        if (outputs->target->sidecar &&
            strcmp(outputs->items[i].path, outputs->target->sidecar) == 0)
            return vx_api_fail(error, outputs->items[i].path, VXM_ERR_USAGE,
                               "output and sidecar have one name (choose another output name)");
        for (size_t j = 0; j < i; j++)
            if (strcmp(outputs->items[i].path, outputs->items[j].path) == 0)
                return vx_api_fail(error, outputs->items[i].path, VXM_ERR_USAGE,
                                   "two labels give one file name (use --labels to take one of "
                                   "them)");
    }
    return VXM_OK;
}

vxm_status vx_outputs_make(const vx_target *target, const vx_choices *choices, vx_outputs *out,
                           vxm_error *error) {
    const vx_recipe *recipe = choices->recipe;
    size_t classes = recipe->network.classes, labels = recipe->labels.count;
    *out = (vx_outputs){.target = target};
    out->items = vx_alloc_zero(classes + labels + 3, sizeof *out->items);
    if (!out->items) return vx_api_no_memory(error);
    if (choices->options.preview)
        add(out, VX_ROLE_PREVIEW, 0, vx_format_text("%s.png", target->stem));
    if (choices->options.probabilities)
        for (size_t k = 0; k < classes; k++)
            add(out, VX_ROLE_PROBABILITY, k, path_of_label(target, "prob_", class_name(recipe, k)));
    if (choices->options.split) {
        for (size_t k = 0; k < labels; k++)
            if (choices->wanted[k])
                add(out, VX_ROLE_LABEL, k,
                    path_of_label(target, "", recipe->labels.labels[k].name));
    } else {
        if (target->sidecar && !vx_format_names_labels(target->format))
            add(out, VX_ROLE_TABLE, 0, vx_format_text("%s.tsv", target->stem));
        add(out, VX_ROLE_MASK, 0, vx_strdup(target->mask));
    }
    vxm_status s = VXM_OK;
    for (size_t i = 0; i < out->count; i++)
        if (!out->items[i].path) s = vx_api_no_memory(error);
    if (s == VXM_OK) s = check_distinct(out, error);
    if (s != VXM_OK) vx_outputs_free(out);
    return s;
}

void vx_outputs_free(vx_outputs *outputs) {
    for (size_t i = 0; i < outputs->count; i++) {
        vx_output *item = &outputs->items[i];
        vx_out_discard(item->file);
        vx_free(item->path);
    }
    vx_free(outputs->items);
    outputs->items = NULL;
    outputs->count = 0;
}

/* ---- Checks before the work ---- */

static bool exists(const char *path) {
    struct stat st;
    return lstat(path, &st) == 0;
}

static cJSON *read_json(const char *path) {
    FILE *f = fopen(path, "rb");
    if (!f) return NULL;
    struct stat st;
    char *text = NULL;
    cJSON *root = NULL;
    if (fstat(fileno(f), &st) == 0 && S_ISREG(st.st_mode) && st.st_size >= 0 &&
        (size_t)st.st_size <= SIDECAR_MAX && (text = vx_alloc((size_t)st.st_size + 1))) {
        size_t n = fread(text, 1, (size_t)st.st_size, f);
        text[n] = '\0';
        root = cJSON_ParseWithLength(text, n);
    }
    vx_free(text);
    fclose(f);
    return root;
}

/* A killed run leaves its sidecar without a mask: that one may be replaced. Another's JSON beside
 * the output (BIDS has them) may not. */
static bool is_our_sidecar(const char *path, bool damaged_too) {
    cJSON *root = read_json(path);
    bool ours =
        root ? cJSON_IsString(cJSON_GetObjectItemCaseSensitive(root, "voxmamba")) : damaged_too;
    cJSON_Delete(root);
    return ours;
}

static vxm_status check_sidecar(const char *path, bool damaged_too, vxm_error *error) {
    if (!path || !exists(path) || is_our_sidecar(path, damaged_too)) return VXM_OK;
    return vx_api_fail(error, path, VXM_ERR_OUTPUT,
                       "exists already and is not a sidecar of voxmamba (choose another output "
                       "name or use --overwrite)");
}

vxm_status vx_outputs_check_absent(const vx_outputs *outputs, vxm_error *error) {
    const char *hint = "exists already (use --overwrite or --resume)";
    for (size_t i = 0; i < outputs->count; i++)
        if (exists(outputs->items[i].path))
            return vx_api_fail(error, outputs->items[i].path, VXM_ERR_OUTPUT, "%s", hint);
    return check_sidecar(outputs->target->sidecar, false, error);
}

vxm_status vx_outputs_check_sidecar(const vx_outputs *outputs, vxm_error *error) {
    return check_sidecar(outputs->target->sidecar, true, error);
}

static bool same_file(const char *a, const char *b) {
    struct stat s, t;
    return stat(a, &s) == 0 && stat(b, &t) == 0 && s.st_dev == t.st_dev && s.st_ino == t.st_ino;
}

vxm_status vx_outputs_check_inputs(const vx_outputs *outputs, char *const *files, size_t count,
                                   vxm_error *error) {
    const char *sidecar = outputs->target->sidecar;
    for (size_t i = 0; i < outputs->count; i++)
        for (size_t k = 0; k < count; k++)
            if (same_file(outputs->items[i].path, files[k]) ||
                (sidecar && same_file(sidecar, files[k])))
                return vx_api_fail(error, files[k], VXM_ERR_USAGE,
                                   "the output would replace this input (choose another output)");
    return VXM_OK;
}

/* ---- Collisions between cases ---- */

/* A file that a run makes, or an input that exists. */
typedef struct batch_file {
    const char *owner; /* the case's name; borrowed */
    char *path;        /* outputs own theirs */
    dev_t device;      /* of inputs */
    ino_t inode;
} batch_file;

typedef struct batch_files {
    size_t count, room;
    batch_file *items;
} batch_files;

static bool files_add(batch_files *files, batch_file file) {
    if (files->count == files->room) {
        size_t room = files->room ? 2 * files->room : 64;
        batch_file *items = vx_alloc_zero(room, sizeof *items);
        if (!items) return false;
        if (files->count) memcpy(items, files->items, files->count * sizeof *items);
        vx_free(files->items);
        files->items = items;
        files->room = room;
    }
    files->items[files->count++] = file;
    return true;
}

static bool add_output(batch_files *files, const char *owner, const char *path) {
    batch_file file = {.owner = owner, .path = vx_strdup(path)};
    bool added = file.path && files_add(files, file);
    if (!added) vx_free(file.path);
    return added;
}

static vxm_status add_outputs_of(batch_files *files, const vx_output_rule *rule,
                                 const vx_choices *choices, const char *name, vxm_error *error) {
    vx_target target;
    vx_outputs outputs;
    vxm_status s = vx_target_make(rule, name, &target, error);
    if (s != VXM_OK) return s;
    s = vx_outputs_make(&target, choices, &outputs, error);
    if (s == VXM_OK) {
        bool memory = !target.sidecar || add_output(files, name, target.sidecar);
        for (size_t i = 0; i < outputs.count && memory; i++)
            memory = add_output(files, name, outputs.items[i].path);
        if (!memory) s = vx_api_no_memory(error);
        vx_outputs_free(&outputs);
    }
    vx_target_free(&target);
    return s;
}

static int compare_paths(const void *a, const void *b) {
    return strcmp(((const batch_file *)a)->path, ((const batch_file *)b)->path);
}

static int compare_inodes(const void *a, const void *b) {
    const batch_file *f = a, *g = b;
    if (f->device != g->device) return f->device < g->device ? -1 : 1;
    return f->inode < g->inode ? -1 : f->inode > g->inode;
}

/* A case's name between the quotes that vxm_redact takes out, so it may hold none itself. */
static const char *quotable(const char *name, char out[80]) {
    snprintf(out, 80, "%s", name);
    for (char *p = out; *p; p++)
        if (*p == '\'') *p = '?';
    return out;
}

static vxm_status find_collision(const batch_files *outputs, const batch_files *inputs,
                                 vxm_error *error) {
    char a[80], b[80];
    for (size_t i = 0; i < outputs->count; i++) {
        const batch_file *file = &outputs->items[i];
        if (i && strcmp(file[-1].path, file->path) == 0)
            return vx_api_fail(error, file->path, VXM_ERR_USAGE,
                               "cases '%s' and '%s' would both write this file (run them into "
                               "different folders)",
                               quotable(file[-1].owner, a), quotable(file->owner, b));
        struct stat st;
        if (!inputs->count || stat(file->path, &st) != 0) continue;
        batch_file key = {.device = st.st_dev, .inode = st.st_ino};
        const batch_file *input =
            bsearch(&key, inputs->items, inputs->count, sizeof key, compare_inodes);
        if (input)
            return vx_api_fail(error, file->path, VXM_ERR_USAGE,
                               "an output of case '%s' would replace this input of case '%s' "
                               "(choose another output)",
                               quotable(file->owner, a), quotable(input->owner, b));
    }
    return VXM_OK;
}

vxm_status vx_outputs_check_batch(const vx_output_rule *rule, const vx_case_list *cases,
                                  const vx_choices *choices, vxm_error *error) {
    batch_files outputs = {0}, inputs = {0};
    vxm_status s = VXM_OK;
    for (size_t k = 0; k < cases->count && s == VXM_OK; k++) {
        const vx_case_files *c = &cases->cases[k];
        s = add_outputs_of(&outputs, rule, choices, c->name, error);
        for (size_t i = 0; i < c->channel_count && s == VXM_OK; i++) {
            struct stat st;
            if (stat(c->files[i], &st) != 0) continue; /* said when it is read */
            batch_file file = {.owner = c->name, .device = st.st_dev, .inode = st.st_ino};
            if (!files_add(&inputs, file)) s = vx_api_no_memory(error);
        }
    }
    if (s == VXM_OK) {
        if (outputs.count) qsort(outputs.items, outputs.count, sizeof(batch_file), compare_paths);
        if (inputs.count) qsort(inputs.items, inputs.count, sizeof(batch_file), compare_inodes);
        s = find_collision(&outputs, &inputs, error);
    }
    for (size_t i = 0; i < outputs.count; i++) vx_free(outputs.items[i].path);
    vx_free(outputs.items);
    vx_free(inputs.items);
    return s;
}

vxm_status vx_outputs_check_writable(const vx_outputs *outputs, vxm_error *error) {
    vx_error err;
    vx_out_file *file;
    const char *path = outputs->items[outputs->count - 1].path;
    vx_status s = vx_out_open(path, &file, &err);
    if (s != VX_OK) return vx_api_error(error, path, s, &err);
    vx_out_discard(file);
    return VXM_OK;
}

/* ---- Writing ---- */

vxm_status vx_outputs_hash(vx_outputs *outputs, const vx_log *log, vxm_error *error) {
    for (size_t i = 0; i < outputs->count; i++) {
        vx_error err;
        vx_output *item = &outputs->items[i];
        char name[VX_OUT_READING_NAME];
        vx_out_reading_name(item->file, name);
        vx_status s = vx_sha256_file(name, log, item->sha256, &err);
        if (s != VX_OK)
            return vx_api_error(error, item->path, s == VX_ERR_INPUT ? VX_ERR_OUTPUT : s, &err);
    }
    return VXM_OK;
}

static void undo(vx_outputs *outputs, bool sidecar_existed) {
    for (size_t i = 0; i < outputs->count; i++) {
        vx_output *item = &outputs->items[i];
        if (item->committed && !item->existed) (void)unlink(item->path);
    }
    if (outputs->target->sidecar && !sidecar_existed) (void)unlink(outputs->target->sidecar);
}

vxm_status vx_outputs_commit(vx_outputs *outputs, cJSON *sidecar, bool replace, vxm_error *error) {
    if (!replace) {
        vxm_status s = vx_outputs_check_absent(outputs, error);
        if (s != VXM_OK) {
            cJSON_Delete(sidecar);
            return s;
        }
    }
    bool sidecar_existed = false;
    if (sidecar) {
        sidecar_existed = exists(outputs->target->sidecar);
        vxm_status s = vx_json_write(sidecar, outputs->target->sidecar, true, error);
        if (s != VXM_OK) return s;
    }
    for (size_t i = 0; i < outputs->count; i++) {
        vx_error err;
        vx_output *item = &outputs->items[i];
        item->existed = exists(item->path);
        vx_status t = vx_out_commit(item->file, replace, &err);
        item->file = NULL;
        if (t != VX_OK) {
            undo(outputs, sidecar_existed);
            return vx_api_error(error, item->path, t, &err);
        }
        item->committed = true;
    }
    return VXM_OK;
}

cJSON *vx_outputs_json(const vx_outputs *outputs, const vx_recipe *recipe) {
    cJSON *array = cJSON_CreateArray();
    for (size_t i = 0; i < outputs->count; i++) {
        const vx_output *item = &outputs->items[i];
        cJSON *object = cJSON_CreateObject();
        cJSON_AddStringToObject(object, "role", role_name(item->role));
        if (item->role == VX_ROLE_PROBABILITY)
            cJSON_AddStringToObject(object, "label", class_name(recipe, item->index));
        if (item->role == VX_ROLE_LABEL)
            cJSON_AddStringToObject(object, "label", recipe->labels.labels[item->index].name);
        cJSON_AddStringToObject(object, "sha256", item->sha256);
        cJSON_AddItemToArray(array, object);
    }
    return array;
}

/* ---- Sidecar and resume ---- */

cJSON *vx_sidecar_json(const vx_model *model, const char *input_sha256, cJSON *options,
                       cJSON *outputs) {
    cJSON *root = cJSON_CreateObject();
    cJSON_AddStringToObject(root, "voxmamba", vxm_version());
    cJSON_AddStringToObject(root, "commit", vxm_commit());
    cJSON *name = cJSON_AddObjectToObject(root, "model");
    cJSON_AddStringToObject(name, "name", model->recipe->name);
    cJSON_AddStringToObject(name, "version", model->recipe->version);
    cJSON_AddStringToObject(name, "sha256", model->sha256);
    cJSON_AddStringToObject(root, "input_sha256", input_sha256);
    cJSON_AddItemToObject(root, "options", options);
    cJSON_AddItemToObject(root, "outputs", outputs);
    return root;
}

static bool text_is(const cJSON *object, const char *key, const char *text) {
    const char *value = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, key));
    return value && strcmp(value, text) == 0;
}

/* Whether the session would make this case's mask by the sidecar's options: also as a repetition in
 * fp32, where it repeats cases. */
static bool same_options(const vx_outputs *outputs, const vx_choices *choices,
                         const vxm_session *session, const cJSON *sidecar) {
    const cJSON *there = cJSON_GetObjectItemCaseSensitive(sidecar, "options");
    bool same = false;
    for (int repeated = 0; repeated <= session->may_repeat && !same; repeated++) {
        cJSON *options = vx_choices_json(choices, session, repeated, outputs->target->format);
        same = cJSON_Compare(options, there, true);
        cJSON_Delete(options);
    }
    return same;
}

bool vx_outputs_confirmed(vx_outputs *outputs, const vx_choices *choices,
                          const vxm_session *session, const char *input_sha256, const vx_log *log,
                          cJSON **sidecar) {
    *sidecar = NULL;
    cJSON *root = read_json(outputs->target->sidecar);
    if (!root) return false;
    bool same = text_is(cJSON_GetObjectItemCaseSensitive(root, "model"), "sha256",
                        session->model->model->sha256) &&
                text_is(root, "input_sha256", input_sha256) &&
                same_options(outputs, choices, session, root);
    /* The hashes on disk must be those that the sidecar names, file by file. */
    for (size_t i = 0; i < outputs->count && same; i++) {
        vx_output *item = &outputs->items[i];
        same = vx_sha256_file(item->path, log, item->sha256, NULL) == VX_OK;
    }
    cJSON *found = same ? vx_outputs_json(outputs, choices->recipe) : NULL;
    same = same && cJSON_Compare(found, cJSON_GetObjectItemCaseSensitive(root, "outputs"), true);
    cJSON_Delete(found);
    if (same)
        *sidecar = root;
    else
        cJSON_Delete(root);
    return same;
}
