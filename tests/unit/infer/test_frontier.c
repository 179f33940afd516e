/* The frontier's promises on many shapes, each row followed from its start to its drop, and the
 * memory that it needs against numbers worked by hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "infer/frontier.h"

typedef struct shape {
    size_t in[3], patch[3], out[2];
    int order[2];
    double step;
} shape;

typedef struct frontier_case {
    vx_tiles tiles;
    vx_logits_axis map[2];
    vx_frontier frontier;
} frontier_case;

static void open_case(const shape *s, frontier_case *c) {
    assert_int_equal(vx_tiles_create(s->in, s->patch, s->step, &c->tiles, NULL), VX_OK);
    for (int a = 0; a < 2; a++)
        assert_int_equal(vx_logits_axis_create(s->in[a], s->out[a], s->order[a], &c->map[a], NULL),
                         VX_OK);
    assert_int_equal(vx_frontier_create(&c->tiles, c->map, &c->frontier, NULL), VX_OK);
}

static void close_case(frontier_case *c) {
    vx_frontier_free(&c->frontier);
    for (int a = 0; a < 2; a++) vx_logits_axis_free(&c->map[a]);
    vx_tiles_free(&c->tiles);
}

/* ---- A row's life ---- */

enum { ABSENT, STARTED, FINISHED, DROPPED };

typedef struct grid_state {
    const frontier_case *c;
    unsigned char *row;   /* [z][y] of the input: the above */
    unsigned char *made;  /* [z][y] of the output: 0, 1 */
    unsigned *tiles_left; /* [z][y] of the input: tiles still to come, along z and y */
    size_t live, most;
} grid_state;

/* Whether the tile at (tz, ty) reaches row (z, y). */
static bool reaches(const vx_tiles *t, const size_t tile[2], size_t z, size_t y) {
    const size_t at[2] = {z, y};
    for (int a = 0; a < 2; a++) {
        size_t padded = at[a] + t->pad[a], start = t->start[a][tile[a]];
        if (padded < start || padded >= start + t->patch[a]) return false;
    }
    return true;
}

static void change(grid_state *g, const vx_rows *rows, int from, int to) {
    size_t ny = g->c->tiles.dims[1];
    for (size_t z = rows->from[0]; z < rows->end[0]; z++)
        for (size_t y = rows->from[1]; y < rows->end[1]; y++) {
            assert_int_equal(g->row[z * ny + y], from);
            g->row[z * ny + y] = (unsigned char)to;
            if (to == FINISHED) assert_int_equal(g->tiles_left[z * ny + y], 0);
            if (to == STARTED) g->live++;
            if (to == DROPPED) g->live--;
        }
    if (g->live > g->most) g->most = g->live;
}

static void add_tile(grid_state *g, const size_t tile[2]) {
    const vx_tiles *t = &g->c->tiles;
    for (size_t z = 0; z < t->dims[0]; z++)
        for (size_t y = 0; y < t->dims[1]; y++)
            if (reaches(t, tile, z, y)) {
                assert_int_equal(g->row[z * t->dims[1] + y], STARTED);
                g->tiles_left[z * t->dims[1] + y]--;
            }
}

static void make(grid_state *g, const vx_rows *rows) {
    const vx_logits_axis *mz = &g->c->map[0], *my = &g->c->map[1];
    for (size_t z = rows->from[0]; z < rows->end[0]; z++)
        for (size_t y = rows->from[1]; y < rows->end[1]; y++) {
            const size_t zs[2] = {mz->low[z], vx_logits_axis_high(mz, z)};
            const size_t ys[2] = {my->low[y], vx_logits_axis_high(my, y)};
            for (int k = 0; k < 4; k++)
                assert_int_equal(g->row[zs[k / 2] * g->c->tiles.dims[1] + ys[k % 2]], FINISHED);
            assert_int_equal(g->made[z * my->out + y]++, 0);
        }
}

static void follow(const shape *s, bool whole, int *outer) {
    frontier_case c;
    open_case(s, &c);
    size_t in = s->in[0] * s->in[1], out = s->out[0] * s->out[1];
    grid_state g = {.c = &c,
                    .row = calloc(in, 1),
                    .made = calloc(out, 1),
                    .tiles_left = calloc(in, sizeof(unsigned))};
    size_t tile[2];
    for (tile[0] = 0; tile[0] < c.tiles.count[0]; tile[0]++)
        for (tile[1] = 0; tile[1] < c.tiles.count[1]; tile[1]++)
            for (size_t i = 0; i < in; i++)
                g.tiles_left[i] += reaches(&c.tiles, tile, i / s->in[1], i % s->in[1]);
    for (size_t i = 0; i < vx_frontier_steps(&c.frontier); i++) {
        vx_step step;
        vx_frontier_step(&c.frontier, i, whole, &step);
        change(&g, &step.started, ABSENT, STARTED);
        add_tile(&g, step.tile);
        change(&g, &step.finished, STARTED, FINISHED);
        make(&g, &step.made);
        if (whole && vx_rows_count(&step.made)) {
            int inner = 1 - c.frontier.outer;
            assert_int_equal(step.made.from[inner], 0);
            assert_int_equal(step.made.end[inner], s->out[inner]);
        }
        change(&g, &step.dropped, FINISHED, DROPPED);
    }
    for (size_t i = 0; i < in; i++) assert_int_equal(g.row[i], DROPPED);
    for (size_t i = 0; i < out; i++) assert_int_equal(g.made[i], 1);
    assert_int_equal(g.most, vx_frontier_rows(&c.frontier, whole));
    *outer = c.frontier.outer;
    free(g.row);
    free(g.made);
    free(g.tiles_left);
    close_case(&c);
}

