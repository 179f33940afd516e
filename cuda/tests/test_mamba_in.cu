/* The first half of a Mamba block (cuda/mamba_in.h) against a float64 reference on the host: odd
 * shapes, fp16 and bf16, one norm or two, scan orders, padded rows, several items in one launch.
 * Outputs are poisoned with NaN, guard bytes around every buffer and the columns between rows must
 * survive, and a second run must give the same bits. What overflows in fp16 is infinite, and two
 * threads that launch at once do not hinder each other. Needs no test library:
 *
 *   test_mamba_in            all cases; exit 0: all passed, 1: a failure, 77: no CUDA device that
 *                            has matrix units
 *   test_mamba_in --few      each shape in one storage type (for compute-sanitizer)
 *   test_mamba_in --verbose  also prints every error
 */
#include "cuda/mamba_in.h"
#include "cuda/tests/device_test.h"

#include <algorithm>
#include <thread>

namespace {

struct test_case {
    uint32_t dims[3];
    int axis[3];
    bool reverse;
    uint32_t c, d, n, r;
    int items;
    uint32_t pad; /* elements between rows */
    bool delta = false;
};

struct problem { /* one item on the host */
    std::vector<char> x, packed;
    std::vector<float> in_proj, x_proj, dt_proj, before_gamma, before_beta, gamma, beta, conv,
        conv_packed, conv_bias;
    std::vector<int32_t> table;
};

size_t tokens(const test_case &c) { return (size_t)c.dims[0] * c.dims[1] * c.dims[2]; }

/* Weights as the kernel has them: products' in the storage type, others fp32. */
void fill_weights(std::vector<float> &w, size_t count, double scale, vx_dtype t, random_state &r) {
    char rounded[4];
    for (size_t i = 0; i < count; i++) w.push_back((float)store(rounded, t, 0, scale * r.normal()));
}

vx_mamba_in_shape shape_of(const test_case &c, vx_dtype t) {
    return {(uint32_t)tokens(c), c.c, c.d, c.n, c.r, c.delta, t, 1e-5f};
}

/* Which output's own weights are so large that it overflows in fp16. LAST: delta, or dt of which
 * the scan makes it. */
enum overflow { U, Z, PROJECTIONS, LAST, OUTPUTS, NOTHING = OUTPUTS };

/* The weights from `from` on times a power of two: the largest is then in 30000 .. 60000. */
void grow(std::vector<float> &w, size_t from) {
    float largest = 0;
    for (size_t i = from; i < w.size(); i++) largest = fmaxf(largest, fabsf(w[i]));
    const float factor = exp2f(floorf(log2f(60000 / largest)));
    for (size_t i = from; i < w.size(); i++) w[i] *= factor;
}

void fill(const test_case &c, vx_dtype t, overflow what, random_state &r, problem *p) {
    const size_t rows = c.r + 2 * c.n, x_row = c.c + c.pad;
    p->x.assign(tokens(c) * x_row * size_of(t), (char)POISON_BYTE);
    for (size_t v = 0; v < tokens(c); v++) {
        const double shift = 3 * r.normal(), scale = exp(r.normal());
        for (size_t i = 0; i < c.c; i++)
            store(p->x.data(), t, v * x_row + i, shift + scale * r.normal());
    }
    fill_weights(p->in_proj, 2 * (size_t)c.d * c.c, 1 / sqrt((double)c.c), t, r);
    fill_weights(p->x_proj, rows * c.d, 1 / sqrt((double)c.d), t, r);
    if (c.delta) fill_weights(p->dt_proj, (size_t)c.d * c.r, 1 / sqrt((double)c.r), t, r);
    fill_weights(p->conv, 4 * (size_t)c.d, 0.5, VX_F32, r);
    fill_weights(p->conv_bias, c.d, 0.2, VX_F32, r);
    fill_weights(p->before_gamma, c.c, 1, VX_F32, r);
    fill_weights(p->before_beta, c.c, 0.3, VX_F32, r);
    fill_weights(p->gamma, c.c, 1, VX_F32, r);
    fill_weights(p->beta, c.c, 0.3, VX_F32, r);
    if (c.axis[0] < 0) p->table = random_table(tokens(c), r);
    if (what == U) {
        grow(p->conv, 0);
        for (float &w : p->conv) w *= 8; /* not of the storage type */
    }
    if (what == Z) grow(p->in_proj, (size_t)c.d * c.c);
    if (what == PROJECTIONS) grow(p->x_proj, 0);
    if (what == LAST) {
        grow(p->dt_proj, 0);
        for (size_t i = 0; i < (size_t)c.r * c.d; i++) p->x_proj[i] *= 16; /* of dt */
    }
    const vx_mamba_in_shape shape = shape_of(c, t);
    p->packed.resize(vx_mamba_in_packed_bytes(&shape));
    vx_mamba_in_pack(&shape, p->in_proj.data(), p->x_proj.data(), p->dt_proj.data(),
                     p->packed.data());
    p->conv_packed.resize(p->conv.size());
    vx_mamba_in_pack_conv(&shape, p->conv.data(), p->conv_packed.data());
}

void layer_norm(std::vector<double> &v, const std::vector<float> &gamma,
                const std::vector<float> &beta) {
    const double count = (double)v.size();
    double mean = 0, variance = 0;
    for (double x : v) mean += x / count;
    for (double x : v) variance += (x - mean) * (x - mean) / count;
    for (size_t i = 0; i < v.size(); i++)
        v[i] = (v[i] - mean) / sqrt(variance + (double)1e-5f) * gamma[i] + beta[i];
}

/* u, z [voxel][D], projections [voxel][2 N], and dt [voxel][R] or delta [voxel][D], in float64. */
void reference(const test_case &c, vx_dtype t, bool before, const problem &p,
               std::vector<double> *u, std::vector<double> *z, std::vector<double> *projections,
               std::vector<double> *last) {
    const std::vector<uint32_t> order = visited(c, p.table);
    const uint32_t columns = 2 * c.n;
    u->assign(order.size() * c.d, 0), z->assign(order.size() * c.d, 0);
    last->assign(order.size() * (c.delta ? c.d : c.r), 0);
    std::vector<double> dt(c.r);
    projections->assign(order.size() * columns, 0);
    std::vector<double> window(4 * (size_t)c.d, 0.0), v(c.c); /* the latest token last */
    for (uint32_t voxel : order) {
        for (uint32_t i = 0; i < c.c; i++)
            v[i] = load(p.x.data(), t, (size_t)voxel * (c.c + c.pad) + i);
        if (before) layer_norm(v, p.before_gamma, p.before_beta);
        layer_norm(v, p.gamma, p.beta);
        std::fill(dt.begin(), dt.end(), 0.0);
        for (uint32_t d = 0; d < c.d; d++) {
            double *w = &window[4 * (size_t)d], sum = 0, conv = p.conv_bias[d];
            double &gate = (*z)[(size_t)voxel * c.d + d];
            for (uint32_t i = 0; i < c.c; i++) {
                sum += v[i] * p.in_proj[(size_t)d * c.c + i];
                gate += v[i] * p.in_proj[(size_t)(c.d + d) * c.c + i];
            }
            w[0] = w[1], w[1] = w[2], w[2] = w[3], w[3] = sum;
            for (int k = 0; k < 4; k++) conv += w[k] * p.conv[4 * (size_t)d + k];
            const double value = conv / (1 + exp(-conv));
            (*u)[(size_t)voxel * c.d + d] = value;
            for (uint32_t j = 0; j < columns; j++) /* rows of x_proj: [dt | B | C] */
                (*projections)[(size_t)voxel * columns + j] +=
                    value * p.x_proj[(size_t)(c.r + j) * c.d + d];
            for (uint32_t i = 0; i < c.r; i++) dt[i] += value * p.x_proj[(size_t)i * c.d + d];
        }
        for (uint32_t i = 0; i < c.r && !c.delta; i++) (*last)[voxel * (size_t)c.r + i] = dt[i];
        for (size_t d = 0; d < c.d && c.delta; d++)
            for (uint32_t i = 0; i < c.r; i++)
                (*last)[voxel * (size_t)c.d + d] += dt[i] * p.dt_proj[d * c.r + i];
    }
}

struct squares {
    double error = 0, norm = 0;
    double relative() const {
        const double e = sqrt(error / norm);
        return e >= 0 ? e : INFINITY; /* NaN */
    }
};

/* Adds up `columns` of each row; negative where a value between the rows changed or a column past
 * `columns` is not zero. */
int compare(const std::vector<double> &expected, const std::vector<char> &got, vx_dtype t,
            size_t rows, size_t columns, size_t written, size_t row, squares *sum) {
    for (size_t v = 0; v < rows; v++) {
        for (size_t j = 0; j < columns; j++) {
            const double e = load(got.data(), t, v * row + j) - expected[v * columns + j];
            sum->error += e * e, sum->norm += expected[v * columns + j] * expected[v * columns + j];
        }
        for (size_t j = columns; j < written; j++)
            if (load(got.data(), t, v * row + j) != 0) return -5;
        for (size_t i = (v * row + written) * size_of(t); i < (v + 1) * row * size_of(t); i++)
            if ((unsigned char)got[i] != POISON_BYTE) return -4;
    }
    return 0;
}

/* Problems of all items of a case, and their tensors on the device. */
struct setup {
    test_case c;
    vx_dtype t;
    vx_mamba_in_shape shape;
    std::vector<problem> problems;
    std::vector<guarded> memory;
    std::vector<vx_mamba_in_item> items;
    bool before;
    size_t used[OUTPUTS], written[OUTPUTS], row[OUTPUTS]; /* columns */

