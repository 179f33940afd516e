#!/usr/bin/env python3
"""Draws the time of one selective scan against its tokens, ours and mamba_ssm's, with both floors, from a results
file of bench/cuda_scan.cu and bench/peers/scan_peers.py run with --sweep. Needs matplotlib.

    bench/plot_scan.py bench/results/cuda_scan_DATE.jsonl -o docs/images/scan.png
"""

import argparse
import json

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

COPY_BYTES_A_SECOND = 4.24e12  # bench/cuda_probe.cu on the same kind of card


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results")
    parser.add_argument("-o", "--out", required=True, help="picture (.png, .svg)")
    args = parser.parse_args()
    with open(args.results) as f:
        rows = [json.loads(line) for line in f]
    ours = sorted((r for r in rows if r["variant"] == "sweep"), key=lambda r: r["tokens"])
    theirs = sorted((r for r in rows if r["variant"] == "mamba_ssm"), key=lambda r: r["tokens"])
    device = {r["device"] for r in ours + theirs}
    if len(device) != 1 or not theirs or [r["tokens"] for r in ours] != [r["tokens"] for r in theirs]:
        raise SystemExit("the file does not hold one sweep of both on one device")
    tokens = [r["tokens"] for r in ours]
    figure, axis = plt.subplots(figsize=(6.5, 4), layout="constrained")
    axis.plot(tokens, [r["ms"] for r in theirs], color="#e69f00", linestyle="--", marker="o", markersize=4,
              label="mamba_ssm's selective_scan_fn")
    axis.plot(tokens, [r["ms"] for r in ours], color="#0072b2", marker="o", markersize=4, label="VoxMamba")
    axis.plot(tokens, [2 * r["exp_floor_ms"] for r in ours], color="grey", linestyle=":",
              label="floor: two exponentials a state")
    axis.plot(tokens, [r["bytes"] / COPY_BYTES_A_SECOND * 1e3 for r in ours], color="black", linestyle=":",
              label="floor: every byte once")
    for r, stock in zip(ours[-2:], theirs[-2:]):
        axis.annotate(f"{stock['ms'] / r['ms']:.0f} x", (r["tokens"], (r["ms"] * stock["ms"]) ** 0.5), fontsize=9,
                      ha="center")
    sides = [round(n ** (1 / 3)) for n in tokens]
    axis.set(xscale="log", yscale="log", xlabel="tokens", ylabel="ms a scan",
             title=f"Selective scan, D {ours[0]['D']}, N {ours[0]['N']}, fp16, {device.pop()}")
    axis.set_xticks(tokens, [f"{side}³" for side in sides], fontsize=8)
    axis.set_xticks([], minor=True)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    figure.savefig(args.out, dpi=130)


if __name__ == "__main__":
    main()
