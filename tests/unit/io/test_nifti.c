/* NIfTI files made by hand: what is read, and every way in which one is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/io.h"
#include "nifti_bytes.h"

static char folder[64];

/* folder/name, in one of a few buffers. */
static const char *in_folder(const char *name) {
    static char paths[4][160];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

static int make_folder(void **state) {
    (void)state;
    strcpy(folder, "/tmp/vx-nifti-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state) {
    (void)state;
    char command[100];
    snprintf(command, sizeof command, "rm -r '%s'", folder);
    return system(command);
}

/* The file is refused by every reader that looks at what is wrong, in one line that has words. */
static void refused_file(const char *path, const char *words, bool header_too) {
    vx_volume *v = (vx_volume *)1;
    vx_mask *m = (vx_mask *)1;
    vx_image_info info;
    vx_error err = {VX_OK, ""};
    vx_status s = vx_io_read(path, NULL, &v, &err);
    if (s != VX_ERR_INPUT) fail_msg("status %d instead of an error about \"%s\"", (int)s, words);
    assert_int_equal(err.code, s);
    assert_null(v);
    if (!strstr(err.text, words)) fail_msg("\"%s\" does not say \"%s\"", err.text, words);
    assert_null(strchr(err.text, '\n'));
    assert_true(err.text[strlen(err.text) - 1] != '.');
    assert_int_equal(vx_io_read_mask(path, NULL, &m, &err), VX_ERR_INPUT);
    assert_null(m);
    if (header_too) assert_int_equal(vx_io_info(path, NULL, &info, &err), VX_ERR_INPUT);
    assert_int_equal(vx_io_read(path, NULL, &v, NULL), VX_ERR_INPUT); /* err may be NULL */
}

static void refused(const nifti_bytes *f, const char *words) {
    const char *path = in_folder("bad.nii");
    write_file(path, f->bytes, f->size);
    refused_file(path, words, true);
    unsigned char packed[NIFTI_FILE_MAX];
    size_t n = gzip_bytes(f->bytes, f->size, packed, sizeof packed);
    path = in_folder("bad.nii.gz");
    write_file(path, packed, n);
    refused_file(path, words, true);
}

static void check_values(const char *path) {
    vx_volume *v;
    vx_mask *m;
    vx_image_info info;
    vx_error err;
    if (vx_io_read(path, NULL, &v, &err) != VX_OK) fail_msg("%s", err.text);
    assert_int_equal(vx_io_read_mask(path, NULL, &m, &err), VX_OK);
    assert_int_equal(vx_io_info(path, NULL, &info, &err), VX_OK);
    assert_string_equal(info.dtype, "int16");
    assert_int_equal(info.channels, 1);
    static const size_t dims[3] = {4, 3, 2};
    assert_memory_equal(v->geo.dims, dims, sizeof dims);
    assert_memory_equal(&m->geo, &v->geo, sizeof v->geo);
    assert_memory_equal(&info.geo, &v->geo, sizeof v->geo);
    for (int r = 0; r < 4; r++)
        for (int c = 0; c < 4; c++)
            assert_true(v->geo.affine[r][c] == (r != c ? 0 : r < 3 ? r + 1 : 1));
    for (size_t i = 0; i < 24; i++) {
        assert_true(v->data[i] == (float)i);
        assert_int_equal(vx_mask_get(m, i), i);
    }
    vx_volume_free(v);
    vx_mask_free(m);
}

static void reads_what_is_valid(void **state) {
    (void)state;
    nifti_bytes f;
    unsigned char packed[NIFTI_FILE_MAX], two[2 * NIFTI_FILE_MAX];
    for (int version = 1; version <= 2; version++) {
        (version == 1 ? nifti1_file : nifti2_file)(&f);
        write_file(in_folder("a.nii"), f.bytes, f.size);
        check_values(in_folder("a.nii"));
        write_file(in_folder("A.NII"), f.bytes, f.size);
        check_values(in_folder("A.NII"));
        write_file(in_folder("no_ending"), f.bytes, f.size);
        check_values(in_folder("no_ending"));
        size_t n = gzip_bytes(f.bytes, f.size, packed, sizeof packed);
        write_file(in_folder("a.nii.gz"), packed, n);
        check_values(in_folder("a.nii.gz"));
        /* Two members, the second behind the first; padded with zeros as tapes are. */
        memset(two, 0, sizeof two);
        size_t a = gzip_bytes(f.bytes, 377, two, sizeof two);
        size_t b = gzip_bytes(f.bytes + 377, f.size - 377, two + a, sizeof two - a);
        write_file(in_folder("a.nii.gz"), two, a + b + 1000);
        check_values(in_folder("a.nii.gz"));
        /* Padding behind the voxels. */
        write_file(in_folder("a.nii"), f.bytes, f.size + 500);
        check_values(in_folder("a.nii"));
    }
    nifti1_file(&f);
    put_f32(f.bytes + N1_VOX_OFFSET, 0); /* "right behind the header" */
    write_file(in_folder("a.nii"), f.bytes, f.size);
    check_values(in_folder("a.nii"));
    put_f32(f.bytes + N1_SLOPE, NAN);
    put_f32(f.bytes + N1_INTER, 9);
    write_file(in_folder("a.nii"), f.bytes, f.size);
    check_values(in_folder("a.nii"));
}

static void refuses_bad_sizes(void **state) {
    (void)state;
    nifti_bytes f;
    static const int bad[] = {0, -1, -32768};
    for (int i = 0; i < 3; i++)
        for (size_t axis = 1; axis <= 3; axis++) {
            nifti1_file(&f);
            put_i16(f.bytes + N1_DIM + 2 * axis, bad[i]);
            refused(&f, "sizes must be positive");
        }
    static const int ranks[] = {0, -3, 8, 32767};
    for (int i = 0; i < 4; i++) {
        nifti1_file(&f);
        put_i16(f.bytes + N1_DIM, ranks[i]);
        refused(&f, "1 to 7 are possible");
    }
    /* 2^90 voxels overflow; 2^45 bytes fit a size_t but neither the file nor the memory. */
    nifti2_file(&f);
    for (size_t axis = 1; axis <= 3; axis++) put_i64(f.bytes + N2_DIM + 8 * axis, (int64_t)1 << 30);
    refused(&f, "impossible");
    for (size_t axis = 1; axis <= 3; axis++) put_i64(f.bytes + N2_DIM + 8 * axis, INT64_MAX);
    refused(&f, "impossible");
    nifti1_file(&f);
    for (size_t axis = 1; axis <= 3; axis++) put_i16(f.bytes + N1_DIM + 2 * axis, 32767);
    write_file(in_folder("bad.nii"), f.bytes, f.size);
    vx_volume *v;
    vx_error err;
    vx_status s = vx_io_read(in_folder("bad.nii"), NULL, &v, &err);
    assert_true(s == VX_ERR_INPUT && strstr(err.text, "truncated"));
}

static void refuses_other_ranks(void **state) {
    (void)state;
    nifti_bytes f;
    nifti1_file(&f);
    put_i16(f.bytes + N1_DIM, 2);
    refused(&f, "is a 2D image of 4x3 (a 3D volume is needed)");
    nifti1_file(&f);
    put_i16(f.bytes + N1_DIM, 1);
    refused(&f, "is a 1D image");
    nifti1_file(&f);
    put_i16(f.bytes + N1_DIM, 4);
    put_i16(f.bytes + N1_DIM + 8, 2);
    refused(&f, "is a 4D image of 4x3x2x2");
    nifti1_file(&f);
    put_i16(f.bytes + N1_DIM, 5);
    put_i16(f.bytes + N1_DIM + 10, 3);
    refused(&f, "is a 5D image of 4x3x2x1x3");
}

static void refuses_types(void **state) {
    (void)state;
    static const struct {
        int code;
        const char *name;
    } bad[] = {{128, "RGB24"},       {2304, "RGBA32"},    {32, "COMPLEX64"}, {1792, "COMPLEX128"},
               {2048, "COMPLEX256"}, {1536, "FLOAT128"},  {1, "BINARY"},     {0, "unknown type 0"},
               {-4, "unknown type"}, {77, "unknown type"}};
    nifti_bytes f;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        nifti1_file(&f);
        put_i16(f.bytes + N1_DATATYPE, bad[i].code);
        refused(&f, bad[i].name);
        nifti2_file(&f);
        put_i16(f.bytes + N2_DATATYPE, bad[i].code);
        refused(&f, bad[i].name);
    }
}

static void refuses_offsets(void **state) {
    (void)state;
    static const float bad[] = {NAN, INFINITY, 1e30f, -1, 1, 351, 352.5f, -352};
    nifti_bytes f;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        nifti1_file(&f);
        put_f32(f.bytes + N1_VOX_OFFSET, bad[i]);
        refused(&f, "vox_offset");
    }
    static const int64_t bad2[] = {1, 543, -1, INT64_MAX, INT64_MIN};
    for (size_t i = 0; i < sizeof bad2 / sizeof *bad2; i++) {
        nifti2_file(&f);
        put_i64(f.bytes + N2_VOX_OFFSET, bad2[i]);
        refused(&f, "vox_offset");
    }
    /* Possible, but behind the file's end. */
    nifti1_file(&f);
    put_f32(f.bytes + N1_VOX_OFFSET, 1e9f);
    write_file(in_folder("bad.nii"), f.bytes, f.size);
    refused_file(in_folder("bad.nii"), "truncated: 0 of 48 bytes", false);
}

