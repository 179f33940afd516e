"""The `ct` normalisation of a recipe, as nnU-Net's fingerprint finds it: from the training cases' labelled voxels.

    python ct_statistics.py --data DATA --parts train

All labelled voxels of all cases as stored (nnU-Net draws up to 10,000 a case): percentiles 0.5 and 99.5, mean and sd.
Prints the object for the recipe.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from data import list_cases
from nifti import read_nifti


def ct_normalisation(folder, parts):
    values = np.concatenate([read_nifti(image)[0][read_nifti(label)[0] > 0].astype(np.float64)
                             for _, image, label in list_cases(folder, parts)])
    low, high = np.percentile(values, (0.5, 99.5))
    return {"kind": "ct", "percentile_00_5": round(float(low), 3), "percentile_99_5": round(float(high), 3),
            "mean": round(float(values.mean()), 3), "sd": round(float(values.std()), 3)}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", type=Path, required=True)
    p.add_argument("--parts", nargs="+", required=True, help="folds or splits to train on")
    args = p.parse_args()
    print(json.dumps(ct_normalisation(args.data, args.parts)))


if __name__ == "__main__":
    main()
