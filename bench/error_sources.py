#!/usr/bin/env python3
"""Which roundings to a half type make the error of the CUDA side's logits: a simulation in PyTorch on the CPU.

    error_sources.py SegMambaSkip.safetensors --patch 64,64,64 --alone --candidates
    error_sources.py SegMambaSkip.safetensors --type bf16 --round all --round 'all -w_conv@e1,e2,d1'
    error_sources.py hippocampus.safetensors --volume hippocampus_380.nii.gz --stages

The network of models/reference/nets.py is computed in fp32, and numbers are rounded where the CUDA backend stores or
multiplies a half type (PLACES, below). Printed is the relative L2 distance of the logits to the network's own in fp32,
and, as in bench/peers/cuda_torch.py, how many voxels get another class whose two largest logits lie further apart
than four times the RMS error. The input is random unless --input names one. Models: `voxmamba_cuda_bench NETWORK
--model FILE` (it makes FILE before it looks for a GPU), or a shipped one.

A set of roundings is written as words: `all`, `none`, a group or a place of PLACES, each with an optional @ and the
stages it holds for (stem: input and first convolution, e0: the encoder's stage at the full grid, with its Mamba layer,
d0: the decoder's last; e, d: all of them); a word with - before it takes away again. Needs torch and safetensors,
--volume nibabel, and the first run a C++ compiler.
"""

import argparse
import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE / "peers"), str(HERE.parent / "models" / "reference")]

import torch  # noqa: E402
from safetensors import safe_open  # noqa: E402
from torch.nn import functional as F  # noqa: E402

import nets  # noqa: E402
import torch_scans  # noqa: E402

TYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}

# What is rounded, by group. Statistics, sums, the scan's state and the head's weights are fp32 on the device.
PLACES = {
    "conv_weights": {
        "w_conv": "weights of convolutions",
        "w_up": "weights of transposed convolutions",
    },
    "conv_values": {
        "image": "the network's input",
        "conv_out": "a convolution's output, before its norm",
        "act": "after norm and activation, inside a block: what the next convolution multiplies",
        "pool": "average pooling of a block's skip",
        "skip_out": "the skip's 1x1x1 convolution, before its norm",
        "skip": "the same after its norm: what is added",
        "block": "a block's output",
        "up": "a transposed convolution's output",
    },
    "mamba_weights": {
        "w_in": "in_proj",
        "w_x": "x_proj",
        "w_dt": "dt_proj (where delta is written: R of 4 and more)",
        "w_out": "out_proj",
        "w_head": "head",
    },
    "mamba_values": {
        "v": "normalised x, input of in_proj",
        "z": "gate",
        "u": "after convolution and SiLU",
        "bc": "B and C",
        "dt": "dt",
        "delta": "delta, before bias and softplus (R of 4 and more)",
        "y": "gated output of the scan, input of out_proj",
        "v2": "normalised, input of the head",
        "layer": "the layer's output",
        "sum": "sums of a MultiSegMamba layer's four parts",
    },
}
ALL = [place for group in PLACES.values() for place in group]
STAGES = ["stem"] + [side + str(s) for side in "ed" for s in range(8)]


# ---------------------------------------------------------------------------------------------- sets of roundings
def parse_set(text):
    """{place: set of stages} of words such as `all -conv_out@e0,d`."""
    chosen = {}
    for word in text.split():
        name, _, stages = word.lstrip("-").partition("@")
        where = {s for s in STAGES if not stages or any(s.startswith(w) for w in stages.split(","))}
        places = {"all": ALL, "none": [], **PLACES, **{place: [place] for place in ALL}}.get(name)
        if places is None or not where:
            sys.exit(f"error_sources.py: {word} is not understood")
        for place in places:
            old = chosen.get(place, set())
            chosen[place] = old - where if word.startswith("-") else old | where
    return chosen


class Rounding:
    """rounding(place, stage, x): x as the device has it there. places: of parse_set; stage: e0, d0, ..."""

    def __init__(self, dtype, places):
        self.dtype, self.places = dtype, places

    def __call__(self, place, stage, x):
        return x.to(self.dtype).float() if stage in self.places.get(place, ()) else x


# ---------------------------------------------------------------------------------------------- convolutions
def conv_norm(m, x, stage, r, out="conv_out"):
    """Convolution and instance norm; a bias before the norm cancels and is dropped, as on the device."""
    x = F.conv3d(x, r("w_conv", stage, m.conv.weight), None, m.conv.stride, m.conv.padding)
    return F.instance_norm(r(out, stage, x), weight=m.norm.weight, bias=m.norm.bias, eps=m.norm.eps)


