#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "base/sha256.h"

typedef void (*start_fn)(vx_sha256 *sha);
static const start_fn starts[] = {vx_sha256_start_portable, vx_sha256_start};

/* NIST's examples for FIPS 180-4: nothing, one block, two blocks by padding, two and more by
 * length. */
static void known_values(void **state) {
    static const struct {
        const char *text, *hex;
    } known[] = {
        {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
        {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
         "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
        {"abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqr"
         "lmnopqrsmnopqrstnopqrstu",
         "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1"},
    };
    (void)state;
    for (size_t k = 0; k < sizeof starts / sizeof *starts; k++)
        for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
            vx_sha256 sha;
            char hex[65];
            starts[k](&sha);
            vx_sha256_add(&sha, known[i].text, strlen(known[i].text));
            vx_sha256_end(&sha, hex);
            assert_string_equal(hex, known[i].hex);
        }
}

static void a_million_times_a(void **state) {
    (void)state;
    char *a = malloc(1000000);
    assert_non_null(a);
    memset(a, 'a', 1000000);
    for (size_t k = 0; k < sizeof starts / sizeof *starts; k++) {
        vx_sha256 sha;
        char hex[65];
        starts[k](&sha);
        /* In pieces of every length up to 200, then the rest. */
        size_t done = 0;
        for (size_t n = 0; n <= 200; done += n++) vx_sha256_add(&sha, a + done, n);
        vx_sha256_add(&sha, a + done, 1000000 - done);
        vx_sha256_end(&sha, hex);
        assert_string_equal(hex,
                            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    }
    free(a);
}

/* Padding takes one block or two: every length around them, both ways alike. */
static void every_length(void **state) {
    unsigned char data[300];
    (void)state;
    for (size_t i = 0; i < sizeof data; i++) data[i] = (unsigned char)(i * 37 + 11);
    for (size_t n = 0; n <= sizeof data; n++) {
        char hex[2][65];
        for (size_t k = 0; k < 2; k++) {
            vx_sha256 sha;
            starts[k](&sha);
            vx_sha256_add(&sha, data, n);
            vx_sha256_end(&sha, hex[k]);
        }
        assert_string_equal(hex[0], hex[1]);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_values),
        cmocka_unit_test(a_million_times_a),
        cmocka_unit_test(every_length),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
