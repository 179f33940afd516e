#!/usr/bin/env python3
"""The networks of voxmamba_cuda_bench in PyTorch on the same GPU: same weights, same input; time, memory, and how far
both programs' half-precision logits are from PyTorch's fp32 ones: relative L2, and where PyTorch's two largest logits lie
further apart than four times the RMS error, whether ours choose the same class.

    voxmamba_cuda_bench PanSegMamba --model F/PanSegMamba.safetensors --save F/PanSegMamba --precision fp16,bf16,fp32
    PYTHONPATH=<folder with mamba_ssm and causal_conv1d> cuda_torch.py F PanSegMamba --json torch.jsonl

Variants: autocast to fp16, eager, contiguous, as nnU-Net and the Mamba nets are run (their Mamba layers then compute in
fp32, as published); with --compiled, fp16 weights, channels-last, torch.compile. Needs torch and safetensors. The
medians are of device events with rotating inputs; cuDNN picks its engines by timing (cudnn.benchmark), as in nnU-Net.
"""

import argparse
import contextlib
import fcntl
import json
import statistics
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "models" / "reference"))

import torch  # noqa: E402
from safetensors import safe_open  # noqa: E402

import nets  # noqa: E402
import scan  # noqa: E402

HALF = {"fp16": torch.float16, "bf16": torch.bfloat16}
WARM_UP = 3


def load(path):
    with safe_open(path, "pt") as f:
        network = json.loads(f.metadata()["voxmamba"])["network"]
        net = nets.build(network)
        net.load_state_dict({k: f.get_tensor(k) for k in f.keys()})
    return network, net.eval().cuda()


def read_f32(path, patch, channels):
    """[z][y][x][c] to (1, c, z, y, x) on the GPU."""
    data = torch.frombuffer(bytearray(Path(path).read_bytes()), dtype=torch.float32)
    return data.reshape(*patch, channels).permute(3, 0, 1, 2)[None].contiguous().cuda()


@contextlib.contextmanager
def alone(path):
    """Holds the lock file while it measures, so that other processes may prepare themselves meanwhile."""
    if not path:
        yield
        return
    with open(path, "w") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        yield


def measure(net, inputs, runs):
    """Milliseconds of each run, and the peak of the memory that PyTorch allocated and reserved meanwhile."""
    times = []
    for k in range(WARM_UP + runs):
        if k == WARM_UP:
            torch.cuda.reset_peak_memory_stats()
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        net(inputs[k % len(inputs)])
        last.record()
        torch.cuda.synchronize()
        if k >= WARM_UP:
            times.append(first.elapsed_time(last))
    return times, torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()


def write(row, path):
    if path:
        with open(path, "a") as f:
            f.write(json.dumps(row) + "\n")


def report(args, name, precision, variant, measured):
    times, allocated, reserved = measured
    row = {"kind": "cuda_network", "engine": "torch", "torch": torch.__version__, "device": torch.cuda.get_device_name(),
           "cudnn": torch.backends.cudnn.version(), "network": name, "precision": precision, "variant": variant,
           "patch": args.patch, "fused_scan": scan._fused_scan is not None, "median_s": statistics.median(times) / 1e3,
           "min_s": min(times) / 1e3, "max_s": max(times) / 1e3, "runs_s": [t / 1e3 for t in times],
           "allocated_bytes": allocated, "reserved_bytes": reserved}
    print(f"torch {name:22} {precision} {variant}: {1e3 * row['median_s']:.3f} ms ({1e3 * row['min_s']:.3f} to "
          f"{1e3 * row['max_s']:.3f}, {len(times)} runs), peak {allocated / 1e6:.0f} MB, reserved {reserved / 1e6:.0f} MB",
          flush=True)
    write(row, args.json)


def relative(x, truth):
    return float((x.float() - truth).norm() / truth.norm())


def clear_voxels(x, truth):
    """Voxels whose two largest logits lie further apart than four times the RMS error of x, and how many of them get
    another class by x. (1, classes, z, y, x)"""
    best = truth.topk(2, dim=1)
    clear = best.values[:, 0] - best.values[:, 1] > 4 * (x.float() - truth).square().mean().sqrt()
    return int(clear.sum()), int((clear & (x.float().argmax(dim=1) != best.indices[:, 0])).sum())


def compare(args, name, precision, truth, theirs, classes):
    """Relative L2 distance to PyTorch's fp32 logits, PyTorch's and ours; and the classes that ours choose."""
    path = Path(args.folder, f"{name}.{precision}.logits.f32")
    if not path.exists():
        return
    ours = read_f32(path, args.patch, classes)
    row = {"kind": "cuda_error", "network": name, "precision": precision, "patch": args.patch, "ours": relative(ours, truth)}
    row["clear_voxels"], row["clear_wrong"] = clear_voxels(ours, truth)
    if theirs is not None:
        row["theirs"] = relative(theirs, truth)
        row["their_clear_voxels"], row["their_clear_wrong"] = clear_voxels(theirs, truth)
        row["ratio"] = row["ours"] / row["theirs"]
    print(f"error {name:22} {precision}: ours {row['ours']:.2e}" +
          (f", PyTorch's {row['theirs']:.2e}, ratio {row['ratio']:.2f}" if theirs is not None else "") +
          f"; another class in {row['clear_wrong']} of {row['clear_voxels']} clear voxels", flush=True)
    write(row, args.json)


def run_eager(args, name):
    network, net = load(Path(args.folder, f"{name}.safetensors"))
    first = read_f32(Path(args.folder, f"{name}.input.f32"), args.patch, network["in_channels"])
    inputs = [first, torch.randn_like(first), torch.randn_like(first)]
    torch.backends.cudnn.benchmark = False
    truth = net(first).float()
    torch.backends.cudnn.benchmark = True
    compare(args, name, "fp32", truth, None, network["classes"])
    for precision in args.precision:
        with torch.autocast("cuda", HALF[precision]):
            compare(args, name, precision, truth, net(first), network["classes"])
            if precision == "fp16":
                report(args, name, precision, "autocast, eager", measure(net, inputs, args.runs))


def run_compiled(args, name):
    network, net = load(Path(args.folder, f"{name}.safetensors"))
    inputs = [torch.randn(1, network["in_channels"], *args.patch, device="cuda", dtype=torch.half)
              .contiguous(memory_format=torch.channels_last_3d) for _ in range(3)]
    net = torch.compile(net.half().to(memory_format=torch.channels_last_3d), dynamic=False)
    net(inputs[0])
    torch.cuda.synchronize()
    with alone(args.lock):
        report(args, name, "fp16", "fp16 weights, channels-last, torch.compile", measure(net, inputs, args.runs))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="with NETWORK.safetensors, NETWORK.input.f32 and NETWORK.PRECISION.logits.f32")
    parser.add_argument("networks", nargs="+", metavar="NETWORK")
    parser.add_argument("--patch", type=lambda t: [int(v) for v in t.split(",")], default=[128, 128, 128], metavar="Z,Y,X")
    parser.add_argument("--precision", type=lambda t: t.split(","), default=["fp16"], help="fp16,bf16 (only fp16 is timed)")
    parser.add_argument("--compiled", action="store_true", help="the compiled variant instead of the eager one")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--lock", metavar="FILE", help="hold this file's lock while measuring")
    parser.add_argument("--json")
    args = parser.parse_args()
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    torch.manual_seed(1)
    with torch.inference_mode():
        if args.compiled:
            for name in args.networks:
                run_compiled(args, name)
            return
        with alone(args.lock):
            for name in args.networks:
                run_eager(args, name)
                torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