static void refuses_transforms(void **state) {
    (void)state;
    static const float bad[] = {0, NAN, INFINITY, -INFINITY};
    nifti_bytes f;
    for (size_t i = 0; i < 4; i++)
        for (size_t axis = 1; axis <= 3; axis++) {
            nifti1_file(&f);
            put_f32(f.bytes + N1_PIXDIM + 4 * axis, bad[i]);
            refused(&f, "spacing");
            nifti2_file(&f);
            put_f64(f.bytes + N2_PIXDIM + 8 * axis, (double)bad[i]);
            refused(&f, "spacing");
        }
    nifti1_file(&f);
    memset(f.bytes + N1_SROW, 0, 48);
    refused(&f, "singular");
    nifti1_file(&f);
    memcpy(f.bytes + N1_SROW + 16, f.bytes + N1_SROW, 16); /* two rows alike */
    refused(&f, "singular");
    nifti1_file(&f);
    put_f32(f.bytes + N1_SROW + 12, NAN);
    refused(&f, "not a finite number");
    nifti1_file(&f);
    put_i16(f.bytes + N1_SFORM_CODE, 0);
    put_i16(f.bytes + N1_QFORM_CODE, 1);
    put_f32(f.bytes + N1_QUATERN, 1.5f);
    refused(&f, "quaternion");
    put_f32(f.bytes + N1_QUATERN, NAN);
    refused(&f, "quaternion");
    nifti1_file(&f);
    put_f32(f.bytes + N1_SLOPE, 2);
    put_f32(f.bytes + N1_INTER, INFINITY);
    refused(&f, "scl_inter");
}

