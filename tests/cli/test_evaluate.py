"""evaluate against DeepMind's surface-distance package and plain numpy."""
import json
import math
import os
import re

import nibabel
import numpy as np
import pytest
import surface_distance
from conftest import ROOT, bomb, files, free_memory, run


def blobs(seed, shape=(30, 26, 22), labels=2):
    random = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij")).astype(float)
    mask = np.zeros(shape, np.uint8)
    for value in range(1, labels + 1):
        centre = np.array([10 + 7 * (value - 1), 12, 11.0]) + random.uniform(-1.5, 1.5, 3)
        radius = np.array([4.5, 5.5, 4.0]) + random.uniform(-1, 1, 3)
        inside = (((grid - centre[:, None, None, None]) / radius[:, None, None, None]) ** 2).sum(0) < 1
        mask[inside] = value
    return mask


AFFINE = np.array([[-0.9, 0, 0, 4], [0, 1.2, 0, -3], [0, 0, 2.5, 8], [0, 0, 0, 1.0]])


def save(path, mask, affine=AFFINE):
    nibabel.save(nibabel.Nifti1Image(mask, affine), str(path))
    return path


def truth(pred, ref, spacing, tolerance):
    distances = surface_distance.compute_surface_distances(ref, pred, spacing)
    to_pred, to_ref = surface_distance.compute_average_surface_distance(distances)
    a, b = distances["surfel_areas_gt"], distances["surfel_areas_pred"]
    both = (pred & ref).sum()
    return {
        "dice": 2 * both / (pred.sum() + ref.sum()),
        "iou": both / (pred | ref).sum(),
        "hd95": surface_distance.compute_robust_hausdorff(distances, 95),
        "assd": (to_pred * a.sum() + to_ref * b.sum()) / (a.sum() + b.sum()),
        "nsd": surface_distance.compute_surface_dice_at_tolerance(distances, tolerance),
    }


@pytest.mark.parametrize("tolerance", [None, 0.5, 2.0])
def test_two_files(tmp_path, tolerance):
    pred, ref = blobs(1), blobs(2)
    save(tmp_path / "p.nii.gz", pred)
    save(tmp_path / "r.nii.gz", ref)
    args = [] if tolerance is None else ["--tolerance", tolerance]
    result = run("evaluate", tmp_path / "p.nii.gz", tmp_path / "r.nii.gz", "--json", *args)
    assert result.code == 0, result.err
    data = json.loads(result.out)
    assert data["tolerance_mm"] == (tolerance or 1.0)
    spacing = nibabel.affines.voxel_sizes(AFFINE)
    ml = abs(np.linalg.det(AFFINE[:3, :3])) / 1000
    labels = data["cases"][0]["labels"]
    assert [l["label"] for l in labels] == [1, 2]
    for got in labels:
        p, r = pred == got["label"], ref == got["label"]
        for key, value in truth(p, r, spacing, tolerance or 1.0).items():
            assert got[key] == pytest.approx(value, abs=1e-6 if key in ("dice", "iou") else 1e-3), key
        assert got["prediction_ml"] == pytest.approx(p.sum() * ml, rel=1e-7)
        assert got["reference_ml"] == pytest.approx(r.sum() * ml, rel=1e-7)
    mean = data["summary"]["mean_over_labels"]["dice"]
    assert mean == pytest.approx(np.mean([l["dice"] for l in labels]))


def test_real_masks(tmp_path):
    """The sample's manual mask against itself moved by a voxel."""
    folder = os.path.join(ROOT, "sample-data")
    paths = [os.path.join(d, f) for d, _, fs in os.walk(folder) for f in fs if f.endswith(".nii.gz")]
    masks = [p for p in paths if len(np.unique(np.asarray(nibabel.load(p).dataobj))) <= 4]
    if not masks:
        pytest.skip("no sample mask")
    image = nibabel.load(masks[0])
    ref = np.asarray(image.dataobj).astype(np.uint8)
    pred = np.roll(ref, 1, 0)
    save(tmp_path / "p.nii.gz", pred, image.affine)
    result = run("evaluate", tmp_path / "p.nii.gz", masks[0], "--json")
    assert result.code == 0, result.err
    for got in json.loads(result.out)["cases"][0]["labels"]:
        expected = truth(pred == got["label"], ref == got["label"], nibabel.affines.voxel_sizes(image.affine), 1.0)
        for key, value in expected.items():
            assert got[key] == pytest.approx(value, abs=1e-6 if key in ("dice", "iou") else 1e-3), key


