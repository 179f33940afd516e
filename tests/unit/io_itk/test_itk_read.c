/* NRRD and MetaImage reading: geometry worked out by hand, every voxel type, and what is refused.
 */
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "itk_files.h"

static int setup(void **state) {
    *state = NULL;
    make_folder();
    return 0;
}
static int teardown(void **state) {
    (void)state;
    remove_folder();
    return 0;
}

static const uint8_t ramp[24] = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11,
                                 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23};

#define NRRD_HEAD "NRRD0004\n# comment\ntype: uint8\ndimension: 3\nsizes: 4 3 2\nencoding: raw\n"
#define MHA_HEAD                                                                                   \
    "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"           \
    "CompressedData = False\nDimSize = 4 3 2\n"

#define ZMHA                                                                                       \
    "NDims = 3\nDimSize = 4 3 2\nCompressedData = True\nCompressedDataSize = %d\n"                 \
    "ElementType = MET_UCHAR\nElementDataFile = %s\n"

static vx_volume *must_read(const char *path) {
    vx_volume *volume = NULL;
    vx_error err = {0};
    const vx_read_options options = collecting();
    if (vx_itk_ops.read(path, &options, &volume, &err) != VX_OK) fail_msg("%s", err.text);
    return volume;
}

static void check_affine(const vx_geometry *geo, const double want[3][4]) {
    for (int r = 0; r < 3; r++)
        for (int c = 0; c < 4; c++)
            if (fabs(geo->affine[r][c] - want[r][c]) > 1e-15)
                fail_msg("affine[%d][%d] is %.17g, not %.17g", r, c, geo->affine[r][c], want[r][c]);
    assert_true(geo->affine[3][0] == 0 && geo->affine[3][3] == 1);
}

static void check_ramp(const vx_volume *v) {
    assert_int_equal(v->geo.dims[0], 4);
    assert_int_equal(v->geo.dims[1], 3);
    assert_int_equal(v->geo.dims[2], 2);
    assert_int_equal(v->channels, 1);
    for (int i = 0; i < 24; i++) assert_true(v->data[i] == (float)i);
}

/* The same three columns and origin in four worlds. A column (a, b, c) of an LPS file is
 * (-a, -b, c) in RAS. */
static void nrrd_spaces(void **state) {
    (void)state;
    static const struct {
        const char *space;
        double x, y;
        bool warns;
    } cases[] = {{"space: left-posterior-superior\n", -1, -1, false},
                 {"space: LPS\n", -1, -1, false},
                 {"space: right-anterior-superior\n", 1, 1, false},
                 {"space: RAS\n", 1, 1, false},
                 {"space: left-anterior-superior\n", -1, 1, false},
                 {"space dimension: 3\n", -1, -1, true},
                 {"space: scanner-xyz\n", -1, -1, true}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char header[1024];
        snprintf(header, sizeof header,
                 NRRD_HEAD "%sspace directions: (0.5,0.25,0) (0,2,0.125) (0.0625,0,3)\n"
                           "space origin: (10,-20,30.5)\nkinds: domain domain domain\n\n",
                 cases[i].space);
        write_image(in_folder("a.nrrd"), header, ramp, 24);
        vx_volume *v = must_read(in_folder("a.nrrd"));
        const double x = cases[i].x, y = cases[i].y;
        const double want[3][4] = {
            {x * 0.5, 0, x * 0.0625, x * 10}, {y * 0.25, y * 2, 0, y * -20}, {0, 0.125, 3, 30.5}};
        check_affine(&v->geo, want);
        check_ramp(v);
        assert_int_equal(strstr(warnings, "taken as LPS") != NULL, cases[i].warns);
        assert_non_null(strstr(warnings, "the grid is sheared"));
        vx_volume_free(v);
    }
}

/* No directions: spacings along L, P, S; "axis mins" is the edge of a cell-centred first voxel. */
static void nrrd_spacings(void **state) {
    (void)state;
    write_image(in_folder("a.nrrd"),
                NRRD_HEAD "spacings: 0.5 2 3\naxis mins: 1 2 3\ncenters: cell node cell\n\n", ramp,
                24);
    vx_volume *v = must_read(in_folder("a.nrrd"));
    const double want[3][4] = {{-0.5, 0, 0, -1.25}, {0, -2, 0, -2}, {0, 0, 3, 4.5}};
    check_affine(&v->geo, want);
    assert_non_null(strstr(warnings, "no directions"));
    vx_volume_free(v);
}

