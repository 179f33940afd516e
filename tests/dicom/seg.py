"""DICOM SEG as pydicom and highdicom read it: the same voxels at the same places, and what refers to the source."""
import os
import shutil
import subprocess
import sys

import oracle
from oracle import np, pydicom

try:
    import highdicom
    import pytest
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)

from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from synthetic import OBLIQUE, Frame, blank, enhanced, write

WRITE = os.environ.get("VOXMAMBA_WRITE_SEG", "write_seg")
AXES = {"axial": np.eye(3), "sagittal": np.array([[0, 0, 1.0], [1, 0, 0], [0, -1, 0]]),
        "coronal": np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]), "oblique": OBLIQUE}


def folder_of(path, axes, rows=7, columns=9, depth=5, gaps=None, change=lambda d: None):
    """Single-frame files; returns the positions (LPS) of their first pixels by SOP instance."""
    path.mkdir()
    normal = np.cross(axes[:, 0], axes[:, 1])
    places = {}
    for k in range(depth):
        d = blank(CTImageStorage, ExplicitVRLittleEndian, rows, columns)
        place = np.array([-31.5, 12.25, 40]) + (gaps[k] if gaps else 2.5 * k) * normal
        d.Modality = "CT"
        d.ImagePositionPatient = [f"{v:.10g}" for v in place]
        d.ImageOrientationPatient = [f"{v:.10g}" for v in np.r_[axes[:, 0], axes[:, 1]]]
        d.PixelSpacing, d.RescaleSlope, d.RescaleIntercept = [0.75, 0.5], 1, 0
        d.PatientID, d.StudyDate = "P1", "20200304"
        d.PixelData = (np.arange(rows * columns) + k).astype("<u2").tobytes()
        change(d)
        write(d, path / f"{(k * 7) % depth}.dcm")
        places[d.SOPInstanceUID] = place
    return places


