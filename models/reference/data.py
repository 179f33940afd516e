"""Cases of a folder with images/, labels/ and folds.tsv, preprocessed as the product does it.

Arrays are (z, y, x): NIfTI's first axis is x, so a file's array is transposed once, on reading. Order of the
steps (nnU-Net's): crop to the bounding box of the hole-filled non-zero mask, z-score over the crop, resample.
"""

import csv
import gzip
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import binary_fill_holes

NIFTI_DTYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4"}


@dataclass
class Case:
    name: str
    image: np.ndarray    # float32 (channels, z, y, x), normalised, at the recipe's spacing
    label: np.ndarray    # uint8 (z, y, x), cropped and resampled like the image
    extent_mm: np.ndarray  # z, y, x extent of the whole volume as stored


def read_nifti(path):
    """Little-endian single-file NIfTI-1 -> (array (z, y, x) with scale applied, spacing (z, y, x) in mm).

    The file must be stored RAS by its sform: x runs to the right, y to the front, z up.
    """
    raw = Path(path).read_bytes()
    raw = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    if struct.unpack_from("<i", raw, 0)[0] != 348:
        raise ValueError(f"{path}: not a little-endian NIfTI-1 file")
    dim = struct.unpack_from("<8h", raw, 40)
    code, = struct.unpack_from("<h", raw, 70)
    pixdim = struct.unpack_from("<8f", raw, 76)
    offset, slope, inter = struct.unpack_from("<3f", raw, 108)
    sform, = struct.unpack_from("<h", raw, 254)
    axes = np.array(struct.unpack_from("<12f", raw, 280)).reshape(3, 4)[:, :3]
    if sform <= 0 or (abs(axes).argmax(0) != (0, 1, 2)).any() or (axes.diagonal() <= 0).any():
        raise ValueError(f"{path}: not stored RAS")
    shape = dim[1:4]
    data = np.frombuffer(raw, "<" + NIFTI_DTYPES[code], int(np.prod(shape)), int(offset))
    data = data.reshape(shape[::-1])
    if np.isfinite(slope) and slope != 0 and (slope, inter) != (1, 0):
        data = data * np.float64(slope) + np.float64(inter)
    return data, np.array(pixdim[3:0:-1], np.float64)


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


def preprocess(image, label, spacing, recipe):
    """(channels, z, y, x) and (z, y, x) of one scan -> the network's image and label."""
    kinds = {c["normalisation"]["kind"] for c in recipe["channels"]}
    if kinds != {"zscore"} or recipe["orientation"] != "RAS" or recipe["crop"] != "nonzero":
        raise ValueError("this trainer preprocesses non-zero crops with zscore, turned to RAS, only")
    target = np.array(recipe["spacing_zyx_mm"])
    if max(spacing) / min(spacing) > 3 or max(target) / min(target) > 3:
        raise ValueError("this trainer does not resample a coarse axis apart")
    box = nonzero_box(image)
    image = image[(slice(None), *box)].astype(np.float32)
    image = np.stack([(c - c.mean()) / max(c.std(), 1e-8) for c in image])
    shape = np.round(np.array(image.shape[1:]) * spacing / target).astype(int)
    image = np.stack([resample(c, shape, recipe["resampling"]["image_order"]) for c in image])
    return image.astype(np.float32), resample_label(label[box], shape)


def load_cases(folder, folds, recipe):
    """Preprocessed cases of the given folds, in the order of folds.tsv."""
    folder = Path(folder)
    with open(folder / "folds.tsv", newline="") as f:
        rows = [r for r in csv.DictReader(f, delimiter="\t") if int(r["fold5"]) in folds]
    cases = []
    for row in rows:
        image, spacing = read_nifti(folder / "images" / f"{row['case']}.nii.gz")
        label, _ = read_nifti(folder / "labels" / f"{row['case']}.nii.gz")
        extent = np.array(image.shape) * spacing
        image, label = preprocess(image[None], label.astype(np.uint8), spacing, recipe)
        cases.append(Case(row["case"], image, label, extent))
    return cases


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
        for i, case in enumerate(cases):
            start = (size - case.label.shape) // 2
            box = tuple(slice(a, a + n) for a, n in zip(start, case.label.shape))
            layers = [case.image, np.stack([case.label == k for k in range(1, classes)])]
            if soft is not None:
                layers.append(soft[i])
            self.data[(i, slice(None), *box)] = torch.from_numpy(np.concatenate(layers).astype(np.float32)).to(device)


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
