"""Nets against published counts and nnU-Net's own, scans against the definition, files against the schema."""

import json
from pathlib import Path

import pytest
import torch

from export import read_trained, write_model
from goldens import NETS, net_golden, recipe_of
from nets import Mamba, build, from_tokens, to_tokens
from scan import selective_scan_chunked, selective_scan_sequential


def network(shell, family="none", d_state_max=256, blocks=(2,) * 6, decoder=(2,) * 5):
    return {"shell": shell, "in_channels": 4, "classes": 4, "features": [32, 64, 128, 256, 320, 320],
            "kernels_zyx": [[3, 3, 3]] * 6, "strides_zyx": [[1, 1, 1]] + [[2, 2, 2]] * 5,
            "encoder_blocks": list(blocks), "decoder_blocks": list(decoder),
            "mamba": {"family": family, "d_state_max": d_state_max, "d_conv": 4, "expand": 2}}


@pytest.mark.parametrize("millions, cfg", [
    (61.38, network("residual_encoder", "segmamba")),
    (65.02, network("residual_encoder", "pan_segmamba")),
    (65.02, network("residual_encoder", "segmamba_skip")),
    (78.23, network("residual_encoder", "multi_segmamba", 64)),
    (31.2, network("plain")),
    (102.4, network("residual_unet", blocks=(1, 3, 4, 6, 6, 6), decoder=(1,) * 5)),
])
def test_parameter_count(millions, cfg):
    with torch.device("meta"):
        net = build(cfg)
    count = sum(p.numel() for p in net.parameters()) / 1e6
    assert round(count, 2 if millions != 31.2 and millions != 102.4 else 1) == millions


def scan_inputs(length, dtype):
    g = torch.Generator().manual_seed(length)
    u, delta, z = (torch.randn(2, 6, length, generator=g, dtype=dtype) for _ in range(3))
    A = -torch.exp(torch.randn(6, 5, generator=g, dtype=dtype))
    B, C = (torch.randn(2, 5, length, generator=g, dtype=dtype) for _ in range(2))
    D, bias = (torch.randn(6, generator=g, dtype=dtype) for _ in range(2))
    return u, delta * 3, A, B, C, D, z, bias


@pytest.mark.parametrize("length", [1, 2, 63, 64, 65, 200])
def test_chunked_scan_equals_definition(length):
    inputs = scan_inputs(length, torch.float64)
    want = selective_scan_sequential(*inputs)
    torch.testing.assert_close(selective_scan_chunked(*inputs, chunk=64), want, rtol=1e-11, atol=1e-12)


def test_chunked_scan_gradients():
    inputs = [t.requires_grad_() for t in scan_inputs(70, torch.float64)]
    want = torch.autograd.grad(selective_scan_sequential(*inputs).square().sum(), inputs)
    got = torch.autograd.grad(selective_scan_chunked(*inputs, chunk=32).square().sum(), inputs)
    for g, w in zip(got, want):
        torch.testing.assert_close(g, w, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (1, 0, 2), (2, 0, 1), (1, 2, 0), (2, 1, 0)])
def test_token_orders_are_inverse(order):
    x = torch.arange(2 * 3 * 2 * 3 * 4).reshape(2, 3, 2, 3, 4)
    assert torch.equal(from_tokens(to_tokens(x, order), x.shape[2:], order), x)


def test_mamba_is_causal():
    torch.manual_seed(0)
    block = Mamba(16, 8).double()
    x = torch.randn(1, 20, 16, dtype=torch.float64)
    y = block(x)
    x[:, 12:] += 1
    assert torch.equal(block(x)[:, :12], y[:, :12])


def rename_like_ours(name):
    """A key of nnU-Net's nets -> ours: its duplicates point at the one tensor that we keep."""
    name = name.replace("decoder.encoder.", "encoder.")
    return name.replace(".all_modules.0.", ".conv.").replace(".all_modules.1.", ".norm.")


@pytest.mark.parametrize("name, peer", [("plain", "PlainConvUNet"), ("residual_unet", "ResidualEncoderUNet")])
def test_same_as_nnunet(name, peer):
    unet = pytest.importorskip("dynamic_network_architectures.architectures.unet")
    spec = NETS[name]
    net, _, tensors = net_golden(name)
    count = "n_conv_per_stage" if name == "plain" else "n_blocks_per_stage"
    theirs = getattr(unet, peer)(
        input_channels=2, n_stages=len(spec["features"]), features_per_stage=spec["features"],
        conv_op=torch.nn.Conv3d, kernel_sizes=spec["kernels"], strides=spec["strides"],
        num_classes=spec["classes"], n_conv_per_stage_decoder=spec["decoder"],
        conv_bias=spec.get("conv_bias", True), norm_op=torch.nn.InstanceNorm3d,
        norm_op_kwargs={"eps": 1e-5, "affine": True}, nonlin=torch.nn.LeakyReLU, **{count: spec["encoder"]})
    ours = net.state_dict()
    keys = {k: rename_like_ours(k) for k in theirs.state_dict()}
    assert set(keys.values()) == set(ours)
    theirs.load_state_dict({k: ours[v] for k, v in keys.items()})
    with torch.no_grad():
        logits = theirs.double().eval()(tensors["golden.input"].double())
    torch.testing.assert_close(logits.float(), tensors["golden.logits"], rtol=1e-6, atol=1e-6)


def test_model_file_round_trip(tmp_path):
    net, recipe, _ = net_golden("plain")
    write_model(tmp_path / "m.safetensors", net.state_dict(), recipe, "fp32", all_heads=True)
    weights, again = read_trained(tmp_path / "m.safetensors")
    assert again == recipe
    assert all(torch.equal(weights[n].double(), t) for n, t in net.state_dict().items())


def test_recipes_fit_the_schema():
    jsonschema = pytest.importorskip("jsonschema")
    here = Path(__file__).parent
    check = jsonschema.Draft202012Validator(json.loads((here.parent / "recipe.schema.json").read_text()))
    for path in here.glob("recipes/*.json"):
        check.validate(json.loads(path.read_text()))
    for path in here.parent.glob("*.safetensors"):
        check.validate(read_trained(path)[1])
    for name, spec in NETS.items():
        check.validate(recipe_of(name, spec))
