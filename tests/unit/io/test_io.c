/* Formats by name, writing masks and slices, and writers that fail. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/io.h"
#include "nifti_bytes.h"

static char folder[64];

static const char *in_folder(const char *name) {
    static char paths[4][160];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

static int make_folder(void **state) {
    (void)state;
    strcpy(folder, "/tmp/vx-io-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state) {
    (void)state;
    char command[100];
    snprintf(command, sizeof command, "rm -r '%s'", folder);
    return system(command);
}

static int entries(void) {
    int n = 0;
    DIR *dir = opendir(folder);
    while (dir && readdir(dir)) n++;
    closedir(dir);
    return n - 2;
}

static void formats_by_name(void **state) {
    (void)state;
    static const struct {
        const char *path;
        vx_format format;
    } cases[] = {{"a.nii.gz", VX_FORMAT_NIFTI_GZ}, {"a.NII.GZ", VX_FORMAT_NIFTI_GZ},
                 {"b/a.nii", VX_FORMAT_NIFTI},     {"a.img", VX_FORMAT_NIFTI},
                 {"a.hdr", VX_FORMAT_NIFTI},       {"a.seg.nrrd", VX_FORMAT_SEG_NRRD},
                 {"a.nrrd", VX_FORMAT_NRRD},       {"a.mha", VX_FORMAT_META},
                 {"a.mhd", VX_FORMAT_META},        {"a.dcm", VX_FORMAT_DICOM},
                 {"a.gz", VX_FORMAT_UNKNOWN},      {"nii", VX_FORMAT_UNKNOWN},
                 {"", VX_FORMAT_UNKNOWN},          {"a.nii.txt", VX_FORMAT_UNKNOWN}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(vx_format_by_path(cases[i].path), cases[i].format);
    for (int f = VX_FORMAT_NIFTI; f <= VX_FORMAT_DICOM_SEG; f++)
        assert_int_equal(vx_format_by_name(vx_format_name((vx_format)f)), f);
    assert_int_equal(vx_format_by_name("jpeg"), VX_FORMAT_UNKNOWN);
    assert_string_equal(vx_format_name(VX_FORMAT_UNKNOWN), "?");
    assert_string_equal(vx_format_extension(VX_FORMAT_NIFTI_GZ), ".nii.gz");
    assert_string_equal(vx_format_extension(VX_FORMAT_DICOM_SEG), ".dcm");
    assert_true(vx_format_readable(VX_FORMAT_NIFTI) && vx_format_writable(VX_FORMAT_NIFTI_GZ));
    assert_false(vx_format_readable(VX_FORMAT_UNKNOWN) || vx_format_writable(VX_FORMAT_UNKNOWN));
    assert_false(vx_format_writable(VX_FORMAT_DICOM));
}

static const vx_geometry oblique = {
    {5, 4, 3}, {{0.8, -0.6, 0, -31.5}, {1.2, 1.6, 0, 12.25}, {0, 0, -3.5, 77}, {0, 0, 0, 1}}};

static vx_mask *some_mask(unsigned bytes) {
    vx_mask *m;
    assert_int_equal(vx_mask_create(&oblique, bytes, &m, NULL), VX_OK);
    for (size_t i = 0; i < 60; i++) vx_mask_set(m, i, (unsigned)(i * (bytes == 1 ? 4 : 1000)));
    return m;
}

static void masks_come_back(void **state) {
    (void)state;
    for (unsigned bytes = 1; bytes <= 2; bytes++)
        for (int gz = 0; gz < 2; gz++) {
            vx_write_options options = {.format = gz ? VX_FORMAT_NIFTI_GZ : VX_FORMAT_NIFTI,
                                        .gzip_level = gz ? 9 : 0};
            const char *path = in_folder(gz ? "m.nii.gz" : "m.nii");
            vx_mask *m = some_mask(bytes), *back;
            vx_error err;
            assert_int_equal(vx_io_write_mask(path, m, &options, &err), VX_OK);
            assert_int_equal(vx_io_read_mask(path, NULL, &back, &err), VX_OK);
            assert_int_equal(back->bytes, bytes);
            assert_memory_equal(back->data, m->data, 60 * bytes);
            assert_true(vx_geometry_distance(&back->geo, &oblique) < 1e-5);
            vx_mask_free(back);
            /* A second time only when told so. */
            assert_int_equal(vx_io_write_mask(path, m, &options, &err), VX_ERR_OUTPUT);
            assert_non_null(strstr(err.text, "exists"));
            options.replace = true;
            assert_int_equal(vx_io_write_mask(path, m, &options, &err), VX_OK);
            vx_mask_free(m);
            unlink(path);
        }
    assert_int_equal(entries(), 0);
}

