/* safetensors: u64 header length, JSON header, tensors back to back. models/FORMAT.md lists what is
 * checked; nothing of the file is believed before. */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/memory.h"
#include "base/sha256.h"
#include "base/size.h"
#include "model/json_text.h"
#include "model/model.h"

#define MAX_HEADER ((uint64_t)100000000) /* the limit of the safetensors library */

typedef struct metadata_entry {
    const char *key, *value;
    size_t bytes;
} metadata_entry;

struct vx_model_file {
    void *map;
    size_t map_bytes;
    char *text; /* decoded strings of the header, NUL-terminated, one after the other */
    size_t text_used;
    vx_tensor *tensors; /* in the order of their data */
    size_t tensor_count, tensor_room;
    const vx_tensor **by_name; /* ascending names */
    metadata_entry *metadata;
    size_t metadata_count, metadata_room;
};

/* The header while it is read; data_* describe what follows it. */
typedef struct header {
    vx_json_cursor cursor;
    vx_model_file *file;
    const char *data;
    size_t data_bytes;
    bool seen_metadata;
    vx_error *err;
} header;

static vx_status out_of_memory(vx_error *err) {
    return vx_fail(err, VX_ERR_RESOURCE, "out of memory for the model's header");
}

static vx_status malformed(const header *h, const char *what) {
    const char *base = (const char *)h->file->map;
    return vx_fail(h->err, VX_ERR_MODEL, "the header is not safetensors: %s (byte %zu)", what,
                   (size_t)(h->cursor.at - base));
}

/* Doubles a full array. Returns the block to use or NULL. */
static void *grow(void *items, size_t count, size_t *room, size_t size) {
    if (count < *room) return items;
    size_t wanted = *room ? 2 * *room : 64;
    void *block = vx_alloc_zero(wanted, size);
    if (!block) return NULL;
    if (count) memcpy(block, items, count * size);
    vx_free(items);
    *room = wanted;
    return block;
}

/* Takes a string into the file's text block, where it stays. NULL when there is none. */
static const char *take_text(header *h, size_t *bytes) {
    char *out = h->file->text + h->file->text_used;
    size_t n;
    if (!vx_json_string(&h->cursor, out, &n)) return NULL;
    h->file->text_used += n + 1;
    if (bytes) *bytes = n;
    return out;
}

static vx_status read_metadata(header *h) {
    vx_model_file *file = h->file;
    if (h->seen_metadata) return malformed(h, "__metadata__ appears twice");
    h->seen_metadata = true;
    if (!vx_json_take(&h->cursor, '{')) return malformed(h, "__metadata__ is no object");
    if (vx_json_take(&h->cursor, '}')) return VX_OK;
    do {
        metadata_entry entry;
        entry.key = take_text(h, NULL);
        if (!entry.key || !vx_json_take(&h->cursor, ':'))
            return malformed(h, "a key of __metadata__ is malformed");
        entry.value = take_text(h, &entry.bytes);
        if (!entry.value) return malformed(h, "a value of __metadata__ is no string");
        metadata_entry *room =
            grow(file->metadata, file->metadata_count, &file->metadata_room, sizeof *room);
        if (!room) return out_of_memory(h->err);
        file->metadata = room;
        room[file->metadata_count++] = entry;
    } while (vx_json_take(&h->cursor, ','));
    return vx_json_take(&h->cursor, '}') ? VX_OK : malformed(h, "__metadata__ does not end");
}

static vx_status read_dtype(header *h, vx_tensor *t) {
    char *out = h->file->text + h->file->text_used; /* scratch: not kept */
    if (!vx_json_string(&h->cursor, out, NULL)) return malformed(h, "a dtype is no string");
    if (strcmp(out, "F32") == 0)
        t->dtype = VX_F32;
    else if (strcmp(out, "F16") == 0)
        t->dtype = VX_F16;
    else if (strcmp(out, "BF16") == 0)
        t->dtype = VX_BF16;
    else
        return vx_fail(h->err, VX_ERR_MODEL, "tensor %.100s: its type is not F32, F16 or BF16",
                       t->name);
    return VX_OK;
}

