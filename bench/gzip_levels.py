#!/usr/bin/env python3
"""What each gzip level costs and saves on what we write: processor seconds to write, size, seconds to read back. One thread
of zlib, as src/io/byte_sink.c uses it. Needs numpy and scipy.

    bench/gzip_levels.py [FILE.nii.gz ...] --out bench/results/gzip-DATE

Measured are the files, and organ-like shapes, 512x512x400 voxels, 24 labels, surfaces rough by about a voxel as networks leave them.
"""

import argparse
import gzip
import json
import os
import re
import time
import zlib
from pathlib import Path

import numpy as np

SHAPE = (400, 512, 512)  # z, y, x
LABELS = 24
CHUNK = 1 << 18


def organs(seed=3):
    """uint8 [z][y][x]: ellipsoids whose surface is shifted by smooth noise of several scales."""
    from scipy.ndimage import zoom

    random = np.random.default_rng(seed)
    mask = np.zeros(SHAPE, np.uint8)
    for value in range(1, LABELS + 1):
        radius = random.uniform(0.06, 0.16, 3) * SHAPE
        centre = [random.uniform(r, n - r) for r, n in zip(radius, SHAPE)]
        low = [max(0, int(c - 1.4 * r)) for c, r in zip(centre, radius)]
        high = [min(n, int(c + 1.4 * r)) for c, r, n in zip(centre, radius, SHAPE)]
        axes = [(np.arange(a, b, dtype=np.float32) - c) / r for a, b, c, r in zip(low, high, centre, radius)]
        distance = np.sqrt(axes[0][:, None, None] ** 2 + axes[1][:, None] ** 2 + axes[2] ** 2)
        for scale, weight in ((16, 0.15), (4, 0.03), (2, 0.02)):
            coarse = random.normal(0, 1, [-(-n // scale) + 1 for n in distance.shape])
            fine = zoom(coarse.astype(np.float32), scale, order=1)
            distance += weight * fine[tuple(slice(0, n) for n in distance.shape)]
        box = mask[tuple(slice(a, b) for a, b in zip(low, high))]
        box[distance < 1] = value
    return mask.tobytes()


def write(data, level):
    packer, parts = zlib.compressobj(level, zlib.DEFLATED, 15 + 16, 8), []
    for at in range(0, len(data), CHUNK):
        parts.append(packer.compress(data[at:at + CHUNK]))
    return b"".join(parts) + packer.flush()


def measure(name, data):
    rows = []
    for level in range(1, 10):
        start = time.process_time()
        packed = write(data, level)
        middle = time.process_time()
        assert gzip.decompress(packed) == data
        rows.append({"file": name, "level": level, "write_s": middle - start, "bytes": len(packed),
                     "read_s": time.process_time() - middle})
        print(rows[-1], flush=True)
    return rows


def table(result):
    yield f"# gzip levels, {result['date']}"
    yield ""
    yield (f"{result['processor']}, one thread, zlib {result['zlib']}; load {result['load_before']:.2f} before. Command: "
           f"`{result['command']}`.")
    for name in dict.fromkeys(r["file"] for r in result["rows"]):
        yield from ("", f"## {name}", "", "| level | write, s | MB | read, s | write / level 6 | size / level 6 |",
                    "|---|---|---|---|---|---|")
        rows = [r for r in result["rows"] if r["file"] == name]
        six = rows[5]
        for r in rows:
            yield (f"| {r['level']} | {r['write_s']:.2f} | {r['bytes'] / 1e6:.2f} | {r['read_s']:.2f} | "
                   f"{r['write_s'] / six['write_s']:.2f} | {r['bytes'] / six['bytes']:.2f} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*")
    parser.add_argument("--files-only", action="store_true")
    parser.add_argument("--out", required=True, help="results: OUT.json and OUT.md")
    args = parser.parse_args()
    load = os.getloadavg()[0]
    rows = [] if args.files_only else measure("organ-like shapes", organs())
    for path in args.files:
        raw = Path(path).read_bytes()
        rows += measure(Path(path).name, (gzip.decompress(raw) if path.endswith(".gz") else raw)[352:])
    found = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
    result = {"format": 1, "date": time.strftime("%Y-%m-%d"), "zlib": zlib.ZLIB_RUNTIME_VERSION,
              "processor": found.group(1) if found else "unknown processor", "load_before": load,
              "command": "bench/gzip_levels.py " + " ".join(Path(f).name for f in args.files), "rows": rows}
    out = Path(args.out)
    out.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    text = "\n".join(table(result)) + "\n"
    out.with_suffix(".md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