/* The source's record is used on its own grid only. */
static void source_of_another_grid_is_not_used(void **state) {
    (void)state;
    nifti_bytes f;
    vx_volume *v;
    vx_mask *back;
    vx_error err;
    nifti1_file(&f);
    write_file(in_folder("s.nii"), f.bytes, f.size);
    assert_int_equal(vx_io_read(in_folder("s.nii"), NULL, &v, &err), VX_OK);
    vx_mask *m = some_mask(1);
    m->source = vx_source_ref(v->source);
    vx_write_options options = {.format = VX_FORMAT_NIFTI, .replace = true};
    assert_int_equal(vx_io_write_mask(in_folder("m.nii"), m, &options, &err), VX_OK);
    assert_int_equal(vx_io_read_mask(in_folder("m.nii"), NULL, &back, &err), VX_OK);
    assert_true(vx_geometry_distance(&back->geo, &oblique) < 1e-5);
    vx_mask_free(back);
    vx_mask_free(m);
    vx_volume_free(v);
    unlink(in_folder("m.nii"));
    unlink(in_folder("s.nii"));
}

static void long_axes_need_nifti2(void **state) {
    (void)state;
    vx_geometry geo = {{40000, 1, 2}, {{1, 0, 0, 0}, {0, 1, 0, 0}, {0, 0, 1, 0}, {0, 0, 0, 1}}};
    vx_mask *m, *back;
    vx_error err;
    assert_int_equal(vx_mask_create(&geo, 1, &m, &err), VX_OK);
    vx_mask_set(m, 79999, 9);
    vx_write_options options = {.format = VX_FORMAT_NIFTI_GZ};
    assert_int_equal(vx_io_write_mask(in_folder("l.nii.gz"), m, &options, &err), VX_OK);
    assert_int_equal(vx_io_read_mask(in_folder("l.nii.gz"), NULL, &back, &err), VX_OK);
    assert_memory_equal(&back->geo, &geo, sizeof geo);
    assert_memory_equal(back->data, m->data, 80000);
    vx_mask_free(back);
    vx_mask_free(m);
    unlink(in_folder("l.nii.gz"));
}

static void slices_come_back(void **state) {
    (void)state;
    float slice[20];
    vx_slice_writer *w;
    vx_volume *v;
    vx_error err;
    vx_write_options options = {.format = VX_FORMAT_NIFTI_GZ};
    const char *path = in_folder("p.nii.gz");
    assert_int_equal(vx_slice_writer_open(path, &oblique, NULL, &options, &w, &err), VX_OK);
    for (int z = 0; z < 3; z++) {
        for (int i = 0; i < 20; i++) slice[i] = (float)(z * 20 + i) / 64;
        assert_int_equal(vx_slice_writer_put(w, slice, &err), VX_OK);
    }
    assert_int_equal(vx_slice_writer_put(w, slice, &err), VX_ERR_USAGE);
    assert_int_equal(entries(), 0); /* nothing is seen before the commit */
    assert_int_equal(vx_slice_writer_commit(w, &err), VX_OK);
    assert_int_equal(vx_io_read(path, NULL, &v, &err), VX_OK);
    for (int i = 0; i < 60; i++) assert_true(v->data[i] == (float)i / 64);
    vx_volume_free(v);
    unlink(path);
    /* Too few slices, or given up: no file. */
    assert_int_equal(vx_slice_writer_open(path, &oblique, NULL, &options, &w, &err), VX_OK);
    assert_int_equal(vx_slice_writer_put(w, slice, &err), VX_OK);
    assert_int_equal(vx_slice_writer_commit(w, &err), VX_ERR_USAGE);
    assert_int_equal(vx_slice_writer_open(path, &oblique, NULL, &options, &w, &err), VX_OK);
    vx_slice_writer_discard(w);
    vx_slice_writer_discard(NULL);
    assert_int_equal(entries(), 0);
    options.format = VX_FORMAT_NRRD;
    assert_int_equal(vx_slice_writer_open(path, &oblique, NULL, &options, &w, &err), VX_ERR_USAGE);
}

