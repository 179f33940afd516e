/* Reading and writing NIfTI: voxels are streamed between the file and the one copy in memory. What
 * the header means is nifti_header.c's business. */
#include <math.h>
#include <string.h>
#include <sys/stat.h>

#include "base/memory.h"
#include "base/size.h"
#include "base/text.h"
#include "io/byte_sink.h"
#include "io/byte_stream.h"
#include "io/format.h"
#include "io/nifti_header.h"
#include "io/nifti_voxels.h"

/* The partner of a .hdr or .img file: path with its ending changed to one that exists (the same
 * compression first), else to the first. NULL without memory. Free with vx_free. */
static char *partner(const char *path, const char *const endings[2]) {
    size_t stem = strlen(path) - (vx_has_ending(path, ".gz") ? 7 : 4);
    bool upper = path[stem + 1] == 'H' || path[stem + 1] == 'I';
    char *name = vx_alloc(stem + 8);
    for (int i = 0; name && i < 3; i++) {
        memcpy(name, path, stem);
        strcpy(name + stem, endings[vx_has_ending(path, ".gz") ? 1 - i % 2 : i % 2]);
        for (char *p = name + stem; upper && *p; p++)
            if (*p >= 'a' && *p <= 'z') *p = (char)(*p - 'a' + 'A');
        struct stat st;
        if (i == 2 || stat(name, &st) == 0) break;
    }
    return name;
}

/* Of the file that holds path's header: path itself, or what belongs to an image file. NULL without
 * memory. Free with vx_free. */
static char *header_path(const char *path) {
    static const char *const endings[2] = {".hdr", ".hdr.gz"};
    bool image = vx_has_ending(path, ".img") || vx_has_ending(path, ".img.gz");
    return image ? partner(path, endings) : vx_strdup(path);
}

/* The image file of a pair. NULL without memory. Free with vx_free. */
static char *image_path(const char *path) {
    static const char *const endings[2] = {".img", ".img.gz"};
    return partner(path, endings);
}

/* An open file behind its header. */
typedef struct nifti_file {
    vx_nifti_header header;
    vx_byte_stream *stream; /* of the header */
} nifti_file;

static vx_status open_header(const char *path, nifti_file *f, vx_error *err) {
    unsigned char bytes[VX_NIFTI2_BYTES] = {0};
    char *header = header_path(path);
    f->stream = NULL;
    if (!header) return vx_fail(err, VX_ERR_RESOURCE, "out of memory");
    vx_status s = vx_stream_open(header, &f->stream, err);
    if (s != VX_OK && strcmp(header, path) != 0) vx_fail_prefix(err, s, "its header file (.hdr)");
    vx_free(header);
    size_t got = 0, rest = 0;
    if (s == VX_OK) s = vx_stream_read(f->stream, bytes, VX_NIFTI1_BYTES, &got, err);
    if (s == VX_OK && got >= 4 && vx_nifti_version(bytes) == 2 && got == VX_NIFTI1_BYTES) {
        s = vx_stream_read(f->stream, bytes + got, VX_NIFTI2_BYTES - VX_NIFTI1_BYTES, &rest, err);
        got += rest;
    }
    if (s == VX_OK && got >= 4 && vx_nifti_version(bytes) != 0 &&
        got < (vx_nifti_version(bytes) == 2 ? VX_NIFTI2_BYTES : VX_NIFTI1_BYTES))
        s = vx_fail(err, VX_ERR_INPUT, "is truncated: its header ends after %zu bytes", got);
    if (s == VX_OK) s = vx_nifti_parse(bytes, &f->header, err);
    if (s == VX_OK && f->header.pair && !vx_has_ending(path, ".hdr") &&
        !vx_has_ending(path, ".img") && !vx_has_ending(path, ".hdr.gz") &&
        !vx_has_ending(path, ".img.gz"))
        s = vx_fail(err, VX_ERR_INPUT,
                    "is the header of a .hdr and .img pair (give it its own name again)");
    if (s != VX_OK) {
        vx_stream_close(f->stream);
        f->stream = NULL;
    }
    return s;
}

/* Puts the stream at the first voxel: of the same file, or of the .img file. Goes before anything
 * is allocated: the file must be able to hold what its header promises. */
