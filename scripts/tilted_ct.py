#!/usr/bin/env python3
"""tilted_ct.py SERIES OUT.png: a series with gantry tilt and uneven gaps, segmented with --tolerate-geometry; its mask over
the slices as they are stored.

The mask lies on the straightened grid. It is brought back to the stored slices by positions alone: every pixel of a slice
has a place in the patient (ImagePositionPatient, ImageOrientationPatient, PixelSpacing, by pydicom), and shows the mask's
voxel there (by the affine of the mask's file, by nibabel). Nothing of the straightening is used.

The model is no anatomical one: the tests' network that compares each voxel with two thresholds, near -300 and 300 HU. The
eye can judge its mask, and so can numbers: the Dice of mask and threshold on the stored slices is printed, beside that of
the mask's slices taken by number.

Needs tests/requirements.txt; the program is $VOXMAMBA_PROGRAM, else build/release/cli/voxmamba."""
import os
import subprocess
import sys
import tempfile

import nibabel
import numpy as np
import pydicom
from PIL import Image
from scipy import ndimage

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "tests", "cli"))
import tiny_model  # noqa: E402

PROGRAM = os.environ.get("VOXMAMBA_PROGRAM", os.path.join(ROOT, "build/release/cli/voxmamba"))
LOW, HIGH, UNIT = -700, 800, 100  # HU: what is clipped; the model sees 0 for air, and around the volume
THRESHOLDS = (-300, 300)
COLOURS = ((80, 200, 255), (255, 150, 60))
PATCH, SPACING = (40, 320, 256), (4.0, 1.0, 1.0)  # z, y, x: the whole straightened volume is one tile


class Slice:
    """Pixels in HU [row][column]; place: LPS mm of column, row."""

    def __init__(self, path):
        d = pydicom.dcmread(path)
        self.hu = d.pixel_array.astype(float) * float(d.RescaleSlope) + float(d.RescaleIntercept)
        self.origin = np.array(d.ImagePositionPatient, float)
        axes = np.array(d.ImageOrientationPatient, float).reshape(2, 3)
        self.normal = np.cross(*axes)
        self.along = axes[0] * float(d.PixelSpacing[1])  # one column on
        self.down = axes[1] * float(d.PixelSpacing[0])  # one row on
        self.height = self.origin @ self.normal

    def places(self):
        rows, columns = np.indices(self.hu.shape)
        return self.origin + columns[..., None] * self.along + rows[..., None] * self.down


def volumes_of(slices):
    """mm3 that a pixel of each slice stands for."""
    heights = np.array([s.height for s in slices])
    edges = np.concatenate([heights[:1], (heights[1:] + heights[:-1]) / 2, heights[-1:]])
    return np.diff(edges) * np.linalg.norm(slices[0].along) * np.linalg.norm(slices[0].down)


def write_model(path, slices):
    """The thresholds in the units of the network's two instance norms, from the histogram of the stored slices; what they
    do not fill of the tile is air."""
    histogram = {}
    for s, volume in zip(slices, volumes_of(slices)):
        values, counts = np.unique(np.clip(s.hu, LOW, HIGH), return_counts=True)
        for value, count in zip(values, counts):
            histogram[value] = histogram.get(value, 0) + count * volume
    seen = (np.array([LOW, *histogram, *THRESHOLDS], float) - LOW) / UNIT
    weights = np.array([0, *histogram.values(), 0, 0], float)
    weights[0] = np.prod(PATCH) * np.prod(SPACING) - weights.sum()
    assert weights[0] > 0
    for _ in range(2):
        mean = np.average(seen, weights=weights)
        seen = (seen - mean) / np.sqrt(np.average((seen - mean) ** 2, weights=weights) + 1e-5)
        seen = np.where(seen < 0, 0.01 * seen, seen)
    value = tiny_model.recipe("brightness", ("CT",), 2, PATCH, SPACING, modality="CT")
    value["labels"] = [{"value": k + 1, "name": name, "rgb": list(COLOURS[k])} for k, name in enumerate(("head", "bone"))]
    value["channels"][0]["normalisation"] = {"kind": "ct", "percentile_00_5": LOW, "percentile_99_5": HIGH, "mean": LOW,
                                             "sd": UNIT}
    value["resampling"]["image_order"] = 1
    tiny_model.write(path, value, weights=tiny_model.brightness_tensors(value, seen[-2:]))


