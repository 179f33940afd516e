/* Times whole Mamba layers as the CUDA backend runs them (cuda/step_mamba_layer.c), on random data,
 * at the shapes of SegMambaSkip's stages, fp16, two branches: each piece (cuda/mamba_in.h,
 * cuda/scan.h, cuda/mamba_out.h) between events, then the layer as a CUDA graph.
 *
 *   cuda_mamba_layer [--multi] [--name VARIANT] [--json FILE] [--once STAGE BRANCHES]
 *
 * Every stage runs with both branches in a launch and with one after the other. --multi: at
 * MultiSegMamba's, four parts on four orders, with two, four and eight branches a launch; without
 * the sum of parts that one launch makes. --once: one stage (0 .. 5) with so many branches a
 * launch, one run after three to warm up, for a profiler. Buffers rotate so that together they
 * exceed the L2 cache. Times are medians. "bytes": what a piece has to read and write, each tensor
 * once, but for the scan's first pass, which reads u, B and dt or delta again; divide by the copy
 * rate of cuda_probe for the floor. Results are checked by cuda/tests, here only for numbers that
 * are none.
 */
#include "cuda/mamba_in.h"
#include "cuda/mamba_out.h"
#include "cuda/mamba_pack.h"
#include "cuda/scan.h"
#include "cuda/scan_fit.h"
#include "cuda/tests/device_host.h"

#include <algorithm>

