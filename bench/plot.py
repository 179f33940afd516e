#!/usr/bin/env python3
"""Draws seconds and peak memory of one network pass against the patch's size, ours and PyTorch's, from a results
file of run_cpu.sh. Needs matplotlib.

    bench/plot.py bench/results/cpu-DATE.json -o docs/images/cpu.png
"""

import argparse
import json

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
from compare_cpu import FAMILIES, our_seconds, pairs, text  # noqa: E402

COLOURS = {"segmamba_skip": "#0072b2", "none": "#e69f00"}  # distinct to colour-blind readers


def lines(rows):
    """(family, engine) -> [(voxels, seconds, MB, label)] by size."""
    found = {}
    for (family, patch, precision), (ours, theirs) in pairs(rows).items():
        if precision != "fp32":
            continue
        voxels = patch[0] * patch[1] * patch[2]
        if ours:
            memory = max(r["rss_peak_bytes"] for r in ours) / 1e6
            found.setdefault((family, "VoxMamba"), []).append((voxels, our_seconds(ours), memory, text(patch)))
        if theirs:
            best = theirs[0]
            point = voxels, best["median_s"], best["rss_peak_bytes"] / 1e6, text(patch)
            found.setdefault((family, "PyTorch"), []).append(point)
    return {key: sorted(points) for key, points in found.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results")
    parser.add_argument("-o", "--out", required=True, help="picture (.png, .svg)")
    args = parser.parse_args()
    with open(args.results) as f:
        result = json.load(f)
    machine = next(r for r in result["rows"] if r["kind"] == "machine")
    figure, (time_axis, memory_axis) = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
    ticks = {}
    for (family, engine), points in sorted(lines(result["rows"]).items(), reverse=True):
        x, seconds, memory, labels = zip(*points)
        ticks |= dict(zip(x, labels))
        style = {"color": COLOURS.get(family), "marker": "o", "markersize": 4,
                 "linestyle": "-" if engine == "VoxMamba" else "--", "label": f"{engine}, {FAMILIES[family]}"}
        time_axis.plot(x, seconds, **style)
        memory_axis.plot(x, memory, **style)
    for axis, title in ((time_axis, "seconds a patch"), (memory_axis, "peak memory of the network, MB")):
        axis.set(xscale="log", yscale="log", title=title, xlabel="patch, voxels")
        axis.set_xticks(list(ticks), list(ticks.values()), fontsize=8)
        axis.set_xticks([], minor=True)
        axis.grid(alpha=0.3)
    time_axis.legend(fontsize=8)
    figure.suptitle(f"{machine['processor']}, {machine['threads']} threads, fp32, {result['date']}; "
                    "PyTorch in its fastest variant", fontsize=9)
    figure.savefig(args.out, dpi=150)


if __name__ == "__main__":
    main()
