"""Writes tiny models with seeded random weights: enough network to run every step of the program."""
import json
import struct

import numpy as np

LABELS = [("anterior", [230, 120, 80]), ("posterior", [80, 140, 230]), ("third one", [90, 200, 90])]
LABELS += [(f"label {i}", [9 * i, 99, 9]) for i in range(4, 25)]


def recipe(name="tiny", channels=("T1w",), labels=2, patch=(16, 16, 16), spacing=(1.0, 1.0, 1.0), **more):
    features = [4, 8]
    value = {
        "format": 1,
        "name": name,
        "version": "0.0.1",
        "licence": "CC0-1.0",
        "description": "Random weights, for tests",
        "provenance": {"data": "none"},
        "modality": "MR",
        "channels": [{"name": c, "normalisation": {"kind": "zscore"}} for c in channels],
        "labels": [{"value": i + 1, "name": n, "rgb": rgb} for i, (n, rgb) in enumerate(LABELS[:labels])],
        "orientation": "as-stored",
        "crop": "none",
        "spacing_zyx_mm": list(spacing),
        "patch_zyx": list(patch),
        "resampling": {"image_order": 3, "logits_order": 1, "separate_axis": "auto", "separate_axis_order": 0},
        "mirror_axes": [0, 1, 2],
        "postprocess": {"keep_largest": [], "remove_small_mm3": 0},
        "network": {
            "shell": "plain",
            "in_channels": len(channels),
            "classes": labels + 1,
            "features": features,
            "kernels_zyx": [[3, 3, 3], [3, 3, 3]],
            "strides_zyx": [[1, 1, 1], [2, 2, 2]],
            "encoder_blocks": [1, 1],
            "decoder_blocks": [1],
            "mamba": {"family": "none"},
        },
    }
    value.update(more)
    return value


def tensors(value, seed):
    """The plain shell's tensors of a two-stage recipe."""
    random = np.random.default_rng(seed)
    network = value["network"]
    f0, f1 = network["features"]
    out = {}

    def conv(prefix, c_out, c_in, kernel):
        out[prefix + ".weight"] = random.normal(0, 0.3, (c_out, c_in, kernel, kernel, kernel))
        out[prefix + ".bias"] = random.normal(0, 0.3, c_out)

    def block(prefix, c_out, c_in):
        conv(prefix + ".conv", c_out, c_in, 3)
        out[prefix + ".norm.weight"] = random.normal(1, 0.1, c_out)
        out[prefix + ".norm.bias"] = random.normal(0, 0.1, c_out)

    block("encoder.stages.0.0.convs.0", f0, network["in_channels"])
    block("encoder.stages.1.0.convs.0", f1, f0)
    out["decoder.transpconvs.0.weight"] = random.normal(0, 0.3, (f1, f0, 2, 2, 2))
    out["decoder.transpconvs.0.bias"] = random.normal(0, 0.3, f0)
    block("decoder.stages.0.convs.0", f0, 2 * f0)
    conv("decoder.seg_layers.0", network["classes"], f0, 1)
    return {k: v.astype("<f4") for k, v in out.items()}


def brightness_tensors(value, thresholds):
    """A network that looks at nothing but a voxel's own value: label k where it lies above k of the ascending thresholds.

    Both convolutions on the way of the first channel are the identity, so what is compared is the value after the two
    instance norms, in units of the tile's deviation (standardised() says what that makes of a value)."""
    out = {k: np.zeros_like(v) for k, v in tensors(value, 0).items()}
    for name in out:
        if name.endswith("norm.weight"):
            out[name][:] = 1
    features = value["network"]["features"][0]
    out["encoder.stages.0.0.convs.0.conv.weight"][0, 0, 1, 1, 1] = 1
    out["decoder.stages.0.convs.0.conv.weight"][0, features, 1, 1, 1] = 1  # behind the upsampled channels: the skip's
    # The k-th line is the largest between the k-th and the next threshold.
    out["decoder.seg_layers.0.weight"][:, 0, 0, 0, 0] = np.arange(len(thresholds) + 1)
    out["decoder.seg_layers.0.bias"][1:] = -np.cumsum(thresholds)
    return out


def standardised(tile):
    """The values of a tile (the normalised image in it, zeros around) as brightness_tensors() compares them."""
    for _ in range(2):
        tile = (tile - tile.mean()) / np.sqrt(tile.var() + 1e-5)
        tile = np.where(tile < 0, 0.01 * tile, tile)
    return tile


def safetensors_bytes(weights, metadata):
    """The file format, by hand: the tests also need files that no library would write."""
    header, offset = {"__metadata__": metadata}, 0
    for name, array in weights.items():
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [offset, offset + array.nbytes]}
        offset += array.nbytes
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + b"".join(a.tobytes() for a in weights.values())


def write(path, value=None, seed=20, weights=None):
    value = value or recipe()
    data = safetensors_bytes(weights or tensors(value, seed), {"voxmamba": json.dumps(value)})
    with open(path, "wb") as f:
        f.write(data)
    return path


if __name__ == "__main__":
    import sys

    write(sys.argv[1])
