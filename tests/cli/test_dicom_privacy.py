"""Nothing that names a patient goes where it was not asked for: attributes, UIDs and names of files that hold markers,
through every command and every way to fail, and all that was said and written searched for them (docs/dicom.md)."""
import gzip
import json
import re
import zlib

import pytest
from conftest import run

pydicom = pytest.importorskip("pydicom")
from dicom_series import write_series  # noqa: E402

pytestmark = pytest.mark.usefixtures("dicom_is_built")

TEXTS = {"PatientName": "Anné^PNQX1", "PatientID": "PIQX2", "OtherPatientIDs": "OPQX3", "PatientComments": "PCQX4",
         "StudyDescription": "SDQX5", "SeriesDescription": "REQX6", "AccessionNumber": "ACQX7", "StudyID": "SIQX8",
         "ReferringPhysicianName": "RPQX9", "InstitutionName": "INQX10", "ImageComments": "ICQX11",
         "ProtocolName": "PRQX12", "StationName": "STQX13", "OperatorsName": "OPQX14", "PatientAddress": "PAQX15",
         "DeviceSerialNumber": "DSQX16", "PerformedProcedureStepDescription": "PPQX17"}
DATES = {"PatientBirthDate": "19310717", "StudyDate": "19991119", "SeriesDate": "19991120", "AcquisitionDate": "19991121",
         "ContentDate": "19991122", "StudyTime": "131719.237"}
ROOT = "1.2.826.0.1.9876543219"  # of all UIDs here
SEARCHED = [t.split("^")[-1] for t in TEXTS.values()] + list(DATES.values()) + [ROOT]
FOLDER, FILE = "Zoë Maria FOQX O'Neil", "Zoë Maria FIQX O'Neil"  # names with blanks and quotes, as exports make them
NAMES = ["FOQX", "FIQX", "Zoë", "Maria", "Neil"]


def marked(folder, series=1, **more):
    """A series full of markers, its files named after a patient as well."""
    number = 0

    def change(d):
        nonlocal number
        number += 1
        d.SpecificCharacterSet = "ISO_IR 100"
        for name, value in {**TEXTS, **DATES}.items():
            setattr(d, name, value)
        d.StudyInstanceUID, d.SeriesInstanceUID = f"{ROOT}.1", f"{ROOT}.2.{series}"
        d.FrameOfReferenceUID = f"{ROOT}.3"
        d.SOPInstanceUID = d.file_meta.MediaStorageSOPInstanceUID = f"{ROOT}.4.{series}.{number}"
        d.private_block(0x0099, "PVQX18", create=True).add_new(1, "LO", "PVQX19")
    write_series(folder, series, series, change=change, **more)
    for i, path in enumerate(sorted(folder.glob("IM*"))):
        path.rename(folder / f"{FILE} {series}-{i}")


SEARCHED += ["PVQX"]


def slices(folder):
    return sorted(p for p in folder.iterdir() if p.is_file())


def edit(path, change):
    d = pydicom.dcmread(path)
    change(d)
    d.save_as(path)


def cut(folder):
    path = slices(folder)[3]
    path.write_bytes(path.read_bytes()[:-300])


def move(d):
    d.ImagePositionPatient = [-10, -19, 4]


def another_class(d):
    d.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"


def no_grid(d):
    del d.PixelSpacing


FAILURES = {
    "damaged file": cut,
    "empty file": lambda f: (f / f"{FILE}.dcm").write_bytes(b""),
    "all damaged": lambda f: [p.write_bytes(p.read_bytes()[:300]) for p in slices(f)],
    "slice removed": lambda f: slices(f)[3].unlink(),
    "slice twice": lambda f: (f / f"{FILE} again").write_bytes(slices(f)[3].read_bytes()),
    "shifted": lambda f: edit(slices(f)[2], move),
    "two series": lambda f: marked(f, 2),
    "no volume": lambda f: [edit(p, another_class) for p in slices(f)],
    "a slice of another class": lambda f: edit(slices(f)[3], another_class),
    "no grid": lambda f: edit(slices(f)[3], no_grid),
    "unreadable pixels": lambda f: edit(slices(f)[3], lambda d: setattr(d, "Rows", 25)),
}


def unpacked(data):
    """What a search of the bytes alone would miss: compressed streams, wherever they begin."""
    found = [data]
    for start in [m.start() for m in re.finditer(rb"\x1f\x8b\x08", data)]:
        try:
            found.append(zlib.decompressobj(31).decompress(data[start:]))
        except zlib.error:
            pass
    return b"\n".join(found)