static vx_status seek_voxels(const char *path, nifti_file *f, vx_error *err) {
    size_t bytes = vx_voxels(&f->header.geo) * f->header.voxel_bytes;
    uint64_t behind = f->header.version == 2 ? VX_NIFTI2_BYTES : VX_NIFTI1_BYTES, got;
    vx_status s = VX_OK;
    if (f->header.pair) {
        char *image = image_path(path);
        if (!image) return vx_fail(err, VX_ERR_RESOURCE, "out of memory");
        vx_stream_close(f->stream);
        s = vx_stream_open(image, &f->stream, err);
        vx_free(image);
        if (s != VX_OK) return vx_fail_prefix(err, s, "its image file (.img)");
        behind = 0;
    }
    uint64_t size = vx_stream_file_size(f->stream);
    bool gzip = vx_stream_is_gzip(f->stream);
    uint64_t most = gzip ? vx_most_inflated(size) : size;
    if (most < f->header.offset || most - f->header.offset < bytes) {
        if (gzip)
            return vx_fail(err, VX_ERR_INPUT,
                           "is truncated: %llu bytes cannot hold its voxels (copy it again)",
                           (unsigned long long)size);
        return vx_fail(err, VX_ERR_INPUT,
                       "is truncated: %llu of %zu bytes of voxels are there (copy it again)",
                       (unsigned long long)(size > f->header.offset ? size - f->header.offset : 0),
                       bytes);
    }
    s = vx_stream_skip(f->stream, f->header.offset - behind, &got, err);
    if (s == VX_OK && got < f->header.offset - behind)
        s = vx_fail(err, VX_ERR_INPUT, "is truncated before its voxels (copy it again)");
    return s;
}

static vx_status attach_source(const nifti_file *f, vx_source **source, vx_error *err) {
    int kind = vx_stream_is_gzip(f->stream) ? VX_FORMAT_NIFTI_GZ : VX_FORMAT_NIFTI;
    *source = vx_nifti_source_create(&f->header, kind);
    return *source ? VX_OK : vx_fail(err, VX_ERR_RESOURCE, "out of memory");
}

static const vx_log *log_of(const vx_read_options *options) {
    return options ? options->log : NULL;
}

/* "(x, y, z)" of voxel i. */
#define INDEX_FORMAT "(%zu, %zu, %zu)"
#define INDEX_ARGS(i, dims)                                                                        \
    (i) % (dims)[0], (i) / (dims)[0] % (dims)[1], (i) / (dims)[0] / (dims)[1]

static vx_status nifti_read(const char *path, const vx_read_options *options, vx_volume **out,
                            vx_error *err) {
    nifti_file f;
    vx_volume *volume = NULL;
    vx_status s = open_header(path, &f, err);
    if (s == VX_OK) s = seek_voxels(path, &f, err);
    if (s == VX_OK) s = vx_io_admit(options, &f.header.geo, 0, err);
    if (s == VX_OK) s = vx_volume_create(&f.header.geo, 1, &volume, err);
    if (s == VX_OK) s = attach_source(&f, &volume->source, err);
    if (s == VX_OK) {
        size_t bad, first_bad;
        s = vx_nifti_stream_image(&f.header, f.stream, options ? options->pool : NULL,
                                  log_of(options), volume->data, &bad, &first_bad, err);
        if (s == VX_OK && bad)
            s = vx_fail(err, VX_ERR_INPUT,
                        "has %zu voxels that are NaN or infinite, the first at " INDEX_FORMAT
                        " (repair the image)",
                        bad, INDEX_ARGS(first_bad, volume->geo.dims));
    }
    vx_stream_close(f.stream);
    if (s != VX_OK) {
        vx_volume_free(volume);
        return s;
    }
    vx_nifti_warn(&f.header, log_of(options));
    *out = volume;
    return VX_OK;
}

typedef struct mask_sink {
    vx_mask *mask;
} mask_sink;

/* The mask with two bytes a voxel, the first done voxels copied. */
static vx_status widen(mask_sink *sink, size_t done, vx_error *err) {
    vx_mask *wide;
    vx_status s = vx_mask_create(&sink->mask->geo, 2, &wide, err);
    if (s != VX_OK) return s;
    for (size_t i = 0; i < done; i++) vx_mask_set(wide, i, vx_mask_get(sink->mask, i));
    wide->source = vx_source_ref(sink->mask->source);
    vx_mask_free(sink->mask);
    sink->mask = wide;
    return VX_OK;
}

static vx_status take_labels(void *ctx, size_t first, const double *values, size_t n,
                             vx_error *err) {
    mask_sink *sink = ctx;
    for (size_t i = 0; i < n; i++) {
        /* Scaled integers (slope 1/255 or so) miss whole numbers by their rounding. */
        double v = nearbyint(values[i]);
        if (!(v >= 0 && v <= 65535) || !(fabs(values[i] - v) <= 1e-4))
            return vx_fail(err, VX_ERR_INPUT,
                           "is not a label map: voxel " INDEX_FORMAT
                           " is %g (whole numbers from 0 to 65535 are needed)",
                           INDEX_ARGS(first + i, sink->mask->geo.dims), values[i]);
        if (v > 255 && sink->mask->bytes == 1) {
            vx_status s = widen(sink, first + i, err);
            if (s != VX_OK) return s;
        }
        vx_mask_set(sink->mask, first + i, (unsigned)v);
    }
    return VX_OK;
}

