/* Our own convolutions (cuda/conv_tiled.h) against a float64 reference on the host: odd grids, both
 * storage types, every variant that fits; y and the moments of the tiles. Outputs are poisoned with
 * NaN, guard bytes around every buffer must survive, a second run must give the same bits, and so
 * must an input whose norm is applied as it is read. What overflows in fp16 is infinite. Needs no
 * test library:
 *
 *   test_conv_tiled            all cases; exit 0: all passed, 1: a failure, 77: no CUDA device
 *   test_conv_tiled --few      each shape in one storage type (for compute-sanitizer)
 */
#include "cuda/conv_tiled.h"
#include "cuda/tests/device_test.h"

namespace {

struct test_case {
    vx_shape in;
    size_t c_out;
    size_t taps = 27;
};

struct problem { /* on the host, rounded to the storage type */
    std::vector<char> x;
    std::vector<float> w;
    std::vector<double> y;
};

size_t voxels(vx_shape s) { return s.n * s.d * s.h * s.w; }

/* One output voxel of the reference. */
void convolve(const test_case &c, const std::vector<double> &x, const std::vector<float> &w,
              size_t n, size_t z, size_t y, size_t px, double *out) {
    const vx_shape s = c.in;
    for (size_t o = 0; o < c.c_out; o++) out[o] = 0;
    for (size_t t = 0; t < c.taps; t++) {
        const size_t tap = c.taps == 1 ? 13 : c.taps == 9 ? 3 * t + 1 : t; /* of 27 */
        const size_t a = z + tap / 9 - 1, b = y + tap / 3 % 3 - 1, d = px + tap % 3 - 1;
        if (a >= s.d || b >= s.h || d >= s.w) continue; /* -1 wraps around */
        const double *from = &x[(((n * s.d + a) * s.h + b) * s.w + d) * s.c];
        for (size_t o = 0; o < c.c_out; o++)
            for (size_t i = 0; i < s.c; i++)
                out[o] += from[i] * (double)w[(o * s.c + i) * c.taps + t];
    }
}

problem make(const test_case &c, vx_dtype t, random_state &r) {
    const vx_shape s = c.in;
    problem p;
    std::vector<double> x;
    char rounded[4];
    p.x.resize(voxels(s) * s.c * size_of(t));
    for (size_t i = 0; i < voxels(s) * s.c; i++)
        x.push_back(store(p.x.data(), t, i, 0.5 + r.normal()));
    for (size_t i = 0; i < c.c_out * s.c * c.taps; i++)
        p.w.push_back((float)store(rounded, t, 0, r.normal() / sqrt((double)(c.taps * s.c))));
    p.y.resize(voxels(s) * c.c_out);
    size_t at = 0;
    for (size_t n = 0; n < s.n; n++)
        for (size_t z = 0; z < s.d; z++)
            for (size_t y = 0; y < s.h; y++)
                for (size_t px = 0; px < s.w; px++, at += c.c_out)
                    convolve(c, x, p.w, n, z, y, px, &p.y[at]);
    return p;
}

double relative(const std::vector<char> &y, vx_dtype t, const std::vector<double> &truth) {
    double error = 0, norm = 0;
    for (size_t i = 0; i < truth.size(); i++) {
        const double e = load(y.data(), t, i) - truth[i];
        error += e * e;
        norm += truth[i] * truth[i];
    }
    return sqrt(error / norm);
}

/* The tiles' moments joined, against those of the reference; the largest relative difference of a
 * mean (to the deviation) and of a variance. */
double moments_error(const test_case &c, const std::vector<vx_cuda_moments> &m, size_t parts,
                     const std::vector<double> &truth) {
    const size_t all = c.in.d * c.in.h * c.in.w;
    double worst = 0;
    for (size_t n = 0; n < c.in.n; n++)
        for (size_t o = 0; o < c.c_out; o++) {
            double mean = 0, squares = 0, count = 0, true_mean = 0, true_squares = 0;
            for (size_t p = 0; p < parts; p++) {
                const vx_cuda_moments &k = m[(n * parts + p) * c.c_out + o];
                mean += (double)k.mean * (double)k.count;
                squares += (double)k.squares + (double)k.mean * (double)k.mean * (double)k.count;
                count += (double)k.count;
            }
            for (size_t v = 0; v < all; v++) true_mean += truth[(n * all + v) * c.c_out + o];
            true_mean /= (double)all;
            for (size_t v = 0; v < all; v++) {
                const double e = truth[(n * all + v) * c.c_out + o] - true_mean;
                true_squares += e * e;
            }
            mean /= count;
            squares -= mean * mean * count;
            worst = fmax(worst, fabs(mean - true_mean) / sqrt(true_squares / (double)all));
            worst = fmax(worst, fabs(squares / true_squares - 1));
            if (count != (double)all || squares != squares) return INFINITY;
        }
    return worst;
}

std::vector<char> download(const void *from, size_t bytes) {
    std::vector<char> h(bytes);
    CHECK_CUDA(cudaMemcpy(h.data(), from, bytes, cudaMemcpyDeviceToHost));
    return h;
}

/* Weights in the order of the variant and in the storage type, times `factor`. */
std::vector<char> packed(const problem &p, const vx_cuda_tiled &conv, float factor) {
    std::vector<float> turned(p.w.size());
    std::vector<char> w(p.w.size() * size_of(conv.dtype));
    vx_cuda_tiled_pack(&conv, p.w.data(), turned.data());
    for (size_t i = 0; i < turned.size(); i++) store(w.data(), conv.dtype, i, turned[i] * factor);
    return w;
}

/* y of one launch; false, with a line, where it fails. */
bool launch(const test_case &c, const vx_cuda_tiled &conv, const void *x, vx_cuda_pending pending,
            const void *w, std::vector<char> &y, const char *what) {
    guarded gy;
    const size_t y_bytes = voxels(c.in) * c.c_out * size_of(conv.dtype);
    void *dy = gy.make(y_bytes);
    vx_error err;
    if (vx_cuda_tiled_launch(&conv, x, pending, w, dy, NULL, 0, &err) != VX_OK) {
        printf("%s: %s\n", what, err.text);
        return false;
    }
    CHECK_CUDA(cudaDeviceSynchronize());
    y = download(dy, y_bytes);
    return true;
}

/* Whether one variant passes. */
bool run(const test_case &c, const problem &p, const vx_cuda_tiled &conv, const char *what) {
    const vx_dtype t = conv.dtype;
    const size_t parts = vx_cuda_tiled_parts(&conv);
    const size_t y_bytes = voxels(c.in) * c.c_out * size_of(t);
    const size_t m_count = c.in.n * parts * c.c_out;
    std::vector<char> y[2];
    std::vector<vx_cuda_moments> moments(m_count);
    guarded gx, gw;
    const void *dx = upload(gx, p.x), *dw = upload(gw, packed(p, conv, 1));
    bool intact = true;
    for (int k = 0; k < 2; k++) {
        guarded gy, gm;
        void *dy = gy.make(y_bytes);
        vx_cuda_moments *dm = (vx_cuda_moments *)gm.make(m_count * sizeof *dm);
        vx_error err;
        if (vx_cuda_tiled_launch(&conv, dx, {}, dw, dy, dm, 0, &err) != VX_OK) {
            printf("%s: %s\n", what, err.text);
            return false;
        }
        CHECK_CUDA(cudaDeviceSynchronize());
        y[k] = download(dy, y_bytes);
        CHECK_CUDA(cudaMemcpy(moments.data(), dm, m_count * sizeof *dm, cudaMemcpyDeviceToHost));
        intact = intact && gy.intact() && gm.intact();
    }
    const double error = relative(y[0], t, p.y), off = moments_error(c, moments, parts, p.y);
    const double allowed = t == VX_F16 ? 3e-4 : 2.4e-3;
    const bool ok = error <= allowed && off <= 1e-4 && intact && y[0] == y[1];
    printf("%s: %.2g (allowed %.2g), moments %.2g%s%s%s\n", what, error, allowed, off,
           intact ? "" : ", guard bytes written", y[0] == y[1] ? "" : ", other bits again",
           ok ? "" : "  FAILED");
    return ok;
}

/* Whether x with a norm pending gives the bits of an x to which it was applied before. grown: the
 * norm's scale; with a large one what is applied overflows, and y with it. */
bool run_pending(const test_case &c, const problem &p, const vx_cuda_tiled &conv, float grown,
                 const char *what, random_state &r) {
    const vx_dtype t = conv.dtype;
    const vx_shape s = c.in;
    const float slope = 0.01f;
    std::vector<vx_cuda_affine> affine(s.n * s.c);
    for (vx_cuda_affine &a : affine)
        a = {0, grown * (1 + 0.3f * (float)r.normal()), (float)r.normal()};
    std::vector<char> applied(p.x.size()), y[2];
    for (size_t i = 0; i < voxels(s) * s.c; i++) {
        const vx_cuda_affine &a = affine[i / (voxels(s) / s.n * s.c) * s.c + i % s.c];
        const float u = fmaf((float)load(p.x.data(), t, i), a.scale, a.shift);
        store(applied.data(), t, i, u > 0 ? u : u * slope);
    }
    std::vector<char> bytes((const char *)affine.data(), (const char *)(affine.data() + s.n * s.c));
    guarded gx[2], gw, ga;
    const void *dx[2] = {upload(gx[0], p.x), upload(gx[1], applied)};
    const void *dw = upload(gw, packed(p, conv, 1));
    const vx_cuda_pending pending = {(const vx_cuda_affine *)upload(ga, bytes), slope};
    if (!launch(c, conv, dx[0], pending, dw, y[0], what) ||
        !launch(c, conv, dx[1], {}, dw, y[1], what))
        return false;
    bool finite = true;
    for (size_t i = 0; i < voxels(s) * c.c_out; i++) finite &= isfinite(load(y[0].data(), t, i));
    if (finite == (grown == 1) && y[0] == y[1]) return true;
    printf("%s: %s with the norm pending, times %g  FAILED\n", what,
           y[0] == y[1] ? "not all finite, or all" : "other bits", (double)grown);
    return false;
}

/* fp16: whether y is infinite where it is too large for the type, and nowhere else. */
bool run_overflow(const test_case &c, const problem &p, const vx_cuda_tiled &conv,
                  const char *what) {
    float largest = 0;
    for (float w : p.w) largest = fmaxf(largest, fabsf(w));
    const float factor = exp2f(floorf(log2f(60000 / largest))); /* the weights stay in range */
    guarded gx, gw;
    std::vector<char> y;
    const void *dx = upload(gx, p.x), *dw = upload(gw, packed(p, conv, factor));
    if (!launch(c, conv, dx, {}, dw, y, what)) return false;
    std::vector<double> truth;
    for (double v : p.y) truth.push_back(v * (double)factor);
    const overflow_count n = count_overflows(truth, y, VX_F16, 0.001);
    if (n.right && !n.wrong) return true;
    printf("%s: %zu overflows found, %zu numbers wrong  FAILED\n", what, n.right, n.wrong);
    return false;
}

const test_case cases[] = {
    {{1, 1, 2, 3, 16}, 32},      {{1, 4, 8, 16, 32}, 32},    {{1, 5, 9, 17, 32}, 64},
    {{2, 7, 11, 19, 16}, 32},    {{1, 9, 7, 33, 48}, 64},    {{1, 3, 20, 15, 64}, 32},
    {{1, 8, 16, 32, 64}, 64},    {{3, 2, 3, 5, 128}, 128},   {{1, 13, 6, 40, 96}, 96},
    {{1, 300, 9, 3, 32}, 32},    {{1, 300, 2, 17, 64}, 64},  {{1, 5, 9, 17, 16}, 32, 9},
    {{2, 6, 11, 37, 48}, 64, 9}, {{1, 5, 9, 17, 64}, 32, 1}, {{2, 6, 11, 37, 96}, 64, 1},
};

} // namespace

