"""Reading, turning, normalising and resampling cases, and drawing patches from them."""

import gzip
import itertools
import json
import struct
from pathlib import Path

import numpy as np
import pytest

from augment import random_patches
from ct_statistics import ct_normalisation
from data import Canvas, Case, list_cases, load_cases, normalise, preprocess
from nifti import SIDES, read_nifti, turn
from within_slices import cut

RECIPE = json.loads((Path(__file__).parent / "recipes" / "head_neck.json").read_text())
CODES = ["".join(letters) for axes in itertools.permutations(SIDES) for letters in itertools.product(*axes)]


def write_nifti(path, array, spacing, codes):
    """array (z, y, x) stored with axis `codes`, spacing (z, y, x) -> .nii.gz with these axes in its sform."""
    affine = np.zeros((3, 4))
    for axis, letter in enumerate(codes):
        world = next(w for w, sides in enumerate(SIDES) if letter in sides)
        affine[world, axis] = spacing[2 - axis] * (1 if letter == SIDES[world][1] else -1)
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, *array.shape[::-1], 1, 1, 1, 1)
    struct.pack_into("<2h", header, 70, {"i2": 4, "u1": 2}[array.dtype.str[1:]], array.itemsize * 8)
    struct.pack_into("<8f", header, 76, 1, *spacing[::-1], 0, 0, 0, 0)
    struct.pack_into("<3f", header, 108, 352, float("nan"), float("nan"))
    struct.pack_into("<2h", header, 252, 0, 1)
    struct.pack_into("<12f", header, 280, *affine.ravel())
    header[344:348] = b"n+1\0"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(bytes(header) + array.tobytes()))


def scan(rng, shape=(20, 24, 28)):
    """A noisy CT, and a label 1 block in its lower left back."""
    image = rng.normal(-200, 400, shape).astype(np.int16)
    label = np.zeros(shape, np.uint8)
    label[2:7, 3:8, 4:9] = 1
    return image, label


