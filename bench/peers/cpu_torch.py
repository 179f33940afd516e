#!/usr/bin/env python3
"""The networks and ops of voxmamba_bench in PyTorch on the CPU: same shapes, same threads; networks with the
same weights and input, and their logits compared.

    voxmamba_bench network --save /tmp/skip --json ours.jsonl
    cpu_torch.py network /tmp/skip --layout channels_last --mode compile --scan loop --json torch.jsonl

    voxmamba_bench ops --json ours.jsonl
    cpu_torch.py ops ours.jsonl --json torch.jsonl

    voxmamba_bench network --precision bf16 --save /tmp/skip
    cpu_torch.py error /tmp/skip

A network variant is one process, so that its peak memory is its own. Needs torch and safetensors.
"""

import argparse
import gc
import json
import statistics
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "models" / "reference")]

import torch  # noqa: E402
import torch._inductor.compile_fx  # noqa: E402, F401  its import is not the network's memory
from torch.nn import functional as F  # noqa: E402

import nets  # noqa: E402
import torch_scans  # noqa: E402
from safetensors import safe_open  # noqa: E402

# Logits may differ from ours by this much (relative L2). bf16 rounds to 3e-3 a number.
AGREEMENT = {"fp32": 1e-3, "bf16": 1e-1, "bf16-weights": 1e-1}


def status_bytes(name):
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return 1024 * int(line.split()[1])
    return 0


def forget_peak():
    """VmHWM starts anew from what is resident now."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")


def has_bf16():
    """Computes in bfloat16 in hardware (else PyTorch emulates it, more slowly than fp32)."""
    return any(f in Path("/proc/cpuinfo").read_text() for f in (" avx512_bf16", " amx_bf16"))


def timed(run, runs, seconds):
    """Seconds of each of at most `runs` runs, after a warm-up that has been done."""
    times, start = [], time.perf_counter()
    while len(times) < min(runs, 3) or (len(times) < runs and time.perf_counter() - start < seconds):
        begin = time.perf_counter()
        run(len(times))
        times.append(time.perf_counter() - begin)
    return times


def with_times(row, times):
    return row | {"median_s": statistics.median(times), "min_s": min(times), "max_s": max(times),
                  "runs_s": times}


def write(row, path):
    if path:
        with open(path, "a") as f:
            f.write(json.dumps(row) + "\n")


def to_layout(x, layout):
    return x.contiguous(memory_format=torch.channels_last_3d) if layout == "channels_last" else x


# ---------------------------------------------------------------------------------------------- networks
def read_f32(path, shape):
    return torch.frombuffer(bytearray(Path(path).read_bytes()), dtype=torch.float32).reshape(shape)


def load(prefix):
    """Recipe's network, the net with the weights of PREFIX.safetensors."""
    with safe_open(f"{prefix}.safetensors", "pt") as f:
        network = json.loads(f.metadata()["voxmamba"])["network"]
        net = nets.build(network)
        net.load_state_dict({k: f.get_tensor(k) for k in f.keys()})
    return network, net.eval()


def network_row(args, network, patch):
    mamba = network["mamba"]["family"]
    scan = args.scan if mamba != "none" else None
    variant = ", ".join(filter(None, (args.layout, args.mode, scan and f"{scan} scan")))
    return {"kind": "network", "engine": "torch", "torch": torch.__version__, "variant": variant, "layout": args.layout,
            "mode": args.mode, "scan": scan, "family": mamba, "width": network["features"][0],
            "classes": network["classes"], "patch": patch, "precision": args.precision,
            "threads": torch.get_num_threads(), "capability": torch.backends.cpu.get_cpu_capability()}


def agree(difference, precision):
    if not difference < AGREEMENT[precision]:
        sys.exit(f"cpu_torch.py: the logits differ by {difference:.1e}: not the same network")