    setup(const test_case &c_, vx_dtype t_, bool before_, overflow what, uint64_t seed)
        : c(c_), t(t_), shape(shape_of(c_, t_)), problems((size_t)c_.items),
          memory((size_t)c_.items * BUFFERS), items((size_t)c_.items), before(before_) {
        random_state r = {seed};
        const size_t columns = vx_mamba_in_columns(&shape);
        const size_t dt_columns = vx_mamba_in_dt_columns(&shape);
        for (size_t o = 0; o < OUTPUTS; o++) used[o] = written[o] = c.d, row[o] = c.d + c.pad;
        used[PROJECTIONS] = 2 * c.n;
        written[PROJECTIONS] = columns, row[PROJECTIONS] = columns + c.pad;
        if (!c.delta) used[LAST] = c.r, written[LAST] = dt_columns, row[LAST] = dt_columns + c.pad;
        for (size_t k = 0; k < items.size(); k++) {
            fill(c, t, what, r, &problems[k]);
            make_item(problems[k], &memory[k * BUFFERS], items[k]);
        }
    }
    void make_item(const problem &p, guarded *g, vx_mamba_in_item &it) {
        it = {};
        it.x = upload(g[0], p.x), it.weights = upload(g[1], p.packed);
        it.u = g[2].make(bytes(U)), it.z = g[9].make(bytes(Z));
        it.projections = g[3].make(bytes(PROJECTIONS));
        (c.delta ? it.delta : it.dt) = g[12].make(bytes(LAST));
        it.x_row = c.c + c.pad, it.u_row = row[U], it.z_row = row[Z], it.delta_row = row[U];
        it.dt_row = row[LAST], it.projections_row = row[PROJECTIONS];
        if (before) it.before_gamma = (float *)upload(g[10], p.before_gamma);
        if (before) it.before_beta = (float *)upload(g[11], p.before_beta);
        it.gamma = (float *)upload(g[4], p.gamma), it.beta = (float *)upload(g[5], p.beta);
        it.conv = (float *)upload(g[6], p.conv_packed);
        it.conv_bias = (float *)upload(g[7], p.conv_bias);
        it.walk = walk_of(c);
        if (c.axis[0] < 0) it.walk.table = (int32_t *)upload(g[8], p.table);
    }
    size_t bytes(size_t output) const { return tokens(c) * row[output] * size_of(t); }
    void *at(size_t item, size_t output) const {
        const vx_mamba_in_item &it = items[item];
        void *const of[OUTPUTS] = {it.u, it.z, it.projections, c.delta ? it.delta : it.dt};
        return of[output];
    }
    std::vector<char> download(size_t item, size_t output) const {
        std::vector<char> got(bytes(output));
        CHECK_CUDA(cudaMemcpy(got.data(), at(item, output), got.size(), cudaMemcpyDeviceToHost));
        return got;
    }
    bool launch() const {
        vx_error err = {};
        if (vx_cuda_mamba_in(&shape, items.data(), items.size(), 0, &err) != VX_OK) {
            fprintf(stderr, "%s\n", err.text);
            return false;
        }
        CHECK_CUDA(cudaDeviceSynchronize());
        return true;
    }
    void expect(size_t item, std::vector<double> (&expected)[OUTPUTS]) const {
        reference(c, t, before, problems[item], &expected[U], &expected[Z], &expected[PROJECTIONS],
                  &expected[LAST]);
    }
    bool intact() const {
        for (const guarded &g : memory)
            if (g.base && !g.intact()) return false;
        return true;
    }
    static constexpr size_t BUFFERS = 13;
};

/* Largest relative L2 error of the outputs, or a negative number for another failure. */
double run_case(const test_case &c, vx_dtype t, bool before, uint64_t seed) {
    const setup s(c, t, before, NOTHING, seed);
    double worst = 0;
    std::vector<std::vector<char>> first;
    for (int run = 0; run < 2; run++) {
        if (!s.launch()) return -1;
        for (size_t k = 0; k < s.items.size(); k++) {
            std::vector<double> expected[OUTPUTS];
            squares sum;
            if (run == 0) s.expect(k, expected);
            for (size_t o = 0; o < OUTPUTS; o++) {
                const std::vector<char> got = s.download(k, o);
                if (run == 1) {
                    if (got != first[OUTPUTS * k + o]) return -2;
                    continue;
                }
                /* B, C and dt are one product's. */
                if (o < LAST || c.delta) sum = squares();
                const int failed = compare(expected[o], got, t, tokens(c), s.used[o], s.written[o],
                                           s.row[o], &sum);
                if (failed) return failed;
                if (o != PROJECTIONS || c.delta) worst = std::max(worst, sum.relative());
                first.push_back(got);
                CHECK_CUDA(cudaMemset(s.at(k, o), POISON_BYTE, got.size()));
            }
        }
    }
    return s.intact() ? worst : -3;
}

/* Whether an output of which some numbers are too large for fp16 has infinity there, and whether
 * those that are made from it are not all finite. */
bool run_overflow(const test_case &c, overflow what, uint64_t seed) {
    static const char *const names[] = {"u", "z", "projections", "delta"};
    const setup s(c, VX_F16, false, what, seed);
    std::vector<double> expected[OUTPUTS];
    std::vector<char> dense;
    s.expect(0, expected);
    if (!s.launch()) return false;
    const std::vector<char> got = s.download(0, what);
    for (size_t v = 0; v < tokens(c); v++) {
        const char *row = got.data() + v * s.row[what] * 2;
        dense.insert(dense.end(), row, row + s.used[what] * 2);
    }
    const overflow_count n = count_overflows(expected[what], dense, VX_F16, 0.2);
    bool made_finite = what == U;
    if (what == U) {
        const std::vector<char> made = s.download(0, PROJECTIONS);
        for (size_t v = 0; v < tokens(c); v++)
            for (size_t j = 0; j < s.used[PROJECTIONS]; j++)
                made_finite &= isfinite(load(made.data(), VX_F16, v * s.row[PROJECTIONS] + j));
    }
    if (n.right && !n.wrong && !made_finite && s.intact()) return true;
    printf("FAILED C %u D %u N %u R %u: %s overflows, %zu found, %zu numbers wrong%s\n", c.c, c.d,
           c.n, c.r, names[what], n.right, n.wrong, made_finite ? ", finite projections" : "");
    return false;
}

/* Two threads that launch one kernel with different amounts of shared memory. */
bool run_side_by_side(const test_case &a, const test_case &b) {
    const setup s[2] = {{a, VX_F16, false, NOTHING, 1}, {b, VX_F16, false, NOTHING, 2}};
    std::vector<char> alone[2];
    bool good[2] = {true, true};
    for (int k = 0; k < 2; k++) {
        if (!s[k].launch()) return false;
        alone[k] = s[k].download(0, PROJECTIONS);
    }
    const auto run = [&](int k) {
        for (int i = 0; i < 300 && good[k]; i++) good[k] = s[k].launch();
        good[k] = good[k] && s[k].download(0, PROJECTIONS) == alone[k];
    };
    std::thread other(run, 1);
    run(0);
    other.join();
    if (good[0] && good[1]) return true;
    printf("FAILED: launches of two threads at once\n");
    return false;
}

const char *failure(double e) {
    return e == -1   ? "refused"
           : e == -2 ? "other bits in the second run"
           : e == -3 ? "guard bytes overwritten"
           : e == -4 ? "wrote between rows"
           : e == -5 ? "padding is not zero"
                     : "relative error";
}

} // namespace