/* Several blocks of the reader: the same image for any pool, and the first bad voxel of all. */
static void large_images_for_any_pool(void **state) {
    (void)state;
    const vx_geometry geo = {{97, 89, 70},
                             {{1, 0, 0, 0}, {0, 1, 0, 0}, {0, 0, 1, 0}, {0, 0, 0, 1}}};
    const size_t slice = 97 * 89, voxels = slice * 70, bad[] = {600123, 262144, 262143};
    float *data = malloc(voxels * sizeof *data);
    assert_non_null(data);
    for (size_t i = 0; i < voxels; i++) data[i] = (float)(i * 2654435761u % 4001) - 2000.5f;
    for (size_t k = 0; k <= 3; k++) { /* the k-th time with k bad voxels */
        const char *path = in_folder(k % 2 ? "b.nii" : "b.nii.gz");
        const vx_write_options options = {.format = k % 2 ? VX_FORMAT_NIFTI : VX_FORMAT_NIFTI_GZ};
        vx_slice_writer *w;
        vx_error err;
        char text[64];
        if (k) {
            data[bad[k - 1]] = k == 2 ? INFINITY : NAN;
            snprintf(text, sizeof text,
                     "has %zu voxels that are NaN or infinite, the first at (%zu", k,
                     bad[k - 1] % 97);
        }
        assert_int_equal(vx_slice_writer_open(path, &geo, NULL, &options, &w, &err), VX_OK);
        for (size_t z = 0; z < 70; z++)
            assert_int_equal(vx_slice_writer_put(w, data + z * slice, &err), VX_OK);
        assert_int_equal(vx_slice_writer_commit(w, &err), VX_OK);
        for (unsigned workers = 0; workers < 6; workers++) {
            vx_read_options read = {0};
            vx_volume *v;
            if (workers) assert_int_equal(vx_pool_create(workers, &read.pool, NULL), VX_OK);
            const vx_status status = vx_io_read(path, &read, &v, &err);
            assert_int_equal(status, k ? VX_ERR_INPUT : VX_OK);
            if (k) {
                assert_non_null(strstr(err.text, text));
            } else {
                assert_memory_equal(v->data, data, voxels * sizeof *data);
                vx_volume_free(v);
            }
            vx_pool_free(read.pool);
        }
        unlink(path);
    }
    free(data);
}

/* A file that ends in its second block, while the first one is converted. */
static void truncated_blocks_are_refused(void **state) {
    (void)state;
    vx_geometry geo = {{100, 100, 60}, {{1, 0, 0, 0}, {0, 1, 0, 0}, {0, 0, 1, 0}, {0, 0, 0, 1}}};
    const char *path = in_folder("t.nii.gz");
    const vx_write_options options = {.format = VX_FORMAT_NIFTI_GZ};
    vx_mask *m;
    vx_volume *v;
    vx_error err;
    struct stat st;
    assert_int_equal(vx_mask_create(&geo, 1, &m, &err), VX_OK);
    for (size_t i = 0; i < 600000; i++) vx_mask_set(m, i, (unsigned)(i * 2654435761u >> 7) & 255);
    assert_int_equal(vx_io_write_mask(path, m, &options, &err), VX_OK);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(truncate(path, st.st_size * 3 / 4), 0);
    for (unsigned workers = 1; workers < 6; workers += 2) {
        vx_read_options read = {0};
        assert_int_equal(vx_pool_create(workers, &read.pool, NULL), VX_OK);
        assert_int_equal(vx_io_read(path, &read, &v, &err), VX_ERR_INPUT);
        assert_non_null(strstr(err.text, "truncated"));
        vx_pool_free(read.pool);
    }
    vx_mask_free(m);
    unlink(path);
}

static void append(const char *path, const void *data, size_t bytes) {
    FILE *f = fopen(path, "ab");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, bytes, f), bytes);
    assert_int_equal(fclose(f), 0);
}