/* Axes of size 1 without a direction carry nothing; the volume may lie anywhere among them. */
static void nrrd_single_axes(void **state) {
    (void)state;
    write_image(in_folder("a.nrrd"),
                "NRRD0005\r\ntype: unsigned char\r\ndimension: 4\r\nsizes: 1 4 3 2\r\n"
                "encoding: raw\r\nspace: RAS\r\nkinds: list domain domain domain\r\n"
                "space directions: none (1,0,0) (0,1,0) (0,0,1)\r\nspace origin: (0,0,0)\r\n\r\n",
                ramp, 24);
    vx_volume *v = must_read(in_folder("a.nrrd"));
    check_ramp(v);
    vx_volume_free(v);
}

/* io.c also lets files of other names through, by their first bytes. */
static void other_names(void **state) {
    (void)state;
    write_image(in_folder("nrrd"), NRRD_HEAD "spacings: 1 1 1\n\n", ramp, 24);
    write_image(in_folder("meta"), MHA_HEAD "ElementType = MET_UCHAR\nElementDataFile = LOCAL\n",
                ramp, 24);
    static const struct {
        const char *name;
        vx_format format;
    } cases[] = {{"nrrd", VX_FORMAT_NRRD}, {"meta", VX_FORMAT_META}};
    for (size_t i = 0; i < 2; i++) {
        vx_volume *v = must_read(in_folder(cases[i].name));
        check_ramp(v);
        vx_volume_free(v);
        vx_image_info info;
        vx_error err;
        assert_int_equal(vx_itk_ops.info(in_folder(cases[i].name), NULL, &info, &err), VX_OK);
        assert_int_equal(info.format, cases[i].format);
    }
}

static void meta_geometry(void **state) {
    (void)state;
    /* Row i of TransformMatrix is the direction of axis i, in LPS. */
    write_image(in_folder("a.mha"),
                MHA_HEAD "TransformMatrix = 0 1 0 0.6 0 0.8 -0.8 0 0.6\nOffset = 1 2 3\n"
                         "CenterOfRotation = 0 0 0\nAnatomicalOrientation = RAI\n"
                         "ElementSpacing = 0.5 2 4\nElementType = MET_UCHAR\n"
                         "ElementDataFile = LOCAL\n",
                ramp, 24);
    vx_volume *v = must_read(in_folder("a.mha"));
    const double want[3][4] = {
        {0, -2 * 0.6, 4 * 0.8, -1}, {-0.5, 0, 0, -2}, {0, 2 * 0.8, 4 * 0.6, 3}};
    check_affine(&v->geo, want);
    check_ramp(v);
    assert_string_equal(warnings, "");
    vx_volume_free(v);
}

