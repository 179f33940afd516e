/* Random damage to small NIfTI files, the same in every run: whatever comes, the reader answers
 * with a valid volume or with one line, and touches no memory that is not its own (sanitizers). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/io.h"
#include "nifti_bytes.h"

enum { ROUNDS = 1500 };

static uint64_t next_random(uint64_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* One of: single bits, single bytes, a run of one byte, words of extreme values, a cut, bytes put
 * in. */
static size_t damage(unsigned char *bytes, size_t size, size_t room, uint64_t *random) {
    static const unsigned char extremes[][8] = {{0, 0, 0, 0, 0, 0, 0, 0},
                                                {255, 255, 255, 255, 255, 255, 255, 255},
                                                {0, 0, 0, 128, 0, 0, 0, 128},
                                                {255, 255, 255, 127, 255, 255, 255, 127},
                                                {0, 0, 192, 127, 0, 0, 248, 127},
                                                {0, 0, 128, 127, 0, 0, 240, 127},
                                                {0xf2, 0xc9, 0x49, 0x71, 1, 0, 0, 0}};
    int times = 1 + (int)(next_random(random) % 4);
    for (int t = 0; t < times; t++) {
        /* Mostly in the header, where the meaning is. */
        size_t span = next_random(random) % 4 ? (size < 560 ? size : 560) : size;
        size_t at = next_random(random) % span, n = 1 + next_random(random) % 8;
        if (n > size - at) n = size - at;
        switch (next_random(random) % 6) {
        case 0:
            bytes[at] ^= (unsigned char)(1u << next_random(random) % 8);
            break;
        case 1:
            bytes[at] = (unsigned char)next_random(random);
            break;
        case 2:
            memset(bytes + at, (int)(next_random(random) & 255), n);
            break;
        case 3:
        case 4:
            memcpy(bytes + at, extremes[next_random(random) % 7], n);
            break;
        default:
            if (next_random(random) % 2 && at > 0) {
                size = at;
            } else if (size + n <= room) {
                memmove(bytes + at + n, bytes + at, size - at);
                size += n;
            }
        }
    }
    return size;
}

static size_t read_well;

static void try_file(const char *path) {
    vx_volume *v;
    vx_mask *m;
    vx_image_info info;
    vx_error err = {VX_OK, ""};
    vx_status s = vx_io_read(path, NULL, &v, &err);
    if (s == VX_OK) {
        read_well++;
        assert_int_equal(vx_geometry_check(&v->geo, NULL), VX_OK);
        for (size_t i = 0; i < vx_voxels(&v->geo); i++) assert_true(isfinite(v->data[i]));
        vx_volume_free(v);
    } else {
        assert_null(v);
        assert_int_equal(s, VX_ERR_INPUT);
        assert_true(strlen(err.text) > 0 && !strchr(err.text, '\n'));
    }
    s = vx_io_read_mask(path, NULL, &m, &err);
    assert_true(s == VX_OK ? m != NULL : m == NULL);
    vx_mask_free(m);
    (void)vx_io_info(path, NULL, &info, &err);
}

static void survives(const unsigned char *original, size_t size, const char *ending,
                     uint64_t seed) {
    char path[64];
    snprintf(path, sizeof path, "/tmp/vx-fuzz-%ld%s", (long)getpid(), ending);
    for (int round = 0; round < ROUNDS; round++) {
        unsigned char bytes[NIFTI_FILE_MAX];
        memcpy(bytes, original, size);
        size_t n = damage(bytes, size, sizeof bytes, &seed);
        write_file(path, bytes, n);
        try_file(path);
    }
    unlink(path);
}

static void damaged_files(void **state) {
    (void)state;
    nifti_bytes f;
    unsigned char packed[NIFTI_FILE_MAX];
    for (int version = 1; version <= 2; version++) {
        (version == 1 ? nifti1_file : nifti2_file)(&f);
        survives(f.bytes, f.size, ".nii", 0x9e3779b97f4a7c15u + (uint64_t)version);
        size_t n = gzip_bytes(f.bytes, f.size, packed, sizeof packed);
        survives(packed, n, ".nii.gz", 0xd1b54a32d192ed03u + (uint64_t)version);
    }
    assert_true(read_well > 0 && read_well < 4 * ROUNDS);
}

/* Damage below the compression, so that it passes the checksum. */
static void damaged_and_packed(void **state) {
    (void)state;
    nifti_bytes f;
    char path[64];
    uint64_t seed = 0x2545f4914f6cdd1du;
    snprintf(path, sizeof path, "/tmp/vx-fuzz-%ld.nii.gz", (long)getpid());
    for (int round = 0; round < ROUNDS; round++) {
        unsigned char packed[2 * NIFTI_FILE_MAX];
        (round % 2 ? nifti1_file : nifti2_file)(&f);
        f.size = damage(f.bytes, f.size, sizeof f.bytes, &seed);
        write_file(path, packed, gzip_bytes(f.bytes, f.size, packed, sizeof packed));
        try_file(path);
    }
    unlink(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(damaged_files),
                                       cmocka_unit_test(damaged_and_packed)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