def run_network(args):
    nets.selective_scan = torch_scans.SCANS[args.scan]
    base = status_bytes("VmRSS")
    network, net = load(args.prefix)
    dims = (*args.patch, network["in_channels"])
    first = read_f32(f"{args.prefix}.input.f32", dims).permute(3, 0, 1, 2)[None].contiguous()
    inputs = [to_layout(x, args.layout) for x in (first, torch.randn_like(first))]
    if args.layout == "channels_last":
        net = net.to(memory_format=torch.channels_last_3d)
    if args.precision == "bf16-weights":
        net, inputs = net.bfloat16(), [x.bfloat16() for x in inputs]
    if args.mode == "compile":
        net = torch.compile(net, dynamic=False)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=args.precision == "bf16"):
        begin = time.perf_counter()
        logits = net(inputs[0]).float().permute(0, 2, 3, 4, 1).contiguous()
        warm = time.perf_counter() - begin
        ours = read_f32(f"{args.prefix}.logits.f32", logits.shape)
        difference = float((logits - ours).norm() / ours.norm())
        del logits, ours
        agree(difference, args.precision)
        if args.warm_up_only:
            print(f"torch {args.prefix} {args.layout}, {args.mode}, {args.scan}: ready after {warm:.1f} s", flush=True)
            return
        whole_peak = status_bytes("VmHWM")
        forget_peak()
        times = timed(lambda k: net(inputs[(k + 1) % 2]), args.runs, args.seconds)
    row = with_times(network_row(args, network, list(args.patch)), times)
    peak = status_bytes("VmHWM") - base
    row |= {"warm_up_s": warm, "difference": difference, "rss_import_bytes": base, "rss_peak_bytes": peak,
            "rss_whole_peak_bytes": max(peak, whole_peak - base)}
    print(f"torch {row['family']} {'x'.join(map(str, args.patch))} {args.precision}, {row['variant']}: "
          f"{row['median_s']:.3f} s ({row['min_s']:.3f} to {row['max_s']:.3f}, {len(times)} runs), "
          f"peak {row['rss_peak_bytes'] / 1e6:.0f} MB ({row['rss_whole_peak_bytes'] / 1e6:.0f} with the warm-up), "
          f"warm-up {warm:.1f} s, logits differ by {difference:.1e}", flush=True)
    write(row, args.json)


def run_error(args):
    """How far bf16 logits are from PyTorch's fp32 ones: ours, which voxmamba_bench has saved, and autocast's."""
    nets.selective_scan = torch_scans.SCANS[args.scan]
    network, net = load(args.prefix)
    x = read_f32(f"{args.prefix}.input.f32", (*args.patch, network["in_channels"])).permute(3, 0, 1, 2)[None].contiguous()
    with torch.inference_mode():
        truth = net(x).float()
        with torch.autocast("cpu", torch.bfloat16):
            theirs = net(x).float()
    ours = read_f32(f"{args.prefix}.logits.f32", (*args.patch, network["classes"])).permute(3, 0, 1, 2)[None]
    row = {"kind": "error", "engine": "torch", "family": network["mamba"]["family"], "patch": list(args.patch),
           "precision": "bf16", "ours": float((ours - truth).norm() / truth.norm()),
           "theirs": float((theirs - truth).norm() / truth.norm())}
    print(f"{row['family']} {'x'.join(map(str, args.patch))} bf16: logits off by {row['ours']:.2e}, PyTorch's autocast by "
          f"{row['theirs']:.2e}", flush=True)
    write(row, args.json)


# ---------------------------------------------------------------------------------------------- single ops
def op_module(case):
    """A function of x for the op, its weights random, and the variants to try: (layout, mode, scan)."""
    op, c_in, c_out = case["op"], case["c_in"], case["c_out"]
    plain = [("contiguous", "eager", None), ("channels_last", "eager", None)]
    conv = torch.randn(c_out, c_in, 3, 3, 3) * (2 / (27 * c_in)) ** 0.5
    gamma, beta = torch.rand(c_out), torch.rand(c_out)
    if op == "conv":
        return lambda x: F.conv3d(x, conv, padding=1), plain
    if op == "conv_norm_act":
        return (lambda x: F.leaky_relu(F.instance_norm(F.conv3d(x, conv, padding=1), weight=gamma, bias=beta), 0.01),
                plain + [("contiguous", "compile", None), ("channels_last", "compile", None)])
    if op == "transposed_conv":
        up = torch.randn(c_in, c_out, 2, 2, 2)
        return lambda x: F.conv_transpose3d(x, up, beta, stride=2), plain
    if op == "instance_norm":
        return (lambda x: F.instance_norm(x, weight=gamma, bias=beta),
                plain + [("channels_last", "compile", None)])
    if op == "layer_norm":  # over tokens, as ours
        return lambda x: F.layer_norm(x, (c_in,), gamma, beta), [("tokens", "eager", None), ("tokens", "compile", None)]
    if op == "linear":
        head = torch.randn(c_out, c_in)
        return lambda x: F.linear(x, head, beta), [("tokens", "eager", None)]
    mixer = nets.Mamba(c_in, case["d_state"]).eval()
    # The slow ones are not waited for on the large grids.
    states = 2 * c_in * case["d_state"] * case["grid"][0] * case["grid"][1] * case["grid"][2]
    scans = ["loop", "chunked", "associative"] if states < 4e8 else ["loop"]
    return mixer, [("tokens", "eager", scan) for scan in scans]


