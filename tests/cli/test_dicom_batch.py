"""Folders of DICOM patients: which folders are cases, bad ones among them, resume, shards, odd names."""
import os
import signal
import subprocess
import time

import numpy as np
import pytest
from conftest import command, environment, files, load, run

pydicom = pytest.importorskip("pydicom")
from dicom_series import write_series  # noqa: E402
from pydicom.uid import generate_uid  # noqa: E402

pytestmark = pytest.mark.usefixtures("dicom_is_built")
ENDING = {"nii.gz": ".nii.gz", "dcmseg": ".dcm"}


def segment(folder, model, out, *args):
    result = run("segment", folder, "-m", model, "-o", out, *args)
    assert result.code == 0, result.err
    return result


def results(names, kind):
    beside = [".json"] if kind == "dcmseg" else [".json", ".tsv"]  # a SEG names its labels itself
    return sorted(name + end for name in names for end in [ENDING[kind], *beside])


def content(path):
    """A mask without what differs between two runs (a SEG's own UIDs and times)."""
    if path.suffix != ".dcm":
        return load(path)[0].tobytes()
    d = pydicom.dcmread(path)
    assert d.Modality == "SEG"
    return bytes(d.PixelData), d.FrameOfReferenceUID, d.ReferencedSeriesSequence[0].SeriesInstanceUID


def contents(out, kind):
    return {p.name: content(p) for p in out.glob("[!.]*" + ENDING[kind])}


def stamps(folder):
    return {n: os.stat(folder / n).st_mtime_ns for n in files(folder)}


def localizer(d):
    d.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]


def cut_a_file(folder):
    path = sorted(folder.iterdir())[7]
    path.write_bytes(path.read_bytes()[:-500])


GOOD = ["Jürgen Müller", "p2", "患者 5"]


@pytest.fixture
def patients(tmp_path):
    """Three that can be read, one with two series to choose from, one with a damaged file; other things between."""
    top = tmp_path / "all patients"
    write_series(top / GOOD[0], 1)
    study = generate_uid()
    write_series(top / GOOD[1] / "mr", 2, study=study)
    write_series(top / GOOD[1] / "localizer", 3, 1, positions=[0, 9], study=study, change=localizer)
    write_series(top / GOOD[2] / "études" / "a b", 4)
    write_series(top / "two", 5, 4)
    write_series(top / "two", 6, 5)
    write_series(top / "bad")
    cut_a_file(top / "bad")
    (top / "notes").mkdir()
    (top / "notes" / "list.txt").write_text("none")
    (top / "list.txt").write_text("none")
    return top


@pytest.mark.parametrize("kind, more", [("nii.gz", ()), ("dcmseg", ()), ("dcmseg", ("--jobs", 2)), ("nii.gz", ("--batch",))])
def test_each_subfolder_is_a_case(model, patients, tmp_path, kind, more):
    out = tmp_path / "out put"
    result = run("segment", patients, "-m", model, "-o", out, "--format", kind, *more)
    assert result.code == 6
    lines = [l for l in result.err.splitlines() if not l.endswith("done)")]
    assert len(lines) == 3, lines
    assert f"{patients}/bad: " in lines[0] and "IM0" in lines[0] and "damaged DICOM file" in lines[0]
    assert f"{patients}/two: 2 series: 4 (MR, 20 files), 5 (MR, 20 files) (choose one by --series" in lines[1]
    assert "2 of 5 cases failed" in lines[2]
    assert files(out) == results(GOOD, kind)
    # Each as if it had been the only one.
    for name in GOOD:
        alone = tmp_path / f"alone{ENDING[kind]}"
        segment(patients / name, model, alone, "--overwrite")
        assert content(alone) == content(out / (name + ENDING[kind]))
    # A choice that holds for all: number 3 is the number of the good series.
    result = run("segment", patients / "two", "-m", model, "-o", out, "--format", kind, "--series", 5)
    assert result.code == 0 and files(out) == results(GOOD + ["two"], kind)


