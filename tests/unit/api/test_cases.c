/* Which cases a folder holds, and how outputs are named: on empty files, since only names count. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "api/cases.h"
#include "api/outputs.h"

static char folder[64];

static int set_up(void **state) {
    (void)state;
    strcpy(folder, "/tmp/vxcasesXXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_entry(const char *path, const struct stat *st, int kind, struct FTW *at) {
    (void)st, (void)kind, (void)at;
    return remove(path);
}

static int tear_down(void **state) {
    (void)state;
    return nftw(folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

static char *in_folder(const char *name) {
    static char paths[4][160];
    static unsigned next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

/* The meta information of a DICOM file of class uid, whose length is even: version, class. */
static void put_meta(FILE *f, const char *uid) {
    const unsigned char version[] = {2, 0, 1, 0, 'O', 'B', 0, 0, 2, 0, 0, 0, 0, 1};
    const unsigned char class_[] = {2, 0, 2, 0, 'U', 'I', (unsigned char)strlen(uid), 0};
    fwrite(version, 1, sizeof version, f);
    fwrite(class_, 1, sizeof class_, f);
    fputs(uid, f);
}

/* An empty file, its folder too; a name with "dicom" gets DICOM's mark, one with "dicomseg" the
 * class of a segmentation. */
static void touch(const char *name) {
    char *path = in_folder(name);
    for (char *p = path + strlen(folder) + 1; *p; p++)
        if (*p == '/') {
            *p = '\0';
            mkdir(path, 0777);
            *p = '/';
        }
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    if (strstr(name, "dicom")) {
        assert_int_equal(fseek(f, 128, SEEK_SET), 0);
        fputs("DICM", f);
        put_meta(f, strstr(name, "dicomseg") ? "1.2.840.10008.5.1.4.1.1.66.4"
                                             : "1.2.840.10008.5.1.4.1.1.66.400");
    }
    fclose(f);
}

/* The names of the cases that the test's folder gives, "a:1 b:2" (channels behind the colon). */
static vxm_status find(bool folders, char text[256], vxm_error *error) {
    vx_case_list list;
    const char *inputs[] = {folder};
    vxm_status s = vx_find_cases(inputs, 1, folders, &list, error);
    text[0] = '\0';
    for (size_t i = 0; i < list.count; i++)
        snprintf(text + strlen(text), 256 - strlen(text), "%s%s:%zu", i ? " " : "",
                 list.cases[i].name, list.cases[i].channel_count);
    vx_case_list_free(&list);
    return s;
}

static void test_files_of_a_folder(void **state) {
    (void)state;
    char text[256];
    vxm_error error;
    touch("b.nii.gz");
    touch("a.NII.GZ");
    touch("c.hdr");
    touch("c.img");
    touch("d.seg.nrrd");
    touch("._b.nii.gz");
    touch("notes.txt");
    touch("sub/x.nii.gz");
    assert_int_equal(find(false, text, &error), VXM_OK);
    assert_string_equal(text, "a:1 b:1 c:1 d:1");
}

static void test_channels(void **state) {
    (void)state;
    char text[256];
    vxm_error error;
    touch("p_0000.nii.gz");
    touch("p_0001.nii.gz");
    touch("p_0002.nii.gz");
    touch("q_0000.nii.gz");
    touch("scan_2019.nii.gz");
    touch("scan_2020.nii.gz");
    touch("short_000.nii.gz");
    assert_int_equal(find(false, text, &error), VXM_OK);
    assert_string_equal(text, "p:3 q:1 scan_2019:1 scan_2020:1 short_000:1");
    touch("q_0002.nii.gz");
    assert_int_equal(find(false, text, &error), VXM_ERR_INPUT);
    assert_non_null(strstr(error.text, "0001"));
    assert_non_null(strstr(error.file, "q_0002"));
}

static void test_collisions(void **state) {
    (void)state;
    char text[256];
    vxm_error error;
    touch("p.nii.gz");
    touch("p.nii");
    assert_int_equal(find(false, text, &error), VXM_ERR_USAGE);
    assert_int_equal(unlink(in_folder("p.nii")), 0);
    touch("p_0000.nii");
    assert_int_equal(find(false, text, &error), VXM_ERR_USAGE);
    touch("p_0000.nii.gz");
    assert_int_equal(find(false, text, &error), VXM_ERR_USAGE);
}

static void test_dicom_folders(void **state) {
    (void)state;
    char text[256];
    vxm_error error;
    vx_case_list list;
    touch("p1/dicom1");
    touch("p1/dicom2");
    touch("p2/ct/x.dcm");
    touch("p3/readme");
    assert_int_equal(find(false, text, &error), VXM_OK);
    assert_string_equal(text, "p1:1 p2:1"); /* files without a study are of none together */
    touch("p2/mr/dicom3");
    assert_int_equal(find(false, text, &error), VXM_OK);
    assert_string_equal(text, "p1:1 p2_ct:1 p2_mr:1");
    touch("dicom0");
    assert_int_equal(find(false, text, &error), VXM_OK);
    assert_non_null(strstr(text, "vxcases")); /* the folder itself is the case */
    assert_int_equal(find(true, text, &error), VXM_OK);
    assert_string_equal(text, "p1:1 p2:1");
    const char *slashed[] = {in_folder("p1//")};
    assert_int_equal(vx_find_cases(slashed, 1, false, &list, &error), VXM_OK);
    assert_string_equal(list.cases[0].name, "p1");
    vx_case_list_free(&list);
}

