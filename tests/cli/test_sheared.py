"""Grids whose axes are not perpendicular, in every format: the affine is kept, one warning, nothing of a library's own."""
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
