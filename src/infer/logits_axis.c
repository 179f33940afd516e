#include "infer/logits_axis.h"

#include <math.h>

#include "base/memory.h"

vx_status vx_logits_axis_create(size_t in, size_t out, int order, vx_logits_axis *map,
                                vx_error *err) {
    *map = (vx_logits_axis){.in = in, .out = out};
    map->low = vx_alloc_zero(out, sizeof *map->low);
    map->weight = vx_alloc_zero(out, sizeof *map->weight);
    if (!map->low || !map->weight) {
        vx_logits_axis_free(map);
        return vx_fail(err, VX_ERR_RESOURCE, "out of memory");
    }
    double scale = (double)in / (double)out, last = (double)(in - 1);
    for (size_t i = 0; i < out; i++) {
        double at = ((double)i + 0.5) * scale - 0.5;
        at = at < 0 ? 0 : at > last ? last : at;
        double low = floor(order == 0 ? at + 0.5 : at);
        map->low[i] = (size_t)low;
        if (order == 0 || map->low[i] + 1 >= in) continue;
        float weight = (float)(at - low);
        if (weight < 1)
            map->weight[i] = weight;
        else
            map->low[i]++; /* at was a rounding error below the next voxel */
    }
    return VX_OK;
}

void vx_logits_axis_free(vx_logits_axis *map) {
    vx_free(map->low);
    vx_free(map->weight);
    map->low = NULL;
    map->weight = NULL;
}
