/* The second half of a Mamba layer (cuda/mamba_out.h) against a float64 reference on the host: all
 * ways to cut features among warps, fp16 and bf16, one or two branches, with and without the outer
 * norms, token counts that end inside a tile, in place, several jobs in a launch, with something to
 * add. Outputs are poisoned with NaN, guard bytes around every buffer must survive, and a second
 * run must give the same bits. What overflows in fp16 is infinite. Needs no test library:
 *
 *   test_mamba_out            all cases; exit 0: all passed, 1: a failure, 77: no CUDA device that
 *                             has matrix units
 *   test_mamba_out --few      each shape in one storage type (for compute-sanitizer)
 *   test_mamba_out --verbose  also prints every error
 */
#include "cuda/mamba_out.h"
#include "cuda/mamba_pack.h"
#include "cuda/tests/device_test.h"

#include <algorithm>

namespace {

struct test_case {
    size_t tokens;
    uint32_t c, d;
    size_t branches;
    bool before, after;
    bool in_place; /* out is x, or what is added */
    size_t jobs = 1;
    float scale = 1;
    bool added = false;
};

struct branch { /* on the host; matrices twice, as numbers and in the storage type */
    std::vector<char> y, out_proj_stored, head_stored;
    std::vector<float> out_proj, head, gamma, beta, bias;
};

/* count random numbers of the storage type, as floats and stored. */
void fill(std::vector<float> &plain, std::vector<char> &stored, size_t count, double scale,
          vx_dtype t, random_state &r) {
    plain.resize(count), stored.resize(count * size_of(t));
    for (size_t i = 0; i < count; i++)
        plain[i] = (float)store(stored.data(), t, i, scale * r.normal());
}
std::vector<float> floats(size_t count, double mean, double scale, random_state &r) {
    std::vector<float> v;
    for (size_t i = 0; i < count; i++) v.push_back((float)(mean + scale * r.normal()));
    return v;
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

/* v += m x, m [v's size][x's size]. */
void multiply(const std::vector<float> &m, const std::vector<double> &x, std::vector<double> &v) {
    for (size_t o = 0; o < v.size(); o++)
        for (size_t i = 0; i < x.size(); i++) v[o] += (double)m[o * x.size() + i] * x[i];
}

/* What one job has of its own, on the host. */
struct problem {
    std::vector<float> before_gamma, before_beta, after_gamma, after_beta, added;
    std::vector<char> added_stored;
    std::vector<branch> branches;
};

/* out of one token. */
std::vector<double> reference(const test_case &c, const std::vector<float> &x, const problem &p,
                              vx_dtype t, size_t token) {
    std::vector<double> a(x.begin() + token * c.c, x.begin() + (token + 1) * c.c), sum(c.c, 0.0);
    if (c.before) layer_norm(a, p.before_gamma, p.before_beta);
    for (const branch &b : p.branches) {
        std::vector<double> y(c.d), h = a, f(c.c);
        for (uint32_t i = 0; i < c.d; i++) y[i] = load(b.y.data(), t, token * c.d + i);
        multiply(b.out_proj, y, h);
        for (uint32_t i = 0; i < c.c; i++) f[i] = h[i] + b.bias[i];
        layer_norm(h, b.gamma, b.beta);
        multiply(b.head, h, f);
        for (uint32_t i = 0; i < c.c; i++) sum[i] += f[i];
    }
    if (c.after) layer_norm(sum, p.after_gamma, p.after_beta);
    for (uint32_t i = 0; i < c.c; i++)
        sum[i] = c.scale * (sum[i] + (c.added ? p.added[token * c.c + i] : 0.0f));
    return sum;
}

/* What overflows in fp16: out, for the head's weights are large, or the head's input, for those of
 * the norm before it are. */
enum overflow { NOTHING, OUT, HEAD_INPUT };

/* A case on the host and on the device. */
struct setup {
    test_case c;
    vx_dtype t;
    std::vector<guarded> memory;
    std::vector<problem> problems;
    std::vector<vx_mamba_out> jobs;
    std::vector<float> x;
    std::vector<char> x_stored;

    setup(const test_case &c_, vx_dtype t_, overflow what, uint64_t seed)
        : c(c_), t(t_), memory(1 + JOB_BUFFERS * c_.jobs), problems(c_.jobs) {
        random_state r = {seed};
        fill(x, x_stored, c.tokens * c.c, 2, t, r);
        void *const at = (void *)upload(memory[0], x_stored);
        for (size_t k = 0; k < c.jobs; k++)
            jobs.push_back(make_job(what, r, at, problems[k], &memory[1 + JOB_BUFFERS * k]));
    }
    vx_mamba_out make_job(overflow what, random_state &r, void *at, problem &p, guarded *g) {
        const size_t elements = c.tokens * c.c;
        p.before_gamma = floats(c.c, 1, 0.5, r), p.before_beta = floats(c.c, 0, 0.3, r);
        p.after_gamma = floats(c.c, 1, 0.5, r), p.after_beta = floats(c.c, 0, 0.3, r);
        vx_mamba_out job = {};
        job.x = at, job.scale = c.scale, job.branches = c.branches;
        if (c.before) job.before_gamma = (float *)upload(g[0], p.before_gamma);
        if (c.before) job.before_beta = (float *)upload(g[1], p.before_beta);
        if (c.after) job.after_gamma = (float *)upload(g[2], p.after_gamma);
        if (c.after) job.after_beta = (float *)upload(g[3], p.after_beta);
        if (c.added) {
            fill(p.added, p.added_stored, elements, 2, t, r);
            job.added = upload(g[4], p.added_stored);
        }
        job.out = !c.in_place ? g[5].make(elements * size_of(t)) : c.added ? (void *)job.added : at;
        p.branches.resize(c.branches);
        for (size_t k = 0; k < c.branches; k++)
            make_branch(what, p.branches[k], g + OWN_BUFFERS + BRANCH_BUFFERS * k, job.branch[k],
                        r);
        return job;
    }
    void make_branch(overflow what, branch &b, guarded *g, vx_mamba_out_branch &to,
                     random_state &r) {
        std::vector<float> y;
        const double head = what == OUT ? 1e4 : 1 / sqrt((double)c.c);
        fill(y, b.y, c.tokens * c.d, 1, t, r);
        fill(b.out_proj, b.out_proj_stored, (size_t)c.c * c.d, 1 / sqrt((double)c.d), t, r);
        fill(b.head, b.head_stored, (size_t)c.c * c.c, head, t, r);
        b.gamma = floats(c.c, 1, 0.5, r), b.beta = floats(c.c, 0, 0.3, r);
        for (size_t i = 0; i < c.c && what == HEAD_INPUT; i++) b.gamma[i] *= 1e5f;
        b.bias = floats(c.c, 0, 0.3, r);
        std::vector<char> out_proj(b.out_proj_stored.size()), packed(b.head_stored.size());
        vx_cuda_pack_blocks(b.out_proj_stored.data(), c.c, c.d, out_proj.data());
        vx_cuda_pack_blocks(b.head_stored.data(), c.c, c.c, packed.data());
        to.y = upload(g[0], b.y), to.out_proj = upload(g[1], out_proj);
        to.head = upload(g[2], packed), to.gamma = (float *)upload(g[3], b.gamma);
        to.beta = (float *)upload(g[4], b.beta), to.head_bias = (float *)upload(g[5], b.bias);
    }
    bool launch(std::vector<std::vector<char>> &got) const {
        const vx_mamba_out_shape shape = {c.tokens, c.c, c.d, t, 1e-5f};
        vx_error err = {};
        for (size_t k = 0; k < c.jobs; k++) {
            const std::vector<char> &from = c.added ? problems[k].added_stored : x_stored;
            if (c.in_place)
                CHECK_CUDA(
                    cudaMemcpy(jobs[k].out, from.data(), from.size(), cudaMemcpyHostToDevice));
            else
                CHECK_CUDA(cudaMemset(jobs[k].out, POISON_BYTE, x_stored.size()));
        }
        if (vx_cuda_mamba_out(&shape, jobs.data(), c.jobs, 0, &err) != VX_OK) {
            fprintf(stderr, "%s\n", err.text);
            return false;
        }
        CHECK_CUDA(cudaDeviceSynchronize());
        for (const vx_mamba_out &job : jobs) {
            got.emplace_back(x_stored.size());
            CHECK_CUDA(
                cudaMemcpy(got.back().data(), job.out, x_stored.size(), cudaMemcpyDeviceToHost));
        }
        return true;
    }
    std::vector<double> truth(size_t job) const {
        std::vector<double> all;
        for (size_t token = 0; token < c.tokens; token++) {
            const std::vector<double> row = reference(c, x, problems[job], t, token);
            all.insert(all.end(), row.begin(), row.end());
        }
        return all;
    }
    bool intact() const {
        for (const guarded &g : memory)
            if (g.base && !g.intact()) return false;
        return true;
    }
    static constexpr size_t BRANCH_BUFFERS = 6, OWN_BUFFERS = 6; /* of a branch; of a job besides */
    static constexpr size_t JOB_BUFFERS = OWN_BUFFERS + BRANCH_BUFFERS * VX_MAMBA_BRANCHES;
};

/* Relative L2 error, or a negative number for another failure. */
double run_case(const test_case &c, vx_dtype t, uint64_t seed) {
    const setup s(c, t, NOTHING, seed);
    std::vector<std::vector<char>> got[2];
    for (int run = 0; run < 2; run++)
        if (!s.launch(got[run])) return -1;
    if (got[0] != got[1]) return -2;
    if (!s.intact()) return -3;
    double worst = 0;
    for (size_t k = 0; k < c.jobs; k++) {
        const std::vector<double> expected = s.truth(k);
        double error = 0, norm = 0;
        for (size_t i = 0; i < expected.size(); i++) {
            const double e = load(got[0][k].data(), t, i) - expected[i];
            error += e * e, norm += expected[i] * expected[i];
        }
        const double relative = sqrt(error / norm);
        worst = relative >= 0 ? std::max(worst, relative) : INFINITY; /* NaN */
    }
    return worst;
}

/* fp16, no norm behind: whether out is infinite where it is too large; and whether no number of a
 * token is finite whose head got an infinite one: all of them, or a token had no number that
 * large. */
bool run_overflow(const test_case &c, overflow what, uint64_t seed) {
    const setup s(c, VX_F16, what, seed);
    std::vector<std::vector<char>> got;
    size_t finite = 0;
    if (!s.launch(got)) return false;
    for (size_t i = 0; i < c.tokens * c.c; i++) finite += isfinite(load(got[0].data(), VX_F16, i));
    overflow_count n;
    if (what == OUT) n = count_overflows(s.truth(0), got[0], VX_F16, 0.2);
    if (what == OUT ? n.right && !n.wrong : !finite) return true;
    printf("FAILED C %u D %u: %s overflows, %zu found, %zu numbers wrong, %zu finite\n", c.c, c.d,
           what == OUT ? "out" : "the head's input", n.right, n.wrong, finite);
    return false;
}

const char *failure(double e) {
    return e == -1   ? "refused"
           : e == -2 ? "other bits in the second run"
           : e == -3 ? "guard bytes overwritten"
                     : "relative error";
}

} // namespace

int main(int argc, char **argv) {
    int devices = 0, major = 0;
    if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
        printf("no CUDA device: skipped\n");
        return 77;
    }
    CHECK_CUDA(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0));
    if (major < 8) {
        printf("no matrix units: skipped\n");
        return 77;
    }
    const test_case cases[] = {
        /* tokens, C, D, branches, norm before, norm after, in place */
        {512, 32, 64, 2, true, true, false},
        {1, 32, 64, 1, false, false, false},
        {127, 32, 64, 2, false, true, true},
        {129, 32, 32, 1, true, false, false},
        {33, 32, 96, 2, true, false, true},
        {300, 64, 128, 2, true, true, false},
        {31, 64, 128, 1, false, true, true},
        {97, 96, 192, 2, true, true, false},
        {100, 128, 256, 2, true, true, true},
        {64, 128, 160, 1, false, false, false},
        {50, 160, 320, 2, false, true, false},
        {65, 256, 512, 2, true, true, false},
        {64, 320, 640, 2, true, true, true},
        {7, 288, 64, 1, true, true, false},
        {40, 224, 1024, 2, false, true, false},
        /* and jobs, scale, something to add */
        {130, 32, 64, 2, false, true, false, 4, 1, false},
        {129, 32, 64, 2, true, true, true, 1, 0.25f, true},
        {97, 64, 128, 2, false, true, false, 2, 0.5f, true},
        {61, 128, 256, 1, true, false, false, 3, 2, false},
        {64, 320, 640, 2, false, true, true, 4, 0.25f, true},
    };
    const char *names[] = {"fp16", "bf16"};
    /* The rounding of v, 2^-12 and 2^-9 at most, and of the output. */
    const double limit[] = {5e-4, 4e-3};
    const bool few = argc > 1 && strcmp(argv[1], "--few") == 0;
    const bool verbose = argc > 1 && strcmp(argv[1], "--verbose") == 0;
    int failures = 0, run = 0;
    double worst[2] = {0};
    for (const test_case &c : cases)
        for (int k = 0; k < 2; k++) {
            const int number = (int)(&c - cases);
            if (few && number % 2 != k) continue;
            const double e = run_case(c, k ? VX_BF16 : VX_F16, 77 + 5 * (uint64_t)number);
            run++;
            worst[k] = std::max(worst[k], e);
            if (verbose)
                printf("%s %zu tokens, C %u D %u: %.2e\n", names[k], c.tokens, c.c, c.d, e);
            if (e >= 0 && e <= limit[k]) continue;
            failures++;
            printf("FAILED %s %zu tokens, C %u D %u, %zu branches, %zu jobs: %s %.3e\n", names[k],
                   c.tokens, c.c, c.d, c.branches, c.jobs, failure(e), e);
        }
    for (size_t i : {1, 3, 9}) /* a warp alone with its tokens, and warps that share them */
        for (overflow what : {OUT, HEAD_INPUT}) {
            failures += !run_overflow(cases[i], what, 5 + i);
            run++;
        }
    printf("%d cases, %d failed; largest relative error fp16 %.2e bf16 %.2e\n", run, failures,
           worst[0], worst[1]);
    return failures ? 1 : 0;
}
