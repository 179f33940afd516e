"""The case of a fold whose labels have the most typical volumes: how the sample scan is chosen.

    python typical_case.py DATA --fold 3

No prediction enters: for each case the largest distance, over the labels, of its log volume from the fold's
median; the case with the smallest one.
"""

import argparse
import csv
from pathlib import Path

import numpy as np

from nifti import read_nifti


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("data", type=Path)
    p.add_argument("--fold", type=int, required=True)
    args = p.parse_args()
    with open(args.data / "folds.tsv", newline="") as f:
        names = [r["case"] for r in csv.DictReader(f, delimiter="\t") if int(r["fold5"]) == args.fold]
    volumes = []
    for name in names:
        label, spacing, _ = read_nifti(args.data / "labels" / f"{name}.nii.gz")
        counts = np.bincount(label.astype(np.int64).ravel())[1:]
        volumes.append(counts * np.prod(spacing))
    away = np.abs(np.log(volumes) - np.median(np.log(volumes), 0)).max(1)
    best = int(away.argmin())
    print(names[best], *(f"{v:.0f} mm3" for v in volumes[best]))


if __name__ == "__main__":
    main()
