/* The launcher of mamba_in.h: which of the two kernels (mamba_in_few.cuh, mamba_in_many.cuh), and
 * how its work is cut. Neither changes a result.
 */
#include "cuda/mamba_in.h"

#include "cuda/launch.cuh"
#include "cuda/mamba_in_few.cuh"
#include "cuda/mamba_in_many.cuh"

namespace vx_cuda {
namespace {

/* Warps that share their tokens, so that few tokens still make many warps, and row groups of a
 * block, as many as its shared memory holds. Nothing of it changes a result. */
template <typename T>
cudaError_t launch_many(in_args args, size_t count, const device_limits &l, cudaStream_t stream) {
    const uint32_t c = args.features, bytes = group_bytes(c, args.channels);
    args.sharers = c <= 64 ? 1 : c <= 128 ? 2 : c <= 256 ? 4 : 8;
    args.row_groups = c <= 128 ? 4 : c <= 256 ? 2 : 1;
    while (args.row_groups > 1 && args.row_groups * bytes > l.shared) args.row_groups /= 2;
    const uint32_t shared = args.row_groups * bytes;
    cudaError_t e = prefer_shared(mamba_in_many<T>);
    if (e != cudaSuccess) return e;
    mamba_in_many<T><<<dim3(ceil_div(args.tiles, args.row_groups), (unsigned)count),
                       32 * args.row_groups * args.sharers, shared, stream>>>(args);
    return cudaGetLastError();
}

/* By planes where x is the slowest axis and there are warps for all of them. */
tile_order order_tiles(const vx_scan_walk &walk, uint32_t tiles, uint32_t warps) {
    const bool by_planes = !walk.table && walk.step[0] == 1 && walk.dims[0] <= warps;
    const uint32_t planes = by_planes ? walk.dims[0] : 1;
    return {make_divider(planes), ceil_div(tiles, planes), warps / planes};
}

/* Shared memory of a block of mamba_in_few. */
template <int BLOCKS> uint32_t few_bytes(const in_args &args) {
    return few_shared::bytes(args) + FEW_THREADS<BLOCKS> / 32 * BLOCKS * 128 * 16;
}

template <typename T, int BLOCKS>
cudaError_t launch_few(in_args args, size_t count, const device_limits &l, cudaStream_t stream) {
    const uint32_t shared = few_bytes<BLOCKS>(args);
    args.row_groups = FEW_THREADS<BLOCKS> / 32, args.sharers = 1;
    cudaError_t e = prefer_shared(mamba_in_few<T, BLOCKS>);
    if (e != cudaSuccess) return e;
    const uint32_t all = ceil_div(args.tiles, args.row_groups);
    const uint32_t resident = l.processors * FEW_RESIDENT<BLOCKS>;
    const uint32_t share = resident < count ? 1 : resident / (uint32_t)count;
    const uint32_t blocks = all < share ? all : share;
    for (size_t i = 0; i < count; i++)
        args.order[i] = order_tiles(args.item[i].walk, args.tiles, blocks * args.row_groups);
    mamba_in_few<T, BLOCKS>
        <<<dim3(blocks, (unsigned)count), FEW_THREADS<BLOCKS>, shared, stream>>>(args);
    return cudaGetLastError();
}

template <typename T> cudaError_t launch(const in_args &args, size_t count, cudaStream_t stream) {
    device_limits l = limits_of_device();
    l.shared -= FEW_STATIC_BYTES;
    const bool twice = args.channels == 2 * args.features;
    if (twice && args.features == 32 && few_bytes<1>(args) <= l.shared)
        return launch_few<T, 1>(args, count, l, stream);
    if (twice && args.features == 64 && few_bytes<2>(args) <= l.shared)
        return launch_few<T, 2>(args, count, l, stream);
    return launch_many<T>(args, count, l, stream);
}

vx_status check_item(const vx_mamba_in_item *it, vx_error *err) {
    const size_t rows = it->x_row | it->u_row | it->z_row | it->projections_row | it->delta_row;
    const uintptr_t at = (uintptr_t)it->x | (uintptr_t)it->u | (uintptr_t)it->z |
                         (uintptr_t)it->projections | (uintptr_t)it->delta |
                         (uintptr_t)it->weights | (uintptr_t)it->conv | (uintptr_t)it->conv_bias |
                         (uintptr_t)it->before_gamma | (uintptr_t)it->before_beta |
                         (uintptr_t)it->gamma | (uintptr_t)it->beta;
    if (rows % 8 == 0 && at % 16 == 0 && it->dt_row % 2 == 0 && (uintptr_t)it->dt % 4 == 0)
        return VX_OK;
    return vx_fail(err, VX_ERR_USAGE,
                   "Mamba input with rows that are no multiples of 16 bytes, or dt's of 4");
}

} // namespace
} // namespace vx_cuda

using namespace vx_cuda;

extern "C" bool vx_cuda_mamba_in_takes(const vx_mamba_in_shape *s) {
    return s->length >= 1 && s->length <= INT32_MAX - 256 && s->features >= 32 &&
           s->features <= 512 && s->features % 32 == 0 && s->channels > s->features &&
           s->channels <= 1024 && s->channels % 32 == 0 && s->states >= 1 && s->states <= 256 &&
           s->rank >= 1 && s->rank <= 64 &&
           (!s->delta || (s->states % 16 == 0 && s->rank <= DT_INPUTS)) && s->dtype != VX_F32 &&
           has_matrix_units();
}

extern "C" vx_status vx_cuda_mamba_in(const vx_mamba_in_shape *shape, const vx_mamba_in_item *items,
                                      size_t count, cudaStream_t stream, vx_error *err) {
    if (!vx_cuda_mamba_in_takes(shape) || count < 1 || count > VX_SCAN_MAX_ITEMS)
        return vx_fail(err, VX_ERR_USAGE,
                       "%zu Mamba inputs of %u tokens, %u features, %u channels, %u states, rank "
                       "%u are outside the limits, or the storage type or the device is",
                       count, shape->length, shape->features, shape->channels, shape->states,
                       shape->rank);
    in_args args = {};
    args.length = shape->length, args.features = shape->features, args.channels = shape->channels;
    args.columns = vx_mamba_in_columns(shape), args.dt_columns = vx_mamba_in_dt_columns(shape);
    args.blocks_out = ceil_div(args.columns + shape->rank, 32);
    args.delta = shape->delta, args.eps = shape->eps;
    args.tiles = ceil_div(shape->length, TOKENS - BEFORE);
    args.weight_bytes = (uint32_t)vx_mamba_in_packed_bytes(shape);
    args.inverse = 1.0f / (float)shape->features;
    for (size_t i = 0; i < count; i++) {
        args.item[i] = items[i];
        vx_status status = check_item(&items[i], err);
        if (status == VX_OK) status = make_walk(&items[i].walk, shape->length, &args.walk[i], err);
        if (status != VX_OK) return status;
    }
    const cudaError_t e = shape->dtype == VX_F16 ? launch<__half>(args, count, stream)
                                                 : launch<__nv_bfloat16>(args, count, stream);
    if (e != cudaSuccess)
        return vx_fail(err, VX_ERR_RESOURCE, "CUDA Mamba input: %s", cudaGetErrorString(e));
    return VX_OK;
}
