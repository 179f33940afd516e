"""Times mamba_ssm's selective_scan_fn at the shapes of bench/cuda_scan.cu, on the same device.

    PYTHONPATH=<folder with mamba_ssm> python3 bench/peers/scan_peers.py [--json FILE] [--quick | --sweep]

The stock kernel takes (batch, D, length) tensors and one batch entry a direction; softplus, bias,
skip and gate are inside, as in ours. Medians of device events, random data in the same ranges.
"""
import argparse
import json
import math

import torch
from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

SHAPES = [  # tokens, D, N, directions
    (128**3, 64, 16, 1), (128**3, 64, 32, 1), (64**3, 128, 64, 1),
    (64**3, 128, 16, 1), (32**3, 256, 16, 1), (32**3, 256, 64, 1), (16**3, 512, 64, 1),
    (128**3, 64, 32, 2), (64**3, 128, 64, 2), (32**3, 256, 128, 2), (16**3, 512, 256, 2),
    (8**3, 640, 256, 2), (4**3, 640, 256, 2),
]

SWEEP = [(side**3, 64, 16, 1) for side in (8, 16, 24, 32, 48, 64, 96, 128, 160)]


def measure(length, d, n, directions, repeats):
    make = dict(device="cuda", dtype=torch.float16)
    u, z = (torch.randn(directions, d, length, **make) for _ in range(2))
    delta = torch.randn(directions, d, length, **make) * 0.3
    b, c = (torch.randn(directions, 1, n, length, **make) for _ in range(2))
    start = torch.exp(math.log(1e-3) + torch.rand(d, device="cuda") * math.log(100))
    bias = torch.log(torch.expm1(start))
    a = -torch.arange(1, n + 1, device="cuda", dtype=torch.float32).repeat(d, 1).contiguous()
    skip = torch.rand(d, device="cuda")
    times = []
    for i in range(repeats + 2):
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        selective_scan_fn(u, delta, a, b, c, skip, z=z, delta_bias=bias, delta_softplus=True)
        last.record()
        torch.cuda.synchronize()
        if i >= 2:
            times.append(first.elapsed_time(last))
    times.sort()
    return times


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--sweep", action="store_true", help="cubes of growing size, for bench/plot_scan.py")
    args = parser.parse_args()
    out = open(args.json, "a") if args.json else None
    torch.manual_seed(0)
    for length, d, n, directions in SWEEP if args.sweep else SHAPES[:3] if args.quick else SHAPES:
        times = measure(length, d, n, directions, 5 if args.quick else 9)
        ms = times[len(times) // 2]
        print(f"mamba_ssm    tokens {length:8d} D{d:4d} N{n:4d} dirs {directions}  {ms:8.4f} ms")
        if out:
            out.write(json.dumps({
                "variant": "mamba_ssm", "device": torch.cuda.get_device_name(),
                "tokens": length, "D": d, "N": n, "directions": directions, "type": "fp16",
                "ms": ms, "ms_min": times[0], "ms_max": times[-1], "repeats": len(times)}) + "\n")


if __name__ == "__main__":
    main()
