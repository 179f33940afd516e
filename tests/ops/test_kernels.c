/* The vector functions against libm in double, on every instruction set of this machine; the matrix
 * kernel against its definition. */
#include "ops.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/memory.h"

typedef void (*map_fn)(const float *x, size_t n, float *y);

/* Largest error in units of the last place of the exact result. */
static double worst_ulp(map_fn map, double (*exact)(double), float low, float high, size_t steps) {
    enum { CHUNK = 1000 }; /* not a multiple of any vector */
    float x[CHUNK], y[CHUNK];
    double worst = 0;
    for (size_t begin = 0; begin < steps; begin += CHUNK) {
        const size_t n = steps - begin < CHUNK ? steps - begin : CHUNK;
        for (size_t i = 0; i < n; i++)
            x[i] = low + (high - low) * ((float)(begin + i) / (float)(steps - 1));
        map(x, n, y);
        for (size_t i = 0; i < n; i++) {
            const double want = exact((double)x[i]);
            int exponent;
            frexp(want, &exponent);
            const double ulp = ldexp(1.0, exponent - FLT_MANT_DIG);
            const double error = fabs((double)y[i] - want) / ulp;
            if (!(error <= worst)) worst = error;
        }
    }
    return worst;
}

static double softplus(double x) { return x > 20 ? x : log1p(exp(x)); }

static void vector_functions(void **state) {
    (void)state;
    for (int isa = VX_ISA_BASELINE; isa < VX_ISA_BEST; isa++) {
        const vx_kernels *k = ops_kernels((vx_isa)isa);
        if (!k) continue;
        const double e2 = worst_ulp(k->exp2, exp2, -124.9f, 126.9f, 4000001);
        const double e2_near = worst_ulp(k->exp2, exp2, -1e-2f, 1e-2f, 1000001);
        const double e = worst_ulp(k->exp, exp, -86.5f, 88.2f, 4000001);
        const double sp = worst_ulp(k->softplus, softplus, -80, 30, 4000001);
        printf("%s: exp2 %.2f, near 0 %.2f, exp %.2f, softplus %.2f ulp\n", k->name, e2, e2_near, e,
               sp);
        assert_true(e2 <= 2 && e2_near <= 2 && e <= 2 && sp <= 4);
    }
}

static void special_values(void **state) {
    (void)state;
    const float x[] = {0, -200, NAN, -INFINITY, 20.5f, 100, -0.0f};
    const float far[] = {0, -200, -1e7f, -3e36f, -126.5f, -1e15f, -0.0f};
    for (int isa = VX_ISA_BASELINE; isa < VX_ISA_BEST; isa++) {
        const vx_kernels *k = ops_kernels((vx_isa)isa);
        float y[7];
        if (!k) continue;
        k->exp2(far, 7, y);
        assert_true(y[0] == 1 && y[6] == 1); /* no drift: 2^0 is exactly 1 */
        for (int i = 1; i < 6; i++) assert_true(y[i] <= 0x1p-125f && y[i] >= 0);
        k->exp2(&x[2], 1, y);
        assert_true(isnan(y[0]));
        k->softplus(x, 7, y);
        assert_true(isnan(y[2]) && y[4] == 20.5f && y[5] == 100 && y[3] >= 0 && y[3] < 1e-30f);
        for (int act = VX_ACT_RELU; act <= VX_ACT_SILU; act++) {
            k->activate(x, 7, (vx_activation)act, 0.1f, y);
            assert_true(isnan(y[2]) && y[0] == 0 && fabsf(y[5] - 100) < 1e-4f);
        }
    }
}

enum { ROWS = 27, COLUMNS = 67, DEPTH = 5, TAPS = 3 };

/* Small integers, so that sums are exact in any order and type. */
typedef struct product {
    float x[TAPS][ROWS][DEPTH], w[COLUMNS * DEPTH * TAPS], bias[COLUMNS];
    float want[ROWS][COLUMNS];
    uint16_t x_bf16[TAPS][ROWS][DEPTH];
} product;

