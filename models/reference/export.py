"""Trained weights + recipe -> one VoxMamba model file (models/FORMAT.md).

    python export.py RUN/checkpoint.pt --out hippocampus.safetensors [--dtype fp16] [--recipe FILE] [--set KEY=JSON ...]

Of a trainer's checkpoint the EMA weights are taken; a model file (.safetensors) gives its weights as they are,
to change its recipe or its storage type. --recipe replaces all of the recipe but its network; --set fills keys
in (a dotted path), for example --set 'provenance.trained="6000 steps"'. Heads that serve deep supervision only
are left out.
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


def read_safetensors(path):
    """-> ({name: tensor}, metadata) of a file that write_safetensors could have written."""
    raw = Path(path).read_bytes()
    size, = struct.unpack_from("<Q", raw)
    header = json.loads(raw[8:8 + size])
    metadata = header.pop("__metadata__", {})
    data = torch.frombuffer(bytearray(raw[8 + size:]), dtype=torch.uint8)
    types = {name: t for t, name in DTYPES.values()}
    return {n: data[slice(*h["data_offsets"])].view(types[h["dtype"]]).reshape(h["shape"])
            for n, h in header.items()}, metadata


def read_trained(path):
    """-> (state dict, recipe) of a trainer's checkpoint (its EMA weights) or of a model file."""
    if path.suffix == ".safetensors":
        tensors, metadata = read_safetensors(path)
        return tensors, json.loads(metadata["voxmamba"])
    state = torch.load(path, map_location="cpu")
    names = [n for n, _ in build(state["recipe"]["network"]).named_parameters()]
    return dict(zip(names, state["average"])), state["recipe"]


def set_key(recipe, assignment):
    """'a.b=JSON' -> recipe['a']['b'] = value."""
    path, value = assignment.split("=", 1)
    *parents, key = path.split(".")
    for parent in parents:
        recipe = recipe.setdefault(parent, {})
    recipe[key] = json.loads(value)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("trained", type=Path, metavar="CHECKPOINT_OR_MODEL")
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--dtype", choices=DTYPES, default="fp16")
    p.add_argument("--recipe", type=Path)
    p.add_argument("--set", action="append", default=[], metavar="KEY=JSON")
    args = p.parse_args()
    weights, recipe = read_trained(args.trained)
    if args.recipe:
        recipe = json.loads(args.recipe.read_text()) | {"network": recipe["network"]}
    for assignment in args.set:
        set_key(recipe, assignment)
    write_model(args.out, weights, recipe, args.dtype)
    print(f"{args.out}: {args.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
