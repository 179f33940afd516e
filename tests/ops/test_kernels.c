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
    for (int isa = VX_ISA_BASELINE; isa < VX_ISA_BEST; isa++) {
        const vx_kernels *k = ops_kernels((vx_isa)isa);
        float y[7];
        if (!k) continue;
        k->exp2(x, 7, y);
        assert_true(y[0] == 1 && y[6] == 1); /* no drift: 2^0 is exactly 1 */
        assert_true(y[1] <= 0x1p-125f && y[3] <= 0x1p-125f && y[1] >= 0);
        k->softplus(x, 7, y);
        assert_true(isnan(y[2]) && y[4] == 20.5f && y[5] == 100 && y[3] >= 0 && y[3] < 1e-30f);
        for (int act = VX_ACT_RELU; act <= VX_ACT_SILU; act++) {
            k->activate(x, 7, (vx_activation)act, 0.1f, y);
            assert_true(isnan(y[2]) && y[0] == 0 && fabsf(y[5] - 100) < 1e-4f);
        }
    }
}

/* Every row and column count around the tiles' sizes; integers, so that sums are exact. */
static void matrix_product(void **state) {
    (void)state;
    enum { ROWS = 27, COLUMNS = 67, DEPTH = 5, TAPS = 3 };
    float x[TAPS][ROWS][DEPTH], w[COLUMNS * DEPTH * TAPS], bias[COLUMNS], y[ROWS][COLUMNS + 1];
    const float *x_rows[TAPS * ROWS];
    float *y_rows[ROWS];
    uint64_t seed = 7;
    for (size_t i = 0; i < sizeof x / sizeof(float); i++)
        ((float *)x)[i] = floorf(8 * ops_random(&seed));
    for (size_t i = 0; i < COLUMNS * DEPTH * TAPS; i++) w[i] = floorf(8 * ops_random(&seed));
    for (size_t i = 0; i < COLUMNS; i++) bias[i] = (float)i;
    for (int isa = VX_ISA_BASELINE; isa < VX_ISA_BEST; isa++) {
        const vx_kernels *k = ops_kernels((vx_isa)isa);
        if (!k) continue;
        for (size_t rows = 1; rows <= ROWS; rows += 1 + rows / 8)
            for (size_t columns = 1; columns <= COLUMNS; columns++) {
                size_t floats;
                assert_true(vx_gemm_packed(k, columns, DEPTH, TAPS, &floats));
                float *packed = vx_alloc(floats * sizeof *packed); /* exact, for the sanitizer */
                vx_pack_gemm(k, w, columns, DEPTH, TAPS, DEPTH * TAPS, TAPS, 1, packed);
                for (size_t i = 0; i < sizeof y / sizeof(float); i++) ((float *)y)[i] = -1;
                for (size_t r = 0; r < rows; r++) {
                    y_rows[r] = y[r];
                    for (size_t t = 0; t < TAPS; t++) x_rows[t * rows + r] = x[t][r];
                }
                const vx_gemm gemm = {.rows = rows,
                                      .taps = TAPS,
                                      .depth = DEPTH,
                                      .x = x_rows,
                                      .y = y_rows,
                                      .w = packed,
                                      .bias = bias,
                                      .columns = columns,
                                      .end_column = columns};
                k->gemm(&gemm);
                for (size_t r = 0; r < ROWS; r++)
                    for (size_t c = 0; c <= COLUMNS; c++) {
                        float want = -1;
                        if (r < rows && c < columns) {
                            want = bias[c];
                            for (size_t t = 0; t < TAPS; t++)
                                for (size_t d = 0; d < DEPTH; d++)
                                    want += x[t][r][d] * w[c * DEPTH * TAPS + d * TAPS + t];
                        }
                        assert_true(y[r][c] == want);
                    }
                vx_free(packed);
            }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vector_functions),
        cmocka_unit_test(special_values),
        cmocka_unit_test(matrix_product),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
