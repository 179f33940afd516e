"""Masks in which one label is kept only in the axial slices where the reference has it -> a folder to evaluate.

    python within_slices.py MASKS LABELS --label 2 --out OUT
    voxmamba evaluate OUT LABELS

For labels whose ends are a matter of habit: where a contour of the spinal cord ends below says how far the dose was
planned, not where the cord ends. From the first to the last slice of the reference's label along the body's axis the
mask stays as it is; outside, the label becomes background. Other labels are not touched.
"""

import argparse
import gzip
import struct
from pathlib import Path

import numpy as np

from nifti import read_nifti


def outside_slices(reference, codes, label):
    """True (z, y, x) in the slices across the body's axis beyond the label's first and last one."""
    axis = 2 - next(i for i, letter in enumerate(codes) if letter in "IS")
    held = np.flatnonzero((reference == label).any(tuple(a for a in range(3) if a != axis)))
    slices = np.arange(reference.shape[axis])
    beyond = np.ones(len(slices), bool) if len(held) == 0 else (slices < held[0]) | (slices > held[-1])
    return np.broadcast_to(np.expand_dims(beyond, [a for a in range(3) if a != axis]), reference.shape)


def cut(mask_file, label_file, label, out_file):
    mask, _, codes = read_nifti(mask_file)
    reference, _, stored = read_nifti(label_file)
    if mask.shape != reference.shape or codes != stored or mask.dtype.kind not in "ui":
        raise ValueError(f"{mask_file}: not a mask on the grid of {label_file}")
    raw = Path(mask_file).read_bytes()
    raw = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    offset = int(struct.unpack_from("<f", raw, 108)[0])
    kept = np.where((mask == label) & outside_slices(reference, codes, label), 0, mask).astype(mask.dtype)
    Path(out_file).write_bytes(gzip.compress(raw[:offset] + kept.tobytes(), mtime=0))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("masks", type=Path)
    p.add_argument("labels", type=Path)
    p.add_argument("--label", type=int, required=True)
    p.add_argument("--out", type=Path, required=True)
    args = p.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for mask_file in sorted(args.masks.glob("*.nii.gz")):
        cut(mask_file, args.labels / mask_file.name, args.label, args.out / mask_file.name)


if __name__ == "__main__":
    main()
