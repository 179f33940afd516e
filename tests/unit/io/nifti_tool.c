/* The reader and writer as a program, for test_nifti.py, which holds them against nibabel and
 * SimpleITK.
 *
 *   nifti_tool read IN RAW     float32 voxels to RAW; geometry, type and warnings to stdout
 *   nifti_tool mask IN RAW     label map, uint16 voxels to RAW
 *   nifti_tool copy IN OUT     label map on IN's exact grid
 *   nifti_tool mark IN OUT X Y Z VALUE   an empty label map on IN's grid with one marked voxel
 *   nifti_tool bare IN OUT X Y Z VALUE   the same without IN's record: transforms from the affine
 *   nifti_tool slices IN OUT   IN's values by the slice writer
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/io.h"

static void print_warning(void *user_data, vx_log_level level, const char *text) {
    (void)user_data;
    printf("warning %d %s\n", (int)level, text);
}

static int fail(const vx_error *err) {
    fprintf(stderr, "%s\n", err->text);
    return (int)err->code;
}

static void print_geometry(const vx_geometry *geo) {
    printf("dims %zu %zu %zu\naffine", geo->dims[0], geo->dims[1], geo->dims[2]);
    for (int i = 0; i < 12; i++) printf(" %.17g", geo->affine[i / 4][i % 4]);
    printf("\n");
}

static int save(const char *path, const void *data, size_t bytes) {
    FILE *f = fopen(path, "wb");
    if (!f) return 1;
    int bad = fwrite(data, 1, bytes, f) != bytes;
    return fclose(f) != 0 || bad;
}

static int read_image(const char *in, const char *raw, const vx_read_options *options) {
    vx_volume *v;
    vx_image_info info;
    vx_error err;
    if (vx_io_info(in, NULL, &info, &err) != VX_OK) return fail(&err);
    if (vx_io_read(in, options, &v, &err) != VX_OK) return fail(&err);
    printf("dtype %s\nformat %s\n", info.dtype, vx_format_name(info.format));
    print_geometry(&v->geo);
    int bad = memcmp(&info.geo, &v->geo, sizeof info.geo) != 0 ||
              save(raw, v->data, vx_voxels(&v->geo) * sizeof(float));
    vx_volume_free(v);
    return bad;
}

static int read_mask(const char *in, const char *raw, const vx_read_options *options) {
    vx_mask *m;
    vx_error err;
    if (vx_io_read_mask(in, options, &m, &err) != VX_OK) return fail(&err);
    printf("bytes %u\n", m->bytes);
    print_geometry(&m->geo);
    FILE *f = fopen(raw, "wb");
    int bad = !f;
    for (size_t i = 0; f && i < vx_voxels(&m->geo); i++) {
        uint16_t v = (uint16_t)vx_mask_get(m, i);
        bad = bad || fwrite(&v, 1, 2, f) != 2;
    }
    if (f) bad = fclose(f) != 0 || bad;
    vx_mask_free(m);
    return bad;
}

static int write_mask(const char *out, vx_mask *m) {
    vx_error err;
    vx_write_options write = {.format = vx_format_by_path(out), .replace = true};
    vx_status s = vx_io_write_mask(out, m, &write, &err);
    vx_mask_free(m);
    return s == VX_OK ? 0 : fail(&err);
}

static int copy(const char *in, const char *out, const vx_read_options *options) {
    vx_mask *m;
    vx_error err;
    if (vx_io_read_mask(in, options, &m, &err) != VX_OK) return fail(&err);
    return write_mask(out, m);
}

static int mark(char **argv, const vx_read_options *options, int keep_source) {
    vx_volume *v;
    vx_mask *m;
    vx_error err;
    size_t at[3];
    unsigned value = (unsigned)atoi(argv[7]);
    for (int i = 0; i < 3; i++) at[i] = (size_t)atoi(argv[4 + i]);
    if (vx_io_read(argv[2], options, &v, &err) != VX_OK) return fail(&err);
    if (vx_mask_create(&v->geo, value > 255 ? 2 : 1, &m, &err) != VX_OK) return fail(&err);
    if (keep_source) m->source = vx_source_ref(v->source);
    vx_mask_set(m, (at[2] * v->geo.dims[1] + at[1]) * v->geo.dims[0] + at[0], value);
    vx_volume_free(v);
    return write_mask(argv[3], m);
}

static int write_slices(const char *in, const char *out, const vx_read_options *options) {
    vx_volume *v;
    vx_error err;
    vx_slice_writer *writer;
    if (vx_io_read(in, options, &v, &err) != VX_OK) return fail(&err);
    vx_write_options write = {.format = vx_format_by_path(out), .replace = true};
    vx_status s = vx_slice_writer_open(out, &v->geo, v->source, &write, &writer, &err);
    for (size_t z = 0; s == VX_OK && z < v->geo.dims[2]; z++)
        s = vx_slice_writer_put(writer, v->data + z * v->geo.dims[0] * v->geo.dims[1], &err);
    if (s == VX_OK) s = vx_slice_writer_commit(writer, &err);
    vx_volume_free(v);
    return s == VX_OK ? 0 : fail(&err);
}

int main(int argc, char **argv) {
    vx_log log = {.message = print_warning};
    vx_read_options options = {.log = &log};
    if (argc >= 4 && strcmp(argv[1], "read") == 0) return read_image(argv[2], argv[3], &options);
    if (argc >= 4 && strcmp(argv[1], "mask") == 0) return read_mask(argv[2], argv[3], &options);
    if (argc >= 4 && strcmp(argv[1], "copy") == 0) return copy(argv[2], argv[3], &options);
    if (argc >= 4 && strcmp(argv[1], "slices") == 0)
        return write_slices(argv[2], argv[3], &options);
    if (argc >= 8 && strcmp(argv[1], "mark") == 0) return mark(argv, &options, 1);
    if (argc >= 8 && strcmp(argv[1], "bare") == 0) return mark(argv, &options, 0);
    return 1;
}