/* Two values of each type, both byte orders, both formats. */
static void every_type(void **state) {
    (void)state;
    static const struct {
        const char *nrrd, *meta, *dtype;
        unsigned char big[16]; /* two numbers, most significant byte first */
        size_t bytes;
        float want[2];
    } cases[] = {
        {"int8", "MET_CHAR", "int8", {0x80, 0x7f}, 1, {-128, 127}},
        {"uchar", "MET_UCHAR", "uint8", {0x80, 0x7f}, 1, {128, 127}},
        {"short", "MET_SHORT", "int16", {0xff, 0xfe, 0x01, 0x02}, 2, {-2, 258}},
        {"uint16", "MET_USHORT", "uint16", {0xff, 0xfe, 0x01, 0x02}, 2, {65534, 258}},
        {"int", "MET_INT", "int32", {0xff, 0xff, 0xff, 0xfd, 0, 1, 0, 3}, 4, {-3, 65539}},
        {"uint32", "MET_UINT", "uint32", {0x80, 0, 0, 0, 0, 1, 0, 3}, 4, {2147483648.0f, 65539}},
        {"int", "MET_LONG", "int32", {0xff, 0xff, 0xff, 0xfd, 0, 1, 0, 3}, 4, {-3, 65539}},
        {"long long",
         "MET_LONG_LONG",
         "int64",
         {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfc, 0, 0, 0, 1, 0, 0, 0, 0},
         8,
         {-4, 4294967296.0f}},
        {"uint64",
         "MET_ULONG_LONG",
         "uint64",
         {0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0},
         8,
         {9223372036854775808.0f, 4294967296.0f}},
        {"float", "MET_FLOAT", "float32", {0xc0, 0x20, 0, 0, 0x3e, 0x80, 0, 0}, 4, {-2.5f, 0.25f}},
        {"double",
         "MET_DOUBLE",
         "float64",
         {0xc0, 0x04, 0, 0, 0, 0, 0, 0, 0x3f, 0xd0, 0, 0, 0, 0, 0, 0},
         8,
         {-2.5f, 0.25f}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (int form = 0; form < 4; form++) {
            const bool big = form & 1, meta = form & 2;
            const size_t n = cases[i].bytes;
            unsigned char data[16];
            for (size_t k = 0; k < 2 * n; k++)
                data[k] = cases[i].big[big ? k : (k / n) * n + (n - 1 - k % n)];
            char header[512];
            if (meta)
                snprintf(header, sizeof header,
                         "NDims = 3\nDimSize = 2 1 1\nBinaryData = True\n"
                         "ElementByteOrderMSB = %s\nElementSpacing = 1 1 1\nOffset = 0 0 0\n"
                         "ElementType = %s\nElementDataFile = LOCAL\n",
                         big ? "True" : "False", cases[i].meta);
            else
                snprintf(header, sizeof header,
                         "NRRD0004\ntype: %s\ndimension: 3\nsizes: 2 1 1\nendian: %s\n"
                         "encoding: raw\nspacings: 1 1 1\n\n",
                         cases[i].nrrd, big ? "big" : "little");
            const char *path = in_folder(meta ? "t.mha" : "t.nrrd");
            write_image(path, header, data, 2 * n);
            vx_volume *v = must_read(path);
            if (v->data[0] != cases[i].want[0] || v->data[1] != cases[i].want[1])
                fail_msg("%s, form %d: %g %g", cases[i].nrrd, form, (double)v->data[0],
                         (double)v->data[1]);
            vx_image_info info;
            vx_error err;
            assert_int_equal(vx_itk_ops.info(path, NULL, &info, &err), VX_OK);
            assert_string_equal(info.dtype, cases[i].dtype);
            vx_volume_free(v);
        }
}

static void encodings(void **state) {
    (void)state;
    static const char head[] =
        "NRRD0004\ntype: uint8\ndimension: 3\nsizes: 4 3 2\nspacings: 1 1 1\nencoding: %s\n%s\n";
    char header[512], hex[64] = "", text[128] = "";
    for (int i = 0; i < 24; i++) {
        snprintf(hex + 2 * i, 3, "%02x", ramp[i]);
        snprintf(text + strlen(text), 13, "%d ", i);
    }
    snprintf(header, sizeof header, head, "hex", "");
    write_image(in_folder("hex.nrrd"), header, hex, strlen(hex));
    snprintf(header, sizeof header, head, "ascii", "");
    write_image(in_folder("text.nrrd"), header, text, strlen(text));
    size_t n;
    unsigned char *gz = deflated(ramp, 24, 31, &n);
    snprintf(header, sizeof header, head, "gzip", "");
    write_image(in_folder("gz.nrrd"), header, gz, n);
    snprintf(header, sizeof header, head, "gz", "data file: a.gz\n");
    write_image(in_folder("gz.nhdr"), header, NULL, 0);
    write_file(in_folder("a.gz"), gz, n);
    free(gz);
    snprintf(header, sizeof header, head, "raw", "byte skip: -1\ndata file: ./a.raw\n");
    write_image(in_folder("end.nhdr"), header, NULL, 0);
    snprintf(header, sizeof header, head, "raw", "byte skip: 7\ndatafile: a.raw\n");
    write_image(in_folder("skip.nhdr"), header, NULL, 0);
    write_image(in_folder("a.raw"), "7 bytes", ramp, 24);
    unsigned char *z = deflated(ramp, 24, 15, &n);
    snprintf(header, sizeof header, ZMHA, (int)n, "LOCAL");
    write_image(in_folder("z.mha"), header, z, n);
    write_file(in_folder("z.zraw"), z, n);
    write_image(in_folder("z.mhd"),
                "NDims = 3\nDimSize = 4 3 2\nCompressedData = True\nElementType = MET_UCHAR\n"
                "ElementDataFile = z.zraw\n",
                NULL, 0);
    free(z);
    write_image(in_folder("skip.mhd"),
                MHA_HEAD "HeaderSize = -1\nElementType = MET_UCHAR\nElementDataFile = a.raw\n",
                NULL, 0);
    static const char *const names[] = {"hex.nrrd",  "text.nrrd", "gz.nrrd", "gz.nhdr", "end.nhdr",
                                        "skip.nhdr", "z.mha",     "z.mhd",   "skip.mhd"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        vx_volume *v = must_read(in_folder(names[i]));
        check_ramp(v);
        vx_volume_free(v);
    }
}

/* The data file is listed however the header spells its key. */
typedef struct question {
    vx_status answer;
    size_t asked, voxels;
    uint64_t beside;
} question;

static vx_status answer(void *user_data, const vx_geometry *geo, uint64_t beside, vx_error *err) {
    question *q = user_data;
    q->asked++;
    q->voxels = vx_voxels(geo);
    q->beside = beside;
    return q->answer == VX_OK ? VX_OK : vx_fail(err, q->answer, "no room");
}

/* Asked once, before the voxels are looked at: here they are damaged. Wide voxels need a copy. */
static void asks_before_it_reads(void **state) {
    (void)state;
    static const struct {
        const char *type;
        size_t size;
        uint64_t beside;
    } types[] = {{"uint8", 1, 0}, {"float", 4, 0}, {"double", 8, 192}};
    static const uint8_t data[192] = {0};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        for (int gzip = 0; gzip <= 1; gzip++) {
            char header[200];
            question q = {.answer = VX_ERR_RESOURCE};
            vx_read_options options = collecting();
            vx_volume *volume = NULL;
            vx_error err = {0};
            options.admit = answer;
            options.admit_data = &q;
            snprintf(header, sizeof header,
                     "NRRD0004\ntype: %s\ndimension: 3\nsizes: 4 3 2\nendian: little\n"
                     "encoding: %s\n\n",
                     types[i].type, gzip ? "gzip" : "raw");
            write_image(in_folder("a.nrrd"), header, data, 24 * types[i].size);
            assert_int_equal(vx_itk_ops.read(in_folder("a.nrrd"), &options, &volume, &err),
                             VX_ERR_RESOURCE);
            assert_string_equal(err.text, "no room");
            assert_null(volume);
            assert_int_equal(q.asked, 1);
            assert_int_equal(q.voxels, 24);
            assert_int_equal(q.beside, types[i].beside);
            q.answer = VX_OK;
            const vx_status s = vx_itk_ops.read(in_folder("a.nrrd"), &options, &volume, &err);
            assert_int_equal(s, gzip ? VX_ERR_INPUT : VX_OK);
            assert_int_equal(q.asked, 2);
            vx_volume_free(volume);
        }
}

static void files_of_a_volume(void **state) {
    (void)state;
#define NRRD_FILE(key) NRRD_HEAD "spacings: 1 1 1\n" key
#define MHA_FILE(key)  MHA_HEAD "ElementType = MET_UCHAR\n" key
    static const struct {
        const char *name, *header;
        bool beside;
    } cases[] = {{"f1.mhd", MHA_FILE("ElementDataFile = f.raw\n"), true},
                 {"f2.mhd", MHA_FILE("ElementDataFile=f.raw\r\n"), true},
                 {"f3.MHD", MHA_FILE("ElementDataFile : f.raw"), true},
                 {"f4.mha", MHA_FILE("ElementDataFile=f.raw\n"), true},
                 {"f5.mha", MHA_FILE("ElementDataFile = LOCAL\n"), false},
                 {"f1.nhdr", NRRD_FILE("data file: f.raw\n"), true},
                 {"f2.nhdr", NRRD_FILE("Data File: f.raw\r\n"), true},
                 {"f3.nhdr", NRRD_FILE("datafile: f.raw\n"), true},
                 {"f4.nrrd", NRRD_FILE("DataFile: f.raw\n"), true},
                 {"f5.nrrd", NRRD_FILE("\n"), false}};
    write_file(in_folder("f.raw"), ramp, 24);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *path = in_folder(cases[i].name);
        const size_t count = cases[i].beside ? 2 : 1;
        vx_file_list list;
        vx_error err = {0};
        write_image(path, cases[i].header, ramp, cases[i].beside ? 0 : 24);
        vx_volume_free(must_read(path));
        if (vx_io_files(path, NULL, &list, &err) != VX_OK) fail_msg("%s: %s", path, err.text);
        if (list.count != count) fail_msg("%s: %zu files", path, list.count);
        assert_string_equal(list.paths[0], path);
        if (count == 2) assert_string_equal(list.paths[1], in_folder("f.raw"));
        vx_file_list_clear(&list);
    }
    unlink(in_folder("f.raw"));
    vx_file_list list;
    vx_error err = {0};
    assert_int_equal(vx_io_files(in_folder("f2.mhd"), NULL, &list, &err), VX_ERR_INPUT);
    assert_non_null(strstr(err.text, "missing"));
    assert_int_equal(list.count, 0);
}

/* Every refusal: VX_ERR_INPUT, one line with the words given here, nothing on stdout or stderr. */
static void refuse(const char *path, const char *words) {
    vx_volume *volume = NULL;
    vx_error err = {0};
    fflush(stdout);
    fflush(stderr);
    const int saved_out = dup(1), saved_err = dup(2);
    const int sink = open(in_folder("printed"), O_CREAT | O_TRUNC | O_RDWR, 0600);
    dup2(sink, 1);
    dup2(sink, 2);
    const vx_status status = vx_itk_ops.read(path, NULL, &volume, &err);
    fflush(stdout);
    fflush(stderr);
    dup2(saved_out, 1);
    dup2(saved_err, 2);
    struct stat st;
    fstat(sink, &st);
    close(sink);
    close(saved_out);
    close(saved_err);
    assert_null(volume);
    assert_int_equal(st.st_size, 0);
    assert_int_equal(status, VX_ERR_INPUT);
    if (!strstr(err.text, words)) fail_msg("'%s' is not in: %s", words, err.text);
    assert_null(strchr(err.text, '\n'));
}

static void refused_nrrd(void **state) {
    (void)state;
#define S "spacings: 1 1 1\n"
    static const struct {
        const char *header, *words;
    } cases[] = {
        {"", "not a NRRD"},
        {"hello\n", "not a NRRD"},
        {"NRRD0004\ntype: uint8\n", "lacks 'encoding'"},
        {"NRRD0004\ntype: uint8\ndimension: 2\nsizes: 4 6\nencoding: raw\n\n", "2D image"},
        {"NRRD0004\ntype: uint8\ndimension: 4\nsizes: 2 2 3 2\nencoding: raw\n\n", "4D image"},
        {"NRRD0004\ntype: uint8\ndimension: 4\nsizes: 3 2 2 2\nencoding: raw\n"
         "kinds: RGB-color domain domain domain\n\n",
         "RGB"},
        {"NRRD0004\ntype: uint8\ndimension: 4\nsizes: 2 2 3 2\nencoding: raw\nspace: LPS\n"
         "kinds: list domain domain domain\n"
         "space directions: none (1,0,0) (0,1,0) (0,0,1)\n\n",
         "4D: 2 layers"},
        {"NRRD0004\ntype: uint8\ndimension: 3\nsizes: 0 3 2\nencoding: raw\n" S "\n",
         "sizes holds 0"},
        {"NRRD0004\ntype: uint8\ndimension: 3\nsizes: -4 3 2\nencoding: raw\n" S "\n",
         "sizes holds -4"},
        {"NRRD0004\ntype: uint8\ndimension: 3\nsizes: 4 3\nencoding: raw\n" S "\n",
         "has 2 entries"},
        {"NRRD0004\ntype: uint8\ndimension: 3\nsizes: 4294967296 4294967296 4\nencoding: raw\n" S
         "\n",
         "more than memory"},
        {"NRRD0004\ntype: uint8\ndimension: 3\nsizes: 99999999999999999999 3 2\nencoding: raw\n" S
         "\n",
         "not a whole number"},
        {"NRRD0004\ntype: uint8\ndimension: 3\nsizes: 4000 3000 2000\nencoding: raw\n" S "\n",
         "cut short: the header claims 24000000000 bytes"},
        {"NRRD0004\ntype: uint8\ndimension: 3\nsizes: 4000 3000 2000\nencoding: gzip\n" S "\n",
         "more than 24 compressed bytes"},
        {"NRRD0004\ntype: uint8\ndimension: 3\nsizes: 4 3 2\nencoding: gzip\n" S "\n", "damaged"},
        {"NRRD0004\ntype: uint8\ndimension: 3\nsizes: 4 3 2\nencoding: bzip2\n" S "\n", "bzip2"},
        {"NRRD0004\ntype: block\ndimension: 3\nsizes: 4 3 2\nencoding: raw\n" S "\n", "'block'"},
        {"NRRD0004\ntype: int16\ndimension: 3\nsizes: 4 3 1\nencoding: raw\n" S "\n", "'endian'"},
        {NRRD_HEAD "spacings: 1 0 1\n\n", "spacing 0 along axis 2"},
        {NRRD_HEAD "spacings: 1 nan 1\n\n", "spacing nan along axis 2"},
        {NRRD_HEAD "spacings: 1 -1 1\n\n", "spacing -1 along axis 2"},
        {NRRD_HEAD "spacings: 1 x 1\n\n", "'x' is not a number"},
        {NRRD_HEAD "space: LPS\nspace directions: (1,0,0) (0,1,0) (1,1,0)\n\n", "singular"},
        {NRRD_HEAD "space: LPS\nspace directions: (1,0,0) (0,inf,0) (0,0,1)\n\n", "finite"},
        {NRRD_HEAD "space: LPS\nspace directions: (1,0,0) (0,1,0)\n\n", "2 entries for 3 axes"},
        {NRRD_HEAD "space: LSP\nspace directions: (1,0,0) (0,1,0) (0,0,1)\n\n",
         "NRRD space 'lsp' is not known"},
        {NRRD_HEAD "space directions: (1,0,0) (0,1,0) (0,0,1)\n\n", "no space that they are of"},
        /* An axis of size 1 that ITK takes for one of space: its own words stay out. */
        {"NRRD0004\ntype: uint8\ndimension: 4\nsizes: 1 4 3 2\nencoding: raw\nspace: LPS\n"
         "space directions: none (1,0,0) (0,1,0) (0,0,1)\n\n012345678901234567890123",
         "the voxels cannot be decoded: ITK does not read a header like this one"},
        {NRRD_HEAD "space: LPS\nspace directions: (1,0) (0,1) (1,1)\n\n", "2-dimensional"},
        {NRRD_HEAD "space: LPS\nspace directions: 1,0,0 (0,1,0) (0,0,1)\n\n", "(x,y,z)"},
        {NRRD_HEAD "type: uint8\n\n", "twice"},
        {NRRD_HEAD "no colon\n\n", "neither a field nor a key"},
        {NRRD_HEAD S "data file: ../x.raw\n\n", "outside the header's folder"},
        {NRRD_HEAD S "data file: sub/../../x.raw\n\n", "outside the header's folder"},
        {NRRD_HEAD S "data file: /etc/passwd\n\n", "outside the header's folder"},
        {NRRD_HEAD S "data file: none.raw\n\n", "'none.raw' that the header names is missing"},
        {NRRD_HEAD S "data file: sub\n\n", "is not a file"},
        {NRRD_HEAD S "data file: LIST\na.raw\nb.raw\n", "several data files"},
        {NRRD_HEAD S "data file: a%02d.raw 1 2 1\n\n", "several data files"},
        {NRRD_HEAD S "line skip: 3\n\n", "line skip 3"},
        {NRRD_HEAD S, "without voxels"},
    };
    mkdir(in_folder("sub"), 0700);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const bool ends = i > 2 && strcmp(cases[i].words, "without voxels") != 0;
        write_image(in_folder("bad.nrrd"), cases[i].header, i == 0 ? (const uint8_t *)"x" : ramp,
                    i == 0 ? 1
                    : ends ? 24
                           : 0);
        refuse(in_folder("bad.nrrd"), cases[i].words);
    }
    write_file(in_folder("empty.nrrd"), NULL, 0);
    refuse(in_folder("empty.nrrd"), "empty");
    refuse(in_folder("absent.nrrd"), "cannot be opened");
    refuse(in_folder("sub"), "folder");
#undef S
}

