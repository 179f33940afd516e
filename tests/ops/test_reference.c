/* The scalar reference against numbers worked out by hand or in closed form. */
#include "ops.h"

#include <math.h>

#include "backend/cpu/ref.h"

static void assert_near(double a, double b, double tolerance) {
    if (!(fabs(a - b) <= tolerance)) fail_msg("%.17g != %.17g", a, b);
}

static const size_t ones[3] = {1, 1, 1};

/* 1D convolutions along x: [1 2 3 4] with kernel [1 10 100]. */
static void conv_by_hand(void **state) {
    (void)state;
    const float x[] = {1, 2, 3, 4}, w[] = {1, 10, 100}, bias = 0.5f;
    const size_t kernel[3] = {1, 1, 3}, pad[3] = {0, 0, 1}, stride[3] = {1, 1, 2};
    float y[4];
    vx_ref_conv(x, (vx_shape){1, 1, 1, 4, 1}, w, &bias, kernel, ones, pad, y,
                (vx_shape){1, 1, 1, 4, 1});
    /* Cross-correlation: the last tap meets the next voxel. */
    assert_float_equal(y[0], 210.5f, 0);
    assert_float_equal(y[1], 321.5f, 0);
    assert_float_equal(y[2], 432.5f, 0);
    assert_float_equal(y[3], 43.5f, 0);
    vx_ref_conv(x, (vx_shape){1, 1, 1, 4, 1}, w, NULL, kernel, stride, pad, y,
                (vx_shape){1, 1, 1, 2, 1});
    assert_float_equal(y[0], 210, 0);
    assert_float_equal(y[1], 432, 0);
}

/* Which weight meets which voxel, in all axes and channels: one voxel of one channel is set, so the
 * output is the filter, mirrored. */
static void conv_impulse(void **state) {
    (void)state;
    enum { CI = 2, CO = 3, K = 27 };
    const size_t kernel[3] = {3, 3, 3}, pad[3] = {1, 1, 1};
    const vx_shape in = {1, 3, 3, 3, CI}, out = {1, 3, 3, 3, CO};
    float x[27 * CI] = {0}, w[CO * CI * K], y[27 * CO];
    for (size_t i = 0; i < CO * CI * K; i++) w[i] = (float)i;
    x[13 * CI + 1] = 1; /* the middle voxel, channel 1 */
    vx_ref_conv(x, in, w, NULL, kernel, ones, pad, y, out);
    for (size_t v = 0; v < 27; v++)
        for (size_t co = 0; co < CO; co++)
            assert_float_equal(y[v * CO + co], w[(co * CI + 1) * K + 26 - v], 0);
}

static void transposed_conv_by_hand(void **state) {
    (void)state;
    /* One voxel, 2 channels in, 1 out, stride (1, 1, 2): y[k] = x0 w[0][k] + x1 w[1][k] + b. */
    const float x[] = {1, 10, 2, 20}, w[] = {1, 2, 3, 4}, bias = 100;
    const size_t stride[3] = {1, 1, 2};
    float y[4];
    vx_ref_transposed_conv(x, (vx_shape){1, 1, 1, 2, 2}, w, &bias, stride, y,
                           (vx_shape){1, 1, 1, 4, 1});
    assert_float_equal(y[0], 131, 0);
    assert_float_equal(y[1], 142, 0);
    assert_float_equal(y[2], 162, 0);
    assert_float_equal(y[3], 184, 0);
}

static void norms_by_hand(void **state) {
    (void)state;
    /* Two channels interleaved: 1 3 (mean 2, variance 1) and 10 10 (variance 0). */
    const float x[] = {1, 10, 3, 10}, gamma[] = {2, 5}, beta[] = {0.5f, 7};
    float y[4];
    vx_ref_instance_norm(x, (vx_shape){1, 1, 1, 2, 2}, gamma, beta, 3.0f, y);
    assert_float_equal(y[0], -0.5f, 1e-7); /* (1-2) / sqrt(1+3) * 2 + 0.5 */
    assert_float_equal(y[2], 1.5f, 1e-7);
    assert_float_equal(y[1], 7, 0);
    assert_float_equal(y[3], 7, 0);
    /* The same numbers by token: 1 10 (mean 5.5, variance 20.25). */
    vx_ref_layer_norm(x, 2, 2, gamma, beta, 4.75f, y);
    assert_float_equal(y[0], -4.5f / 5 * 2 + 0.5f, 1e-6);
    assert_float_equal(y[1], 4.5f / 5 * 5 + 7, 1e-6);
}

