"""DICOM folders: one series, several, uneven slices, several studies; and no patient data in reports or logs."""
import ctypes
import io
import json
import os

import nibabel
import numpy as np
import pytest
from conftest import files, load, run, save

pydicom = pytest.importorskip("pydicom")
sitk = pytest.importorskip("SimpleITK")
Image = pytest.importorskip("PIL.Image")
import tiny_model
from dicom_series import NAME, PATIENT, write_series  # noqa: E402
from test_library import SEGMENT_OPTIONS, Error, library, opened  # noqa: E402, F401

from pydicom.encaps import encapsulate, generate_frames  # noqa: E402
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, JPEGLosslessSV1, RLELossless, generate_uid  # noqa: E402

pytestmark = pytest.mark.usefixtures("dicom_is_built")


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


def test_masks_as_dicom_seg(model, tmp_path):
    write_series(tmp_path / "in")
    result = run("segment", tmp_path / "in", "-m", model, "-o", tmp_path / "out/", "--format", "dcmseg")
    assert result.code == 0, result.err
    assert run("segment", tmp_path / "in", "-m", model, "-o", tmp_path / "m.nii.gz").code == 0
    voxels = np.count_nonzero(load(tmp_path / "m.nii.gz")[0])
    out = pydicom.dcmread(tmp_path / "out" / "in.dcm")
    assert (out.Modality, out.PatientID, str(out.PatientName)) == ("SEG", PATIENT, NAME)
    assert np.unpackbits(np.frombuffer(out.PixelData, np.uint8)).sum() == voxels
    assert run("segment", tmp_path / "in", "-m", model, "-o", tmp_path / "m.dcm").code == 0
    assert pydicom.dcmread(tmp_path / "m.dcm").Modality == "SEG"
    run("segment", tmp_path / "in", "-m", model, "-o", tmp_path / "x.nii", "--format", "dcmseg").error_line(1)


def planned(folder, model, *more):
    return json.loads(run("info", folder, "--plan", "--json", "-m", model, *more).out)


def test_the_helper_is_planned(model, tmp_path):
    """The process that reads DICOM takes 32 MB and little for frames of 1 KB: --memory, --dry-run and info say the same."""
    write_series(tmp_path / "in")
    assert run("segment", tmp_path / "in", "-m", model, "-o", tmp_path / "m.nii.gz").code == 0
    image = load(tmp_path / "m.nii.gz")
    nibabel.save(nibabel.Nifti1Image(image[0].astype(np.int16), image[1]), tmp_path / "scan.nii")
    plain = planned(tmp_path / "scan.nii", model)["plan"]
    plans = [planned(tmp_path / "in", model)["series"][0]["plan"],
             planned(next((tmp_path / "in").iterdir()), model)["plan"]]
    for plan in plans:
        assert 31e6 < plan["volume_bytes"] - plain["volume_bytes"] < 33e6
        assert 25e6 < plan["peak_bytes"] - plain["peak_bytes"] < 35e6
    for limit, code in ((plans[0]["peak_bytes"] - 9e6, 5), (plans[0]["peak_bytes"] + 9e6, 0)):
        for more in ([], ["--dry-run"]):
            result = run("segment", tmp_path / "in", "-m", model, "-o", tmp_path / "m.nii.gz", "--overwrite", "--memory",
                         int(limit), *more)
            assert result.code == code, result.err
            assert (code == 5) == ("are needed at the least" in result.err)


def test_dicom_seg_is_planned(model, tmp_path):
    write_series(tmp_path / "in")
    plain, seg = (planned(tmp_path / "in", model, "--format", f)["series"][0]["plan"] for f in ("nii.gz", "dcmseg"))
    assert "output_bytes" not in plain and "caution" not in seg
    # The writing helper's 50 MB instead of the reading one's 32, and little else for 40 frames.
    assert 32e6 < plain["volume_bytes"] < 33e6 and 50e6 < seg["volume_bytes"] < 52e6
    assert run("segment", tmp_path / "in", "-m", model, "-o", tmp_path / "m.dcm").code == 0
    assert os.path.getsize(tmp_path / "m.dcm") <= seg["output_bytes"] < 2e5
    dry = run("segment", tmp_path / "in", "-m", model, "-o", tmp_path / "n.dcm", "--dry-run")
    assert dry.code == 0 and f"up to {seg['output_bytes'] / 1e6:.1f} MB of DICOM SEG" in dry.out
    assert seg["peak_bytes"] > plain["peak_bytes"] + 15e6
    limit = ["--memory", int(seg["peak_bytes"] - 9e6), "--overwrite"]
    run("segment", tmp_path / "in", "-m", model, "-o", tmp_path / "m.dcm", *limit).error_line(5)
    assert run("segment", tmp_path / "in", "-m", model, "-o", tmp_path / "m.nii.gz", *limit).code == 0


