"""Grids whose axes are not perpendicular, in every format: the affine is kept, one warning, nothing of a library's own.
And NIfTI files whose two transforms differ. The rules stand in docs/dicom.md."""
import json
import struct

import nibabel
import numpy as np
import pytest
from conftest import files, load, run, volume

AXES = {
    "sheared": np.array([[1, 0.2, 0], [0, 1, 0.3], [0, 0, 2.0]]),
    "slightly skewed": np.array([[1, 0, 0], [0.0005, 1, 0], [0, 0, 2.0]]),
}
ORIGIN = np.array([3.0, -4.0, 5.0])


def vector(v):
    return "(" + ",".join(f"{x:.17g}" for x in v) + ")"


def write(path, axes):
    """axes: columns in mm; RAS for NIfTI, LPS for the others. Returns the RAS affine."""
    data = np.asarray(volume(1).dataobj).astype("<f4")
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = axes, ORIGIN
    sizes = " ".join(map(str, data.shape))
    if path.suffix == ".nii":
        nibabel.save(nibabel.Nifti1Image(data, affine), str(path))
        return affine
    if path.suffix == ".nrrd":
        header = (f"NRRD0004\ntype: float\ndimension: 3\nspace: left-posterior-superior\nsizes: {sizes}\n"
                  f"space directions: {' '.join(vector(c) for c in axes.T)}\nkinds: domain domain domain\n"
                  f"endian: little\nencoding: raw\nspace origin: {vector(ORIGIN)}\n\n")
    else:
        spacing = np.linalg.norm(axes, axis=0)
        matrix = " ".join(f"{v:.17g}" for v in (axes / spacing).T.ravel())
        header = (f"ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
                  f"TransformMatrix = {matrix}\nOffset = {' '.join(map(str, ORIGIN))}\n"
                  f"ElementSpacing = {' '.join(f'{v:.17g}' for v in spacing)}\nDimSize = {sizes}\n"
                  f"ElementType = MET_FLOAT\nElementDataFile = LOCAL\n")
    path.write_bytes(header.encode() + data.tobytes(order="F"))
    return np.diag([-1.0, -1, 1, 1]) @ affine


@pytest.mark.parametrize("name", AXES)
@pytest.mark.parametrize("ending", ["nii", "nrrd", "mha"])
def test_sheared_grids_are_kept(model, tmp_path, ending, name):
    path = tmp_path / f"in.{ending}"
    affine = write(path, AXES[name])
    result = run("segment", path, "-m", model, "-o", tmp_path / "mask.nii.gz", "-q")
    assert result.code == 0, result.err
    lines = result.err.splitlines()
    assert len(lines) == 1 and "the grid is sheared: two of its axes meet at" in lines[0], result.err
    assert np.abs(load(tmp_path / "mask.nii.gz")[1] - affine).max() < 1e-5


@pytest.mark.parametrize("ending", ["nii", "nrrd", "mha"])
def test_singular_grids_are_refused(model, tmp_path, ending):
    path = tmp_path / f"in.{ending}"
    write(path, np.array([[1, 1, 0], [0, 0, 0], [0, 0, 2.0]]) + 1e-300)
    line = run("segment", path, "-m", model, "-o", tmp_path / "mask.nii.gz").error_line(2)
    assert "affine" in line and "ITK" not in line and files(tmp_path) == [f"in.{ending}"]


def test_a_skew_of_rounding_is_silent(model, tmp_path):
    path = tmp_path / "in.nii"
    affine = write(path, np.array([[1, 0, 0], [9e-5, 1, 0], [0, 0, 2.0]]))
    result = run("segment", path, "-m", model, "-o", tmp_path / "mask.nii.gz", "-q")
    assert result.code == 0 and result.err == ""
    assert np.abs(load(tmp_path / "mask.nii.gz")[1] - affine).max() < 1e-6


@pytest.mark.parametrize("shift, told", [(0.5, True), (0.05, False)])
def test_sform_and_qform_that_disagree(model, tmp_path, shift, told):
    """shift: voxels between them at every corner. The sform counts, the mask gets both."""
    image = volume(1)
    other = image.affine.copy()
    other[:3, 3] += shift * 0.9 * np.array([0.6, 0, 0.8])  # 0.9 mm: the smallest spacing
    image.set_sform(image.affine, 2)
    image.set_qform(other, 1)
    nibabel.save(image, str(tmp_path / "in.nii.gz"))
    out = tmp_path / "mask.nii.gz"
    result = run("segment", tmp_path / "in.nii.gz", "-m", model, "-o", out, "-q", "--report", tmp_path / "r.json")
    assert result.code == 0, result.err
    words = f"sform and qform disagree by {shift:.2f} voxels at a corner"
    warnings, = [case["warnings"] for case in json.load(open(tmp_path / "r.json"))["cases"]]
    assert len(warnings) == len(result.err.splitlines()) == told
    assert all(words in text for text in warnings + result.err.splitlines())
    mask, source = nibabel.load(out), nibabel.load(tmp_path / "in.nii.gz")
    for kind in ("sform", "qform"):
        got, want = (getattr(i.header, "get_" + kind)(coded=True) for i in (mask, source))
        assert got[1] == want[1] and np.array_equal(got[0], want[0])
    assert np.array_equal(mask.affine, source.get_sform())


def test_a_qform_that_is_no_rotation(model, tmp_path):
    """Ignored beside an sform, refused where it is all there is."""
    path = tmp_path / "in.nii"
    for sform_code, code in ((1, 0), (0, 2)):
        write(path, np.eye(3))
        data = bytearray(path.read_bytes())
        struct.pack_into("<2h", data, 252, 1, sform_code)
        struct.pack_into("<f", data, 256, 2.0)  # quatern_b
        path.write_bytes(data)
        result = run("segment", path, "-m", model, "-o", tmp_path / "mask.nii.gz", "-q")
        assert result.code == code and ("is not a rotation" in result.err) == (code == 2), result.err
        for name in set(files(tmp_path)) - {"in.nii"}:
            (tmp_path / name).unlink()