static void refuses_other_formats(void **state) {
    (void)state;
    nifti_bytes f;
    nifti1_file(&f);
    memset(f.bytes + N1_MAGIC, 0, 4);
    refused(&f, "ANALYZE 7.5");
    nifti1_file(&f);
    memcpy(f.bytes + N1_MAGIC, "n+2", 4);
    refused(&f, "ANALYZE 7.5");
    nifti2_file(&f);
    f.bytes[8] = '\n'; /* \r\n became \n\n */
    refused(&f, "signature");
    nifti1_file(&f);
    memcpy(f.bytes + N1_MAGIC, "ni1", 4);
    refused(&f, ".hdr and .img pair");
    nifti1_file(&f);
    put_i32(f.bytes, 349);
    refused(&f, "not a NIfTI file");
    static const char text[] = "Dear colleague,\nplease find the scan attached.\n";
    write_file(in_folder("text.nii"), text, sizeof text - 1);
    refused_file(in_folder("text.nii"), "not a NIfTI file", true);
    write_file(in_folder("text.nii.gz"), text, sizeof text - 1);
    refused_file(in_folder("text.nii.gz"), "not gzip-compressed (it is a text file)", true);
    write_file(in_folder("text.txt"), text, sizeof text - 1);
    refused_file(in_folder("text.txt"), "no known format", true);
}

static void refuses_files_that_are_none(void **state) {
    (void)state;
    write_file(in_folder("empty.nii"), "", 0);
    refused_file(in_folder("empty.nii"), "is empty", true);
    write_file(in_folder("empty.nii.gz"), "", 0);
    refused_file(in_folder("empty.nii.gz"), "is empty", true);
    refused_file(in_folder("missing.nii"), "No such file", true);
    assert_int_equal(mkfifo(in_folder("pipe.nii"), 0600), 0);
    refused_file(in_folder("pipe.nii"), "not a regular file", true);
    /* Name and content that contradict each other. */
    nifti_bytes f;
    unsigned char packed[NIFTI_FILE_MAX];
    nifti1_file(&f);
    write_file(in_folder("plain.nii.gz"), f.bytes, f.size);
    refused_file(in_folder("plain.nii.gz"), "not gzip-compressed (rename it to .nii)", true);
    size_t n = gzip_bytes(f.bytes, f.size, packed, sizeof packed);
    write_file(in_folder("packed.nii"), packed, n);
    refused_file(in_folder("packed.nii"), "is gzip-compressed (rename it to .nii.gz)", true);
    write_file(in_folder("scan.nrrd"), f.bytes, f.size);
    refused_file(in_folder("scan.nrrd"), "is named like nrrd but holds nii", true);
}