def write_large_series(folder):
    """9 slices of 4096 x 4096 zeros, run by run: the header's numbers are large, the files are not."""
    write_series(folder, positions=[2.0 * k for k in range(9)])
    runs = b"\x81\x00" * (4096 * 4096 // 128)  # of 128 zeros; twice: the words' high and low bytes
    starts = np.array([2, 64, 64 + len(runs)] + [0] * 13, "<u4").tobytes()
    for path in folder.iterdir():
        d = pydicom.dcmread(path)
        d.Rows, d.Columns, d.PixelSpacing = 4096, 4096, [0.05, 0.05]
        d.file_meta.TransferSyntaxUID = RLELossless
        d.PixelData = encapsulate([starts + runs + runs])
        d["PixelData"].VR = "OB"
        d.save_as(path, enforce_file_format=True)


def test_dicom_seg_may_be_too_large(tmp_path):
    """255 labels in 9 slices of 2 MiB are 4.8 GB; that is said before anything is computed."""
    value = tiny_model.recipe("many", labels=24)
    value["labels"] = [{"value": k, "name": f"l{k}", "rgb": [k, 0, 0]} for k in range(1, 256)]
    value["network"]["classes"] = 256
    many = tiny_model.write(str(tmp_path / "many.safetensors"), value)
    few = tiny_model.write(str(tmp_path / "few.safetensors"), tiny_model.recipe("few", labels=3))
    write_large_series(tmp_path / "in")
    plan = planned(tmp_path / "in", many, "--format", "dcmseg")["series"][0]["plan"]
    assert plan["output_bytes"] > 9 * 255 * 2**21 and "4.29 GB" in plan["caution"]
    for model, labels, warned in ((many, [], True), (many, ["--labels", "l1,l2"], False), (few, [], False)):
        dry = run("segment", tmp_path / "in", "-m", model, "-o", tmp_path / "m.dcm", "--dry-run", "--force", *labels)
        assert dry.code == 0 and ("4.29 GB" in dry.err) == warned, dry.err


def test_an_empty_mask_as_dicom_seg(model, tmp_path):
    write_series(tmp_path / "in")
    result = run("segment", tmp_path / "in", "-m", model, "-o", tmp_path / "m.dcm", "--remove-small", 1e9)
    assert result.code == 0 and "no label was found: the mask is empty" in result.err
    out = pydicom.dcmread(tmp_path / "m.dcm")
    assert out.NumberOfFrames == 1 and not any(out.PixelData)


def test_dicom_seg_needs_dicom(model, tmp_path):
    save(tmp_path / "scan.nii.gz")
    os.rename(save(tmp_path / "other.nii"), tmp_path / "nameless")
    for path in ("scan.nii.gz", "nameless"):
        result = run("segment", tmp_path / path, "-m", model, "-o", tmp_path / "m.dcm", "-v", "--log-format", "json")
        assert result.code == 1 and "needs DICOM input" in result.err and '"network"' not in result.err, result.err
        run("info", tmp_path / path, "--plan", "--format", "dcmseg", "-m", model).error_line(1)
    assert files(tmp_path) == ["nameless", "scan.nii.gz"]


def test_dicom_seg_without_the_patient(model, tmp_path):
    uid = write_series(tmp_path / "in")
    where = ["segment", tmp_path / "in", "-m", model, "-o", tmp_path / "m.dcm"]
    assert run(*where, "--anonymous").code == 0
    data = (tmp_path / "m.dcm").read_bytes()
    for secret in ("Doe", PATIENT, "19700102", "20200304", uid):
        assert secret.encode() not in data, secret
    # A mask with the patient is another mask: not taken for done.
    assert "done before" in run(*where, "--anonymous", "--resume").out
    assert "done before" not in run(*where, "--resume").out
    assert PATIENT.encode() in (tmp_path / "m.dcm").read_bytes()


def test_dicom_seg_of_some_labels(tmp_path):
    model = tiny_model.write(str(tmp_path / "m.safetensors"), tiny_model.recipe("three", labels=3))
    write_series(tmp_path / "in")
    run("segment", tmp_path / "in", "-m", model, "-o", tmp_path / "out.dcm", "--labels", "posterior")
    assert [s.SegmentLabel for s in pydicom.dcmread(tmp_path / "out.dcm").SegmentSequence] == ["posterior"]


class Progress(ctypes.Structure):
    _fields_ = [("case_number", ctypes.c_size_t), ("case_count", ctypes.c_size_t), ("cases_done", ctypes.c_size_t),
                ("stage", ctypes.c_char_p), ("fraction", ctypes.c_double)]


def test_dicom_seg_cancelled_while_it_is_written(library, model, tmp_path):
    write_series(tmp_path / "in")
    handle, session = opened(library, model)
    options = (ctypes.c_char * 512)()
    library.vxm_segment_options_init(options, ctypes.c_size_t(SEGMENT_OPTIONS))
    seen = []

    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(Progress))
    def stop(_, progress):
        if progress[0].stage == b"write":
            seen.append(progress[0].fraction)
        return len(seen) > 20  # of 40 frames or so

    pointer = ctypes.sizeof(ctypes.c_void_p)
    ctypes.memmove(ctypes.addressof(options) + SEGMENT_OPTIONS - pointer,
                   ctypes.byref(ctypes.c_void_p.from_buffer(stop)), pointer)
    error = Error()
    status = library.vxm_segment_file(session, str(tmp_path / "in").encode(), str(tmp_path / "m.dcm").encode(), options,
                                      None, ctypes.byref(error))
    assert status == 7 and seen == sorted(seen) and 0.95 < seen[-1] < 0.99
    assert files(tmp_path) == ["in"]
    library.vxm_session_free(session)
    library.vxm_model_close(handle)


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


