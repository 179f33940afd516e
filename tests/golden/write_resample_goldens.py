#!/usr/bin/env python3
"""Write tests/golden/resample/cases.bin with nnU-Net v2's own resampling.

Needs nnunetv2 (2.8.1), batchgenerators (0.25.5) and scikit-image. Sizes are given and stored as x, y, z; nnU-Net's
arrays are [c, z, y, x]. With --check the file is not written but compared with what the packages give now.

File, little-endian: "VXRG", u32 version 1, u32 cases; a case: char name[48], u32 kind (0 image, 1 mask by 0.5, 2
mask by argmax), f64 old spacing[3], f64 new spacing[3], u32 dims[3], u32 expected new dims[3], i32 order,
i32 expected separate axis (-1 none), i32 order along it, f32 input[z][y][x], f32 output[z][y][x].
"""
import argparse
import struct
import sys
from pathlib import Path

import numpy as np
from nnunetv2.preprocessing.resampling import default_resampling as nn
from skimage.transform import resize

IMAGE, MASK_HALF, MASK_ARGMAX = 0, 1, 2


def resize_by_half(segmentation, new_shape, order=3):
    """The rule of batchgenerators up to 0.25.1: one channel a label, >= 0.5, ascending."""
    if order == 0:
        return resize(segmentation.astype(float), new_shape, 0, mode="edge", clip=True, anti_aliasing=False)
    out = np.zeros(new_shape, segmentation.dtype)
    for label in np.unique(segmentation):
        share = resize((segmentation == label).astype(float), new_shape, order, mode="edge", clip=True,
                       anti_aliasing=False)
        out[share >= 0.5] = label
    return out


