#include "metrics/surfel_area.h"

#include <math.h>

/* A surface piece is up to four triangles; each row gives one triangle's area vector for a unit
 * cube, in eighths and without signs: the length of that vector, scaled by the spacing, is the
 * triangle's area. Only 27 different pieces exist. */
typedef struct surface_piece {
    int triangles;
    int eighths[4][3]; /* along x, y, z */
} surface_piece;

static const surface_piece PIECES[27] = {
    {0, {{0}}},                                        /* 0 */
    {1, {{1, 1, 1}}},                                  /* 1 */
    {2, {{0, 0, 4}, {0, 0, 4}}},                       /* 2 */
    {2, {{0, 2, 2}, {0, 2, 2}}},                       /* 3 */
    {2, {{0, 4, 0}, {0, 4, 0}}},                       /* 4 */
    {2, {{1, 1, 1}, {1, 1, 1}}},                       /* 5 */
    {2, {{2, 0, 2}, {2, 0, 2}}},                       /* 6 */
    {2, {{2, 2, 0}, {2, 2, 0}}},                       /* 7 */
    {2, {{4, 0, 0}, {4, 0, 0}}},                       /* 8 */
    {3, {{0, 0, 4}, {1, 1, 1}, {2, 2, 2}}},            /* 9 */
    {3, {{0, 2, 2}, {0, 2, 2}, {1, 1, 1}}},            /* 10 */
    {3, {{0, 4, 0}, {1, 1, 1}, {2, 2, 2}}},            /* 11 */
    {3, {{1, 1, 1}, {1, 1, 1}, {1, 1, 1}}},            /* 12 */
    {3, {{1, 1, 1}, {2, 0, 2}, {2, 0, 2}}},            /* 13 */
    {3, {{1, 1, 1}, {2, 2, 0}, {2, 2, 0}}},            /* 14 */
    {3, {{1, 1, 1}, {2, 2, 2}, {4, 0, 0}}},            /* 15 */
    {4, {{0, 0, 4}, {1, 1, 1}, {1, 1, 1}, {2, 2, 2}}}, /* 16 */
    {4, {{0, 2, 2}, {0, 2, 2}, {0, 2, 2}, {0, 2, 2}}}, /* 17 */
    {4, {{0, 2, 2}, {1, 1, 1}, {2, 0, 2}, {3, 3, 3}}}, /* 18 */
    {4, {{0, 2, 2}, {1, 1, 1}, {2, 2, 0}, {3, 3, 3}}}, /* 19 */
    {4, {{0, 4, 0}, {1, 1, 1}, {1, 1, 1}, {2, 2, 2}}}, /* 20 */
    {4, {{1, 1, 1}, {1, 1, 1}, {1, 1, 1}, {1, 1, 1}}}, /* 21 */
    {4, {{1, 1, 1}, {1, 1, 1}, {2, 2, 2}, {2, 2, 2}}}, /* 22 */
    {4, {{1, 1, 1}, {1, 1, 1}, {2, 2, 2}, {4, 0, 0}}}, /* 23 */
    {4, {{1, 1, 1}, {2, 0, 2}, {2, 2, 0}, {3, 3, 3}}}, /* 24 */
    {4, {{2, 0, 2}, {2, 0, 2}, {2, 0, 2}, {2, 0, 2}}}, /* 25 */
    {4, {{2, 2, 0}, {2, 2, 0}, {2, 2, 0}, {2, 2, 0}}}, /* 26 */
};

/* Piece of each code below 128. A code and its complement share their surface. */
static const unsigned char PIECE_OF_CODE[128] = {
    0,  1,  1,  7,  1,  6,  5,  15, 1,  5,  6,  15, 7,  15, 15, 8,  1,  3,  5,  11, 5,  9,
    12, 22, 5,  10, 13, 18, 14, 19, 23, 15, 1,  5,  3,  11, 5,  13, 10, 18, 5,  12, 9,  22,
    14, 23, 19, 15, 7,  11, 11, 4,  14, 24, 20, 11, 14, 20, 24, 11, 26, 14, 14, 7,  1,  5,
    5,  14, 3,  9,  10, 19, 5,  12, 13, 23, 11, 22, 18, 15, 6,  9,  13, 24, 9,  2,  16, 9,
    13, 16, 25, 13, 24, 9,  13, 6,  5,  12, 10, 20, 10, 16, 17, 10, 12, 21, 16, 12, 20, 12,
    10, 5,  15, 22, 18, 11, 19, 9,  10, 3,  23, 12, 13, 5,  14, 5,  5,  1,
};

void vx_surfel_areas(const double spacing[3], double area[256]) {
    const double face[3] = {spacing[1] * spacing[2] / 8, spacing[0] * spacing[2] / 8,
                            spacing[0] * spacing[1] / 8};
    for (int code = 0; code < 128; code++) {
        const surface_piece *piece = &PIECES[PIECE_OF_CODE[code]];
        double sum = 0;
        for (int t = 0; t < piece->triangles; t++) {
            double x = piece->eighths[t][0] * face[0];
            double y = piece->eighths[t][1] * face[1];
            double z = piece->eighths[t][2] * face[2];
            sum += sqrt(x * x + y * y + z * z);
        }
        area[code] = area[255 - code] = sum;
    }
}
