/* The kernel of mamba_out.h. A warp takes 32 tokens and 32 features of them through everything, in
 * registers (mamba_rows.cuh). Where C is more, warps side by side share the tokens and exchange,
 * through shared memory, what a norm and the head's product need of the others.
 */
#include "cuda/mamba_out.h"

#include "cuda/launch.cuh"
#include "cuda/mamba_rows.cuh"

namespace vx_cuda {
namespace {

constexpr uint32_t TOKENS = 32;       /* of a warp */
constexpr uint32_t LONE_WARPS = 4;    /* of a block, where a warp holds all features */
constexpr uint32_t MOST_SHARERS = 10; /* of the same tokens */

struct out_args {
    vx_mamba_out job[VX_MAMBA_PARTS];
    uint32_t tokens, features, channels, sharers; /* sharers: warps that share their tokens */
    float inverse, eps;                           /* 1 / C */
};

/* A lane's numbers: of one block [row][8]; row r is token 8 (r % 2) + 16 (r / 2) + g. */
struct values {
    float v[1][4][8];
};

/* Where a lane is. */
struct out_place {
    uint32_t lane, sharer, first, feature; /* the warp's first token, the lane's first feature */
    __device__ uint32_t row(int r) const { return 8 * (r % 2) + 16 * (r / 2) + lane / 4; }
};

/* Shared memory of a block whose warps share their tokens. */
template <typename T> struct out_shared {
    float *sums; /* [TOKENS][sharers] */
    uint4 *v;    /* [C / 32][4][lane]: operands */
    __device__ explicit out_shared(const out_args &args) {
        sums = (float *)shared_memory();
        v = (uint4 *)(sums + TOKENS * args.sharers);
    }
    static uint32_t bytes(const out_args &args) {
        return TOKENS * (args.sharers * 4 + args.features * 2);
    }
};

/* Row r of a dense tensor; a token that does not exist gets the last one's. */
template <typename T>
__device__ inline const T *row_of(const out_args &args, const out_place &at, const void *tensor,
                                  uint32_t columns, int r) {
    const uint32_t token = min(at.first + at.row(r), args.tokens - 1);
    return (const T *)tensor + (size_t)token * columns;
}

/* The sum over all features of each row, from a lane's part of it: the same in every lane and
 * warp. */
template <typename T, bool ALONE>
__device__ inline void sum_rows(const out_args &args, const out_place &at, float (&part)[4]) {
    sum_lanes(part);
    if (ALONE) return;
    const out_shared<T> s(args);
    __syncthreads(); /* all are done with the last sums, and with v */
    if (at.lane % 4 == 0)
#pragma unroll
        for (int r = 0; r < 4; r++) s.sums[at.row(r) * args.sharers + at.sharer] = part[r];
    __syncthreads();
#pragma unroll
    for (int r = 0; r < 4; r++) {
        part[r] = 0;
        for (uint32_t w = 0; w < args.sharers; w++) part[r] += s.sums[at.row(r) * args.sharers + w];
    }
}

/* LayerNorm in place. */
template <typename T, bool ALONE>
__device__ inline void normalise(const out_args &args, const out_place &at, const float *gamma,
                                 const float *beta, values &x) {
    normalise_rows(x.v, gamma + at.feature, beta + at.feature, args.inverse, args.eps,
                   [&](float(&part)[4]) { sum_rows<T, ALONE>(args, at, part); });
}

/* Where a lane's numbers of y lie, and the first of them: on their way while x is normalised. */
template <typename T> struct y_rows {
    const uint4 *at[4];
    uint4 first[4];
    __device__ y_rows(const out_args &args, const out_place &place, const void *y) {
#pragma unroll
        for (int r = 0; r < 4; r++) {
            at[r] = (const uint4 *)row_of<T>(args, place, y, args.channels, r) + place.lane % 4;
            first[r] = *at[r];
        }
    }
};

/* h += out_proj y. The next piece of y is fetched before this one's product. */
template <typename T>
__device__ inline void project(const out_args &args, const out_place &at, const void *out_proj,
                               const y_rows<T> &y, values &h) {
    const uint32_t tiles = args.channels / 32;
    const uint4 *w = weights_of(out_proj, args.channels, at.sharer, at.lane);
    uint4 in[4] = {y.first[0], y.first[1], y.first[2], y.first[3]}, next[4];
#pragma unroll 2
    for (uint32_t t = 0; t < tiles; t++) {
        const uint32_t ahead = min(t + 1, tiles - 1);
#pragma unroll
        for (int r = 0; r < 4; r++) next[r] = y.at[r][4 * ahead];
        uint4 a[4];
        operands(in, a);
        multiply_block<T>(a, w + 128 * t, h.v[0]);
#pragma unroll
        for (int r = 0; r < 4; r++) in[r] = next[r];
    }
}

/* f += head v, v in the storage type. */
template <typename T, bool ALONE>
__device__ inline void apply_head(const out_args &args, const out_place &at, const void *head,
                                  const values &v, values &f) {
    const uint4 *w = weights_of(head, args.features, at.sharer, at.lane);
    uint4 rows[4], in[4];
#pragma unroll
    for (int r = 0; r < 4; r++) rows[r] = narrow8<T>(v.v[0][r]);
    operands(rows, in);
    if (ALONE) {
        multiply_block<T>(in, w, f.v[0]);
        return;
    }
    const out_shared<T> s(args); /* the norm's barriers came after the last use of its v */
#pragma unroll
    for (uint32_t i = 0; i < 4; i++) s.v[(4 * at.sharer + i) * 32 + at.lane] = in[i];
    __syncthreads();
#pragma unroll 2
    for (uint32_t t = 0; t < args.sharers; t++) {
#pragma unroll
        for (uint32_t i = 0; i < 4; i++) in[i] = s.v[(4 * t + i) * 32 + at.lane];
        multiply_block<T>(in, w + 128 * t, f.v[0]);
    }
}

/* sum += f of one branch. */
template <typename T, bool ALONE>
__device__ inline void add_branch(const out_args &args, const out_place &at,
                                  const vx_mamba_out &job, const vx_mamba_out_branch &branch,
                                  values &sum) {
    const y_rows<T> y(args, at, branch.y);
    values h;
    float bias[8];
#pragma unroll
    for (int r = 0; r < 4; r++)
        widen8<T>(*(const uint4 *)(row_of<T>(args, at, job.x, args.features, r) + at.feature),
                  h.v[0][r]);
    if (job.before_gamma) normalise<T, ALONE>(args, at, job.before_gamma, job.before_beta, h);
    project(args, at, branch.out_proj, y, h);
    load8(branch.head_bias + at.feature, bias);
#pragma unroll
    for (int r = 0; r < 4; r++)
#pragma unroll
        for (int i = 0; i < 8; i++) sum.v[0][r][i] += h.v[0][r][i] + bias[i];
    normalise<T, ALONE>(args, at, branch.gamma, branch.beta, h);
    apply_head<T, ALONE>(args, at, branch.head, h, sum);
}

/* out of a token's 8 features from n. What is added to is rounded, as in a tensor of its own. */
template <typename T>
__device__ inline uint4 finish(const vx_mamba_out &job, uint4 added, float (&n)[8]) {
    if (job.added) {
        float more[8];
        widen8<T>(narrow8<T>(n), n);
        widen8<T>(added, more);
#pragma unroll
        for (int i = 0; i < 8; i++) n[i] += more[i];
    }
#pragma unroll
    for (int i = 0; i < 8; i++) n[i] *= job.scale;
    return narrow8<T>(n);
}

/* Grid: tiles of tokens, jobs. MOST: sharers, at most. SEVERAL: jobs; one needs no look-up. */
template <typename T, uint32_t MOST, bool SEVERAL>
__global__ void __launch_bounds__(MOST > LONE_WARPS ? 32 * MOST : 32 * LONE_WARPS,
                                  MOST > LONE_WARPS ? 1
                                  : MOST > 1        ? 4
                                             : 3) mamba_out(const __grid_constant__ out_args args) {
    constexpr bool ALONE = MOST == 1;
    const vx_mamba_out &job = args.job[SEVERAL ? blockIdx.y : 0];
    const uint32_t warp = threadIdx.x / 32;
    out_place at;
    at.lane = threadIdx.x % 32;
    at.first = (ALONE ? blockIdx.x * LONE_WARPS + warp : blockIdx.x) * TOKENS;
    at.sharer = ALONE ? 0 : warp;
    at.feature = 32 * at.sharer + 8 * (at.lane % 4);
    if (at.first >= args.tokens) return; /* a whole warp, and no other shares its tokens */

    values sum = {};
    for (size_t k = 0; k < job.branches; k++)
        add_branch<T, ALONE>(args, at, job, job.branch[k], sum);
    uint4 added[4] = {}; /* on their way while the last norm is made */
#pragma unroll
    for (int r = 0; r < 4 && job.added; r++)
        added[r] = *(const uint4 *)(row_of<T>(args, at, job.added, args.features, r) + at.feature);
    if (job.after_gamma) normalise<T, ALONE>(args, at, job.after_gamma, job.after_beta, sum);
#pragma unroll
    for (int r = 0; r < 4; r++) {
        const uint32_t token = at.first + at.row(r);
        const size_t element = (size_t)token * args.features + at.feature;
        if (token < args.tokens)
            *(uint4 *)((T *)job.out + element) = finish<T>(job, added[r], sum.v[0][r]);
    }
}

/* ---- host -------------------------------------------------------------------------------------
 */

template <typename T, bool SEVERAL>
cudaError_t launch_jobs(const out_args &args, size_t count, cudaStream_t stream) {
    const uint32_t tiles = ceil_div(args.tokens, TOKENS), threads = 32 * args.sharers;
    const uint32_t shared = out_shared<T>::bytes(args);
    const dim3 grid(args.sharers == 1 ? ceil_div(tiles, LONE_WARPS) : tiles, (unsigned)count);
    if (args.sharers == 1)
        mamba_out<T, 1, SEVERAL><<<grid, 32 * LONE_WARPS, 0, stream>>>(args);
    else if (args.sharers <= LONE_WARPS)
        mamba_out<T, LONE_WARPS, SEVERAL><<<grid, threads, shared, stream>>>(args);
    else
        mamba_out<T, MOST_SHARERS, SEVERAL><<<grid, threads, shared, stream>>>(args);
    return cudaGetLastError();
}

template <typename T> cudaError_t launch(const out_args &args, size_t count, cudaStream_t stream) {
    return count > 1 ? launch_jobs<T, true>(args, count, stream)
                     : launch_jobs<T, false>(args, count, stream);
}

} // namespace
} // namespace vx_cuda

