/* Times the CUDA scan (cuda/scan.h) on random data and checks three channels against float64.
 *
 *   cuda_scan [--name VARIANT] [--json FILE] [--exact | --fitted] [--quick | --sweep]
 *             [--once L D N DIRECTIONS TYPE]
 *
 * --exact, --fitted: the first pass without or with a fit wherever there is one; otherwise where it
 * pays. --quick: twelve shapes, the error of the first alone. --sweep: cubes of growing
 * size, for bench/plot_scan.py. --once: one shape, for a profiler.
 * Data: u, B, C, z normal; delta in the range that Mamba starts from (per channel log-uniform in
 * [1e-3, 0.1], noise before the softplus); A = -(n + 1) with 10 % noise. Buffers rotate so that
 * together they exceed the L2 cache. Times are medians of device events over single launches.
 * Floors come from the rates given in the source of each column: bytes at the copy bandwidth of
 * cuda_probe, one exponential a state at 16 a clock a multiprocessor and the device's top clock.
 */
#include "cuda/scan.h"
#include "cuda/scan_fit.h"
#include "cuda/tests/device_host.h"

#include <algorithm>

namespace {

struct setting {
    uint32_t dims[3];
    uint32_t d, n;
    int directions; /* items in one launch: raster, raster reversed, other axis orders ... */
    vx_dtype type;
    int axes; /* 0: raster; 1: x slowest */
};

struct weights {
    std::vector<float> a, skip, bias, rates, weights;
};

/* Relative L2 error over three channels of item 0. */
double check(const setting &s, const vx_scan_item &it, const weights &w, size_t length) {
    const size_t es = size_of(s.type);
    std::vector<char> bc(length * it.b_row * es);
    CHECK_CUDA(cudaMemcpy(bc.data(), it.b, bc.size(), cudaMemcpyDeviceToHost));
    double error = 0, norm = 0;
    for (uint32_t ch : {0u, s.d / 2, s.d - 1}) {
        const void *from[4] = {it.u, it.delta, it.z, it.y};
        std::vector<char> col[4];
        for (int k = 0; k < 4; k++) {
            col[k].resize(length * es);
            CHECK_CUDA(cudaMemcpy2D(col[k].data(), es, (const char *)from[k] + ch * es, s.d * es,
                                    es, length, cudaMemcpyDeviceToHost));
        }
        std::vector<double> h(s.n, 0.0);
        for (size_t t = 0; t < length; t++) {
            size_t v = t;
            if (s.axes == 1) { /* x slowest: dims are equal or the table says otherwise */
                size_t i2 = t % s.dims[0], i1 = t / s.dims[0] % s.dims[1];
                size_t i0 = t / s.dims[0] / s.dims[1];
                v = (i2 * s.dims[1] + i1) * s.dims[2] + i0;
            }
            double u = load(col[0].data(), s.type, v), z = load(col[2].data(), s.type, v);
            double raw = load(col[1].data(), s.type, v) + w.bias[ch];
            double delta = raw > 20 ? raw : log1p(exp(raw)), sum = 0;
            for (uint32_t n = 0; n < s.n; n++) {
                h[n] = exp(delta * w.a[(size_t)ch * s.n + n]) * h[n] +
                       delta * u * load(bc.data(), s.type, v * it.b_row + n);
                sum += h[n] * load(bc.data(), s.type, v * it.b_row + s.n + n);
            }
            double ref = (sum + w.skip[ch] * u) * z / (1 + exp(-z));
            double e = load(col[3].data(), s.type, v) - ref;
            error += e * e, norm += ref * ref;
        }
    }
    return sqrt(error / norm);
}

enum first_pass { BEST, EXACT, FITTED };

void run(const setting &s, const char *name, FILE *json, int repeats, bool checked,
         first_pass first) {
    const size_t length = (size_t)s.dims[0] * s.dims[1] * s.dims[2], es = size_of(s.type);
    const size_t tensor = length * s.d * es, bc = length * 2 * s.n * es;
    /* In SegMambaSkip both directions have their own u, delta, z, B, C: so here. */
    const size_t set_bytes = (size_t)s.directions * (4 * tensor + bc);
    const int sets = (int)std::min<size_t>(8, 1 + ((size_t)200 << 20) / set_bytes);
    cudaDeviceProp prop;
    CHECK_CUDA(cudaGetDeviceProperties(&prop, 0));
    int clock = 0;
    CHECK_CUDA(cudaDeviceGetAttribute(&clock, cudaDevAttrClockRate, 0));

    weights w;
    memory m;
    random_state r = {42};
    for (uint32_t d = 0; d < s.d; d++) {
        w.bias.push_back((float)log(expm1(exp(log(1e-3) + r.uniform() * log(100)))));
        w.skip.push_back((float)r.uniform());
        for (uint32_t n = 0; n < s.n; n++)
            w.a.push_back((float)(-(n + 1.0) * (0.9 + 0.2 * r.uniform())));
    }
    vx_scan_shape shape = {(uint32_t)length, s.d, s.n, s.type, 0, 0};
    if (first != EXACT) shape.rates = vx_scan_fit_rates(&shape, w.a.data());
    if (first == BEST && !vx_cuda_scan_fit_pays(&shape)) shape.rates = 0;
    w.rates.resize((size_t)s.d * shape.rates),
        w.weights.resize(vx_scan_fit_weights(&shape, shape.rates));
    if (shape.rates)
        vx_scan_fit_fill(&shape, w.a.data(), shape.rates, w.rates.data(), w.weights.data());
    const float *da = m.upload(w.a), *ds = m.upload(w.skip), *db = m.upload(w.bias);
    const float *dr = m.upload(w.rates), *dw = m.upload(w.weights);

    std::vector<std::vector<vx_scan_item>> items((size_t)sets);
    for (int k = 0; k < sets; k++)
        for (int dir = 0; dir < s.directions; dir++) {
            vx_scan_item it = {};
            char *p = (char *)m.bytes(4 * tensor + bc); /* y stays NaN */
            uint64_t at = 1000 * (uint64_t)(k * 16 + dir);
            fill_normal(p, s.type, length * s.d, 1.0f, at + 1);
            fill_normal(p + tensor, s.type, length * s.d, 0.3f, at + 2);
            fill_normal(p + 2 * tensor, s.type, length * s.d, 1.0f, at + 3);
            fill_normal(p + 4 * tensor, s.type, length * 2 * s.n, 1.0f, at + 4);
            it.u = p, it.delta = p + tensor, it.z = p + 2 * tensor, it.y = p + 3 * tensor;
            it.b = p + 4 * tensor, it.c = p + 4 * tensor + s.n * es;
            it.u_row = it.delta_row = it.z_row = it.y_row = s.d;
            it.b_row = it.c_row = 2 * s.n;
            it.a = da, it.skip = ds, it.delta_bias = db;
            it.rates = dr, it.weights = dw;
            uint32_t step[3] = {s.dims[1] * s.dims[2], s.dims[2], 1};
            for (int a = 0; a < 3; a++) {
                int axis = s.axes == 1 ? 2 - a : a;
                it.walk.dims[a] = s.dims[axis], it.walk.step[a] = step[axis];
            }
            it.walk.reverse = dir % 2;
            items[(size_t)k].push_back(it);
        }
    vx_error err = {};
    size_t bytes;
    if (vx_cuda_scan_scratch(&shape, (size_t)s.directions, &bytes, &err) != VX_OK) exit(1);
    void *scratch = m.bytes(bytes);

    std::vector<float> ms;
    cudaEvent_t start, stop;
    CHECK_CUDA(cudaEventCreate(&start));
    CHECK_CUDA(cudaEventCreate(&stop));
    for (int r = 0; r < repeats + 3; r++) {
        CHECK_CUDA(cudaEventRecord(start));
        if (vx_cuda_scan(&shape, items[(size_t)(r % sets)].data(), (size_t)s.directions, scratch,
                         bytes, 0, &err) != VX_OK) {
            fprintf(stderr, "%s\n", err.text);
            exit(1);
        }
        CHECK_CUDA(cudaEventRecord(stop));
        CHECK_CUDA(cudaEventSynchronize(stop));
        float t;
        CHECK_CUDA(cudaEventElapsedTime(&t, start, stop));
        if (r >= 3) ms.push_back(t);
    }
    CHECK_CUDA(cudaDeviceSynchronize());
    std::sort(ms.begin(), ms.end());
    char error[16] = "null"; /* not checked */
    if (checked) snprintf(error, sizeof(error), "%.3e", check(s, items[0][0], w, length));

    double median = ms[ms.size() / 2], states = (double)length * s.d * s.n * s.directions;
    double exp_floor = states / (16.0 * prop.multiProcessorCount * clock); /* ms */
    double useful = (double)set_bytes;
    const char *types[] = {"fp32", "fp16", "bf16"};
    printf("%-12s K%2u %4ux%3ux%3u D%4u N%4u dirs %d axes %d %s  %8.4f ms (min %.4f max %.4f)  exp "
           "floor %.4f  %6.0f GB/s  err %s\n",
           name, shape.rates, s.dims[0], s.dims[1], s.dims[2], s.d, s.n, s.directions, s.axes,
           types[s.type], median, ms.front(), ms.back(), exp_floor, useful / median * 1e-6, error);
    if (json)
        fprintf(json,
                "{\"variant\": \"%s\", \"rates\": %u, \"device\": \"%s\", \"tokens\": %zu, \"D\": "
                "%u, \"N\": %u, \"directions\": %d, \"axes\": %d, \"type\": \"%s\", \"ms\": %.5f, "
                "\"ms_min\": "
                "%.5f, \"ms_max\": %.5f, \"repeats\": %d, \"bytes\": %.0f, \"exps\": %.0f, "
                "\"exp_floor_ms\": %.5f, \"scratch\": %zu, \"error\": %s}\n",
                name, shape.rates, prop.name, length, s.d, s.n, s.directions, s.axes, types[s.type],
                median, ms.front(), ms.back(), repeats, useful, states, exp_floor, bytes, error);
    fflush(stdout);
}

} // namespace