static vx_status read_shape(header *h, vx_tensor *t) {
    if (!vx_json_take(&h->cursor, '[')) return malformed(h, "a shape is no list");
    if (vx_json_take(&h->cursor, ']')) return VX_OK;
    do {
        uint64_t dim;
        if (!vx_json_u64(&h->cursor, &dim) || dim > SIZE_MAX)
            return vx_fail(h->err, VX_ERR_MODEL,
                           "tensor %.100s: its shape holds something else than whole numbers",
                           t->name);
        if (t->rank == 8)
            return vx_fail(h->err, VX_ERR_MODEL, "tensor %.100s: more than 8 dimensions", t->name);
        t->dims[t->rank++] = (size_t)dim;
    } while (vx_json_take(&h->cursor, ','));
    return vx_json_take(&h->cursor, ']') ? VX_OK : malformed(h, "a shape does not end");
}

/* data_offsets: [begin, end), counted from the header's end. */
static vx_status read_offsets(header *h, vx_tensor *t) {
    uint64_t begin, end;
    if (!vx_json_take(&h->cursor, '[') || !vx_json_u64(&h->cursor, &begin) ||
        !vx_json_take(&h->cursor, ',') || !vx_json_u64(&h->cursor, &end) ||
        !vx_json_take(&h->cursor, ']'))
        return vx_fail(h->err, VX_ERR_MODEL,
                       "tensor %.100s: data_offsets are not two whole numbers below 2^64", t->name);
    if (begin > end)
        return vx_fail(h->err, VX_ERR_MODEL, "tensor %.100s: its data ends before it begins",
                       t->name);
    if (end > h->data_bytes)
        return vx_fail(
            h->err, VX_ERR_MODEL,
            "tensor %.100s: its data lies beyond the file's end (is the file truncated?)", t->name);
    t->data = h->data + begin;
    t->bytes = (size_t)(end - begin);
    return VX_OK;
}

static vx_status check_size(const header *h, const vx_tensor *t) {
    size_t elements, bytes;
    if (!vx_product(t->dims, (size_t)t->rank, &elements) ||
        !vx_mul_size(elements, vx_dtype_size(t->dtype), &bytes))
        return vx_fail(h->err, VX_ERR_MODEL, "tensor %.100s: its shape overflows", t->name);
    if (bytes != t->bytes)
        return vx_fail(h->err, VX_ERR_MODEL, "tensor %.100s: its shape needs %zu bytes, it has %zu",
                       t->name, bytes, t->bytes);
    return VX_OK;
}

/* {"dtype": ..., "shape": ..., "data_offsets": ...} in any order, each once, nothing else. */
static vx_status read_tensor(header *h, const char *name) {
    vx_tensor t = {.name = name};
    enum { DTYPE = 1, SHAPE = 2, OFFSETS = 4 };
    unsigned seen = 0;
    if (vx_has_control(name)) return malformed(h, "a tensor's name holds a control character");
    if (!vx_json_take(&h->cursor, '{')) return malformed(h, "a tensor is no object");
    do {
        char *key = h->file->text + h->file->text_used; /* scratch: not kept */
        if (!vx_json_string(&h->cursor, key, NULL) || !vx_json_take(&h->cursor, ':'))
            return malformed(h, "a tensor's key is malformed");
        const unsigned bit = strcmp(key, "dtype") == 0          ? DTYPE
                             : strcmp(key, "shape") == 0        ? SHAPE
                             : strcmp(key, "data_offsets") == 0 ? OFFSETS
                                                                : 0;
        if (!bit || (seen & bit))
            return malformed(h, "a tensor has an unknown key or one key twice");
        seen |= bit;
        vx_status status = bit == DTYPE   ? read_dtype(h, &t)
                           : bit == SHAPE ? read_shape(h, &t)
                                          : read_offsets(h, &t);
        if (status) return status;
    } while (vx_json_take(&h->cursor, ','));
    if (!vx_json_take(&h->cursor, '}')) return malformed(h, "a tensor does not end");
    if (seen != (DTYPE | SHAPE | OFFSETS))
        return malformed(h, "a tensor lacks dtype, shape or data_offsets");
    vx_status status = check_size(h, &t);
    if (status) return status;
    vx_tensor *room =
        grow(h->file->tensors, h->file->tensor_count, &h->file->tensor_room, sizeof t);
    if (!room) return out_of_memory(h->err);
    h->file->tensors = room;
    room[h->file->tensor_count++] = t;
    return VX_OK;
}

