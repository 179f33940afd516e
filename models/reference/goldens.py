"""Writes tests/golden/layers: small random-weight nets with the output of each layer, and single ops.

    python goldens.py            write
    python goldens.py --check  compute again, compare with the files (1e-6 relative L2), write nothing

The format is in tests/golden/layers/README.md. Everything is computed in float64 from the weights as stored and
rounded to float32 once.
"""

import argparse
import json
import sys
from pathlib import Path

import torch
import torch.nn.functional as F

from export import DTYPES, read_safetensors, write_model, write_safetensors
from nets import Mamba, build, from_tokens, to_tokens
from scan import causal_conv_silu, selective_scan_sequential

FOLDER = Path(__file__).resolve().parents[2] / "tests" / "golden" / "layers"

ISO = [[3, 3, 3]] * 3
HALVE = [[1, 1, 1], [2, 2, 2], [2, 2, 2]]
FLAT_FIRST = [[1, 1, 1], [1, 2, 2], [2, 2, 2]]

# Shapes differ from net to net on purpose: widths that are no multiple of 8 or 16, anisotropic kernels, strides
# and patches, state sizes above and below the width, other d_conv and expand, all storage types.
NETS = {
    "plain": dict(shell="plain", family="none", features=[5, 9, 14], kernels=[[1, 3, 3], [3, 5, 3], [3, 3, 3]],
                  strides=FLAT_FIRST, encoder=[2, 1, 3], decoder=[2, 1], classes=5, patch=[10, 12, 20],
                  dtype="fp32", all_heads=True),
    "residual_unet": dict(shell="residual_unet", family="none", features=[6, 11, 16], kernels=ISO, strides=HALVE,
                          encoder=[1, 3, 2], decoder=[1, 1], classes=3, patch=[12, 16, 8], dtype="fp32",
                          conv_bias=False),
    "twin": dict(shell="residual_encoder", family="none", features=[8, 12, 20], kernels=ISO, strides=HALVE,
                 encoder=[2, 2, 2], decoder=[2, 2], classes=4, patch=[12, 16, 20], dtype="fp32"),
    "segmamba_skip": dict(shell="residual_encoder", family="segmamba_skip", features=[8, 12, 20], kernels=ISO,
                          strides=HALVE, encoder=[2, 2, 2], decoder=[2, 2], classes=4, patch=[12, 16, 20],
                          dtype="fp32"),
    "pan_segmamba": dict(shell="residual_encoder", family="pan_segmamba", features=[7, 13, 17],
                         kernels=[[1, 3, 3], [3, 3, 3], [3, 3, 3]], strides=FLAT_FIRST, encoder=[1, 2, 1],
                         decoder=[1, 2], classes=3, patch=[6, 20, 12], dtype="fp16", d_state_max=11),
    "segmamba": dict(shell="residual_encoder", family="segmamba", features=[8, 16, 18], kernels=ISO, strides=HALVE,
                     encoder=[1, 1, 2], decoder=[1, 1], classes=5, patch=[16, 8, 12], dtype="bf16", d_conv=3),
    "multi_segmamba": dict(shell="residual_encoder", family="multi_segmamba", features=[6, 10], kernels=ISO[:2],
                           strides=[[1, 1, 1], [2, 1, 2]], encoder=[1, 2], decoder=[1], classes=3,
                           patch=[10, 9, 14], dtype="fp32", d_state_max=8, expand=1),
    "umamba_bot": dict(shell="residual_encoder", family="umamba_bot", features=[8, 12, 20], kernels=ISO,
                       strides=HALVE, encoder=[1, 2, 1], decoder=[2, 1], classes=3, patch=[8, 12, 16],
                       dtype="fp32", d_state_max=16),
}


