"""Cases of a folder, preprocessed as the product does it.

Two layouts are known: images/CASE.nii.gz, labels/CASE.nii.gz and folds.tsv (columns case, fold5), or
SPLIT/images/CASE.nii.gz, SPLIT/labels/CASE.nii.gz and cases.tsv (columns case, split). A part is a fold or a split.

Arrays are (z, y, x). Order of the steps (nnU-Net's): crop to the bounding box of the hole-filled non-zero mask where
the recipe says so, turn, normalise over the crop, resample.
"""

import csv
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import binary_fill_holes

from nifti import read_nifti, turn


@dataclass
class Case:
    name: str
    image: np.ndarray    # float32 (channels, z, y, x), normalised, at the recipe's spacing
    label: np.ndarray    # uint8 (z, y, x), on the image's grid


def nonzero_box(image):
    """Slices of the bounding box of the hole-filled non-zero mask; the whole volume if all is zero."""
    mask = binary_fill_holes((image != 0).any(0))
    if not mask.any():
        return tuple(slice(0, n) for n in mask.shape)
    spans = (np.flatnonzero(mask.any(tuple(b for b in range(3) if b != a))) for a in range(3))
    return tuple(slice(int(s[0]), int(s[-1]) + 1) for s in spans)


def resample(array, shape, order):
    """nnU-Net's isotropic resampling: scikit-image's resize, edge mode, clipped to the input's range."""
    if tuple(array.shape) == tuple(shape):
        return array
    from skimage.transform import resize
    return resize(array, shape, order, mode="edge", anti_aliasing=False, clip=True)


def resample_label(label, shape):
    """One map a label, linear, >= 0.5, ascending order."""
    if tuple(label.shape) == tuple(shape):
        return label
    out = np.zeros(shape, label.dtype)
    for value in np.unique(label):
        out[resample((label == value).astype(np.float64), shape, 1) >= 0.5] = value
    return out


def normalise(channel, how):
    """One channel by a recipe's `normalisation` object: zscore over the channel, or ct. float32."""
    channel = channel.astype(np.float32)
    if how["kind"] == "zscore":
        return (channel - channel.mean()) / max(channel.std(), 1e-8)
    if how["kind"] == "ct":
        clipped = channel.clip(how["percentile_00_5"], how["percentile_99_5"])
        return (clipped - np.float32(how["mean"])) / np.float32(max(how["sd"], 1e-8))
    raise ValueError(f"this trainer knows zscore and ct, not {how['kind']}")


def preprocess(image, label, spacing, codes, recipe):
    """(channels, z, y, x) and (z, y, x) of one scan as stored with axis `codes` -> the network's image and label."""
    if recipe["crop"] == "nonzero":
        box = nonzero_box(image)
        image, label = image[(slice(None), *box)], label[box]
    if recipe["orientation"] != "as-stored":
        image, _ = turn(image, spacing, codes, recipe["orientation"])
        label, spacing = turn(label, spacing, codes, recipe["orientation"])
    target = np.array(recipe["spacing_zyx_mm"])
    if max(spacing) / min(spacing) > 3 or max(target) / min(target) > 3:
        raise ValueError("this trainer does not resample a coarse axis apart")
    image = [normalise(c, how["normalisation"]) for c, how in zip(image, recipe["channels"])]
    shape = np.round(np.array(label.shape) * spacing / target).astype(int)
    image = np.stack([resample(c, shape, recipe["resampling"]["image_order"]) for c in image])
    return image.astype(np.float32), resample_label(label, shape)


def list_cases(folder, parts):
    """(case, image file, label file) of each case of the given folds or splits, in the table's order."""
    folder = Path(folder)
    table, column = ("folds.tsv", "fold5") if (folder / "folds.tsv").exists() else ("cases.tsv", "split")
    with open(folder / table, newline="") as f:
        rows = [r for r in csv.DictReader(f, delimiter="\t") if r[column] in parts]
    if not rows:
        raise ValueError(f"{folder / table}: no case of {', '.join(parts)}")
    roots = [folder / r["split"] if column == "split" else folder for r in rows]
    return [(r["case"], *(root / what / f"{r['case']}.nii.gz" for what in ("images", "labels")))
            for r, root in zip(rows, roots)]


