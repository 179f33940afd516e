"""DICOM folders: one series, several, uneven slices, several studies; and no patient data in reports or logs."""
import json
import os

import numpy as np
import pytest
from conftest import files, load, run

pydicom = pytest.importorskip("pydicom")
from pydicom.dataset import FileDataset, FileMetaDataset  # noqa: E402
from pydicom.encaps import encapsulate, generate_frames  # noqa: E402
from pydicom.uid import ExplicitVRLittleEndian, RLELossless, generate_uid  # noqa: E402

NAME, PATIENT = "Doe^Jane", "PID-Q4711"


def write_series(folder, seed=0, number=3, positions=None, description="T1 of Doe", study=None):
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    series, study = generate_uid(), study or generate_uid()
    positions = positions if positions is not None else [2.0 * k for k in range(20)]
    for k, z in enumerate(positions):
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.4"
        meta.MediaStorageSOPInstanceUID = generate_uid()
        d = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
        d.SOPClassUID, d.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
        d.PatientName, d.PatientID, d.PatientBirthDate, d.StudyDate = NAME, PATIENT, "19700102", "20200304"
        d.Modality, d.SeriesDescription, d.SeriesNumber, d.InstanceNumber = "MR", description, number, k + 1
        d.SeriesInstanceUID, d.StudyInstanceUID, d.FrameOfReferenceUID = series, study, study
        d.ImageType = ["ORIGINAL", "PRIMARY"]
        d.ImageOrientationPatient, d.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [-10, -20, z]
        d.PixelSpacing, d.SliceThickness = [1.0, 1.5], 2.0
        d.Rows, d.Columns, d.SamplesPerPixel, d.PhotometricInterpretation = 24, 22, 1, "MONOCHROME2"
        d.BitsAllocated, d.BitsStored, d.HighBit, d.PixelRepresentation = 16, 12, 11, 0
        d.PixelData = random.integers(0, 4000, (24, 22)).astype("<u2").tobytes()
        d.save_as(folder / f"IM{seed}{random.integers(1e6)}_{k:03d}", enforce_file_format=True)
    return str(series)


@pytest.fixture(autouse=True)
def dicom_is_built(tmp_path):
    write_series(tmp_path / "probe")
    result = run("info", tmp_path / "probe")
    if result.code != 0:
        assert "not in this build" in result.err or "DICOM" in result.err, result.err
        pytest.skip("this build does not read DICOM")


def test_a_folder_is_one_case(model, tmp_path):
    uid = write_series(tmp_path / NAME)
    result = run("segment", tmp_path / NAME, "-m", model, "-o", tmp_path / "m.nii.gz", "--report", tmp_path / "r.json",
                 "--log-format", "json", "-v")
    assert result.code == 0, result.err
    data, affine = load(tmp_path / "m.nii.gz")
    assert data.shape == (22, 24, 20)
    expected = np.array([[-1.5, 0, 0, 10], [0, -1.0, 0, 20], [0, 0, 2.0, 0], [0, 0, 0, 1]])
    assert np.abs(affine - expected).max() < 1e-4
    for text in (open(tmp_path / "r.json").read(), open(tmp_path / "m.json").read(), result.err):
        for secret in ("Doe", "Q4711", "19700102", "20200304", uid, str(tmp_path)):
            assert secret not in text, (secret, text)


def test_files_without_ending_or_preamble(model, tmp_path):
    """As old archives have them: the meta information is the file's beginning."""
    folder = tmp_path / "in"
    write_series(folder)
    masks = []
    for i in range(2):
        result = run("segment", folder, "-m", model, "-o", tmp_path / f"m{i}.nii.gz")
        assert result.code == 0, result.err
        masks.append(load(tmp_path / f"m{i}.nii.gz")[0])
        for path in folder.iterdir():
            path.write_bytes(path.read_bytes()[132 if i == 0 else 0:])
    assert np.array_equal(*masks)
    assert run("info", next(folder.iterdir())).code == 0