def baseline(pixels, _):
    out = io.BytesIO()
    Image.fromarray((pixels >> 4).astype(np.uint8)).save(out, "JPEG", quality=90)
    return out.getvalue()


def by_gdcm(name):
    def compressed(pixels, folder):
        writer = sitk.ImageFileWriter()
        writer.SetImageIO("GDCMImageIO")
        writer.SetFileName(str(folder / "one.dcm"))
        writer.SetCompressor(name)
        writer.UseCompressionOn()
        writer.Execute(sitk.GetImageFromArray(pixels[None]))
        return next(generate_frames(pydicom.dcmread(folder / "one.dcm").PixelData, number_of_frames=1))
    return compressed


# Syntax, stored bits, what makes the stream of a slice.
JPEG = {"baseline": (JPEGBaseline8Bit, 8, baseline), "lossless": (JPEGLosslessSV1, 16, by_gdcm("JPEG")),
        "2000": (JPEG2000Lossless, 16, by_gdcm("JPEG2000"))}


@pytest.mark.parametrize("kind", JPEG)
def test_a_jpeg_stream_cut_short(model, tmp_path, kind):
    """With an end marker put behind the cut, too: a decoder may fill up what is missing and say nothing."""
    syntax, bits, compressed = JPEG[kind]

    def compress(d):
        stream = compressed(d.pixel_array, tmp_path)
        d.file_meta.TransferSyntaxUID = syntax
        d.BitsAllocated = d.BitsStored = bits
        d.HighBit = bits - 1
        d.PixelData = encapsulate([stream])
        d["PixelData"].VR = "OB"

    folder, out = tmp_path / "in", tmp_path / "out"
    out.mkdir()
    write_series(folder, change=compress)
    assert run("segment", folder, "-m", model, "-o", tmp_path / "whole.nii.gz").code == 0
    path = next(folder.glob("*_007"))
    d = pydicom.dcmread(path)
    whole = next(generate_frames(d.PixelData, number_of_frames=1)).rstrip(b"\0")
    for share in (0.1, 0.5, 0.9, 1):
        for end in (b"", b"\xff\xd9"):
            d.PixelData = encapsulate([whole[:int(len(whole) * share) - 8] + end])
            d.save_as(path)
            line = run("segment", folder, "-m", model, "-o", out / "m.nii.gz").error_line(2)
            assert line.startswith(f"voxmamba: {folder}: ") and "slice 8 of 20: " in line, (share, end, line)
            assert files(out) == []
