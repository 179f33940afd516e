/* Times the first half of a Mamba block (cuda/mamba_in.h) on random data, at the shapes of
 * SegMambaSkip's stages, both directions in one launch, and compares it with the exact kernel.
 *
 *   cuda_mamba_in [--name VARIANT] [--json FILE] [--once STAGE]
 *
 * --once: one stage (0 .. 5), one run, for a profiler. Buffers rotate so that together they exceed
 * the L2 cache. Times are medians of device events over single launches. "bytes": x, u and the
 * projections once each; divide by the copy rate of cuda_probe for the floor.
 */
#include "cuda/mamba_in.h"

#include <cuda_fp16.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <vector>

#define CHECK_CUDA(call)                                                                           \
    do {                                                                                           \
        cudaError_t e_ = (call);                                                                   \
        if (e_ != cudaSuccess) {                                                                   \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, cudaGetErrorString(e_));            \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

namespace {

constexpr int DIRECTIONS = 2, REPEATS = 21;

struct stage {
    uint32_t side, features;
};
const stage stages[] = {{128, 32}, {64, 64}, {32, 128}, {16, 256}, {8, 320}, {4, 320}};

__device__ float uniform_hash(uint64_t i) {
    uint64_t z = (i + 1) * 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return (float)((z ^ (z >> 31)) >> 40) * 0x1p-24f;
}
__global__ void fill(__half *to, size_t n, uint64_t seed) {
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < n;
         i += (size_t)gridDim.x * blockDim.x)
        to[i] = __float2half_rn(3.4641f * (uniform_hash(seed + i) - 0.5f)); /* variance 1 */
}

void *device_bytes(std::vector<void *> &owned, size_t n) {
    void *p;
    CHECK_CUDA(cudaMalloc(&p, n));
    CHECK_CUDA(cudaMemset(p, 0xFF, n));
    owned.push_back(p);
    return p;
}
template <typename V> V *upload(std::vector<void *> &owned, const std::vector<V> &v) {
    V *p = (V *)device_bytes(owned, v.size() * sizeof(V));
    CHECK_CUDA(cudaMemcpy(p, v.data(), v.size() * sizeof(V), cudaMemcpyHostToDevice));
    return p;
}
std::vector<float> random_weights(size_t n, double scale, uint64_t &seed) {
    std::vector<float> w;
    for (size_t i = 0; i < n; i++) {
        seed = seed * 6364136223846793005ull + 1442695040888963407ull;
        w.push_back(__half2float(
            __float2half_rn((float)(scale * 3.4641 * ((double)(seed >> 40) * 0x1p-24 - 0.5)))));
    }
    return w;
}

/* Relative L2 distance of two fp16 arrays on the device, over their first million elements. */
double distance(const void *a, const void *b, size_t n) {
    n = std::min(n, (size_t)1 << 20);
    std::vector<__half> ha(n), hb(n);
    CHECK_CUDA(cudaMemcpy(ha.data(), a, n * 2, cudaMemcpyDeviceToHost));
    CHECK_CUDA(cudaMemcpy(hb.data(), b, n * 2, cudaMemcpyDeviceToHost));
    double error = 0, norm = 0;
    for (size_t i = 0; i < n; i++) {
        const double x = __half2float(ha[i]), y = __half2float(hb[i]);
        error += (x - y) * (x - y), norm += y * y;
    }
    return sqrt(error / norm);
}

void launch(const vx_mamba_in_shape &shape, const std::vector<vx_mamba_in_item> &items) {
    vx_error err = {};
    if (vx_cuda_mamba_in(&shape, items.data(), items.size(), 0, &err) == VX_OK) return;
    fprintf(stderr, "%s\n", err.text);
    exit(1);
}

void run(const stage &s, const char *name, FILE *json, bool once) {
    vx_mamba_in_shape shape = {};
    shape.length = s.side * s.side * s.side, shape.features = s.features;
    shape.channels = 2 * s.features, shape.states = std::min(s.features, 256u);
    shape.rank = (s.features + 15) / 16, shape.dtype = VX_F16;
    const size_t length = shape.length, columns = vx_mamba_in_columns(&shape);
    const size_t row = s.features + shape.channels + columns; /* elements of a token */
    const size_t bytes = DIRECTIONS * length * row * 2;
    const int sets = (int)std::min<size_t>(8, 1 + ((size_t)200 << 20) / bytes);

    std::vector<void *> owned;
    uint64_t seed = 7;
    const auto in_proj =
        random_weights((size_t)shape.channels * s.features, 1 / sqrt((double)s.features), seed);
    const auto x_proj = random_weights((shape.rank + 2 * shape.states) * (size_t)shape.channels,
                                       1 / sqrt((double)shape.channels), seed);
    const float *gamma = upload(owned, random_weights(s.features, 1, seed));
    const float *beta = upload(owned, random_weights(s.features, 0.3, seed));
    const float *conv = upload(owned, random_weights(4 * (size_t)shape.channels, 0.5, seed));
    const float *conv_bias = upload(owned, random_weights(shape.channels, 0.2, seed));
    void *packed[2]; /* for the matrix units, and exact */
    for (int exact = 0; exact < 2; exact++) {
        shape.exact = exact;
        std::vector<char> host(vx_mamba_in_packed_bytes(&shape));
        vx_mamba_in_pack(&shape, in_proj.data(), x_proj.data(), host.data());
        packed[exact] = upload(owned, host);
    }
    shape.exact = false;

    std::vector<std::vector<vx_mamba_in_item>> items((size_t)sets + 1); /* the last one: exact */
    for (int k = 0; k <= sets; k++)
        for (int dir = 0; dir < DIRECTIONS; dir++) {
            vx_mamba_in_item it = {};
            if (k < sets) {
                __half *x = (__half *)device_bytes(owned, length * s.features * 2);
                fill<<<512, 256>>>(x, length * s.features, 1000003ull * (uint64_t)(2 * k + dir));
                it.x = x;
            } else {
                it.x = items[0][(size_t)dir].x;
            }
            it.u = device_bytes(owned, length * shape.channels * 2);
            it.projections = device_bytes(owned, length * columns * 2);
            it.x_row = s.features, it.u_row = shape.channels, it.projections_row = columns;
            it.gamma = gamma, it.beta = beta, it.conv = conv, it.conv_bias = conv_bias;
            it.weights = packed[k == sets];
            const uint32_t step[3] = {s.side * s.side, s.side, 1};
            for (int a = 0; a < 3; a++) it.walk.dims[a] = s.side, it.walk.step[a] = step[a];
            it.walk.reverse = dir == 1;
            items[(size_t)k].push_back(it);
        }
    CHECK_CUDA(cudaDeviceSynchronize());

    std::vector<float> ms;
    cudaEvent_t start, stop;
    CHECK_CUDA(cudaEventCreate(&start));
    CHECK_CUDA(cudaEventCreate(&stop));
    const int repeats = once ? 1 : REPEATS;
    for (int r = 0; r < repeats + 3; r++) {
        CHECK_CUDA(cudaEventRecord(start));
        launch(shape, items[(size_t)(r % sets)]);
        CHECK_CUDA(cudaEventRecord(stop));
        CHECK_CUDA(cudaEventSynchronize(stop));
        float t;
        CHECK_CUDA(cudaEventElapsedTime(&t, start, stop));
        if (r >= 3) ms.push_back(t);
    }
    std::sort(ms.begin(), ms.end());
    shape.exact = true;
    launch(shape, items.back());
    CHECK_CUDA(cudaDeviceSynchronize());
    const vx_mamba_in_item &a = items[0][1], &b = items.back()[1];
    const double error[2] = {distance(a.u, b.u, length * shape.channels),
                             distance(a.projections, b.projections, length * columns)};
    const double median = ms[ms.size() / 2];
    const double flops = 2.0 * DIRECTIONS * (double)length * shape.channels *
                         (double)(s.features + 2 * shape.states + shape.rank);
    printf("%-10s %3u^3 C %3u D %3u N %3u  %8.4f ms (min %.4f max %.4f)  %6.0f GB/s %6.1f TFLOP/s  "
           "to exact: u %.1e projections %.1e\n",
           name, s.side, s.features, shape.channels, shape.states, median, ms.front(), ms.back(),
           (double)bytes / median * 1e-6, flops / median * 1e-9, error[0], error[1]);
    if (json)
        fprintf(
            json,
            "{\"op\": \"mamba_in\", \"variant\": \"%s\", \"tokens\": %zu, \"C\": %u, \"D\": %u, "
            "\"N\": %u, \"directions\": %d, \"type\": \"fp16\", \"ms\": %.5f, \"ms_min\": %.5f, "
            "\"ms_max\": %.5f, \"repeats\": %d, \"bytes\": %zu, \"flops\": %.0f, "
            "\"error_u\": %.3e, \"error_projections\": %.3e}\n",
            name, length, s.features, shape.channels, shape.states, DIRECTIONS, median, ms.front(),
            ms.back(), repeats, bytes, flops, error[0], error[1]);
    fflush(stdout);
    for (void *p : owned) CHECK_CUDA(cudaFree(p));
}

} // namespace

int main(int argc, char **argv) {
    const char *name = "default";
    FILE *json = NULL;
    int devices = 0, only = -1;
    if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
        printf("no CUDA device: skipped\n");
        return 77;
    }
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--name") && i + 1 < argc) {
            name = argv[++i];
        } else if (!strcmp(argv[i], "--json") && i + 1 < argc) {
            json = fopen(argv[++i], "a");
        } else if (!strcmp(argv[i], "--once") && i + 1 < argc) {
            only = atoi(argv[++i]);
        } else {
            fprintf(stderr, "unknown argument %s\n", argv[i]);
            return 1;
        }
    }
    for (int i = 0; i < (int)(sizeof(stages) / sizeof(stages[0])); i++)
        if (only < 0 || only == i) run(stages[i], name, json, only >= 0);
    if (json) fclose(json);
    return 0;
}
