/* Random damage to good models: whatever happens, the answer is a model or one clean line; no
 * crash, no leak (run it under ASan). The damage is the same for the same seed.
 *
 *   fuzz_model [rounds] [seed]
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../unit/model/model_writer.h"

static unsigned long rounds = 3000;
static uint64_t random_state = 1;

/* xorshift64*: enough for damage. */
static uint64_t random_bits(void) {
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return random_state * 2685821657736338717u;
}

static size_t below(size_t n) { return n ? (size_t)(random_bits() % n) : 0; }

/* Where damage hurts most: mostly inside the header. */
static size_t place(const bytes *b) {
    size_t header = 8;
    for (int i = 0; i < 8; i++) header += (size_t)b->data[i] << 8 * i;
    return below(header < b->size && below(8) ? header : b->size);
}

/* Puts `with` over `gone` bytes at `at`; keeps the header's length right if inside it and asked to.
 */
static void splice(bytes *b, size_t at, size_t gone, const char *with, size_t n) {
    if (gone > b->size - at) gone = b->size - at;
    unsigned char *data = malloc(b->size - gone + n + 1);
    assert_non_null(data);
    memcpy(data, b->data, at);
    memcpy(data + at, with, n);
    memcpy(data + at + n, b->data + at + gone, b->size - at - gone);
    free(b->data);
    b->data = data;
    b->size = b->size - gone + n;
    if (at >= 8 && below(4)) { /* else the length is damaged too */
        uint64_t length = 0;
        for (int i = 7; i >= 0; i--) length = length << 8 | data[i];
        length = length - gone + n;
        for (int i = 0; i < 8; i++) data[i] = (unsigned char)(length >> 8 * i);
    }
}

static void damage(bytes *b) {
    static const char *const words[] = {
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"",
        "\\",
        "\\u0000",
        "\\ud800",
        "-1",
        "0",
        "1e308",
        "1e999",
        "18446744073709551615",
        "9223372036854775808",
        "4294967296",
        "null",
        "true",
        "\"F16\"",
        "\"I64\"",
        "[[[[[[[[",
        "{\"a\":{\"a\":",
        "\xff\xfe",
        "\x1b[2J",
        "data_offsets",
        "1,1,1,1",
        "encoder.stem",
        " ",
        "\n",
        "0.5",
        "65536",
        "\\\"",
        "\\\\\\\"",
    };
    if (!b->size) return;
    const size_t at = place(b);
    switch (below(7)) {
    case 0:
        b->data[at] ^= (unsigned char)(1u << below(8));
        break;
    case 1:
        b->data[at] = (unsigned char)random_bits();
        break;
    case 2:
        splice(b, at, 1 + below(40), "", 0);
        break;
    case 3:
    case 4: {
        const char *word = words[below(sizeof words / sizeof *words)];
        splice(b, at, below(2) ? strlen(word) : 0, word, strlen(word));
        break;
    }
    case 5: { /* a piece of the file once more, elsewhere */
        const size_t from = place(b), room = b->size - from, most = room < 64 ? room : 64;
        char piece[64];
        memcpy(piece, b->data + from, most);
        splice(b, at, below(most + 1), piece, most);
        break;
    }
    default:
        b->size = below(16) ? b->size : at; /* cut short */
    }
}

/* The ends of every weight are in the mapping: reading them must not fault. */
static unsigned touch(const vx_model_file *file) {
    unsigned sum = 0;
    for (size_t i = 0; i < vx_model_file_count(file); i++) {
        const vx_tensor *t = vx_model_file_at(file, i);
        const unsigned char *p = t->data;
        if (t->bytes) sum += (unsigned)p[0] + p[t->bytes - 1];
    }
    return sum;
}

static void open_damaged(const bytes *b, size_t *opened) {
    char path[64];
    vx_model *model = NULL;
    vx_graph *graph = NULL;
    vx_error err = {0};
    write_temporary(b->data, b->size, path);
    const vx_status status = vx_model_open(path, &model, &err);
    unlink(path);
    if (status) {
        assert_true(status == VX_ERR_MODEL && !model && strlen(err.text) > strlen(path));
        for (const char *p = err.text; *p; p++)
            assert_true((unsigned char)*p >= 0x20 && *p != 0x7f);
        return;
    }
    ++*opened;
    touch(model->file);
    if (vx_model_graph(model, 1, model->recipe->patch, &graph, &err) == VX_OK)
        assert_int_equal(vx_graph_fuse(graph, &err), VX_OK);
    vx_graph_free(graph);
    vx_model_close(model);
}

static void random_damage(void **state) {
    (void)state;
    static const char *const families[] = {"segmamba_skip", "multi_segmamba", "none", "umamba_bot"};
    size_t opened = 0;
    bytes good[4];
    for (size_t f = 0; f < 4; f++) {
        char *recipe = replaced(small_recipe, "segmamba_skip", families[f]);
        good[f] = model_bytes(recipe, (vx_dtype)(f % 3), f % 2);
        free(recipe);
    }
    for (unsigned long i = 0; i < rounds; i++) {
        const bytes *from = &good[below(4)];
        bytes b = {.data = malloc(from->size), .size = from->size};
        assert_non_null(b.data);
        memcpy(b.data, from->data, b.size);
        for (size_t hits = 1 + below(3); hits; hits--) damage(&b);
        open_damaged(&b, &opened);
        free(b.data);
    }
    /* Damage to values and texts is no fault; damage to structure is. */
    assert_true(opened > 0 && opened < rounds / 2);
    for (size_t f = 0; f < 4; f++) free(good[f].data);
}

/* Every length of a good file: only the whole one opens. */
static void every_truncation(void **state) {
    (void)state;
    bytes b = model_bytes(small_recipe, VX_F16, false);
    size_t opened = 0;
    for (size_t size = 0; size < b.size; size += size < 12000 ? 7 : 97) {
        const bytes cut = {b.data, size};
        open_damaged(&cut, &opened);
    }
    assert_int_equal(opened, 0);
    free(b.data);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(random_damage),
                                       cmocka_unit_test(every_truncation)};
    if (argc > 1) rounds = strtoul(argv[1], NULL, 10);
    if (argc > 2) random_state = strtoull(argv[2], NULL, 10) | 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
