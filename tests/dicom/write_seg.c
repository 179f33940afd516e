/* write_seg PATH LABELS OUT [tolerate] [anonymous] [cancel]: reads the volume at PATH and writes a
 * mask on its grid as DICOM SEG, as the program does. LABELS holds the mask's voxels (uint8, x
 * fastest), and is opened when the volume was read. Value 1 is a coded label with a laterality, 2
 * one with a name beyond ASCII and no codes, 4 has a code of 18 digits; others are not in the
 * table. cancel: in the middle of the pixels. Errors go to stderr; the exit code is the status. */
#include <stdio.h>
#include <string.h>

#include "io/io.h"

static vx_status fill(vx_mask *mask, const char *path, vx_error *err) {
    FILE *in = fopen(path, "rb");
    const size_t voxels = vx_voxels(&mask->geo);
    const bool whole = in && fread(mask->data, 1, voxels, in) == voxels && fgetc(in) == EOF;
    if (in) fclose(in);
    return whole ? VX_OK : vx_fail(err, VX_ERR_USAGE, "not %zu labels", voxels);
}

static bool stop_halfway(void *user_data, const char *stage, double fraction) {
    (void)user_data;
    return strcmp(stage, "write") == 0 && fraction >= 0.5;
}

static vx_status write_mask(const char *path, const vx_mask *mask, bool anonymous, bool cancel,
                            vx_error *err) {
    vx_label labels[] = {{.value = 1,
                          .name = "Left kidney",
                          .rgb = {255, 0, 0},
                          .category = {"SCT", "123037004", "Anatomical Structure"},
                          .type = {"SCT", "64033007", "Kidney"},
                          .modifier = {"SCT", "7771000", "Left"}},
                         {.value = 2,
                          .name = "Gr\xc3\xb6\xc3\x9f"
                                  "e",
                          .rgb = {0, 128, 255}},
                         {.value = 4,
                          .name = "Label 4",
                          .category = {"SCT", "123037004", "Anatomical Structure"},
                          .type = {"SCT", "999000011000000103", "An identifier of 18 digits"}}};
    const vx_log stopping = {.progress = stop_halfway};
    const vx_label_table table = {.count = 3, .labels = labels};
    const vx_write_options options = {.format = VX_FORMAT_DICOM_SEG,
                                      .labels = &table,
                                      .algorithm = "test-model",
                                      .algorithm_version = "1.2",
                                      .anonymous = anonymous,
                                      .log = cancel ? &stopping : NULL};
    return vx_io_write_mask(path, mask, &options, err);
}

int main(int argc, char **argv) {
    if (argc < 4) return VX_ERR_USAGE;
    bool tolerate = false, anonymous = false, cancel = false;
    for (int i = 4; i < argc; i++) {
        tolerate = tolerate || strcmp(argv[i], "tolerate") == 0;
        anonymous = anonymous || strcmp(argv[i], "anonymous") == 0;
        cancel = cancel || strcmp(argv[i], "cancel") == 0;
    }
    const vx_read_options options = {.tolerate_geometry = tolerate};
    vx_volume *volume = NULL;
    vx_mask *mask = NULL;
    vx_error err;
    vx_status s = vx_io_read(argv[1], &options, &volume, &err);
    if (s == VX_OK) s = vx_mask_create(&volume->geo, 1, &mask, &err);
    if (s == VX_OK) mask->source = vx_source_ref(volume->source);
    if (s == VX_OK) s = fill(mask, argv[2], &err);
    if (s == VX_OK) s = write_mask(argv[3], mask, anonymous, cancel, &err);
    if (s != VX_OK) fprintf(stderr, "%s\n", err.text);
    vx_mask_free(mask);
    vx_volume_free(volume);
    return s;
}
