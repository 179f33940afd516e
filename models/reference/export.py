"""Checkpoint + recipe -> one VoxMamba model file (models/FORMAT.md).

    python export.py --checkpoint RUN/checkpoint.pt --out hippocampus.safetensors --dtype fp16 [--set KEY=JSON ...]

The checkpoint's EMA weights and its own recipe are taken; --set fills recipe keys in (a dotted path), for
example --set 'provenance.trained="6000 steps"'. Heads that serve deep supervision only are left out.
"""

import argparse
import json
import struct
from pathlib import Path

import torch

from nets import build

DTYPES = {"fp32": (torch.float32, "F32"), "fp16": (torch.float16, "F16"), "bf16": (torch.bfloat16, "BF16")}


def write_safetensors(path, tensors, metadata):
    """Plain safetensors: u64 header length, JSON header padded with spaces to 8 bytes, tensors without gaps.

    `tensors` maps names to contiguous CPU tensors of float32, float16, bfloat16 or int32.
    """
    names = {t: n for t, n in DTYPES.values()} | {torch.int32: "I32"}
    header, end = {"__metadata__": metadata}, 0
    for name, t in tensors.items():
        begin, end = end, end + t.numel() * t.element_size()
        header[name] = {"dtype": names[t.dtype], "shape": list(t.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for t in tensors.values():
            f.write(t.reshape(-1).view(torch.uint8).numpy().tobytes())


def write_model(path, state, recipe, dtype, all_heads=False):
    """Model file from a state dict; refuses weights that the storage type cannot hold."""
    last = f"decoder.seg_layers.{len(recipe['network']['decoder_blocks']) - 1}."
    tensors = {}
    for name, t in state.items():
        if name.startswith("decoder.seg_layers.") and not (all_heads or name.startswith(last)):
            continue
        stored = t.detach().cpu().to(DTYPES[dtype][0]).contiguous()
        if not torch.isfinite(stored).all():
            raise ValueError(f"{name} does not fit {dtype}")
        tensors[name] = stored
    write_safetensors(path, tensors, {"voxmamba": json.dumps(recipe, ensure_ascii=False)})


def checkpoint_weights(state):
    """EMA weights of a trainer's checkpoint under their state-dict names."""
    net = build(state["recipe"]["network"])
    names = [n for n, _ in net.named_parameters()]
    return dict(zip(names, (a.cpu() for a in state["average"])))


def set_key(recipe, assignment):
    """'a.b=JSON' -> recipe['a']['b'] = value."""
    path, value = assignment.split("=", 1)
    *parents, key = path.split(".")
    for parent in parents:
        recipe = recipe.setdefault(parent, {})
    recipe[key] = json.loads(value)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--checkpoint", type=Path, required=True)
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--dtype", choices=DTYPES, default="fp16")
    p.add_argument("--set", action="append", default=[], metavar="KEY=JSON")
    args = p.parse_args()
    state = torch.load(args.checkpoint, map_location="cpu")
    for assignment in args.set:
        set_key(state["recipe"], assignment)
    write_model(args.out, checkpoint_weights(state), state["recipe"], args.dtype)
    print(f"{args.out}: {args.out.stat().st_size:,} bytes, step {state['step']}")


if __name__ == "__main__":
    main()