static void refuses_truncated_files(void **state) {
    (void)state;
    nifti_bytes f;
    nifti1_file(&f);
    for (size_t n = 1; n < f.size; n += n < 340 ? 37 : 1) {
        write_file(in_folder("cut.nii"), f.bytes, n);
        refused_file(in_folder("cut.nii"), n < 4 ? "not a NIfTI" : "truncated", n < 348);
    }
    nifti2_file(&f);
    write_file(in_folder("cut.nii"), f.bytes, 400);
    refused_file(in_folder("cut.nii"), "header ends after 400 bytes", true);
}

static void refuses_damaged_gzip(void **state) {
    (void)state;
    nifti_bytes f;
    unsigned char packed[NIFTI_FILE_MAX] = {0};
    nifti1_file(&f);
    size_t n = gzip_bytes(f.bytes, f.size, packed, sizeof packed);
    const char *path = in_folder("bad.nii.gz");
    for (size_t cut = 1; cut < n - 10; cut++) { /* down to the 10 bytes of the gzip header */
        write_file(path, packed, n - cut);
        refused_file(path, "truncated", false);
    }
    write_file(path, packed, n - 8); /* no trailer at all */
    refused_file(path, "truncated", false);
    for (size_t i = n - 8; i < n; i++) {
        packed[i] ^= 1;
        write_file(path, packed, n);
        refused_file(path, i < n - 4 ? "wrong checksum" : "wrong length", false);
        packed[i] ^= 1;
    }
    memcpy(packed + n, "garbage", 7);
    write_file(path, packed, n + 7);
    refused_file(path, "garbage", false);
    /* A bad checksum that only a reader sees who goes on behind the voxels. */
    n = gzip_bytes(f.bytes, f.size + 3000, packed, sizeof packed);
    packed[n - 6] ^= 0x40;
    write_file(path, packed, n);
    refused_file(path, "wrong checksum", false);
}

/* A stream that unpacks to far more than the header says. */
static void refuses_floods(void **state) {
    (void)state;
    nifti_bytes f;
    nifti1_file(&f);
    size_t size = 5 << 20;
    unsigned char *big = calloc(size, 1), *packed = malloc(size);
    assert_true(big && packed);
    memcpy(big, f.bytes, f.size);
    size_t n = gzip_bytes(big, size, packed, size);
    write_file(in_folder("flood.nii.gz"), packed, n);
    refused_file(in_folder("flood.nii.gz"), "far more data", false);
    free(big);
    free(packed);
}

static void refuses_nan_voxels(void **state) {
    (void)state;
    nifti_bytes f;
    nifti1_file(&f);
    put_i16(f.bytes + N1_DATATYPE, 16);
    put_i16(f.bytes + N1_DATATYPE + 2, 32);
    f.size = 352 + 96;
    put_f32(f.bytes + 352 + 4 * 17, NAN);
    put_f32(f.bytes + 352 + 4 * 20, -INFINITY);
    write_file(in_folder("nan.nii"), f.bytes, f.size);
    refused_file(in_folder("nan.nii"), "2 voxels that are NaN or infinite, the first at (1, 1, 1)",
                 false);
    /* A finite float64 that no float32 holds. */
    nifti1_file(&f);
    put_i16(f.bytes + N1_DATATYPE, 64);
    put_i16(f.bytes + N1_DATATYPE + 2, 64);
    f.size = 352 + 192;
    memset(f.bytes + 352, 0, 192);
    put_f64(f.bytes + 352, 1e300);
    write_file(in_folder("nan.nii"), f.bytes, f.size);
    refused_file(in_folder("nan.nii"), "1 voxels that are NaN or infinite", false);
}