static void activations(void **state) {
    (void)state;
    assert_float_equal(vx_ref_activate(-2, VX_ACT_RELU, 0), 0, 0);
    assert_float_equal(vx_ref_activate(-2, VX_ACT_LEAKY_RELU, 0.25f), -0.5, 0);
    assert_float_equal(vx_ref_activate(3, VX_ACT_LEAKY_RELU, 0.25f), 3, 0);
    /* x * Phi(x): Phi(1) = 0.841344746068543 (tables). */
    assert_near(vx_ref_activate(1, VX_ACT_GELU, 0), 0.841344746068543, 1e-14);
    assert_near(vx_ref_activate(-1, VX_ACT_GELU, 0), 0.841344746068543 - 1, 1e-14);
    /* 1 / (1 + e^-1) = 0.731058578630005. */
    assert_near(vx_ref_activate(1, VX_ACT_SILU, 0), 0.731058578630005, 1e-14);
    assert_near(vx_ref_activate(-1, VX_ACT_SILU, 0), 0.731058578630005 - 1, 1e-14);
    assert_true(isnan(vx_ref_activate(NAN, VX_ACT_RELU, 0)));
}

static void pooling_and_upsampling(void **state) {
    (void)state;
    const float x[] = {1, 2, 3, 4, 5, 6, 7}; /* x axis of 7, window 3: the last voxel is left out */
    const size_t stride[3] = {1, 1, 3}, twice[3] = {1, 1, 2};
    float y[14];
    vx_ref_avg_pool(x, (vx_shape){1, 1, 1, 7, 1}, stride, y, (vx_shape){1, 1, 1, 2, 1});
    assert_float_equal(y[0], 2, 0);
    assert_float_equal(y[1], 5, 0);
    vx_ref_upsample_nearest(x, (vx_shape){1, 1, 1, 7, 1}, twice, y, (vx_shape){1, 1, 1, 14, 1});
    for (size_t i = 0; i < 14; i++) assert_float_equal(y[i], x[i / 2], 0);
}