def recipe_of(name, net):
    """A recipe that a reader accepts; two channels."""
    network = {"shell": net["shell"], "in_channels": 2, "classes": net["classes"], "features": net["features"],
               "kernels_zyx": net["kernels"], "strides_zyx": net["strides"], "encoder_blocks": net["encoder"],
               "decoder_blocks": net["decoder"], "conv_bias": net.get("conv_bias", True),
               "mamba": {"family": net["family"], "d_state_max": net.get("d_state_max", 256),
                         "d_conv": net.get("d_conv", 4), "expand": net.get("expand", 2)}}
    if net["family"] == "none":
        network["mamba"] = {"family": "none"}
    return {"format": 1, "name": f"golden_{name}", "version": "1.0.0", "licence": "Apache-2.0",
            "description": "Random weights for tests", "modality": "MR",
            "channels": [{"name": c, "normalisation": {"kind": "none"}} for c in ("first", "second")],
            "labels": [{"value": k, "name": f"label {k}", "rgb": [40 * k, 120, 80]} for k in range(1, net["classes"])],
            "orientation": "as-stored", "crop": "none", "spacing_zyx_mm": [1.0, 1.0, 1.0],
            "patch_zyx": net["patch"],
            "resampling": {"image_order": 1, "logits_order": 1, "separate_axis": "never", "separate_axis_order": 0},
            "mirror_axes": [], "postprocess": {"keep_largest": [], "remove_small_mm3": 0}, "network": network}


def randomise(net, generator):
    """No weight stays at a trivial value: norms, biases, A_log and D are spread around their starts."""
    for name, p in net.named_parameters():
        noise = torch.randn(p.shape, generator=generator)
        if name.endswith(("A_log", ".D", "dt_proj.bias")):
            p.data += 0.3 * noise
        elif p.ndim == 1:
            p.data = 0.3 * noise + (1.0 if "norm" in name and name.endswith("weight") else 0.0)
        else:
            p.data += 0.02 * noise


def watched(net):
    """(layer name, module) in the order of execution; names are module paths."""
    enc, dec = net.encoder, net.decoder
    if hasattr(enc, "stem"):
        yield "encoder.stem", enc.stem
    for s, stage in enumerate(enc.stages):
        yield f"encoder.stages.{s}", stage
        if hasattr(enc, "mamba_layers") and any(True for _ in enc.mamba_layers[s].parameters()):
            yield f"encoder.mamba_layers.{s}", enc.mamba_layers[s]
    for s, stage in enumerate(dec.stages):
        yield f"decoder.transpconvs.{s}", dec.transpconvs[s]
        yield f"decoder.stages.{s}", stage


def net_golden(name):
    """-> (net with weights as stored, recipe, {tensor name: float32 tensor} in order of execution)."""
    spec = NETS[name]
    recipe = recipe_of(name, spec)
    seed = sum(map(ord, name))
    torch.manual_seed(seed)
    net = build(recipe["network"]).eval()
    randomise(net, torch.Generator().manual_seed(seed))
    for p in net.parameters():
        p.data = p.data.to(DTYPES[spec["dtype"]][0]).double()
    x = torch.randn(1, 2, *spec["patch"], generator=torch.Generator().manual_seed(seed + 1)).float()
    tensors = {"golden.input": x}

    def keep(layer):
        return lambda module, args, out: tensors.__setitem__(f"golden.{layer}", out.float())

    for layer, module in watched(net):
        module.register_forward_hook(keep(layer))
    with torch.no_grad():
        tensors["golden.logits"] = net(x.double()).float()
    return net, recipe, tensors


# ------------------------------------------------------------------------------------------------ single ops
class Ops:
    """Collects cases: tensors CASE.NAME and, for the JSON in the header, the op's attributes."""

    def __init__(self):
        self.tensors, self.cases = {}, []
        self.generator = torch.Generator().manual_seed(2024)

    def draw(self, *shape, scale=1.0, offset=0.0):
        return (torch.randn(shape, generator=self.generator) * scale + offset).float()

    def add(self, case, op, function, tensors, **attributes):
        """function takes the tensors as float64 by name and gives the output."""
        with torch.no_grad():
            out = function(**{k: t.double() for k, t in tensors.items()})
        for key, t in {**tensors, "output": out}.items():
            self.tensors[f"{case}.{key}"] = t.float().contiguous()
        self.cases.append({"case": case, "op": op, **attributes})