def volume(content, dims, rng):
    shape = dims[::-1]
    if content == "binary":
        return (rng.random(shape) < 0.5).astype(np.float32)
    if content == "noise":
        return rng.normal(100, 300, shape).astype(np.float32)
    if content == "layers":  # each slice its own range: clipping by slice shows
        z = np.arange(shape[0], dtype=np.float32)[:, None, None]
        return ((rng.random(shape) < 0.5) * (z + 1) + 10 * z).astype(np.float32)
    if content == "labels":
        return rng.integers(0, 5, shape).astype(np.float32)
    if content == "blobs":
        big = rng.integers(0, 4, [(n + 3) // 4 for n in shape])
        return np.kron(big, np.ones((4, 4, 4)))[tuple(slice(n) for n in shape)].astype(np.float32)
    raise ValueError(content)


# name, kind, content, dims, old spacing, new spacing, order, order along the separate axis; all x, y, z
CASES = [
    ("up_binary", IMAGE, "binary", (17, 13, 11), (1, 1, 1), (0.7, 0.8, 0.6), 3, 0),
    ("down_binary", IMAGE, "binary", (23, 21, 19), (1, 1, 1), (1.7, 1.3, 2.1), 3, 0),
    ("mixed_noise", IMAGE, "noise", (21, 9, 15), (0.9, 1.4, 1.0), (1.3, 0.6, 1.0), 3, 0),
    ("half_sizes", IMAGE, "binary", (5, 7, 9), (1, 1, 1), (2, 2, 2), 3, 0),
    ("half_sizes_up", IMAGE, "noise", (5, 3, 1), (1.5, 1.5, 1.5), (1, 1, 1), 3, 0),
    ("one_axis", IMAGE, "binary", (12, 11, 10), (1, 1, 1.5), (1, 1, 1), 3, 0),
    ("linear_up", IMAGE, "noise", (11, 12, 7), (1, 1, 1), (0.7, 0.65, 0.9), 1, 0),
    ("linear_down", IMAGE, "binary", (21, 18, 17), (1, 1, 1), (1.7, 1.45, 2.2), 1, 0),
    ("nearest", IMAGE, "noise", (11, 12, 7), (1, 1, 1), (0.7, 1.45, 0.5), 0, 0),
    ("long_line", IMAGE, "binary", (150, 3, 2), (1, 1, 1), (0.9, 0.9, 0.9), 3, 0),
    ("single_voxels", IMAGE, "noise", (1, 1, 6), (2, 2, 2), (1, 1, 1.1), 3, 0),
    ("separate_z_up", IMAGE, "layers", (13, 12, 7), (1, 1, 4), (0.8, 0.7, 1.1), 3, 0),
    ("separate_z_down", IMAGE, "binary", (15, 14, 9), (0.5, 0.5, 2), (0.8, 0.9, 3.7), 3, 0),
    ("separate_z_new_only", IMAGE, "noise", (15, 14, 20), (1, 1, 1), (1.2, 0.8, 4), 3, 0),
    ("separate_z_same", IMAGE, "layers", (13, 11, 6), (1, 1, 5), (0.7, 1.6, 5), 3, 0),
    ("separate_y", IMAGE, "binary", (13, 6, 12), (1, 5, 1), (0.75, 1.3, 1.2), 3, 0),
    ("separate_x", IMAGE, "binary", (6, 13, 12), (5, 1.1, 1), (1.3, 0.75, 1.2), 3, 0),
    ("separate_z_linear", IMAGE, "layers", (11, 10, 6), (1, 1, 4), (0.8, 1.3, 1.7), 1, 1),
    ("separate_z_cubic", IMAGE, "layers", (11, 10, 6), (1, 1, 4), (0.8, 1.3, 1.7), 3, 3),
    ("separate_y_cubic", IMAGE, "binary", (11, 7, 9), (1, 4, 1), (0.8, 1.7, 1.3), 3, 3),
    ("two_coarse_axes", IMAGE, "binary", (20, 7, 8), (0.24, 1.25, 1.25), (0.5, 1, 1), 3, 0),
    ("two_coarse_then_one", IMAGE, "noise", (20, 7, 8), (0.24, 1.25, 1.25), (0.3, 0.4, 2), 3, 0),
    ("ratio_three", IMAGE, "noise", (10, 9, 5), (1, 1, 3), (0.8, 0.8, 1.6), 3, 0),
    ("mask_up", MASK_HALF, "labels", (11, 9, 8), (1, 1, 1), (0.5, 0.7, 0.6), 1, 0),
    ("mask_double", MASK_HALF, "labels", (9, 8, 7), (1, 1, 1), (0.5, 0.5, 0.5), 1, 0),
    ("mask_down", MASK_HALF, "blobs", (21, 22, 23), (1, 1, 1), (1.7, 2, 1.5), 1, 0),
    ("mask_separate", MASK_HALF, "blobs", (17, 16, 7), (1, 1, 4), (0.6, 1.5, 1.3), 1, 0),
    ("mask_nearest", MASK_HALF, "labels", (9, 8, 7), (1, 1, 1), (0.7, 1.5, 0.5), 0, 0),
    ("mask_up_argmax", MASK_ARGMAX, "labels", (11, 9, 8), (1, 1, 1), (0.5, 0.7, 0.6), 1, 0),
    ("mask_double_argmax", MASK_ARGMAX, "labels", (9, 8, 7), (1, 1, 1), (0.5, 0.5, 0.5), 1, 0),
    ("mask_halve_argmax", MASK_ARGMAX, "labels", (18, 16, 14), (1, 1, 1), (2, 2, 2), 1, 0),
    ("mask_separate_argmax", MASK_ARGMAX, "labels", (17, 6, 12), (1, 4, 1), (0.6, 1.3, 1.5), 1, 0),
]


def make_case(name, kind, content, dims, old, new, order, order_z):
    rng = np.random.default_rng(sum(name.encode()))
    data = volume(content, dims, rng)[None]
    old_zyx, new_zyx = list(old[::-1]), list(new[::-1])
    shape = nn.compute_new_shape(data.shape[1:], old_zyx, new_zyx)
    separate, axis = nn.determine_do_sep_z_and_axis(None, old_zyx, new_zyx)
    package_resize = nn.resize_segmentation
    try:
        if kind == MASK_HALF:
            nn.resize_segmentation = resize_by_half
        out = nn.resample_data_or_seg(data.copy(), shape, kind != IMAGE, axis, order, separate, order_z=order_z)
    finally:
        nn.resize_segmentation = package_resize
    out = np.asarray(out, np.float32)[0]
    expected_axis = 2 - int(axis) if separate else -1
    head = struct.pack("<48sI6d3I3I3i", name.encode(), kind, *old, *new, *dims, *(int(n) for n in shape[::-1]), order,
                       expected_axis, order_z)
    return head + data.astype("<f4").tobytes() + out.astype("<f4").tobytes()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    path = Path(__file__).parent / "resample" / "cases.bin"
    data = b"VXRG" + struct.pack("<II", 1, len(CASES)) + b"".join(make_case(*case) for case in CASES)
    if not args.check:
        path.write_bytes(data)
        print(f"{path}: {len(CASES)} cases, {len(data)} bytes")
        return 0
    old = path.read_bytes()
    # The last bits of a float may differ between builds of scipy; headers and labels must not.
    same = len(old) == len(data) and np.allclose(np.frombuffer(old[12:], "<f4"), np.frombuffer(data[12:], "<f4"),
                                                 rtol=1e-6, atol=1e-4, equal_nan=True)
    print(f"{path}: {'same' if same else 'DIFFERS'}")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