@pytest.fixture
def folders(tmp_path):
    """Three pairs; label 3 only in one prediction, label 2 in neither mask of c."""
    for name in ("pred", "ref"):
        (tmp_path / name).mkdir()
    masks = {}
    for i, name in enumerate("abc"):
        pred, ref = blobs(10 + i), blobs(20 + i)
        if name == "a":
            pred[0:2, 0:2, 0:2] = 3
        if name == "c":
            pred[pred == 2] = 0
            ref[ref == 2] = 0
        save(tmp_path / "pred" / f"{name}.nii.gz", pred)
        save(tmp_path / "ref" / f"{name}.nii.gz", ref)
        masks[name] = (pred, ref)
    return tmp_path, masks


def test_folders(folders):
    tmp_path, masks = folders
    save(tmp_path / "ref" / "lonely.nii.gz", blobs(1))
    result = run("evaluate", tmp_path / "pred", tmp_path / "ref", "--json")
    assert result.code == 0, result.err
    assert "warning: " in result.err and "1 references" in result.err
    data = json.loads(result.out)
    assert [c["name"] for c in data["cases"]] == ["a", "b", "c"]
    assert data["unpaired"] == {"predictions": 0, "references": 1}
    summary = {l["label"]: l for l in data["summary"]["labels"]}
    dice = [truth(*(m == 1 for m in masks[n]), [1, 1, 1], 1)["dice"] for n in "abc"]
    assert summary[1]["dice"]["mean"] == pytest.approx(np.mean(dice), abs=1e-9)
    assert summary[1]["dice"]["sd"] == pytest.approx(np.std(dice, ddof=1), abs=1e-9)
    assert summary[1]["dice"]["median"] == pytest.approx(np.median(dice), abs=1e-9)
    assert summary[2]["cases"] == 2 and summary[2]["both_empty"] == 1
    assert summary[2]["dice"]["mean"] == pytest.approx(
        np.mean([truth(*(m == 2 for m in masks[n]), [1, 1, 1], 1)["dice"] for n in "ab"]), abs=1e-9)
    # In one mask only: Dice 0, infinite distances.
    three = summary[3]
    assert three["cases"] == 1 and three["both_empty"] == 2 and three["one_empty"] == 1
    assert three["dice"]["mean"] == 0 and three["hd95"]["mean"] == "inf" and three["nsd"]["mean"] == 0
    case = next(l for l in data["cases"][0]["labels"] if l["label"] == 3)
    assert case["hd95"] == "inf" and case["assd"] == "inf" and math.isinf(float(case["hd95"]))
    text = run("evaluate", tmp_path / "pred", tmp_path / "ref").out
    assert "inf" in text and "mean over labels" in text


def test_labels_that_are_asked_for(folders):
    tmp_path, _ = folders
    data = json.loads(run("evaluate", tmp_path / "pred", tmp_path / "ref", "--json", "--labels", "one=1,nine=9").out)
    summary = {l["name"]: l for l in data["summary"]["labels"]}
    assert set(summary) == {"one", "nine"}
    assert summary["nine"]["cases"] == 0 and summary["nine"]["both_empty"] == 3
    assert summary["nine"]["dice"]["mean"] is None
    nine = data["cases"][0]["labels"][1]
    assert nine["dice"] is None and nine["both_empty"] is True
    assert data["summary"]["mean_over_labels"]["dice"] == pytest.approx(summary["one"]["dice"]["mean"])
    for bad in ("0", "x", "1,", "65536", "-1", "a=b", ""):
        run("evaluate", tmp_path / "pred", tmp_path / "ref", "--labels", bad).error_line(1)


def test_overlap_only(folders):
    tmp_path, _ = folders
    data = json.loads(run("evaluate", tmp_path / "pred", tmp_path / "ref", "--json", "--overlap-only").out)
    assert "hd95" not in data["cases"][0]["labels"][0] and "dice" in data["cases"][0]["labels"][0]


