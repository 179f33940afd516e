"""Two `voxmamba evaluate --json` files of the same cases -> Markdown: means, paired difference, interval.

    python compare_scores.py MODEL.json TWIN.json [--per-case]

The interval is a 95 % percentile bootstrap (10,000 draws, seed 0) of the mean over cases of the difference of
each case's mean Dice over its labels. With --groups FILE (folds.tsv) whole subject groups are drawn instead of
cases: left and right hippocampus of one head are not independent.
"""

import argparse
import csv
import json
from pathlib import Path

import numpy as np


def read_dice(path):
    """{case: {label: Dice}}, labels that are in neither mask left out."""
    cases = json.loads(Path(path).read_text())["cases"]
    return {c["name"]: {x["label"]: x["dice"] for x in c["labels"] if not x["both_empty"]} for c in cases}


def bootstrap(difference, groups, draws=10000):
    """95 % interval of the mean difference, whole groups drawn with replacement."""
    rng = np.random.default_rng(0)
    members = [np.flatnonzero(groups == g) for g in np.unique(groups)]
    sums = np.array([difference[m].sum() for m in members])
    counts = np.array([len(m) for m in members])
    picks = rng.integers(0, len(members), (draws, len(members)))
    return np.percentile(sums[picks].sum(1) / counts[picks].sum(1), [2.5, 97.5])


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("model", type=Path)
    p.add_argument("twin", type=Path)
    p.add_argument("--groups", type=Path)
    p.add_argument("--per-case", action="store_true")
    args = p.parse_args()
    model, twin = read_dice(args.model), read_dice(args.twin)
    if model.keys() != twin.keys():
        raise SystemExit("the two files score different cases")
    names = sorted(model)
    labels = sorted({label for c in model.values() for label in c})
    groups = np.array(names)
    if args.groups:
        with open(args.groups, newline="") as f:
            group_of = {r["case"]: r["subject_group"] for r in csv.DictReader(f, delimiter="\t")}
        groups = np.array([group_of[n] for n in names])

    print("| Dice | " + " | ".join(f"label {k}" for k in labels) + " | mean |")
    print("|---|" + "---|" * (len(labels) + 1))
    for title, scores in (("model", model), ("twin", twin)):
        means = [np.mean([c[k] for c in scores.values() if k in c]) for k in labels]
        print(f"| {title} | " + " | ".join(f"{m:.4f}" for m in means) + f" | {np.mean(means):.4f} |")
    difference = np.array([np.mean(list(model[n].values())) - np.mean(list(twin[n].values())) for n in names])
    low, high = bootstrap(difference, groups)
    print(f"\nmodel - twin: {difference.mean():+.4f}, 95 % interval {low:+.4f} to {high:+.4f} "
          f"({len(names)} cases, {len(np.unique(groups))} groups drawn)")
    if args.per_case:
        print("\n| case | " + " | ".join(f"model {k} | twin {k}" for k in labels) + " |")
        print("|---|" + "---|" * (2 * len(labels)))
        for n in names:
            print(f"| {n} | " + " | ".join(f"{model[n][k]:.4f} | {twin[n][k]:.4f}" for k in labels) + " |")


if __name__ == "__main__":
    main()