static void refused_meta(void **state) {
    (void)state;
#define D "DimSize = 4 3 2\n"
#define E "ElementType = MET_UCHAR\nElementDataFile = LOCAL\n"
    static const struct {
        const char *header, *words;
    } cases[] = {
        {"hello\n", "not a MetaImage"},
        {"NDims = 3\n" D, "no ElementDataFile"},
        {"NDims = 2\nDimSize = 4 6\n" E, "2D image"},
        {"NDims = 4\nDimSize = 2 2 3 2\n" E, "4D image"},
        {"NDims = 100000\nDimSize = 4\n" E, "100000D image"},
        {"NDims = 3\nDimSize = 4 3\n" E, "DimSize has 2 entries"},
        {"NDims = 3\nDimSize = 0 3 2\n" E, "DimSize holds 0"},
        {"NDims = 3\nDimSize = -4 3 2\n" E, "DimSize holds -4"},
        {"NDims = 3\nDimSize = 4 3 99999999999\n" E, "DimSize holds 99999999999"},
        {"NDims = 3\nDimSize = 2147483647 2147483647 2147483647\n" E, "more than memory"},
        {"NDims = 3\nDimSize = 4000 3000 2000\n" E, "cut short"},
        {"NDims = 3\n" D "CompressedData = True\nCompressedDataSize = 24\n" E, "damaged"},
        {"NDims = 3\n" D "ElementNumberOfChannels = 3\n" E, "RGB"},
        {"NDims = 3\n" D "ElementType = MET_FLOAT_ARRAY\nElementDataFile = LOCAL\n", "vector"},
        {"NDims = 3\n" D "ElementType = MET_OTHER\nElementDataFile = LOCAL\n", "MET_OTHER"},
        {"NDims = 3\n" D "ElementSpacing = 1 0 1\n" E, "spacing 0 along axis 2"},
        {"NDims = 3\n" D "ElementSpacing = 1 1\n" E, "2 numbers"},
        {"NDims = 3\n" D "TransformMatrix = 1 0 0 1 0 0 0 0 1\n" E, "singular"},
        {"NDims = 3\n" D "ElementToIntensityFunctionSlope = 2\n" E, "ElementToIntensityFunction"},
        {"NDims = 3\n" D "BinaryData = False\n" E, "text"},
        {"ObjectType = Tube\nNDims = 3\n" D E, "'tube'"},
        {"NDims = 3\n" D "ElementType = MET_UCHAR\nElementDataFile = ../x.raw\n", "outside"},
        {"NDims = 3\n" D "ElementType = MET_UCHAR\nElementDataFile = x.raw\n", "missing"},
        {"NDims = 3\n" D "ElementType = MET_UCHAR\nElementDataFile = LIST\n", "several data files"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        write_image(in_folder("bad.mha"), cases[i].header, ramp,
                    strstr(cases[i].header, "LOCAL") ? 24 : 0);
        refuse(in_folder("bad.mha"), cases[i].words);
    }
    /* A name that MetaIO would copy into 255 bytes. */
    char header[1024];
    snprintf(header, sizeof header, "NDims = 3\n" D "%0400d = 1\n" E, 0);
    write_image(in_folder("bad.mha"), header, ramp, 24);
    refuse(in_folder("bad.mha"), "too long");
#undef D
#undef E
}

/* A gzip stream whose end, checksum or length is wrong, at every cut. */
static void damaged_streams(void **state) {
    (void)state;
    static const char head[] =
        "NRRD0004\ntype: uint8\ndimension: 3\nsizes: 4 3 2\nspacings: 1 1 1\nencoding: gzip\n\n";
    size_t n;
    unsigned char *gz = deflated(ramp, 24, 31, &n);
    for (size_t cut = 1; cut < n; cut++) {
        write_image(in_folder("cut.nrrd"), head, gz, cut);
        refuse(in_folder("cut.nrrd"), "cut short");
    }
    gz[n - 6] ^= 1; /* in the checksum */
    write_image(in_folder("crc.nrrd"), head, gz, n);
    refuse(in_folder("crc.nrrd"), "damaged");
    free(gz);
    gz = deflated(ramp, 23, 31, &n);
    write_image(in_folder("short.nrrd"), head, gz, n);
    refuse(in_folder("short.nrrd"), "cut short");
    free(gz);
    unsigned char *z = deflated(ramp, 24, 15, &n);
    z[n - 1] ^= 1; /* Adler-32 */
    write_image(in_folder("adler.mha"),
                MHA_HEAD "ElementType = MET_UCHAR\nElementDataFile = LOCAL\n", z, 23);
    refuse(in_folder("adler.mha"), "the header claims 24 bytes, the file has 23");
    char header[256];
    snprintf(header, sizeof header, ZMHA, (int)n, "LOCAL");
    write_image(in_folder("adler.mha"), header, z, n);
    refuse(in_folder("adler.mha"), "damaged");
    z[n - 1] ^= 1;
    snprintf(header, sizeof header, ZMHA, (int)n - 1, "LOCAL");
    write_image(in_folder("packed.mha"), header, z, n);
    refuse(in_folder("packed.mha"), "compressed bytes");
    snprintf(header, sizeof header, ZMHA, (int)n + 1, "LOCAL");
    write_image(in_folder("packed.mha"), header, z, n);
    refuse(in_folder("packed.mha"), "compressed bytes");
    write_image(in_folder("packed.mha"),
                "NDims = 3\nDimSize = 4 3 2\nCompressedData = True\nElementType = MET_UCHAR\n"
                "ElementDataFile = LOCAL\n",
                z, n);
    refuse(in_folder("packed.mha"), "lacks CompressedDataSize");
    free(z);
}

static void not_finite(void **state) {
    (void)state;
    const float values[3] = {1, NAN, -INFINITY};
    static const char head[] = "NRRD0004\ntype: float\ndimension: 3\nsizes: 3 1 1\nendian: little\n"
                               "spacings: 1 1 1\nencoding: raw\n\n";
    write_image(in_folder("nan.nrrd"), head, values, sizeof values);
    refuse(in_folder("nan.nrrd"), "2 voxels that are NaN or infinite, the first at (1, 0, 0)");
    /* Finite as a double, not as a float. */
    const double large[1] = {1e300};
    write_image(in_folder("large.mha"),
                "NDims = 3\nDimSize = 1 1 1\nElementType = MET_DOUBLE\nElementDataFile = LOCAL\n",
                large, sizeof large);
    refuse(in_folder("large.mha"), "1 voxels that are NaN or infinite");
}

static void labels(void **state) {
    (void)state;
    static const struct {
        float values[2];
        unsigned bytes; /* 0: refused */
    } cases[] = {{{0, 255}, 1},  {{256, 1}, 2}, {{0, 65535}, 2}, {{0, 65536}, 0},
                 {{0.5f, 1}, 0}, {{-1, 0}, 0},  {{NAN, 0}, 0}};
    static const char head[] = "NRRD0004\ntype: float\ndimension: 3\nsizes: 1 2 1\nendian: little\n"
                               "spacings: 1 1 1\nencoding: raw\n\n";
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        write_image(in_folder("l.nrrd"), head, cases[i].values, sizeof cases[i].values);
        vx_mask *mask = NULL;
        vx_error err = {0};
        const vx_status status = vx_itk_ops.read_mask(in_folder("l.nrrd"), NULL, &mask, &err);
        if (cases[i].bytes == 0) {
            assert_int_equal(status, VX_ERR_INPUT);
            assert_non_null(strstr(err.text, "is not a label map: voxel (0, "));
            continue;
        }
        assert_int_equal(status, VX_OK);
        assert_int_equal(mask->bytes, cases[i].bytes);
        for (size_t k = 0; k < 2; k++)
            assert_true((float)vx_mask_get(mask, k) == cases[i].values[k]);
        vx_mask_free(mask);
    }
}

