#!/usr/bin/env python3
"""Runs voxmamba_bench and PyTorch side by side, and writes the results as JSON and as a Markdown table.

Called by run_cpu.sh. Every network is measured by us, by PyTorch's variants, and by us again, one process each:
if our two medians differ much the machine was not idle, and the table says by how much.
"""

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
SMALL, LARGE = (40, 56, 40), (96, 96, 96)
CUBES = ((32, 32, 32), (64, 64, 64))  # further points of the plot
FAMILIES = {"none": "twin without Mamba", "segmamba_skip": "SegMambaSkip"}


def git(*words):
    done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def text(patch):
    return "x".join(map(str, patch))


class Session:
    """Runs one process after another and gathers the lines they write."""

    def __init__(self, args):
        self.args, self.rows, self.left_out = args, [], []
        self.end = time.monotonic() + args.minutes * 60
        self.work = Path(args.work)
        self.work.mkdir(parents=True, exist_ok=True)
        # The loop scan's kernels take seconds to compile: keep them for the next run.
        self.environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(self.work.resolve() / "inductor"),
                                         "OMP_NUM_THREADS": str(args.threads)}

    def run(self, command, what):
        """The rows that the command wrote; none when it failed or the time was up."""
        what = what.replace(f"{self.work}{os.sep}", "")  # a result names no folder of the machine
        lines = self.work / "lines.jsonl"
        lines.unlink(missing_ok=True)
        left = self.end - time.monotonic()
        if left < 5:
            self.left_out.append(what)
            return []
        try:
            done = subprocess.run([*command, "--json", str(lines)], env=self.environment, timeout=left,
                                  check=False)
        except subprocess.TimeoutExpired:
            self.left_out.append(what)
            return []
        rows = [json.loads(line) for line in lines.read_text().splitlines()] if lines.exists() else []
        if done.returncode != 0:
            self.left_out.append(f"{what} (exit {done.returncode})")
        self.rows += rows
        return rows

    def ours(self, verb, *options):
        return self.run([self.args.program, verb, "--threads", str(self.args.threads), *options],
                        f"voxmamba {verb} {' '.join(options)}")

    def torch(self, *words):
        return self.run([sys.executable, str(HERE / "peers" / "cpu_torch.py"), *words,
                         "--threads", str(self.args.threads)], f"torch {' '.join(words)}".replace(f"{ROOT}/", ""))

    def peer(self, family, patch, variant, seconds, precision="fp32", runs=5, warm_up_only=False):
        """One variant (layout, mode, scan) of PyTorch, on what our last run of the family saved."""
        layout, mode, scan = variant
        return self.torch("network", str(self.work / family), "--patch", ",".join(map(str, patch)), "--layout", layout,
                          "--mode", mode, "--scan", scan or "loop", "--precision", precision,
                          "--seconds", str(seconds), "--runs", str(runs),
                          *(["--warm-up-only"] if warm_up_only else []))

    def network(self, family, patch, variants, seconds=3.0, precision="fp32", runs=5):
        """Ours, PyTorch's variants, ours again. Returns PyTorch's rows."""
        options = ["--family", family, "--patch", ",".join(map(str, patch)), "--seconds", str(seconds),
                   "--runs", str(runs), "--precision", precision]
        # The peer compares its logits with those of this very run.
        if not self.ours("network", *options, "--save", str(self.work / family)):
            return []
        rows = []
        for way in variants:
            rows += self.peer(family, patch, way, seconds, precision, runs)
        self.ours("network", *options)
        return rows


def fastest(rows):
    return sorted(rows, key=lambda r: r["median_s"])


def variant(row):
    return row["layout"], row["mode"], row["scan"]