static void expect_image(const char *path, const vx_mask *mask, const char *error) {
    for (unsigned workers = 1; workers < 6; workers += 2) {
        vx_read_options read = {0};
        vx_volume *v;
        vx_error err;
        assert_int_equal(vx_pool_create(workers, &read.pool, NULL), VX_OK);
        const vx_status status = vx_io_read(path, &read, &v, &err);
        vx_pool_free(read.pool);
        assert_int_equal(status, error ? VX_ERR_INPUT : VX_OK);
        if (error) {
            if (!strstr(err.text, error)) fail_msg("%s", err.text);
            continue;
        }
        for (size_t i = 0; i < vx_voxels(&mask->geo); i++)
            assert_true(v->data[i] == (float)vx_mask_get(mask, i));
        vx_volume_free(v);
    }
}

/* Small voxels in one gzip member are inflated into the image's own memory; what is not quite like
 * that is read the other way, with the same result or the same error as ever. */
static void small_voxels_inflate_in_place(void **state) {
    static const size_t dims[][3] = {
        {100, 100, 60}, {64, 64, 64}, {7, 5, 11}, {13, 14, 1}, {2, 2, 2}};
    static const unsigned char zeros[100];
    (void)state;
    for (size_t k = 0; k < sizeof dims / sizeof *dims; k++)
        for (unsigned bytes = 1; bytes <= 2; bytes++) {
            vx_geometry geo = {{dims[k][0], dims[k][1], dims[k][2]},
                               {{1, 0, 0, 0}, {0, 1, 0, 0}, {0, 0, 1, 0}, {0, 0, 0, 1}}};
            const char *path = in_folder("w.nii.gz");
            const vx_write_options options = {.format = VX_FORMAT_NIFTI_GZ, .replace = true};
            const size_t n = dims[k][0] * dims[k][1] * dims[k][2];
            vx_mask *m;
            vx_error err;
            struct stat st;
            assert_int_equal(vx_mask_create(&geo, bytes, &m, &err), VX_OK);
            for (size_t i = 0; i < n; i++)
                vx_mask_set(m, i, (unsigned)(i * 2654435761u >> 9) & (bytes == 1 ? 31 : 8191));
            assert_int_equal(vx_io_write_mask(path, m, &options, &err), VX_OK);
            expect_image(path, m, NULL);
            append(path, zeros, sizeof zeros); /* padding of tapes */
            expect_image(path, m, NULL);
            append(path, "garbage", 7);
            expect_image(path, m, "garbage");
            assert_int_equal(vx_io_write_mask(path, m, &options, &err), VX_OK);
            assert_int_equal(stat(path, &st), 0);
            assert_int_equal(truncate(path, st.st_size - 8), 0);
            append(path, "\1\2\3\4\5\6\7", 8); /* neither checksum nor length */
            expect_image(path, m, "checksum");
            assert_int_equal(truncate(path, st.st_size - 6), 0);
            expect_image(path, m, "truncated");
            vx_mask_free(m);
            unlink(path);
        }
}

static void writers_that_fail_leave_nothing(void **state) {
    (void)state;
    vx_mask *m = some_mask(1);
    vx_error err;
    vx_write_options options = {.format = VX_FORMAT_NIFTI};
    assert_int_equal(vx_io_write_mask("/nowhere/at/all.nii", m, &options, &err), VX_ERR_OUTPUT);
    options.format = VX_FORMAT_UNKNOWN;
    assert_int_equal(vx_io_write_mask(in_folder("m"), m, &options, &err), VX_ERR_USAGE);
    options = (vx_write_options){.format = VX_FORMAT_NIFTI_GZ, .gzip_level = 10};
    assert_int_equal(vx_io_write_mask(in_folder("m.nii.gz"), m, &options, &err), VX_ERR_USAGE);
    vx_mask_free(m);
    /* A file size limit stands for a full disk. */
    struct rlimit old, small;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    small = old;
    small.rlim_cur = 1000;
    vx_geometry geo = {{50, 50, 50}, {{1, 0, 0, 0}, {0, 1, 0, 0}, {0, 0, 1, 0}, {0, 0, 0, 1}}};
    assert_int_equal(vx_mask_create(&geo, 1, &m, &err), VX_OK);
    for (size_t i = 0; i < 125000; i++) vx_mask_set(m, i, (unsigned)(i * i >> 7) & 255);
    void (*signal_was)(int) = signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    for (int gz = 0; gz < 2; gz++) {
        options = (vx_write_options){.format = gz ? VX_FORMAT_NIFTI_GZ : VX_FORMAT_NIFTI};
        vx_status s = vx_io_write_mask(in_folder(gz ? "m.nii.gz" : "m.nii"), m, &options, &err);
        assert_int_equal(s, VX_ERR_OUTPUT);
    }
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    signal(SIGXFSZ, signal_was);
    vx_mask_free(m);
    assert_int_equal(entries(), 0);
}