def conv_norm_act(m, x, stage, r):
    return r("act", stage, F.leaky_relu(conv_norm(m, x, stage, r), 0.01))


def residual_block(m, x, stage, r):
    y = conv_norm(m.conv2, conv_norm_act(m.conv1, x, stage, r), stage, r)
    for part in m.skip:
        x = (r("pool", stage, part(x)) if isinstance(part, torch.nn.AvgPool3d) else
             r("skip", stage, conv_norm(part, x, stage, r, "skip_out")))
    return r("block", stage, F.leaky_relu(y + x, 0.01))


def convolutions(m, x, stage, r):
    """A stage or the stem: StackedConvs, StackedResidualBlocks, or a Sequential of them."""
    if isinstance(m, nets.StackedResidualBlocks):
        for block in m.blocks:
            x = residual_block(block, x, stage, r)
        return x
    for conv in m.convs if isinstance(m, nets.StackedConvs) else m[0].convs:
        x = conv_norm_act(conv, x, stage, r)
    return x


# ---------------------------------------------------------------------------------------------- Mamba
def layer_norm(m, x):
    return F.layer_norm(x, x.shape[-1:], m.weight, m.bias, m.eps)


def mamba(m, v, stage, r):
    """out_proj's output, fp32. v: tokens (1, L, C)."""
    rank, states, _ = m.splits
    v = r("v", stage, v).transpose(1, 2)
    u, z = (r("w_in", stage, m.in_proj.weight) @ v).chunk(2, 1)
    u = r("u", stage, nets.causal_conv_silu(u, m.conv1d.weight, m.conv1d.bias))
    z = r("z", stage, z)
    dt, b, c = (r("w_x", stage, m.x_proj.weight) @ u).split(m.splits, 1)
    dt, b, c = r("dt", stage, dt), r("bc", stage, b), r("bc", stage, c)
    if rank < 4:  # the scan makes delta itself
        delta = m.dt_proj.weight @ dt
    else:
        delta = r("delta", stage, r("w_dt", stage, m.dt_proj.weight) @ dt)
    y = torch_scans.scan_loop(u, delta, -torch.exp(m.A_log), b.contiguous(), c.contiguous(), m.D, z, m.dt_proj.bias)
    return F.linear(r("y", stage, y.transpose(1, 2)), r("w_out", stage, m.out_proj.weight))


def mamba_trans(m, x, stage, r):
    h = mamba(m.mamba, layer_norm(m.norm1, x), stage, r) + x
    v2 = r("v2", stage, layer_norm(m.norm2, h))
    return F.linear(v2, r("w_head", stage, m.head.weight), m.head.bias) + h


def tokens_layer(m, x, stage, r):
    """A layer of tokens that leaves one kernel on the device: any of nets.py's inner layers."""
    if isinstance(m, nets.PanMambaTrans):
        both = mamba_trans(m.fwd_mamba, x, stage, r) + mamba_trans(m.bwd_mamba, x.flip(1), stage, r).flip(1)
        return r("layer", stage, layer_norm(m.norm, both))
    if isinstance(m, nets.MambaTrans):
        return r("layer", stage, mamba_trans(m, x, stage, r))
    return r("layer", stage, mamba(m, x, stage, r))


def mamba_layer(m, x, stage, r):
    dims = x.shape[2:]
    if isinstance(m, torch.nn.Identity):
        return x
    if isinstance(m, nets.MambaLayer):
        return nets.from_tokens(tokens_layer(m.mamba, layer_norm(m.norm, nets.to_tokens(x)), stage, r), dims)
    sum_ = None
    for part, order in zip(m.mambas, nets.MULTI_ORDERS):
        y = nets.from_tokens(tokens_layer(part, nets.to_tokens(x, order), stage, r), dims, order)
        last = part is m.mambas[-1]
        sum_ = y if sum_ is None else r("sum", stage, (sum_ + y) / (4 if last else 1))
    return sum_


# ---------------------------------------------------------------------------------------------- networks
def logits(net, x, r):
    """net(x) with roundings, (1, classes, z, y, x)."""
    encoder, decoder = net.encoder, net.decoder
    x = r("image", "stem", x)
    if hasattr(encoder, "stem"):
        x = convolutions(encoder.stem, x, "stem", r)
    skips = []
    for s, m in enumerate(encoder.stages):
        x = convolutions(m, x, f"e{s}", r)
        y = x if encoder.family == "none" else mamba_layer(encoder.mamba_layers[s], x, f"e{s}", r)
        skips.append(y)
        x = x if encoder.family == "segmamba_skip" else y
    x = skips.pop()
    for up, m in zip(decoder.transpconvs, decoder.stages):
        stage = f"d{len(skips) - 1}"
        x = r("up", stage, F.conv_transpose3d(x, r("w_up", stage, up.weight), up.bias, up.stride))
        x = convolutions(m, torch.cat((x, skips.pop()), 1), stage, r)
    return decoder.seg_layers[-1](x)