def test_info_lists_series(tmp_path):
    study = generate_uid()
    a = write_series(tmp_path / "in", 1, 4, study=study)
    b = write_series(tmp_path / "in", 2, 5, positions=[0, 2, 4, 7, 9], study=study)
    listed = {s["uid"]: s for s in json.loads(run("info", tmp_path / "in", "--json").out)["series"]}
    assert set(listed) == {a, b}
    assert listed[a]["number"] == 4 and listed[a]["files"] == 20 and listed[a]["problems"] == []
    assert listed[a]["dims"] == [22, 24, 20] and listed[a]["spacing"] == [1.5, 1.0, 2.0]
    assert listed[a]["orientation"] == "LPS" and listed[a]["modality"] == "MR"
    assert listed[a]["description"] == "T1 of Doe"
    assert listed[b]["problems"] and {"code", "message"} == set(listed[b]["problems"][0])
    anonymous = run("info", tmp_path / "in", "--json", "--anonymous")
    assert "Doe" not in anonymous.out and len(json.loads(anonymous.out)["series"]) == 2
    for secret in (a, b, "Doe", "uid", "path", str(tmp_path)):
        assert secret not in anonymous.out
    one = json.loads(run("info", tmp_path / "in", "--json", "--series", "5").out)["series"]
    assert [s["uid"] for s in one] == [b]
    run("info", tmp_path / "in", "--series", "77").error_line(2)


def test_several_volumes_of_a_series_are_parts(model, tmp_path):
    folder = tmp_path / "in"
    uid = write_series(folder, 1)
    for k in range(20):  # the same places again, with another echo
        path = edit(folder, k, lambda d: setattr(d, "EchoTime", "2.5"))
        d = pydicom.dcmread(path)
        d.EchoTime, d.SOPInstanceUID = "10", generate_uid()
        d.save_as(folder / f"second{k}")
    listed = json.loads(run("info", folder, "--json").out)["series"]
    assert [(s["uid"], s["number"], s["part"], s["contents"], s["files"], s["problems"]) for s in listed] == [
        (uid, 3, 1, "EchoTime 2.5", 20, []), (uid, 3, 2, "EchoTime 10", 20, [])]
    assert "series       3/2\ncontents     EchoTime 10\n" in run("info", folder).out
    for choice, count in (("3", 2), (uid, 2), ("3/2", 1), (uid + "/1", 1)):
        assert len(json.loads(run("info", folder, "--json", "--series", choice).out)["series"]) == count
    out = tmp_path / "m.nii.gz"
    assert "3/1 (MR, EchoTime 2.5, 20 files)" in run("segment", folder, "-m", model, "-o", out).error_line(2)
    assert run("segment", folder, "-m", model, "-o", out, "--series", "3/2").code == 0


def test_anonymous_info_names_no_file(tmp_path):
    uid = write_series(tmp_path / "Doe")
    for name in sorted(os.listdir(tmp_path / "Doe"))[:1]:
        data = (tmp_path / "Doe" / name).read_bytes()
        (tmp_path / "Doe" / "Jane Roe Q4711: a.dcm").write_bytes(data[:400])
    plain = run("info", tmp_path / "Doe", "--json").out
    assert "Roe Q4711" in plain and uid in plain and str(tmp_path) in plain
    for args in (("--json",), ()):
        result = run("info", tmp_path / "Doe", "--anonymous", *args)
        assert result.code == 0 and "cannot be read" in result.out
        for secret in ("Doe", "Jane", "Roe", "Q4711", "a.dcm", uid, str(tmp_path)):
            assert secret not in result.out + result.err, secret


def test_several_series_need_a_choice(model, tmp_path):
    a = write_series(tmp_path / "in", 1, 4)
    write_series(tmp_path / "in", 2, 5)
    line = run("segment", tmp_path / "in", "-m", model, "-o", tmp_path / "m.nii.gz").error_line(2)
    assert "--series" in line
    assert "m.nii.gz" not in files(tmp_path)
    masks = []
    for i, choice in enumerate(("4", a, "5")):
        result = run("segment", tmp_path / "in", "-m", model, "-o", tmp_path / f"m{i}.nii.gz", "--series", choice)
        assert result.code == 0, result.err
        masks.append(load(tmp_path / f"m{i}.nii.gz")[0])
    assert np.array_equal(masks[0], masks[1]) and not np.array_equal(masks[0], masks[2])
    # Another series is another result: resume must see it.
    run("segment", tmp_path / "in", "-m", model, "-o", tmp_path / "m0.nii.gz", "--series", "5", "--resume")
    assert np.array_equal(load(tmp_path / "m0.nii.gz")[0], masks[2])


def edit(folder, k, change):
    """Changes slice k of write_series()."""
    path, = folder.glob(f"*_{k:03d}")
    dataset = pydicom.dcmread(path)
    change(dataset)
    dataset.save_as(path)
    return path


def position(index, offset):
    def change(d):
        moved = [float(v) for v in d.ImagePositionPatient]
        moved[index] += offset
        d.ImagePositionPatient = moved
    return change


def tilt(folder):
    for k in range(20):
        edit(folder, k, position(1, 2.0 * k * np.tan(np.radians(12))))


