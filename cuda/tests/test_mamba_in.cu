/* The first half of a Mamba block (cuda/mamba_in.h) against a float64 reference on the host: odd
 * shapes, all storage types, scan orders, padded rows, several items in one launch. Outputs are
 * poisoned with NaN, guard bytes around every buffer and the columns between rows must survive, and
 * a second run must give the same bits. Needs no test library:
 *
 *   test_mamba_in            all cases; exit 0: all passed, 1: a failure, 77: no CUDA device
 *   test_mamba_in --few      each shape in one storage type (for compute-sanitizer)
 *   test_mamba_in --verbose  also prints every error
 */
#include "cuda/mamba_in.h"
#include "cuda/tests/device_test.h"

#include <algorithm>

namespace {

struct test_case {
    uint32_t dims[3];
    int axis[3];
    bool reverse;
    uint32_t c, d, n, r;
    int items;
    uint32_t pad; /* elements between rows */
};

struct problem { /* one item on the host */
    std::vector<char> x, packed;
    std::vector<float> in_proj, x_proj, gamma, beta, conv, conv_bias;
    std::vector<int32_t> table;
};

size_t tokens(const test_case &c) { return (size_t)c.dims[0] * c.dims[1] * c.dims[2]; }

/* Weights as the kernel has them: in the storage type, or fp32. */
void fill_weights(std::vector<float> &w, size_t count, double scale, vx_dtype t, bool exact,
                  random_state &r) {
    char rounded[4];
    for (size_t i = 0; i < count; i++)
        w.push_back((float)store(rounded, exact ? VX_F32 : t, 0, scale * r.normal()));
}

void fill(const test_case &c, vx_dtype t, bool exact, random_state &r, problem *p) {
    const size_t rows = c.r + 2 * c.n, x_row = c.c + c.pad;
    p->x.assign(tokens(c) * x_row * size_of(t), (char)POISON_BYTE);
    for (size_t v = 0; v < tokens(c); v++) {
        const double shift = 3 * r.normal(), scale = exp(r.normal());
        for (size_t i = 0; i < c.c; i++)
            store(p->x.data(), t, v * x_row + i, shift + scale * r.normal());
    }
    fill_weights(p->in_proj, (size_t)c.d * c.c, 1 / sqrt((double)c.c), t, exact, r);
    fill_weights(p->x_proj, rows * c.d, 1 / sqrt((double)c.d), t, exact, r);
    fill_weights(p->conv, 4 * (size_t)c.d, 0.5, t, true, r);
    fill_weights(p->conv_bias, c.d, 0.2, t, true, r);
    fill_weights(p->gamma, c.c, 1, t, true, r);
    fill_weights(p->beta, c.c, 0.3, t, true, r);
    if (c.axis[0] < 0) p->table = random_table(tokens(c), r);
    const vx_mamba_in_shape shape = {(uint32_t)tokens(c), c.c, c.d, c.n, c.r, t, exact};
    p->packed.resize(vx_mamba_in_packed_bytes(&shape));
    vx_mamba_in_pack(&shape, p->in_proj.data(), p->x_proj.data(), p->packed.data());
}

/* u [voxel][D] and projections [voxel][2 N + R], in float64. */
void reference(const test_case &c, vx_dtype t, const problem &p, std::vector<double> *u,
               std::vector<double> *projections) {
    const std::vector<uint32_t> order = visited(c, p.table);
    const uint32_t columns = 2 * c.n + c.r;
    u->assign(order.size() * c.d, 0), projections->assign(order.size() * columns, 0);
    std::vector<double> window(4 * (size_t)c.d, 0.0), v(c.c); /* the latest token last */
    for (uint32_t voxel : order) {
        double mean = 0, variance = 0;
        for (uint32_t i = 0; i < c.c; i++)
            mean += v[i] = load(p.x.data(), t, (size_t)voxel * (c.c + c.pad) + i);
        mean /= c.c;
        for (double x : v) variance += (x - mean) * (x - mean) / c.c;
        for (uint32_t i = 0; i < c.c; i++)
            v[i] = (v[i] - mean) / sqrt(variance + 1e-5) * p.gamma[i] + p.beta[i];
        for (uint32_t d = 0; d < c.d; d++) {
            double *w = &window[4 * (size_t)d], sum = 0, conv = p.conv_bias[d];
            for (uint32_t i = 0; i < c.c; i++) sum += v[i] * p.in_proj[(size_t)d * c.c + i];
            w[0] = w[1], w[1] = w[2], w[2] = w[3], w[3] = sum;
            for (int k = 0; k < 4; k++) conv += w[k] * p.conv[4 * (size_t)d + k];
            const double value = conv / (1 + exp(-conv));
            (*u)[(size_t)voxel * c.d + d] = value;
            for (uint32_t j = 0; j < columns; j++) {
                const uint32_t row = j < 2 * c.n ? c.r + j : j - 2 * c.n; /* [dt | B | C] */
                (*projections)[(size_t)voxel * columns + j] +=
                    value * p.x_proj[(size_t)row * c.d + d];
            }
        }
    }
}

/* Relative L2 error of `columns` of each row; negative where a value between the rows changed or a
 * column past `columns` is not zero. */
double compare(const std::vector<double> &expected, const std::vector<char> &got, vx_dtype t,
               size_t rows, size_t columns, size_t written, size_t row) {
    double error = 0, norm = 0;
    for (size_t v = 0; v < rows; v++) {
        for (size_t j = 0; j < columns; j++) {
            const double e = load(got.data(), t, v * row + j) - expected[v * columns + j];
            error += e * e, norm += expected[v * columns + j] * expected[v * columns + j];
        }
        for (size_t j = columns; j < written; j++)
            if (load(got.data(), t, v * row + j) != 0) return -5;
        for (size_t i = (v * row + written) * size_of(t); i < (v + 1) * row * size_of(t); i++)
            if ((unsigned char)got[i] != POISON_BYTE) return -4;
    }
    const double relative = sqrt(error / norm);
    return relative >= 0 ? relative : INFINITY; /* NaN */
}

/* Largest relative L2 error of both outputs, or a negative number for another failure. */
double run_case(const test_case &c, vx_dtype t, bool exact, uint64_t seed) {
    random_state r = {seed};
    const size_t es = size_of(t), length = tokens(c);
    const vx_mamba_in_shape shape = {(uint32_t)length, c.c, c.d, c.n, c.r, t, exact};
    const size_t columns = vx_mamba_in_columns(&shape);
    const size_t u_row = c.d + c.pad, out_row = columns + c.pad;
    constexpr int BUFFERS = 9;
    std::vector<problem> problems(c.items);
    std::vector<guarded> memory(c.items * BUFFERS);
    std::vector<vx_mamba_in_item> items(c.items);
    for (int k = 0; k < c.items; k++) {
        problem &p = problems[k];
        guarded *g = &memory[k * BUFFERS];
        fill(c, t, exact, r, &p);
        vx_mamba_in_item &it = items[k];
        it = {};
        it.x = upload(g[0], p.x), it.weights = upload(g[1], p.packed);
        it.u = g[2].make(length * u_row * es);
        it.projections = g[3].make(length * out_row * es);
        it.x_row = c.c + c.pad, it.u_row = u_row, it.projections_row = out_row;
        it.gamma = (float *)upload(g[4], p.gamma), it.beta = (float *)upload(g[5], p.beta);
        it.conv = (float *)upload(g[6], p.conv);
        it.conv_bias = (float *)upload(g[7], p.conv_bias);
        it.walk = walk_of(c);
        if (c.axis[0] < 0) it.walk.table = (int32_t *)upload(g[8], p.table);
    }
    double worst = 0;
    std::vector<std::vector<char>> first;
    for (int run = 0; run < 2; run++) {
        vx_error err = {};
        if (vx_cuda_mamba_in(&shape, items.data(), items.size(), 0, &err) != VX_OK) {
            fprintf(stderr, "%s\n", err.text);
            return -1;
        }
        CHECK_CUDA(cudaDeviceSynchronize());
        for (int k = 0; k < c.items; k++) {
            std::vector<char> u(length * u_row * es), out(length * out_row * es);
            CHECK_CUDA(cudaMemcpy(u.data(), items[k].u, u.size(), cudaMemcpyDeviceToHost));
            CHECK_CUDA(
                cudaMemcpy(out.data(), items[k].projections, out.size(), cudaMemcpyDeviceToHost));
            if (run == 1) {
                if (u != first[2 * k] || out != first[2 * k + 1]) return -2;
                continue;
            }
            std::vector<double> expected_u, expected_out;
            reference(c, t, problems[k], &expected_u, &expected_out);
            const double e[2] = {
                compare(expected_u, u, t, length, c.d, c.d, u_row),
                compare(expected_out, out, t, length, 2 * c.n + c.r, columns, out_row)};
            for (double one : e) {
                if (one < 0) return one;
                worst = std::max(worst, one);
            }
            first.push_back(u), first.push_back(out);
            CHECK_CUDA(cudaMemset(items[k].u, POISON_BYTE, u.size()));
            CHECK_CUDA(cudaMemset(items[k].projections, POISON_BYTE, out.size()));
        }
    }
    for (const guarded &g : memory)
        if (g.base && !g.intact()) return -3;
    return worst;
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
    const test_case cases[] = {
        /* dims, axes, reverse, C, D, N, R, items, pad */
        {{8, 8, 8}, {0, 1, 2}, false, 32, 64, 32, 2, 2, 0},
        {{8, 8, 8}, {0, 1, 2}, true, 32, 64, 16, 2, 1, 0},
        {{5, 7, 9}, {2, 0, 1}, false, 32, 64, 32, 2, 1, 8},
        {{5, 7, 9}, {1, 2, 0}, true, 64, 128, 64, 4, 2, 0},
        {{4, 6, 5}, {0, 2, 1}, false, 64, 128, 16, 4, 1, 3},
        {{4, 6, 5}, {1, 0, 2}, true, 128, 256, 128, 8, 1, 0},
        {{3, 5, 9}, {2, 1, 0}, false, 256, 512, 256, 16, 1, 0},
        {{4, 4, 4}, {0, 1, 2}, true, 320, 640, 256, 20, 2, 0},
        {{1, 1, 131}, {-1, 0, 0}, false, 48, 96, 16, 3, 1, 0},
        {{1, 1, 300}, {-1, 0, 0}, true, 33, 67, 5, 3, 1, 1},
        {{1, 1, 125}, {0, 1, 2}, false, 32, 64, 8, 2, 1, 0}, /* exactly one tile */
        {{1, 1, 126}, {0, 1, 2}, false, 32, 64, 8, 2, 1, 0},
        {{1, 1, 1}, {0, 1, 2}, false, 32, 64, 16, 2, 1, 0},
        {{1, 1, 2}, {0, 1, 2}, true, 7, 13, 1, 1, 3, 5},
        {{2, 3, 11}, {1, 0, 2}, false, 1, 2, 3, 1, 1, 0},
        {{1, 2, 40}, {0, 1, 2}, false, 512, 1024, 16, 32, 1, 0},
        {{3, 3, 7}, {0, 1, 2}, false, 130, 260, 40, 9, 1, 2},
    };
    const char *names[] = {"fp32 exact", "fp16", "bf16", "fp16 exact", "bf16 exact"};
    const vx_dtype types[] = {VX_F32, VX_F16, VX_BF16, VX_F16, VX_BF16};
    /* The rounding of v, u and the outputs: 2^-12 and 2^-9 each at most; exact: of the outputs. */
    const double limit[] = {1e-6, 6e-4, 5e-3, 3e-4, 2.4e-3};
    const bool few = argc > 1 && strcmp(argv[1], "--few") == 0;
    const bool verbose = argc > 1 && strcmp(argv[1], "--verbose") == 0;
    int failures = 0, run = 0;
    double worst[5] = {0};
    for (const test_case &c : cases)
        for (int k = 0; k < 5; k++) {
            const int number = (int)(&c - cases);
            if (few && number % 5 != k && k != 1) continue;
            const bool exact = k == 0 || k > 2;
            if (!exact && major < 8) continue; /* no matrix units: refused */
            const double e = run_case(c, types[k], exact, 99 + 5 * (uint64_t)number);
            run++;
            worst[k] = std::max(worst[k], e);
            if (verbose) printf("%s C %u D %u N %u: %.2e\n", names[k], c.c, c.d, c.n, e);
            if (e >= 0 && e <= limit[k]) continue;
            failures++;
            printf("FAILED %s %ux%ux%u C %u D %u N %u R %u: %s %.3e\n", names[k], c.dims[0],
                   c.dims[1], c.dims[2], c.c, c.d, c.n, c.r, failure(e), e);
        }
    printf("%d cases, %d failed; largest relative error", run, failures);
    for (int k = 0; k < 5; k++) printf(" %s %.2e", names[k], worst[k]);
    printf("\n");
    return failures ? 1 : 0;
}