static void folders_are_dicom(void **state) {
    (void)state;
    vx_volume *v;
    vx_error err;
    vx_status s = vx_io_read(folder, NULL, &v, &err); /* empty */
    assert_int_equal(s, vx_format_readable(VX_FORMAT_DICOM) ? VX_ERR_INPUT : VX_ERR_USAGE);
    assert_null(v);
}

/* A 4 x 3 x 2 volume under the names header and image; both gzip-compressed where named so. */
static void write_pair(const char *header, const char *image) {
    nifti_bytes f;
    unsigned char packed[NIFTI_FILE_MAX];
    nifti1_file(&f);
    memcpy(f.bytes + N1_MAGIC, "ni1", 4);
    put_f32(f.bytes + N1_VOX_OFFSET, 0);
    const char *names[2] = {header, image};
    const unsigned char *parts[2] = {f.bytes, f.bytes + 352};
    const size_t sizes[2] = {348, 48};
    for (int i = 0; i < 2; i++) {
        bool gz = strcasecmp(names[i] + strlen(names[i]) - 3, ".gz") == 0;
        size_t n = gz ? gzip_bytes(parts[i], sizes[i], packed, sizeof packed) : sizes[i];
        write_file(in_folder(names[i]), gz ? packed : parts[i], n);
    }
}

static void files_of_a_volume(void **state) {
    (void)state;
    static const struct {
        const char *header, *image;
    } pairs[] = {{"p.hdr", "p.img"},
                 {"Q.HDR", "Q.IMG"},
                 {"r.hdr.gz", "r.img.gz"},
                 {"S.HDR.GZ", "S.IMG.GZ"},
                 {"t.hdr", "t.img.gz"}};
    vx_file_list list;
    vx_error err;
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        write_pair(pairs[i].header, pairs[i].image);
        for (int given = 0; given < 2; given++) {
            const char *path = in_folder(given ? pairs[i].image : pairs[i].header);
            if (vx_io_files(path, NULL, &list, &err) != VX_OK) fail_msg("%s: %s", path, err.text);
            assert_int_equal(list.count, 2); /* the header first, whichever was named */
            assert_string_equal(list.paths[0], in_folder(pairs[i].header));
            assert_string_equal(list.paths[1], in_folder(pairs[i].image));
            vx_file_list_clear(&list);
        }
        unlink(in_folder(pairs[i].image));
        assert_int_equal(vx_io_files(in_folder(pairs[i].header), NULL, &list, &err), VX_ERR_INPUT);
        assert_non_null(strstr(err.text, "its image file (.img)"));
        assert_true(list.count == 0 && !list.paths);
        unlink(in_folder(pairs[i].header));
    }
    nifti_bytes f;
    nifti1_file(&f);
    write_file(in_folder("one.nii"), f.bytes, f.size);
    assert_int_equal(vx_io_files(in_folder("one.nii"), NULL, &list, &err), VX_OK);
    assert_int_equal(list.count, 1);
    assert_string_equal(list.paths[0], in_folder("one.nii"));
    for (int i = 0; i < 99; i++) assert_int_equal(vx_file_list_add(&list, "x", &err), VX_OK);
    assert_string_equal(list.paths[0], in_folder("one.nii"));
    assert_string_equal(list.paths[99], "x");
    vx_file_list_clear(&list);
    vx_file_list_clear(&list);
    unlink(in_folder("one.nii"));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(formats_by_name),
                                       cmocka_unit_test(masks_come_back),
                                       cmocka_unit_test(source_of_another_grid_is_not_used),
                                       cmocka_unit_test(long_axes_need_nifti2),
                                       cmocka_unit_test(slices_come_back),
                                       cmocka_unit_test(large_images_for_any_pool),
                                       cmocka_unit_test(truncated_blocks_are_refused),
                                       cmocka_unit_test(small_voxels_inflate_in_place),
                                       cmocka_unit_test(writers_that_fail_leave_nothing),
                                       cmocka_unit_test(folders_are_dicom),
                                       cmocka_unit_test(files_of_a_volume)};
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
