#include "report/png_file.h"

#include <png.h>
#include <setjmp.h>

/* What libpng's callbacks need: where bytes go, and the first error. */
typedef struct png_sink {
    vx_out_file *file;
    vx_status status;
    vx_error *err;
} png_sink;

static void put_bytes(png_structp png, png_bytep data, size_t bytes) {
    png_sink *sink = png_get_io_ptr(png);
    if (sink->status == VX_OK) sink->status = vx_out_write(sink->file, data, bytes, sink->err);
    if (sink->status != VX_OK) png_error(png, "write");
}

static void flush_bytes(png_structp png) { (void)png; }

/* libpng wants error callbacks that do not return; the text is its own, we report ours. */
static void on_error(png_structp png, png_const_charp text) {
    (void)text;
    png_longjmp(png, 1);
}
static void on_warning(png_structp png, png_const_charp text) { (void)png, (void)text; }

static vx_status encode(png_sink *sink, const uint8_t *rgb, size_t width, size_t height) {
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, on_error, on_warning);
    png_infop info = png ? png_create_info_struct(png) : NULL;
    if (!info) {
        png_destroy_write_struct(&png, NULL);
        return vx_fail(sink->err, VX_ERR_RESOURCE, "out of memory");
    }
    if (setjmp(png_jmpbuf(png))) {
        png_destroy_write_struct(&png, &info);
        return sink->status != VX_OK
                   ? sink->status
                   : vx_fail(sink->err, VX_ERR_OUTPUT, "the PNG could not be encoded");
    }
    png_set_write_fn(png, sink, put_bytes, flush_bytes);
    png_set_IHDR(png, info, (png_uint_32)width, (png_uint_32)height, 8, PNG_COLOR_TYPE_RGB,
                 PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    png_write_info(png, info);
    for (size_t y = 0; y < height; y++) png_write_row(png, (png_const_bytep)rgb + y * width * 3);
    png_write_end(png, info);
    png_destroy_write_struct(&png, &info);
    return VX_OK;
}

vx_status vx_png_write(const char *path, const uint8_t *rgb, size_t width, size_t height,
                       bool replace, vx_out_file **keep, vx_error *err) {
    png_sink sink = {NULL, VX_OK, err};
    vx_status status = vx_out_open(path, &sink.file, err);
    if (status != VX_OK) return status;
    status = encode(&sink, rgb, width, height);
    if (status != VX_OK) {
        vx_out_discard(sink.file);
        return status;
    }
    return vx_out_finish(sink.file, replace, keep, err);
}
