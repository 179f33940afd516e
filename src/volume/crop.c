#include "volume/crop.h"

#include <stdbool.h>
#include <string.h>

vx_box vx_nonzero_box(const vx_volume *volume) {
    const size_t *n = volume->geo.dims;
    size_t low[3] = {n[0], n[1], n[2]}, high[3] = {0, 0, 0};
    for (size_t c = 0; c < volume->channels; c++)
        for (size_t z = 0; z < n[2]; z++)
            for (size_t y = 0; y < n[1]; y++) {
                const float *row = volume->data + ((c * n[2] + z) * n[1] + y) * n[0];
                size_t first = 0, last = n[0];
                while (first < n[0] && row[first] == 0) first++;
                if (first == n[0]) continue;
                while (row[last - 1] == 0) last--;
                const size_t from[3] = {first, y, z}, to[3] = {last, y + 1, z + 1};
                for (int i = 0; i < 3; i++) {
                    if (from[i] < low[i]) low[i] = from[i];
                    if (to[i] > high[i]) high[i] = to[i];
                }
            }
    vx_box box = {{0, 0, 0}, {n[0], n[1], n[2]}};
    for (int i = 0; i < 3 && high[0] > 0; i++) {
        box.from[i] = low[i];
        box.size[i] = high[i] - low[i];
    }
    return box;
}

vx_geometry vx_crop_geometry(const vx_geometry *geo, vx_box box) {
    vx_geometry out = *geo;
    double index[3], origin[3];
    for (int i = 0; i < 3; i++) {
        out.dims[i] = box.size[i];
        index[i] = (double)box.from[i];
    }
    vx_affine_apply(geo->affine, index, origin);
    for (int r = 0; r < 3; r++) out.affine[r][3] = origin[r];
    return out;
}

vx_status vx_crop_volume(const vx_volume *in, vx_box box, vx_volume **out, vx_error *err) {
    *out = NULL;
    const size_t *n = in->geo.dims;
    for (int i = 0; i < 3; i++)
        if (box.size[i] == 0 || box.from[i] >= n[i] || box.size[i] > n[i] - box.from[i])
            return vx_fail(err, VX_ERR_USAGE, "the box to crop to does not lie within the volume");
    vx_geometry geo = vx_crop_geometry(&in->geo, box);
    vx_volume *volume;
    vx_status s = vx_volume_create(&geo, in->channels, &volume, err);
    if (s != VX_OK) return s;
    float *to = volume->data;
    for (size_t c = 0; c < in->channels; c++)
        for (size_t z = 0; z < box.size[2]; z++)
            for (size_t y = 0; y < box.size[1]; y++) {
                const float *from = in->data +
                                    ((c * n[2] + box.from[2] + z) * n[1] + box.from[1] + y) * n[0] +
                                    box.from[0];
                memcpy(to, from, box.size[0] * sizeof *to);
                to += box.size[0];
            }
    volume->source = vx_source_ref(in->source);
    *out = volume;
    return VX_OK;
}
