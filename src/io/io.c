#include "io/io.h"

#include <errno.h>
#include <math.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "base/memory.h"
#include "base/text.h"
#include "io/byte_stream.h"
#include "io/format.h"

#ifdef VX_HAVE_NIFTI
#define NIFTI_OPS &vx_nifti_ops
#else
#define NIFTI_OPS NULL
#endif
#ifdef VX_IO_ITK
#define ITK_OPS       &vx_itk_ops
#define DICOM_OPS     &vx_dicom_ops
#define DICOM_SEG_OPS &vx_dicom_seg_ops
#else
#define ITK_OPS       NULL
#define DICOM_OPS     NULL
#define DICOM_SEG_OPS NULL
#endif

typedef struct format_row {
    vx_format format;
    const char *name;
    const char *endings[5]; /* the first is the one we write */
    const vx_format_ops *ops;
} format_row;

/* Longer endings before the shorter that they end in. */
static const format_row formats[] = {
    {VX_FORMAT_NIFTI_GZ, "nii.gz", {".nii.gz", ".hdr.gz", ".img.gz"}, NIFTI_OPS},
    {VX_FORMAT_NIFTI, "nii", {".nii", ".hdr", ".img"}, NIFTI_OPS},
    {VX_FORMAT_SEG_NRRD, "seg.nrrd", {".seg.nrrd"}, ITK_OPS},
    {VX_FORMAT_NRRD, "nrrd", {".nrrd", ".nhdr"}, ITK_OPS},
    {VX_FORMAT_META, "mha", {".mha", ".mhd"}, ITK_OPS},
    {VX_FORMAT_DICOM, "dicom", {".dcm", ".dicom", ".ima"}, DICOM_OPS},
    {VX_FORMAT_DICOM_SEG, "dcmseg", {NULL}, DICOM_SEG_OPS},
};
enum { FORMATS = sizeof formats / sizeof *formats };

static const format_row *row_of(vx_format format) {
    for (int i = 0; i < FORMATS; i++)
        if (formats[i].format == format) return &formats[i];
    return NULL;
}

const char *vx_format_name(vx_format format) {
    const format_row *row = row_of(format);
    return row ? row->name : "?";
}

vx_format vx_format_by_name(const char *name) {
    for (int i = 0; i < FORMATS; i++)
        if (strcasecmp(formats[i].name, name) == 0) return formats[i].format;
    return VX_FORMAT_UNKNOWN;
}

vx_format vx_format_by_path(const char *path) {
    for (int i = 0; i < FORMATS; i++)
        for (int e = 0; e < 5 && formats[i].endings[e]; e++)
            if (vx_has_ending(path, formats[i].endings[e])) return formats[i].format;
    return VX_FORMAT_UNKNOWN;
}

const char *vx_format_extension(vx_format format) {
    if (format == VX_FORMAT_DICOM_SEG) return ".dcm";
    const format_row *row = row_of(format);
    return row ? row->endings[0] : "";
}

bool vx_format_names_labels(vx_format format) {
    return format == VX_FORMAT_SEG_NRRD || format == VX_FORMAT_DICOM_SEG;
}

bool vx_format_readable(vx_format format) {
    const format_row *row = row_of(format);
    return row && row->ops && row->ops->read;
}

bool vx_format_writable(vx_format format) {
    const format_row *row = row_of(format);
    bool reads_only = format == VX_FORMAT_DICOM;
    return row && row->ops && row->ops->write_mask && !reads_only;
}

bool vx_dicom_begins(const unsigned char *b, size_t size) {
    if (size >= 132 && memcmp(b + 128, "DICM", 4) == 0) return true;
    if (size < 16) return false;
    const bool little = (b[0] == 2 || b[0] == 8) && b[1] == 0 && b[3] == 0;
    const bool big = b[0] == 0 && b[1] == 8 && b[2] == 0;
    return little || big;
}

/* Bytes that tell a format. */
enum { HEAD_BYTES = 132 };

typedef struct head {
    unsigned char bytes[HEAD_BYTES]; /* inflated */
    size_t size;
    bool gzip;
} head;