class Mask:
    def __init__(self, path):
        image = nibabel.load(path)
        self.data = np.asarray(image.dataobj)
        self.to_voxel = np.linalg.inv(np.diag([-1.0, -1, 1, 1]) @ image.affine)

    def at(self, places):
        """The labels at places in LPS mm; 0 outside."""
        index = np.rint(places @ self.to_voxel[:3, :3].T + self.to_voxel[:3, 3]).astype(int)
        inside = np.all((index >= 0) & (index < self.data.shape), axis=-1)
        index[~inside] = 0
        return np.where(inside, self.data[tuple(np.moveaxis(index, -1, 0))], 0)


def picture(hu, labels):
    """Grey from -200 to 1000 HU, outlines in colour."""
    grey = np.clip((hu + 200) / 1200, 0, 1) ** 0.7 * 255
    rgb = np.repeat(grey[..., None], 3, -1)
    for k, colour in enumerate(COLOURS):
        inside = labels > k
        rgb[inside & ~ndimage.binary_erosion(inside, iterations=2)] = colour
    return rgb.astype(np.uint8)


def sagittal(slices, mask, x, step=0.5):
    """The plane x (LPS mm) in the patient: each stored slice as a band where it lies, nothing between bands."""
    corners = np.array([s.origin + i * s.down * s.hu.shape[0] for s in slices for i in (0, 1)])
    y = np.arange(corners[:, 1].min(), corners[:, 1].max(), step)
    z = np.arange(corners[:, 2].max() + 2, corners[:, 2].min() - 2, -step)
    places = np.stack(np.broadcast_arrays(x, y[None, :], z[:, None]), -1)
    hu = np.full(places.shape[:2], -1000.0)
    for s in slices:
        off = (places - s.origin) @ s.normal
        row = np.rint((places - s.origin) @ s.down / (s.down @ s.down)).astype(int)
        column = int(round((x - s.origin[0]) / s.along[0]))
        here = (np.abs(off) < 0.45) & (row >= 0) & (row < s.hu.shape[0])
        hu[here] = s.hu[row[here], column]
    return picture(hu, mask.at(places))


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def main():
    folder, out = sys.argv[1:]
    slices = sorted((Slice(os.path.join(folder, name)) for name in os.listdir(folder)), key=lambda s: s.height)
    with tempfile.TemporaryDirectory() as work:
        write_model(os.path.join(work, "brightness.safetensors"), slices)
        subprocess.run([PROGRAM, "segment", folder, "-m", os.path.join(work, "brightness.safetensors"), "-o",
                        os.path.join(work, "mask.nii.gz"), "--tolerate-geometry"], check=True)
        mask = Mask(os.path.join(work, "mask.nii.gz"))
    labels = [mask.at(s.places()) for s in slices]
    print(f"mask {mask.data.shape} on {len(slices)} slices of {slices[0].hu.shape}")
    for k, (threshold, name) in enumerate(zip(THRESHOLDS, ("head", "bone"))):
        truth = [s.hu > threshold for s in slices]
        # Where the geometry is not heeded: the mask's slices by number, their first rows and columns.
        nearest = np.rint(np.linspace(0, mask.data.shape[2] - 1, len(slices))).astype(int)
        by_number = [mask.data[:512, :512, n].T > k for n in nearest]
        found = [lab > k for lab in labels]
        print(f"{name}: Dice of mask and {threshold} HU on the stored slices {dice(np.array(found), np.array(truth)):.3f}, "
              f"lowest slice {min(dice(f, t) for f, t in zip(found, truth)):.3f}; "
              f"by number {dice(np.array(by_number), np.array(truth)):.3f}")
    chosen = [3, 10, 16, 22]
    tiles = [Image.fromarray(picture(slices[k].hu, labels[k])).resize((300, 300), Image.LANCZOS) for k in chosen]
    side = Image.fromarray(sagittal(slices, mask, slices[0].origin[0] + 125))
    side = side.resize((round(side.width * 604 / side.height), 604), Image.LANCZOS)
    sheet = Image.new("RGB", (604 + 4 + side.width, 604))
    for i, tile in enumerate(tiles):
        sheet.paste(tile, (304 * (i % 2), 304 * (i // 2)))
    sheet.paste(side, (608, 0))
    sheet.quantize(96, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(out, optimize=True)
    print(f"{out}: {sheet.size}, {os.path.getsize(out) / 1000:.0f} kB")


if __name__ == "__main__":
    main()