def measure(session, quick):
    session.ours("machine")
    ops = session.ours("ops", "--quick", "--seconds", "0.5" if quick else "1", "--runs", "9")
    twin_variants = [("contiguous", "eager", None), ("channels_last", "eager", None),
                     ("channels_last", "compile", None)]
    if not quick:
        twin_variants.append(("contiguous", "compile", None))
    twin = fastest(session.network("none", SMALL, twin_variants, 1.5 if quick else 3))
    layout, mode, _ = variant(twin[0]) if twin else ("channels_last", "eager", None)
    eager = next((r["layout"] for r in twin if r["mode"] == "eager"), "channels_last")
    # The three scans alike in eager mode, then the fastest one in the twin's fastest way.
    scans = ("loop",) if quick else ("loop", "chunked", "associative")
    skip = fastest(session.network("segmamba_skip", SMALL, [(eager, "eager", s) for s in scans], 3))
    best = skip[0]["scan"] if skip else "loop"
    if not quick and mode == "compile":
        skip = fastest(skip + session.peer("segmamba_skip", SMALL, (layout, mode, best), 3))
    session.ours("split", "--patch", ",".join(map(str, SMALL)), "--seconds", "0.2", "--runs", "5")
    if quick:
        return
    best_skip = variant(skip[0]) if skip else (eager, "eager", "loop")
    best_twin = [variant(r) for r in twin[:1]] or [(eager, "eager", None)]
    session.network("segmamba_skip", LARGE, [best_skip], runs=2)
    session.network("none", LARGE, best_twin, runs=2)
    for patch in CUBES:
        session.network("segmamba_skip", patch, [best_skip], 1, runs=3)
        session.network("none", patch, best_twin, 1, runs=3)
    for family, variants in (("none", best_twin), ("segmamba_skip", [best_skip])):
        half_precision(session, family, variants)
    peer_ops(session, ops)


def prepare(session):
    """Every compilation that measure() will ask for, so that it does not wait for compilers."""
    loop = ("channels_last", "compile", "loop")
    for patch in (SMALL, *CUBES, LARGE):
        for family, ways in (("none", [("channels_last", "compile", None)]), ("segmamba_skip", [loop])):
            if patch == SMALL and family == "none":
                ways.append(("contiguous", "compile", None))
            elif patch == SMALL:
                ways += [("contiguous", "eager", "loop"), ("contiguous", "eager", "associative")]
            session.ours("network", "--family", family, "--patch", ",".join(map(str, patch)), "--runs", "1",
                         "--save", str(session.work / family))
            for way in ways:
                session.peer(family, patch, way, 0, runs=1, warm_up_only=True)
                if patch == SMALL and way[1] == "compile":
                    session.peer(family, patch, way, 0, "bf16", runs=1, warm_up_only=True)
    peer_ops(session, session.ours("ops", "--quick", "--runs", "1"), runs=1, seconds=0)


def half_precision(session, family, variants):
    """bf16, where the processor computes in it: the small patch beside PyTorch, with both sides' rounding error;
    the large one by ourselves."""
    if " avx512_bf16" not in Path("/proc/cpuinfo").read_text():
        return
    session.network(family, SMALL, variants, 2, "bf16")
    # The last run that saved its logits was ours in bf16.
    session.torch("error", str(session.work / family), "--patch", ",".join(map(str, SMALL)), "--scan", "chunked")
    session.network(family, LARGE, [], precision="bf16", runs=2)


def peer_ops(session, ops, runs=5, seconds=0.5):
    """PyTorch on the ops that we measured at the start: last, as the least needed."""
    if ops:
        like = session.work / "ops.jsonl"
        like.write_text("".join(json.dumps(row) + "\n" for row in ops))
        session.torch("ops", str(like), "--runs", str(runs), "--seconds", str(seconds))


# ---------------------------------------------------------------------------------------------- the report
def pairs(rows):
    """(family, patch, precision) -> our rows, PyTorch's rows fastest first; in the order of measurement."""
    found = {}
    for row in rows:
        if row["kind"] == "network":
            key = row["family"], tuple(row["patch"]), row["precision"]
            found.setdefault(key, ([], []))[row["engine"] == "torch"].append(row)
    return {k: (ours, fastest(theirs)) for k, (ours, theirs) in found.items()}