static vx_status read_head(const char *path, head *h, vx_error *err) {
    vx_byte_stream *stream;
    vx_status s = vx_stream_open(path, &stream, err);
    if (s != VX_OK) return s;
    h->gzip = vx_stream_is_gzip(stream);
    /* Damage is the reader's to report: it knows more about the file. */
    if (vx_stream_read(stream, h->bytes, HEAD_BYTES, &h->size, NULL) != VX_OK) h->size = 0;
    vx_stream_close(stream);
    return VX_OK;
}

static bool starts(const head *h, size_t at, const char *magic, size_t n) {
    return h->size >= at + n && memcmp(h->bytes + at, magic, n) == 0;
}

static vx_format format_by_head(const head *h) {
    static const char sizes[4][4] = {
        {0x5c, 1, 0, 0}, {0, 0, 1, 0x5c}, {0x1c, 2, 0, 0}, {0, 0, 2, 0x1c}};
    for (int i = 0; i < 4; i++)
        if (starts(h, 0, sizes[i], 4)) return h->gzip ? VX_FORMAT_NIFTI_GZ : VX_FORMAT_NIFTI;
    if (starts(h, 0, "NRRD000", 7)) return VX_FORMAT_NRRD;
    if (starts(h, 0, "ObjectType", 10) || starts(h, 0, "NDims", 5)) return VX_FORMAT_META;
    if (starts(h, 128, "DICM", 4)) return VX_FORMAT_DICOM;
    return VX_FORMAT_UNKNOWN;
}

static vx_status reader_of(vx_format format, const format_row **row, vx_error *err) {
    *row = row_of(format);
    if (*row && (*row)->ops && (*row)->ops->read) return VX_OK;
    return vx_fail(err, VX_ERR_USAGE, "%s cannot be read: not in this build",
                   vx_format_name(format));
}

static bool is_text(const head *h) {
    for (size_t i = 0; i < h->size; i++)
        if (h->bytes[i] < 9 || (h->bytes[i] > 13 && h->bytes[i] < 32)) return false;
    return h->size > 0;
}

/* The reader for path: name and first bytes must not contradict each other. */
static vx_status find_reader(const char *path, const format_row **row, vx_error *err) {
    struct stat st;
    *row = NULL;
    if (stat(path, &st) != 0)
        return vx_fail(err, VX_ERR_INPUT, "cannot be opened: %s", strerror(errno));
    if (S_ISDIR(st.st_mode)) return reader_of(VX_FORMAT_DICOM, row, err);
    head h = {.size = 0};
    vx_status s = read_head(path, &h, err);
    if (s != VX_OK) return s;
    vx_format named = vx_format_by_path(path), found = format_by_head(&h);
    if (named == VX_FORMAT_NIFTI_GZ && !h.gzip)
        return vx_fail(err, VX_ERR_INPUT, "is named %s but is not gzip-compressed (%s)",
                       path + strlen(path) - strlen(".nii.gz"),
                       found == VX_FORMAT_NIFTI ? "rename it to .nii"
                       : is_text(&h)            ? "it is a text file"
                                                : "copy or compress it again");
    if (named == VX_FORMAT_NIFTI && h.gzip)
        return vx_fail(err, VX_ERR_INPUT, "is gzip-compressed (rename it to %s.gz)",
                       path + strlen(path) - strlen(".nii"));
    if (named == VX_FORMAT_SEG_NRRD && found == VX_FORMAT_NRRD) found = named;
    /* An .img file holds nothing but voxels: any bytes may come first. */
    bool bare = vx_has_ending(path, ".img") || vx_has_ending(path, ".img.gz");
    if (named != VX_FORMAT_UNKNOWN && found != VX_FORMAT_UNKNOWN && named != found && !bare)
        return vx_fail(err, VX_ERR_INPUT, "is named like %s but holds %s (rename it)",
                       vx_format_name(named), vx_format_name(found));
    if (named == VX_FORMAT_UNKNOWN && found == VX_FORMAT_UNKNOWN && !h.gzip &&
        vx_dicom_begins(h.bytes, h.size))
        found = VX_FORMAT_DICOM;
    if (named == VX_FORMAT_UNKNOWN && found == VX_FORMAT_UNKNOWN)
        return vx_fail(err, VX_ERR_INPUT,
                       "is of no known format (NIfTI, NRRD, MetaImage and DICOM can be read)");
    return reader_of(named != VX_FORMAT_UNKNOWN ? named : found, row, err);
}