int main(int argc, char **argv) {
    const char *name = "default";
    FILE *json = NULL;
    bool quick = false, sweep = false;
    first_pass first = BEST;
    int devices = 0;
    if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
        printf("no CUDA device: skipped\n");
        return 77;
    }
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--name") && i + 1 < argc)
            name = argv[++i];
        else if (!strcmp(argv[i], "--json") && i + 1 < argc)
            json = fopen(argv[++i], "a");
        else if (!strcmp(argv[i], "--quick"))
            quick = true;
        else if (!strcmp(argv[i], "--sweep"))
            sweep = true;
        else if (!strcmp(argv[i], "--exact"))
            first = EXACT;
        else if (!strcmp(argv[i], "--fitted"))
            first = FITTED;
        else if (!strcmp(argv[i], "--once") && i + 5 < argc) {
            setting s = {{1, 1, (uint32_t)atoi(argv[i + 1])}, (uint32_t)atoi(argv[i + 2]),
                         (uint32_t)atoi(argv[i + 3]),         atoi(argv[i + 4]),
                         (vx_dtype)atoi(argv[i + 5]),         0};
            run(s, name, json, 1, false, first);
            return 0;
        } else {
            fprintf(stderr, "unknown argument %s\n", argv[i]);
            return 1;
        }
    }
    const setting all[] = {
        {{128, 128, 128}, 64, 16, 1, VX_F16, 0},
        {{128, 128, 128}, 64, 32, 1, VX_F16, 0},
        /* Mamba stages, both directions: of SegMambaSkip ... */
        {{128, 128, 128}, 64, 32, 2, VX_F16, 0},
        {{64, 64, 64}, 128, 64, 2, VX_F16, 0},
        {{32, 32, 32}, 256, 128, 2, VX_F16, 0},
        {{16, 16, 16}, 512, 256, 2, VX_F16, 0},
        {{8, 8, 8}, 640, 256, 2, VX_F16, 0},
        {{4, 4, 4}, 640, 256, 2, VX_F16, 0},
        /* ... and of MultiSegMamba, where they are others */
        {{32, 32, 32}, 256, 64, 2, VX_F16, 0},
        {{16, 16, 16}, 512, 64, 2, VX_F16, 0},
        {{8, 8, 8}, 640, 64, 2, VX_F16, 0},
        {{4, 4, 4}, 640, 64, 2, VX_F16, 0},
        /* quick ends here */
        {{64, 64, 64}, 128, 64, 1, VX_F16, 0},
        {{64, 64, 64}, 128, 16, 1, VX_F16, 0},
        {{32, 32, 32}, 256, 64, 1, VX_F16, 0},
        {{32, 32, 32}, 256, 16, 1, VX_F16, 0},
        {{16, 16, 16}, 512, 64, 1, VX_F16, 0},
        {{128, 128, 128}, 64, 16, 1, VX_F16, 1},
        {{128, 128, 128}, 64, 16, 1, VX_F32, 0},
        {{128, 128, 128}, 64, 16, 1, VX_BF16, 0},
    };
    const uint32_t sides[] = {8, 16, 24, 32, 48, 64, 96, 128, 160};
    if (sweep)
        for (uint32_t side : sides)
            run({{side, side, side}, 64, 16, 1, VX_F16, 0}, name, json, 21, false, first);
    int count = sweep ? 0 : quick ? 12 : (int)(sizeof(all) / sizeof(all[0]));
    for (int i = 0; i < count; i++)
        run(all[i], name, json, quick ? 11 : 21, !quick || i == 0, first);
    if (json) fclose(json);
    return 0;
}