def write_seg(tmp_path, source, labels, *words):
    raw, out = tmp_path / "labels", tmp_path / "out.dcm"
    raw.write_bytes(labels.astype(np.uint8).tobytes())
    done = subprocess.run([WRITE, source, raw, out, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out


def world_of(path):
    """(segment number, LPS place) of every voxel that is set, from the frames' own attributes; and the data set."""
    d = pydicom.dcmread(path)
    bits = np.unpackbits(np.frombuffer(d.PixelData, np.uint8), bitorder="little")
    frames = bits[:d.NumberOfFrames * d.Rows * d.Columns].reshape(d.NumberOfFrames, d.Rows, d.Columns)
    shared = d.SharedFunctionalGroupsSequence[0]
    direction = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float)
    spacing = np.array(shared.PixelMeasuresSequence[0].PixelSpacing, float)
    found = []
    for pixels, item in zip(frames, d.PerFrameFunctionalGroupsSequence, strict=True):
        place = np.array(item.PlanePositionSequence[0].ImagePositionPatient, float)
        for row, column in np.argwhere(pixels):
            found.append((item.SegmentIdentificationSequence[0].ReferencedSegmentNumber,
                          place + column * spacing[1] * direction[:3] + row * spacing[0] * direction[3:]))
    return found, d


def expected(source, labels, *words):
    read = oracle.Read(source, None, "tolerate" in words)
    place = read.affine @ np.c_[np.argwhere(labels)[:, ::-1], np.ones(np.count_nonzero(labels))].T
    return labels[labels > 0], (place[:3].T * [-1, -1, 1])


def must_match(out, source, labels, *words):
    found, d = world_of(out)
    values, places = expected(source, labels, *words)
    assert len(found) == len(values)
    names = {s.SegmentNumber: s.SegmentLabel for s in d.SegmentSequence}
    wanted = {1: "Left kidney", 2: "Größe"}
    for value, place in zip(values, places):
        near = [n for n, p in found if np.abs(p - place).max() < 1e-3]
        assert [names[n] for n in near] == [wanted.get(value, f"Label {value}")]
    if shutil.which("dciodvfy"):
        said = subprocess.run(["dciodvfy", out], capture_output=True, text=True, errors="replace")
        assert "Error" not in said.stderr + said.stdout, said.stderr
    segments = highdicom.seg.segread(out)
    assert segments.number_of_segments == len(d.SegmentSequence)
    return d


def some_labels(shape, seed=1):
    random = np.random.default_rng(seed)
    labels = np.where(random.random(shape) < 0.1, random.integers(1, 4, shape), 0)
    labels[1] = 0  # an empty slice
    labels[0, 0, 1], labels[-1, -1, -1] = 1, 2
    return labels


@pytest.mark.parametrize("name", AXES)
def test_slices(tmp_path, name):
    places = folder_of(tmp_path / "in", AXES[name])
    labels = some_labels((5, 7, 9))
    d = must_match(write_seg(tmp_path, tmp_path / "in", labels), tmp_path / "in", labels)
    assert d.PatientID == "P1" and d.StudyInstanceUID == "1.2.3" and d.FrameOfReferenceUID == "1.2.3.5"
    assert d.NumberOfFrames == sum(len(np.unique(s[s > 0])) for s in labels)
    for item in d.PerFrameFunctionalGroupsSequence:
        uid = item.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        assert np.abs(places[uid] - np.array(item.PlanePositionSequence[0].ImagePositionPatient, float)).max() < 1e-3
    listed = d.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    assert {i.ReferencedSOPInstanceUID for i in listed} == set(places) and len(listed) == len(places)


def test_frames(tmp_path):
    source = tmp_path / "a.dcm"
    enhanced(source, [Frame(k) for k in (3, 1, 0, 2)])
    labels = some_labels((4, 10, 12))
    d = must_match(write_seg(tmp_path, source, labels), source, labels)
    original = pydicom.dcmread(source)
    for item in d.PerFrameFunctionalGroupsSequence:
        number = item.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber
        place = original.PerFrameFunctionalGroupsSequence[number - 1].PlanePositionSequence[0].ImagePositionPatient
        mine = item.PlanePositionSequence[0].ImagePositionPatient
        assert np.abs(np.array(place, float) - np.array(mine, float)).max() < 1e-3
    assert len(d.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == 1


def test_a_straightened_volume_has_no_source_frames(tmp_path):
    folder_of(tmp_path / "in", np.eye(3), gaps=[0, 2, 4, 8, 10])
    read = oracle.Read(tmp_path / "in", None, True)
    labels = some_labels(read.voxels.shape)
    d = must_match(write_seg(tmp_path, tmp_path / "in", labels, "tolerate"), tmp_path / "in", labels, "tolerate")
    assert not any("DerivationImageSequence" in item for item in d.PerFrameFunctionalGroupsSequence)
    assert len(d.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == 5
    sources = d.SharedFunctionalGroupsSequence[0].DerivationImageSequence[0].SourceImageSequence
    assert len(sources) == 5 and all(s.SpatialLocationsPreserved == "NO" for s in sources)


def test_segments_are_coded_and_named(tmp_path):
    folder_of(tmp_path / "in", np.eye(3))
    _, d = world_of(write_seg(tmp_path, tmp_path / "in", some_labels((5, 7, 9))))
    kidney, size, rare, other = d.SegmentSequence
    kind = kidney.SegmentedPropertyTypeCodeSequence[0]
    assert (kind.CodeValue, kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning) == ("64033007", "Left")
    assert kidney.SegmentAlgorithmType == "AUTOMATIC" and kidney.SegmentAlgorithmName == "test-model"
    assert kidney.SegmentationAlgorithmIdentificationSequence[0].AlgorithmVersion == "1.2"
    assert rare.SegmentedPropertyTypeCodeSequence[0].LongCodeValue == "999000011000000103"
    assert other.SegmentLabel == "Label 3" and other.SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Tissue"
    assert size.SegmentLabel == "Größe" and d.SpecificCharacterSet == "ISO_IR 192"
    # Red of sRGB under D50 is L 54.29, a 80.81, b 69.89.
    lab = np.array(kidney.RecommendedDisplayCIELabValue) / 65535 * [100, 255, 255] - [0, 128, 128]
    assert np.abs(lab - [54.29, 80.81, 69.89]).max() < 0.05


@pytest.mark.parametrize("charset,encoding", [("ISO_IR 100", "latin-1"), ("ISO_IR 192", "utf-8")])
def test_patients_names(tmp_path, charset, encoding):
    def change(d):
        d.SpecificCharacterSet, d.PatientName = charset, "Müller^Jörg"
    folder_of(tmp_path / "in", np.eye(3), change=change)
    _, d = world_of(write_seg(tmp_path, tmp_path / "in", some_labels((5, 7, 9))))
    assert str(d.PatientName) == "Müller^Jörg"


def test_anonymous(tmp_path):
    def change(d):
        d.PatientName, d.PatientBirthDate, d.PatientSex, d.PatientAge = "Doe^Jane", "19700102", "F", "050Y"
        d.AccessionNumber, d.StudyDescription, d.StudyID, d.StudyTime = "AQX4711", "Head of Doe", "SQX4711", "112233.445566"
        d.StudyInstanceUID, d.FrameOfReferenceUID = "1.2.20200304.5", "1.2.20200304.6"
    places = folder_of(tmp_path / "in", OBLIQUE, change=change)
    labels = some_labels((5, 7, 9))
    out = write_seg(tmp_path, tmp_path / "in", labels, "anonymous")
    d = must_match(out, tmp_path / "in", labels, "anonymous")
    assert (d.PatientName, d.PatientID, d.PatientIdentityRemoved) == ("Anonymous", "Anonymous", "YES")
    data = out.read_bytes()
    # Short runs of digits would be found in the new UIDs now and then.
    for secret in ("Doe", "P1\0", "19700102", "050Y", "QX4711", "112233.4", "20200304", "1.2.3.4", *places):
        assert secret.encode() not in data, secret
    out.unlink()
    again = pydicom.dcmread(write_seg(tmp_path, tmp_path / "in", labels, "anonymous"))
    assert again.StudyInstanceUID != d.StudyInstanceUID and again.FrameOfReferenceUID != d.FrameOfReferenceUID


def test_an_empty_mask_is_one_empty_frame(tmp_path):
    folder_of(tmp_path / "in", np.eye(3))
    found, d = world_of(write_seg(tmp_path, tmp_path / "in", np.zeros((5, 7, 9))))
    assert not found and d.NumberOfFrames == 1 and len(d.PixelData) == 8


if __name__ == "__main__":
    sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", __file__]))
