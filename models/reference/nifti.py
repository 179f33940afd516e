"""Reads and turns NIfTI-1 files with NumPy alone.

Arrays are (z, y, x): NIfTI's first axis is x, so a file's array is transposed once, on reading. Axis codes are those of
a recipe's `orientation`: three letters for the x, y and z axis, each naming the side that it runs towards.
"""

import gzip
import struct
from pathlib import Path

import numpy as np

DTYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4"}
SIDES = (("L", "R"), ("P", "A"), ("I", "S"))  # of each world axis: towards the negative and the positive end


def read_nifti(path):
    """Little-endian single-file NIfTI-1 -> (array (z, y, x) with scale applied, spacing (z, y, x) in mm, axis codes).

    The stored axes must lie within 45 degrees of one world axis each, by the sform.
    """
    raw = Path(path).read_bytes()
    raw = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    if struct.unpack_from("<i", raw, 0)[0] != 348:
        raise ValueError(f"{path}: not a little-endian NIfTI-1 file")
    dim = struct.unpack_from("<8h", raw, 40)
    code, = struct.unpack_from("<h", raw, 70)
    pixdim = struct.unpack_from("<8f", raw, 76)
    offset, slope, inter = struct.unpack_from("<3f", raw, 108)
    sform, = struct.unpack_from("<h", raw, 254)
    if sform <= 0:
        raise ValueError(f"{path}: no sform")
    axes = np.array(struct.unpack_from("<12f", raw, 280)).reshape(3, 4)[:, :3]
    shape = dim[1:4]
    data = np.frombuffer(raw, "<" + DTYPES[code], int(np.prod(shape)), int(offset))
    data = data.reshape(shape[::-1])
    if np.isfinite(slope) and slope != 0 and (slope, inter) != (1, 0):
        data = data * np.float64(slope) + np.float64(inter)
    return data, np.array(pixdim[3:0:-1], np.float64), axis_codes(axes, path)


def axis_codes(axes, path):
    """Codes of the stored x, y, z axes; axes[:, i]: axis i in RAS world coordinates."""
    world = abs(axes).argmax(0)
    if sorted(world) != [0, 1, 2]:
        raise ValueError(f"{path}: two axes run along the same world axis")
    return "".join(SIDES[w][int(axes[w, i] > 0)] for i, w in enumerate(world))


def turn(array, spacing, codes, wanted):
    """(..., z, y, x) stored with `codes` -> (the same with `wanted` codes, a view; its spacing (z, y, x))."""
    def world(letter):
        return next(w for w, sides in enumerate(SIDES) if letter in sides)

    stored = [world(c) for c in codes[::-1]]                          # z, y, x as the array's axes
    source = [stored.index(world(letter)) for letter in wanted[::-1]]  # the stored axis behind each new one
    lead = array.ndim - 3
    turned = array.transpose(*range(lead), *(lead + a for a in source))
    flips = [lead + new for new, old in enumerate(source) if codes[::-1][old] != wanted[::-1][new]]
    return np.flip(turned, flips), np.asarray(spacing)[source]
