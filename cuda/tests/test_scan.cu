/* The CUDA scan against a float64 reference on the host: odd shapes, all storage types, scan
 * orders, strided B and C, delta given or made from dt, several items in one launch. Outputs are
 * poisoned with NaN, and guard bytes around every output row and the scratch must survive. What
 * overflows in fp16 is not clamped. Needs no test library:
 *
 *   test_scan            all shapes; exit 0: all passed, 1: a failure, 77: no CUDA device
 *   test_scan --few      each shape in one storage type (for compute-sanitizer)
 *   test_scan --verbose  also prints every error
 *   test_scan --large    also a tensor of more than 2^31 elements (26 GB of device memory)
 */
#include "cuda/scan.h"
#include "cuda/scan_fit.h"

#include "cuda/tests/device_test.h"

#include <algorithm>

namespace {

struct test_case {
    uint32_t dims[3];
    int axis[3]; /* axis[0] slowest; axis[0] < 0: a random table */
    bool reverse;
    uint32_t d, n;
    int items;
    bool gate, strided; /* strided: rows of x_proj's form [R | B | C] with odd R */
    double delta_scale; /* of exp(uniform(log 1e-3, log 1e-1)), the usual range of delta */
    double u_scale = 1; /* of u; above 1 B is small, so that y stays in fp16's range, but what the
                           fitted first pass makes of u does not */
};

struct problem { /* one item on the host */
    std::vector<char> u, delta, z, bc;
    std::vector<float> a, skip, bias, dt_w, rates, weights;
    std::vector<int32_t> table;
    size_t bc_row, b_at, c_at, dt_at;
};

/* rank: of dt, which lies in the rows of B and C, before or behind them; 0: delta is given. */
void fill(const test_case &c, vx_dtype t, uint32_t rank, random_state &r, problem *p) {
    size_t length = (size_t)c.dims[0] * c.dims[1] * c.dims[2], es = size_of(t);
    const size_t before = c.strided ? (rank ? rank : 3) : 0;
    p->bc_row = before + 2 * c.n + (c.strided ? 2 : rank);
    p->b_at = before, p->c_at = before + c.n;
    p->dt_at = c.strided ? 0 : 2 * c.n;
    p->u.resize(length * c.d * es), p->delta.resize(length * c.d * es);
    p->z.resize(length * c.d * es), p->bc.resize(length * p->bc_row * es);
    for (size_t i = 0; i < length * c.d; i++) {
        store(p->u.data(), t, i, c.u_scale * r.normal());
        store(p->delta.data(), t, i, 0.5 * r.normal());
        store(p->z.data(), t, i, 2 * r.normal());
    }
    for (size_t i = 0; i < length * p->bc_row; i++) {
        const size_t column = i % p->bc_row;
        const bool small = c.u_scale > 1 && column >= p->b_at && column < p->c_at;
        store(p->bc.data(), t, i, (small ? 0.01 : 1) * r.normal());
    }
    char rounded[4];
    for (uint32_t i = 0; i < rank * c.d; i++)
        p->dt_w.push_back((float)store(rounded, t, 0, 0.5 / sqrt((double)rank) * r.normal()));
    for (uint32_t d = 0; d < c.d; d++) {
        double delta = c.delta_scale * exp(log(1e-3) + r.uniform() * log(1e2));
        p->bias.push_back((float)log(expm1(delta)));
        p->skip.push_back((float)r.normal());
        for (uint32_t n = 0; n < c.n; n++) /* near, but not at, the usual -(n + 1) */
            p->a.push_back((float)(-(n + 1.0) * exp(0.3 * r.normal())));
    }
    if (c.axis[0] < 0) p->table = random_table(length, r);
}

/* delta of a voxel and channel before its bias. */
double raw_delta(const test_case &c, vx_dtype t, uint32_t rank, const problem &p, uint32_t voxel,
                 uint32_t d) {
    if (!rank) return load(p.delta.data(), t, (size_t)voxel * c.d + d);
    double sum = 0;
    for (uint32_t r = 0; r < rank; r++)
        sum += p.dt_w[(size_t)r * c.d + d] *
               load(p.bc.data(), t, (size_t)voxel * p.bc_row + p.dt_at + r);
    return sum;
}

/* y[voxel][d] in float64; *scale: the norm of what an error is compared with. That is y, but for
 * tensors of one or two values the terms that y is the sum of: they may nearly cancel. */
std::vector<double> reference(const test_case &c, vx_dtype t, uint32_t rank, const problem &p,
                              double *scale) {
    std::vector<uint32_t> order = visited(c, p.table);
    std::vector<double> y(order.size() * c.d), h((size_t)c.d * c.n, 0.0);
    double squares = 0;
    for (uint32_t voxel : order)
        for (uint32_t d = 0; d < c.d; d++) {
            size_t i = (size_t)voxel * c.d + d;
            double u = load(p.u.data(), t, i);
            double raw = raw_delta(c, t, rank, p, voxel, d) + p.bias[d];
            double delta = raw > 20 ? raw : log1p(exp(raw)), sum = 0;
            for (uint32_t n = 0; n < c.n; n++) {
                double b = load(p.bc.data(), t, voxel * p.bc_row + p.b_at + n);
                double cc = load(p.bc.data(), t, voxel * p.bc_row + p.c_at + n);
                double &s = h[(size_t)d * c.n + n];
                s = exp(delta * p.a[(size_t)d * c.n + n]) * s + delta * b * u;
                sum += cc * s;
            }
            double gate = 1;
            if (c.gate) {
                double z = load(p.z.data(), t, i);
                gate = z / (1 + exp(-z));
            }
            y[i] = (sum + p.skip[d] * u) * gate;
            double terms = (fabs(sum) + fabs(p.skip[d] * u)) * gate;
            squares += y.size() <= 2 ? terms * terms : y[i] * y[i];
        }
    *scale = sqrt(squares);
    return y;
}

/* Largest relative L2 error over the items, or a negative number for another failure. */
double run_case(const test_case &c, vx_dtype t, bool fitted, uint32_t rank, uint64_t seed) {
    random_state r = {seed};
    size_t length = (size_t)c.dims[0] * c.dims[1] * c.dims[2], es = size_of(t);
    std::vector<problem> problems(c.items);
    constexpr int BUFFERS = 12;
    std::vector<guarded> memory(c.items * BUFFERS);
    std::vector<vx_scan_item> items(c.items);
    for (int k = 0; k < c.items; k++) {
        problem &p = problems[k];
        guarded *g = &memory[k * BUFFERS];
        fill(c, t, rank, r, &p);
        vx_scan_item &it = items[k];
        it = {};
        it.u = upload(g[0], p.u), it.delta = rank ? nullptr : upload(g[1], p.delta);
        it.z = c.gate ? upload(g[2], p.z) : nullptr;
        char *bc = (char *)upload(g[3], p.bc);
        it.b = bc + p.b_at * es, it.c = bc + p.c_at * es;
        it.b_row = it.c_row = it.dt_row = p.bc_row;
        if (rank) it.dt = bc + p.dt_at * es, it.dt_w = (float *)upload(g[11], p.dt_w);
        it.u_row = it.delta_row = it.z_row = it.y_row = c.d;
        it.y = g[4].make(length * c.d * es);
        it.a = (float *)upload(g[5], p.a), it.skip = (float *)upload(g[6], p.skip);
        it.delta_bias = (float *)upload(g[7], p.bias);
        it.walk = walk_of(c);
        if (c.axis[0] < 0) it.walk.table = (int32_t *)upload(g[8], p.table);
    }
    vx_scan_shape shape = {(uint32_t)length, c.d, c.n, t, 0, rank};
    if (fitted) {
        for (const problem &p : problems)
            shape.rates = std::max(shape.rates, vx_scan_fit_rates(&shape, p.a.data()));
        if (shape.rates == 0) return -4;
        for (int k = 0; k < c.items; k++) {
            problem &p = problems[k];
            p.rates.resize((size_t)c.d * shape.rates);
            p.weights.resize(vx_scan_fit_weights(&shape, shape.rates));
            vx_scan_fit_fill(&shape, p.a.data(), shape.rates, p.rates.data(), p.weights.data());
            items[k].rates = (float *)upload(memory[k * BUFFERS + 9], p.rates);
            items[k].weights = (float *)upload(memory[k * BUFFERS + 10], p.weights);
        }
    }
    vx_error err = {};
    size_t bytes = 0;
    if (vx_cuda_scan_scratch(&shape, (size_t)c.items, &bytes, &err) != VX_OK) return -1;
    guarded scratch;
    void *work = scratch.make(bytes);
    if (vx_cuda_scan(&shape, items.data(), (size_t)c.items, work, bytes, 0, &err) != VX_OK) {
        fprintf(stderr, "%s\n", err.text);
        return -1;
    }
    CHECK_CUDA(cudaDeviceSynchronize());
    double worst = 0;
    for (int k = 0; k < c.items; k++) {
        std::vector<char> y(length * c.d * es), again(length * c.d * es);
        CHECK_CUDA(cudaMemcpy(y.data(), items[k].y, y.size(), cudaMemcpyDeviceToHost));
        double error = 0, scale;
        std::vector<double> ref = reference(c, t, rank, problems[k], &scale);
        for (size_t i = 0; i < ref.size(); i++) {
            double v = load(y.data(), t, i) - ref[i];
            error += v * v;
        }
        double relative = sqrt(error) / scale;
        if (!(relative <= worst)) worst = relative; /* a NaN stays */
        if (k == 0) {                               /* the same bits again, alone in its launch */
            if (vx_cuda_scan(&shape, items.data(), 1, work, bytes, 0, &err) != VX_OK) return -1;
            CHECK_CUDA(cudaMemcpy(again.data(), items[k].y, y.size(), cudaMemcpyDeviceToHost));
            if (memcmp(again.data(), y.data(), y.size()) != 0) return -2;
        }
    }
    for (const guarded &g : memory)
        if (g.base && !g.intact()) return -3;
    return scratch.intact() ? worst : -3;
}

/* --few, for the sanitizers: one type a shape, none of more states times tokens than this; every
 * form of the kernels (states, lanes a channel, exact or fitted, with dt) is there in some type. */
constexpr size_t FEW_WORK = 2300000;
size_t work_of(const test_case &c) {
    return (size_t)c.dims[0] * c.dims[1] * c.dims[2] * c.d * c.n * (size_t)c.items;
}

/* More than 2^31 elements in a tensor: two channels are compared over all tokens. */
__global__ void fill_large(__half *at, size_t n, float scale, uint32_t seed) {
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < n;
         i += (size_t)gridDim.x * blockDim.x) {
        uint64_t z = (i + 1) * 0x9e3779b97f4a7c15ull + seed;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
        z ^= z >> 27;
        at[i] = __float2half_rn(scale * ((float)(z & 0xffffff) * 0x1p-23f - 1.0f));
    }
}