def test_grids_that_differ(tmp_path):
    save(tmp_path / "p.nii.gz", blobs(1))
    save(tmp_path / "dims.nii.gz", blobs(1, shape=(30, 26, 23)))
    moved = AFFINE.copy()
    moved[1, 3] += 0.2
    save(tmp_path / "moved.nii.gz", blobs(1), moved)
    for other in ("dims", "moved"):
        run("evaluate", tmp_path / "p.nii.gz", tmp_path / f"{other}.nii.gz").error_line(2)
    # Also where no label shows it.
    save(tmp_path / "e1.nii.gz", np.zeros((5, 5, 5), np.uint8))
    save(tmp_path / "e2.nii.gz", np.zeros((5, 5, 6), np.uint8))
    run("evaluate", tmp_path / "e1.nii.gz", tmp_path / "e2.nii.gz").error_line(2)


def test_bad_masks(tmp_path):
    save(tmp_path / "p.nii.gz", blobs(1))
    save(tmp_path / "f.nii.gz", blobs(1).astype(np.float32) + 0.5)
    run("evaluate", tmp_path / "p.nii.gz", tmp_path / "f.nii.gz").error_line(2)
    assert "gone.nii.gz" in run("evaluate", tmp_path / "p.nii.gz", tmp_path / "gone.nii.gz").error_line(2)
    run("evaluate", tmp_path / "p.nii.gz", tmp_path).error_line(1)
    (tmp_path / "empty").mkdir()
    run("evaluate", tmp_path / "empty", tmp_path).error_line(2)
    run("evaluate", tmp_path / "p.nii.gz", tmp_path / "p.nii.gz", "--tolerance", "-1").error_line(1)


def test_a_bad_pair_among_good_ones(folders):
    tmp_path, _ = folders
    (tmp_path / "pred" / "b.nii.gz").write_bytes(b"nothing")
    result = run("evaluate", tmp_path / "pred", tmp_path / "ref", "--json")
    assert result.code == 6 and "1 of 3" in result.err
    assert f"{tmp_path / 'pred' / 'b.nii.gz'}: " in result.err
    data = json.loads(result.out)
    assert data["cases"][1]["error"]["code"] == 2 and data["summary"]["labels"][0]["cases"] == 2
    assert files(tmp_path / "pred") == ["a.nii.gz", "b.nii.gz", "c.nii.gz"]


def test_two_files_of_one_case(folders):
    tmp_path, _ = folders
    (tmp_path / "ref" / "b.nii").write_bytes(b"which of them counts?")
    line = run("evaluate", tmp_path / "pred", tmp_path / "ref").error_line(1)
    assert "'b.nii' and 'b.nii.gz' are one case" in line


@pytest.mark.parametrize("name, dtype, share", [("b.nii.gz", np.uint8, 1.5), ("b.nii.gz", np.int16, 0.5),
                                                ("b.nrrd", np.uint8, 0.8)])
@pytest.mark.parametrize("swapped", [False, True])
def test_what_a_small_mask_claims_is_checked_before_it_is_read(tmp_path, name, dtype, share, swapped):
    """Bytes a voxel: 1 as unscaled uint8, else 3, for values above 255 make a second mask; ITK decodes a copy."""
    large = bomb(tmp_path / name, free_memory() * share, dtype)
    masks = [large, save(tmp_path / "small.nii.gz", blobs(1))]
    line = run("evaluate", *(masks[::-1] if swapped else masks)).error_line(5)
    need, room = re.search(r"([\d.]+) GB of memory are needed at the least, ([\d.]+) GB are free", line).groups()
    assert float(need) > float(room) and name in line


def test_a_large_mask_among_others(tmp_path):
    for folder in ("p", "r"):
        (tmp_path / folder).mkdir()
        save(tmp_path / folder / "a.nii.gz", blobs(1))
        save(tmp_path / folder / "b.nii.gz", blobs(1))
    bomb(tmp_path / "p" / "b.nii.gz", free_memory() * 1.5)
    result = run("evaluate", tmp_path / "p", tmp_path / "r", "--json")
    assert result.code == 6
    first, second = json.loads(result.out)["cases"]
    assert first["labels"] and second["error"]["code"] == 5