static void make_product(product *p) {
    uint64_t seed = 7;
    for (size_t i = 0; i < sizeof p->x / sizeof(float); i++)
        ((float *)p->x)[i] = floorf(8 * ops_random(&seed));
    for (size_t i = 0; i < COLUMNS * DEPTH * TAPS; i++) p->w[i] = floorf(8 * ops_random(&seed));
    for (size_t i = 0; i < COLUMNS; i++) p->bias[i] = (float)i;
    for (size_t r = 0; r < ROWS; r++)
        for (size_t c = 0; c < COLUMNS; c++) {
            p->want[r][c] = p->bias[c];
            for (size_t t = 0; t < TAPS; t++)
                for (size_t d = 0; d < DEPTH; d++)
                    p->want[r][c] += p->x[t][r][d] * p->w[c * DEPTH * TAPS + d * TAPS + t];
        }
    /* The upper half of a small integer's float holds all of it. */
    for (size_t i = 0; i < sizeof p->x / sizeof(float); i++) {
        uint32_t bits;
        memcpy(&bits, (float *)p->x + i, sizeof bits);
        ((uint16_t *)p->x_bf16)[i] = (uint16_t)(bits >> 16);
    }
}

/* The product's first rows and columns, into rows of float or of what k stores. */
static void check_product(const product *p, const vx_kernels *k, size_t rows, size_t columns,
                          bool y_float) {
    const void *x_rows[TAPS * ROWS];
    void *y_rows[ROWS];
    float y[ROWS][COLUMNS + 1];
    uint16_t y_bf16[ROWS][COLUMNS + 1];
    const bool bf16 = k->stored == VX_BF16, narrow = bf16 && !y_float;
    size_t floats;
    assert_true(vx_gemm_packed(k, columns, DEPTH, TAPS, &floats));
    float *packed = vx_alloc(floats * sizeof *packed); /* exact, for the sanitizer */
    vx_pack_gemm(k, p->w, columns, DEPTH, TAPS, DEPTH * TAPS, TAPS, 1, packed);
    for (size_t i = 0; i < sizeof y / sizeof(float); i++) ((float *)y)[i] = -1;
    memset(y_bf16, 0x5a, sizeof y_bf16);
    for (size_t r = 0; r < rows; r++) {
        y_rows[r] = narrow ? (void *)y_bf16[r] : (void *)y[r];
        for (size_t t = 0; t < TAPS; t++)
            x_rows[t * rows + r] = bf16 ? (const void *)p->x_bf16[t][r] : (const void *)p->x[t][r];
    }
    const vx_gemm gemm = {.rows = rows,
                          .taps = TAPS,
                          .depth = DEPTH,
                          .x = x_rows,
                          .y = y_rows,
                          .y_float = y_float,
                          .w = packed,
                          .bias = p->bias,
                          .columns = columns,
                          .end_column = columns};
    k->gemm(&gemm);
    for (size_t r = 0; r < ROWS; r++)
        for (size_t c = 0; c <= COLUMNS; c++) {
            const bool inside = r < rows && c < columns;
            if (narrow && !inside) assert_int_equal(y_bf16[r][c], 0x5a5a);
            if (narrow && inside) k->widen(&y_bf16[r][c], 1, &y[r][c]);
            const float want = inside ? p->want[r][c] : -1;
            assert_true(y[r][c] == (narrow ? ops_round_bf16(want) : want));
        }
    vx_free(packed);
}

/* Every row and column count around the tiles' sizes. */
static void check_products(const product *p, const vx_kernels *k, bool y_float) {
    for (size_t rows = 1; rows <= ROWS; rows += 1 + rows / 8)
        for (size_t columns = 1; columns <= COLUMNS; columns++)
            check_product(p, k, rows, columns, y_float);
}

static void matrix_product(void **state) {
    (void)state;
    static product p;
    make_product(&p);
    for (int isa = VX_ISA_BASELINE; isa < VX_ISA_BEST; isa++) {
        const vx_kernels *k = ops_kernels((vx_isa)isa), *bf16 = ops_bf16_kernels((vx_isa)isa);
        if (k) check_products(&p, k, false);
        if (bf16) check_products(&p, bf16, false);
        if (bf16) check_products(&p, bf16, true);
    }
}

/* Rounding to bfloat16: ties to even, both ways of a tie, overflow to infinity, NaN stays NaN; and
 * back without a change. */