static vx_status read_header(header *h) {
    if (h->cursor.at >= h->cursor.end || *h->cursor.at != '{')
        return malformed(h, "it does not begin with {");
    vx_json_take(&h->cursor, '{');
    if (!vx_json_take(&h->cursor, '}')) {
        do {
            const char *name = take_text(h, NULL);
            if (!name || !vx_json_take(&h->cursor, ':'))
                return malformed(h, "a key is missing or malformed");
            vx_status status =
                strcmp(name, "__metadata__") == 0 ? read_metadata(h) : read_tensor(h, name);
            if (status) return status;
        } while (vx_json_take(&h->cursor, ','));
        if (!vx_json_take(&h->cursor, '}')) return malformed(h, "it does not end");
    }
    return vx_json_at_end(&h->cursor) ? VX_OK : malformed(h, "something follows its end");
}

static int compare_data(const void *a, const void *b) {
    const vx_tensor *x = a, *y = b;
    const uintptr_t p = (uintptr_t)x->data, q = (uintptr_t)y->data;
    if (p != q) return p < q ? -1 : 1;
    return x->bytes < y->bytes ? -1 : x->bytes > y->bytes; /* empty tensors first */
}

static int compare_names(const void *a, const void *b) {
    return strcmp((*(const vx_tensor *const *)a)->name, (*(const vx_tensor *const *)b)->name);
}

static int compare_keys(const void *a, const void *b) {
    return strcmp(((const metadata_entry *)a)->key, ((const metadata_entry *)b)->key);
}

/* The tensors tile the data: no gap, no overlap, nothing left over. */
static vx_status check_tiling(const header *h) {
    const vx_model_file *file = h->file;
    const char *at = h->data;
    for (size_t i = 0; i < file->tensor_count; i++) {
        const vx_tensor *t = &file->tensors[i];
        if ((const char *)t->data != at)
            return vx_fail(h->err, VX_ERR_MODEL, "tensor %.100s: %s", t->name,
                           (const char *)t->data < at ? "its data overlaps another tensor's"
                                                      : "there is a gap before its data");
        at += t->bytes;
    }
    const size_t used = (size_t)(at - h->data);
    if (used != h->data_bytes)
        return vx_fail(h->err, VX_ERR_MODEL, "%zu bytes after the last tensor belong to none",
                       h->data_bytes - used);
    return VX_OK;
}

/* Sorts for the checks and for finding; names and keys must be unique. */
static vx_status index_file(const header *h) {
    vx_model_file *file = h->file;
    if (file->tensor_count) {
        qsort(file->tensors, file->tensor_count, sizeof *file->tensors, compare_data);
        file->by_name = vx_alloc_zero(file->tensor_count, sizeof *file->by_name);
        if (!file->by_name) return out_of_memory(h->err);
        for (size_t i = 0; i < file->tensor_count; i++) file->by_name[i] = &file->tensors[i];
        qsort(file->by_name, file->tensor_count, sizeof *file->by_name, compare_names);
    }
    for (size_t i = 1; i < file->tensor_count; i++)
        if (compare_names(&file->by_name[i - 1], &file->by_name[i]) == 0)
            return vx_fail(h->err, VX_ERR_MODEL, "tensor %.100s appears twice",
                           file->by_name[i]->name);
    if (file->metadata_count)
        qsort(file->metadata, file->metadata_count, sizeof *file->metadata, compare_keys);
    for (size_t i = 1; i < file->metadata_count; i++)
        if (compare_keys(&file->metadata[i - 1], &file->metadata[i]) == 0)
            return malformed(h, "a key of __metadata__ appears twice");
    return VX_OK;
}