using namespace vx_cuda;

extern "C" bool vx_cuda_mamba_out_takes(const vx_mamba_out_shape *s) {
    return s->tokens >= 1 && s->tokens <= INT32_MAX && s->features >= 32 &&
           s->features <= 32 * MOST_SHARERS && s->features % 32 == 0 && s->channels >= 32 &&
           s->channels <= 1024 && s->channels % 32 == 0 && s->dtype != VX_F32 && has_matrix_units();
}

extern "C" vx_status vx_cuda_mamba_out(const vx_mamba_out_shape *shape, const vx_mamba_out *jobs,
                                       size_t count, cudaStream_t stream, vx_error *err) {
    bool takes = vx_cuda_mamba_out_takes(shape) && count >= 1 && count <= VX_MAMBA_PARTS;
    for (size_t k = 0; takes && k < count; k++)
        takes = jobs[k].branches >= 1 && jobs[k].branches <= VX_MAMBA_BRANCHES;
    if (!takes)
        return vx_fail(err, VX_ERR_USAGE,
                       "%zu Mamba outputs of %zu tokens, %u features, %u channels are outside the "
                       "limits, or their branches, the storage type or the device are",
                       count, shape->tokens, shape->features, shape->channels);
    out_args args = {};
    for (size_t k = 0; k < count; k++) args.job[k] = jobs[k];
    args.tokens = (uint32_t)shape->tokens;
    args.features = shape->features, args.channels = shape->channels, args.eps = shape->eps;
    args.inverse = 1.0f / (float)shape->features, args.sharers = shape->features / 32;
    const cudaError_t e = shape->dtype == VX_F16 ? launch<__half>(args, count, stream)
                                                 : launch<__nv_bfloat16>(args, count, stream);
    if (e != cudaSuccess)
        return vx_fail(err, VX_ERR_RESOURCE, "CUDA Mamba output: %s", cudaGetErrorString(e));
    return VX_OK;
}
