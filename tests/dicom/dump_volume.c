/* dump_volume PATH OUT [SERIES|-] [tolerate]: reads a volume as the library does. OUT gets dims (3
 * x uint64), the affine (16 doubles) and the voxels (float32, x fastest); errors and warnings go to
 * stderr; the exit code is the status. */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "io/io.h"

static void print_message(void *user_data, vx_log_level level, const char *text) {
    (void)user_data;
    if (level == VX_LOG_WARNING) fprintf(stderr, "warning: %s\n", text);
}

int main(int argc, char **argv) {
    if (argc < 3) return VX_ERR_USAGE;
    const vx_log log = {.message = print_message};
    const vx_read_options options = {.series = argc > 3 && strcmp(argv[3], "-") ? argv[3] : NULL,
                                     .tolerate_geometry = argc > 4,
                                     .log = &log};
    vx_volume *volume = NULL;
    vx_error err;
    vx_status s = vx_io_read(argv[1], &options, &volume, &err);
    if (s != VX_OK) {
        fprintf(stderr, "%s\n", err.text);
        return s;
    }
    const uint64_t dims[3] = {volume->geo.dims[0], volume->geo.dims[1], volume->geo.dims[2]};
    const size_t voxels = vx_voxels(&volume->geo);
    FILE *out = fopen(argv[2], "wb");
    const bool good = out && fwrite(dims, sizeof dims, 1, out) == 1 &&
                      fwrite(volume->geo.affine, sizeof volume->geo.affine, 1, out) == 1 &&
                      fwrite(volume->data, sizeof(float), voxels, out) == voxels;
    const bool closed = out && fclose(out) == 0;
    vx_volume_free(volume);
    return good && closed ? 0 : VX_ERR_OUTPUT;
}