def load_case(files, recipe):
    """One of list_cases, preprocessed."""
    name, image_file, label_file = files
    image, spacing, codes = read_nifti(image_file)
    label, *same = read_nifti(label_file)
    if label.shape != image.shape or same[1] != codes:
        raise ValueError(f"{label_file}: not on the grid of its image")
    return Case(name, *preprocess(image[None], label.astype(np.uint8), spacing, codes, recipe))


def load_cases(folder, parts, recipe, most=None):
    """Preprocessed cases of the given folds or splits, in the table's order; at most so many. One process a core."""
    files = list_cases(folder, parts)[:most]
    with ProcessPoolExecutor(min(len(files), len(os.sched_getaffinity(0)))) as pool:
        return list(pool.map(partial(load_case, recipe=recipe), files))


class Canvas:
    """All cases centred in one zero tensor on the device: (cases, channels + maps, Z, Y, X) float32.

    The maps are the labels one-hot without background (`foreground` of them) and, with `soft` (a list of
    (foreground, z, y, x) probabilities, one for each case), these behind them: one trilinear sampling serves all.
    """

    def __init__(self, cases, classes, patch, device, soft=None):
        self.channels, self.foreground, self.device = cases[0].image.shape[0], classes - 1, device
        self.shapes = np.array([c.label.shape for c in cases])
        # Same parity in every axis as the patch keeps an unrotated sample on whole voxels.
        size = np.maximum(self.shapes.max(0), patch) + 8
        size += (size - np.array(patch)) % 2
        maps = self.foreground * (1 if soft is None else 2)
        self.data = torch.zeros(len(cases), self.channels + maps, *size.tolist(), device=device)
        self.voxels = []  # of each case, for each label that it has: (n, 3) canvas coordinates
        for i, case in enumerate(cases):
            start = (size - case.label.shape) // 2
            found = (np.argwhere(case.label == k) for k in range(1, classes))
            self.voxels.append([(v + start).astype(np.int16) for v in found if len(v)])
            box = tuple(slice(a, a + n) for a, n in zip(start, case.label.shape))
            layers = [case.image, np.stack([case.label == k for k in range(1, classes)])]
            if soft is not None:
                layers.append(soft[i])
            self.data[(i, slice(None), *box)] = torch.from_numpy(np.concatenate(layers).astype(np.float32)).to(device)

    def label_voxel(self, case, rng):
        """Canvas coordinates of a random voxel of a random label that the case has; of the middle if it has none."""
        if not self.voxels[case]:
            return (np.array(self.data.shape[2:]) - 1) / 2
        voxels = self.voxels[case][rng.integers(len(self.voxels[case]))]
        return voxels[rng.integers(len(voxels))]


def save_probabilities(folder, name, logits):
    """logits (classes, z, y, x) of one case -> FOLDER/NAME.npz: softmax without background in steps of 1/255."""
    probabilities = logits.float().softmax(0)[1:].cpu().numpy()
    np.savez_compressed(Path(folder) / f"{name}.npz", probabilities=np.round(probabilities * 255).astype(np.uint8))


def load_probabilities(folder, cases):
    """The maps that save_probabilities wrote for these cases, float32 in [0, 1]."""
    maps = [np.load(Path(folder) / f"{c.name}.npz")["probabilities"].astype(np.float32) / 255 for c in cases]
    for case, m in zip(cases, maps):
        if m.shape[1:] != case.label.shape:
            raise ValueError(f"{folder}/{case.name}.npz: {m.shape[1:]} does not fit the case's {case.label.shape}")
    return maps