def our_seconds(rows):
    """Median of the runs of both processes."""
    runs = sorted(t for row in rows for t in row["runs_s"])
    return (runs[(len(runs) - 1) // 2] + runs[len(runs) // 2]) / 2


def network_table(rows):
    yield "| network, width 32 | patch | type | ours, s | fastest PyTorch, s | ours / PyTorch, time | ours, MB | PyTorch, MB | ours / PyTorch, memory | our two medians differ |"
    yield "|---|---|---|---|---|---|---|---|---|---|"
    for (family, patch, precision), (ours, theirs) in pairs(rows).items():
        if not ours:
            continue
        seconds, memory = our_seconds(ours), max(r["rss_peak_bytes"] for r in ours) / 1e6
        medians = [r["median_s"] for r in ours]
        cells = [FAMILIES[family], text(patch), precision, f"{seconds:.3f}"]
        if theirs:
            peer = theirs[0]
            peer_memory = peer["rss_peak_bytes"] / 1e6
            cells += [f"{peer['median_s']:.3f} ({peer['variant']})", f"{seconds / peer['median_s']:.2f}",
                      f"{memory:.0f}", f"{peer_memory:.0f}", f"{memory / peer_memory:.2f}"]
        else:
            cells += ["-", "-", f"{memory:.0f}", "-", "-"]
        yield "| " + " | ".join([*cells, f"{100 * (max(medians) / min(medians) - 1):.0f} %"]) + " |"


def variant_table(rows):
    yield "| network | patch | type | PyTorch variant | s | MB | logits differ from ours by (relative L2) |"
    yield "|---|---|---|---|---|---|---|"
    for (family, patch, precision), (_, theirs) in pairs(rows).items():
        for r in theirs:
            yield (f"| {FAMILIES[family]} | {text(patch)} | {precision} | {r['variant']} | {r['median_s']:.3f} | "
                   f"{r['rss_peak_bytes'] / 1e6:.0f} | {r['difference']:.0e} |")


def op_table(rows):
    ops = {}
    for row in rows:
        if row["kind"] == "op":
            key = row["op"], tuple(row["grid"]), row["c_in"], row["c_out"], row["d_state"]
            ops.setdefault(key, ([], []))[row["engine"] == "torch"].append(row)
    yield "| op | grid | channels | N | ours, ms | GFLOP/s | G states/s | PyTorch, ms (each variant) | ours / fastest PyTorch |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for (op, grid, c_in, c_out, d_state), (ours, theirs) in ops.items():
        if not ours:
            continue
        mine, peers = ours[0], fastest(theirs)
        states = f"{mine['state_updates'] / mine['median_s'] / 1e9:.2f}" if d_state else ""
        listed = "; ".join(f"{1e3 * r['median_s']:.2f} {r['variant']}" for r in peers) or "-"
        ratio = f"{mine['median_s'] / peers[0]['median_s']:.2f}" if peers else "-"
        yield (f"| {op} | {text(grid)} | {c_in}->{c_out} | {d_state or ''} | {1e3 * mine['median_s']:.2f} | "
               f"{mine['gflop'] / mine['median_s']:.0f} | {states} | {listed} | {ratio} |")


def mamba_share(rows):
    """What the Mamba stages cost beside the same network's convolutions."""
    found = pairs(rows)
    for (family, patch, precision), (ours, theirs) in found.items():
        twin_ours, twin_theirs = found.get(("none", patch, precision), ([], []))
        if family == "none" or not ours or not twin_ours:
            continue
        whole, twin = our_seconds(ours), our_seconds(twin_ours)
        line = f"- {FAMILIES[family]} less its twin, over the twin, {text(patch)}, {precision}: ours {whole / twin - 1:.2f}"
        if theirs and twin_theirs:
            line += f", PyTorch {theirs[0]['median_s'] / twin_theirs[0]['median_s'] - 1:.2f}"
        yield line


def bf16_list(rows):
    """What bf16 gains, and what its rounding costs."""
    found = pairs(rows)
    for (family, patch, precision), (ours, _) in found.items():
        floats, _ = found.get((family, patch, "fp32"), ([], []))
        if precision == "bf16" and ours and floats:
            yield (f"- {FAMILIES[family]}, {text(patch)}: {our_seconds(floats) / our_seconds(ours):.2f} times as fast as "
                   "our own fp32")
    for row in rows:
        if row["kind"] == "error":
            yield (f"- {FAMILIES[row['family']]}, {text(row['patch'])}: logits off by {row['ours']:.1e}, PyTorch's autocast by "
                   f"{row['theirs']:.1e} (relative L2, against PyTorch's fp32)")


def split_list(rows):
    for row in rows:
        if row["kind"] == "split":
            yield f"Our ops one by one, {FAMILIES[row['family']]}, {text(row['patch'])} (sum {row['sum_s']:.3f} s):"
            yield ""
            for kind, seconds in row["by_kind_s"].items():
                yield f"- {kind}: {100 * seconds / row['sum_s']:.1f} %"


def report(result):
    rows = result["rows"]
    machine = next((r for r in rows if r["kind"] == "machine"), {})
    torch_row = next((r for r in rows if r["engine"] == "torch" and "torch" in r), {})
    yield f"# CPU, {result['date']}"
    yield ""
    yield (f"{machine.get('processor', 'unknown processor')}; {machine.get('device', '')}; commit {result['commit']}"
           f"{' with local changes' if result['changed'] else ''}; PyTorch {torch_row.get('torch', '-')} "
           f"({torch_row.get('capability', '-')}); load {result['load_before']:.2f} before, {result['load_after']:.2f} "
           f"after. Command: `{result['command']}`.")
    if result["load_before"] > 0.5:
        yield ""
        yield "**The machine was not idle: these figures show only that the programs run.**"
    if machine:
        yield ""
        yield (f"By itself it copies {machine['copy_gb_s']:.1f} GB/s (read + write), computes "
               f"{machine['exp_g_s']:.2f} G exponentials/s and {machine['gemm_gflop_s']:.0f} GFLOP/s in a small matrix product.")
    yield ""
    yield "Seconds hold for this run on this machine only; compare ratios. Memory: peak resident less that before the"
    yield "model was loaded (PyTorch: after its imports; the peak after its warm-up)."
    for title, lines in (("Networks", network_table(rows)), ("Mamba stages beside convolutions", mamba_share(rows)),
                         ("bf16", bf16_list(rows)), ("PyTorch's variants", variant_table(rows)), ("Single ops", op_table(rows)),
                         ("Where our time goes", split_list(rows))):
        yield from ("", f"## {title}", "", *lines)
    if result["left_out"]:
        yield from ("", "Left out (time was up, or it failed):", "", *(f"- {w}" for w in result["left_out"]))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--program", required=True, help="voxmamba_bench")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--minutes", type=float, default=11.5, help="what has not begun by then is left out")
    parser.add_argument("--quick", action="store_true", help="the small patch and PyTorch's fastest scan only")
    parser.add_argument("--work", default=str(ROOT / "build" / "bench-work"), help="folder for temporary files")
    parser.add_argument("--prepare", action="store_true", help="only compile PyTorch's variants; no results")
    parser.add_argument("--out", required=True, help="results: OUT.json and OUT.md")
    args = parser.parse_args()
    load = os.getloadavg()[0]
    if load > 0.5:
        print(f"compare_cpu.py: load {load:.1f}: the machine is not idle", file=sys.stderr)
    session = Session(args)
    if args.prepare:
        prepare(session)
        for what in session.left_out:
            print(f"compare_cpu.py: not prepared: {what}", file=sys.stderr)
        return
    measure(session, args.quick)
    result = {"format": 1, "date": datetime.date.today().isoformat(), "commit": git("rev-parse", "--short", "HEAD"),
              "changed": bool(git("status", "--porcelain", "--untracked-files=no", "--", "src")),
              "command": "bench/run_cpu.sh" + (" --quick" if args.quick else "") + f" --threads {args.threads}",
              "system": platform.platform(), "load_before": load, "load_after": os.getloadavg()[0],
              "left_out": session.left_out, "rows": session.rows}
    out = Path(args.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    table = "\n".join(report(result)) + "\n"
    out.with_suffix(".md").write_text(table)
    print(table)


if __name__ == "__main__":
    main()
