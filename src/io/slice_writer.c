#include "base/memory.h"
#include "io/byte_sink.h"
#include "io/io.h"
#ifdef VX_HAVE_NIFTI
#include "io/nifti_header.h"
#endif

struct vx_slice_writer {
    vx_byte_sink *sink;
    size_t slice_bytes, left;
    bool replace;
    vx_out_file **keep;
};

vx_status vx_slice_writer_open(const char *path, const vx_geometry *geo, vx_source *source,
                               const vx_write_options *options, vx_slice_writer **out,
                               vx_error *err) {
    *out = NULL;
#ifdef VX_HAVE_NIFTI
    unsigned char header[VX_NIFTI_MAX_BYTES];
    size_t header_bytes;
    bool gzip = options->format == VX_FORMAT_NIFTI_GZ;
    if (!gzip && options->format != VX_FORMAT_NIFTI)
        return vx_fail(err, VX_ERR_USAGE,
                       "probabilities cannot be written as %s (choose nii.gz or nii)",
                       vx_format_name(options->format));
    vx_status s = vx_nifti_build(geo, source, VX_NIFTI_FLOAT32, header, &header_bytes, err);
    if (s != VX_OK) return s;
    vx_slice_writer *writer = vx_alloc_zero(1, sizeof *writer);
    if (!writer) return vx_fail(err, VX_ERR_RESOURCE, "out of memory");
    writer->slice_bytes = geo->dims[0] * geo->dims[1] * sizeof(float);
    writer->left = geo->dims[2];
    writer->replace = options->replace;
    writer->keep = options->keep;
    int level = options->gzip_level ? options->gzip_level : VX_GZIP_FLOATS;
    s = vx_sink_open(path, gzip, level, NULL, &writer->sink, err);
    if (s == VX_OK) s = vx_sink_write(writer->sink, header, header_bytes, err);
    if (s != VX_OK) {
        vx_slice_writer_discard(writer);
        return s;
    }
    *out = writer;
    return VX_OK;
#else
    (void)path;
    (void)geo;
    (void)source;
    (void)options;
    return vx_fail(err, VX_ERR_USAGE, "NIfTI is not in this build");
#endif
}

vx_status vx_slice_writer_put(vx_slice_writer *writer, const float *slice, vx_error *err) {
    if (writer->left == 0) return vx_fail(err, VX_ERR_USAGE, "more slices than the volume has");
    vx_status s = vx_sink_write(writer->sink, slice, writer->slice_bytes, err);
    if (s == VX_OK) writer->left--;
    return s;
}

vx_status vx_slice_writer_commit(vx_slice_writer *writer, vx_error *err) {
    if (writer->left) {
        vx_status s = vx_fail(err, VX_ERR_USAGE, "%zu slices are missing", writer->left);
        vx_slice_writer_discard(writer);
        return s;
    }
    vx_status s = vx_sink_finish(writer->sink, writer->replace, writer->keep, err);
    vx_free(writer);
    return s;
}

void vx_slice_writer_discard(vx_slice_writer *writer) {
    if (!writer) return;
    vx_sink_discard(writer->sink);
    vx_free(writer);
}