namespace {

constexpr int PAIR = 2, REPEATS = 21, WARM_UP = 3; /* PAIR: branches of a part */
enum piece { IN, SCAN, OUT, PIECES };
const char *const piece_names[] = {"mamba_in", "scan", "mamba_out"};

struct stage {
    uint32_t side, features;
};
struct network {
    int parts;
    uint32_t states; /* at most */
};
constexpr network skip = {1, 256}, multi = {VX_MAMBA_PARTS, 64};
/* Slowest axis first, of z, y, x. */
const int orders[VX_MAMBA_PARTS][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {2, 0, 1}};
const stage stages[] = {{128, 32}, {64, 64}, {32, 128}, {16, 256}, {8, 320}, {4, 320}};

/* Normal numbers of deviation `scale` about mean; numbers of fp16. */
std::vector<float> floats(random_state &r, size_t n, double scale, double mean = 0) {
    std::vector<float> w;
    char rounded[2];
    for (size_t i = 0; i < n; i++)
        w.push_back((float)store(rounded, VX_F16, 0, mean + scale * r.normal()));
    return w;
}

/* The shapes of a stage and the weights of its branches. */
struct layer {
    stage s;
    size_t length, columns, dt_columns;
    vx_mamba_in_shape in;
    vx_scan_shape scan;
    vx_mamba_out_shape out;
    int parts, branches; /* branches: of all parts */
    vx_mamba_in_item in_weights[VX_MAMBA_PARTS * PAIR];
    vx_scan_item scan_weights[VX_MAMBA_PARTS * PAIR];
    vx_mamba_out out_weights[VX_MAMBA_PARTS];
};

/* A matrix in fp16, packed for mamba_out. */
const void *packed(memory &m, const std::vector<float> &w, size_t outputs, size_t inputs) {
    std::vector<__half> plain, to(w.size());
    for (float v : w) plain.push_back(__float2half_rn(v));
    vx_cuda_pack_blocks(plain.data(), outputs, inputs, to.data());
    return m.upload(to);
}

/* Numbers such as training starts from: delta in [1e-3, 0.1], A = -(n + 1) with noise. */
void make_branch(memory &m, random_state &r, layer *l, int k) {
    const size_t C = l->s.features, D = l->in.channels, N = l->in.states, R = l->in.rank;
    vx_mamba_in_item &in = l->in_weights[k];
    vx_scan_item &scan = l->scan_weights[k];
    vx_mamba_out_branch &out = l->out_weights[k / PAIR].branch[k % PAIR];
    std::vector<char> weights(vx_mamba_in_packed_bytes(&l->in));
    const auto in_proj = floats(r, 2 * D * C, 1 / sqrt((double)C));
    const auto x_proj = floats(r, (R + 2 * N) * D, 1 / sqrt((double)D));
    const auto dt_proj = floats(r, R * D, 0.5 / sqrt((double)R));
    vx_mamba_in_pack(&l->in, in_proj.data(), x_proj.data(), dt_proj.data(), weights.data());
    in.weights = m.upload(weights);
    in.before_gamma = m.upload(floats(r, C, 0.2, 1)), in.before_beta = m.upload(floats(r, C, 0.2));
    in.gamma = m.upload(floats(r, C, 0.2, 1)), in.beta = m.upload(floats(r, C, 0.2));
    const auto conv = floats(r, 4 * D, 0.5);
    std::vector<float> conv_packed(4 * D);
    vx_mamba_in_pack_conv(&l->in, conv.data(), conv_packed.data());
    in.conv = m.upload(conv_packed), in.conv_bias = m.upload(floats(r, D, 0.2));
    in.x_row = C, in.u_row = in.z_row = in.delta_row = D, in.projections_row = l->columns;
    in.dt_row = l->dt_columns;
    const uint32_t step[3] = {l->s.side * l->s.side, l->s.side, 1};
    for (int a = 0; a < 3; a++)
        in.walk.dims[a] = l->s.side, in.walk.step[a] = step[orders[k / PAIR][a]];
    in.walk.reverse = k % PAIR == 1;

    std::vector<float> bias, a;
    for (size_t d = 0; d < D; d++) {
        bias.push_back((float)log(expm1(exp(log(1e-3) + r.uniform() * log(100)))));
        for (size_t n = 0; n < N; n++)
            a.push_back(-((float)n + 1) * (1 + 0.2f * ((float)r.uniform() - 0.5f)));
    }
    scan.a = m.upload(a), scan.delta_bias = m.upload(bias),
    scan.skip = m.upload(floats(r, D, 0.2, 1));
    std::vector<float> dt_w(R * D); /* [R][D] */
    for (size_t d = 0; d < D; d++)
        for (size_t i = 0; i < R; i++) dt_w[i * D + d] = dt_proj[d * R + i];
    scan.dt_w = m.upload(dt_w);
    scan.u_row = scan.z_row = scan.y_row = scan.delta_row = D;
    scan.b_row = scan.c_row = l->columns, scan.dt_row = l->dt_columns;
    scan.walk = in.walk;
    const uint32_t last = l->scan.rates;
    l->scan.rates = vx_scan_fit_rates(&l->scan, a.data());
    if (!vx_cuda_scan_fit_pays(&l->scan)) l->scan.rates = 0;
    if (k > 0 && l->scan.rates != last) {
        fprintf(stderr, "branches with different fits\n");
        exit(1);
    }
    if (l->scan.rates) {
        std::vector<float> rates(D * l->scan.rates),
            fit(vx_scan_fit_weights(&l->scan, l->scan.rates));
        vx_scan_fit_fill(&l->scan, a.data(), l->scan.rates, rates.data(), fit.data());
        scan.rates = m.upload(rates), scan.weights = m.upload(fit);
    }
    out.out_proj = packed(m, floats(r, C * D, 1 / sqrt((double)D)), C, D);
    out.head = packed(m, floats(r, C * C, 1 / sqrt((double)C)), C, C);
    out.gamma = m.upload(floats(r, C, 0.2, 1)), out.beta = m.upload(floats(r, C, 0.2));
    out.head_bias = m.upload(floats(r, C, 0.2));
}

layer make_layer(memory &m, const network &n, const stage &s) {
    layer l = {};
    random_state r = {7};
    l.s = s, l.length = (size_t)s.side * s.side * s.side;
    l.in.length = (uint32_t)l.length, l.in.features = s.features, l.in.channels = 2 * s.features;
    l.parts = n.parts, l.branches = n.parts * PAIR;
    l.in.states = std::min(s.features, n.states), l.in.rank = (s.features + 15) / 16;
    l.in.delta = l.in.rank >= 4; /* as in cuda/step_mamba_layer.c */
    l.in.dtype = VX_F16, l.in.eps = 1e-5f;
    l.columns = vx_mamba_in_columns(&l.in), l.dt_columns = vx_mamba_in_dt_columns(&l.in);
    l.scan = {l.in.length, l.in.channels, l.in.states, VX_F16, 0, l.in.delta ? 0 : l.in.rank};
    l.out = {l.length, s.features, l.in.channels, VX_F16, 1e-5f};
    for (int k = 0; k < l.branches; k++) make_branch(m, r, &l, k);
    for (int p = 0; p < l.parts; p++) {
        vx_mamba_out &out = l.out_weights[p];
        out.branches = PAIR, out.scale = 1;
        out.before_gamma = l.in_weights[PAIR * p].before_gamma;
        out.before_beta = l.in_weights[PAIR * p].before_beta;
        out.after_gamma = m.upload(floats(r, s.features, 0.2, 1));
        out.after_beta = m.upload(floats(r, s.features, 0.2));
    }
    return l;
}

/* One set of tensors, ready to be launched. */
struct tensors {
    vx_mamba_in_item in[VX_MAMBA_PARTS * PAIR];
    vx_scan_item scan[VX_MAMBA_PARTS * PAIR];
    vx_mamba_out out[VX_MAMBA_PARTS]; /* into one tensor; but those of one launch */
};

tensors make_tensors(memory &m, const layer &l, uint64_t seed) {
    tensors t;
    const size_t C = l.s.features, D = l.in.channels, N = l.in.states;
    __half *x = (__half *)m.bytes(l.length * C * 2);
    fill_normal(x, VX_F16, l.length * C, 1, seed);
    for (int p = 0; p < l.parts; p++) {
        t.out[p] = l.out_weights[p];
        t.out[p].x = x, t.out[p].out = m.bytes(l.length * C * 2);
    }
    for (int k = 0; k < l.branches; k++) {
        t.in[k] = l.in_weights[k], t.scan[k] = l.scan_weights[k];
        __half *projections = (__half *)m.bytes(l.length * l.columns * 2);
        t.in[k].x = x, t.in[k].projections = projections;
        t.scan[k].u = t.in[k].u = m.bytes(l.length * D * 2);
        t.scan[k].z = t.scan[k].y = t.in[k].z = m.bytes(l.length * D * 2);
        t.scan[k].b = projections, t.scan[k].c = projections + N;
        if (l.in.delta)
            t.scan[k].delta = t.in[k].delta = m.bytes(l.length * D * 2);
        else
            t.scan[k].dt = t.in[k].dt = m.bytes(l.length * l.dt_columns * 2);
        t.out[k / PAIR].branch[k % PAIR].y = t.in[k].z;
    }
    return t;
}

void succeed(vx_status status, const vx_error &err) {
    if (status == VX_OK) return;
    fprintf(stderr, "%s\n", err.text);
    exit(1);
}

/* All launches of a layer, with an event before each and one at the end where events are wanted;
 * returns the number of launches. */
size_t launch(const layer &l, const tensors &t, int together, void *scratch, size_t scratch_bytes,
              cudaStream_t stream, cudaEvent_t *events, piece *kinds) {
    vx_error err = {};
    size_t count = 0;
    auto next = [&](piece kind) {
        if (events) CHECK_CUDA(cudaEventRecord(events[count], stream));
        kinds[count++] = kind;
    };
    for (int k = 0; k < l.branches; k += together) {
        next(IN);
        succeed(vx_cuda_mamba_in(&l.in, t.in + k, (size_t)together, stream, &err), err);
        next(SCAN);
        succeed(vx_cuda_scan(&l.scan, t.scan + k, (size_t)together, scratch, scratch_bytes, stream,
                             &err),
                err);
    }
    const bool at_once = together == l.branches;
    for (int p = 0; p < l.parts; p += at_once ? l.parts : 1) {
        vx_mamba_out jobs[VX_MAMBA_PARTS];
        std::copy(t.out, t.out + l.parts, jobs);
        jobs[p].out = t.out[0].out;
        if (p > 0) jobs[p].added = t.out[0].out;
        next(OUT);
        succeed(vx_cuda_mamba_out(&l.out, jobs + p, at_once ? (size_t)l.parts : 1, stream, &err),
                err);
    }
    if (events) CHECK_CUDA(cudaEventRecord(events[count], stream));
    return count;
}

double median(std::vector<float> &v) {
    std::sort(v.begin(), v.end());
    return v[v.size() / 2];
}

void report(const char *op, const char *name, const layer &l, int together, double bytes,
            std::vector<float> &ms, FILE *json) {
    const double mid = median(ms);
    printf("%-10s %-10s %3u^3 C %3u D %3u N %3u K %2u branches a launch %d  %8.4f ms (min %.4f max "
           "%.4f)  %6.0f GB/s\n",
           name, op, l.s.side, l.s.features, l.in.channels, l.in.states, l.scan.rates, together,
           mid, ms.front(), ms.back(), bytes / mid * 1e-6);
    if (json)
        fprintf(json,
                "{\"op\": \"%s\", \"variant\": \"%s\", \"tokens\": %zu, \"C\": %u, \"D\": %u, "
                "\"N\": %u, \"rates\": %u, \"branches\": %d, \"branches_a_launch\": %d, \"type\": "
                "\"fp16\", \"ms\": %.5f, \"ms_min\": %.5f, \"ms_max\": %.5f, \"repeats\": %zu, "
                "\"bytes\": %.0f}\n",
                op, name, l.length, l.s.features, l.in.channels, l.in.states, l.scan.rates,
                l.branches, together, mid, ms.front(), ms.back(), ms.size(), bytes);
    fflush(stdout);
}

/* The layer as one graph, a graph for each set. */
void time_graphs(const layer &l, const std::vector<tensors> &sets, int together, void *scratch,
                 size_t scratch_bytes, std::vector<float> &ms) {
    cudaStream_t stream;
    cudaEvent_t begin, end;
    piece kinds[3 * VX_MAMBA_PARTS * PAIR];
    std::vector<cudaGraphExec_t> graphs;
    CHECK_CUDA(cudaStreamCreate(&stream));
    CHECK_CUDA(cudaEventCreate(&begin));
    CHECK_CUDA(cudaEventCreate(&end));
    for (const tensors &t : sets) {
        cudaGraph_t graph;
        cudaGraphExec_t exec;
        CHECK_CUDA(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
        launch(l, t, together, scratch, scratch_bytes, stream, NULL, kinds);
        CHECK_CUDA(cudaStreamEndCapture(stream, &graph));
        CHECK_CUDA(cudaGraphInstantiate(&exec, graph, 0));
        CHECK_CUDA(cudaGraphDestroy(graph));
        graphs.push_back(exec);
    }
    for (int r = 0; r < REPEATS + WARM_UP; r++) {
        float t;
        CHECK_CUDA(cudaEventRecord(begin, stream));
        CHECK_CUDA(cudaGraphLaunch(graphs[(size_t)r % graphs.size()], stream));
        CHECK_CUDA(cudaEventRecord(end, stream));
        CHECK_CUDA(cudaEventSynchronize(end));
        CHECK_CUDA(cudaEventElapsedTime(&t, begin, end));
        if (r >= WARM_UP) ms.push_back(t);
    }
    for (cudaGraphExec_t g : graphs) CHECK_CUDA(cudaGraphExecDestroy(g));
    CHECK_CUDA(cudaStreamDestroy(stream));
}

/* Ends the program if out holds a number that is none. */
void check_finite(const layer &l, const tensors &t) {
    std::vector<__half> out(l.length * l.s.features);
    CHECK_CUDA(cudaMemcpy(out.data(), t.out[0].out, out.size() * 2, cudaMemcpyDeviceToHost));
    for (__half v : out)
        if (!isfinite(__half2float(v))) {
            fprintf(stderr, "%u^3: a result is not finite\n", l.s.side);
            exit(1);
        }
}

/* Returns the layer's time, ms. */
double run(const network &n, const stage &s, int together, const char *name, FILE *json,
           bool once) {
    memory m;
    const layer l = make_layer(m, n, s);
    const double C = s.features, D = l.in.channels, N = l.in.states;
    const double dt = l.in.delta ? D : l.in.rank; /* numbers a token that delta comes from */
    const double tokens = 2.0 * (double)l.length; /* in bytes of fp16 */
    const double bytes[PIECES] = {
        tokens * l.branches *
            (C + 2 * D + (double)(l.columns + l.dt_columns) + (l.in.delta ? D : 0)),
        tokens * l.branches * (4 * D + 3 * N + 2 * dt),
        tokens * (l.branches * D + (3 * l.parts - 1) * C)};
    const double set_bytes = tokens * (2 * C + l.branches * (3 * D + (double)l.columns));
    std::vector<tensors> sets;
    const size_t count = once ? 1 : (size_t)std::min(8.0, 1 + 2e8 / set_bytes);
    for (size_t k = 0; k < count; k++) sets.push_back(make_tensors(m, l, 1000003ull * (k + 1)));
    vx_error err = {};
    size_t scratch_bytes;
    succeed(vx_cuda_scan_scratch(&l.scan, (size_t)together, &scratch_bytes, &err), err);
    void *scratch = m.bytes(scratch_bytes);

    constexpr int LAUNCHES = 3 * VX_MAMBA_PARTS * PAIR;
    cudaEvent_t events[LAUNCHES];
    piece kinds[LAUNCHES];
    std::vector<float> ms[PIECES], whole;
    for (cudaEvent_t &e : events) CHECK_CUDA(cudaEventCreate(&e));
    for (int r = 0; r < (once ? 1 : REPEATS) + WARM_UP; r++) {
        const size_t launches =
            launch(l, sets[(size_t)r % count], together, scratch, scratch_bytes, 0, events, kinds);
        CHECK_CUDA(cudaDeviceSynchronize());
        float sum[PIECES] = {0};
        for (size_t i = 0; i < launches; i++) {
            float t;
            CHECK_CUDA(cudaEventElapsedTime(&t, events[i], events[i + 1]));
            sum[kinds[i]] += t;
        }
        for (int p = 0; p < PIECES && r >= WARM_UP; p++) ms[p].push_back(sum[p]);
    }
    check_finite(l, sets[0]);
    for (int p = 0; p < PIECES; p++)
        report(piece_names[p], name, l, together, bytes[p], ms[p], json);
    if (once) return 0;
    time_graphs(l, sets, together, scratch, scratch_bytes, whole);
    report("layer", name, l, together, bytes[IN] + bytes[SCAN] + bytes[OUT], whole, json);
    return median(whole);
}

} // namespace

int main(int argc, char **argv) {
    const char *name = "default";
    FILE *json = NULL;
    int devices = 0, only = -1, branches = 0;
    network n = skip;
    if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
        printf("no CUDA device: skipped\n");
        return 77;
    }
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--multi")) {
            n = multi;
        } else if (!strcmp(argv[i], "--name") && i + 1 < argc) {
            name = argv[++i];
        } else if (!strcmp(argv[i], "--json") && i + 1 < argc) {
            json = fopen(argv[++i], "a");
        } else if (!strcmp(argv[i], "--once") && i + 2 < argc) {
            only = atoi(argv[++i]), branches = atoi(argv[++i]);
        } else {
            fprintf(stderr, "unknown argument %s\n", argv[i]);
            return 1;
        }
    }
    const int most = n.parts * PAIR, least = n.parts > 1 ? 2 : 1;
    if (only >= 0 && only < 6 && branches >= 1 && most % branches == 0) {
        run(n, stages[only], branches, name, json, true);
        return 0;
    }
    double sum = 0;
    for (const stage &s : stages) {
        double best = INFINITY;
        for (int together = least; together <= most; together *= 2)
            best = std::min(best, run(n, s, together, name, json, false));
        sum += best;
    }
    printf("all stages, each in its quickest way: %.3f ms\n", sum);
    if (json) fclose(json);
    return 0;
}