/* Unless all values fit into a byte for sure, one that does not makes a second, wider mask. */
static uint64_t bytes_beside_mask(const vx_nifti_header *h) {
    const bool narrow = h->voxel_bytes == 1 && h->slope == 1 && h->inter == 0;
    return narrow ? 0 : 2 * (uint64_t)vx_voxels(&h->geo);
}

static vx_status nifti_read_mask(const char *path, const vx_read_options *options, vx_mask **out,
                                 vx_error *err) {
    nifti_file f;
    mask_sink sink = {NULL};
    vx_status s = open_header(path, &f, err);
    if (s == VX_OK) s = seek_voxels(path, &f, err);
    if (s == VX_OK) s = vx_io_admit(options, &f.header.geo, bytes_beside_mask(&f.header), err);
    if (s == VX_OK) s = vx_mask_create(&f.header.geo, 1, &sink.mask, err);
    if (s == VX_OK) s = attach_source(&f, &sink.mask->source, err);
    if (s == VX_OK)
        s = vx_nifti_stream(&f.header, f.stream, log_of(options), take_labels, &sink, err);
    vx_stream_close(f.stream);
    if (s != VX_OK) {
        vx_mask_free(sink.mask);
        return s;
    }
    vx_nifti_warn(&f.header, log_of(options));
    *out = sink.mask;
    return VX_OK;
}

static vx_status nifti_info(const char *path, const vx_read_options *options, vx_image_info *out,
                            vx_error *err) {
    nifti_file f;
    vx_status s = open_header(path, &f, err);
    if (s != VX_OK) return s;
    out->format = vx_stream_is_gzip(f.stream) ? VX_FORMAT_NIFTI_GZ : VX_FORMAT_NIFTI;
    out->geo = f.header.geo;
    out->channels = 1;
    memcpy(out->dtype, f.header.dtype, sizeof out->dtype);
    out->beside = 0;
    vx_stream_close(f.stream);
    vx_nifti_warn(&f.header, log_of(options));
    return VX_OK;
}

static vx_status nifti_files(const char *path, const vx_read_options *options, vx_file_list *out,
                             vx_error *err) {
    (void)options;
    nifti_file f;
    vx_status s = open_header(path, &f, err);
    if (s == VX_OK) s = seek_voxels(path, &f, err); /* a missing image file is said here */
    vx_stream_close(f.stream);
    if (s != VX_OK) return s;
    char *header = header_path(path), *image = f.header.pair ? image_path(path) : NULL;
    if (!header || (f.header.pair && !image)) s = vx_fail(err, VX_ERR_RESOURCE, "out of memory");
    if (s == VX_OK) s = vx_file_list_add(out, header, err);
    if (s == VX_OK && image) s = vx_file_list_add(out, image, err);
    vx_free(header);
    vx_free(image);
    return s;
}

static vx_status nifti_write_mask(const char *path, const vx_mask *mask,
                                  const vx_write_options *options, vx_error *err) {
    unsigned char header[VX_NIFTI_MAX_BYTES];
    size_t header_bytes;
    vx_byte_sink *sink;
    int level = options->gzip_level ? options->gzip_level : VX_GZIP_LABELS;
    vx_status s = vx_nifti_build(&mask->geo, mask->source,
                                 mask->bytes == 1 ? VX_NIFTI_LABELS_UINT8 : VX_NIFTI_LABELS_UINT16,
                                 header, &header_bytes, err);
    if (s == VX_OK)
        s = vx_sink_open(path, options->format == VX_FORMAT_NIFTI_GZ, level, options->pool, &sink,
                         err);
    if (s != VX_OK) return s;
    s = vx_sink_write(sink, header, header_bytes, err);
    if (s == VX_OK) s = vx_sink_write(sink, mask->data, vx_voxels(&mask->geo) * mask->bytes, err);
    if (s == VX_OK) return vx_sink_finish(sink, options->replace, options->keep, err);
    vx_sink_discard(sink);
    return s;
}

const vx_format_ops vx_nifti_ops = {nifti_info,       nifti_read,  nifti_read_mask,
                                    nifti_write_mask, nifti_files, NULL};