def op_goldens():
    ops = Ops()
    for case, c_in, c_out, dims, kernel, stride, pad in (
            ("conv_3", 3, 5, (7, 9, 11), (3, 3, 3), (1, 1, 1), (1, 1, 1)),
            ("conv_stride", 5, 7, (9, 8, 13), (3, 3, 3), (2, 1, 2), (1, 1, 1)),
            ("conv_flat", 4, 6, (5, 11, 7), (1, 3, 5), (1, 2, 1), (0, 1, 2)),
            ("conv_7", 2, 17, (9, 10, 7), (7, 7, 7), (2, 2, 2), (3, 3, 3)),
            ("conv_1", 33, 3, (3, 5, 7), (1, 1, 1), (1, 1, 1), (0, 0, 0)),
            ("conv_no_pad", 3, 4, (6, 7, 8), (2, 3, 2), (1, 1, 2), (0, 0, 0))):
        ops.add(case, "conv", lambda input, weight, bias, s=stride, p=pad: F.conv3d(input, weight, bias, s, p),
                {"input": ops.draw(2, c_in, *dims),
                 "weight": ops.draw(c_out, c_in, *kernel, scale=(c_in * kernel[0] * kernel[1] * kernel[2]) ** -0.5),
                 "bias": ops.draw(c_out)}, stride=stride, pad=pad)
    for case, c_in, c_out, dims, stride in (("transposed_222", 6, 5, (3, 5, 4), (2, 2, 2)),
                                            ("transposed_123", 17, 3, (4, 3, 5), (1, 2, 3))):
        ops.add(case, "transposed_conv",
                lambda input, weight, bias, s=stride: F.conv_transpose3d(input, weight, bias, s),
                {"input": ops.draw(2, c_in, *dims), "weight": ops.draw(c_in, c_out, *stride, scale=c_in ** -0.5),
                 "bias": ops.draw(c_out)}, stride=stride)
    for case, c, dims, offset in (("instance_norm", 7, (5, 6, 7), 0.0), ("instance_norm_offset", 3, (9, 4, 5), 100.0)):
        ops.add(case, "instance_norm",
                lambda input, gamma, beta: F.instance_norm(input, weight=gamma, bias=beta, eps=1e-5),
                {"input": ops.draw(2, c, *dims, offset=offset), "gamma": ops.draw(c, scale=0.3, offset=1.0),
                 "beta": ops.draw(c)}, eps=1e-5)
    ops.add("layer_norm", "layer_norm",
            lambda input, gamma, beta: F.layer_norm(input.movedim(1, -1), gamma.shape, gamma, beta).movedim(-1, 1),
            {"input": ops.draw(2, 19, 3, 5, 4, offset=2.0), "gamma": ops.draw(19, scale=0.3, offset=1.0),
             "beta": ops.draw(19)}, eps=1e-5)
    ops.add("linear", "linear", lambda input, weight, bias: F.linear(input.movedim(1, -1), weight, bias).movedim(-1, 1),
            {"input": ops.draw(2, 13, 3, 4, 5), "weight": ops.draw(21, 13, scale=0.3), "bias": ops.draw(21)})
    for act, function in (("relu", F.relu), ("leaky_relu", lambda t: F.leaky_relu(t, 0.01)), ("gelu", F.gelu),
                          ("silu", F.silu)):
        ops.add(act, act, lambda input, f=function: f(input), {"input": ops.draw(1, 3, 4, 5, 7, scale=4.0)})
    ops.add("avg_pool", "avg_pool", lambda input: F.avg_pool3d(input, (2, 1, 3), (2, 1, 3)),
            {"input": ops.draw(2, 5, 7, 3, 8)}, stride=(2, 1, 3))
    ops.add("upsample_nearest", "upsample_nearest", lambda input: F.interpolate(input, scale_factor=(2, 1, 3)),
            {"input": ops.draw(2, 5, 3, 4, 2)}, factor=(2, 1, 3))
    ops.add("causal_conv_silu", "causal_conv_silu", causal_conv_silu,
            {"u": ops.draw(2, 9, 31), "weight": ops.draw(9, 1, 4, scale=0.5), "bias": ops.draw(9)})
    for case, d, n, length in (("scan_short", 5, 3, 2), ("scan_n16", 12, 16, 301), ("scan_n40", 7, 40, 130)):
        ops.add(case, "selective_scan",
                lambda u, delta, A_log, B, C, D, z, delta_bias:
                selective_scan_sequential(u, delta, -torch.exp(A_log), B, C, D, z, delta_bias),
                {"u": ops.draw(2, d, length), "delta": ops.draw(2, d, length, scale=2.0),
                 "A_log": ops.draw(d, n), "B": ops.draw(2, n, length), "C": ops.draw(2, n, length),
                 "D": ops.draw(d), "z": ops.draw(2, d, length), "delta_bias": ops.draw(d, scale=2.0, offset=-3.0)})
    for number, order in enumerate(((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))):
        for reverse in (False, True):
            mamba_case(ops, f"mamba_{''.join(map(str, order))}{'_reverse' if reverse else ''}", order, reverse,
                       width=(16, 18, 33)[number % 3], d_state=(16, 5, 20)[number % 3], seed=number)
    return ops


