#!/usr/bin/env python3
"""Writes a CT-like volume of synthetic voxels as NIfTI: a body with smooth organ-like blobs of different intensities,
and noise. Needs numpy. The same arguments give the same voxels.

    bench/synthetic_volume.py OUT.nii[.gz] --dims 512,512,400 --spacing 0.75,0.75,1.5
"""

import argparse
import gzip
import struct

import numpy as np

BLOBS = 60
DT_INT16 = 4


def header(dims, spacing):
    """A NIfTI-1 header of int16 voxels: identity orientation (RAS), the centre at the origin."""
    h = bytearray(352)
    struct.pack_into("<i", h, 0, 348)
    struct.pack_into("<8h", h, 40, 3, *dims, 1, 1, 1, 1)
    struct.pack_into("<hh", h, 70, DT_INT16, 16)
    struct.pack_into("<8f", h, 76, 1, *spacing, 0, 0, 0, 0)
    struct.pack_into("<f", h, 108, 352)
    struct.pack_into("<ff", h, 112, 1, 0)
    h[123] = 2  # mm
    struct.pack_into("<hh", h, 252, 0, 1)  # no qform; sform: scanner
    for i in range(3):
        row = [0.0] * 4
        row[i], row[3] = spacing[i], -spacing[i] * (dims[i] - 1) / 2
        struct.pack_into("<4f", h, 280 + 16 * i, *row)
    h[344:348] = b"n+1\0"
    return bytes(h)


def slices(dims, seed):
    """int16 [y][x], z ascending: soft tissue 40, air -1000, blobs between -150 and 600, noise of 15."""
    random = np.random.default_rng(seed)
    x, y = (np.linspace(-1, 1, n, dtype=np.float32) for n in dims[:2])
    centre = random.uniform(-0.6, 0.6, (BLOBS, 3))
    radius = random.uniform(0.06, 0.28, (BLOBS, 3))
    value = random.uniform(-150, 600, BLOBS)
    body = np.where((x[None, :] / 0.9) ** 2 + (y[:, None] / 0.7) ** 2 < 1, 40, -1000).astype(np.float32)
    for z in np.linspace(-1, 1, dims[2]):
        image = body.copy()
        for c, r, v in zip(centre, radius, value):
            dz = ((z - c[2]) / r[2]) ** 2
            if dz < 1:
                inside = ((x[None, :] - c[0]) / r[0]) ** 2 + ((y[:, None] - c[1]) / r[1]) ** 2 < 1 - dz
                image[inside] = v
        image += random.normal(0, 15, image.shape)
        yield np.rint(image).astype("<i2")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("--dims", default="512,512,400", help="x,y,z")
    parser.add_argument("--spacing", default="0.75,0.75,1.5", help="x,y,z, mm")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    dims = [int(n) for n in args.dims.split(",")]
    spacing = [float(s) for s in args.spacing.split(",")]
    with gzip.open(args.out, "wb", compresslevel=1) if args.out.endswith(".gz") else open(args.out, "wb") as f:
        f.write(header(dims, spacing))
        for plane in slices(dims, args.seed):
            f.write(plane.tobytes())


if __name__ == "__main__":
    main()
