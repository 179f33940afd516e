#!/usr/bin/env python3
"""Write tests/golden/pipeline: small random-weight models, volumes, and what nnU-Net v2's own functions make of them.

Needs nnunetv2 (2.8.1), torch, nibabel and safetensors. The reference is nnU-Net's DefaultPreprocessor, its sliding
window (slicers, Gaussian, mirroring; accumulated in float32 instead of its half precision), its resampling of
logits, its label manager and its way back through the crop; where a recipe asks for an orientation, nibabel turns
the volume before and the result after. With --check nothing is written: the files are compared with what the
packages give now (labels but for ties, probabilities to 1e-4).

A case is NAME.safetensors (models/FORMAT.md) and NAME.case, little-endian: "VXPG", u32 version 1, u32 dims x, y, z,
f64 affine[4][4], u32 channels, u32 mirror, f64 step, u32 classes, u32 samples, i16 image[channel][z][y][x],
u8 label[z][y][x] (+ 128 where the reference's decision hangs on less than 1e-3 of a logit), then samples times
u32 voxel, f32 probability[class].
"""
import argparse
import json
import os
import struct
import sys
import tempfile
from pathlib import Path

for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
    os.environ.setdefault(variable, tempfile.gettempdir())

import nibabel as nib
import numpy as np
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.inference.sliding_window_prediction import compute_gaussian
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from acvl_utils.cropping_and_padding.padding import pad_nd_image
from safetensors.torch import save_file
from scipy.ndimage import gaussian_filter

SAMPLES = 400
TIE = 1e-3
LABELS = [3, 1, 100, 17]  # values of classes 1..4, which nnU-Net calls 1..4; below 128

# dims, spacing: x, y, z of the stored volume; target, patch, kernels, strides: z, y, x; axes: nibabel codes of the
# stored axes; margins: zeros around the body, x, y, z.
CASES = {
    # >= 3 x 3 x 3 tiles, non-integer ratios, oblique, two channels, five classes, a crop.
    "spacing": dict(dims=(37, 41, 34), spacing=(0.8, 0.9, 1.3), axes="LPS", tilt=True, target=(1.1, 1.0, 0.9),
                    patch=(12, 16, 12), kernels=[(3, 3, 3)] * 3, strides=[(1, 1, 1), (2, 2, 2), (2, 2, 2)],
                    norms=["zscore", "ct"], margins=((2, 3), (0, 4), (3, 1)), mirror=[], step=0.5),
    # Slices more than three times as thick: z apart; no margin on one side.
    "thick": dict(dims=(40, 36, 19), spacing=(0.9, 0.9, 4.0), axes="RAS", tilt=False, target=(2.9, 1.0, 0.8),
                  patch=(8, 16, 16), kernels=[(1, 3, 3), (3, 3, 3)], strides=[(1, 1, 1), (1, 2, 2)],
                  norms=["zscore", "zscore"], margins=((1, 2), (3, 0), (0, 1)), mirror=[], step=0.5),
    # Permuted and flipped, turned by the recipe; the thick axis is the tensor's y.
    "turned": dict(dims=(18, 34, 38), spacing=(3.6, 1.0, 0.9), axes="PIR", tilt=True, orientation="RAS",
                   target=(1.2, 4.0, 1.0), patch=(12, 8, 16), kernels=[(3, 1, 3), (3, 3, 3)],
                   strides=[(1, 1, 1), (2, 1, 2)], norms=["zscore", "rescale01"],
                   margins=((0, 1), (3, 2), (2, 2)), mirror=[0, 1, 2], step=0.5),
    # Smaller than the patch along two axes, mirrored along two, statistics of the body alone, another step.
    "small": dict(dims=(15, 40, 9), spacing=(1.0, 1.5, 2.5), axes="AIL", tilt=False, target=(2.0, 1.5, 1.0),
                  patch=(16, 16, 16), kernels=[(3, 3, 3)] * 2, strides=[(1, 1, 1), (2, 2, 2)],
                  norms=["zscore_nonzero", "none"], margins=((1, 1), (2, 5), (0, 0)), mirror=[0, 2], step=0.3),
    # Regions: a sigmoid each, later ones overwrite.
    "regions": dict(dims=(30, 29, 28), spacing=(1.2, 1.0, 1.1), axes="LAS", tilt=False, target=(1.0, 1.0, 1.0),
                    patch=(16, 16, 16), kernels=[(3, 3, 3)] * 2, strides=[(1, 1, 1), (2, 2, 2)],
                    norms=["zscore", "zscore"], margins=((0, 2), (1, 1), (2, 0)), mirror=[1], step=0.5, regions=True),
}
CT = dict(percentile_00_5=-300.0, percentile_99_5=400.0, mean=20.0, sd=130.0)
SCHEMES = {"zscore": "ZScoreNormalization", "zscore_nonzero": "ZScoreNormalization", "ct": "CTNormalization",
           "rescale01": "RescaleTo01Normalization", "none": "NoNormalization"}


