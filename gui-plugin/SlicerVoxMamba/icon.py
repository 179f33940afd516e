#!/usr/bin/env python3
"""Draws the icon of the extension: three faces of a cube of voxels and the path of a scan over them (needs Pillow).

    python3 icon.py        # writes VoxMamba/Resources/Icons/VoxMamba.png, 128 x 128
"""
import os

from PIL import Image, ImageDraw

SIZE, FINE, N = 128, 8, 3  # pixels; drawn FINE times as large; voxels along an edge
CENTRE, EDGE = (64.0, 66.0), 56.0  # of the cube, in pixels
ACROSS, UP = 0.866, 0.5  # of an isometric edge


def corner(x, y, z):
    """A point of the cube (0 to 1 along three edges) in the picture."""
    return (FINE * (CENTRE[0] + EDGE * ACROSS * (x - y)), FINE * (CENTRE[1] + EDGE * (UP * (x + y) - z)))


FACES = (  # (point of the face at u, v; colour; which voxels are marked)
    (lambda u, v: corner(u, v, 1.0), (226, 232, 240), ()),
    (lambda u, v: corner(u, 1.0, 1.0 - v), (148, 163, 184), ((0, 1), (1, 1), (1, 2))),
    (lambda u, v: corner(1.0, 1.0 - u, 1.0 - v), (100, 116, 139), ((0, 1), (1, 0), (1, 1))),
)
LABELS = ((128, 174, 128), (241, 214, 145))  # of the marked voxels, left and right


def draw():
    image = Image.new("RGBA", (SIZE * FINE, SIZE * FINE), (0, 0, 0, 0))
    pen = ImageDraw.Draw(image)
    for number, (point, colour, marked) in enumerate(FACES):
        for i in range(N):
            for j in range(N):
                cell = [point(u / N, v / N) for u, v in ((i, j), (i + 1, j), (i + 1, j + 1), (i, j + 1))]
                pen.polygon(cell, fill=LABELS[number - 1] if (i, j) in marked else colour)
                pen.line([*cell, cell[0]], fill=(51, 65, 85), width=FINE)
    point = FACES[0][0]  # the scan: to and fro over the upper face, then down the edge
    path = [point((i if j % 2 == 0 else N - 1 - i) / N + 0.5 / N, (j + 0.5) / N) for j in range(N) for i in range(N)]
    pen.line(path, fill=(220, 38, 38), width=4 * FINE, joint="curve")
    x, y = path[0]
    pen.ellipse([x - 4 * FINE, y - 4 * FINE, x + 4 * FINE, y + 4 * FINE], fill=(220, 38, 38))
    return image.resize((SIZE, SIZE), Image.LANCZOS)


if __name__ == "__main__":
    here = os.path.dirname(os.path.abspath(__file__))
    draw().save(os.path.join(here, "VoxMamba", "Resources", "Icons", "VoxMamba.png"), optimize=True)
