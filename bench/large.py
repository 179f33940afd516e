#!/usr/bin/env python3
"""Segments a large synthetic volume and writes memory (planned and real) and time by stage as JSON and as a table.

Called by large.sh. Each way is a process of its own. Memory is the process's peak resident memory (VmHWM), the
program and its libraries among it.
"""

import argparse
import datetime
import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
DIMS, SPACING = (512, 512, 400), (0.75, 0.75, 1.5)  # x, y, z
PATCH, WIDTH = 128, 16
MODEL_SPACING = {"a": (1.5, 1.5, 1.5), "b": (1.5, 0.75, 0.75)}  # z, y, x
STAGES = ("hash", "read", "preprocess", "network", "accumulate", "finalise", "postprocess", "write")
LIMITS = {"a": 2.5e9, "b": 4.0e9}


def comma(values):
    return ",".join(map(str, values))


class Axis:
    """The windows along an axis of the model's grid: how far the first k reach, and where no later one does
    (src/infer/frontier.c, for a grid on which logits are not resampled)."""

    def __init__(self, size):
        count = -(-(size - PATCH) // (PATCH // 2)) + 1
        starts = [round((size - PATCH) / max(count - 1, 1) * k) for k in range(count)]
        self.count, self.covered, self.finished = count, [s + PATCH for s in starts], [*starts[1:], size]

    def between(self, limits, k):
        return limits[k] - (limits[k - 1] if k else 0)


def fullest(way):
    """-> (all windows, the window at which the most rows of logits are in memory)."""
    z, y, x = (Axis(round(n * mm / model_mm)) for n, mm, model_mm in
               zip(DIMS[::-1], SPACING[::-1], MODEL_SPACING[way]))
    found = []
    for outer, inner in ((z, y), (y, z)):
        rows, most = 0, (0, 0)
        for i in range(outer.count):
            for k in range(inner.count):
                rows += outer.between(outer.covered, i) * inner.between(inner.covered, k)
                most = max(most, (rows, -(i * inner.count + k)))
                rows -= outer.between(outer.finished, i) * inner.between(inner.finished, k)
        found.append(most)
    rows, step = found[1] if found[1][0] < found[0][0] - found[0][0] // 8 else found[0]
    return z.count * y.count * x.count, -step * x.count + 1


class Bench:
    def __init__(self, args):
        self.args, self.work = args, Path(args.work)
        self.work.mkdir(parents=True, exist_ok=True)

    def make_volume(self):
        path = self.work / "volume.nii.gz"
        if not path.exists():
            subprocess.run([sys.executable, HERE / "synthetic_volume.py", path, "--dims", comma(DIMS), "--spacing",
                            comma(SPACING)], check=True)
        return path

    def make_model(self, way, classes):
        prefix = self.work / f"model-{way}{classes}"
        subprocess.run([self.args.bench, "model", "--width", str(WIDTH), "--classes", str(classes), "--patch",
                        comma([PATCH] * 3), "--spacing", comma(MODEL_SPACING[way]), "--save", prefix], check=True)
        return f"{prefix}.safetensors"

    def plan(self, volume, model):
        done = subprocess.run([self.args.program, "info", volume, "--plan", "--json", "-m", model, "--threads",
                               str(self.args.threads)], check=True, capture_output=True, text=True)
        return json.loads(done.stdout)["plan"]

    def segment(self, name, volume, model):
        """The report's case."""
        report = self.work / f"report-{name}.json"
        subprocess.run([self.args.program, "segment", volume, "-m", model, "-o", self.work / f"mask-{name}.nii.gz",
                        "--report", report, "--overwrite", "--quiet", "--threads", str(self.args.threads)], check=True)
        case = json.loads(report.read_text())["cases"][0]
        return {"peak_bytes": case["peak_memory_bytes"], "seconds": case["times_s"], "whole": True}

    def segment_to_the_peak(self, name, way, volume, model):
        """As segment, of a run that is stopped once it holds the most that it ever will.

        Image, mask and the network's arena are allocated, and the arena is used, before the second window. The logits' rows
        are touched where they begin, so that the peak is reached with the window after which no more rows are in
        memory than before.
        """
        total, enough = fullest(way)
        report = self.work / f"report-{name}.json"
        process = subprocess.Popen([self.args.program, "segment", volume, "-m", model, "-o",
                                    self.work / f"mask-{name}.nii.gz", "--report", report, "--overwrite",
                                    "--log-format", "json", "--threads", str(self.args.threads)],
                                   stderr=subprocess.PIPE, text=True)
        windows = 0
        for line in process.stderr:
            event = json.loads(line)
            if event.get("stage") == "network":
                windows = round((event["fraction"] - 0.05) / 0.88 * total)  # the network's share (pipeline.c)
            if windows > enough:
                process.terminate()
                break
        process.communicate()
        if process.returncode != 143:
            raise SystemExit(f"large.py: {name} ended with {process.returncode}")
        case = json.loads(report.read_text())["cases"][0]
        return {"peak_bytes": case["peak_memory_bytes"], "seconds": case["times_s"], "whole": False, "windows": windows}

    def measure(self, name):
        way, classes = name[0], int(name[1:])
        volume, model = self.make_volume(), self.make_model(way, classes)
        row = {"name": name, "way": way, "classes": classes, "plan": self.plan(volume, model),
               "commit": git("rev-parse", "--short", "HEAD"), "load_before": os.getloadavg()[0],
               "changed": bool(git("status", "--porcelain", "--untracked-files=no", "--", "src"))}
        if way == "b" and not self.args.whole:
            row |= self.segment_to_the_peak(name, way, volume, model)
        else:
            row |= self.segment(name, volume, model)
        return row | {"load_after": os.getloadavg()[0]}


def table(result):
    rows = result["rows"]
    yield f"# Large volumes, {result['date']}"
    yield ""
    yield f"{result['processor']}, {result['threads']} threads. Command: `{result['command']}`."
    yield ""
    yield (f"A volume of {'x'.join(map(str, DIMS))} voxels of {'x'.join(map(str, SPACING))} mm (.nii.gz, int16); "
           f"SegMambaSkip with random weights, width {WIDTH}, patch {PATCH}^3, step 0.5, fp32. (a): the model at 1.5 mm; "
           "(b): at the volume's spacing. Memory: the whole process's peak. Seconds hold for this machine; where the load "
           "before (average of a minute) was above 0.5 it may not have been idle.")
    yield ""
    yield "| | classes | windows | peak, GB | planned, GB | planned / real | limit, GB | image and mask | network | logits |"
    yield "|---|---|---|---|---|---|---|---|---|---|"
    for r in rows:
        plan = r["plan"]
        note = "" if r["whole"] else f", stopped after {r['windows']}"
        yield (f"| ({r['way']}) | {r['classes']} | {plan['tiles']}{note} | {r['peak_bytes'] / 1e9:.3f} | "
               f"{plan['peak_bytes'] / 1e9:.3f} | {plan['peak_bytes'] / r['peak_bytes']:.3f} | {LIMITS[r['way']] / 1e9} | "
               f"{plan['volume_bytes'] / 1e9:.3f} | {plan['network_bytes'] / 1e9:.3f} | "
               f"{plan['accumulator_bytes'] / 1e9:.3f} |")
    yield ""
    for way in "ab":
        pair = {r["classes"]: r for r in rows if r["way"] == way}
        if len(pair) == 2:
            more = pair[25]["peak_bytes"] - pair[5]["peak_bytes"]
            slab = pair[25]["plan"]["accumulator_bytes"] - pair[5]["plan"]["accumulator_bytes"]
            yield (f"- ({way}): 25 classes take {more / 1e9:.3f} GB more than 5; their logits (planned) "
                   f"{slab / 1e9:.3f} GB more.")
    yield ""
    yield "| | classes | " + " | ".join(f"{s}, s" for s in STAGES) + " | total, s | network's share | load before | commit |"
    yield "|---" * (len(STAGES) + 6) + "|"
    for r in rows:
        t = r["seconds"]
        part = "" if r["whole"] else f" (the first {r['windows']} windows)"
        yield (f"| ({r['way']}) | {r['classes']}{part} | " + " | ".join(f"{t[s]:.1f}" for s in STAGES) +
               f" | {t['total']:.1f} | {100 * t['network'] / t['total']:.1f} % | {r['load_before']:.2f} | {r['commit']}"
               f"{' with local changes' if r['changed'] else ''} |")


def processor():
    found = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
    return found.group(1) if found else platform.machine()


def git(*words):
    return subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False).stdout.strip()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--program", required=True, help="voxmamba")
    parser.add_argument("--bench", required=True, help="voxmamba_bench")
    parser.add_argument("--only", default="a25,a5,b25,b5")
    parser.add_argument("--add", action="store_true", help="to the rows that OUT.json has")
    parser.add_argument("--whole", action="store_true", help="run (b) to its end too")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--work", default=str(ROOT / "build" / "bench-work"), help="folder for temporary files")
    parser.add_argument("--out", required=True, help="results: OUT.json and OUT.md")
    args = parser.parse_args()
    bench, out, rows = Bench(args), Path(args.out), {}
    out.parent.mkdir(parents=True, exist_ok=True)
    if args.add and out.with_suffix(".json").exists():
        rows = {r["name"]: r for r in json.loads(out.with_suffix(".json").read_text())["rows"]}
    for name in args.only.split(","):
        rows[name] = bench.measure(name)
        result = {"format": 1, "date": datetime.date.today().isoformat(),
                  "command": f"bench/large.sh --threads {args.threads}{' --whole' if args.whole else ''}",
                  "processor": processor(), "threads": args.threads, "system": platform.platform(),
                  "rows": [rows[k] for k in sorted(rows, key=lambda k: (k[0], -int(k[1:])))]}
        out.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
        out.with_suffix(".md").write_text("\n".join(table(result)) + "\n")
    print(out.with_suffix(".md").read_text())


if __name__ == "__main__":
    main()