def test_all_of_them_bad(model, tmp_path):
    for name in ("a", "b"):
        write_series(tmp_path / "in" / name)
        cut_a_file(tmp_path / "in" / name)
    result = run("segment", tmp_path / "in", "-m", model, "-o", tmp_path / "out", "--format", "dcmseg")
    assert result.code == 6 and files(tmp_path) == ["in", "out"] and files(tmp_path / "out") == [], result.err


def test_one_study_is_not_torn_apart(model, tmp_path):
    study = generate_uid()
    for seed, name in ((1, "t1"), (2, "t2")):
        write_series(tmp_path / "in" / "anna" / name, seed, seed, study=study)
    line = run("segment", tmp_path / "in", "-m", model, "-o", tmp_path / "out").error_line(2)
    assert "2 series: 1 (MR, 20 files), 2 (MR, 20 files)" in line
    segment(tmp_path / "in", model, tmp_path / "out", "--series", 2)
    assert files(tmp_path / "out") == results(["in"], "nii.gz")
    # The one patient of a folder of patients: that has to be said.
    segment(tmp_path / "in", model, tmp_path / "each", "--series", 2, "--batch")
    assert files(tmp_path / "each") == results(["anna"], "nii.gz")
    assert contents(tmp_path / "each", "nii.gz")["anna.nii.gz"] == contents(tmp_path / "out", "nii.gz")["in.nii.gz"]


def test_two_studies_of_a_patient(model, tmp_path):
    for seed, name in enumerate(("anna/2019", "anna/2020", "bert/2020/mr")):
        write_series(tmp_path / "in" / name, seed)
    segment(tmp_path / "in", model, tmp_path / "out")
    assert files(tmp_path / "out") == results(["anna_2019", "anna_2020", "bert"], "nii.gz")
    segment(tmp_path / "in" / "anna", model, tmp_path / "anna")
    assert files(tmp_path / "anna") == results(["2019", "2020"], "nii.gz")
    # DICOM right in the folder makes it the case; --batch looks at subfolders alone.
    write_series(tmp_path / "in", 7)
    run("segment", tmp_path / "in", "-m", model, "-o", tmp_path / "x").error_line(2)
    result = run("segment", tmp_path / "in", "-m", model, "-o", tmp_path / "each", "--batch")
    assert result.code == 6 and files(tmp_path / "each") == results(["bert"], "nii.gz")


@pytest.mark.parametrize("more", [(), ("--batch",)])
def test_links_make_no_case_twice(model, tmp_path, more):
    """Links upwards, past the input's top too, and sideways; links alone, two of them to one folder."""
    top = tmp_path / "in"
    for seed, folder in enumerate((top / "anna" / "mr", top / "bert", tmp_path / "others" / "carl", tmp_path / "store")):
        write_series(folder, seed)
    for link, target in {"anna/all": "..", "anna/mr/all": "../..", "anna/mr/everything": "../../..", "bert/all": "..",
                         "first/anna": "../anna", "a bert": "bert", "dora": "../store", "emil": "../store"}.items():
        (top / link).parent.mkdir(exist_ok=True)
        (top / link).symlink_to(target)
    segment(top, model, tmp_path / "out", *more)
    assert files(tmp_path / "out") == results(["anna", "bert", "dora"], "nii.gz")
    for name, folder in {"anna": top / "anna" / "mr", "bert": top / "bert", "dora": tmp_path / "store"}.items():
        segment(folder, model, tmp_path / "alone.nii.gz", "--overwrite")
        assert content(tmp_path / "alone.nii.gz") == content(tmp_path / "out" / f"{name}.nii.gz")


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    top = tmp_path_factory.mktemp("many") / "in"
    for i in range(9):
        write_series(top / f"Patient {i} é", i)
    return top


NINE = [f"Patient {i} é" for i in range(9)]