def write_cases(folder, codes="LPI"):
    """Three cases in the layout of cases.tsv: two to train on, one to validate."""
    rng = np.random.default_rng(0)
    rows = ["split\tcase"]
    for split, name in (("train", "a"), ("train", "b"), ("validation", "c")):
        image, label = scan(rng)
        write_nifti(folder / split / "images" / f"{name}.nii.gz", image, (2.5, 4, 4), codes)
        write_nifti(folder / split / "labels" / f"{name}.nii.gz", label, (2.5, 4, 4), codes)
        rows.append(f"{split}\t{name}")
    (folder / "cases.tsv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.mark.parametrize("codes", CODES)
def test_turned_voxels_lie_where_they_lay(tmp_path, codes):
    """Each voxel holds its world position; after turning to RAS positions grow along x, y and z."""
    size = dict(zip(range(3), (4, 5, 6)))            # voxels along the world's x, y, z
    step = dict(zip(range(3), (1.0, 1.5, 2.0)))      # mm along them
    worlds = [next(w for w, sides in enumerate(SIDES) if c in sides) for c in codes]
    runs = [np.arange(size[w])[::1 if c == SIDES[w][1] else -1] for w, c in zip(worlds, codes)]
    grids = np.meshgrid(*runs[::-1], indexing="ij")  # z, y, x as stored
    stored = sum(g * 10 ** w for g, w in zip(grids, worlds[::-1])).astype(np.int16)
    write_nifti(tmp_path / "v.nii.gz", stored, [step[w] for w in worlds[::-1]], codes)
    array, spacing, found = read_nifti(tmp_path / "v.nii.gz")
    assert found == codes
    turned, spacing = turn(array, spacing, found, "RAS")
    z, y, x = np.indices((6, 5, 4))
    assert np.array_equal(turned, 100 * z + 10 * y + x)
    assert spacing.tolist() == [2.0, 1.5, 1.0]
    back, _ = turn(turned[None], spacing, "RAS", codes)
    assert np.array_equal(back[0], array)


def test_ct_normalisation_clips_then_scales():
    how = {"kind": "ct", "percentile_00_5": -100.0, "percentile_99_5": 300.0, "mean": 50.0, "sd": 25.0}
    got = normalise(np.array([-1024, -100, 50, 75, 299, 3000]), how)
    assert got.dtype == np.float32
    assert got.tolist() == pytest.approx([-6, -6, 0, 1, 9.96, 10])


def test_unknown_normalisation_is_refused():
    with pytest.raises(ValueError, match="rescale01"):
        normalise(np.zeros(3), {"kind": "rescale01"})


def test_preprocess_turns_and_resamples():
    """Stored LPI at twice the recipe's spacing: twice the voxels, and the block in the upper right front."""
    image, label = scan(np.random.default_rng(1))
    spacing = 2 * np.array(RECIPE["spacing_zyx_mm"])
    got, mask = preprocess(image[None], label, spacing, "LPI", RECIPE)
    assert got.shape == (1, 40, 48, 56) and mask.shape == (40, 48, 56)
    assert [(int(w.min()), int(w.max())) for w in np.nonzero(mask)] == [(26, 35), (32, 41), (38, 47)]


def test_air_is_kept_without_a_crop(tmp_path):
    image = np.zeros((1, 8, 8, 8), np.int16)
    image[0, 2:6, 2:6, 2:6] = 40
    label, spacing = np.zeros((8, 8, 8), np.uint8), RECIPE["spacing_zyx_mm"]
    assert preprocess(image, label, spacing, "RAS", RECIPE)[1].shape == (8, 8, 8)
    assert preprocess(image, label, spacing, "RAS", RECIPE | {"crop": "nonzero"})[1].shape == (4, 4, 4)


def test_splits_and_folds_are_found(tmp_path):
    split = write_cases(tmp_path / "splits")
    assert [c[0] for c in list_cases(split, ["train"])] == ["a", "b"]
    assert list_cases(split, ["validation"])[0][1] == split / "validation" / "images" / "c.nii.gz"
    (tmp_path / "folds.tsv").write_text("case\tsubject_group\tfold5\nx\t1\t0\ny\t2\t3\n")
    assert list_cases(tmp_path, ["3"]) == [("y", tmp_path / "images" / "y.nii.gz", tmp_path / "labels" / "y.nii.gz")]
    with pytest.raises(ValueError, match="cases.tsv: no case of test"):
        list_cases(split, ["test"])


def test_cases_come_in_order_and_on_one_grid(tmp_path):
    folder = write_cases(tmp_path)
    cases = load_cases(folder, ["train"], RECIPE)
    assert [c.name for c in cases] == ["a", "b"]
    assert all(c.image.shape == (1, 20, 24, 28) and c.label.shape == (20, 24, 28) for c in cases)
    assert [c.name for c in load_cases(folder, ["train"], RECIPE, most=1)] == ["a"]
    write_nifti(folder / "train" / "labels" / "b.nii.gz", np.zeros((20, 24, 28), np.uint8), (2.5, 4, 4), "RAS")
    with pytest.raises(ValueError, match="b.nii.gz: not on the grid of its image"):
        load_cases(folder, ["train"], RECIPE)


def test_statistics_are_of_labelled_voxels(tmp_path):
    folder = write_cases(tmp_path)
    files = list_cases(folder, ["train"])
    values = np.concatenate([read_nifti(i)[0][2:7, 3:8, 4:9].ravel() for _, i, _ in files])
    got = ct_normalisation(folder, ["train"])
    assert (got["mean"], got["sd"]) == pytest.approx((values.mean(), values.std()), abs=1e-3)
    assert got["percentile_00_5"] == pytest.approx(np.percentile(values, 0.5), abs=1e-3)
    assert got["percentile_99_5"] == pytest.approx(np.percentile(values, 99.5), abs=1e-3)


def small_organ():
    """A canvas of one large case with a small label near a corner, for patches of 16^3."""
    label = np.zeros((60, 60, 60), np.uint8)
    label[50:55, 4:9, 50:55] = 1
    return Canvas([Case("one", np.zeros((1, 60, 60, 60), np.float32), label)], 2, [16] * 3, "cpu")


@pytest.mark.parametrize("centred, least, most", [(0.0, 0, 8), (0.5, 14, 32), (1.0, 40, 40)])
def test_centred_patches_hold_the_label(centred, least, most):
    draws = [np.random.default_rng([7, i]) for i in range(40)]
    _, label, _ = random_patches(small_organ(), [16] * 3, [], draws, centred)
    assert least <= sum(bool(patch.any()) for patch in label) <= most


def test_a_case_without_labels_gives_patches():
    canvas = Canvas([Case("none", np.zeros((1, 20, 20, 20), np.float32), np.zeros((20, 20, 20), np.uint8))],
                    2, [16] * 3, "cpu")
    _, label, _ = random_patches(canvas, [16] * 3, [], [np.random.default_rng(0)], 1.0)
    assert not label.any()


@pytest.mark.parametrize("codes", ["RAS", "LPI", "PSR", "SRA"])
def test_label_is_kept_within_the_references_slices(tmp_path, codes):
    """Label 2 loses what lies above and below the reference's; label 1 and all within stay."""
    reference = np.zeros((12, 8, 8), np.uint8)     # z, y, x in RAS
    reference[4:8, 2:4, 2:4] = 2
    mask = np.zeros_like(reference)
    mask[1:11, 3:6, 3:6] = 2
    mask[0:12, 7, 7] = 1
    wanted = mask.copy()
    wanted[1:4, 3:6, 3:6] = wanted[8:11, 3:6, 3:6] = 0
    for name, array in (("masks", mask), ("labels", reference)):
        stored, spacing = turn(array, np.array([3.0, 2.0, 1.0]), "RAS", codes)
        write_nifti(tmp_path / name / "a.nii.gz", np.ascontiguousarray(stored), spacing, codes)
    cut(tmp_path / "masks" / "a.nii.gz", tmp_path / "labels" / "a.nii.gz", 2, tmp_path / "out.nii.gz")
    got, spacing, found = read_nifti(tmp_path / "out.nii.gz")
    assert found == codes and np.array_equal(turn(got, spacing, found, "RAS")[0], wanted)