static void bf16_rounding(void **state) {
    (void)state;
    enum { COUNT = 37 }; /* two vectors and a part */
    static const float x[] = {0.0f,          -0.0f,         1.0f,        0x1.01p0f,  0x1.03p0f,
                              0x1.010002p0f, 0x1.00fffep0f, -0x1.01p0f,  -0x1.03p0f, FLT_MAX,
                              INFINITY,      -INFINITY,     0x1.fep127f, 0x1p-120f,  3.14159274f};
    static const float want[] = {0.0f,      -0.0f,     1.0f,        1.0f,       0x1.04p0f,
                                 0x1.02p0f, 1.0f,      -1.0f,       -0x1.04p0f, INFINITY,
                                 INFINITY,  -INFINITY, 0x1.fep127f, 0x1p-120f,  3.140625f};
    enum { GIVEN = sizeof x / sizeof *x };
    for (int isa = VX_ISA_BASELINE; isa < VX_ISA_BEST; isa++) {
        const vx_kernels *k = ops_bf16_kernels((vx_isa)isa);
        float in[COUNT], out[COUNT + 1];
        uint16_t mid[COUNT + 1];
        uint64_t seed = 9;
        if (!k) continue;
        for (size_t i = 0; i < COUNT; i++) in[i] = i < GIVEN ? x[i] : 100 * ops_random(&seed);
        in[GIVEN] = NAN;
        mid[COUNT] = 0x5a5a;
        out[COUNT] = -1;
        k->narrow(in, COUNT, mid);
        k->widen(mid, COUNT, out);
        assert_int_equal(mid[COUNT], 0x5a5a);
        assert_true(out[COUNT] == -1 && isnan(out[GIVEN]));
        for (size_t i = 0; i < COUNT; i++) {
            if (i < GIVEN) assert_memory_equal(&out[i], &want[i], sizeof(float));
            if (i > GIVEN) assert_true(out[i] == ops_round_bf16(in[i]));
        }
    }
}

/* G f G^T of 3x3 filters, against the same in double: the polynomial of the filter at each point,
 * over the product of the point's distances to the others. */
static void winograd_filters(void **state) {
    (void)state;
    static const double points[5] = {0, 0.75, -0.75, 1.5, -1.5};
    enum { FILTERS = 64, TAP = 70, POINT = 80 };
    double g[6][3] = {{0}}, worst = 0;
    float taps[9 * TAP], out[36 * POINT];
    uint64_t seed = 31;
    for (int i = 0; i < 5; i++) {
        double distances = 1;
        for (int j = 0; j < 5; j++)
            if (j != i) distances *= points[i] - points[j];
        for (int k = 0; k < 3; k++) g[i][k] = pow(points[i], k) / distances;
    }
    g[5][2] = 1;
    for (size_t i = 0; i < 9 * TAP; i++) taps[i] = ops_random(&seed);
    for (int isa = VX_ISA_BASELINE; isa < VX_ISA_BEST; isa++) {
        const vx_kernels *k = ops_kernels((vx_isa)isa);
        if (!k) continue;
        for (size_t i = 0; i < 36 * POINT; i++) out[i] = -7;
        k->winograd_filters(taps, TAP, FILTERS, out, POINT);
        for (size_t p = 0; p < 36; p++)
            for (size_t i = 0; i < POINT; i++) {
                double sum = 0, size = 0;
                for (size_t t = 0; t < 9 && i < FILTERS; t++) {
                    const double part =
                        g[p / 6][t / 3] * g[p % 6][t % 3] * (double)taps[t * TAP + i];
                    sum += part;
                    size += fabs(part);
                }
                const double error = fabs((double)out[p * POINT + i] - sum) / (size + 1e-30);
                if (i < FILTERS && !(error <= worst)) worst = error;
                if (i >= FILTERS) assert_true(out[p * POINT + i] == -7);
            }
    }
    printf("filters: %.2g of the terms' sizes\n", worst);
    assert_true(worst < 4 * (double)FLT_EPSILON);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vector_functions), cmocka_unit_test(special_values),
        cmocka_unit_test(matrix_product),   cmocka_unit_test(winograd_filters),
        cmocka_unit_test(bf16_rounding),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