def claim(d):
    """10 GB of pixels by the header, and a stream that says the same in a few bytes."""
    d.compress(RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
    d.Rows, d.Columns, d.BitsAllocated, d.BitsStored, d.HighBit = 50000, 50000, 32, 32, 31


def cut(folder):
    d = pydicom.dcmread(next(folder.glob("*_007")))
    d.compress(RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
    streams = list(generate_frames(d.PixelData, number_of_frames=1))
    d.PixelData = encapsulate([streams[0][:len(streams[0]) // 2 * 2 // 2]])
    d.save_as(next(folder.glob("*_007")))


def cut_file(folder):
    path = next(folder.glob("*_007"))
    path.write_bytes(path.read_bytes()[:-500])


BAD = {
    "a slice removed": (lambda f: next(f.glob("*_007")).unlink(), "1 slice missing, first between 12.00 and 16.00 mm"),
    "a slice twice": (lambda f: (f / "copy").write_bytes(next(f.glob("*_007")).read_bytes()),
                      "1 slice at a position that another slice holds, first at 14.00 mm"),
    "shifted along": (lambda f: edit(f, 7, position(2, 0.5)), "uneven slice distances, 1.500 to 2.500 mm"),
    "shifted sideways": (lambda f: edit(f, 7, position(0, 0.5)), "shifted sideways by up to 0.500 mm"),
    "tilted": (tilt, "tilt or shear of 12.00 degrees"),
    "two series mixed": (lambda f: write_series(f, 9, 4), "2 series: 3 (MR, 20 files), 4 (MR, 20 files)"),
    "stream cut short": (cut, "run-length"),
    "file cut short": (cut_file, "damaged DICOM file"),
    "10 GB claimed": (lambda f: edit(f, 7, claim), "10.0 GB a frame, are more than is believed"),
}
MENDED = {"a slice removed", "a slice twice", "shifted along", "shifted sideways", "tilted"}


@pytest.mark.parametrize("name", BAD)
def test_bad_series(model, tmp_path, name):
    change, words = BAD[name]
    folder = tmp_path / "in"
    write_series(folder)
    change(folder)
    before, out = files(tmp_path), tmp_path / "m.nii.gz"
    line = run("segment", folder, "-m", model, "-o", out).error_line(2)
    assert line.startswith(f"voxmamba: {folder}: ") and words in line
    assert ("--tolerate-geometry" in line) == (name in MENDED)
    assert files(tmp_path) == before
    result = run("segment", folder, "-m", model, "-o", out, "--tolerate-geometry", "--report", tmp_path / "r.json")
    if name not in MENDED:
        result.error_line(2)
        assert set(files(tmp_path)) <= set(before) | {"r.json"}
        return
    assert result.code == 0, result.err
    warnings, = [case["warnings"] for case in json.load(open(tmp_path / "r.json"))["cases"]]
    for text in (result.err, " ".join(warnings)):
        assert "resampled to a straight, even grid of 2" in text and words in text
    mask, affine = load(out)
    assert mask.shape[2] == 20 and abs(affine[:3, :3] - np.diag([-1.5, -1, 2])).max() < 1e-9


def test_studies_in_subfolders_are_a_batch(model, tmp_path):
    write_series(tmp_path / "in" / "p1", 1)
    write_series(tmp_path / "in" / "p2" / "ct", 2)
    (tmp_path / "in" / "notes").mkdir()
    result = run("segment", tmp_path / "in", "-m", model, "-o", tmp_path / "out")
    assert result.code == 0, result.err
    assert files(tmp_path / "out") == ["p1.json", "p1.nii.gz", "p2_ct.json", "p2_ct.nii.gz"]
    # --batch forces it where DICOM files lie at the top too.
    write_series(tmp_path / "in", 3)
    result = run("segment", tmp_path / "in", "-m", model, "-o", tmp_path / "out2", "--batch", "--jobs", 2)
    assert result.code == 0, result.err
    assert files(tmp_path / "out2") == files(tmp_path / "out")


def test_errors_of_dicom_hold_no_names_in_reports(model, tmp_path):
    write_series(tmp_path / "in" / "Doe" , positions=[0, 2, 4, 7])
    two = tmp_path / "in" / "PID-Q4711"
    uids = [write_series(two, 1, 4), write_series(two, 2, 5)]
    result = run("segment", tmp_path / "in", "-m", model, "-o", tmp_path / "out", "--report", tmp_path / "r.json",
                 "--log-format", "json")
    assert result.code == 6, result.err
    for text in (open(tmp_path / "r.json").read(), result.err):
        for secret in ["Doe", "Q4711", str(tmp_path)] + uids:
            assert secret not in text, secret
