"""Slicer cancels by SIGKILL: nothing is left, whenever it comes."""
import os
import signal
import subprocess
import time

import pytest
from conftest import save
from driver import MODULE, SANITIZED, arguments, drive, environment
from volumes import files

HERE = os.path.dirname(os.path.abspath(__file__))


def start(scan, out, model, env=None, **values):
    values = {"device": "cpu", "model": model, "inputVolume": scan, "outputSegmentation": out / "m.seg.nrrd",
              "statistics": out / "s.tsv", **values}
    return subprocess.Popen([MODULE, *arguments(values, out / "r")], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True, env=env or environment())


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Long enough for a signal in the middle."""
    return save(tmp_path_factory.mktemp("large") / "large.nii", shape=(64, 64, 64))


STAGES = ["Starting", "Reading the volume", "Preparing the volume", "Segmenting", "Cleaning up", "Writing the result"]


@pytest.mark.parametrize("before", [False, True], ids=["new", "replaced"])
@pytest.mark.parametrize("stage", STAGES)
def test_kill_at_every_stage(large, out, model, stage, before):
    if before:
        (out / "m.seg.nrrd").write_text("before")
    process = start(large, out, model)
    for line in process.stdout:
        if stage in line:
            break
    process.kill()
    assert process.wait() == -9
    process.stderr.close()
    # Behind the last stage's line the file may be there already, whole.
    left = files(out)
    if stage == STAGES[-1] and "m.seg.nrrd" in left and (out / "m.seg.nrrd").stat().st_size > 6:
        whole = (out / "m.seg.nrrd").read_bytes()
        assert drive(large, out / "again.seg.nrrd", model=model).code == 0
        assert whole == (out / "again.seg.nrrd").read_bytes()
        assert not [f for f in left if f.startswith(".")]
        return
    assert left == ["m.seg.nrrd"] * before
    assert not before or (out / "m.seg.nrrd").read_text() == "before"


def test_kill_at_any_moment(scan, out, model):
    """Delays that cover the whole run; what is there in the end is whole."""
    started = time.monotonic()
    assert drive(scan, out / "whole.seg.nrrd", model=model).code == 0
    seconds = time.monotonic() - started
    whole = (out / "whole.seg.nrrd").read_bytes()
    os.unlink(out / "whole.seg.nrrd")
    killed = 0
    for k in range(40):
        process = start(scan, out, model)
        time.sleep(seconds * k / 36)
        process.kill()
        killed += process.wait() == -9
        process.stdout.close()
        process.stderr.close()
        left = files(out)
        assert set(left) <= {"m.seg.nrrd", "s.tsv", "r"}, left
        assert "m.seg.nrrd" not in left or (out / "m.seg.nrrd").read_bytes() == whole
        assert "s.tsv" not in left or (out / "s.tsv").read_text().count("\n") == 3
        for name in left:
            os.unlink(out / name)
    assert killed > 10


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_signals_that_can_be_heard(large, out, model, number, code):
    process = start(large, out, model, tta=True)
    for line in process.stdout:
        if "Segmenting" in line:
            break
    process.send_signal(number)
    rest, err = process.communicate()
    assert process.returncode == code and "stopped by a signal" in err and len(err.splitlines()) == 1
    assert rest.endswith("</filter-end>\n") and "<filter-progress>1.0" not in rest
    assert files(out) == []


# ---- At the system calls that make a file appear ----

@pytest.fixture(scope="module")
def hang(tmp_path_factory):
    if SANITIZED:
        pytest.skip("the address sanitizer wants to be the first library")
    library = tmp_path_factory.mktemp("hang") / "hang.so"
    subprocess.run([os.environ.get("VOXMAMBA_CC", "cc"), "-shared", "-fPIC", "-O1", os.path.join(HERE, "hang.c"), "-o",
                    library, "-ldl"], check=True)
    return library


def kill_in(call, hang, scan, out, model, tmp_path, **more):
    mark = tmp_path / "mark"
    process = start(scan, out, model, environment(LD_PRELOAD=hang, HANG=call, MARK=mark, **more))
    deadline = time.monotonic() + 60
    while not mark.exists():
        assert process.poll() is None and time.monotonic() < deadline, "the call never came"
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -9
    process.stdout.close()
    process.stderr.close()
    os.unlink(mark)


def nameless_files(folder):
    try:
        os.close(os.open(folder, os.O_TMPFILE | os.O_RDWR))
        return True
    except OSError:
        return False


@pytest.mark.parametrize("before", [False, True], ids=["new", "replaced"])
@pytest.mark.parametrize("call", ["fsync", "linkat", "rename"])
def test_kill_in_a_system_call(hang, scan, out, model, tmp_path, call, before):
    if not nameless_files(out):
        pytest.skip("this file system has no nameless files")
    if before:
        (out / "m.seg.nrrd").write_text("before")
    if call == "rename" and not before:
        return  # a new file needs none
    kill_in(call, hang, scan, out, model, tmp_path)
    left = files(out)
    # Between linkat and rename, and only there, the new file has a name of its own: the next run sweeps it.
    hidden = [f for f in left if f.startswith(".m.seg.nrrd.voxmamba-")]
    assert len(hidden) == (call == "rename"), left
    assert [f for f in left if f not in hidden] == ["m.seg.nrrd"] * before
    assert not before or (out / "m.seg.nrrd").read_text() == "before"
    assert drive(scan, out / "m.seg.nrrd", model=model).code == 0
    assert files(out) == ["m.seg.nrrd"]


@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_file_systems_without_nameless_files(hang, scan, out, model, tmp_path, call):
    """There a killed run leaves a hidden temporary, and never a part under the output's name; the next run sweeps it."""
    kill_in(call, hang, scan, out, model, tmp_path, NO_TMPFILE=1)
    left = files(out)
    assert len(left) == 1 and left[0].startswith(".m.seg.nrrd.voxmamba-"), left
    env = environment(LD_PRELOAD=hang, NO_TMPFILE=1)
    result = drive(scan, out / "m.seg.nrrd", returns=out / "r", model=model, env=env, statistics=out / "s.tsv")
    assert result.code == 0, result.err
    assert files(out) == ["m.seg.nrrd", "r", "s.tsv"]