static size_t below(uint64_t *state, size_t n) { /* 0 .. n - 1 */
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (size_t)(*state >> 33) % n;
}

static void each_row_lives_as_it_should(void **state) {
    (void)state;
    static const double steps[] = {0.1, 0.25, 0.5, 0.5, 0.7, 1};
    uint64_t seed = 1;
    size_t outers[2] = {0, 0};
    for (int n = 0; n < 3000; n++) {
        shape s = {.step = steps[below(&seed, 6)], .in[2] = 1, .patch[2] = 1};
        for (int a = 0; a < 2; a++) {
            s.in[a] = 1 + below(&seed, below(&seed, 4) ? 20 : 60);
            s.patch[a] = 1 + below(&seed, 16);
            s.order[a] = (int)below(&seed, 2);
            s.out[a] = below(&seed, 3) ? 1 + below(&seed, 70) : s.in[a];
        }
        int z_or_y = 0, again = 0;
        follow(&s, false, &z_or_y);
        follow(&s, true, &again);
        assert_int_equal(z_or_y, again); /* one order of tiles, whatever is asked for */
        outers[z_or_y]++;
    }
    assert_true(outers[0] > 300 && outers[1] > 300);
}

/* ---- Memory ---- */

static size_t rows_of(const shape *s, bool whole, int *outer) {
    frontier_case c;
    open_case(s, &c);
    size_t rows = vx_frontier_rows(&c.frontier, whole);
    *outer = c.frontier.outer;
    close_case(&c);
    return rows;
}

static void memory_by_hand(void **state) {
    (void)state;
    static const struct {
        shape s;
        size_t rows, whole;
        int outer;
    } cases[] = {
        /* z starts 0, 8, 16 .. 48, y starts 0, 8, 16: the eight slices that the next z row touches
         * again, of all 32 y - those of the row before until they are finished - and eight more of
         * a patch's 16 y. */
        {{{64, 32, 9}, {16, 16, 9}, {64, 32}, {1, 1}, 0.5}, 8 * 32 + 8 * 16, 16 * 32, 0},
        /* The same, resampled: a slice more along z (of all y), a row more along y (of 8 slices
         * beside the window's 16 y, or rather of the 9 that are finished). */
        {{{64, 32, 9}, {16, 16, 9}, {96, 48}, {1, 1}, 0.5}, 9 * 32 + 8 * 16 + 8, 17 * 32, 0},
        /* However long the volume. */
        {{{100000, 32, 9}, {16, 16, 9}, {100000, 32}, {1, 1}, 0.5}, 8 * 32 + 8 * 16, 16 * 32, 0},
        /* One tile is as high as the volume: both orders are one. A window of 16 y. */
        {{{20, 320, 9}, {20, 16, 9}, {20, 320}, {1, 1}, 0.5}, 20 * 16, 20 * 320, 0},
        /* z starts 0 and 4: z first would keep 16 of 20 slices of all 320 y. y first keeps 8 of
         * each 20 slices, and eight more of 20 (the second tile's four are new, none is let go
         * before). */
        {{{24, 320, 9}, {20, 16, 9}, {24, 320}, {1, 1}, 0.5}, 8 * 24 + 8 * 20, 16 * 24, 1},
        /* No overlap: nothing is kept along z. */
        {{{64, 64, 9}, {16, 16, 9}, {64, 64}, {1, 1}, 1}, 16 * 16, 16 * 64, 0},
        /* One tile. */
        {{{5, 6, 9}, {16, 16, 9}, {9, 11}, {1, 1}, 0.5}, 30, 30, 0},
    };
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        int outer;
        size_t rows = rows_of(&cases[k].s, false, &outer);
        size_t whole = rows_of(&cases[k].s, true, &outer);
        print_message("%zu: %zu rows, %zu whole, outer %d\n", k, rows, whole, outer);
        assert_int_equal(rows, cases[k].rows);
        assert_int_equal(whole, cases[k].whole);
        assert_int_equal(outer, cases[k].outer);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_row_lives_as_it_should),
        cmocka_unit_test(memory_by_hand),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
