#!/usr/bin/env python3
"""Whole cases from file to mask, by stage: OUT/e2e.json and OUT/e2e.md. Called by cuda_e2e.sh; with --device cpu it runs
anywhere (slowly: see --dims and --patch).

Every row is a process of its own; its mask is compared with the mask of the same case by other ways: another run, the
other file format, tiles added up in the host's memory, on several devices. All have to be the same bits.
"""

import argparse
import datetime
import gzip
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
CASES = ("coarse-25", "coarse-2", "own-25", "own-2")  # grid and classes
STAGES = ("hash", "read", "preprocess", "network", "accumulate", "finalise", "postprocess", "write")

# Holds all of the GPU's memory but so many bytes until its standard input ends.
HOLD = """
import sys, torch
free = torch.cuda.mem_get_info()[0]
held = [torch.empty(1 << 28, dtype=torch.uint8, device="cuda") for _ in range(max(0, (free - int(sys.argv[1])) >> 28))]
print("ready", flush=True)
sys.stdin.read()
"""


def comma(values):
    return ",".join(map(str, values))


class GpuWatch(threading.Thread):
    """The most of the GPU's memory that nvidia-smi sees used, less what was used at the start."""

    def __init__(self):
        super().__init__(daemon=True)
        self.first = self.most = 0
        self.over = threading.Event()

    @staticmethod
    def used():
        done = subprocess.run(["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "-i", "0"],
                              capture_output=True, text=True, check=False)
        return int(done.stdout.split()[0]) << 20 if done.returncode == 0 and done.stdout else 0

    def run(self):
        self.first = self.used()
        while not self.over.wait(0.05):
            self.most = max(self.most, self.used() - self.first)


class Bench:
    def __init__(self, args):
        self.args, self.out, self.work = args, Path(args.out), Path(args.work)
        self.work.mkdir(parents=True, exist_ok=True)
        self.rows, self.masks, self.failed = [], {}, []
        os.environ["XDG_CACHE_HOME"] = str(self.work / "cache")

    def volume(self, dims, spacing, name):
        """Kept in the work folder: another call with the same one finds it there."""
        plain = self.work / f"{name}-{'x'.join(map(str, dims))}.nii"
        packed = Path(f"{plain}.gz")
        if not packed.exists():
            subprocess.run([sys.executable, HERE / "synthetic_volume.py", plain, "--dims", comma(dims), "--spacing",
                            comma(spacing)], check=True)
            with open(plain, "rb") as f, gzip.open(packed, "wb", compresslevel=1) as g:
                shutil.copyfileobj(f, g, 1 << 24)
        return plain, packed

    def model(self, spacing, classes):
        prefix = self.work / f"model-{spacing}-{classes}"
        subprocess.run([self.args.bench, "model", "--family", self.args.family, "--width", str(self.args.width),
                        "--classes", str(classes), "--patch", comma([self.args.patch] * 3), "--spacing", spacing,
                        "--save", prefix], check=True, stdout=subprocess.DEVNULL)
        return f"{prefix}.safetensors"

    def segment(self, name, volume, model, same=None, device=None):
        """same: rows of this word have one mask."""
        mask, report = self.work / f"mask.nii{'.gz' if volume.suffix == '.gz' else ''}", self.out / f"{name}.json"
        device = ("--device", device or self.args.device, "--precision", self.args.precision)
        watch = GpuWatch()
        watch.start()
        start = time.monotonic()
        done = subprocess.run([self.args.program, "segment", volume, "-m", model, "-o", mask, "--overwrite", "--force", "-q",
                               "--report", report, *device], capture_output=True, text=True, check=False)
        seconds = time.monotonic() - start
        watch.over.set()
        watch.join()
        said = done.stderr.splitlines()
        row = {"name": name, "exit": done.returncode, "process_s": seconds, "said": said}
        if done.returncode == 0:
            case = json.loads(report.read_text())["cases"][0]
            row |= {"times_s": case["times_s"], "host_bytes": case["peak_memory_bytes"], "gpu_used_bytes": watch.most,
                    "device_bytes": case.get("device_memory_bytes", 0)}
            row["mask_sha256"] = self.compare(name, mask, same)
        print(json.dumps(row), flush=True)
        self.rows.append(row)
        return row

    def compare(self, name, mask, same):
        data = gzip.decompress(mask.read_bytes()) if mask.suffix == ".gz" else mask.read_bytes()
        first, other = self.masks.setdefault(same or name, (name, data))
        if other != data:
            self.failed.append(f"{name}: another mask than {first}")
        return hashlib.sha256(data).hexdigest()

    def plan(self, volume, model):
        start = time.monotonic()
        done = subprocess.run([self.args.program, "info", volume, "--plan", "--json", "-m", model, "--device",
                               self.args.device, "--precision", self.args.precision],
                              capture_output=True, text=True, check=False)
        plan = json.loads(done.stdout)["plan"] if done.returncode == 0 else {"error": done.stderr}
        plan["process_s"] = time.monotonic() - start  # opening the device and the model, making the plan
        print(json.dumps(plan), flush=True)
        return plan

    def with_little_memory(self, free, run):
        """run() while another process leaves free bytes of the GPU's memory."""
        holder = subprocess.Popen([sys.executable, "-c", HOLD, str(free)], stdin=subprocess.PIPE,
                                  stdout=subprocess.PIPE, text=True)
        ready = holder.stdout.readline().strip() == "ready"
        row = run() if ready else None
        holder.communicate()
        return row


def table(result):
    yield f"# Whole cases on a GPU, {result['date']}"
    yield ""
    yield f"{result['device']}; {result['threads']} threads; {result['precision']}. {result['what']}."
    yield ""
    yield f"Command: `{result['command']}`."
    yield ""
    yield ("Everything but the network: total less network. Process: from the start of the program to its end. GPU "
           "memory: planned = held (network, image, logits), and what nvidia-smi saw (with the CUDA context).")
    yield ""
    yield "| case | " + " | ".join(f"{s}, s" for s in STAGES) + (" | total, s | all but the network, s | process, s | "
                                                              "host peak, GB | GPU held, GB | GPU seen, GB |")
    yield "|---" * (len(STAGES) + 7) + "|"
    for r in result["rows"]:
        if r["exit"] != 0:
            yield f"| {r['name']} | exit {r['exit']}: {' '.join(r['said'])} |" + " |" * (len(STAGES) + 5)
            continue
        t = r["times_s"]
        yield (f"| {r['name']} | " + " | ".join(f"{t[s]:.2f}" for s in STAGES) +
               f" | {t['total']:.2f} | {t['total'] - t['network']:.2f} | {r['process_s']:.2f} | "
               f"{r['host_bytes'] / 1e9:.2f} | {r['device_bytes'] / 1e9:.2f} | {r['gpu_used_bytes'] / 1e9:.2f} |")
    yield ""
    yield from (f"- {r['name']}: {line}" for r in result["rows"] for line in r["said"])
    yield from (f"- FAILED: {line}" for line in result["failed"])


def device_line(bench):
    reports = sorted(path for path in bench.out.glob("*.json") if path.name != "e2e.json")
    return json.loads(reports[0].read_text())["device"]["description"] if reports else platform.machine()


def measure(bench):
    args, plans = bench.args, {}
    dims, spacing = [int(n) for n in args.dims.split(",")], (0.75, 0.75, 1.5)  # x, y, z
    grids = {"coarse": "1.5,1.5,1.5", "own": "1.5,0.75,0.75"}  # z, y, x
    only = args.only.split(",")
    if "tile" in only:
        tile, model = bench.volume([args.patch] * 3, (1.5, 1.5, 1.5), "tile")[1], bench.model(grids["coarse"], 2)
        # The first call makes the plans; whatever is timed finds them on the disk.
        for run in ("first", "2", "3"):
            bench.segment(f"one tile, {run}", tile, model, "tile")
    plain, packed = bench.volume(dims, spacing, "volume")
    for case in (c for c in CASES if c in only):
        grid, classes = case.split("-")
        model, word = bench.model(grids[grid], int(classes)), f"{grid} grid, {classes} classes"
        plans[word] = bench.plan(packed, model)
        for file in (packed, plain):
            name = f"{word}, .{file.name.split('.', 1)[1]}"
            bench.segment(name, file, model, word)
            if "spread" in only:
                bench.segment(f"{name}, cuda:all", file, model, word, "cuda:all")
    if "memory" in only and args.device.startswith("cuda"):
        model, word = bench.model(grids["coarse"], 25), "coarse grid, 25 classes"
        network = bench.plan(packed, model).get("device_network_bytes", 0)
        for free, text in ((network + (1 << 30), "little"), (network // 2, "too little")):
            bench.with_little_memory(free, lambda t=text: bench.segment(
                f"{word}, a GPU with {t} memory", packed, model, word))
    return plans


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", required=True, help="voxmamba")
    parser.add_argument("--bench", required=True, help="voxmamba_bench")
    parser.add_argument("--out", required=True, help="folder for the results")
    parser.add_argument("--work", default="/tmp/voxmamba-e2e", help="folder for temporary files")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--precision", default="fp16")
    parser.add_argument("--only", default=comma(("tile", *CASES, "memory")), help="of the default, and spread: each case on all GPUs too")
    parser.add_argument("--dims", default="512,512,400", help="x,y,z")
    parser.add_argument("--patch", type=int, default=128)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--family", default="segmamba_skip")
    args = parser.parse_args()
    bench = Bench(args)
    bench.out.mkdir(parents=True, exist_ok=True)
    plans = measure(bench)
    result = {"format": 1, "date": datetime.date.today().isoformat(), "device": device_line(bench),
              "threads": len(os.sched_getaffinity(0)), "precision": args.precision,
              "command": f"bench/cuda_e2e.sh PACK OUT --only {args.only}",
              "what": f"A volume of {args.dims} voxels (x, y, z; int16) of 0.75x0.75x1.5 mm, {args.family} with random "
                      f"weights, width {args.width}, patch {args.patch}^3, step 0.5; coarse grid: the model at 1.5 mm; own "
                      "grid: at the volume's spacing",
              "plans": plans, "rows": bench.rows, "failed": bench.failed}
    (bench.out / "e2e.json").write_text(json.dumps(result, indent=1) + "\n")
    (bench.out / "e2e.md").write_text("\n".join(table(result)) + "\n")
    print((bench.out / "e2e.md").read_text())
    sys.exit(1 if bench.failed else 0)


if __name__ == "__main__":
    main()