/* Whatever bytes a header is made of: a volume or one line, never more. */
static void random_damage(void **state) {
    (void)state;
    static const char nrrd[] = NRRD_HEAD "space: LPS\nspace directions: (1,0,0) (0,1,0) (0,0,1)\n"
                                         "space origin: (0,0,0)\nkinds: domain domain domain\n\n";
    static const char meta[] = MHA_HEAD "TransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 0 0 0\n"
                                        "ElementSpacing = 1 1 1\nElementType = MET_UCHAR\n"
                                        "ElementDataFile = LOCAL\n";
    uint32_t seed = 1;
    for (int round = 0; round < 600; round++) {
        char header[1024];
        strcpy(header, round & 1 ? meta : nrrd);
        for (int k = 0; k < 1 + round % 3; k++) {
            seed = seed * 1664525u + 1013904223u;
            const size_t at = (seed >> 8) % strlen(header);
            seed = seed * 1664525u + 1013904223u;
            header[at] = (char)(1 + (seed >> 24) % 255);
        }
        const char *path = in_folder(round & 1 ? "r.mha" : "r.nrrd");
        write_image(path, header, ramp, 24);
        vx_volume *volume = NULL;
        vx_error err = {0};
        const vx_status status = vx_itk_ops.read(path, NULL, &volume, &err);
        if (status == VX_OK)
            vx_volume_free(volume);
        else
            assert_true(status == VX_ERR_INPUT && err.text[0] && !strchr(err.text, '\n'));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nrrd_spaces),
        cmocka_unit_test(nrrd_spacings),
        cmocka_unit_test(nrrd_single_axes),
        cmocka_unit_test(meta_geometry),
        cmocka_unit_test(other_names),
        cmocka_unit_test(every_type),
        cmocka_unit_test(encodings),
        cmocka_unit_test(refused_nrrd),
        cmocka_unit_test(refused_meta),
        cmocka_unit_test(damaged_streams),
        cmocka_unit_test(not_finite),
        cmocka_unit_test(labels),
        cmocka_unit_test(random_damage),
        cmocka_unit_test(files_of_a_volume),
        cmocka_unit_test(asks_before_it_reads),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