def run_op(case, args):
    function, variants = op_module(case)
    for layout, mode, scan in variants:
        shape = (1, case["c_in"], *case["grid"])
        if layout == "tokens":
            shape = (1, case["grid"][0] * case["grid"][1] * case["grid"][2], case["c_in"])
        inputs = [to_layout(torch.randn(shape), layout) for _ in range(2)]
        nets.selective_scan = torch_scans.SCANS[scan or "loop"]
        call = torch.compile(function, dynamic=False) if mode == "compile" else function
        with torch.inference_mode():
            call(inputs[0])
            times = timed(lambda k: call(inputs[(k + 1) % 2]), args.runs, args.seconds)
        keys = ("op", "grid", "c_in", "c_out", "d_state", "gflop", "state_updates")
        row = {"kind": "op", "engine": "torch"} | {k: case[k] for k in keys}
        row |= {"layout": layout, "mode": mode, "scan": scan, "threads": torch.get_num_threads(),
                "precision": "fp32", "variant": ", ".join(filter(None, (layout, mode, scan)))}
        row = with_times(row, times)
        print(f"torch {case['op']:16} {'x'.join(map(str, case['grid'])):11} {case['c_in']}->{case['c_out']} "
              f"N={case['d_state']} {row['variant']}: {1e3 * row['median_s']:.2f} ms", flush=True)
        write(row, args.json)


def run_ops(args):
    with open(args.like) as f:
        rows = [json.loads(line) for line in f]
    for case in rows:
        if case["kind"] == "op" and case["engine"] == "voxmamba" and case["precision"] == "fp32":
            run_op(case, args)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    one = verbs.add_parser("network", help="one variant of one network")
    one.add_argument("prefix", help="what voxmamba_bench --save wrote")
    one.add_argument("--patch", type=lambda t: tuple(map(int, t.split(","))), default=(40, 56, 40), metavar="Z,Y,X")
    one.add_argument("--layout", choices=("contiguous", "channels_last"), default="contiguous")
    one.add_argument("--mode", choices=("eager", "compile"), default="eager")
    one.add_argument("--scan", choices=tuple(torch_scans.SCANS), default="loop")
    one.add_argument("--precision", choices=tuple(AGREEMENT), default="fp32")
    one.add_argument("--warm-up-only", action="store_true", help="compile, check the logits, and stop")
    error = verbs.add_parser("error", help="rounding error of bf16: ours, saved by voxmamba_bench, and autocast's")
    error.add_argument("prefix", help="what voxmamba_bench --precision bf16 --save wrote")
    error.add_argument("--patch", type=lambda t: tuple(map(int, t.split(","))), default=(40, 56, 40), metavar="Z,Y,X")
    error.add_argument("--scan", choices=tuple(torch_scans.SCANS), default="loop")
    many = verbs.add_parser("ops", help="every op of a results file")
    many.add_argument("like", help="the lines that voxmamba_bench ops --json wrote")
    for p in (one, error, many):
        p.add_argument("--threads", type=int, default=0, help="default: PyTorch's own choice")
        p.add_argument("--runs", type=int, default=5)
        p.add_argument("--seconds", type=float, default=2.0)
        p.add_argument("--json")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    if args.verb == "ops":
        run_ops(args)
    elif args.verb == "error":
        run_error(args)
    elif args.precision != "fp32" and not has_bf16():
        print("torch: this processor has no bf16 arithmetic, left out")
    else:
        run_network(args)


if __name__ == "__main__":
    main()