int main(int argc, char **argv) {
    int devices = 0;
    if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
        printf("no CUDA device: skipped\n");
        return 77;
    }
    int major = 0;
    CHECK_CUDA(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0));
    if (major < 8) {
        printf("no matrix units: skipped\n");
        return 77;
    }
    const test_case cases[] = {
        /* dims, axes, reverse, C, D, N, R, items, pad */
        {{8, 8, 8}, {0, 1, 2}, false, 32, 64, 32, 2, 2, 0},
        {{8, 8, 8}, {0, 1, 2}, true, 32, 64, 16, 2, 1, 0},
        {{5, 7, 9}, {2, 0, 1}, false, 32, 64, 32, 2, 1, 8},
        {{5, 7, 9}, {1, 2, 0}, true, 64, 128, 64, 4, 2, 0},
        {{4, 6, 5}, {0, 2, 1}, false, 64, 128, 16, 4, 1, 24},
        {{4, 6, 5}, {1, 0, 2}, true, 128, 256, 128, 8, 1, 0},
        {{3, 5, 9}, {2, 1, 0}, false, 256, 512, 256, 16, 1, 0},
        {{4, 4, 4}, {0, 1, 2}, true, 320, 640, 256, 20, 2, 0},
        {{1, 1, 131}, {-1, 0, 0}, false, 96, 160, 16, 3, 1, 0},
        {{1, 1, 300}, {-1, 0, 0}, true, 64, 96, 5, 3, 1, 8},
        {{1, 1, 116}, {0, 1, 2}, false, 32, 64, 8, 2, 1, 0}, /* exactly one block's tokens */
        {{1, 1, 117}, {0, 1, 2}, false, 32, 64, 8, 2, 1, 0},
        {{1, 1, 29}, {0, 1, 2}, true, 320, 352, 8, 2, 1, 0}, /* exactly one warp's */
        {{1, 1, 30}, {0, 1, 2}, false, 320, 352, 8, 2, 1, 0},
        {{1, 1, 1}, {0, 1, 2}, false, 32, 64, 16, 2, 1, 0},
        {{1, 1, 2}, {0, 1, 2}, true, 32, 96, 1, 1, 3, 16},
        {{2, 3, 11}, {1, 0, 2}, false, 32, 64, 3, 1, 1, 0},
        {{1, 2, 40}, {0, 1, 2}, false, 512, 1024, 16, 32, 1, 0},
        {{3, 3, 7}, {0, 1, 2}, false, 160, 320, 40, 10, 1, 8},
        {{5, 7, 9}, {1, 2, 0}, true, 64, 128, 64, 4, 2, 0, true},
        {{1, 1, 1000}, {-1, 0, 0}, false, 32, 64, 16, 7, 2, 8, true},
        {{4, 6, 5}, {1, 0, 2}, true, 128, 256, 128, 8, 1, 0, true},
        {{3, 5, 9}, {2, 1, 0}, false, 256, 512, 48, 16, 1, 8, true},
        {{4, 4, 4}, {0, 1, 2}, true, 320, 640, 256, 20, 2, 0, true},
        {{1, 2, 40}, {0, 1, 2}, false, 512, 1024, 16, 32, 1, 0, true},
        {{1, 3, 40}, {0, 1, 2}, false, 64, 1024, 16, 4, 1, 0, true}, /* weights beyond a block */
        {{32, 33, 30}, {0, 2, 1}, false, 32, 64, 16, 2, 2, 0},       /* several tiles a warp */
        {{25, 30, 32}, {2, 0, 1}, true, 64, 128, 16, 4, 2, 0, true},
    };
    const char *names[] = {"fp16", "bf16", "fp16 two norms", "bf16 two norms"};
    /* The rounding of a, v, u and the outputs: half of 2^-10 and of 2^-7 each at most, much less of
     * many. */
    const double limit[] = {6e-4, 5e-3, 8e-4, 7e-3};
    const bool few = argc > 1 && strcmp(argv[1], "--few") == 0;
    const bool verbose = argc > 1 && strcmp(argv[1], "--verbose") == 0;
    int failures = 0, run = 0;
    double worst[4] = {0};
    for (const test_case &c : cases)
        for (int k = 0; k < 4; k++) {
            const int number = (int)(&c - cases);
            if (few && number % 4 != k) continue;
            const double e =
                run_case(c, k % 2 ? VX_BF16 : VX_F16, k > 1, 99 + 5 * (uint64_t)number);
            run++;
            worst[k] = std::max(worst[k], e);
            if (verbose) printf("%s C %u D %u N %u: %.2e\n", names[k], c.c, c.d, c.n, e);
            if (e >= 0 && e <= limit[k]) continue;
            failures++;
            printf("FAILED %s %ux%ux%u C %u D %u N %u R %u: %s %.3e\n", names[k], c.dims[0],
                   c.dims[1], c.dims[2], c.c, c.d, c.n, c.r, failure(e), e);
        }
    for (size_t i : {0, 6, 19, 22}) /* both kernels, with and without delta */
        for (int what = 0; what < OUTPUTS; what++) {
            if (what == LAST && !cases[i].delta) continue;
            failures += !run_overflow(cases[i], (overflow)what, 5 + i);
            run++;
        }
    if (!few) failures += !run_side_by_side(cases[8], cases[17]), run++;
    printf("%d cases, %d failed; largest relative error", run, failures);
    for (int k = 0; k < 4; k++) printf(" %s %.2e", names[k], worst[k]);
    printf("\n");
    return failures ? 1 : 0;
}