/* All six orders and their reversals on a 2 x 3 x 4 grid visit what they say. */
static void scan_orders(void **state) {
    (void)state;
    const vx_shape grid = {1, 2, 3, 4, 1};
    const size_t first[6][5] = {{0, 1, 2, 3, 4},    /* z y x: memory order */
                                {0, 4, 8, 1, 5},    /* z x y: y fastest */
                                {0, 1, 2, 3, 12},   /* y z x */
                                {0, 12, 1, 13, 2},  /* y x z */
                                {0, 4, 8, 12, 16},  /* x z y */
                                {0, 12, 4, 16, 8}}; /* x y z */
    const int axes[6][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
    for (int i = 0; i < 6; i++) {
        vx_scan_order order = {{axes[i][0], axes[i][1], axes[i][2]}, false};
        unsigned seen = 0;
        for (size_t t = 0; t < 24; t++) {
            const size_t token = vx_scan_token(&order, grid, t);
            if (t < 5) assert_int_equal(token, first[i][t]);
            seen |= 1u << token;
            order.reverse = true;
            assert_int_equal(vx_scan_token(&order, grid, 23 - t), token);
            order.reverse = false;
        }
        assert_int_equal(seen, 0xffffff);
    }
}

/* A mixer whose scan is a geometric sum: C = D = N = R = 1, conv = identity, constant input.
 *
 * u = SiLU(x), z = x; delta = softplus(b) constant (dt row 0); B = C = u.
 * h_t = a h_{t-1} + delta u^2, a = exp(-delta); so h_t = delta u^2 (1 - a^t) / (1 - a), t = 1, 2...
 * y_t = (u h_t + d u) SiLU(x). */
static void mamba_geometric_sum(void **state) {
    (void)state;
    const float x0 = 0.7f, in_proj[] = {1, 1}, conv_w[] = {0, 1}, conv_b[] = {0};
    const float x_proj[] = {0, 1, 1}, dt_w[] = {1}, dt_b[] = {-1}, a_log[] = {0}, d[] = {0.5f};
    const float out_proj[] = {2};
    const vx_ref_mamba_weights w = {in_proj, conv_w, conv_b, x_proj,  dt_w,
                                    dt_b,    a_log,  d,      out_proj};
    const vx_mamba m = {.order = {{0, 1, 2}, false}, 1, 1, 2, 1};
    float x[6], y[6];
    double scratch[64];
    size_t bytes;
    assert_true(vx_ref_mamba_scratch(&m, &bytes));
    assert_true(bytes <= sizeof scratch);
    for (int i = 0; i < 6; i++) x[i] = x0;
    vx_ref_mamba(x, (vx_shape){1, 1, 2, 3, 1}, &m, &w, scratch, y);
    const double u = (double)x0 / (1 + exp(-(double)x0)), delta = log(1 + exp(-1.0));
    const double a = exp(-delta);
    for (int t = 0; t < 6; t++) {
        const double h = delta * u * u * (1 - pow(a, t + 1)) / (1 - a);
        assert_float_equal(y[t], (float)(2 * (u * h + 0.5 * u) * u), 1e-7f);
    }
}

/* The convolution is causal along the scan: with weights [0 0 1 0] the token before is seen, and
 * nothing before the first. With C = 0 (x_proj) only the D path is left: y_t = u_{t-1} SiLU(z_t).
 */
static void mamba_is_causal(void **state) {
    (void)state;
    const float in_proj[] = {1, 1}, conv_w[] = {0, 0, 1, 0}, conv_b[] = {0}, x_proj[] = {0, 0, 0};
    const float dt_w[] = {0}, dt_b[] = {0}, a_log[] = {0}, d[] = {1}, out_proj[] = {1};
    const vx_ref_mamba_weights w = {in_proj, conv_w, conv_b, x_proj,  dt_w,
                                    dt_b,    a_log,  d,      out_proj};
    const float x[] = {1, 2, 3, 4};
    float y[4];
    double scratch[64];
    for (int reverse = 0; reverse < 2; reverse++) {
        const vx_mamba m = {.order = {{0, 1, 2}, reverse != 0}, 1, 1, 4, 1};
        vx_ref_mamba(x, (vx_shape){1, 1, 1, 4, 1}, &m, &w, scratch, y);
        for (int t = 0; t < 4; t++) {
            const int before = reverse ? t + 1 : t - 1;
            const double v = before < 0 || before > 3 ? 0 : (double)x[before], z = (double)x[t];
            assert_float_equal(y[t], (float)(v / (1 + exp(-v)) * (z / (1 + exp(-z)))), 1e-6f);
        }
    }
}

/* float16 and bfloat16 as stored, at odd addresses. */
static void stored_types(void **state) {
    (void)state;
    static const unsigned char half[] = {0xee, 0x00, 0x3c, 0x00, 0xc0, 0x01, 0x00, 0xff, 0x7b,
                                         0x00, 0x7c, 0x00, 0x80, 0x55, 0x35, 0xff, 0x83};
    const double halves[] = {1, -2, 0x1p-24, 65504, INFINITY, -0.0, 0.333251953125, -0x1.ff8p-15};
    float out[8];
    vx_read_weight(&(vx_weight){half + 1, VX_F16, 8}, out);
    for (int i = 0; i < 8; i++) assert_true((double)out[i] == halves[i]);
    assert_true(signbit(out[5]));
    static const unsigned char brain[] = {0xee, 0x80, 0x3f, 0x49, 0xc0};
    vx_read_weight(&(vx_weight){brain + 1, VX_BF16, 2}, out);
    assert_true(out[0] == 1.0f && out[1] == -3.140625f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(conv_by_hand),
        cmocka_unit_test(conv_impulse),
        cmocka_unit_test(transposed_conv_by_hand),
        cmocka_unit_test(norms_by_hand),
        cmocka_unit_test(activations),
        cmocka_unit_test(pooling_and_upsampling),
        cmocka_unit_test(scan_orders),
        cmocka_unit_test(mamba_geometric_sum),
        cmocka_unit_test(mamba_is_causal),
        cmocka_unit_test(stored_types),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