def leaks(data, searched):
    if isinstance(data, str):
        data = data.encode()
    data = unpacked(data)

    def shapes(text):
        return {text.encode(), text.encode("latin-1"), json.dumps(text)[1:-1].encode()}

    def found(text):
        # Digits of a date can stand in a measured time ("0.00035733 19991119 206"): dates begin where no number goes on.
        start = rb"(?<![0-9.])" if text[0].isdigit() else b""
        return any(re.search(start + re.escape(shape), data) for shape in shapes(text))
    return [s for s in searched if found(s)]


def check_files(folder, inputs, allowed=()):
    """No marker in any file below folder that is not an input; allowed: endings of files that may hold names."""
    count = 0
    for path in folder.rglob("*"):
        if not path.is_file() or inputs in path.parents:
            continue
        names = [] if path.name.endswith(allowed) else NAMES
        assert not leaks(path.read_bytes(), SEARCHED + names), path.name
        count += 1
    return count


def test_the_search_finds_what_it_looks_for(tmp_path):
    """The markers are in the input; and a leak would be seen in each kind of file."""
    marked(tmp_path / FOLDER)
    data = slices(tmp_path / FOLDER)[0].read_bytes()
    assert leaks(data, SEARCHED) == SEARCHED
    assert leaks(b"header\n\n" + gzip.compress(b"x" * 99 + "Zoë".encode()), NAMES) == ["Zoë"]
    assert leaks(json.dumps({"a": "Zoë"}), NAMES) == ["Zoë"]


SPOKEN = {"plain": (), "verbose": ("-v",), "json": ("--log-format", "json"), "verbose json": ("--log-format", "json", "-v")}
LOUD = {"verbose": SPOKEN["verbose"], "verbose json": SPOKEN["verbose json"]}  # they say what the others do, and more


@pytest.mark.parametrize("kind", ["nii.gz", "nii", "nrrd", "seg.nrrd", "mha"])
def test_segment(model, tmp_path, kind):
    marked(tmp_path / FOLDER)
    for spoken, options in SPOKEN.items():
        (tmp_path / spoken).mkdir()
        result = run("segment", tmp_path / FOLDER, "-m", model, "-o", tmp_path / spoken / f"m.{kind}", "--split",
                     "--preview", "--report", tmp_path / f"{spoken} r.json", "--stats", tmp_path / f"{spoken} s.json",
                     *(["--probabilities"] if "nii" in kind else []), *options)
        assert result.code == 0, result.err
        assert not leaks(result.out + result.err, SEARCHED + NAMES)
    # Statistics are results: they hold the case's name, which is its folder's.
    assert check_files(tmp_path, tmp_path / FOLDER, ("s.json",)) >= 4 * 6


SEG_HOLDS = ["PNQX1", "PIQX2", "SDQX5", "ACQX7", "SIQX8", "RPQX9", "19310717", "19991119", "131719.237", ROOT]


def test_a_segmentation_belongs_to_its_patient(model, tmp_path):
    """As much as an object of the same study has to hold, and nothing with --anonymous; never anything elsewhere."""
    marked(tmp_path / FOLDER)
    for anonymous in ((), ("--anonymous",)):
        for spoken, options in LOUD.items():
            out = tmp_path / f"{spoken}{len(anonymous)}"
            result = run("segment", tmp_path / FOLDER, "-m", model, "-o", out, "--format", "dcmseg", "--split", "--preview",
                         "--report", tmp_path / f"{out.name} r.json", *options, *anonymous)
            assert result.code == 0, result.err
            said = result.err + result.out.replace(FOLDER, "")
            assert not leaks(said, SEARCHED + NAMES), said
            segmentations = sorted(out.glob("*.dcm"))
            assert len(segmentations) == 2
            for path in segmentations:
                found = leaks(path.read_bytes(), SEARCHED + NAMES)
                assert sorted(found) == ([] if anonymous else sorted(SEG_HOLDS)), found
                path.unlink()
    assert check_files(tmp_path, tmp_path / FOLDER) == 4 * 3