def mamba_case(ops, case, order, reverse, width, d_state, seed):
    """The mixer on a grid, in one scan order."""
    torch.manual_seed(seed)
    block = Mamba(width, d_state)
    randomise(block, torch.Generator().manual_seed(seed))
    block = block.double()
    names = [n for n, _ in block.named_parameters()]

    def run(input, **weights):
        tokens = to_tokens(input, order)
        tokens = tokens.flip(1) if reverse else tokens
        out = torch.func.functional_call(block, {n: weights[n] for n in names}, tokens)
        return from_tokens(out.flip(1) if reverse else out, input.shape[2:], order)

    tensors = {n: p.detach().float() for n, p in block.named_parameters()}
    ops.add(case, "mamba", run, {"input": ops.draw(2, width, 3, 5, 4), **tensors}, axis=order, reverse=reverse,
            d_state=d_state, d_conv=4, expand=2)


# ------------------------------------------------------------------------------------------------ files
def compare(path, tensors):
    """Worst relative L2 difference between a file and the tensors; raises on names that differ."""
    stored, _ = read_safetensors(path)
    if list(stored) != list(tensors):
        raise SystemExit(f"{path.name}: names differ")
    worst = max(float((stored[n] - t.float()).norm() / t.float().norm()) for n, t in tensors.items())
    print(f"{path.name}: {len(stored)} tensors, worst relative difference {worst:.1e}")
    return worst


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--check", action="store_true")
    args = p.parse_args()
    torch.set_num_threads(1)
    FOLDER.mkdir(parents=True, exist_ok=True)
    worst = 0.0
    for name in NETS:
        net, recipe, tensors = net_golden(name)
        tensors = {n: t.contiguous() for n, t in tensors.items()}
        if args.check:
            worst = max(worst, compare(FOLDER / f"{name}.layers.safetensors", tensors))
        else:
            write_model(FOLDER / f"{name}.safetensors", net.state_dict(), recipe, NETS[name]["dtype"],
                        NETS[name].get("all_heads", False))
            write_safetensors(FOLDER / f"{name}.layers.safetensors", tensors, {"golden": name})
    ops = op_goldens()
    if args.check:
        worst = max(worst, compare(FOLDER / "ops.safetensors", ops.tensors))
        sys.exit(0 if worst < 1e-6 else 1)
    write_safetensors(FOLDER / "ops.safetensors", ops.tensors, {"golden": json.dumps(ops.cases)})


if __name__ == "__main__":
    main()