/* file->map is set. */
static vx_status parse(vx_model_file *file, vx_error *err) {
    const unsigned char *bytes = file->map;
    uint64_t length = 0;
    if (file->map_bytes < 8)
        return vx_fail(err, VX_ERR_MODEL, "%zu bytes are too few for a model", file->map_bytes);
    for (int i = 7; i >= 0; i--) length = length << 8 | bytes[i];
    if (length > file->map_bytes - 8 || length > MAX_HEADER)
        return vx_fail(
            err, VX_ERR_MODEL,
            "the header would have %llu bytes, the file has %zu (not a safetensors file, "
            "or a truncated one)",
            (unsigned long long)length, file->map_bytes);
    header h = {.file = file, .err = err};
    h.cursor.at = (const char *)bytes + 8;
    h.cursor.end = h.cursor.at + length;
    h.data = h.cursor.end;
    h.data_bytes = file->map_bytes - 8 - (size_t)length;
    /* Decoded strings with their NULs are shorter than the quoted text; + 1 for an empty header. */
    file->text = vx_alloc((size_t)length + 1);
    if (!file->text) return out_of_memory(err);
    vx_status status = read_header(&h);
    if (status == VX_OK) status = index_file(&h);
    if (status == VX_OK) status = check_tiling(&h);
    return status;
}

static vx_status map_file(int fd, vx_model_file *file, vx_error *err) {
    struct stat st;
    if (fstat(fd, &st) != 0) return vx_fail(err, VX_ERR_MODEL, "%s", strerror(errno));
    if (S_ISDIR(st.st_mode)) return vx_fail(err, VX_ERR_MODEL, "this is a folder, not a model");
    if (!S_ISREG(st.st_mode)) return vx_fail(err, VX_ERR_MODEL, "this is not a regular file");
    if (st.st_size == 0) return vx_fail(err, VX_ERR_MODEL, "the file is empty");
    if ((uintmax_t)st.st_size > PTRDIFF_MAX)
        return vx_fail(err, VX_ERR_MODEL, "the file is too large");
    void *map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (map == MAP_FAILED)
        return vx_fail(err, VX_ERR_RESOURCE, "cannot map the model: %s", strerror(errno));
    file->map = map;
    file->map_bytes = (size_t)st.st_size;
    return VX_OK;
}

static vx_status open_file(const char *path, vx_model_file *file, vx_error *err) {
    /* O_NONBLOCK: a named pipe must not hang us; it has no effect on regular files. */
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return vx_fail(err, VX_ERR_MODEL, "cannot open the model: %s", strerror(errno));
    vx_status status = map_file(fd, file, err);
    close(fd);
    return status ? status : parse(file, err);
}

vx_status vx_model_file_open(const char *path, vx_model_file **out, vx_error *err) {
    *out = NULL;
    vx_model_file *file = vx_alloc_zero(1, sizeof *file);
    if (!file) return out_of_memory(err);
    vx_status status = open_file(path, file, err);
    if (status) {
        vx_model_file_close(file);
        return vx_fail_prefix(err, status, path);
    }
    *out = file;
    return VX_OK;
}

void vx_model_file_close(vx_model_file *file) {
    if (!file) return;
    if (file->map) munmap(file->map, file->map_bytes);
    vx_free(file->text);
    vx_free(file->tensors);
    vx_free(file->by_name);
    vx_free(file->metadata);
    vx_free(file);
}

size_t vx_model_file_count(const vx_model_file *file) { return file->tensor_count; }

const vx_tensor *vx_model_file_at(const vx_model_file *file, size_t i) {
    return i < file->tensor_count ? &file->tensors[i] : NULL;
}

const vx_tensor *vx_model_file_find(const vx_model_file *file, const char *name) {
    const vx_tensor wanted = {.name = name}, *key = &wanted;
    if (!file->tensor_count) return NULL;
    const vx_tensor *const *found =
        bsearch(&key, file->by_name, file->tensor_count, sizeof *file->by_name, compare_names);
    return found ? *found : NULL;
}

const char *vx_model_file_metadata(const vx_model_file *file, const char *key, size_t *bytes) {
    const metadata_entry wanted = {.key = key};
    if (!file->metadata_count) return NULL;
    const metadata_entry *found = bsearch(&wanted, file->metadata, file->metadata_count,
                                          sizeof *file->metadata, compare_keys);
    if (!found) return NULL;
    if (bytes) *bytes = found->bytes;
    return found->value;
}

void vx_model_file_release(const vx_model_file *file) {
    /* A private mapping that nobody writes to: its pages are the file's. A hint may fail. */
    (void)madvise(file->map, file->map_bytes, MADV_DONTNEED);
}

void vx_model_file_sha256(const vx_model_file *file, char hex[65]) {
    vx_sha256 sha;
    vx_sha256_start(&sha);
    vx_sha256_add(&sha, file->map, file->map_bytes);
    vx_sha256_end(&sha, hex);
}