@pytest.mark.parametrize("name", FAILURES)
def test_failures(model, tmp_path, name):
    marked(tmp_path / FOLDER)
    FAILURES[name](tmp_path / FOLDER)
    marked(tmp_path / "in" / FOLDER)
    FAILURES[name](tmp_path / "in" / FOLDER)
    marked(tmp_path / "in" / "fine")
    for tolerate in ((), ("--tolerate-geometry",)):
        for spoken, options in LOUD.items():
            report = tmp_path / f"{spoken} r.json"
            for folder, code in ((tmp_path / FOLDER, 2), (tmp_path / "in", 6)):
                result = run("segment", folder, "-m", model, "-o", tmp_path / "out", "--batch" if code == 6 else "--no-tta",
                             "--report", report, "--overwrite", *options, *tolerate)
                assert result.code == code or tolerate, (result.code, result.err)
                names = NAMES if "json" in spoken else []  # text names files
                assert not leaks(result.out.replace(FOLDER, "") + result.err, SEARCHED + names), result.err
                assert not leaks(report.read_bytes(), SEARCHED + NAMES), report.read_text()
    check_files(tmp_path / "out", tmp_path / FOLDER)


def test_other_runs_of_segment(model, tmp_path):
    """Usage errors and refusals before anything is read; resuming; a plan; a choice of a series."""
    folder, out = tmp_path / FOLDER, tmp_path / "out"
    marked(folder)
    marked(folder, 2)
    common = ("segment", folder, "-m", model, "-o", out)
    again = ("--series", 2, "--overwrite")
    for code, more in ((2, ("--resume",)), (0, ("--series", 2, "--dry-run")), (0, again), (4, ("--series", 2)),
                       (0, ("--series", 2, "--resume")), (0, ("--series", f"{ROOT}.2.2", "--overwrite")),
                       (2, ("--resume", "--series", f"{ROOT}.2.7")), (5, (*again, "--memory", "5M")),
                       (1, (*again, "--labels", "none"))):
        for spoken, options in LOUD.items():
            (tmp_path / "r.json").unlink(missing_ok=True)
            result = run(*common, *more, "--report", tmp_path / "r.json", *options)
            assert result.code == code, (more, result.code, result.err)
            names = NAMES if "json" in spoken else []
            said = (result.err + result.out.replace(FOLDER, "")).replace(str(more[-1]), "")  # as typed
            assert not leaks(said, SEARCHED + names), said
            if (tmp_path / "r.json").exists():
                assert not leaks((tmp_path / "r.json").read_bytes(), SEARCHED + NAMES)
    check_files(out, folder)


def test_paths_where_they_are_asked_for(model, tmp_path):
    """--log-paths: paths, and still nothing out of the files."""
    marked(tmp_path / FOLDER)
    cut(tmp_path / FOLDER)
    result = run("segment", tmp_path / FOLDER, "-m", model, "-o", tmp_path / "out", "--report", tmp_path / "r.json",
                 "--log-format", "json", "--log-paths")
    assert result.code == 2
    for text in (result.err, (tmp_path / "r.json").read_text()):
        assert not leaks(text, SEARCHED) and leaks(text, ["FOQX", "FIQX"]) == ["FOQX", "FIQX"], text


@pytest.mark.parametrize("name", [None, *FAILURES])
def test_info(model, tmp_path, name):
    folder = tmp_path / FOLDER
    marked(folder)
    if name:
        FAILURES[name](folder)
    for path in (folder, slices(folder)[-1]):
        for more in (("--json",), ("--plan", "-m", model)):
            for spoken, options in LOUD.items():
                plain = run("info", path, *more, *options)
                shown = SEARCHED[:]  # what info of a folder is asked for
                for asked in ("REQX6", ROOT):
                    shown.remove(asked)
                assert not leaks(plain.out + plain.err, shown)
                hidden = run("info", path, "--anonymous", *more, *options)
                said = hidden.out + hidden.err.replace(f"voxmamba: {path}: ", "")  # as typed
                assert not leaks(said, SEARCHED + NAMES), said
                assert hidden.code == plain.code


def test_what_belongs_to_no_patient(model, tmp_path):
    """Masks compared with each other: no attribute is in them any more."""
    marked(tmp_path / FOLDER)
    assert run("segment", tmp_path / FOLDER, "-m", model, "-o", tmp_path / "a.nii.gz").code == 0
    result = run("evaluate", tmp_path / "a.nii.gz", tmp_path / "a.nii.gz", "--json", "-v")
    assert result.code == 0 and not leaks(result.out + result.err, SEARCHED + NAMES)
    line = run("evaluate", tmp_path / FOLDER, tmp_path / "a.nii.gz", "--log-format", "json")
    assert line.code != 0 and not leaks(line.out + line.err, SEARCHED + NAMES), line.err
