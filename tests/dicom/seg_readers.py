"""DICOM SEG as other programs read it: highdicom, dcmqi's segimage2itkimage and DCMTK's dcm2json and dcmj2pnm find the
voxels that were written at the places that they were written at, and dciodvfy finds no error."""
import json
import os
import shutil
import subprocess
import sys

import oracle
from oracle import np, pydicom

try:
    import highdicom
    import pytest
    import SimpleITK
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)

from pydicom.uid import RLELossless
from seg import AXES, folder_of, some_labels, write_seg
from synthetic import Frame, enhanced

PLACES = os.path.dirname(sys.executable) + os.pathsep + os.environ.get("PATH", "")
TOOLS = {name: shutil.which(name, path=PLACES) for name in ("segimage2itkimage", "dcm2json", "dcmj2pnm", "dciodvfy")}
for name, found in TOOLS.items():
    if not found:
        print(f"skipped: {name} is not installed")
        sys.exit(77)

LPS = np.diag([-1.0, -1, 1, 1])
FLIPPED = {"rows flipped": np.diag([1.0, -1, -1]), "columns flipped": np.diag([-1.0, 1, -1]),
           "turned": np.diag([-1.0, -1, 1]), "sagittal flipped": AXES["sagittal"] @ np.diag([-1.0, 1, -1])}
ALL_AXES = {**AXES, **FLIPPED}


def called(tool, *words):
    done = subprocess.run([TOOLS[tool], *map(str, words)], capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


# Each reader: a list of (segment number, voxels [k][j][i], affine of (k, j, i, 1) to LPS mm).

def by_highdicom(path, folder):
    segments = highdicom.seg.segread(path)
    volume = segments.get_volume(combine_segments=False)
    return [(number, volume.array[..., at], volume.affine) for at, number in enumerate(segments.segment_numbers)]


def by_dcmqi(path, folder):
    out = folder / "dcmqi"
    out.mkdir()
    called("segimage2itkimage", "--inputDICOM", path, "--outputDirectory", out, "-t", "nrrd")
    found = []
    groups = json.loads((out / "meta.json").read_text())["segmentAttributes"]
    for at, group in enumerate(groups):
        image = SimpleITK.ReadImage(str(out / f"{at + 1}.nrrd"))
        affine = np.eye(4)
        affine[:3, :3] = (np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing())[:, ::-1]
        affine[:3, 3] = image.GetOrigin()
        voxels = SimpleITK.GetArrayFromImage(image)
        assert set(np.unique(voxels)) <= {0, *(s["labelID"] for s in group)}
        found += [(s["labelID"], voxels == s["labelID"], affine) for s in group]
    return found


def by_dcmtk(path, folder):
    """One volume a frame: places as dcm2json parses them, pixels as dcmj2pnm (dcmimgle) decodes them."""
    attributes = json.loads(called("dcm2json", path))
    def one(item, *tags):
        for tag in tags[:-1]:
            item = item[tag]["Value"][0]
        return item[tags[-1]]["Value"]
    shared = one(attributes, "52009229")[0]
    direction = np.array(one(shared, "00209116", "00200037"), float)
    spacing = np.array(one(shared, "00289110", "00280030"), float)
    called("dcmj2pnm", "+Fa", "+op", path, folder / "frame")
    found = []
    for at, item in enumerate(one(attributes, "52009230")):
        header, size, largest, pixels = (folder / f"frame.{at}.pgm").read_bytes().split(b"\n", 3)
        columns, rows = map(int, size.split())
        assert header == b"P5" and len(pixels) == rows * columns
        affine = np.eye(4)
        affine[:3, 0] = np.cross(direction[:3], direction[3:])  # of one slice
        affine[:3, 1], affine[:3, 2] = direction[3:] * spacing[0], direction[:3] * spacing[1]
        affine[:3, 3] = one(item, "00209113", "00200032")
        voxels = np.frombuffer(pixels, np.uint8).reshape(1, rows, columns) > 0
        found.append((one(item, "0062000A", "0062000B")[0], voxels, affine))
    return found


READERS = {"highdicom": by_highdicom, "dcmqi": by_dcmqi, "DCMTK": by_dcmtk}


def on_grid(found, value_of, shape, affine):
    """The label map that a reader's volumes make on the mask's own grid (affine of x, y, z to LPS)."""
    labels = np.zeros(shape, np.uint8)
    for number, voxels, own in found:
        places = own @ np.c_[np.argwhere(voxels), np.ones(np.count_nonzero(voxels))].T
        indices = np.rint(np.linalg.solve(affine, places)).astype(int)
        assert np.abs(affine @ indices - places).max(initial=0) < 1e-3  # mm
        x, y, z, _ = indices
        assert not labels[z, y, x].any()
        labels[z, y, x] = value_of[number]
    return labels


def all_agree(tmp_path, source, labels):
    out = write_seg(tmp_path, source, labels)
    affine = LPS @ oracle.Read(source).affine
    names = {"Left kidney": 1, "Größe": 2}
    value_of = {s.SegmentNumber: names.get(s.SegmentLabel) or int(s.SegmentLabel.split()[1])
                for s in pydicom.dcmread(out).SegmentSequence}
    for name, reader in READERS.items():
        folder = tmp_path / name
        folder.mkdir()
        assert np.array_equal(on_grid(reader(out, folder), value_of, labels.shape, affine), labels), name
    said = subprocess.run([TOOLS["dciodvfy"], out], capture_output=True, text=True, errors="replace")
    assert "Error" not in said.stderr + said.stdout, said.stderr


@pytest.mark.parametrize("axes", ALL_AXES)
@pytest.mark.parametrize("rows,columns", [(7, 9), (16, 8), (1, 13)])
def test_slices(tmp_path, axes, rows, columns):
    folder_of(tmp_path / "in", ALL_AXES[axes], rows, columns)
    all_agree(tmp_path, tmp_path / "in", some_labels((5, rows, columns)))


@pytest.mark.parametrize("axes", ALL_AXES)
def test_frames_of_one_file(tmp_path, axes):
    source = tmp_path / "a.dcm"
    enhanced(source, [Frame(k, axes=ALL_AXES[axes]) for k in (3, 1, 0, 2)])
    all_agree(tmp_path, source, some_labels((4, 10, 12)))


def test_compressed_frames(tmp_path):
    source = tmp_path / "a.dcm"
    enhanced(source, [Frame(k) for k in (2, 0, 1)], RLELossless)
    all_agree(tmp_path, source, some_labels((3, 10, 12)))


@pytest.mark.parametrize("charset", ["ISO_IR 100", "ISO_IR 192"])
def test_names(tmp_path, charset):
    def change(d):
        d.SpecificCharacterSet, d.PatientName = charset, "Müller^Jörg"
    folder_of(tmp_path / "in", np.eye(3), change=change)
    all_agree(tmp_path, tmp_path / "in", some_labels((5, 7, 9)))


def test_nothing_found(tmp_path):
    folder_of(tmp_path / "in", np.eye(3))
    all_agree(tmp_path, tmp_path / "in", np.zeros((5, 7, 9), np.uint8))


def test_every_voxel(tmp_path):
    folder_of(tmp_path / "in", np.eye(3), 11, 3)
    all_agree(tmp_path, tmp_path / "in", np.full((5, 11, 3), 2, np.uint8))


if __name__ == "__main__":
    sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", __file__]))