static void refuses_masks_of_fractions(void **state) {
    (void)state;
    nifti_bytes f;
    vx_mask *m;
    vx_error err;
    nifti1_file(&f);
    put_f32(f.bytes + N1_SLOPE, 0.5f);
    write_file(in_folder("half.nii"), f.bytes, f.size);
    assert_int_equal(vx_io_read_mask(in_folder("half.nii"), NULL, &m, &err), VX_ERR_INPUT);
    assert_non_null(strstr(err.text, "voxel (1, 0, 0) is 0.5"));
    put_f32(f.bytes + N1_SLOPE, 1000); /* 0 .. 23000: uint16 */
    write_file(in_folder("wide.nii"), f.bytes, f.size);
    assert_int_equal(vx_io_read_mask(in_folder("wide.nii"), NULL, &m, &err), VX_OK);
    assert_int_equal(m->bytes, 2);
    for (size_t i = 0; i < 24; i++) assert_int_equal(vx_mask_get(m, i), 1000 * i);
    vx_mask_free(m);
}

static void count_warning(void *user_data, vx_log_level level, const char *text) {
    assert_int_equal(level, VX_LOG_WARNING);
    assert_null(strchr(text, '\n'));
    ++*(int *)user_data;
}

static int warnings_of(const nifti_bytes *f) {
    int count = 0;
    vx_log log = {.message = count_warning, .user_data = &count};
    vx_read_options options = {.log = &log};
    vx_volume *v;
    write_file(in_folder("warn.nii"), f->bytes, f->size);
    assert_int_equal(vx_io_read(in_folder("warn.nii"), &options, &v, NULL), VX_OK);
    vx_volume_free(v);
    return count;
}

static void warns_once(void **state) {
    (void)state;
    nifti_bytes f;
    nifti1_file(&f);
    assert_int_equal(warnings_of(&f), 0);
    put_i16(f.bytes + N1_QFORM_CODE, 1); /* the identity with the same spacing: agrees */
    assert_int_equal(warnings_of(&f), 0);
    put_f32(f.bytes + N1_SROW + 12, 0.09f); /* 0.09 voxels off */
    assert_int_equal(warnings_of(&f), 0);
    put_f32(f.bytes + N1_SROW + 12, 0.11f);
    assert_int_equal(warnings_of(&f), 1);
    nifti1_file(&f);
    put_f32(f.bytes + N1_SROW + 4, 0.5f); /* shear */
    assert_int_equal(warnings_of(&f), 1);
    nifti1_file(&f);
    put_i16(f.bytes + N1_SFORM_CODE, 0); /* no transform */
    assert_int_equal(warnings_of(&f), 1);
    nifti1_file(&f);
    f.size += 7; /* bytes behind the voxels */
    assert_int_equal(warnings_of(&f), 1);
}

/* Nothing of all this may have printed a word (nifticlib does so by default). */
static int saved_stderr = -1;
static int catch_stderr(void **state) {
    if (make_folder(state) != 0) return -1;
    saved_stderr = dup(2);
    int fd = open(in_folder("stderr"), O_CREAT | O_TRUNC | O_WRONLY, 0600);
    dup2(fd, 2);
    close(fd);
    return 0;
}

static void printed_nothing(void **state) {
    (void)state;
    struct stat st;
    dup2(saved_stderr, 2);
    close(saved_stderr);
    assert_int_equal(stat(in_folder("stderr"), &st), 0);
    if (st.st_size == 0) return;
    /* Words of the library, or of cmocka about tests that failed above. */
    char command[200];
    const char *path = in_folder("stderr");
    snprintf(command, sizeof command, "cat '%s' >&2", path);
    (void)!system(command);
    fail_msg("%ld bytes were printed", (long)st.st_size);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(reads_what_is_valid),
                                       cmocka_unit_test(refuses_bad_sizes),
                                       cmocka_unit_test(refuses_other_ranks),
                                       cmocka_unit_test(refuses_types),
                                       cmocka_unit_test(refuses_offsets),
                                       cmocka_unit_test(refuses_transforms),
                                       cmocka_unit_test(refuses_other_formats),
                                       cmocka_unit_test(refuses_files_that_are_none),
                                       cmocka_unit_test(refuses_truncated_files),
                                       cmocka_unit_test(refuses_damaged_gzip),
                                       cmocka_unit_test(refuses_floods),
                                       cmocka_unit_test(refuses_nan_voxels),
                                       cmocka_unit_test(refuses_masks_of_fractions),
                                       cmocka_unit_test(warns_once),
                                       cmocka_unit_test(printed_nothing)};
    return cmocka_run_group_tests(tests, catch_stderr, remove_folder);
}
