"""A volume of the scene through the command-line module and back, as Slicer does it: by its own .nii, whose header holds single
precision; the segmentation, and the table of statistics."""
import os
import subprocess

import numpy as np
import pytest
import vtk
from cases import AFFINES, check, scan_file
from mrml import LABELS, MODELS, mask, save_volume, segment
from VoxMambaLib import Importer

MODULE = os.environ["VOXMAMBA_SEGMENT"]


def shifted(volume, by):
    """Moves the volume to where single precision does not reach exactly."""
    to_ras = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(to_ras)
    for r in range(3):
        to_ras.SetElement(r, 3, to_ras.GetElement(r, 3) + by[r])
    volume.SetIJKToRASMatrix(to_ras)


def run_module(*args):
    env = {**os.environ, "VOXMAMBA_MODELS": MODELS, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([MODULE, *map(str, args)], env=env, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == "", done.stderr


@pytest.mark.parametrize("geometry", AFFINES)
def test_there_and_back(app, scene, tmp_path, model, geometry):
    volume = app.io_manager.load_volumes(str(scan_file(tmp_path / "scan.nii.gz", AFFINES[geometry])))[0]
    shifted(volume, (0.123456789, -271.828182846, 314.159265359))
    handed, result, table = tmp_path / "é in.nii", tmp_path / "é out.seg.nrrd", tmp_path / "é.tsv"
    save_volume(volume, handed)
    run_module("--model", model, "--statistics", table, handed, result)
    segment(handed, "-m", model, "-o", tmp_path / "same.nii.gz")
    values = mask(tmp_path / "same.nii.gz")
    check(Importer.import_segmentation(scene, result, volume), volume, values)

    statistics = Importer.import_statistics(scene, table, "statistics", volume).GetTable()
    columns = {name: statistics.GetColumnByName(name) for name in ("label", "value", "voxels", "ml", "mean")}
    rows = [{name: column.GetValue(i) for name, column in columns.items()} for i in range(statistics.GetNumberOfRows())]
    assert {row["value"]: row["label"] for row in rows} == {l["value"]: l["name"] for l in LABELS}
    for row in rows:
        count = (values == row["value"]).sum()
        assert row["voxels"] == count and np.isclose(row["ml"], count * np.prod(volume.GetSpacing()) / 1000, rtol=1e-5)
        assert np.isfinite(row["mean"]) == (count > 0)