vx_status vx_io_info(const char *path, const vx_read_options *options, vx_image_info *out,
                     vx_error *err) {
    const format_row *row;
    memset(out, 0, sizeof *out);
    vx_status s = find_reader(path, &row, err);
    return s == VX_OK ? row->ops->info(path, options, out, err) : s;
}

vx_status vx_io_read(const char *path, const vx_read_options *options, vx_volume **out,
                     vx_error *err) {
    const format_row *row;
    *out = NULL;
    vx_status s = find_reader(path, &row, err);
    return s == VX_OK ? row->ops->read(path, options, out, err) : s;
}

vx_status vx_io_read_mask(const char *path, const vx_read_options *options, vx_mask **out,
                          vx_error *err) {
    const format_row *row;
    *out = NULL;
    vx_status s = find_reader(path, &row, err);
    if (s != VX_OK) return s;
    if (!row->ops->read_mask)
        return vx_fail(err, VX_ERR_INPUT, "label maps cannot be read from %s", row->name);
    return row->ops->read_mask(path, options, out, err);
}

vx_status vx_file_list_add(vx_file_list *list, const char *path, vx_error *err) {
    if (list->count == list->room) {
        size_t room = list->room ? 2 * list->room : 4;
        char **paths = vx_alloc_zero(room, sizeof *paths);
        if (!paths) return vx_fail(err, VX_ERR_RESOURCE, "out of memory");
        if (list->count) memcpy(paths, list->paths, list->count * sizeof *paths);
        vx_free(list->paths);
        list->paths = paths;
        list->room = room;
    }
    char *copy = vx_strdup(path);
    if (!copy) return vx_fail(err, VX_ERR_RESOURCE, "out of memory");
    list->paths[list->count++] = copy;
    return VX_OK;
}

void vx_file_list_clear(vx_file_list *list) {
    for (size_t i = 0; i < list->count; i++) vx_free(list->paths[i]);
    vx_free(list->paths);
    *list = (vx_file_list){0};
}

void vx_warn_sheared(double shear, const vx_log *log) {
    if (shear > 1e-4)
        vx_log_message(log, VX_LOG_WARNING,
                       "the grid is sheared: two of its axes meet at %.2f degrees",
                       acos(fmin(shear, 1)) * 57.29577951308232);
}

uint64_t vx_most_inflated(uint64_t packed) {
    enum { TIMES = 1040 }; /* zlib's documentation: 1032 */
    return packed > UINT64_MAX / TIMES ? UINT64_MAX : packed * TIMES;
}

vx_status vx_io_admit(const vx_read_options *options, const vx_geometry *geo, uint64_t beside,
                      vx_error *err) {
    return options && options->admit ? options->admit(options->admit_data, geo, beside, err)
                                     : VX_OK;
}

vx_status vx_io_files(const char *path, const vx_read_options *options, vx_file_list *out,
                      vx_error *err) {
    const format_row *row;
    *out = (vx_file_list){0};
    vx_status s = find_reader(path, &row, err);
    if (s == VX_OK) s = row->ops->files(path, options, out, err);
    if (s != VX_OK) vx_file_list_clear(out);
    return s;
}

vx_status vx_io_series(const char *folder, const vx_read_options *options, vx_series **out,
                       size_t *count, vx_error *err) {
    *out = NULL;
    *count = 0;
#ifdef VX_IO_ITK
    return vx_dicom_series(folder, options, out, count, err);
#else
    (void)folder;
    (void)options;
    return vx_fail(err, VX_ERR_USAGE, "DICOM is not in this build");
#endif
}

void vx_io_studies(const vx_file_list *files, char (*uids)[80]) {
    memset(uids, 0, files->count * sizeof *uids);
#ifdef VX_IO_ITK
    vx_dicom_studies(files, uids);
#endif
}

vx_status vx_io_write_mask(const char *path, const vx_mask *mask, const vx_write_options *options,
                           vx_error *err) {
    if (!vx_format_writable(options->format))
        return vx_fail(err, VX_ERR_USAGE, "%s cannot be written: not in this build",
                       vx_format_name(options->format));
    return row_of(options->format)->ops->write_mask(path, mask, options, err);
}

vx_write_bound vx_io_write_bound(vx_format format, const vx_geometry *geo, size_t labels) {
    const format_row *row = row_of(format);
    if (!row || !row->ops || !row->ops->write_bound) return (vx_write_bound){0};
    return row->ops->write_bound(geo, labels);
}