static void test_segmentations_are_results(void **state) {
    (void)state;
    char text[256];
    vxm_error error;
    touch("dicomseg0");
    assert_int_equal(find(false, text, &error), VXM_OK);
    assert_non_null(strstr(text, "vxcases")); /* refused by name when it is read */
    assert_int_equal(find(true, text, &error), VXM_ERR_INPUT);
    touch("p1/dicomseg");
    touch("p1/dicom1");
    touch("p2/a/b/c/dicom2");
    touch("old/dicomseg");
    for (int each = 0; each < 2; each++) {
        assert_int_equal(find(each, text, &error), VXM_OK);
        assert_string_equal(text, "p1:1 p2:1");
    }
}

static void test_nothing_found(void **state) {
    (void)state;
    char text[256];
    vxm_error error;
    assert_int_equal(find(false, text, &error), VXM_ERR_INPUT);
    assert_string_equal(error.file, folder);
    touch("DICOMDIR");
    assert_int_equal(find(false, text, &error), VXM_ERR_INPUT);
    assert_int_equal(find(true, text, &error), VXM_ERR_INPUT);
}

static void test_named_channels(void **state) {
    (void)state;
    vx_case_list list;
    vxm_error error;
    const char *good[] = {"T1=/data/a=b.nii.gz", "T2=x.nii"};
    assert_int_equal(vx_named_channels(good, 2, &list, &error), VXM_OK);
    assert_string_equal(list.cases[0].name, "a=b");
    assert_string_equal(list.cases[0].channel_names[1], "T2");
    assert_string_equal(list.cases[0].files[0], "/data/a=b.nii.gz");
    vx_case_list_free(&list);
    const char *bad[] = {"T1", "=x", "T1="};
    for (int i = 0; i < 3; i++)
        assert_int_equal(vx_named_channels(&bad[i], 1, &list, &error), VXM_ERR_USAGE);
}

/* output, format, cases -> the mask of case "p" or a status. */
static void check_target(const char *output, const char *format, size_t cases, vxm_status status,
                         const char *mask, const char *sidecar) {
    vx_output_rule rule;
    vx_target target;
    vxm_error error;
    vxm_segment_options options;
    vxm_segment_options_init(&options, sizeof options);
    options.format = format;
    for (options.sidecars = 0; options.sidecars <= 1; options.sidecars++) {
        assert_int_equal(vx_output_rule_make(output, &options, cases, &rule, &error), status);
        if (status != VXM_OK) continue;
        assert_int_equal(vx_target_make(&rule, "p", &target, &error), VXM_OK);
        assert_string_equal(target.mask, mask);
        if (options.sidecars)
            assert_string_equal(target.sidecar, sidecar);
        else
            assert_null(target.sidecar);
        vx_target_free(&target);
    }
}

static void test_targets(void **state) {
    (void)state;
    check_target("m.nii.gz", NULL, 1, VXM_OK, "m.nii.gz", "m.json");
    check_target("x/m.nii", NULL, 1, VXM_OK, "x/m.nii", "x/m.json");
    check_target("x.y/m.nii", "nii", 1, VXM_OK, "x.y/m.nii", "x.y/m.json");
    check_target("out", NULL, 1, VXM_OK, "out/p.nii.gz", "out/p.json");
    check_target("out/", "nii", 1, VXM_OK, "out/p.nii", "out/p.json");
    check_target("out.d", NULL, 2, VXM_OK, "out.d/p.nii.gz", "out.d/p.json");
    vx_output_rule rule;
    vxm_error error;
    vxm_segment_options options;
    vxm_segment_options_init(&options, sizeof options);
    assert_int_equal(vx_output_rule_make(folder, &options, 1, &rule, &error), VXM_OK);
    assert_true(rule.folder);
    check_target("m.nii", "nii.gz", 1, VXM_ERR_USAGE, NULL, NULL);
    check_target("m.png", NULL, 1, VXM_ERR_USAGE, NULL, NULL);
    check_target("m.mhd", NULL, 1, VXM_ERR_USAGE, NULL, NULL);
    check_target("m.nhdr", "nrrd", 1, VXM_ERR_USAGE, NULL, NULL);
    check_target("m.nii.gz", NULL, 2, VXM_ERR_USAGE, NULL, NULL);
    check_target("out", "dicom", 1, VXM_ERR_USAGE, NULL, NULL);
    check_target("out", "jpeg", 1, VXM_ERR_USAGE, NULL, NULL);
    check_target("", NULL, 1, VXM_ERR_USAGE, NULL, NULL);
    check_target(NULL, NULL, 1, VXM_ERR_USAGE, NULL, NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_files_of_a_folder, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_channels, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_collisions, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_dicom_folders, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_segmentations_are_results, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_nothing_found, set_up, tear_down),
        cmocka_unit_test(test_named_channels),
        cmocka_unit_test_setup_teardown(test_targets, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