def load(path, with_mamba):
    """The recipe and the network, without Mamba layers if they are not wanted."""
    with safe_open(path, "pt") as f:
        recipe = json.loads(f.metadata()["voxmamba"])
        tensors = {k: f.get_tensor(k).float() for k in f.keys() if with_mamba or ".mamba_layers." not in k}
    if not with_mamba:
        recipe["network"]["mamba"]["family"] = "none"
    net = nets.build(recipe["network"])
    found = net.load_state_dict(tensors, strict=False)
    missing = [k for k in found.missing_keys if not k.startswith("decoder.seg_layers.")]  # of training alone
    if missing or found.unexpected_keys:
        sys.exit(f"error_sources.py: {path} has no {missing}, but {found.unexpected_keys}")
    return recipe, net.eval()


def read_volume(path, patch):
    """(1, 1, z, y, x): RAS, z-scored, its middle cut or filled up with zeros to the patch."""
    import nibabel  # only here

    image = nibabel.as_closest_canonical(nibabel.load(path)).get_fdata(dtype="float32")
    x = torch.from_numpy(image).permute(2, 1, 0)
    x = (x - x.mean()) / x.std()
    for axis, size in enumerate(patch):
        length = min(size, x.shape[axis])
        x = x.narrow(axis, (x.shape[axis] - length) // 2, length)
    missing = [patch[axis] - x.shape[axis] for axis in (2, 1, 0)]
    return F.pad(x, [n for m in missing for n in (m // 2, m - m // 2)])[None, None]


def compare(x, truth):
    """Relative L2; voxels whose class should not change, and those of them whose class does; all whose class does."""
    error = (x - truth).square().mean().sqrt()
    best = truth.topk(2, dim=1)
    clear = best.values[:, 0] - best.values[:, 1] > 4 * error
    wrong = x.argmax(1) != best.indices[:, 0]
    return {"error": float((x - truth).norm() / truth.norm()), "clear": int(clear.sum()),
            "clear_wrong": int((clear & wrong).sum()), "wrong": int(wrong.sum()), "voxels": wrong.numel()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a model file with its recipe")
    parser.add_argument("--patch", type=lambda t: [int(v) for v in t.split(",")], metavar="Z,Y,X",
                        help="default: the recipe's")
    parser.add_argument("--type", choices=TYPES, default="fp16")
    parser.add_argument("--volume", metavar="FILE", help="an image in the model's spacing, for the patch in its "
                        "middle; otherwise the input is normal random numbers")
    parser.add_argument("--without-mamba", dest="mamba", action="store_false", help="the same network and "
                        "weights without its Mamba layers")
    parser.add_argument("--alone", action="store_true", help="each group and each place alone")
    parser.add_argument("--stages", action="store_true", help="all roundings of each stage alone")
    parser.add_argument("--round", action="append", default=[], metavar="SET", help="a set; may be repeated")
    parser.add_argument("--json", metavar="FILE", help="append one object a set")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    nets.selective_scan = torch_scans.scan_loop
    recipe, net = load(args.model, args.mamba)
    patch, network = args.patch or recipe["patch_zyx"], recipe["network"]
    x = read_volume(args.volume, patch) if args.volume else torch.randn(1, network["in_channels"], *patch)
    count = len(network["features"])
    stages = ["stem"] + [f"e{s}" for s in range(count)] + [f"d{s}" for s in reversed(range(count - 1))]
    sets = args.round + (args.alone and [*PLACES, *ALL] or []) + (args.stages and [f"all@{s}" for s in stages] or [])
    with torch.inference_mode():
        truth = net(x)
        for text in sets:
            row = compare(logits(net, x, Rounding(TYPES[args.type], parse_set(text))), truth)
            print(f"{row['error']:.3e}  another class in {row['wrong']:7} voxels, {row['clear_wrong']:4} of them of "
                  f"{row['clear']} clear ones   {text}", flush=True)
            if args.json:
                with open(args.json, "a") as f:
                    f.write(json.dumps({"kind": "error_source", "model": Path(args.model).stem, "mamba": args.mamba,
                                        "patch": patch, "type": args.type, "round": text} | row) + "\n")


if __name__ == "__main__":
    main()
