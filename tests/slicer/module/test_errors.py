"""What goes wrong is one line and voxmamba's exit code, and leaves nothing."""
import os
import resource
import signal
import subprocess

import pytest
from conftest import save
from driver import MODULE, arguments, call, drive, environment
from volumes import files


@pytest.mark.parametrize("args, word", [
    ((), "0 names"),
    (("one",), "1 names"),
    (("a", "b", "c"), "3 names"),
    (("--lables", "1", "a", "b"), "did you mean --labels"),
    (("--quiet", "a", "b.nii"), "unknown option"),  # voxmamba's own
    (("--removeSmall", "-1", "a", "b.nii"), "--removeSmall"),
    (("--memory", "-1", "a", "b.nii"), "--memory"),
    (("--threads", "-1", "a", "b.nii"), "--threads"),
    (("--step", "x", "a", "b.nii"), "--step"),
    (("--precision", "fp8", "a", "b.nii"), "--precision"),
    (("--statistics", "s.txt", "a", "b.nii"), ".tsv"),
    (("--statistics", "b.tsv", "a", "b.tsv"), "named twice"),
    (("a.nii", "a.nii"), "named twice"),
    (("--model",), "needs a value"),
])
def test_usage(args, word, tmp_path):
    result = call(*args, cwd=tmp_path)
    assert word in result.error_line(1) and result.out == ""
    assert files(tmp_path) == []


def check(result, out, code, word, left=()):
    line = result.check_protocol().error_line(code)
    assert word in line, line
    assert files(out) == list(left)


def test_inputs(scan, out, model, tmp_path):
    check(drive(tmp_path / "gone.nii", out / "m.seg.nrrd", model=model), out, 2, "gone.nii: ")
    (tmp_path / "junk.nii").write_bytes(b"x" * 999)
    check(drive(tmp_path / "junk.nii", out / "m.seg.nrrd", model=model), out, 2, "junk.nii: ")
    save(scan.parent / "second.nii")
    check(drive(scan.parent, out / "m.seg.nrrd", model=model), out, 1, "cases")
    check(drive(scan, scan.parent / ".." / "in" / scan.name, model=model), out, 1, "input")
    assert files(scan.parent) == ["scan.nii", "second.nii"]


def test_models(scan, out, model, tmp_path):
    check(drive(scan, out / "m.seg.nrrd", model="nobody"), out, 3, "nobody: ")
    (tmp_path / "bad.safetensors").write_bytes(b"y" * 99)
    check(drive(scan, out / "m.seg.nrrd", model=tmp_path / "bad.safetensors"), out, 3, "bad.safetensors: ")
    check(drive(scan, out / "m.seg.nrrd", model=model, labels="nose"), out, 1, "nose")
    check(drive(scan, out / "m.seg.nrrd", model=model, step=0), out, 1, "step")


def test_devices(scan, out, model):
    check(drive(scan, out / "m.seg.nrrd", model=model, device="cuda"), out, 5, "CUDA")
    check(drive(scan, out / "m.seg.nrrd", model=model, device="abacus"), out, 1, "abacus")
    check(drive(scan, out / "m.seg.nrrd", model=model, memory=0.001), out, 5, "memory")


@pytest.mark.parametrize("values", [
    {"outputSegmentation": "/proc/m.seg.nrrd"},  # read-only even for root
    {"outputSegmentation": "{out}/none/m.seg.nrrd"},
    {"statistics": "/proc/s.tsv"},
    {"statistics": "{out}/none/s.tsv"},
    {"returns": "{out}/none/r"},
])
def test_outputs_that_cannot_be_made(scan, out, model, values):
    """They are refused before the network runs, and so leave nothing of the others."""
    values = {k: v.format(out=out) for k, v in values.items()}
    result = drive(scan, values.pop("outputSegmentation", out / "m.seg.nrrd"), model=model, **values)
    check(result, out, 4, ": ")
    assert "Segmenting" not in result.stages


@pytest.mark.parametrize("name", ["m", "m.txt", "sub/", "m.mhd"])
def test_outputs_that_are_no_names_of_files(scan, out, model, name):
    """Nor does the library's way with folders, which makes them, apply."""
    result = drive(scan, f"{out}/{name}", model=model)
    assert result.error_line(1) and files(out) == []


def test_an_output_that_is_a_folder(scan, out, model):
    (out / "m.seg.nrrd").mkdir()
    assert drive(scan, out / "m.seg.nrrd", model=model).error_line(1)
    assert files(out / "m.seg.nrrd") == []


def limited(bytes_):
    def set_limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_, bytes_))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    return set_limit


def test_a_full_disk(scan, out, model):
    """A limit of file sizes stands for it. What was there stays."""
    (out / "m.seg.nrrd").write_text("before")
    args = arguments({"device": "cpu", "model": model, "inputVolume": scan, "outputSegmentation": out / "m.seg.nrrd"})
    result = call(*args, preexec_fn=limited(200))
    check(result, out, 4, "m.seg.nrrd: ", ["m.seg.nrrd"])
    assert (out / "m.seg.nrrd").read_text() == "before"


def test_nobody_listens(scan, out, model):
    """Slicer is gone: the run ends, and leaves nothing."""
    process = subprocess.Popen([MODULE, *arguments({"device": "cpu", "model": model, "inputVolume": scan,
                                                    "outputSegmentation": out / "m.seg.nrrd"})],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())
    process.stdout.close()
    err = process.stderr.read()
    assert process.wait() == 4 and len(err.splitlines()) == 1 and "standard output" in err
    assert files(out) == []
    assert os.path.exists(scan)