def make_affine(case):
    """Voxel centre -> RAS mm for the axis codes, turned a little where asked."""
    affine = np.eye(4)
    world = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}
    matrix = np.zeros((3, 3))
    for i, letter in enumerate(case["axes"]):
        row, sign = world[letter]
        matrix[row, i] = sign * case["spacing"][i]
    if case["tilt"]:
        a, b = np.deg2rad(11), np.deg2rad(-7)
        rx = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
        rz = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
        matrix = rx @ rz @ matrix
    affine[:3, :3] = matrix
    affine[:3, 3] = [-31.5, 12.25, 40.0]
    return affine


def make_image(case, rng):
    """[channel][z][y][x], integers: smooth structures and noise in a body, zeros around it."""
    shape = case["dims"][::-1]
    inside = tuple(slice(low, n - high) for n, (low, high) in zip(shape, case["margins"][::-1]))
    image = np.zeros((2, *shape))
    for c in range(2):
        smooth = gaussian_filter(rng.standard_normal(shape), 2.5)
        body = 100 * (c + 1) + 150 * smooth / smooth.std() + 40 * rng.standard_normal(shape)
        image[c][inside] = np.round(body[inside])
    hole = tuple(slice(n // 2 - 2, n // 2 + 2) for n in shape)
    image[(slice(None), *hole)] = 0  # filled again by nnU-Net's mask
    return np.clip(image, -32000, 32000).astype(np.int16)


def make_network(case, classes):
    stages = len(case["strides"])
    net = PlainConvUNet(2, stages, [8, 12, 16][:stages], torch.nn.Conv3d, case["kernels"], case["strides"],
                        2, classes, 1, conv_bias=True, norm_op=torch.nn.InstanceNorm3d,
                        norm_op_kwargs=dict(eps=1e-5, affine=True), nonlin=torch.nn.LeakyReLU,
                        nonlin_kwargs=dict(inplace=True), deep_supervision=False)
    with torch.no_grad():
        for name, p in net.named_parameters():
            if name.endswith("norm.weight"):
                p.uniform_(0.6, 1.4)
            elif p.ndim == 1:
                p.normal_(0, 0.2)
            elif "seg_layers" in name:
                p.normal_(0, 1.0)
        # No class wins everywhere: on noise all logits have mean 0.
        head = net.decoder.seg_layers[-1]
        head.bias -= net(torch.randn(1, 2, *case["patch"])).mean((0, 2, 3, 4))
    return net.eval()


def make_recipe(name, case, classes):
    label = lambda k, v: dict(value=v, name=f"label {v}", rgb=[40 * k, 90, 200],
                              **(dict(members=[k + 1]) if case.get("regions") else {}))
    norm = lambda kind: dict(kind=kind, **(CT if kind == "ct" else {}))
    return dict(
        format=1, name=f"golden-{name}", version="1", licence="Apache-2.0",
        description="Random weights: for tests only", modality="MR",
        channels=[dict(name=f"c{i}", normalisation=norm(k)) for i, k in enumerate(case["norms"])],
        labels=[label(k, v) for k, v in enumerate(LABELS)],
        orientation=case.get("orientation", "as-stored"), crop="nonzero", spacing_zyx_mm=list(case["target"]),
        patch_zyx=list(case["patch"]),
        resampling=dict(image_order=3, logits_order=1, separate_axis="auto", separate_axis_order=0),
        mirror_axes=case["mirror"], postprocess=dict(keep_largest=[], remove_small_mm3=0),
        network=dict(shell="plain", in_channels=2, classes=classes, features=[8, 12, 16][:len(case["strides"])],
                     kernels_zyx=[list(k) for k in case["kernels"]], strides_zyx=[list(s) for s in case["strides"]],
                     encoder_blocks=[2] * len(case["strides"]), decoder_blocks=[1] * (len(case["strides"]) - 1),
                     mamba=dict(family="none")))


def make_plans(case):
    sampling = dict(is_seg=False, order=3, order_z=0, force_separate_z=None)
    configuration = dict(
        data_identifier="golden", preprocessor_name="DefaultPreprocessor", batch_size=1,
        patch_size=list(case["patch"]), spacing=list(case["target"]),
        normalization_schemes=[SCHEMES[k] for k in case["norms"]],
        use_mask_for_norm=[k == "zscore_nonzero" for k in case["norms"]],
        resampling_fn_data="resample_data_or_seg_to_shape", resampling_fn_data_kwargs=sampling,
        resampling_fn_seg="resample_data_or_seg_to_shape",
        resampling_fn_seg_kwargs=dict(sampling, is_seg=True, order=1),
        resampling_fn_probabilities="resample_data_or_seg_to_shape",
        resampling_fn_probabilities_kwargs=dict(sampling, order=1),
        architecture=dict(network_class_name="", arch_kwargs={}, _kw_requires_import=[]))
    intensities = dict(mean=CT["mean"], std=CT["sd"], percentile_00_5=CT["percentile_00_5"],
                       percentile_99_5=CT["percentile_99_5"])
    plans = PlansManager(dict(
        dataset_name="golden", plans_name="golden", image_reader_writer="SimpleITKIO", label_manager="LabelManager",
        transpose_forward=[0, 1, 2], transpose_backward=[0, 1, 2], configurations={"3d": configuration},
        foreground_intensity_properties_per_channel={"0": intensities, "1": intensities}))
    if case.get("regions"):
        labels = {"background": 0, "a": [1, 2, 3, 4], "b": [2, 3, 4], "c": [3, 4], "d": 4}
        dataset = dict(labels=labels, regions_class_order=[1, 2, 3, 4])
    else:
        dataset = dict(labels={"background": 0, "a": 1, "b": 2, "c": 3, "d": 4})
    return plans, plans.get_configuration("3d"), dict(dataset, channel_names={"0": "c0", "1": "c1"},
                                                      file_ending=".nii.gz")


@torch.inference_mode()
def predict_logits(net, data, case, plans, configuration, dataset):
    """nnU-Net's predict_sliding_window_return_logits with float32 accumulators."""
    predictor = nnUNetPredictor(tile_step_size=case["step"], use_gaussian=True, use_mirroring=bool(case["mirror"]),
                                perform_everything_on_device=False, device=torch.device("cpu"), verbose=False,
                                allow_tqdm=False)
    predictor.manual_initialization(net, plans, configuration, None, dataset, "", tuple(case["mirror"]) or None)
    padded, revert = pad_nd_image(torch.from_numpy(data), configuration.patch_size, "constant", {"value": 0}, True,
                                  None)
    gaussian = compute_gaussian(tuple(case["patch"]), 1 / 8, 10, torch.float32, torch.device("cpu"))
    logits = torch.zeros((predictor.label_manager.num_segmentation_heads, *padded.shape[1:]))
    weights = torch.zeros(padded.shape[1:])
    slicers = predictor._internal_get_sliding_window_slicers(padded.shape[1:])
    for s in slicers:
        tile = predictor._internal_maybe_mirror_and_predict(torch.clone(padded[s][None]))[0]
        logits[s] += tile * gaussian
        weights[s[1:]] += gaussian
    return (logits / weights)[(slice(None), *revert[1:])].numpy(), len(slicers)


def decision_gap(logits, regions):
    """How much the logits at a voxel may change before its label does."""
    if regions:
        return np.abs(logits).min(0)
    top = np.sort(logits, 0)
    return top[-1] - top[-2]


def turn(arrays, transform):
    """[n][z][y][x] arrays through a nibabel orientation transform (which is x, y, z)."""
    return np.stack([nib.orientations.apply_orientation(a.T, transform).T for a in arrays])


def reference(case, image, affine, net):
    plans, configuration, dataset = make_plans(case)
    stored = nib.orientations.io_orientation(affine)
    wanted = stored if "orientation" not in case else nib.orientations.axcodes2ornt(tuple(case["orientation"]))
    there = nib.orientations.ornt_transform(stored, wanted)
    back = nib.orientations.ornt_transform(wanted, stored)
    spacing = np.linalg.norm((affine @ nib.orientations.inv_ornt_aff(there, case["dims"]))[:3, :3], axis=0)
    data, _, properties = DefaultPreprocessor(verbose=False).run_case_npy(
        turn(image.astype(np.float32), there), None, dict(spacing=[float(s) for s in spacing[::-1]]), plans,
        configuration, dataset)
    logits, tiles = predict_logits(net, data.astype(np.float32), case, plans, configuration, dataset)
    labels, probabilities = convert_predicted_logits_to_segmentation_with_correct_shape(
        logits, plans, configuration, plans.get_label_manager(dataset), properties, return_probabilities=True)
    full = configuration.resampling_fn_probabilities(
        logits, properties["shape_after_cropping_and_before_resampling"], configuration.spacing,
        properties["spacing"])
    gap = np.full(labels.shape, np.inf)
    box = tuple(slice(*b) for b in properties["bbox_used_for_cropping"])
    gap[box] = decision_gap(full, case.get("regions"))
    print(f"  {tiles} tiles, grid {data.shape[1:]} from crop {full.shape[1:]} of {labels.shape}, "
          f"{np.bincount(labels.ravel(), minlength=5)} voxels a class, {(gap < TIE).sum()} ties")
    values = np.array([0, *LABELS], np.uint8)[labels]
    values = turn(values[None], back)[0]
    return values, turn(gap[None], back)[0] < TIE, turn(probabilities, back)


def build(name, case):
    seed = sum(map(ord, name))
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    classes = 4 if case.get("regions") else 5
    affine, image, net = make_affine(case), make_image(case, rng), make_network(case, classes)
    labels, ties, probabilities = reference(case, image, affine, net)
    voxels = np.sort(rng.choice(labels.size, SAMPLES, replace=False))
    flat = probabilities.reshape(classes, -1)
    case_bytes = struct.pack("<4sI3I16d2IdII", b"VXPG", 1, *case["dims"], *affine.ravel(), 2, bool(case["mirror"]),
                             case["step"], classes, SAMPLES)
    case_bytes += image.tobytes() + (labels | (ties.astype(np.uint8) << 7)).tobytes()
    for v in voxels:
        case_bytes += struct.pack("<I", v) + flat[:, v].astype("<f4").tobytes()
    weights = {k: v.contiguous() for k, v in net.state_dict().items()
               if ".all_modules." not in k and not k.startswith("decoder.encoder.")}
    last = len(case["strides"]) - 2
    weights = {k: v for k, v in weights.items()
               if not k.startswith("decoder.seg_layers.") or k.startswith(f"decoder.seg_layers.{last}.")}
    return case_bytes, weights, {"voxmamba": json.dumps(make_recipe(name, case, classes))}


def same(old, new, case):
    """Equal headers and images, labels but for ties, probabilities to 1e-4."""
    head = struct.calcsize("<4sI3I16d2IdII")
    n = int(np.prod(case["dims"]))
    if len(old) != len(new) or old[:head + 4 * n] != new[:head + 4 * n]:
        return False
    a, b = (np.frombuffer(x, np.uint8, n, head + 4 * n) for x in (old, new))
    fixed = (a < 128) & (b < 128)
    classes = 4 if case.get("regions") else 5
    p, q = (np.frombuffer(x, np.dtype([("v", "<u4"), ("p", "<f4", classes)]), SAMPLES, head + 5 * n)
            for x in (old, new))
    return (a == b)[fixed].all() and (p["v"] == q["v"]).all() and np.abs(p["p"] - q["p"]).max() < 1e-4


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "pipeline")
    args = parser.parse_args()
    torch.set_num_threads(1)
    bad = []
    for name, case in CASES.items():
        print(name)
        case_bytes, weights, metadata = build(name, case)
        path = args.out / f"{name}.case"
        if args.check:
            if not same(path.read_bytes(), case_bytes, case):
                bad.append(name)
            continue
        path.write_bytes(case_bytes)
        save_file(weights, path.with_suffix(".safetensors"), metadata)
        path.with_suffix(".safetensors").chmod(0o644)
    if bad:
        sys.exit(f"differ: {', '.join(bad)}")


if __name__ == "__main__":
    main()