int main(int argc, char **argv) {
    const bool few = argc > 1 && strcmp(argv[1], "--few") == 0;
    int devices = 0, failed = 0, ran = 0;
    if (cudaGetDeviceCount(&devices) != cudaSuccess || !devices) return 77;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int k = 0; k < 2; k++) {
            if (few && k != (int)(i % 2)) continue;
            const test_case &c = cases[i];
            const vx_dtype t = k ? VX_BF16 : VX_F16;
            random_state r = {i * 2 + (size_t)k};
            const problem p = make(c, t, r);
            for (unsigned v = 1; v <= VX_CUDA_TILED_VARIANTS; v++) {
                const vx_cuda_tiled conv = {c.in, c.c_out, t, c.taps, v};
                char what[120];
                if (!vx_cuda_tiled_fits(&conv)) continue;
                snprintf(what, sizeof what,
                         "tiled %zux%zux%zux%zux%zu->%zu, %zu taps, %s variant %u", c.in.n, c.in.d,
                         c.in.h, c.in.w, c.in.c, c.c_out, c.taps, k ? "bf16" : "fp16", v);
                failed += !run(c, p, conv, what);
                ran++;
                if (t == VX_F16) failed += !run_overflow(c, p, conv, what), ran++;
                if (!vx_cuda_tiled_applies(&conv)) continue;
                failed += !run_pending(c, p, conv, 1, what, r);
                ran++;
                if (t == VX_F16) failed += !run_pending(c, p, conv, 65504, what, r), ran++;
            }
        }
    printf("%d cases, %d failed\n", ran, failed);
    return failed || !ran;
}