bool run_large() {
    const uint32_t length = 1u << 20, d = 2304, n = 8; /* 2.4e9 elements */
    const size_t count = (size_t)length * d;
    guarded u, delta, z, y, bc, scratch, pa, ps, pb;
    __half *pu = (__half *)u.make(count * 2), *pd = (__half *)delta.make(count * 2);
    __half *pz = (__half *)z.make(count * 2), *pbc = (__half *)bc.make((size_t)length * 2 * n * 2);
    void *py = y.make(count * 2);
    fill_large<<<1024, 256>>>(pu, count, 1, 1);
    fill_large<<<1024, 256>>>(pd, count, 1, 2);
    fill_large<<<1024, 256>>>(pz, count, 2, 3);
    fill_large<<<1024, 256>>>(pbc, (size_t)length * 2 * n, 1, 4);
    std::vector<float> a((size_t)d * n), skip(d, 0.5f), bias(d, -4.0f);
    for (size_t i = 0; i < a.size(); i++) a[i] = -1.0f - 0.37f * (float)(i % 11);
    vx_scan_shape shape = {length, d, n, VX_F16, 0, 0};
    vx_scan_item it = {};
    it.u = pu, it.delta = pd, it.z = pz, it.b = pbc, it.c = pbc + n, it.y = py;
    it.u_row = it.delta_row = it.z_row = it.y_row = d, it.b_row = it.c_row = 2 * n;
    it.a = (float *)upload(pa, a), it.skip = (float *)upload(ps, skip);
    it.delta_bias = (float *)upload(pb, bias);
    it.walk.dims[0] = 1, it.walk.dims[1] = 1, it.walk.dims[2] = length;
    it.walk.step[2] = 1;
    size_t bytes;
    vx_error err;
    if (vx_cuda_scan_scratch(&shape, 1, &bytes, &err) != VX_OK) return false;
    void *work = scratch.make(bytes);
    if (vx_cuda_scan(&shape, &it, 1, work, bytes, 0, &err) != VX_OK) return false;
    CHECK_CUDA(cudaDeviceSynchronize());
    std::vector<__half> hbc((size_t)length * 2 * n), col[4];
    CHECK_CUDA(cudaMemcpy(hbc.data(), pbc, hbc.size() * 2, cudaMemcpyDeviceToHost));
    double worst = 0;
    for (uint32_t ch : {3u, d - 1}) {
        const void *from[4] = {pu, pd, pz, py};
        for (int k = 0; k < 4; k++) {
            col[k].resize(length);
            CHECK_CUDA(cudaMemcpy2D(col[k].data(), 2, (const __half *)from[k] + ch, d * 2, 2,
                                    length, cudaMemcpyDeviceToHost));
        }
        double h[8] = {0}, error = 0, norm = 0;
        for (size_t t = 0; t < length; t++) {
            double uu = __half2float(col[0][t]), sum = 0, zz = __half2float(col[2][t]);
            double dd = log1p(exp((double)__half2float(col[1][t]) + bias[ch]));
            for (uint32_t k = 0; k < n; k++) {
                h[k] = exp(dd * a[(size_t)ch * n + k]) * h[k] +
                       dd * uu * __half2float(hbc[t * 2 * n + k]);
                sum += h[k] * __half2float(hbc[t * 2 * n + n + k]);
            }
            double r = (sum + 0.5 * uu) * zz / (1 + exp(-zz)), e = __half2float(col[3][t]) - r;
            error += e * e, norm += r * r;
        }
        if (!(sqrt(error / norm) <= worst)) worst = sqrt(error / norm);
    }
    bool good = worst < 5e-4 && y.intact() && scratch.intact();
    printf("large tensor (%zu elements): error %.2e %s\n", count, worst, good ? "ok" : "FAILED");
    return good;
}

} // namespace