@pytest.mark.parametrize("kind", ["nii.gz", "dcmseg"])
def test_shards_are_disjoint_and_complete(model, many, tmp_path, kind):
    segment(many, model, tmp_path / "all", "--format", kind)
    whole = contents(tmp_path / "all", kind)
    parts = []
    for i in (1, 2):
        segment(many, model, tmp_path / str(i), "--format", kind, "--shard", f"{i}/2")
        parts.append(contents(tmp_path / str(i), kind))
        assert files(tmp_path / str(i)) == results(NINE[i - 1::2], kind)
    assert not set(parts[0]) & set(parts[1]) and {**parts[0], **parts[1]} == whole and len(whole) == 9
    # Into one folder, at once, as an array of jobs does.
    both = [subprocess.Popen(command("segment", many, "-m", model, "-o", tmp_path / "both", "--format", kind, "--shard",
                                     f"{i}/2"), env=environment(), stdout=subprocess.DEVNULL) for i in (1, 2)]
    assert [p.wait(timeout=300) for p in both] == [0, 0]
    assert contents(tmp_path / "both", kind) == whole and files(tmp_path / "both") == results(NINE, kind)


@pytest.mark.parametrize("kind", ["nii.gz", "dcmseg"])
@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_resume_after_an_interruption(model, many, tmp_path, kind, number, code):
    out, options = tmp_path / "out", ("--format", kind, "--step", "0.3", "--threads", "1")
    process = subprocess.Popen(command("segment", many, "-m", model, "-o", out, *options), env=environment(),
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    end = time.time() + 120
    while time.time() < end and process.poll() is None:
        if out.exists() and len(contents(out, kind)) >= 2:
            break
        time.sleep(0.005)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == code
    done, before = contents(out, kind), stamps(out)
    assert 2 <= len(done) < 9
    segment(many, model, out, *options, "--resume")
    after = stamps(out)
    assert files(out) == results(NINE, kind)  # and no temporary of the killed run
    assert all(after[name] == before[name] for name in done)
    segment(many, model, tmp_path / "all", *options)
    assert contents(out, kind) == contents(tmp_path / "all", kind)


def test_resume_sees_another_slice(model, many, tmp_path):
    """The input's hash is over the series' files: what was sent later makes another mask."""
    top = tmp_path / "in"
    for seed, name in enumerate("ab"):
        write_series(top / name, seed)
    segment(top, model, tmp_path / "out", "--format", "dcmseg")
    before = stamps(tmp_path / "out")
    one = pydicom.dcmread(next((top / "a").iterdir()))
    one.ImagePositionPatient = [-10, -20, 40.0]
    one.SOPInstanceUID = generate_uid()
    one.save_as(top / "a" / "late")
    result = segment(top, model, tmp_path / "out", "--format", "dcmseg", "--resume")
    after = stamps(tmp_path / "out")
    assert [n for n in after if after[n] != before[n]] == ["a.dcm", "a.json"], result.out


def test_segmentations_beside_their_patients(model, tmp_path):
    top = tmp_path / "in"
    for seed, name in enumerate("ab"):
        write_series(top / name, seed)
    segment(top, model, top, "--format", "dcmseg")
    assert files(top) == sorted(["a", "b"] + results("ab", "dcmseg"))
    before = stamps(top)
    write_series(top / "c", 3)
    # SEG objects in the folder and in a patient's own are no input.
    os.link(top / "a.dcm", top / "a" / "seg.dcm")
    for more in ((), ("--batch",)):
        segment(top, model, top, "--format", "dcmseg", "--resume", *more)
        assert files(top) == sorted(["a", "b", "c"] + results("abc", "dcmseg"))
        assert all(stamps(top)[n] == before[n] for n in ("a.dcm", "b.dcm"))
    line = run("segment", top / "a.dcm", "-m", model, "-o", tmp_path / "m.nii.gz").error_line(2)
    assert "SegmentationStorage is no CT, MR or PET volume" in line
