"""docs/images/slicer.png: drawn by Slicer's own code from the program's result, and the committed one is what that gives."""
import os
import subprocess
import sys

import numpy as np
import pytest
from mrml import ROOT, SAMPLE, segment
from PIL import Image

SCRIPT = os.path.join(ROOT, "scripts/slicer_picture.py")
COMMITTED = os.path.join(ROOT, "docs/images/slicer.png")
ANTERIOR, POSTERIOR = (230, 120, 80), (80, 140, 230)


def draw(*args):
    return subprocess.run([sys.executable, SCRIPT, *map(str, args)], capture_output=True, text=True)


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    folder = tmp_path_factory.mktemp("picture")
    segment(SAMPLE, "-m", "hippocampus", "-o", folder / "mask.seg.nrrd")
    done = draw(SAMPLE, folder / "mask.seg.nrrd", folder / "picture.png", "--zoom", "1.15")
    assert done.returncode == 0, done.stderr
    return np.asarray(Image.open(folder / "picture.png").convert("RGB")).astype(int)


def views(picture):
    """The four views without their bars: axial, 3D, coronal, sagittal."""
    rows, columns = picture.shape[0] // 2, picture.shape[1] // 2
    return [picture[y + 24:y + rows - 4, x:x + columns - 4] for y in (0, rows) for x in (0, columns)]


def near(view, color, distance):
    return (np.abs(view - color).max(axis=2) <= distance).sum()


def test_slices_show_scan_and_labels(picture):
    axial, _, coronal, sagittal = views(picture)
    for view, labels in ((axial, (ANTERIOR, POSTERIOR)), (sagittal, (ANTERIOR, POSTERIOR)), (coronal, (ANTERIOR,))):
        for color in labels:
            assert near(view, color, 3) > 500  # the outline, 3 pixels wide
        grey = view[(view.max(axis=2) - view.min(axis=2) < 3)]
        assert len(grey) > 0.5 * view[..., 0].size and grey[:, 0].std() > 30
        # The fill lets the scan through: many shades of each colour.
        shades = {tuple(p) for p in view[view[..., 0] - view[..., 2] > 25]} if ANTERIOR in labels else ()
        assert len(shades) > 30


def test_surfaces_in_3d(picture):
    _, view, _, _ = views(picture)
    orange = (view[..., 0] - view[..., 2] > 60).mean()
    blue = ((view[..., 2] - view[..., 0] > 90) & (view[..., 1] > 60)).mean()
    grey = (view.max(axis=2) - view.min(axis=2) < 3).mean()
    assert orange > 0.03 and blue > 0.03 and grey > 0.05, (orange, blue, grey)


def test_committed_picture(picture):
    assert os.path.getsize(COMMITTED) < 300_000
    committed = np.asarray(Image.open(COMMITTED).convert("RGB")).astype(int)
    assert committed.shape == picture.shape
    # Other versions of Mesa round and antialias otherwise, on edges.
    assert np.abs(committed - picture).mean() < 1


def test_no_picture_of_a_broken_result(tmp_path):
    (tmp_path / "a.seg.nrrd").write_text("NRRD0004\n")
    done = draw(SAMPLE, tmp_path / "a.seg.nrrd", tmp_path / "out.png")
    assert done.returncode != 0 and "no whole .seg.nrrd" in done.stderr
    assert not (tmp_path / "out.png").exists()