int main(int argc, char **argv) {
    int devices = 0;
    if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
        printf("no CUDA device: skipped\n");
        return 77;
    }
    const test_case cases[] = {
        {{1, 1, 1}, {0, 1, 2}, false, 1, 1, 1, true, false, 1},
        {{1, 1, 3}, {0, 1, 2}, false, 3, 1, 1, true, false, 1},
        {{1, 1, 5}, {0, 1, 2}, true, 6, 4, 2, true, true, 1},
        {{1, 1, 64}, {0, 1, 2}, false, 64, 16, 1, true, false, 1},
        {{1, 1, 65}, {0, 1, 2}, false, 64, 16, 1, false, false, 1},
        {{3, 7, 11}, {0, 1, 2}, false, 16, 16, 2, true, true, 1},
        {{3, 7, 11}, {0, 2, 1}, true, 33, 7, 1, true, false, 1},
        {{3, 7, 11}, {1, 0, 2}, false, 80, 16, 1, true, false, 1},
        {{3, 7, 11}, {1, 2, 0}, true, 128, 20, 3, true, true, 1},
        {{3, 7, 11}, {2, 0, 1}, false, 64, 32, 1, true, false, 1},
        {{3, 7, 11}, {2, 1, 0}, true, 192, 16, 8, true, false, 1},
        {{5, 9, 13}, {-1, 0, 0}, false, 64, 16, 1, true, false, 1},
        {{5, 9, 13}, {-1, 0, 0}, true, 40, 33, 2, true, true, 1},
        {{16, 16, 17}, {0, 1, 2}, false, 64, 16, 1, true, false, 1},
        {{16, 16, 17}, {0, 1, 2}, true, 8, 64, 1, true, false, 1},
        {{1, 1, 4097}, {0, 1, 2}, false, 2, 128, 1, true, true, 1},
        {{8, 8, 8}, {0, 2, 1}, false, 48, 128, 2, true, false, 1},
        {{4, 4, 5}, {0, 1, 2}, false, 64, 256, 2, true, false, 1},
        {{9, 9, 9}, {2, 1, 0}, true, 20, 256, 1, true, false, 1},
        {{9, 9, 9}, {0, 1, 2}, false, 4, 100, 1, true, true, 1},
        {{1, 1, 1000}, {0, 1, 2}, false, 5, 255, 1, false, true, 1},
        {{10, 10, 10}, {0, 1, 2}, false, 64, 16, 1, true, false, 100},  /* delta to 10 */
        {{10, 10, 10}, {0, 1, 2}, false, 64, 16, 1, true, false, 0.01}, /* long memories */
        {{10, 10, 10}, {0, 1, 2}, false, 32, 64, 1, true, false, 3000}, /* delta > 20 */
        {{17, 19, 23}, {0, 1, 2}, false, 512, 16, 1, true, false, 1},
        {{10, 10, 10}, {0, 1, 2}, false, 64, 16, 1, true, false, 100, 500},
    };
    const char *names[] = {"fp32", "fp16", "bf16"};
    /* Near what was measured (2e-7, 3.5e-4, 2e-3); the last two are the rounding of y itself. */
    const double limit[] = {1e-6, 5e-4, 3e-3};
    /* Of dt: where a lane has a channel to itself, with a fit for more states, and without. */
    const uint32_t ranks[3][4] = {{1, 2, 1, 2}, {4, 16, 3, 9}, {8, 20, 33, 64}};
    int failures = 0, run = 0;
    double worst[6] = {0};
    const bool verbose = argc > 1 && strcmp(argv[1], "--verbose") == 0;
    const bool few = argc > 1 && strcmp(argv[1], "--few") == 0;
    for (const test_case &c : cases)
        for (int t = 0; t < 12; t++) { /* exact first pass in three types, then fitted; with dt */
            const int type = t % 3, kind = &c - cases;
            const bool fitted = t / 3 % 2;
            const uint32_t rank = t < 6 ? 0 : ranks[c.n <= 32 ? 0 : fitted ? 1 : 2][(kind + t) % 4];
            if (fitted && (type == VX_F32 || c.n > 64)) continue; /* there is no fit */
            if (few && (kind % 3 != type || work_of(c) > FEW_WORK)) continue;
            const uint64_t seed = 1234 + 7 * (uint64_t)(3 * kind + type);
            double e = run_case(c, (vx_dtype)type, fitted, rank, seed);
            run++;
            if (c.u_scale > 1 && fitted && type == VX_F16) { /* an overflow is found in y */
                failures += isfinite(e);
                if (isfinite(e)) printf("FAILED: an overflow of end states is not found: %g\n", e);
                continue;
            }
            if (e > worst[t % 6]) worst[t % 6] = e;
            if (verbose)
                printf("%s%s D %u N %u R %u: %.2e\n", names[type], fitted ? " fitted" : "", c.d,
                       c.n, rank, e);
            if (e >= 0 && e <= limit[type]) continue;
            failures++;
            printf("FAILED %s%s %ux%ux%u axes %d%d%d%s D %u N %u R %u items %d: %s %.3e\n",
                   names[type], fitted ? " fitted" : "", c.dims[0], c.dims[1], c.dims[2], c.axis[0],
                   c.axis[1], c.axis[2], c.reverse ? " reverse" : "", c.d, c.n, rank, c.items,
                   e == -4   ? "no fit"
                   : e == -3 ? "guard bytes overwritten"
                   : e == -2 ? "other bits in the second run"
                   : e == -1 ? "refused"
                             : "relative error",
                   e);
        }
    printf("%d cases, %d failed; largest relative error fp32 %.2e fp16 %.2e bf16 %.2e, with the "
           "fitted first pass fp16 %.2e bf16 %.2e\n",
           run, failures, worst[0], worst[1], worst[2], worst[4], worst[5]);
    if (argc > 1 && strcmp(argv[1], "--large") == 0 && !run_large()) failures++;
    return failures ? 1 : 0;
}
